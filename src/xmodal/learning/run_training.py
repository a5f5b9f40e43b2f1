"""From a prepared file to a trained checkpoint with its history and metrics."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import resource
import sys
import time
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from torch import __version__ as torch_version

from xmodal import __version__, fields, memory, outputs, provenance, registry
from xmodal.data import contracts, io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary, prepared_settings
from xmodal.errors import InputRefused, SettingRefused, UsageRefused, XmodalError
from xmodal.learning import calibration, checkpoint, novelty, training, training_cells, training_labels
from xmodal.learning.training_labels import LabelRequest
from xmodal.learning.training_state import Keeper, same_run
from xmodal.models.base import GradientSettings

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.learning.uncertainty import Uncertainty
    from xmodal.models.base import CrossModalModel, ModelSettings

log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class TrainRequest:
    """What ``xmodal train`` was asked for.  ``changes``: settings of the model as ``name=value`` texts.

    ``fallback``: the model to train, with its defaults, where there are too few cells for ``model``.
    ``taken_over``: the state in the output is that of an earlier attempt, which may have been another training.
    ``state_dir``: where the state is kept between epochs, under a name of its own for each training; else the output.
    ``initial``: the pretrained encoder to begin with.
    ``trial``: of a sweep, which is judged on the validation cells and so learns nothing from them.
    """

    model: str
    output_dir: Path
    changes: tuple[str, ...] = ()
    gene_table: Path | None = None
    links: Path | None = None
    seed: int = 0
    threads: int = 1
    overwrite: bool = False
    save_every: float | None = None
    taken_over: bool = False
    state_dir: Path | None = None
    fallback: str | None = None
    trial: bool = False
    batch_key: str | None = None
    labels: LabelRequest = field(default_factory=LabelRequest)
    initial: Path | None = None

    def asked(self) -> dict[str, Any]:
        """What a trial was: enough to train the winner of a sweep again, on more cells."""
        return {"model": self.model, "settings": list(self.changes), "seed": self.seed}


@memory.refusing("the model with its optimiser")
def run(path: Path, request: TrainRequest, device: torch.device) -> dict[str, Any]:
    """Train on ``path`` and write checkpoint, history and metrics; returns the metrics."""
    started = time.monotonic()
    model_class = registry.get(request.model)
    settings = parse_settings(model_class, request.changes)
    _require_fallback(request)
    for name in (fields.CHECKPOINT_FILE, fields.HISTORY_FILE, fields.METRICS_FILE):
        outputs.refuse_existing(request.output_dir / name, request.overwrite)
    if request.state_dir is not None:
        outputs.refuse_existing(request.state_dir / fields.STATE_FILE, overwrite=True)
    job = _job(path, request, model_class, settings)
    request.output_dir.mkdir(parents=True, exist_ok=True)
    model = job.model_class.build(job.settings, job.vocabulary)
    if request.initial is not None:
        from xmodal.pretraining.initial import load_into

        load_into(model, request.initial)
    keeper = _keeper(request, run_digest(model, request.seed, (job.train, job.valid), device, request.initial))
    try:
        result = training.fit(model, job.train, job.valid, device, seed=request.seed, keeper=keeper)
        fitted = {m: _novelty(job.train, m, request.seed) for m in job.vocabulary}
        errors, why = calibration.of_training(model, (job.fewer, job.valid), job.directions, device, request.seed)
        metrics = {
            **_metrics(model, result, job),
            "uncertainty": {f"{s} -> {t}": u.summary() for (s, t), u in errors.items()},
            "seed": request.seed,
            **({"cells_at_once": result.cells_at_once} if result.cells_at_once else {}),
            **({"trial": request.asked()} if request.trial else {}),
            "warnings": job.warnings + result.warnings + why,
            "timing": _timing(started, request, result, device),
        }
        known = {m: n for m, n in fitted.items() if n is not None}
        _write(request.output_dir, model, (known, errors), result, metrics)
    except BaseException:
        keeper.stopped()
        raise
    keeper.done()
    return metrics


@dataclass(frozen=True)
class Job:
    """What is to be trained on what.  ``fewer``: the training cells less those that only closed-form models learn from."""

    model_class: type[CrossModalModel]
    settings: ModelSettings
    vocabulary: Vocabulary
    train: Cells
    valid: Cells
    fewer: Cells
    directions: list[tuple[str, str]]
    split: dict[str, Any]
    about: dict[str, Any]
    warnings: list[str]


def _job(path: Path, request: TrainRequest, model_class: type[CrossModalModel], settings: ModelSettings) -> Job:
    """Read the cells, and settle which of them and which model; refuses what cannot be trained."""
    mdata = io.read_cells(path)
    about = _checked(mdata, path, model_class)
    warnings: list[str] = []
    vocabulary = _vocabulary(mdata, path, request, (model_class, settings), warnings)
    cells = cells_of(mdata, vocabulary)
    if model_class.only is not None:
        cells = cells.having(model_class.only)
    train, valid, split = training_cells.split(mdata, cells, about, seed=request.seed, trial=request.trial)
    if request.fallback is not None and (
        few := training_cells.too_few(model_class, training_cells.learned_from(model_class, cells, train, valid))
    ):
        model_class = registry.get(request.fallback)
        settings = model_class.Settings()
        warnings.append(f"{few}: '{model_class.name}' was trained instead (--fallback)")
        log.warning(warnings[-1])
    fewer, train = train, training_cells.learned_from(model_class, cells, train, valid)
    training_cells.require_enough(model_class, train, path)
    if issubclass(model_class.Settings, GradientSettings):
        train, valid = training_cells.with_pairs(train, valid, request.seed, warnings)
        fewer = train
    directions = model_class.build(settings, vocabulary).learned(train)
    for s, t in sorted(set(model_class.build(settings, vocabulary).directions()) - set(directions)):
        warnings.append(f"{s} -> {t} is not learned: fewer than {model_class.min_pairs} training cells have both")
        log.warning(warnings[-1])
    sizes = ", ".join(f"{m} {len(v)} features" for m, v in vocabulary.modalities.items())
    log.info("%s: %d training and %d validation cells; %s", model_class.name, len(train), len(valid), sizes)
    return Job(model_class, settings, vocabulary, train, valid, fewer, list(directions), split, about, warnings)


def _vocabulary(
    mdata: MuData,
    path: Path,
    request: TrainRequest,
    chosen: tuple[type[CrossModalModel], ModelSettings],
    warnings: list[str],
) -> Vocabulary:
    """The file's features, and what the model takes of cells besides."""
    model_class, settings = chosen
    labels, texts = training_labels.of_training(mdata, model_class, request.labels, warnings)
    return replace(
        Vocabulary.from_prepared(mdata, peak_gene_links(mdata, request, warnings, model_class.only), model_class.only),
        batches=training_cells.batches_of(mdata, model_class, request.batch_key, warnings),
        reference=training_cells.reference_of(mdata, model_class, settings, path),
        labels=labels,
        texts=texts,
    )


def _timing(started: float, request: TrainRequest, result: training.Fit, device: torch.device) -> dict[str, Any]:
    return {
        "train_s": round(time.monotonic() - started, 1),
        "peak_mib": _peak_mib(),
        **({"went_on_from_epoch": result.resumed} if result.resumed else {}),
        "threads": request.threads,
        "device": device.type,
        **({"gpu_peak_mib": memory.gpu_peak_mib()} if device.type == "cuda" else {}),
    }


def _keeper(request: TrainRequest, digest: str) -> Keeper:
    if request.state_dir is not None:
        state = request.state_dir / f"{digest[:16]}.{fields.STATE_FILE}"
    else:
        state = request.output_dir / fields.STATE_FILE
    if (request.overwrite or request.taken_over) and state.exists() and not same_run(state, digest):
        why = "--overwrite" if request.overwrite else "--resume-from"
        log.warning(
            "the state of another training, or an unreadable one, is given up (%s); training from the start", why
        )
        state.unlink()
    return Keeper(state, digest, request.save_every)


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
    kept = ("split", "filters", "epochs", "best_epoch", "seed", "losses", "directions", "uncertainty", "trial")
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

    ``initial``: the pretrained encoder that the weights begin with.
    """
    digest = hashlib.sha256()
    vocabulary = model.vocabulary
    text = [model.name, model.settings.model_dump(mode="json"), seed, vocabulary.to_json()]
    text += [__version__, str(torch_version), device.type]
    if initial is not None:
        text.append(provenance.sha256(initial))
    digest.update(json.dumps(text, sort_keys=True).encode())
    arrays = list(vocabulary.tensors().values())
    for part in cells:
        digest.update("\n".join(part.names).encode())
        for m in vocabulary:
            arrays += [
                part.counts[m].data,
                part.counts[m].indices,
                part.counts[m].indptr,
                part.depth[m],
                part.present[m],
            ]
        arrays += [part.extra[k] for k in sorted(part.extra)]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def parse_settings(model_class: type[CrossModalModel], changes: tuple[str, ...]) -> ModelSettings:
    """Settings of a model from ``name=value`` texts; an unknown name gets its near names, a bad value its range."""
    values: dict[str, Any] = {}
    known = model_class.Settings.model_fields
    for change in changes:
        name, found, text = change.partition("=")
        if not found:
            raise SettingRefused(f"--set {change}: write NAME=VALUE")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known) or 'none'}"
            raise SettingRefused(f"--set {name}: model '{model_class.name}' has no such setting; {hint}")
        values[name] = text
    try:
        return model_class.Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingRefused(f"--set {'.'.join(map(str, first['loc']))}={first['input']}: {first['msg']}") from None


def peak_gene_links(mdata: MuData, request: TrainRequest, warnings: list[str], only: str | None = None) -> Any:
    """Links (peaks, genes) from ``--links`` or ``--gene-table``; None, with a warning, where neither is given.

    ``only``: the one modality that is learned from, which has no links.
    """
    if fields.ATAC not in mdata.mod or fields.RNA not in mdata.mod or only is not None:
        return None
    from xmodal.data import genes
    from xmodal.data.intervals import parse_peaks

    peaks, names = list(mdata.mod[fields.ATAC].var_names), list(mdata.mod[fields.RNA].var_names)
    if request.links is not None:
        links = genes.links_from_table(request.links, peaks, names)
    elif request.gene_table is not None:
        links = genes.links_from_distance(parse_peaks(peaks), names, genes.read_gene_table(request.gene_table))
    else:
        return None
    if not links.nnz:
        warnings.append("no gene of the file is linked to a peak of it: there is no gene-activity input")
        log.warning(warnings[-1])
        return None
    linked = int((links.getnnz(0) > 0).sum())
    log.info("%d peak-gene links; %d of %d genes have one", links.nnz, linked, len(names))
    return links.tocsr()


def _checked(mdata: MuData, path: Path, model_class: type[CrossModalModel]) -> dict[str, Any]:
    about = prepared_settings(mdata, str(path))
    if model_class.only is not None and model_class.only not in mdata.mod:
        raise InputRefused(
            f"it has {', '.join(mdata.mod)}; model '{model_class.name}' learns from {model_class.only}",
            where=str(path),
            do=f"prepare it with {model_class.only}, or train another model (`xmodal models`)",
        )
    if model_class.only is None and len(mdata.mod) < 2:
        raise InputRefused(
            f"only '{next(iter(mdata.mod))}' is in it; training needs two modalities",
            where=str(path),
            do="prepare it with a second modality",
        )
    for name, adata in mdata.mod.items():
        if model_class.only not in (None, name):
            continue
        if not NAME.fullmatch(name):
            raise InputRefused(
                f"modality '{name}': only letters, digits and _ may be in a name", where=str(path), do="rename it"
            )
        kind = about["modalities"][name]
        contracts.require(contracts.check_modality(name, adata, kind["likelihood"], kind["scale"]))
    return about


def _require_fallback(request: TrainRequest) -> None:
    if request.fallback is None:
        return
    if request.trial:
        raise UsageRefused("--fallback: a --trial judges one model, so it cannot become another; leave --fallback out")
    if request.fallback == request.model:
        raise UsageRefused(f"--fallback {request.fallback}: this is --model itself; give another model")
    try:
        registry.get(request.fallback)
    except UsageRefused as error:
        raise UsageRefused(str(error).replace("--model", "--fallback", 1)) from None


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
        "losses": {k: v for k, v in last.items() if k != "learning_rate"},
        "directions": [list(d) for d in job.directions],
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024))
