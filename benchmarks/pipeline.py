"""What Nextflow adds to a command, and what a second Slurm node saves.

Run as `PYTHONPATH=tests .venv/bin/python benchmarks/pipeline.py`. The second part needs Debian's slurm-wlm
and munge, and root (see tests/helpers_slurm.py); without them it says so.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import XMODAL, between, xmodal
from speed_predict import repeated

import helpers_slurm
from helpers_nextflow import ROOT, TESTDATA, nextflow, pipeline

REPEATS = 5
CELLS, SHARDS, TOP = 60_000, 4, 100
ONE = f"""
include {{ XMODAL_CHECK }} from '{ROOT}/modules/crossmodal/xmodal/check/main'

workflow {{
    XMODAL_CHECK(channel.of(1).map {{ [[id: 'one'], ['rna'], [file('{TESTDATA}/rna.h5ad')], []] }})
}}
"""


def seconds(text: str) -> float:
    """``1m 3.5s`` or ``850ms`` of a trace."""
    sizes = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(part.rstrip("msh")) * sizes[part.lstrip("0123456789.")] for part in text.split())


def rows(table: Path) -> list[dict[str, str]]:
    head, *lines = [line.split("\t") for line in table.read_text().splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


def overhead(folder: Path, config: str | None = None) -> str:
    """Seconds of a task (staging, the command, its version, unstaging) beside those of the command alone, in turns.

    ``config``: of Nextflow, such as one that runs the task in a container.
    """
    site = ("-c", str(Path(config).resolve())) if config else ()
    (folder / "main.nf").write_text(ONE)
    alone, tasks = [], []
    for turn in range(REPEATS):
        began = time.perf_counter()
        xmodal("check", "--threads", 1, "--json", folder / f"{turn}.json", f"rna={TESTDATA / 'rna.h5ad'}")
        alone.append(time.perf_counter() - began)
        run = nextflow(folder, *site, "run", "main.nf", "-with-trace", f"{turn}.txt")
        if run.returncode:
            raise SystemExit(run.stdout)
        tasks.append(seconds(rows(folder / f"{turn}.txt")[0]["realtime"]))
    command, task = statistics.median(alone), statistics.median(tasks)
    return (
        f"- `xmodal check` alone {command:.2f} s, as a task of XMODAL_CHECK {task:.2f} s: the module adds {task - command:.2f} s "
        f"(median of {REPEATS} in turns, {f'with {Path(config).name}' if config else 'no container'})"
    )


def many_cells(folder: Path) -> tuple[Path, Path]:
    """A samplesheet of one large sample, and a model for it."""
    sim = folder / "sim"
    xmodal("simulate", "--output-dir", sim, "--cells", 3_000, "--genes", 400, "--peaks", 3_000, "--no-rates")
    xmodal("prepare", "--h5mu", sim / "paired.h5mu", "--output", folder / "few.h5mu")
    xmodal("train", folder / "few.h5mu", "--set", "epochs=5", "--output-dir", folder / "model", "--threads", 2)
    cells = repeated(folder / "few.h5mu", CELLS)
    cells.mod["rna"].write_h5ad(folder / "rna.h5ad", compression="gzip", compression_opts=1)
    sheet = folder / "sheet.csv"
    sheet.write_text(f"sample,role,rna\nmany,predict,{folder / 'rna.h5ad'}\n")
    return sheet, folder / "model/model.safetensors"


def shards(folder: Path) -> str:
    """Wall seconds of the prediction step on one node and on two, each node with one core."""
    if why := helpers_slurm.why_not():
        return f"- Slurm: skipped, because {why}"
    sheet, model = many_cells(folder)
    took: dict[str, list[float]] = {"cpu": [], "both": []}
    with helpers_slurm.running(folder / "cluster") as cluster:
        os.environ.update({name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")})
        for turn in range(2):
            for queue in took:
                here = folder / f"{queue}{turn}"
                here.mkdir()
                ask = f"process {{ queue = '{queue}'; withName: XMODAL_PREDICT {{ ext.args = '--top {TOP}' }} }}"
                (here / "site.config").write_text(f"{helpers_slurm.NEXTFLOW}\n{ask}\n")
                given = ("--input", str(sheet), "--checkpoint", str(model), "--shards", str(SHARDS), "--skip_multiqc")
                run = pipeline(here, "-c", "site.config", "-profile", "slurm", "--outdir", "out", *given, timeout=1500)
                if run.returncode:
                    raise SystemExit(run.stdout)
                parts = [
                    row
                    for row in rows(here / "out/pipeline_info/execution_trace.txt")
                    if "XMODAL_PREDICT" in row["name"]
                ]
                took[queue].append(span(parts))
                sys.stderr.write(f"{queue}: {took[queue][-1]:.1f} s\n")
    one, two = (min(values) for values in took.values())
    return (
        f"- {CELLS:,} cells x 3,000 peaks (`auto`, --top {TOP}) in {SHARDS} shards over a real Slurm whose nodes have one core "
        f"each: one node {one:.0f} s, two nodes {two:.0f} s, {one / two:.2f} times as fast (best of 2, in turns)"
    )


def span(parts: list[dict[str, str]]) -> float:
    """From the first shard's submission to the last one's end."""
    from datetime import datetime

    begins = [datetime.fromisoformat(part["submit"]).timestamp() for part in parts]
    ends = [begin + seconds(part["duration"]) for begin, part in zip(begins, parts, strict=True)]
    return max(ends) - min(begins)


def main() -> None:
    """Measure both and put the lines between the markers of RESULTS.md."""
    os.environ["OMP_NUM_THREADS"] = "1"
    subprocess.run([XMODAL, "--version"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if sys.argv[1:]:  # a configuration of Nextflow: only what a task in its container takes
            sys.stderr.write(overhead(folder, sys.argv[1]) + "\n")
            return
        lines = [overhead(folder), shards(folder)]
    between(Path(__file__).with_name("RESULTS.md"), "pipeline", "\n".join(lines))
    sys.stderr.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
