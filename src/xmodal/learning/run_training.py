"""From a prepared file to a trained checkpoint with its history and metrics."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import __version__ as torch_version

from xmodal import __version__, fields, memory, outputs, precision, provenance, ranks, registry, starting
from xmodal.data.on_disk import Counts, OnDisk
from xmodal.errors import UsageRefused, XmodalError
from xmodal.learning import calibration, checkpoint, novelty, training
from xmodal.learning.training_job import Job, TrainRequest, job_of, parse_settings
from xmodal.learning.training_labels import require_takes_target
from xmodal.learning.training_state import Keeper, Reader, same_run

if TYPE_CHECKING:
    import torch

    from xmodal.data.batches import Cells
    from xmodal.learning.uncertainty import Uncertainty
    from xmodal.models.base import CrossModalModel

log = logging.getLogger(__name__)


@memory.refusing("the model with its optimiser")
def run(path: Path, request: TrainRequest, device: torch.device) -> dict[str, Any]:
    """Train on ``path`` and write checkpoint, history and metrics; returns the metrics."""
    with precision.training_in(request.precision):
        return _run(path, request, device)


def _run(path: Path, request: TrainRequest, device: torch.device) -> dict[str, Any]:
    started = time.monotonic()
    model_class = registry.get(request.model)
    settings = parse_settings(model_class, request.changes)
    _require_fallback(request)
    for name in (fields.CHECKPOINT_FILE, fields.HISTORY_FILE, fields.METRICS_FILE):
        outputs.refuse_existing(request.output_dir / name, request.overwrite)
    if request.state_dir is not None:
        outputs.refuse_existing(request.state_dir / fields.STATE_FILE, overwrite=True)
    job = job_of(path, request, model_class, settings, device)
    model = job.model_class.build(job.settings, job.vocabulary)
    if starting.asked() and not model.shares:
        log.warning(
            "model '%s' has nothing that processes can share: each does all of it, and one is as fast", model.name
        )
    begun = {}
    if request.initial is not None:
        from xmodal.pretraining.initial import load_into

        begun = {"initial": load_into(model, request.initial)}
    request.output_dir.mkdir(parents=True, exist_ok=True)  # from here on nothing is refused
    digest = run_digest(model, request.seed, (job.train, job.valid), device, request.initial)
    keeper = _keeper(request, digest, device)
    try:
        result = training.fit(model, job.train, job.valid, device, seed=request.seed, keeper=keeper)
        fitted = {m: _novelty(job.train, m, request.seed) for m in job.vocabulary}
        errors, why = calibration.of_training(model, (job.fewer, job.valid), job.directions, device, request.seed)
        metrics = {
            **_metrics(model, result, job),
            "uncertainty": {f"{s} -> {t}": u.summary() for (s, t), u in errors.items()},
            "seed": request.seed,
            fields.PRECISION: request.precision,
            **begun,
            **({"cell_model": job.cell_model} if job.cell_model else {}),
            **({"cells_at_once": result.cells_at_once} if result.cells_at_once else {}),
            **({"trial": request.asked()} if request.trial else {}),
            "warnings": job.warnings + result.warnings + why,
            "timing": _timing(started, request, result, device),
        }
        known = {m: n for m, n in fitted.items() if n is not None}
        if ranks.first():
            _write(request.output_dir, model, (known, errors), result, metrics)
    except BaseException:
        keeper.stopped()
        raise
    keeper.done()
    return metrics


def _timing(started: float, request: TrainRequest, result: training.Fit, device: torch.device) -> dict[str, Any]:
    return {
        "train_s": round(time.monotonic() - started, 1),
        "peak_mib": _peak_mib(),
        **({"went_on_from_epoch": result.resumed} if result.resumed else {}),
        "threads": request.threads,
        "device": device.type,
        **({"processes": starting.count()} if starting.count() > 1 else {}),
        **({"gpu_peak_mib": memory.gpu_peak_mib()} if device.type == "cuda" else {}),
    }


def _keeper(request: TrainRequest, digest: str, device: torch.device) -> Keeper:
    """Of several processes the first one keeps the state; where it has one, all go on from it."""
    if request.state_dir is not None:
        state = request.state_dir / f"{digest[:16]}.{fields.STATE_FILE}"
    else:
        state = request.output_dir / fields.STATE_FILE
    if (request.overwrite or request.taken_over) and state.exists() and not same_run(state, digest):
        why = "--overwrite" if request.overwrite else "--resume-from"
        log.warning(
            "the state of another training, or an unreadable one, is given up (%s); training from the start", why
        )
        if ranks.first():
            state.unlink()
    there = ranks.of_first(state.exists, device)
    if ranks.first():
        return Keeper(state, digest, request.save_every)
    return Reader(state if there else None, digest)


def refused_trial(request: TrainRequest, why: XmodalError) -> None:
    """Note in metrics.json that this trial could not be trained; the other trials of the sweep go on."""
    metrics = {"model": request.model, "trial": request.asked(), "failed": {"exit": why.exit_code, "why": str(why)}}
    outputs.write_json(request.output_dir / fields.METRICS_FILE, metrics, request.overwrite)


def _novelty(train: Cells, modality: str, seed: int) -> novelty.Novelty | None:
    about = train.vocabulary[modality]
    return novelty.fit(train.having(modality).counts[modality], about.likelihood, about.scale, seed)


def _write(
    folder: Path,
    model: CrossModalModel,
    statistics: tuple[dict[str, novelty.Novelty], dict[tuple[str, str], Uncertainty]],
    result: training.Fit,
    metrics: dict[str, Any],
) -> None:
    """All three files or none: each under a temporary name, renamed when the last is written, the checkpoint last."""
    rows = [{"epoch": i + 1, **row} for i, row in enumerate(result.history)]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["epoch", "train_loss", "valid_loss", "learning_rate"])
    kept = ["split", "filters", "epochs", "best_epoch", "seed", "losses", "directions", "uncertainty", "trial"]
    kept += ["initial", "cell_model"]
    kept += [fields.PRECISION] if metrics[fields.PRECISION] != fields.FP32 else []  # as checkpoints of before
    facts = {k: metrics[k] for k in kept if k in metrics}
    with (
        outputs.replacing(folder / fields.CHECKPOINT_FILE, True) as model_file,
        outputs.replacing(folder / fields.METRICS_FILE, True) as metrics_file,
        outputs.replacing(folder / fields.HISTORY_FILE, True) as history_file,
    ):
        checkpoint.save(model_file, model, facts, *statistics)
        outputs.write_json(metrics_file, metrics)
        history_file.write_text(table.to_csv(sep="\t", index=False, float_format="%.6g"))


def run_digest(
    model: CrossModalModel,
    seed: int,
    cells: tuple[Cells, Cells],
    device: torch.device,
    initial: Path | None = None,
) -> str:
    """Digest of all that decides the weights: model, settings, seed, features, links, cells and counts, versions, device.

    Precision too, where it is not fp32.  ``initial``: the pretrained encoder that the weights begin with.
    """
    digest = hashlib.sha256()
    vocabulary = model.vocabulary
    text = [model.name, model.settings.model_dump(mode="json"), seed, vocabulary.to_json()]
    text += [__version__, str(torch_version), device.type]
    if initial is not None:
        text.append(provenance.sha256(initial))
    if precision.chosen() != fields.FP32:
        text.append(precision.chosen())
    digest.update(json.dumps(text, sort_keys=True).encode())
    arrays = list(vocabulary.tensors().values())
    for part in cells:
        digest.update("\n".join(part.names).encode())
        for m in vocabulary:
            arrays += [*_counts(part.counts[m]), part.depth[m], part.present[m]]
        arrays += [part.extra[k] for k in sorted(part.extra)]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _counts(matrix: Counts) -> list[npt.NDArray[Any]]:
    """What stands for counts in a digest: they themselves, or the digests of blocks of those on disk."""
    if not isinstance(matrix, OnDisk):
        return [matrix.data, matrix.indices, matrix.indptr]
    found = hashlib.sha256()
    for _, block in matrix.blocks():
        for array in (block.data, block.indices, block.indptr):
            found.update(np.ascontiguousarray(array).tobytes())
    return [np.frombuffer(found.digest(), np.uint8)]


def _require_fallback(request: TrainRequest) -> None:
    if request.fallback is None:
        return
    if request.trial:
        raise UsageRefused("--fallback: a --trial judges one model, so it cannot become another; leave --fallback out")
    if request.fallback == request.model:
        raise UsageRefused(f"--fallback {request.fallback}: this is --model itself; give another model")
    try:
        other = registry.get(request.fallback)
    except UsageRefused as error:
        raise UsageRefused(str(error).replace("--model", "--fallback", 1)) from None
    if request.target is not None:
        require_takes_target(other, request.target, f"--fallback {request.fallback} with --target")


def _metrics(model: CrossModalModel, result: training.Fit, job: Job) -> dict[str, Any]:
    last = result.history[result.best_epoch - 1] if result.best_epoch else {}
    return {
        "model": model.name,
        "settings": model.settings.model_dump(mode="json"),
        "modalities": {
            m: {"features": len(v), "likelihood": v.likelihood, "scale": v.scale, "genome": v.genome}
            for m, v in model.vocabulary.modalities.items()
        },
        "links": int(model.vocabulary.links.nnz) if model.vocabulary.links is not None else 0,
        "split": job.split,
        "filters": job.about.get("options", {}),
        **({"target": {"key": told.key, "classes": list(told.values)}} if (told := model.vocabulary.target) else {}),
        "losses": {k: v for k, v in last.items() if k != "learning_rate"},
        "directions": [list(d) for d in job.directions],
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024))
