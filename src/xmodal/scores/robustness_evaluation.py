"""How a model bears modalities that are missing or noisy: the same held-out cells, made worse step by step, scored each time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import fields
from xmodal.data.on_disk_settings import NEVER
from xmodal.embedding import job as jobs
from xmodal.embedding import reading
from xmodal.embedding.latents import embedded, imputed, streamed
from xmodal.embedding.settings import EmbedSettings
from xmodal.errors import InputRefused, NotApplicable, UsageRefused
from xmodal.learning import checkpoint
from xmodal.models.base import CrossModalModel
from xmodal.scores.embedding_measures import NEIGHBORS, neighbors, voted
from xmodal.scores.metrics import Array, Index, Matrix, feature_pearson, feature_ranking, mean_of
from xmodal.scores.robustness_changes import DROP, NOISE, Change, changed, profile_of
from xmodal.scores.validation_cells import learned_parts

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.data.batches import Batch, Cells
    from xmodal.memory import Arrays
    from xmodal.scores.evaluation_settings import EvaluationSettings

log = logging.getLogger(__name__)
KNN, BALANCED = "knn_accuracy_heldout", "knn_balanced_heldout"
PEARSON, AUROC = "gene_pearson", "peak_auroc"
VALUES = 200_000_000  # of a modality that are held at once; of more cells so many are drawn
FEWEST = 500
COLUMNS = ["kind", "modality", "strength", "cells", "score", "target", "source", "value"]


@dataclass(frozen=True)
class Scene:
    """The model, its held-out and its training cells, and the labels of both (codes, -1 unknown)."""

    loaded: checkpoint.Checkpoint
    test: Cells
    train: Cells
    labels: tuple[Index, Index] | None
    which: str
    device: torch.device
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> CrossModalModel:
        return self.loaded.model

    @property
    def imputes(self) -> bool:
        return type(self.model).impute is not CrossModalModel.impute


def evaluate(
    truth: Path, model: Path, changes: list[Change], settings: EvaluationSettings, how: tuple[torch.device, int]
) -> tuple[Scene, list[dict[str, Any]], MuData]:
    """Rows of robustness.tsv (see :data:`COLUMNS`); ``how`` = (device, seed)."""
    loaded, (device, seed) = checkpoint.load(model), how
    _require_changes(loaded, changes)
    mdata = reading.read(truth, loaded, NEVER)
    scene = _scene(mdata, loaded, settings, device, seed)
    for c in changes:
        if not scene.test.present[c.modality].any():
            raise InputRefused(
                f"no {scene.which} cell has {c.modality}", where=str(truth), do=f"leave out --{c.kind} {c.modality}"
            )
    known = _known_places(scene)
    _require_scores(scene, changes, known is not None)
    rows: list[dict[str, Any]] = []
    for c in changes:
        cells = changed(scene.test, c, profile_of(scene.train, c.modality), seed)
        log.info("%s", c.name)
        found = [*_labels(scene, cells, known), *_imputed(scene, cells), *_predicted(scene, cells, c)]
        about = {
            "kind": c.kind,
            "modality": c.modality,
            "strength": c.strength,
            "cells": int(_touched(scene, cells, c)),
        }
        rows += [{**about, **row} for row in found]
    return scene, rows, mdata


def _require_changes(loaded: checkpoint.Checkpoint, changes: list[Change]) -> None:
    known = list(loaded.model.vocabulary)
    if loaded.model.only is not None or len(known) < 2:
        raise NotApplicable(
            f"this checkpoint's model ({loaded.model.name}) knows one modality only ({', '.join(known)}); --drop and --noise ask "
            "what the others make up for"
        )
    for c in changes:
        if c.modality not in known:
            raise UsageRefused(f"--{c.kind} {c.modality}: the checkpoint knows {', '.join(known)}")


def _scene(
    mdata: MuData, loaded: checkpoint.Checkpoint, settings: EvaluationSettings, device: torch.device, seed: int
) -> Scene:
    """Held-out cells (those asked for) and training cells, in the features of the checkpoint."""
    which = fields.TEST if settings.cells == "asked" else settings.cells
    if fields.SPLIT not in mdata.obs or which == "all":
        raise InputRefused(
            "training cells must be told from held-out ones (obs column 'xmodal_split')",
            where="truth",
            do="give what xmodal prepare wrote, with --cells test or valid",
        )
    job = jobs.prepare_job(mdata, loaded, EmbedSettings())
    obs = mdata.obs.loc[job.cells.names]
    part = obs[fields.SPLIT].astype(str).to_numpy()
    test, train = np.flatnonzero(part == which), np.flatnonzero(np.isin(part, learned_parts(which)))
    most = max(FEWEST, VALUES // max(len(v) for v in loaded.model.vocabulary.modalities.values()))
    notes = []
    for name, rows in (("held-out", test), ("training", train)):
        if len(rows) > most:
            notes.append(f"{most} of {len(rows)} {name} cells are used, drawn")
    test, train = (np.sort(np.random.default_rng(seed).permutation(rows)[:most]) for rows in (test, train))
    if min(len(test), len(train)) <= NEIGHBORS:
        raise InputRefused(
            f"there are {len(test)} {which} and {len(train)} training cells; {NEIGHBORS + 1} of each are needed",
            where="truth",
            do="give a file with the cells of the training and held-out ones",
        )
    labels = None
    if settings.label_key is not None:
        from xmodal.scores.embedding_input import groups_of, require_column

        require_column(mdata.obs, settings.label_key, "--label-key")
        groups = groups_of(obs, settings.label_key, np.ones(len(obs), bool))
        assert groups is not None
        labels = groups.codes[test], groups.codes[train]
    return Scene(loaded, job.cells.subset(test), job.cells.subset(train), labels, which, device, notes)


def _require_scores(scene: Scene, changes: list[Change], labelled: bool) -> None:
    """Refuse what would leave an empty table."""
    if labelled or scene.imputes or all(c.kind == NOISE for c in changes):
        return
    if scene.model.has_latent:
        raise UsageRefused(
            "--drop: this model embeds and does not impute, so only labels can judge it; give --label-key"
        )
    raise NotApplicable(
        f"this checkpoint's model ({scene.model.name}) neither embeds nor imputes: it has nothing for cells that lack a modality "
        "but a prediction; give --noise"
    )


def _places(scene: Scene, cells: Cells) -> Array:
    return embedded(scene.model, cells, list(cells.vocabulary), scene.device, False).joint


def _known_places(scene: Scene) -> Array | None:
    """Where the labelled training cells lie, whole, (cells, latent); None without labels or latent."""
    if scene.labels is None or not scene.model.has_latent:
        return None
    return _places(scene, scene.train.subset(np.flatnonzero(scene.labels[1] >= 0)))


def _labels(scene: Scene, cells: Cells, known: Array | None) -> list[dict[str, Any]]:
    """How well 15 training cells name the held-out ones: share that is right, and its mean over labels."""
    if known is None or scene.labels is None:
        return []
    own, taught = scene.labels
    rows = np.flatnonzero(np.isin(own, taught[taught >= 0]))
    called = voted(neighbors(_places(scene, cells.subset(rows)), NEIGHBORS, known).index, taught[taught >= 0])
    right = called == own[rows]
    each = [right[own[rows] == code].mean() for code in np.unique(own[rows])]
    return [_row(KNN, "", "", float(right.mean())), _row(BALANCED, "", "", float(np.mean(each)))]


def _imputed(scene: Scene, cells: Cells) -> list[dict[str, Any]]:
    """Every modality as it was measured, told from what the changed cells still have."""
    rows = []
    for m in scene.model.vocabulary if scene.imputes else ():
        measured = np.flatnonzero(scene.test.present[m])
        if len(measured) > 1:
            order = list(scene.model.vocabulary)
            values = np.concatenate(list(imputed(scene.model, cells, measured, m, (scene.device, order))))
            rows.append(_scored(scene, m, "", measured, values))
    return rows


def _predicted(scene: Scene, cells: Cells, change: Change) -> list[dict[str, Any]]:
    """With noise: what is predicted from the modality that has it."""
    source, rows = change.modality, []
    for s, target in scene.loaded.directions if change.kind == NOISE else ():
        both = np.flatnonzero(scene.test.present[source] & scene.test.present[target])
        if s != source or len(both) < 2:
            continue

        def work(batch: Batch, size: int, target: str = target) -> Arrays:
            found = scene.model.predict(batch.only(source).to(scene.device), source, target)
            return (found[:size].float().cpu().numpy(),)

        parts = streamed(
            scene.model, cells, both, (scene.device, list(cells.vocabulary)), work, f"predicted in {target}"
        )
        rows.append(_scored(scene, target, source, both, np.concatenate([p[0] for p in parts])))
    return rows


def _scored(scene: Scene, target: str, source: str, rows: Index, values: Array) -> dict[str, Any]:
    """Against what was measured before the change: mean over features."""
    truth = Matrix(scene.test.values(target, rows))
    if scene.model.vocabulary[target].scale == fields.BINARY:
        return _row(AUROC, target, source, mean_of(feature_ranking(values, truth)[0]))
    return _row(PEARSON, target, source, mean_of(feature_pearson(values, truth)))


def _row(score: str, target: str, source: str, value: float) -> dict[str, Any]:
    return {"score": score, "target": target, "source": source, "value": value}


def _touched(scene: Scene, cells: Cells, change: Change) -> int:
    """Cells that are another than they were measured."""
    before = scene.test.present[change.modality]
    if change.kind == DROP:
        return int((before & ~cells.present[change.modality]).sum())
    return int(before.sum()) if change.strength else 0
