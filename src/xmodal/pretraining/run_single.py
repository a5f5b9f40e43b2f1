"""``xmodal pretrain --model``: encoders and decoders of single modalities from prepared files, paired or not."""

from __future__ import annotations

import logging
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from xmodal import fields, memory, outputs, registry
from xmodal.data import contracts, io
from xmodal.data.batches import Cells, cells_of, joined
from xmodal.data.vocabulary import Modality, Vocabulary, prepared_settings
from xmodal.errors import InputRefused, UsageRefused
from xmodal.fusion.fused import Fused
from xmodal.learning import training, training_cells
from xmodal.learning.run_training import run_digest
from xmodal.learning.training_job import parse_settings
from xmodal.learning.training_state import Keeper, same_run
from xmodal.pretraining import pretrained
from xmodal.pretraining.single import Alone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

log = logging.getLogger(__name__)
FEWEST = 20  # cells of a modality
ENOUGH = 0.5  # share of a modality's features that all files must have
NOT_KEPT = ("blend.",)  # what needs pairs


@dataclass(frozen=True)
class SingleRequest:
    """What ``xmodal pretrain --model`` was asked for; ``modalities``: none means all of the files."""

    model: str
    output_dir: Path
    modalities: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    seed: int = 0
    threads: int = 1
    overwrite: bool = False
    save_every: float | None = None


@memory.refusing("the encoders with their optimiser")
def run(files: Sequence[Path], request: SingleRequest, device: torch.device) -> dict[str, Any]:
    """Pretrain on the cells of ``files`` and write weights, history and metrics; returns the metrics."""
    began = time.monotonic()
    model_class = fused_class(request.model)
    settings = parse_settings(model_class, request.changes)
    for name in (fields.PRETRAINED_FILE, fields.HISTORY_FILE, fields.METRICS_FILE):
        outputs.refuse_existing(request.output_dir / name, request.overwrite)
    if len({path.resolve() for path in files}) < len(files):
        raise UsageRefused("the same file is given twice. What to do: give each file once")
    train, valid = cells_of_files(files, request.modalities, request.seed)
    request.output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(request.seed)
    fused = model_class.build(settings, train.vocabulary)
    assert isinstance(fused, Fused)
    before = {k: v.clone() for k, v in fused.state_dict().items()}
    keeper = _keeper(request, run_digest(fused, request.seed, (train, valid), device))
    try:
        result = training.fit(Alone(fused), train, valid, device, seed=request.seed, keeper=keeper)
        metrics = _metrics((fused, result), (train, valid), request, len(files))
        metrics["timing"] = _timing(began, request, result, device)
        _write(request.output_dir, kept(fused.to("cpu"), before), fused.vocabulary, result, metrics)
    except BaseException:
        keeper.stopped()
        raise
    keeper.done()
    return metrics


def fused_class(name: str) -> type[Fused]:
    """The model ``name``; refused where it has no encoders of single modalities."""
    found = registry.get(name)
    if not issubclass(found, Fused):
        able = ", ".join(n for n in registry.names() if issubclass(registry.get(n), Fused))
        raise UsageRefused(
            f"--model {name}: it has no encoders of single modalities that could be pretrained; these have: {able}; without "
            "--model the cell encoder of scmmgpt is pretrained"
        )
    return found


def cells_of_files(files: Sequence[Path], asked: tuple[str, ...], seed: int) -> tuple[Cells, Cells]:
    """Training and validation cells of all files in the features they share; test cells are in neither."""
    read = [(path, io.read_cells(path)) for path in files]
    vocabulary = shared_vocabulary(read, asked)
    parts: list[tuple[Cells, Cells]] = []
    for path, mdata in read:
        about = prepared_settings(mdata, str(path))
        for m in vocabulary:
            if m in mdata.mod:
                kind = vocabulary[m]
                contracts.require(contracts.check_modality(m, mdata.mod[m], kind.likelihood, kind.scale))
        train, valid, _ = training_cells.split(mdata, cells_of(mdata, vocabulary), about, seed=seed, trial=False)
        parts.append((_measured(train), _measured(valid)))
    train, valid = parts[0]
    for more, held in parts[1:]:
        train, valid = joined(train, more), joined(valid, held)
    for m in vocabulary:
        many = int(train.present[m].sum())
        if many < FEWEST:
            raise InputRefused(
                f"there are {many} training cells with {m}; {FEWEST} are needed",
                where=str(files[0]),
                do="give more cells, or choose other modalities with --modality",
            )
    return train, valid


def _measured(cells: Cells) -> Cells:
    """Those that have any of the modalities."""
    import numpy as np

    there = np.logical_or.reduce(list(cells.present.values()))
    return cells if there.all() else cells.subset(np.flatnonzero(there))


def shared_vocabulary(read: list[tuple[Path, MuData]], asked: tuple[str, ...]) -> Vocabulary:
    """The modalities of all files, each with the features that every file with it has, in the order of the first."""
    found: dict[str, Modality] = {}
    for path, mdata in read:
        prepared_settings(mdata, str(path))
        for m, own in Vocabulary.from_prepared(mdata).modalities.items():
            if not asked or m in asked:
                found[m] = _both(found[m], own, path) if m in found else own
    if lacking := [m for m in asked if m not in found]:
        there = sorted({m for _, mdata in read for m in mdata.mod})
        raise InputRefused(
            f"no file has {', '.join(lacking)}; they have {', '.join(there)}",
            where="--modality",
            do="give a prepared file that has it, or leave it out",
        )
    return Vocabulary(found)


def _both(known: Modality, own: Modality, path: Path) -> Modality:
    """``known`` with the features that are in ``own`` as well."""
    for what in ("likelihood", "scale", "genome"):
        ours, theirs = getattr(known, what), getattr(own, what)
        if ours != theirs and None not in (ours, theirs):
            raise InputRefused(
                f"{known.name} has {what} {theirs} here and {ours} in another file",
                where=str(path),
                do="prepare all files alike, or pretrain on those that are alike",
            )
    there = set(own.features)
    rows = [i for i, name in enumerate(known.features) if name in there]
    if len(rows) < ENOUGH * max(len(known), len(own)):
        raise InputRefused(
            f"only {len(rows)} of {len(own)} {known.name} features are called as in the other files ({len(known)})",
            where=str(path),
            do="prepare all files on the same features (genes called alike; fragments counted over the same peaks)",
        )
    ids = known.gene_ids
    return replace(
        known,
        features=tuple(known.features[i] for i in rows),
        gene_ids=None if ids is None else tuple(ids[i] for i in rows),
    )


def kept(fused: Fused, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Encoders and decoders, and what else was trained of what modalities share."""
    single, shared = ("encoders.", "decoders."), {k for k, _ in fused.named_parameters() if not k.startswith(NOT_KEPT)}
    return {
        k: v
        for k, v in fused.state_dict().items()
        if k.startswith(single) or (k in shared and not torch.equal(v, before[k]))
    }


def _keeper(request: SingleRequest, digest: str) -> Keeper:
    state, digest = request.output_dir / fields.STATE_FILE, f"pretrain {digest}"
    if request.overwrite and state.exists() and not same_run(state, digest):
        log.warning("the state of another run, or an unreadable one, is given up (--overwrite); from the start")
        state.unlink()
    return Keeper(state, digest, request.save_every)


def _metrics(
    trained: tuple[Fused, training.Fit], parts: tuple[Cells, Cells], request: SingleRequest, files: int
) -> dict[str, Any]:
    fused, result = trained
    train, valid = parts
    first, last = (result.history[i] if result.history else {} for i in (0, result.best_epoch - 1))
    modalities = {
        m: {
            "features": len(about),
            "likelihood": about.likelihood,
            "scale": about.scale,
            "cells": {"train": int(train.present[m].sum()), "valid": int(valid.present[m].sum())},
            "losses": {"first": first.get(f"valid_{m}"), "last": last.get(f"valid_{m}")},
        }
        for m, about in fused.vocabulary.modalities.items()
    }
    return {
        "model": fused.name,
        "settings": fused.settings.model_dump(mode="json"),
        "seed": request.seed,
        "files": files,
        "cells": {"train": len(train), "valid": len(valid)},
        "modalities": modalities,
        "epochs": len(result.history),
        "warnings": result.warnings,
    }


def _timing(began: float, request: SingleRequest, result: training.Fit, device: torch.device) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "train_s": round(time.monotonic() - began, 1),
        "peak_mib": int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024)),
        "threads": request.threads,
        "device": device.type,
        **({"went_on_from_epoch": result.resumed} if result.resumed else {}),
        **({"gpu_peak_mib": memory.gpu_peak_mib()} if device.type == "cuda" else {}),
    }


def _write(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    vocabulary: Vocabulary,
    result: training.Fit,
    metrics: dict[str, Any],
) -> None:
    """All three files or none; the weights last."""
    rows = [{"epoch": i + 1, **row} for i, row in enumerate(result.history)]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["epoch", "train_loss", "valid_loss", "learning_rate"])
    header = {
        "model": metrics["model"],
        "settings": metrics["settings"],
        "vocabulary": vocabulary.to_json(),
        "content": "weights of encoders and decoders, and means and spreads over cells; no single cell",
        "pretraining": {k: metrics[k] for k in ("seed", "files", "cells", "modalities", "epochs")},
    }
    with (
        outputs.replacing(folder / fields.PRETRAINED_FILE, True) as weights_file,
        outputs.replacing(folder / fields.METRICS_FILE, True) as metrics_file,
        outputs.replacing(folder / fields.HISTORY_FILE, True) as history_file,
    ):
        pretrained.save(weights_file, header, tensors)
        outputs.write_json(metrics_file, metrics)
        history_file.write_text(table.to_csv(sep="\t", index=False, float_format="%.6g"))
