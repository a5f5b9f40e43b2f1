"""How fast is training on wide peaks?  Beside scvi-tools in the same run, and the kernels beside what the processor can do.

    python benchmarks/speed.py [--part kernels|race|race_wide|race_cortex|growth|precision|all] [--scvi PYTHON]
                               [--cells N] [--peaks N] [--write]

``kernels``: a minibatch of 256 cells x 100,000 peaks, 3 % open: first layer and decoder beside their dense forms in torch, and
beside the matrix products alone that a decoder of this shape cannot do without.  ``race``, ``race_wide``, ``race_cortex``: CPU
seconds of training to one held-out loss (speed_race.py) on simulated cells (--cells x --peaks; 10,000 x 100,000) and on the
mouse cortex; turns alternate; learning rates are tuned before, on 2,000 cells, for both sides alike.
``growth``: seconds of an epoch with more cells, peaks and genes.
``precision``: fp32 and bf16 side by side (speed_precision.py; ``--of step+epoch+simulated+cortex``).
What was measured is kept in results/speed.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import speed_precision
import speed_race
import torch
import torch.nn.functional as F
from common import HERE, REAL, between

from xmodal import caches

RESULTS = HERE / "results" / "speed.json"
CELLS, PEAKS, SHARE, GENES = 256, 100_000, 0.03, 20_000  # of the minibatch
WIDE = 10_000, 100_000  # cells and peaks of the widest race
Row = dict[str, float]
log = logging.getLogger("speed")


# ---- kernels


def beside(works: dict[str, Callable[[], object]], times: int = 15) -> Row:
    """Median CPU milliseconds of each, taken in turns, since the machine is never alone for long."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(times + 1):
        for name, work in works.items():
            began = time.process_time()
            work()
            if turn:
                found[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(each)) for name, each in found.items()}


def kernels() -> dict[str, Any]:
    """Milliseconds of CPU, for decoders of two widths, and of which ``processor``: products gain more from wide registers."""
    from xmodal.kernels.rows import Rows

    opened = sp.random(CELLS, PEAKS, SHARE, format="csr", dtype=np.float32, random_state=0)
    opened.data[:] = 1
    rows = Rows.of(opened)
    return {"processor": processor()} | {
        f"hidden {width}": {**first_layer(rows, width), **decoder(rows, width), **counts(width)} for width in (64, 256)
    }


def processor() -> str:
    """Its name, and the widest registers that torch uses."""
    lines = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{lines[0] if lines else 'unknown'}, {torch.backends.cpu.get_cpu_capability()}"


def first_layer(rows: Any, width: int) -> Row:
    from xmodal.kernels import products

    dense, weight = rows.dense(), torch.randn(rows.width, width, requires_grad=True)

    def step(x: Any) -> None:
        weight.grad = None
        out = products.times(x, weight) if x is rows else x @ weight
        out.sum().backward()

    return beside({"first layer, sparse": lambda: step(rows), "first layer, dense": lambda: step(dense)})


def decoder(rows: Any, width: int) -> Row:
    from xmodal.kernels import losses

    dense, share = rows.dense(), torch.full((CELLS,), 1 / (CELLS * PEAKS))
    layer = torch.randn(PEAKS, width).mul_(0.1).requires_grad_(), torch.full((PEAKS,), -3.0, requires_grad=True)
    hidden = torch.randn(CELLS, width, requires_grad=True)

    def step(fused: bool) -> None:
        for x in (*layer, hidden):
            x.grad = None
        if fused:
            losses.bernoulli(hidden, layer, rows, share).backward()
        else:
            F.binary_cross_entropy_with_logits(F.linear(hidden, *layer), dense).backward()

    def unvalued() -> None:
        with losses.without_values():
            step(True)

    def products_alone() -> None:
        """The three of forward and backward, in the same chunks."""
        with torch.no_grad():
            for low in range(0, PEAKS, losses.CHUNK // CELLS):
                some = layer[0][low : low + losses.CHUNK // CELLS]
                logits = hidden @ some.T
                torch.mm(logits, some)
                torch.mm(logits.T, hidden)

    ours = {"decoder, fused with value": lambda: step(True), "decoder, fused": unvalued}
    found = beside({"decoder, dense": lambda: step(False), **ours, "matrix products alone": products_alone})
    return found | {"share of the products' speed": found["matrix products alone"] / found["decoder, fused"]}


def counts(width: int) -> Row:
    """Negative binomials of as many genes as there are, a tenth of them found in a cell, with the value of the loss."""
    from xmodal.kernels import count_losses
    from xmodal.kernels.rows import Rows

    found = sp.random(CELLS, GENES, 0.1, format="csr", dtype=np.float32, random_state=0)
    found.data = 1 + np.random.default_rng(0).poisson(1, found.nnz).astype(np.float32)
    rows, share = Rows.of(found), torch.full((CELLS,), 1 / (CELLS * GENES))
    dense, depth = rows.dense(), rows.sums()
    inputs = [torch.randn(CELLS, width), torch.randn(GENES, width).mul_(0.1), torch.zeros(GENES), torch.zeros(GENES)]
    hidden, weight, bias, log_theta = (x.requires_grad_() for x in inputs)

    def step(fused: bool) -> None:
        for x in (hidden, weight, bias, log_theta):
            x.grad = None
        if fused:
            count_losses.negative_binomial(hidden, (weight, bias), log_theta, rows, (share, depth)).backward()
            return
        log_mean = F.log_softmax(F.linear(hidden, weight, bias), 1) + depth.log()[:, None]
        law = torch.distributions.NegativeBinomial(log_theta.exp(), logits=log_mean - log_theta, validate_args=False)
        (-(law.log_prob(dense).sum(1) @ share)).backward()

    name = f"counts of {GENES:,} genes"
    return beside({f"{name}, dense": lambda: step(False), f"{name}, fused with value": lambda: step(True)})


# ---- race and growth


def race(name: str, about: str, path: Path) -> dict[str, Any]:
    track = speed_race.Track(path, ARGS.scvi or "", ARGS.seconds, ARGS.tuned_for, ARGS.threads)
    names = [speed_race.OURS, *(ARGS.peers.split(";") if ARGS.scvi else ())]
    found = {"about": about, **speed_race.race(track, names, ARGS.seeds)}
    speed_race.picture(found, HERE / "results" / f"speed_{name}.png")
    return found


def race_simulated(name: str = "race") -> dict[str, Any]:
    cells, peaks = WIDE if name == "race_wide" else (ARGS.cells, ARGS.peaks)
    with tempfile.TemporaryDirectory() as folder:
        path = speed_race.simulated(Path(folder), (cells, 2_000, peaks), ARGS.threads, SHARE)
        return race(name, f"{cells:,} simulated cells x {peaks:,} peaks", path)


def race_cortex() -> dict[str, Any] | None:
    if not (REAL / "mouse_cortex_snareseq_dev").is_dir():
        log.warning("race_cortex: skipped, because there are no cells in %s (XMODAL_REAL_DATA)", REAL)
        return None
    with tempfile.TemporaryDirectory() as folder:
        return race("race_cortex", "mouse cortex", speed_race.cortex(Path(folder)))


def growth() -> dict[str, float]:
    """CPU seconds of an epoch of crossmp, the better of the second and the third: the first makes ready."""
    found = {}
    shapes = [(2_000, 20_000, 2_000), (8_000, 20_000, 2_000), (32_000, 20_000, 2_000)]
    shapes += [(2_000, 80_000, 2_000), (2_000, 20_000, 8_000)]
    for cells, peaks, genes in shapes:
        with tempfile.TemporaryDirectory() as folder:
            path = speed_race.simulated(Path(folder), (cells + speed_race.HELD, genes, peaks), ARGS.threads, SHARE)
            rows = speed_race.epochs_of_ours(path, 0.005, 0)
            first, second, third = (next(rows)["cpu"] for _ in range(3))
        found[f"{cells:,} cells x {peaks:,} peaks, {genes:,} genes"] = min(second - first, third - second)
        log.info("%s", found)
    return found


def precision() -> dict[str, Any]:
    """Kept as it comes; what is not measured now stays as it was."""

    def keep(found: dict[str, Any]) -> None:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known["precision"] = {**known.get("precision", {}), **found}
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")

    speed_precision.measured(ARGS.of, ARGS.threads, keep)
    whole: dict[str, Any] = json.loads(RESULTS.read_text())["precision"]
    return whole


# ---- tables


def tables(known: dict[str, Any]) -> str:
    lines: list[str] = []
    if "kernels" in known:
        columns = [name for name in known["kernels"] if name.startswith("hidden")]
        lines += [
            f"| 256 cells x 100,000 peaks, 3 % open; ms of CPU ({known['kernels']['processor']}) | "
            + " | ".join(columns)
            + " |"
        ]
        lines += ["|---|" + "---|" * len(columns)]
        for name in known["kernels"][columns[0]]:
            form = "{:.2f}" if name.startswith("share") else "{:.0f}"
            lines.append(f"| {name} | " + " | ".join(form.format(known["kernels"][c][name]) for c in columns) + " |")
    for name in ("race", "race_wide", "race_cortex"):
        if name in known:
            lines += ["", *speed_race.lines(known[name]), "", f"![{known[name]['about']}](results/speed_{name}.png)"]
    if "growth" in known:
        lines += ["", "| an epoch of crossmp | CPU s |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in known["growth"].items()]
    return "\n".join(lines)


PARTS: dict[str, Callable[[], Any]] = {
    "kernels": kernels,
    "race": race_simulated,
    "race_wide": partial(race_simulated, "race_wide"),
    "race_cortex": race_cortex,
    "growth": growth,
    "precision": precision,
}


def main() -> None:
    caches.provide()  # as every command does
    torch.set_num_threads(ARGS.threads)
    for name in PARTS if ARGS.part == "all" else ARGS.part.split(","):
        found = PARTS[name]()
        if found is None:
            continue
        known = {**(json.loads(RESULTS.read_text()) if RESULTS.exists() else {}), name: found}
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    known = json.loads(RESULTS.read_text())
    text, precise = tables(known), "\n".join(speed_precision.lines(known.get("precision", {})))
    if ARGS.write:
        between(HERE / "RESULTS.md", "speed", text)
        between(HERE / "RESULTS.md", "precision", precise)
    sys.stdout.write(f"{text}\n{precise}\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", help=", ".join([*PARTS, "all"]))
    parser.add_argument("--scvi", help="the Python of an environment with benchmarks/peers/scvi.txt")
    parser.add_argument("--cells", type=int, default=6_000)
    parser.add_argument("--peaks", type=int, default=60_000)
    parser.add_argument("--seconds", type=float, default=1800, help="CPU seconds that each training has")
    parser.add_argument("--tuned-for", type=float, default=60, help="CPU seconds that each learning rate is tried for")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peers", default=";".join(speed_race.PEERS), help="several with semicolons")
    parser.add_argument("--of", default="step+epoch+simulated+cortex", help="of precision: which of these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    ARGS = parser.parse_args()
    main()
