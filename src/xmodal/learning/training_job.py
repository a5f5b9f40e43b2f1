"""What is to be trained on what: the request, the model's settings, the cells."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from xmodal import fields, foundation, registry
from xmodal.data import contracts, io, leaving
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary, prepared_settings
from xmodal.errors import InputRefused, SettingRefused, UsageRefused
from xmodal.learning import training_cells, training_labels
from xmodal.learning.training_labels import LabelRequest
from xmodal.models.base import GradientSettings

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.models.base import CrossModalModel, ModelSettings

log = logging.getLogger(__name__)
LABELLED = 20  # training cells with a class, below which a head learns nothing
NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class TrainRequest:
    """What ``xmodal train`` was asked for.  ``changes``: settings of the model as ``name=value`` texts.

    ``fallback``: the model to train, with its defaults, where there are too few cells for ``model``.
    ``taken_over``: the state in the output is that of an earlier attempt, which may have been another training.
    ``state_dir``: where the state is kept between epochs, under a name of its own for each training; else the output.
    ``initial``: the pretrained encoder to begin with.
    ``target``: the obs column that the model shall learn to tell.
    ``precision``: fp32 or bf16, see :mod:`xmodal.precision`.
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
    on_disk: leaving.Choice = leaving.NEVER
    precision: str = fields.FP32
    target: str | None = None

    def asked(self) -> dict[str, Any]:
        """What a trial was: enough to train the winner of a sweep again, on more cells."""
        return {"model": self.model, "settings": list(self.changes), "seed": self.seed}


@dataclass(frozen=True)
class Job:
    """What is to be trained on what.  ``fewer``: the training cells less those that only closed-form models learn from.

    ``cell_model``: the foundation model that embedded the cells, and the digest of its weights.
    """

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
    cell_model: dict[str, str] | None = None


def job_of(
    path: Path,
    request: TrainRequest,
    model_class: type[CrossModalModel],
    settings: ModelSettings,
    device: torch.device | None = None,
) -> Job:
    """Read the cells, and settle which of them and which model; refuses what cannot be trained.

    ``device``: where a foundation model embeds the cells, if the settings name one.
    """
    mdata = io.read_cells(path, on_disk=_on_disk(request, model_class))
    about = _checked(mdata, path, model_class)
    mdata, settings, cell_model = foundation.for_training(mdata, settings, device)
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
        if not model_class.streams:
            cells, train, valid = cells.in_memory(), train.in_memory(), valid.in_memory()
    fewer, train = train, training_cells.learned_from(model_class, cells, train, valid)
    training_cells.require_enough(model_class, train, path)
    if vocabulary.target is not None:
        codes = train.extra[fields.TARGET_CODE]
        training_labels.require_classes(vocabulary.target, codes, LABELLED, path, warnings)
    if issubclass(model_class.Settings, GradientSettings):
        train, valid = training_cells.with_pairs(train, valid, request.seed, warnings)
        fewer = train
    directions = model_class.build(settings, vocabulary).learned(train)
    for s, t in sorted(set(model_class.build(settings, vocabulary).directions()) - set(directions)):
        warnings.append(f"{s} -> {t} is not learned: fewer than {model_class.min_pairs} training cells have both")
        log.warning(warnings[-1])
    sizes = ", ".join(f"{m} {len(v)} features" for m, v in vocabulary.modalities.items())
    log.info("%s: %d training and %d validation cells; %s", model_class.name, len(train), len(valid), sizes)
    parts = (train, valid, fewer)
    return Job(model_class, settings, vocabulary, *parts, list(directions), split, about, warnings, cell_model)


def _on_disk(request: TrainRequest, model_class: type[CrossModalModel]) -> leaving.Choice:
    """Whether the counts stay in their file; refused for models that need them all at once."""
    if model_class.streams:
        return request.on_disk
    if request.on_disk == leaving.ALWAYS:
        able = ", ".join(n for n in registry.names() if registry.get(n).streams)
        raise UsageRefused(
            f"--on-disk always: model '{model_class.name}' holds its cells in memory; these need not: {able}"
        )
    return leaving.NEVER


def _vocabulary(
    mdata: MuData,
    path: Path,
    request: TrainRequest,
    chosen: tuple[type[CrossModalModel], ModelSettings],
    warnings: list[str],
) -> Vocabulary:
    """The file's features, and what the model takes of cells besides."""
    model_class, settings = chosen
    labels, texts = training_labels.of_training(mdata, chosen, request.labels, warnings)
    return replace(
        Vocabulary.from_prepared(mdata, peak_gene_links(mdata, request, warnings, model_class.only), model_class.only),
        batches=training_cells.batches_of(mdata, model_class, request.batch_key, warnings),
        reference=training_cells.reference_of(mdata, model_class, settings, path),
        labels=labels,
        texts=texts,
        target=training_labels.target_of(mdata, model_class, request.target),
    )


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
