"""How fast is training on wide peaks?  Beside scvi-tools in the same run, and the kernels beside what the processor can do.

    python benchmarks/speed.py [--part kernels|race|growth|all] [--scvi PYTHON] [--cells N] [--peaks N] [--seconds S] [--write]

``kernels``: a minibatch of 256 cells x 100,000 peaks, 3 % open: first layer and decoder beside their dense forms in torch, and
beside the matrix products alone that a decoder of this shape cannot do without.  ``race``: CPU seconds of training to one
held-out loss, the binary cross-entropy per entry of cells that no training sees; simulated cells; turns alternate; learning rates
are tuned before, on 2,000 cells, for both sides alike.  ``growth``: seconds of an epoch with more cells, peaks and genes.
What was measured is kept in results/speed.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from common import HERE, between, xmodal

RESULTS = HERE / "results" / "speed.json"
CELLS, PEAKS, SHARE = 256, 100_000, 0.03  # of the minibatch
RATES = {"crossmp": (0.0025, 0.005, 0.01), "MULTIVI": (1e-4, 1e-3, 3e-3), "PEAKVI": (1e-4, 1e-3, 3e-3)}
TUNED_ON, TUNED_FOR, HELD = 2_000, 60.0, 500  # cells, CPU seconds, held-out cells
Row = dict[str, float]
log = logging.getLogger("speed")


# ---- kernels


def best(work: Callable[[], object], times: int = 5) -> float:
    """Least CPU milliseconds of several runs: other work on the machine only adds."""
    work()
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return 1e3 * min(found)


def kernels() -> dict[str, Row]:
    """Milliseconds of CPU, for decoders of two widths."""
    from xmodal.kernels.rows import Rows

    opened = sp.random(CELLS, PEAKS, SHARE, format="csr", dtype=np.float32, random_state=0)
    opened.data[:] = 1
    rows = Rows.of(opened)
    return {f"hidden {width}": {**first_layer(rows, width), **decoder(rows, width)} for width in (64, 256)}


def first_layer(rows: Any, width: int) -> Row:
    from xmodal.kernels import products

    dense, weight = rows.dense(), torch.randn(rows.width, width, requires_grad=True)

    def step(x: Any) -> None:
        weight.grad = None
        out = products.times(x, weight) if x is rows else x @ weight
        out.sum().backward()

    return {"first layer, sparse": best(lambda: step(rows)), "first layer, dense": best(lambda: step(dense))}


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
            for low in range(0, PEAKS, losses.CHUNK):
                some = layer[0][low : low + losses.CHUNK]
                logits = hidden @ some.T
                torch.mm(logits, some)
                torch.mm(logits.T, hidden)

    found = {"decoder, dense": best(lambda: step(False)), "decoder, fused with value": best(lambda: step(True))}
    found |= {"decoder, fused": best(unvalued), "matrix products alone": best(products_alone)}
    return found | {"share of the products' speed": found["matrix products alone"] / found["decoder, fused"]}


# ---- race


def simulated(folder: Path, cells: int, peaks: int, genes: int = 2_000) -> Path:
    """A prepared file; whole batches are held out."""
    shape = ("--cells", cells, "--genes", genes, "--peaks", peaks, "--open", SHARE, "--no-rates", "--seed", 1)
    xmodal("simulate", "--output-dir", folder / "made", *shape, "--threads", ARGS.threads)
    xmodal(
        "prepare", "--h5mu", folder / "made/paired.h5mu", "--min-peak-fraction", 0, "--output", folder / "cells.h5mu"
    )
    return folder / "cells.h5mu"


def epochs_of_ours(path: Path, rate: float, seed: int, most: int | None = None) -> Iterator[Row]:
    """crossmp, epoch by epoch, by the one training loop: seconds so far, and the held-out loss outside the clock."""
    from xmodal.data import io
    from xmodal.data.batches import cells_of
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.learning import training
    from xmodal.models.crossmp import CrossMP, CrossMPSettings

    mdata = io.read_cells(path)
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata, None))
    train, held = (cells.subset(rows) for rows in parts(len(cells), seed, most))
    torch.manual_seed(seed)
    device, clock = torch.device("cpu"), Clock()
    settings = CrossMPSettings(learning_rate=rate)
    with clock:
        model = CrossMP(settings, cells.vocabulary)
        model.prepare(train)
        running = training.start(model, seed)
    while True:
        model.train()
        with clock:
            training.one_pass(running, settings, train, device)
        loss = training.evaluate(model, held, settings.batch_size, device)["atac_to_atac"] / settings.binary_weight
        yield {"cpu": clock.cpu, "wall": clock.wall, "held": loss}


class Clock:
    """CPU and wall seconds spent inside."""

    cpu = wall = 0.0

    def __enter__(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time() - self._began[0]
        self.wall += time.perf_counter() - self._began[1]


def parts(cells: int, seed: int, most: int | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Training and held-out cells, sorted."""
    order = np.random.default_rng(seed).permutation(cells)
    held, train = order[:HELD], order[HELD:][:most]
    return np.sort(train), np.sort(held)


def epochs_of_scvi(name: str, path: Path, rate: float, seed: int, most: int | None, seconds: float) -> Iterator[Row]:
    """The same of scvi-tools, in its own Python."""
    import mudata as mu

    mdata = mu.read_h5mu(path)
    train, held = parts(mdata.n_obs, seed, most)
    rows = np.sort(np.concatenate([train, held]))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for m in ("rna", "atac"):
            part = ad.AnnData(sp.csr_matrix(mdata.mod[m].X)[rows], var=mdata.mod[m].var[[]])
            part.obs_names = mdata.obs_names[rows].astype(str)
            part.obs["part"] = np.where(np.isin(rows, held), "held", "train")
            files.append(Path(folder, f"{m}.h5ad"))
            part.write_h5ad(files[-1])
        command = [ARGS.scvi, HERE / "speed_scvi.py", name, *files, rate, seconds, ARGS.threads, seed]
        with subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if line.startswith("{"):
                    yield json.loads(line)


def course(name: str, path: Path, rate: float, seed: int, most: int | None, seconds: float) -> list[Row]:
    """All epochs until the CPU seconds are over, or the loss has not become better for ten."""
    found: list[Row] = []
    ours = name == "crossmp"
    rows = epochs_of_ours(path, rate, seed, most) if ours else epochs_of_scvi(name, path, rate, seed, most, seconds)
    for row in rows:
        found.append(row)
        log.info("%s, rate %g, seed %d: %s", name, rate, seed, {k: round(v, 5) for k, v in row.items()})
        losses = [r["held"] for r in found]
        if row["cpu"] > seconds or len(found) - int(np.argmin(losses)) > 10:
            break
    return found


def race() -> dict[str, Any]:
    """The rates that were chosen, and each course; the loss to reach is the best that the slower learner came to."""
    names = ["crossmp", *(("MULTIVI", "PEAKVI") if ARGS.scvi else ())]
    with tempfile.TemporaryDirectory() as temporary:
        path = simulated(Path(temporary), ARGS.cells, ARGS.peaks)
        rates = {}
        for name in names:
            tried = {r: min(x["held"] for x in course(name, path, r, 99, TUNED_ON, TUNED_FOR)) for r in RATES[name]}
            rates[name] = min(tried, key=lambda r: tried[r])
        runs = {
            f"{n}, seed {s}": course(n, path, rates[n], s, None, ARGS.seconds) for s in range(ARGS.seeds) for n in names
        }
    return {"cells": ARGS.cells, "peaks": ARGS.peaks, "threads": ARGS.threads, "rates": rates, "runs": runs}


def to_loss(run: list[Row], loss: float, clock: str = "cpu") -> float:
    """Seconds until ``loss`` was reached, interpolated between epochs; nan where it was not."""
    before = None
    for row in run:
        if row["held"] <= loss:
            if before is None:
                return row[clock]
            part = (before["held"] - loss) / max(before["held"] - row["held"], 1e-12)
            return before[clock] + part * (row[clock] - before[clock])
        before = row
    return float("nan")


# ---- growth


def growth() -> dict[str, float]:
    """CPU seconds of crossmp's second epoch."""
    found = {}
    shapes = [(2_000, 20_000, 2_000), (8_000, 20_000, 2_000), (2_000, 80_000, 2_000), (2_000, 20_000, 8_000)]
    for cells, peaks, genes in shapes:
        with tempfile.TemporaryDirectory() as temporary:
            path = simulated(Path(temporary), cells + HELD, peaks, genes)
            rows = epochs_of_ours(path, 0.005, 0)
            first, second, third = (next(rows)["cpu"] for _ in range(3))
        found[f"{cells} x {peaks} peaks, {genes} genes"] = min(second - first, third - second)
        log.info("%s", found)
    return found


# ---- tables


def tables(known: dict[str, Any]) -> str:
    lines: list[str] = []
    if "kernels" in known:
        columns = list(known["kernels"])
        lines += ["| 256 cells x 100,000 peaks, 3 % open; ms of CPU | " + " | ".join(columns) + " |"]
        lines += ["|---|" + "---|" * len(columns)]
        for name in known["kernels"][columns[0]]:
            form = "{:.2f}" if name.startswith("share") else "{:.0f}"
            lines.append(f"| {name} | " + " | ".join(form.format(known["kernels"][c][name]) for c in columns) + " |")
    if "race" in known:
        lines += ["", *race_lines(known["race"])]
    if "growth" in known:
        lines += ["", "| an epoch of crossmp | CPU s |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in known["growth"].items()]
    return "\n".join(lines)


def race_lines(found: dict[str, Any]) -> list[str]:
    about = f"{found['cells']} cells x {found['peaks']} peaks, {found['threads']} thread(s); rates {found['rates']}"
    lines = [
        about,
        "",
        "| seed | held-out loss | model | best loss | CPU s to the loss | wall s | ratio of CPU |",
        "|---|" + "---|" * 6,
    ]
    for seed in sorted({name.rpartition(" ")[2] for name in found["runs"]}):
        runs = {n.partition(",")[0]: r for n, r in found["runs"].items() if n.endswith(f"seed {seed}")}
        for other in [n for n in runs if n != "crossmp"]:
            loss = max(min(r["held"] for r in runs[n]) for n in ("crossmp", other))
            for name in ("crossmp", other):
                cpu, wall = (to_loss(runs[name], loss, clock) for clock in ("cpu", "wall"))
                ratio = cpu / to_loss(runs["crossmp"], loss)
                lowest = min(r["held"] for r in runs[name])
                lines.append(f"| {seed} | {loss:.5f} | {name} | {lowest:.5f} | {cpu:.0f} | {wall:.0f} | {ratio:.1f} |")
    return lines


PARTS: dict[str, Callable[[], Any]] = {"kernels": kernels, "race": race, "growth": growth}


def main() -> None:
    torch.set_num_threads(ARGS.threads)
    for name in PARTS if ARGS.part == "all" else ARGS.part.split(","):
        found = PARTS[name]()
        known = {**(json.loads(RESULTS.read_text()) if RESULTS.exists() else {}), name: found}
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    text = tables(json.loads(RESULTS.read_text()))
    if ARGS.write:
        between(HERE / "RESULTS.md", "speed", text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", help=", ".join([*PARTS, "all"]))
    parser.add_argument("--scvi", help="the Python of an environment with benchmarks/peers/scvi.txt")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--peaks", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1800, help="CPU seconds that each training has")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    ARGS = parser.parse_args()
    main()
