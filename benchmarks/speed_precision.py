"""What `train --precision bf16` costs and gains beside fp32: a decoder's step, an epoch, and what is predicted in the end.

Turns of the two alternate.  Quality: held-out cells of a simulation (its test cells), and of the mouse cortex two training
batches that a third one's training does not see (fold 0 of trials.py; the batches of the final test are in none of it).
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import trials
from common import REAL, xmodal
from speed_race import Clock, simulated

from xmodal import precision, registry
from xmodal.fields import ATAC, BF16, FP32, RNA, TEST, TRAIN, VALID
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings

KINDS = (FP32, BF16)
MODELS = ("crossmp", "sailerx", "contrastive")
CELLS, PEAKS, SHARE = 256, 60_000, 0.03  # of a minibatch
SEEDS = (0, 1)
CORTEX_CELLS = 1_000  # of each part
Row = dict[str, float]
log = logging.getLogger("speed")


def measured(parts: str, threads: int, keep: Callable[[dict[str, Any]], None]) -> None:
    """``parts``: which of step, epoch, simulated and cortex, joined with +; ``keep`` gets what there is after each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "step" in parts:
            keep({"step": {f"hidden {width}": step(width) for width in (64, 256)}})
        if "simulated" in parts:
            path = simulated(folder / "small", (1_500, 500, 3_000), threads, 0.1)
            quality(parts_of(path), lambda found: keep({"simulated": found}))
        if "cortex" in parts:
            if (REAL / "mouse_cortex_snareseq_dev").is_dir():
                quality(parts_of(cortex(folder), CORTEX_CELLS), lambda found: keep({"cortex": found}))
            else:
                log.warning("cortex: skipped, because there are no cells in %s (XMODAL_REAL_DATA)", REAL)
        if "epoch" in parts:
            path = simulated(
                folder / "wide", (9_000, 2_000, PEAKS), threads, SHARE
            )  # of 16 steps or more half are unmeasured
            keep({"epoch": {m: epochs(path, m) for m in MODELS[:2]}})


def step(width: int, times: int = 11) -> Row:
    """Median CPU milliseconds of decoder and loss, both ways, and of the matrix products alone, in either precision."""
    from xmodal.kernels import losses
    from xmodal.kernels.rows import Rows

    opened = sp.random(CELLS, PEAKS, SHARE, format="csr", dtype=np.float32, random_state=0)
    opened.data[:] = 1
    rows, share = Rows.of(opened), torch.full((CELLS,), 1 / (CELLS * PEAKS))
    layer = torch.randn(PEAKS, width).mul_(0.1).requires_grad_(), torch.full((PEAKS,), -3.0, requires_grad=True)
    hidden, size = torch.randn(CELLS, width, requires_grad=True), losses.CHUNK // CELLS

    def fused(kind: str) -> None:
        for x in (*layer, hidden):
            x.grad = None
        with precision.training_in(kind), precision.step(), losses.without_values():
            losses.bernoulli(hidden, layer, rows, share).backward()  # type: ignore[no-untyped-call]

    numbers = {FP32: torch.float32, BF16: torch.bfloat16}
    given = {k: (layer[0].detach().to(t), hidden.detach().to(t)) for k, t in numbers.items()}

    def alone(kind: str) -> None:
        weight, read = given[kind]
        for low in range(0, PEAKS, size):
            logits = weight[low : low + size] @ read.T
            torch.mm(logits.T, weight[low : low + size])
            torch.mm(logits, read)

    found: dict[str, list[float]] = {}
    for _ in range(times):
        for name, work in (("decoder", fused), ("products alone", alone)):
            for kind in KINDS:
                began = time.process_time()
                work(kind)
                found.setdefault(f"{name}, {kind}", []).append(1e3 * (time.process_time() - began))
    return {name: median(each[1:]) for name, each in found.items()}


def epochs(path: Path, name: str, turns: int = 3) -> Row:
    """CPU and wall seconds of an epoch, the median of some after the first, turns of the two precisions alternating."""
    cells = parts_of(path)[TRAIN]
    model_class = registry.get(name)
    settings = parse_settings(model_class, ())
    running = {}
    for kind in KINDS:
        torch.manual_seed(0)
        model = model_class.build(settings, cells.vocabulary)
        model.prepare(cells)
        running[kind] = training.start(model.train(), 0)
    found: dict[str, list[float]] = {}
    for turn in range(turns + 1):
        for kind in KINDS if turn % 2 else KINDS[::-1]:
            clock = Clock()
            with clock, precision.training_in(kind):
                training.one_pass(running[kind], settings, cells, torch.device("cpu"))  # type: ignore[arg-type]
            if turn:
                found.setdefault(f"CPU s, {kind}", []).append(clock.cpu)
                found.setdefault(f"wall s, {kind}", []).append(clock.wall)
    log.info("epoch of %s: %s", name, found)
    return {about: median(each) for about, each in found.items()}


def cortex(folder: Path) -> Path:
    """Fold 0 of trials.py, of the commoner peaks only, so that many trainings are quick."""
    source, out = REAL / "mouse_cortex_snareseq_dev", folder / "cortex.h5mu"
    scored, valid = trials.FOLDS["0"]
    groups = [
        "--test-groups",
        ",".join(scored),
        "--valid-groups",
        valid,
        *[f"--exclude=batch={b}" for b in trials.FINAL],
    ]
    filters = ["--exclude", "cell_type=Mis", "--min-peak-fraction", 0.02, "--min-rna-counts", 50, "--min-peaks", 15]
    xmodal("prepare", "--h5mu", source / "paired.h5mu", "--output", out, "--split-by", "batch", *groups, *filters)
    return out


def parts_of(path: Path, most: int | None = None) -> dict[str, Any]:
    """Training, validation and test cells of a prepared file, at most so many of each, drawn."""
    from xmodal.data import io
    from xmodal.data.batches import cells_of
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.fields import SPLIT

    mdata = io.read_cells(path)
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata, None))
    split = mdata.obs[SPLIT].to_numpy()
    rows = {part: np.flatnonzero(split == part) for part in (TRAIN, VALID, TEST)}
    drawn = np.random.default_rng(0).permutation
    found = {part: cells.subset(np.sort(drawn(own)[:most])) for part, own in rows.items()}
    log.info(
        "%s",
        {part: len(some) for part, some in found.items()} | {m: len(v) for m, v in cells.vocabulary.modalities.items()},
    )
    return found


def quality(parts: dict[str, Any], keep: Callable[[dict[str, Row]], None]) -> None:
    """Scores of held-out cells and CPU seconds of training, by model, seed and precision."""
    found = {}
    for seed in SEEDS:
        for name in MODELS:
            for kind in KINDS if seed % 2 else KINDS[::-1]:
                found[f"{name}; {seed}; {kind}"] = row = trained(parts, name, seed, kind)
                log.info("%s, seed %d, %s: %s", name, seed, kind, row)
            keep(found)


def trained(parts: dict[str, Any], name: str, seed: int, kind: str) -> Row:
    """Fitted as `xmodal train` does, on training and validation cells."""
    from xmodal.scores import metrics

    model_class = registry.get(name)
    torch.manual_seed(seed)
    model = model_class.build(parse_settings(model_class, ()), parts[TRAIN].vocabulary)
    clock = Clock()
    with clock, precision.training_in(kind):
        fit = training.fit(model, parts[TRAIN], parts[VALID], torch.device("cpu"), seed=seed)
    test = parts[TEST].having(RNA, ATAC)
    genes, peaks = (predicted(model.eval(), test, s, t) for s, t in ((ATAC, RNA), (RNA, ATAC)))
    correlation = metrics.pearson(genes, test.values(RNA), 0)
    auroc = [metrics.ranking(peaks[:, i], np.flatnonzero(x))[0] for i, x in enumerate(columns(test))]
    return {
        "gene r": metrics.mean_of(correlation),
        "peak AUROC": metrics.mean_of(auroc),
        "CPU s": clock.cpu,
        "epochs": len(fit.history),
    }


def columns(cells: Any) -> Iterator[Any]:
    """What is open of each peak, (cells,)."""
    return iter(cells.values(ATAC).T > 0)


@torch.no_grad()
def predicted(model: Any, cells: Any, source: str, target: str) -> Any:
    batches = (cells.batch(slice(i, i + CELLS)).only(source) for i in range(0, len(cells), CELLS))
    return torch.cat([model.predict(batch, source, target) for batch in batches]).numpy()


def lines(found: dict[str, Any]) -> list[str]:
    """Tables of what was measured."""
    table: list[str] = []
    if "step" in found:
        table += [
            "| 256 cells x 60,000 peaks; ms of CPU | fp32 | bf16 | **ratio** | products alone / whole, fp32, bf16 |"
        ]
        table += ["|---|---|---|---|---|"]
        for name, row in found["step"].items():
            whole, alone = ([row[f"{what}, {k}"] for k in KINDS] for what in ("decoder", "products alone"))
            shares = ", ".join(f"{a / w:.2f}" for a, w in zip(alone, whole, strict=True))
            table.append(
                f"| decoder and loss, {name} | {whole[0]:.0f} | {whole[1]:.0f} | {whole[0] / whole[1]:.2f} | {shares} |"
            )
    if "epoch" in found:
        table += [
            "",
            "| an epoch, 60,000 peaks | CPU s, fp32 | bf16 | **ratio** | wall s, fp32 | bf16 | ratio |",
            "|---|" + "---|" * 6,
        ]
        for name, row in found["epoch"].items():
            pairs = [[row[f"{clock} s, {k}"] for k in KINDS] for clock in ("CPU", "wall")]
            table.append(f"| {name} | " + " | ".join(f"{a:.1f} | {b:.1f} | {a / b:.2f}" for a, b in pairs) + " |")
    for name in ("simulated", "cortex"):
        if name in found:
            table += ["", *_beside(name, found[name])]
    return table


def _beside(about: str, rows: dict[str, Row]) -> list[str]:
    scores = ("gene r", "peak AUROC")
    head = " | ".join(f"{s}, fp32 | bf16 - fp32 | seeds differ by" for s in scores)
    table = [f"| {about} | {head} | CPU s, fp32 / bf16 |", "|---|" + "---|" * 7]
    for model in MODELS:
        seeds = [s for s in SEEDS if f"{model}; {s}; {FP32}" in rows]
        if not seeds:
            continue
        cells = []
        for score in scores:
            fp32, bf16 = ([rows[f"{model}; {s}; {k}"][score] for s in seeds] for k in KINDS)
            apart = ", ".join(f"{b - a:+.4f}" for a, b in zip(fp32, bf16, strict=True))
            other = f"{max(fp32) - min(fp32):.4f}" if len(seeds) > 1 else "-"
            cells.append(f"{mean(fp32):.4f} | {apart} | {other}")
        cpu = mean(rows[f"{model}; {s}; {FP32}"]["CPU s"] / rows[f"{model}; {s}; {BF16}"]["CPU s"] for s in seeds)
        table.append(f"| {model} | {' | '.join(cells)} | {cpu:.2f} |")
    return table
