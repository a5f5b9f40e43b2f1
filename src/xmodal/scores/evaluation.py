"""Truth against prediction and controls: one prepared file, one or more prediction files, one folder of results."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields, progress
from xmodal.data import leaving
from xmodal.data.on_disk import OnDisk
from xmodal.data.shuffling import LARGE
from xmodal.data.vocabulary import Vocabulary
from xmodal.errors import InputRefused
from xmodal.scores import given_results, intervals, validation_cells
from xmodal.scores.intervals import Intervals
from xmodal.scores.metrics import Array, Matrix, blocks
from xmodal.scores.scoring import Scored, Truth, reference, score
from xmodal.scores.validation_cells import learned_parts

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings

log = logging.getLogger(__name__)
PREDICTION = "prediction"
VALUES = 500_000_000  # of the scored cells: 2 GB, and as much again for each control
FEWEST = 1_000  # cells that are scored however many features there are


@dataclass(frozen=True)
class Target:
    """One predicted modality: the truth, its scored methods, and what the prediction file says about itself."""

    name: str
    source: str
    truth: Truth
    predicted: Array
    methods: dict[str, Scored]
    about: dict[str, Any]
    filled: int
    notes: list[str]
    intervals: Intervals | None = None


def evaluate(
    mdata: MuData, predictions: dict[str, tuple[str, AnnData]], settings: EvaluationSettings, seed: int
) -> list[Target]:
    """Score each prediction, ``predictions[target] = (where, h5ad)``, against ``mdata``; one :class:`Target` for each.

    Raises :class:`InputRefused` where truth and prediction do not belong together.
    """
    _require_labels(mdata, settings.label_key)
    settings = settings.model_copy(update={"cells": scored_cells(predictions, settings)})
    return [_target(mdata, name, predictions[name], settings, seed) for name in sorted(predictions)]


def _target(
    mdata: MuData, name: str, prediction: tuple[str, AnnData], settings: EvaluationSettings, seed: int
) -> Target:
    where, adata = prediction
    about = prediction_about(adata)
    source = _source(mdata, name, about, where)
    notes = validation_cells.notes(about, settings.cells)
    if settings.features == "predicted":
        mdata, adata = _on_features_of(mdata, name, adata, notes)
    cells = _cells(mdata, name, source, adata, settings.cells, where)
    cells = _drawn(cells, mdata.mod[name].n_vars, settings.most_cells, seed, notes)
    truth = make_truth(mdata, name, cells, settings, notes)
    predicted, filled = _aligned(adata, truth, settings.allow_missing, where)
    log.info("%s from %s: %d cells, %d features", name, source or "?", len(cells), len(truth.features))
    methods = {PREDICTION: score(predicted, truth, settings.clusters)}
    names = settings.control_names()
    for control in progress.along(names, len(names), f"{name}: controls", "controls"):
        values = _control(mdata, (source, name), control, truth, (settings, seed))
        if values is None:
            notes.append(f"the control '{control}' could not be computed")
        else:
            methods[control] = score(values, truth, settings.clusters)
    if filled:
        notes.append(f"{filled} features have no prediction and were filled with their training mean")
    found = intervals.measure(name, adata, truth, about)
    return Target(name, source, truth, predicted, methods, about, filled, notes, found)


def scored_cells(predictions: dict[str, tuple[str, AnnData]], settings: EvaluationSettings) -> str:
    """Which cells are scored: those of the settings, or the part of the split that all predictions were asked for."""
    if settings.cells != "asked":
        return settings.cells
    parts = {prediction_about(adata)["settings"].get("split") for _, adata in predictions.values()}
    return fields.VALID if parts == {fields.VALID} else fields.TEST


def read_prediction(path: Path, on_disk: leaving.Choice = leaving.NEVER) -> AnnData:
    """A prediction file, whose values may stay on disk; refused where it cannot be read or is no h5ad (or its like in Zarr)."""
    from anndata import AnnData

    from xmodal.data.contracts import survey
    from xmodal.data.io import READERS, ZARR, file_kind, refusing

    adata = None
    if (kind := file_kind(path)) in ("h5ad", ZARR):
        with refusing(path):
            adata = leaving.read(path, READERS[kind]) if leaving.wanted(path, on_disk) else READERS[kind](path)
    if not isinstance(adata, AnnData):
        raise InputRefused(
            "a prediction must be an h5ad (or a Zarr store of one matrix)",
            where=str(path),
            do="give what `xmodal predict --output P.h5ad` wrote",
        )
    if adata.X is None or min(adata.shape) == 0:
        raise InputRefused("there is no prediction in it", where=str(path), do="predict again")
    finite, least, largest, whole = survey(adata.X) if fields.UNS not in adata.uns else (True, 0.0, 0.0, False)
    if finite and whole and least >= 0:
        what = "it holds whole numbers, as counts are: measured, not predicted"
        do = "give what xmodal predict wrote; measured cells would score perfectly against themselves"
        if largest > 1:
            raise InputRefused(what, where=str(path), do=do)
        log.warning("%s: %s? Zeros and ones are scored all the same, since a method may guess so", path, what)
    about = prediction_about(adata)
    if about.get("schema") == fields.LATENT_SCHEMA:
        do = "run xmodal decode and give what that writes"
        raise InputRefused("it holds a latent, not predicted values", where=str(path), do=do)
    _require_all_values(about, path)
    return adata


def _require_all_values(about: dict[str, Any], path: Path) -> None:
    top, threshold = about.get("top"), about.get("threshold")
    kept = f"the {top} highest values of each cell" if top else f"values of at least {threshold}"
    if top or threshold is not None:
        raise InputRefused(
            f"it holds only {kept}; scores need all of them",
            where=str(path),
            do=f"predict again without --{'top' if top else 'threshold'}",
        )


def require_checkpoint(checkpoint: Path, predictions: dict[str, tuple[str, AnnData]]) -> None:
    """Refuse a prediction that says it was made by another checkpoint."""
    said = {where: prediction_about(adata).get("checkpoint_sha256") for where, adata in predictions.values()}
    given_results.require_checkpoint(checkpoint, said, "predict")


def prediction_about(adata: AnnData) -> dict[str, Any]:
    """``uns["xmodal"]`` of a prediction, its ``settings`` decoded; {} where there is none."""
    about = {str(k): v.item() if hasattr(v, "item") else v for k, v in dict(adata.uns.get(fields.UNS, {})).items()}
    try:
        about["settings"] = json.loads(about.get("settings", "{}"))
    except (TypeError, ValueError):
        about["settings"] = {}
    return about


def _require_labels(mdata: MuData, key: str | None) -> None:
    if key is not None and key not in mdata.obs:
        from xmodal.data.splits import near

        raise InputRefused(f"obs has no column '{key}'", where="--label-key", do=near(key, list(mdata.obs.columns)))


def _source(mdata: MuData, name: str, about: dict[str, Any], where: str) -> str:
    if name not in mdata.mod:
        raise InputRefused(
            f"the truth has no modality '{name}' (it has {', '.join(mdata.mod)})",
            where="--prediction",
            do="give the prediction under the name of the modality it predicts",
        )
    stated = about.get("target", name)
    if stated != name:
        raise InputRefused(
            f"this is a prediction of {stated}, not of {name}", where=where, do=f"give it as --prediction {stated}=..."
        )
    others = [m for m in mdata.mod if m != name]
    source = str(about.get("source") or (others[0] if len(others) == 1 else ""))
    return source if source in mdata.mod else ""


def _cells(mdata: MuData, name: str, source: str, adata: AnnData, which: str, where: str) -> npt.NDArray[np.str_]:
    """Names of the cells to score, in the order of the file: measured in the target (and the source)."""
    if not adata.obs_names.is_unique:
        raise InputRefused("cell names are duplicated", where=where, do="merge predictions with xmodal merge")
    known = set(mdata.obs_names)
    strange = [c for c in adata.obs_names if c not in known]
    if strange:
        raise InputRefused(
            f"{len(strange)} of {adata.n_obs} cells are not in the truth, first {', '.join(strange[:3])}",
            where=where,
            do="give the truth of the same cells, with the same cell names",
        )
    measured = mdata.obs_names.isin(mdata.mod[name].obs_names)
    if source:
        measured &= mdata.obs_names.isin(mdata.mod[source].obs_names)
    predicted = mdata.obs_names.isin(adata.obs_names)
    if which == "all":
        chosen = measured & predicted
    else:
        if fields.SPLIT not in mdata.obs:
            raise InputRefused(
                f"obs has no column '{fields.SPLIT}'", where="truth", do="run xmodal prepare, or give --cells all"
            )
        chosen = measured & (mdata.obs[fields.SPLIT].astype(str) == which).to_numpy()
        missing = mdata.obs_names[chosen & ~predicted]
        if len(missing):
            raise InputRefused(
                f"{len(missing)} of {chosen.sum()} {which} cells have no prediction, first {', '.join(missing[:3])}",
                where=where,
                do=f"predict all {which} cells, or give --cells all to score those there are",
            )
    if chosen.sum() < 2:
        raise InputRefused(
            f"{int(chosen.sum())} cells have both a measurement and a prediction of {name}; 2 are needed",
            where=where,
            do="give more cells to score (xmodal prepare --test-fraction or --valid-fraction), or --cells all",
        )
    return np.asarray(mdata.obs_names[chosen], dtype=str)


def _drawn(
    cells: npt.NDArray[np.str_], features: int, most: int | None, seed: int, notes: list[str]
) -> npt.NDArray[np.str_]:
    """At most ``most`` of the cells, in their order: predictions of all are held at once, and scores of some say the same."""
    most = most or max(FEWEST, VALUES // features)
    if len(cells) <= most:
        return cells
    notes.append(f"{most} of {len(cells)} cells are scored, drawn (--most-cells)")
    log.info(notes[-1])
    return cells[np.sort(np.random.default_rng(seed).choice(len(cells), most, replace=False))]


def _learned(matrix: Any, train: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """As many of the training cells as may be held at once (1 GB of counts)."""
    sizes = matrix.stored[train] if isinstance(matrix, OnDisk) else np.diff(matrix.indptr)[train]
    if sizes.sum() <= LARGE:
        return train
    order = np.random.default_rng(0).permutation(len(train))
    return np.sort(train[order[np.cumsum(sizes[order]) <= LARGE]])


def make_truth(
    mdata: MuData, name: str, cells: npt.NDArray[np.str_], settings: EvaluationSettings, notes: list[str]
) -> Truth:
    """True values of ``cells`` and what the training cells say about the modality ``name``."""
    adata = mdata.mod[name]
    scale = Vocabulary.from_prepared(mdata)[name].scale
    labels = None if settings.label_key is None else _labels(mdata, settings.label_key)
    order = adata.obs_names
    part = (
        mdata.obs[fields.SPLIT].astype(str).reindex(order).to_numpy()
        if fields.SPLIT in mdata.obs
        else np.full(len(order), "")
    )
    train = _learned(adata.X, np.flatnonzero(np.isin(part, learned_parts(settings.cells))))
    rows = order.get_indexer(cells)
    if not len(train):
        notes.append("the file holds no training cells: scores are centred on the mean of the scored cells themselves")
        train = np.sort(rows)
    own = None if labels is None else labels.reindex(order).to_numpy(str)
    mean, top, types = reference(scaled(adata, train, scale), scale, None if own is None else own[train])
    return Truth(
        scale,
        adata.var_names.to_numpy(str),
        cells,
        scaled(adata, rows, scale),
        None if own is None else own[rows],
        mean,
        top,
        types,
    )


def _labels(mdata: MuData, key: str) -> Any:
    column = mdata.obs[key]
    return column.astype(object).where(column.notna(), "").astype(str)


def scaled(adata: AnnData, rows: npt.NDArray[np.int64], scale: str) -> Matrix:
    """Values of ``rows`` on ``scale``; sparse where zero stays zero."""
    from xmodal.data.transforms import to_scale

    depth = adata.obs[fields.DEPTH].to_numpy()[rows] if fields.DEPTH in adata.obs else None
    if scale not in (fields.LOG_CP10K, fields.BINARY):
        return Matrix(to_scale(adata.X[rows], depth, scale))
    parts = [
        sp.csr_matrix(to_scale(adata.X[rows[s]], None if depth is None else depth[s], scale)) for s in blocks(len(rows))
    ]
    return Matrix(sp.vstack(parts, format="csr") if parts else sp.csr_matrix((0, adata.n_vars), dtype=np.float32))


def _aligned(adata: AnnData, truth: Truth, allow_missing: bool, where: str) -> tuple[Array, int]:
    """The prediction in the truth's cells and features, and how many features were filled with their mean."""
    if not adata.var_names.is_unique:
        raise InputRefused("feature names are duplicated", where=where, do="predict again with this version")
    theirs = adata.var_names
    position = theirs.get_indexer(truth.features)
    strange = theirs[~theirs.isin(truth.features)]
    if len(strange):
        raise InputRefused(
            f"{len(strange)} of {len(theirs)} predicted features are not in the truth, first {', '.join(strange[:3])}",
            where=where,
            do="give --features predicted to bring the truth to the prediction's features",
        )
    missing = truth.features[position < 0]
    if len(missing) and not allow_missing:
        raise InputRefused(
            f"{len(missing)} of {len(position)} features have no prediction, first {', '.join(missing[:3])}",
            where=where,
            do="give --allow-missing (filled with the training mean) or --features predicted",
        )
    rows = adata.obs_names.get_indexer(truth.cells)
    out = np.empty((len(rows), len(position)), np.float32)
    for s in blocks(len(rows)):
        block = adata.X[rows[s]]
        dense = np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float32)
        if not np.isfinite(dense).all():
            raise InputRefused(
                "the prediction holds values that are not finite",
                where=where,
                do="predict again; look at the training's warnings",
            )
        out[s] = dense[:, np.maximum(position, 0)]
    out[:, position < 0] = truth.mean[position < 0]
    return out, len(missing)


def _control(
    mdata: MuData, pair: tuple[str, str], control: str, truth: Truth, how: tuple[EvaluationSettings, int]
) -> Array | None:
    """The prediction of one control for the scored cells; None where it cannot be had."""
    settings, seed = how
    if control == "mean":
        return np.tile(truth.mean.astype(np.float32), (len(truth.cells), 1))
    if settings.cells == "all" or not pair[0]:
        return None
    part = mdata.obs[fields.SPLIT].astype(str)
    if not part.isin(learned_parts(settings.cells)).any():
        return None
    from xmodal.scores.controls import control_predictions

    found = control_predictions(mdata, pair, (control,), seed, (settings.cells, truth.cells)).get(control)
    return None if found is None or len(found) != len(truth.cells) else np.asarray(found, np.float32)


def _on_features_of(mdata: MuData, name: str, adata: AnnData, notes: list[str]) -> tuple[MuData, AnnData]:
    """Truth and prediction in the features both have, as predict brings its input to a checkpoint.

    Genes by name or Ensembl id, peaks by overlap; what the truth did not measure is left out and noted.
    """
    import anndata as ad
    import mudata as mu

    from xmodal.data.alignment import align

    ids = tuple(adata.var[fields.GENE_ID].astype(str)) if fields.GENE_ID in adata.var else None
    wanted = replace(Vocabulary.from_prepared(mdata)[name], features=tuple(map(str, adata.var_names)), gene_ids=ids)
    own = mdata.mod[name]
    counts, depth, found = align(own, wanted)
    reached = align(ad.AnnData(np.ones((1, own.n_vars), np.float32), var=own.var), wanted)[0].toarray()[0] > 0
    if not reached.any():
        raise InputRefused(
            f"not one predicted feature of {name} is in the truth",
            where="--prediction",
            do="give the truth in the same features or genome",
        )
    notes.append(
        f"the truth was brought to the prediction's {found.features} features: {found.missing} of them were not "
        f"measured and are not scored; {found.unused} measured ones were not predicted"
    )
    brought = ad.AnnData(
        counts.then(lambda block: block[:, reached], int(reached.sum()))
        if isinstance(counts, OnDisk)
        else counts[:, reached],
        obs=own.obs[[]].assign(**{fields.DEPTH: depth}),
        var=adata.var.loc[reached, []],
    )
    mu.set_options(pull_on_update=False)
    out = mu.MuData({m: brought if m == name else a for m, a in mdata.mod.items()})
    out.obs = mdata.obs.reindex(out.obs_names)
    out.uns = mdata.uns
    return out, leaving.kept(adata, columns=reached) if leaving.on_disk(adata) else adata[:, reached]
