"""How fast a command starts in our image, and what the image's compiled functions save an evaluation.

Run as `PYTHONPATH=tests .venv/bin/python benchmarks/containers.py` after `make containers`, whose own lines say how long the
builds took.  Prints Markdown tables for RESULTS.md.
"""

from __future__ import annotations

import re
import statistics
import time

from helpers_containers import engine, image

REPEATS = 7
EVALUATE = """
set -e
xmodal simulate --output-dir sim --cells 600 --quiet >&2
xmodal prepare --h5mu sim/paired.h5mu --split-by batch --output cells.h5mu --quiet >&2
xmodal train cells.h5mu --model mean --output-dir model --quiet >&2
xmodal predict cells.h5mu --from rna --to atac --checkpoint model/model.safetensors --output atac.h5ad --quiet >&2
TIMEFORMAT='%R %U'
evaluate() {
    rm -rf "$NUMBA_CACHE_DIR" scores
    time xmodal evaluate cells.h5mu --prediction atac=atac.h5ad --output-dir scores --quiet >&2
}
for turn in 1 2 3; do
    echo with; evaluate
    echo without; NUMBA_CPU_NAME=generic evaluate
done 2>&1
"""


def start(command: str) -> str:
    """A row: seconds of ``command`` in a fresh container."""
    found, name, seconds = engine(), image("cpu"), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = found.run(name, *command.split())
        seconds.append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(done.stderr)
    return f"| `{command}` | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |"


def evaluation() -> list[str]:
    """Rows: an evaluation whose numba finds its functions, and one for another processor, which finds none, in turns."""
    done = engine()("run", "--rm", "--no-healthcheck", "--network", "none", "--workdir", "/tmp", image("cpu"),
                    "bash", "-c", EVALUATE, timeout=900)  # fmt: skip
    found = re.findall(r"^(with|without)$(?s:.*?)^([\d.]+) ([\d.]+)$", done.stdout, re.M)
    rows = []
    for kind, words in (("with", "image's cache"), ("without", "empty cache")):
        wall, cpu = ([float(m[i]) for m in found if m[0] == kind] for i in (1, 2))
        rows.append(f"| {words} | {min(wall):.1f} | {statistics.median(wall):.1f} | {statistics.median(cpu):.1f} |")
    return rows


def main() -> None:
    lines = ["| in a fresh container | best s | median s | worst s |", "|---|---|---|---|"]
    lines += [start(command) for command in ("true", "xmodal --version", "xmodal models")]
    lines += [
        "",
        "| `xmodal evaluate`, 600 cells | best s | median s | median CPU s |",
        "|---|---|---|---|",
        *evaluation(),
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
