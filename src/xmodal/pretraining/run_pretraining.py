"""The work of ``xmodal pretrain``: files in, a cell encoder with its history and metrics out."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import resource
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from xmodal import __version__, fields, memory, outputs, progress
from xmodal.data.genes import read_gene_table
from xmodal.errors import InputRefused, ModelRefused, UsageRefused
from xmodal.learning import portions, training
from xmodal.learning.optimizer import AdamW
from xmodal.learning.training_job import parse_settings
from xmodal.learning.training_state import Keeper, same_run
from xmodal.models.base import GradientSettings
from xmodal.pretraining import pretrained, sources, stream
from xmodal.pretraining.model import Pretraining
from xmodal.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmodal.data.batches import Cells
    from xmodal.pretraining.stream import Stream

log = logging.getLogger(__name__)
FEWEST = 20  # cells, of which a tenth can be held out


@dataclass(frozen=True)
class PretrainRequest:
    """What ``xmodal pretrain`` was asked for; ``changes``: settings as ``name=value`` texts."""

    output_dir: Path
    changes: tuple[str, ...] = ()
    genes: Path | None = None
    gene_table: Path | None = None
    layer: str | None = None
    seed: int = 0
    threads: int = 1
    overwrite: bool = False
    save_every: float | None = None


@dataclass
class Job:
    """Everything of a run that does not change."""

    settings: PretrainSettings
    stream: Stream
    valid: Cells
    device: torch.device
    began: float = field(default_factory=time.monotonic)

    @property
    def rounds(self) -> int:
        """Rounds of all epochs."""
        return self.settings.epochs * self.stream.rounds


@memory.refusing("the cell encoder with its optimiser")
def run(files: Sequence[Path], request: PretrainRequest, device: torch.device) -> dict[str, Any]:
    """Pretrain on the cells of ``files`` and write encoder, history and metrics; returns the metrics."""
    settings = parse_settings(Pretraining, request.changes)
    assert isinstance(settings, PretrainSettings)
    _require_heads(settings)
    for name in (fields.PRETRAINED_FILE, fields.HISTORY_FILE, fields.METRICS_FILE):
        outputs.refuse_existing(request.output_dir / name, request.overwrite)
    found = open_files(files, request, settings)
    job = Job(settings, found, found.valid(), device)
    totals, digest = found.survey()
    if not totals.any():
        raise InputRefused("no cell has a count", where=str(files[0]), do="give files with the raw counts")
    _tell(job)
    request.output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(request.seed)
    model = Pretraining(settings, found.vocabulary)
    model.start(totals)
    keeper = _keeper(request, _digest(model, request.seed, digest, device))
    running = _start(model.to(device), settings, job.rounds, request.seed)
    try:
        with _bar(running, job) as running.bar:
            _train(running, job, keeper)
        metrics = _metrics(running, job, request)
        _write(request.output_dir, model, running.fit, metrics)
    except BaseException:
        keeper.stopped()
        raise
    keeper.done()
    return metrics


def open_files(files: Sequence[Path], request: PretrainRequest, settings: PretrainSettings) -> Stream:
    """The stream over ``files``, each looked at first; refuses files that hold no counts, and too few cells."""
    if len({path.resolve() for path in files}) < len(files):
        raise UsageRefused("the same file is given twice. What to do: give each file once")
    table = read_gene_table(request.gene_table) if request.gene_table is not None else None
    genes = stream.read_genes(request.genes) if request.genes is not None else None
    given = [sources.find(path, request.layer, table) for path in files]
    if request.layer is not None and not any(s.place.endswith((f"layers/{request.layer}", "raw/X")) for s in given):
        raise InputRefused(f"no file has a layer '{request.layer}'", where=str(files[0]), do="leave out --layer")
    found = stream.open_stream(given, genes, settings.round_cells, settings.valid_cells, request.seed)
    if found.training < FEWEST or not sum(map(len, found.held)):
        raise InputRefused(
            f"there are {found.training} cells to train on; {FEWEST} are needed",
            where=str(files[0]),
            do="give more cells",
        )
    return found


def _require_heads(settings: PretrainSettings) -> None:
    if settings.width % settings.heads:
        raise UsageRefused(f"--set heads={settings.heads}: it must divide the width, {settings.width}")


def _start(model: Pretraining, settings: PretrainSettings, rounds: int, seed: int) -> training.Running:
    rate = settings.learning_rate
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=settings.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: training.one_cycle(done, rounds))
    shuffle = torch.Generator().manual_seed(seed)
    size = portions.of_training(settings.batch_size)
    return training.Running(model, optimizer, scheduler, shuffle, training.Fit(), {}, size)


def _bar(running: training.Running, job: Job) -> AbstractContextManager[progress.Bar]:
    return progress.bar(job.stream.training * job.settings.epochs, "pretraining")


def _train(running: training.Running, job: Job, keeper: Keeper) -> None:
    """All rounds that are left; the state is kept after each."""
    if keeper.resume(running):
        running.fit.resumed = running.epoch
        log.info("going on from round %d", running.epoch)
    each = job.stream.rounds
    for epoch in range(running.epoch // each, job.settings.epochs):
        for cells in job.stream.epoch(epoch + 1, running.epoch - epoch * each):
            began = time.monotonic()
            row = _round(running, job, cells)
            if not math.isfinite(row["valid_loss"]):
                keeper.done()  # going on from here would fail again
                raise ModelRefused(
                    f"the loss is not finite in round {running.epoch + 1}",
                    do="lower the learning rate: --set learning_rate=0.0003",
                )
            running.fit.history.append(row)
            running.scheduler.step()
            running.bar.say(f"round {running.epoch}/{job.rounds}", f"valid {row['valid_loss']:.4f}")
            progress.line(
                log,
                "round %d/%d  epoch %d/%d  train %.4f  valid %.4f (mean profile %.4f)  rate %.1e  %.0f cells/s",
                *(running.epoch, job.rounds, epoch + 1, job.settings.epochs, row["train_loss"], row["valid_loss"]),
                *(row["valid_floor"], row["learning_rate"], len(cells) / max(time.monotonic() - began, 1e-9)),
            )
            keeper.epoch_done(running)


def _round(running: training.Running, job: Job, cells: Cells) -> training.Row:
    """One pass over the cells in memory, and the loss of the cells that are not trained on."""
    loop = GradientSettings(batch_size=job.settings.batch_size)
    rate = running.optimizer.param_groups[0]["lr"]
    running.model.train()
    means = training.one_pass(running, loop, cells, job.device)
    size = min(job.settings.batch_size, len(job.valid))
    held = running.portions.run(
        lambda most: training.evaluate(running.model, job.valid, min(most, size), job.device), size
    )
    return {
        "cells": float(len(cells)),
        "train_loss": sum(means.values()),
        "valid_loss": held["masked"],
        "valid_floor": held["floor"],
        "learning_rate": rate,
    }


def _tell(job: Job) -> None:
    log.info(
        "%d files, %d cells to train on and %d to judge on, %d genes; %d rounds of about %d cells",
        *(len(job.stream.sources), job.stream.training, len(job.valid), len(job.stream.vocabulary[fields.RNA])),
        *(job.rounds, round(job.stream.training / job.stream.rounds)),
    )


def _digest(model: Pretraining, seed: int, cells: str, device: torch.device) -> str:
    """Of all that decides the weights: settings, seed, genes, a few cells of every file, versions, device."""
    text = [model.settings.model_dump(mode="json"), seed, model.vocabulary.to_json(), cells]
    return hashlib.sha256(
        json.dumps([*text, __version__, str(torch.__version__), device.type], sort_keys=True).encode()
    ).hexdigest()


def _keeper(request: PretrainRequest, digest: str) -> Keeper:
    state = request.output_dir / fields.STATE_FILE
    if request.overwrite and state.exists() and not same_run(state, digest):
        log.warning("the state of another run, or an unreadable one, is given up (--overwrite); from the start")
        state.unlink()
    return Keeper(state, digest, request.save_every)


def _metrics(running: training.Running, job: Job, request: PretrainRequest) -> dict[str, Any]:
    first, last = running.fit.history[0], running.fit.history[-1]
    spent = time.monotonic() - job.began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = sum(row["cells"] for row in running.fit.history[running.fit.resumed :])
    return {
        "settings": job.settings.model_dump(mode="json"),
        "seed": request.seed,
        "files": len(job.stream.sources),
        "cells": {"train": job.stream.training, "valid": len(job.valid)},
        "genes": len(job.stream.vocabulary[fields.RNA]),
        "rounds": running.epoch,
        "losses": {"first": first["valid_loss"], "last": last["valid_loss"], "mean_profile": last["valid_floor"]},
        "parameters": {
            "encoder": sum(p.numel() for p in running.model.get_submodule("encoder").parameters()),
            "all": sum(p.numel() for p in running.model.parameters()),
        },
        "timing": {
            "train_s": round(spent, 1),
            "cells_per_s": round(own / max(spent, 1e-9), 1),
            "peak_mib": int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024)),
            "threads": request.threads,
            "device": job.device.type,
            **({"went_on_from_round": running.fit.resumed} if running.fit.resumed else {}),
            **({"gpu_peak_mib": memory.gpu_peak_mib()} if job.device.type == "cuda" else {}),
        },
    }


def _write(folder: Path, model: Pretraining, result: training.Fit, metrics: dict[str, Any]) -> None:
    """All three files or none; the encoder last."""
    table = pd.DataFrame([{"round": i + 1, **row} for i, row in enumerate(result.history)])
    table["cells"] = table["cells"].astype(int)
    header = {
        "settings": metrics["settings"],
        "vocabulary": model.vocabulary.to_json(),
        "pretraining": {k: metrics[k] for k in ("seed", "files", "cells", "genes", "rounds", "losses")},
    }
    with (
        outputs.replacing(folder / fields.PRETRAINED_FILE, True) as encoder_file,
        outputs.replacing(folder / fields.METRICS_FILE, True) as metrics_file,
        outputs.replacing(folder / fields.HISTORY_FILE, True) as history_file,
    ):
        pretrained.save(encoder_file, header, dict(model.state_dict()))
        outputs.write_json(metrics_file, metrics)
        history_file.write_text(table.to_csv(sep="\t", index=False, float_format="%.6g"))
