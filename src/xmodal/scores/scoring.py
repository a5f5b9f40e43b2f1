"""Which scores a modality gets: the truth with what is known from training cells, and one prediction against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.fields import BINARY, IDENTITY, LOG_CP10K
from xmodal.scores import metrics
from xmodal.scores.metrics import Array, Floats, Index, Matrix, mean_of

Scores = dict[str, float]
MIN_CELLS = 5  # a feature is scored where it is not zero in this many test cells
MAX_PEAKS, MAX_CELLS = 4_000, 500  # draws of the outside scorer, kept so that scores of one name can be compared
DRAW_SEED = 0
TOP_GENES = 200
MIN_TYPE = 10  # cells of a type, in training and in test, below which its accuracy is chance
MIN_DETECTED = 0.02  # share of training cells a highly variable gene is seen in


@dataclass(frozen=True)
class Types:
    """Mean true training profile of each type with enough cells: (types, features), and ``overall`` (features,)."""

    names: npt.NDArray[np.str_]
    means: Floats
    overall: Floats
    most: int  # the type with the most training cells


@dataclass(frozen=True)
class Truth:
    """The cells to score: ``values`` (cells, features) on ``scale``, ``labels`` (cells,; "" where unknown) or None.

    ``mean`` (features,), ``top`` (indices of highly variable features) and ``types`` come from training cells.
    """

    scale: str
    features: npt.NDArray[np.str_]
    cells: npt.NDArray[np.str_]
    values: Matrix
    labels: npt.NDArray[Any] | None
    mean: Floats
    top: Index
    types: Types | None

    @property
    def binary(self) -> bool:
        return self.scale == BINARY


@dataclass(frozen=True)
class Scored:
    """Scores of one prediction: ``overall`` by name; ``by_feature`` (features,), nan where it cannot be scored."""

    overall: Scores
    by_feature: dict[str, Floats]


def score(predicted: Array, truth: Truth, clusters: bool = False) -> Scored:
    """All scores of ``predicted`` (cells, features; in the order of ``truth``) that exist for this truth."""
    scored = _open_or_closed(predicted, truth) if truth.binary else _levels(predicted, truth)
    overall = {**scored.overall, **_by_label(predicted, truth)}
    if clusters:
        overall |= _clusters(predicted, truth)
    return Scored({k: float(v) for k, v in overall.items() if np.isfinite(v)}, scored.by_feature)


def reference(values: Matrix, scale: str, labels: npt.NDArray[Any] | None) -> tuple[Floats, Index, Types | None]:
    """(mean, highly variable features, types) of training cells ``values`` (cells, features)."""
    cells, features = values.shape
    total, square, seen = np.zeros(features), np.zeros(features), np.zeros(features)
    for s in metrics.blocks(cells):
        block = values.rows(s).astype(np.float64)
        total, square, seen = total + block.sum(0), square + (block**2).sum(0), seen + (block > 0).sum(0)
    mean = total / max(cells, 1)
    variance = square / max(cells, 1) - mean**2
    spread = np.where(seen / max(cells, 1) > MIN_DETECTED, variance / (np.abs(mean) + 0.05), -1)
    if scale != LOG_CP10K:  # values below zero are levels as well
        spread = variance
    return mean, np.argsort(-spread, kind="stable")[:TOP_GENES], _types(values, scale, labels, mean)


def _types(values: Matrix, scale: str, labels: npt.NDArray[Any] | None, mean: Floats) -> Types | None:
    if labels is None:
        return None
    names = np.array([t for t in np.unique(labels) if t != "" and (labels == t).sum() >= MIN_TYPE])
    if not len(names):
        return None
    member = (labels[None, :] == names[:, None]).astype(np.float64)  # (types, cells)
    total, overall = np.zeros((len(names), len(mean))), np.zeros(len(mean))
    for s in metrics.blocks(len(labels)):
        block = profile(values.rows(s), scale, mean)
        total, overall = total + member[:, s] @ block, overall + block.sum(0)
    sizes = member.sum(1, keepdims=True)
    return Types(names, total / sizes, overall / len(labels), int(sizes.argmax()))


def profile(values: npt.NDArray[Any], scale: str, mean: Floats) -> npt.NDArray[Any]:
    """Profiles that can be compared between cells: of peaks the share of each, in units of its expected spread."""
    return metrics.rates(values) / np.sqrt(np.maximum(mean, 1e-4)) if scale == BINARY else values


def _levels(predicted: Array, truth: Truth) -> Scored:
    by_feature = metrics.feature_pearson(predicted, truth.values)
    by_feature[truth.values.nonzero() < MIN_CELLS] = np.nan
    error = metrics.rmse(predicted, truth.values)
    overall = {
        "cell_pearson": mean_of(metrics.cell_pearson(predicted, truth.values)),
        "cell_pearson_centred": mean_of(metrics.cell_pearson(predicted, truth.values, truth.mean)),
        "gene_pearson": mean_of(by_feature),
        "gene_pearson_top_hvg": mean_of(by_feature[truth.top]),
        "rmse" if truth.scale == IDENTITY else f"rmse_{'log1p' if truth.scale == LOG_CP10K else truth.scale}": error,
        "variance_ratio_hvg": metrics.variance_ratio(predicted, truth.values),
    }
    return Scored(overall, {"gene_pearson": by_feature})


def draw(truth: Truth) -> tuple[Index, Index]:
    """(peaks, cells) that scores of peaks and cells are taken over, the same draw as the outside scorer's."""
    rng = np.random.RandomState(DRAW_SEED)
    scorable = np.flatnonzero(truth.values.nonzero() >= MIN_CELLS)
    cells = truth.values.shape[0]
    peaks = rng.choice(scorable, min(MAX_PEAKS, len(scorable)), replace=False) if len(scorable) else scorable
    return np.sort(peaks), np.sort(rng.choice(cells, min(MAX_CELLS, cells), replace=False))


def _open_or_closed(predicted: Array, truth: Truth) -> Scored:
    peaks, cells = draw(truth)
    n_open = truth.values.nonzero()
    auroc, precision = metrics.feature_ranking(predicted, truth.values)
    auroc[n_open < MIN_CELLS] = precision[n_open < MIN_CELLS] = np.nan
    lift = precision / np.maximum(n_open / max(len(predicted), 1), 1e-12)
    cell_auroc, cell_precision = metrics.cell_ranking(predicted, truth.values)
    every = {
        "cell_auroc": cell_auroc,
        "cell_auprc": cell_precision,
        "peak_auroc": auroc,
        "peak_auprc": precision,
        "peak_auprc_over_prevalence": lift,
    }
    overall = {k: mean_of(v[cells if k.startswith("cell") else peaks]) for k, v in every.items()}
    overall |= {f"{k}_all": mean_of(v) for k, v in every.items()}
    open_ = truth.values.rows(cells) > 0
    overall["flat_auroc"], overall["flat_auprc"] = metrics.ranking(predicted[cells].ravel(), np.flatnonzero(open_))
    overall["prevalence"] = float(open_.mean())
    return Scored(overall, {"peak_auroc": auroc, "peak_auprc_over_prevalence": lift})


def _by_label(predicted: Array, truth: Truth) -> Scores:
    if truth.labels is None:
        return {}
    known = np.flatnonzero(truth.labels != "")
    labels, own, values = truth.labels, predicted, truth.values
    if len(known) < len(labels):
        labels, own, values = labels[known], own[known], values.subset(known)
    if not len(labels):
        return {}
    feature = "peak" if truth.binary else "gene"
    out = {f"{feature}_pearson_within_type": metrics.within_type(own, values, labels)}
    types = truth.types
    if types is not None:
        parts = (profile(own[s], truth.scale, truth.mean) for s in metrics.blocks(len(own)))
        guess = types.names[metrics.nearest_type(parts, types.means, types.overall, types.most)]
        hit = guess == labels
        per_type = [hit[labels == t].mean() for t in types.names if (labels == t).sum() >= MIN_TYPE]
        out |= {"label_transfer": float(hit.mean()), "label_transfer_macro": mean_of(per_type)}
    return out


def _clusters(predicted: Array, truth: Truth) -> Scores:
    """Do cells of one label lie together?  Says nothing about whether they are predicted as the right type."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    labels = truth.labels
    if labels is None or len(np.unique(labels)) < 2 or min(predicted.shape) < 3:
        return {}
    reduced = PCA(min(30, min(predicted.shape) - 1), random_state=0).fit_transform(predicted).astype(np.float64)
    k = len(np.unique(labels))
    found = [KMeans(k, n_init=10, random_state=seed).fit_predict(reduced) for seed in range(3)]
    out = {"clusters_ari": float(np.mean([adjusted_rand_score(labels, f) for f in found]))}
    names, counts = np.unique(labels, return_counts=True)
    keep = np.isin(labels, names[counts >= 3])  # rarer labels cannot be cross-validated
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    if keep.sum() >= 30:
        near = cross_val_score(KNeighborsClassifier(15), reduced[keep], labels[keep], cv=folds)
        out["clusters_knn15"] = float(near.mean())
    return out
