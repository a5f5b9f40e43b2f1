"""CPU seconds of training to one held-out loss: crossmp beside MULTIVI and PEAKVI of scvi-tools, turn by turn in one run.

The loss is the binary cross-entropy per entry of cells that no training sees, on the same peaks, computed outside the clock.
"""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from common import HERE, REAL, xmodal

OURS = "crossmp"
RATES = {OURS: (0.0025, 0.005, 0.01), "MULTIVI": (1e-4, 1e-3, 3e-3), "PEAKVI": (1e-4, 1e-3, 3e-3)}
# model, fused AdamW, width (0: its default, the root of the number of peaks) of each peer
PEERS = {
    "MULTIVI": ("MULTIVI", 0, 0),
    "MULTIVI, fused AdamW": ("MULTIVI", 1, 0),
    "MULTIVI, 64 wide, fused AdamW": ("MULTIVI", 1, 64),
    "PEAKVI": ("PEAKVI", 0, 0),
    "PEAKVI, 64 wide, fused AdamW": ("PEAKVI", 1, 64),
}
TUNED_ON, HELD, PATIENCE = 2_000, 500, 10  # cells, held-out cells, epochs without a better loss
Row = dict[str, float]
Run = list[Row]
log = logging.getLogger("speed")


@dataclass(frozen=True)
class Track:
    """What is raced on, for how long.  ``scvi``: a Python that has scvi-tools; ``seconds``, ``tuned_for``: CPU seconds."""

    cells: Path
    scvi: str
    seconds: float
    tuned_for: float
    threads: int


def simulated(folder: Path, shape: tuple[int, int, int], threads: int, opened: float = 0.03) -> Path:
    """A prepared file of ``shape`` = (cells, genes, peaks)."""
    cells, genes, peaks = shape
    asked = ("--cells", cells, "--genes", genes, "--peaks", peaks, "--open", opened, "--no-rates", "--seed", 1)
    xmodal("simulate", "--output-dir", folder / "made", *asked, "--threads", threads)
    xmodal(
        "prepare", "--h5mu", folder / "made/paired.h5mu", "--min-peak-fraction", 0, "--output", folder / "cells.h5mu"
    )
    return folder / "cells.h5mu"


def cortex(folder: Path) -> Path:
    """The mouse cortex, prepared."""
    source = ("--h5mu", REAL / "mouse_cortex_snareseq_dev" / "paired.h5mu", "--exclude", "cell_type=Mis")
    xmodal("prepare", *source, "--split-by", "batch", "--output", folder / "cells.h5mu")
    return folder / "cells.h5mu"


def parts(cells: int, seed: int, most: int | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Training and held-out cells, sorted."""
    order = np.random.default_rng(seed).permutation(cells)
    held, train = order[:HELD], order[HELD:][:most]
    return np.sort(train), np.sort(held)


class Clock:
    """CPU and wall seconds spent inside."""

    cpu = wall = 0.0

    def __enter__(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time() - self._began[0]
        self.wall += time.perf_counter() - self._began[1]


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
    size = sum(p.numel() for p in model.parameters())
    while True:
        model.train()
        with clock:
            training.one_pass(running, settings, train, device)
        loss = training.evaluate(model, held, settings.batch_size, device)["atac_to_atac"] / settings.binary_weight
        yield {"cpu": clock.cpu, "wall": clock.wall, "held": loss, "parameters": size}


def epochs_of_scvi(name: str, track: Track, rate: float, seed: int, most: int | None, seconds: float) -> Iterator[Row]:
    """The same of scvi-tools, in its own Python."""
    import mudata as mu

    mdata = mu.read_h5mu(track.cells)
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
        del mdata
        command = [track.scvi, HERE / "speed_scvi.py", *PEERS[name], *files, rate, seconds, track.threads, seed]
        with subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            run.terminate()  # where the reader has seen enough


def course(name: str, track: Track, rate: float, seed: int, most: int | None, seconds: float) -> Run:
    """All epochs until the CPU seconds are over, or the loss has not become better for ten."""
    found: Run = []
    rows = (
        epochs_of_ours(track.cells, rate, seed, most)
        if name == OURS
        else epochs_of_scvi(name, track, rate, seed, most, seconds)
    )
    for row in rows:
        found.append(row)
        losses = [r["held"] for r in found]
        if row["cpu"] > seconds or len(found) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    if not found:
        raise SystemExit(f"{name} did not finish an epoch: run {HERE / 'speed_scvi.py'} by hand to see why")
    log.info("%s, rate %g, seed %d: %d epochs, %s", name, rate, seed, len(found), found[-1])
    return found


def race(track: Track, names: list[str], seeds: int) -> dict[str, Any]:
    """The rates that were chosen, and each course; turns alternate."""
    rates: dict[str, float] = {}
    for name in names:
        kind = OURS if name == OURS else PEERS[name][0]
        tried = {r: min(x["held"] for x in course(name, track, r, 99, TUNED_ON, track.tuned_for)) for r in RATES[kind]}
        rates[name] = min(tried, key=lambda r: tried[r])
    runs = {f"{n}; {s}": course(n, track, rates[n], s, None, track.seconds) for s in range(seeds) for n in names}
    return {"threads": track.threads, "seconds": track.seconds, "rates": rates, "runs": runs}


def to_loss(run: Run, loss: float, clock: str = "cpu") -> float:
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


def lines(found: dict[str, Any]) -> list[str]:
    """A table: for each peer and seed the best loss that both came to, and what it cost either."""
    table = [
        f"{found['about']}; {found['threads']} thread(s), at most {found['seconds']:.0f} CPU s each; "
        f"rates {found['rates']}",
        "",
        "| peer | seed | its parameters / ours | best loss, peer | best loss, crossmp | loss to reach | CPU s, peer "
        "| CPU s, crossmp | **ratio of CPU** | ratio of wall | CPU s an epoch, peer / crossmp |",
        "|---|" + "---|" * 10,
    ]
    seeds = sorted({name.rpartition("; ")[2] for name in found["runs"]})
    for peer in [n for n in PEERS if f"{n}; 0" in found["runs"]]:
        for seed in seeds:
            ours, theirs = found["runs"][f"{OURS}; {seed}"], found["runs"][f"{peer}; {seed}"]
            table.append(f"| {peer} | {seed} | {_beside(ours, theirs)} |")
    return table


def _beside(ours: Run, theirs: Run) -> str:
    best = {k: min(r["held"] for r in run) for k, run in (("ours", ours), ("theirs", theirs))}
    loss = max(best.values())
    (cpu, own), (wall, own_wall) = ([to_loss(run, loss, c) for run in (theirs, ours)] for c in ("cpu", "wall"))
    epoch = [run[-1]["cpu"] / len(run) for run in (theirs, ours)]
    size = f"{theirs[0]['parameters'] / 1e6:.1f} M / {ours[0]['parameters'] / 1e6:.1f} M"
    numbers = f"{best['theirs']:.5f} | {best['ours']:.5f} | {loss:.5f} | {cpu:.0f} | {own:.0f}"
    return f"{size} | {numbers} | {cpu / own:.1f} | {wall / own_wall:.1f} | {epoch[0]:.1f} / {epoch[1]:.1f}"


def picture(found: dict[str, Any], out: Path) -> None:
    """Held-out loss over CPU seconds, one line for each model, seed 0."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in [OURS, *PEERS]:
        if run := found["runs"].get(f"{name}; 0"):
            own = {"linewidth": 2.5, "color": "black"} if name == OURS else {}
            axes.plot([r["cpu"] for r in run], [r["held"] for r in run], marker=".", label=name, **own)
    axes.set(xscale="log", xlabel="CPU seconds of training", ylabel="held-out cross-entropy per entry")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(found["about"], fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=120)
