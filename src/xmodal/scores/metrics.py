"""The scores themselves: arrays in, numbers out.  What they mean and what chance is: docs/scores.md.

Conventions: ``predicted`` is float32 (cells, features) on the scale of the truth; the truth comes through
:class:`Matrix`, sparse or dense; a constant prediction correlates with nothing (0, not nan); nan means "cannot be
scored".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]

CHUNK = 256  # rows or columns made dense at once
TINY = 1e-8  # spreads below this are a constant, in the units of log1p counts and probabilities
RELATIVE = 1e-7  # float32 keeps 7 digits: a spread that small beside its mean is rounding


@dataclass(frozen=True)
class Matrix:
    """True values (cells, features), sparse or dense, read in dense blocks."""

    values: Any

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.values.shape[0]), int(self.values.shape[1])

    @cached_property
    def by_column(self) -> Any:
        return sp.csc_matrix(self.values) if sp.issparse(self.values) else self.values

    def rows(self, index: Any) -> Array:
        return dense(self.values[index])

    def columns(self, index: Any) -> Array:
        return dense(self.by_column[:, index])

    def subset(self, rows: Index) -> Matrix:
        return Matrix(self.values[rows])

    def nonzero(self) -> Index:
        """Cells in which each feature is not zero, (features,)."""
        if sp.issparse(self.values):
            return np.bincount(self.values.indices[self.values.data != 0], minlength=self.shape[1]).astype(np.int64)
        return (self.values != 0).sum(0).astype(np.int64)


def dense(block: Any) -> Array:
    return np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float32)


def blocks(length: int, size: int = CHUNK) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def pearson(a: npt.ArrayLike, b: npt.ArrayLike, axis: int) -> Floats:
    """Pearson correlation along ``axis`` of two equally shaped matrices; 0 where either is constant."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    mean_x, mean_y = x.mean(axis, keepdims=True), y.mean(axis, keepdims=True)
    x, y = x - mean_x, y - mean_y
    xx, yy, xy = (x * x).sum(axis), (y * y).sum(axis), (x * y).sum(axis)
    spread = np.sqrt(xx * yy)
    count = a.shape[axis] if isinstance(a, np.ndarray) else x.shape[axis]
    varies = (spread > TINY) & (xx > count * (RELATIVE * mean_x.squeeze(axis)) ** 2)
    varies &= yy > count * (RELATIVE * mean_y.squeeze(axis)) ** 2
    return np.divide(xy, spread, out=np.zeros_like(xy), where=varies)


def feature_pearson(predicted: Array, truth: Matrix) -> Floats:
    """Pearson over cells of each feature, (features,)."""
    parts = [pearson(predicted[:, s], truth.columns(s), 0) for s in blocks(truth.shape[1])]
    return np.concatenate(parts) if parts else np.zeros(0)


def cell_pearson(predicted: Array, truth: Matrix, centre: npt.ArrayLike = 0.0) -> Floats:
    """Pearson over features of each cell, after ``centre`` (features,) was taken from both, (cells,)."""
    c = np.asarray(centre, dtype=np.float32)  # as the values, so that a prediction of the centre leaves nothing
    return np.concatenate([pearson(predicted[s] - c, truth.rows(s) - c, 1) for s in blocks(truth.shape[0])])


def rmse(predicted: Array, truth: Matrix) -> float:
    """Root of the mean squared difference over all values."""
    total = sum(float(np.square(predicted[s] - truth.rows(s), dtype=np.float64).sum()) for s in blocks(truth.shape[0]))
    return float(np.sqrt(total / max(predicted.size, 1)))


def ranking(scores: Array, positive: Index) -> tuple[float, float]:
    """(AUROC, average precision) of one ranking: ``scores`` (n,), ``positive`` positions of the true ones.

    Ties count half in AUROC; in average precision all of a tie are found together, as in scikit-learn.  (nan, nan)
    without positives; AUROC is nan without negatives.
    """
    n, n1 = len(scores), len(positive)
    if n1 == 0:
        return float("nan"), float("nan")
    ordered, own = np.sort(scores), np.sort(scores[positive])
    below = np.searchsorted(ordered, own, "left")
    ranks = (below + np.searchsorted(ordered, own, "right") + 1) / 2
    found = n1 - np.searchsorted(own, own, "left")  # positives that score at least as high
    precision = float((found / (n - below)).mean())
    if n == n1:
        return float("nan"), precision
    return float((ranks.sum() - n1 * (n1 + 1) / 2) / (n1 * (n - n1))), precision


def feature_ranking(predicted: Array, truth: Matrix) -> tuple[Floats, Floats]:
    """AUROC and average precision of each feature over cells, (features,) each."""
    n = truth.shape[1]
    auroc, precision = np.full(n, np.nan), np.full(n, np.nan)
    for s in blocks(n):
        scores, open_ = np.ascontiguousarray(predicted[:, s].T), truth.columns(s).T > 0
        for i in range(len(scores)):
            auroc[s.start + i], precision[s.start + i] = ranking(scores[i], np.flatnonzero(open_[i]))
    return auroc, precision


def cell_ranking(predicted: Array, truth: Matrix) -> tuple[Floats, Floats]:
    """AUROC and average precision of each cell over features, (cells,) each."""
    n = truth.shape[0]
    auroc, precision = np.full(n, np.nan), np.full(n, np.nan)
    for s in blocks(n):
        open_ = truth.rows(s) > 0
        for i in range(len(open_)):
            auroc[s.start + i], precision[s.start + i] = ranking(predicted[s.start + i], np.flatnonzero(open_[i]))
    return auroc, precision


def within_type(
    predicted: Array, truth: Matrix, labels: npt.NDArray[Any], min_cells: int = 50, min_open: int = 5
) -> float:
    """Pearson over cells of each feature inside each type, mean over features, then weighted by cells over types.

    Types below ``min_cells`` cells and features that are not zero in fewer than ``min_open`` of them are left out; nan
    where nothing is left.  Above 0: something beyond the type's mean was predicted.
    """
    values, weights = [], []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < min_cells:
            continue
        part, own = truth.subset(rows), predicted[rows]
        keep = part.nonzero() >= min_open
        if keep.any():
            values.append(float(feature_pearson(own, part)[keep].mean()))
            weights.append(len(rows))
    return float(np.average(values, weights=weights)) if values else float("nan")


def nearest_type(profiles: Iterable[npt.NDArray[Any]], means: Floats, overall: Floats, most: int = 0) -> Index:
    """The type each cell resembles most, as a row of ``means`` (types, features); ``profiles``: blocks of cells.

    Cosine after each side's own overall mean was taken out, so that an offset of the prediction does not count.  A cell
    that resembles no type more than another, as all do in a constant prediction, gets type ``most``.
    """
    centred = means - overall
    directions = (centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)).T
    total, projected = np.zeros(len(overall)), []
    for block in profiles:
        total += block.sum(0, dtype=np.float64)
        projected.append(block @ directions)
    along = np.concatenate(projected)
    own = total / len(along)
    along = along - own @ directions
    nearest = along.argmax(1)
    nearest[np.ptp(along, axis=1) <= 1e-9 * np.linalg.norm(own)] = most  # what is left is rounding
    return nearest


def variance_ratio(predicted: Array, truth: Matrix, top: int = 200) -> float:
    """Median over the ``top`` most variable true features of predicted over true variance; 1 is right, 0 is flat."""
    true = np.concatenate([truth.columns(s).var(0, dtype=np.float64) for s in blocks(truth.shape[1])])
    chosen = np.argsort(-true, kind="stable")[:top]
    return float(np.median(predicted[:, chosen].var(0, dtype=np.float64) / np.maximum(true[chosen], 1e-9)))


def rates(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Share of each feature in its cell, times 1000: depth taken out."""
    positive = np.clip(values, 0, None)
    shares: npt.NDArray[Any] = positive / np.maximum(positive.sum(1, keepdims=True), 1e-9) * 1e3
    return shares


def mean_of(values: npt.ArrayLike) -> float:
    """Mean without the nan; nan where nothing is left."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if kept.size else float("nan")
