"""Numbers about an embedding: arrays in, numbers out.  What they mean and what chance is: docs/scores.md.

Conventions: ``z`` is (cells, dimensions) float32; ``codes`` (cells,) are labels or batches as whole numbers from 0; nan means
"cannot be scored".  Nothing of the size cells x cells is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.scores.metrics import Array, Floats, Index

NEIGHBORS = 15  # of a cell, that vote on its label
PERPLEXITY = 30.0  # of LISI, as its authors have it
MIXED = 90  # neighbours that LISI and kBET look at: three times the perplexity, as LISI's authors have it
ALPHA = 0.05  # of the test in kBET
FOLDS = 5
MIN_TYPE = 10  # cells of a type, below which its mean is no use within folds
MIN_CELLS = 50  # below which five folds say nothing
MOST_DRAWN = (
    10_000  # cells for the silhouette, whose cost grows with their square, and for depth, where more change nothing
)
BLOCK = 1 << 24  # distances held at once: 128 MiB


@dataclass(frozen=True)
class Neighbors:
    """The nearest cells of each, (cells, k), the nearest first, never the cell itself."""

    index: Index
    distance: Floats

    def first(self, k: int) -> Neighbors:
        return Neighbors(self.index[:, :k], self.distance[:, :k])


def neighbors(z: Array, k: int, among: Array | None = None) -> Neighbors:
    """The ``k`` nearest of the cells ``z`` (Euclidean, exact), or for each of ``z`` those of other cells, ``among``."""
    from sklearn.neighbors import NearestNeighbors

    known = z if among is None else among
    search = NearestNeighbors(n_neighbors=min(k, len(known) - (among is None)), algorithm="brute").fit(known)
    distance, index = search.kneighbors(None if among is None else z)
    return Neighbors(index.astype(np.int64), distance.astype(np.float64))


def voted(index: Index, codes: Index) -> Index:
    """The commonest of the ``codes`` that the neighbours ``index`` (cells, k) have; of equals the first, (cells,)."""
    votes = np.stack([(codes[index] == c).sum(1) for c in range(int(codes.max()) + 1)], axis=1)
    winners: Index = votes.argmax(1)
    return winners


def local_inverse_simpson(near: Neighbors, batches: Index, perplexity: float = PERPLEXITY) -> Floats:
    """How many batches are around each cell, (cells,): 1 to their number (LISI; Korsunsky et al. 2019).

    Neighbours count by a Gaussian-like kernel whose width gives each cell the same perplexity, found by bisection.
    """
    d = near.distance - near.distance[:, :1]  # a shift changes no share and keeps exp() in range
    perplexity = min(perplexity, d.shape[1] / 3)
    beta, low, high = np.ones(len(d)), np.zeros(len(d)), np.full(len(d), np.inf)
    for _ in range(60):
        weights = np.exp(-d * beta[:, None])
        total = weights.sum(1)
        excess = np.log(total) + beta * (d * weights).sum(1) / total - np.log(perplexity)
        if (np.abs(excess) < 1e-5).all():
            break
        low, high = np.where(excess > 0, beta, low), np.where(excess > 0, high, beta)
        middle = (low + np.where(np.isinf(high), 0, high)) / 2
        beta = np.where(np.abs(excess) < 1e-5, beta, np.where(np.isinf(high), beta * 2, middle))
    shares = np.exp(-d * beta[:, None])
    shares /= shares.sum(1, keepdims=True)
    own = batches[near.index]
    simpson = sum(((shares * (own == b)).sum(1) ** 2 for b in range(int(batches.max()) + 1)), np.zeros(len(d)))
    found: Floats = 1 / simpson
    return found


def ilisi(near: Neighbors, batches: Index, perplexity: float = PERPLEXITY) -> float:
    """Median over cells of LISI, from 0 (cells see their own batch only) to 1 (all batches alike)."""
    many = int(batches.max()) + 1
    return float((np.median(local_inverse_simpson(near, batches, perplexity)) - 1) / (many - 1))


def kbet(near: Neighbors, batches: Index, alpha: float = ALPHA) -> float:
    """Share of cells around which batches are as frequent as everywhere: a chi-square test of each neighbourhood.

    After Büttner et al. 2019, who test a draw of cells; here all are tested.
    """
    from scipy.stats import chi2

    expected = np.bincount(batches) / len(batches) * near.index.shape[1]
    own = batches[near.index]
    seen = np.stack([(own == b).sum(1) for b in range(len(expected))], axis=1)
    statistic = ((seen - expected) ** 2 / expected).sum(1)
    return float((chi2.sf(statistic, len(expected) - 1) >= alpha).mean())


def silhouette(z: Array, codes: Index, seed: int) -> float:
    """Mean silhouette of the labels (Rousseeuw 1987), -1 to 1; of a draw of cells where there are many."""
    import sklearn
    from sklearn.metrics import silhouette_score

    rows = _drawn(len(z), seed)
    if not 2 <= len(np.unique(codes[rows])) < len(rows):
        return float("nan")
    with sklearn.config_context(working_memory=128):
        return float(silhouette_score(z[rows], codes[rows]))


def _drawn(cells: int, seed: int) -> Index:
    """All cells, or a draw where there are many."""
    if cells <= MOST_DRAWN:
        return np.arange(cells)
    return np.sort(np.random.default_rng(seed).choice(cells, MOST_DRAWN, replace=False))


# ---- what an embedding tells of the depth


def depth_r2(z: Array, depth: Floats, types: Index | None, trees: bool, seed: int) -> float:
    """Share of the variance of the log ``depth`` (cells,) that the embedding predicts in five folds; below 0 counts as 0.

    By ridge regression, or by gradient-boosted ``trees``, which also find what is not linear.  With ``types``: what is
    left to predict after the mean of each type, learned in the training folds, was taken out of both.
    """
    from sklearn.model_selection import KFold

    if types is not None:
        keep = np.isin(types, np.flatnonzero(np.bincount(types) >= MIN_TYPE))
        z, depth, types = z[keep], depth[keep], types[keep]
    rows = _drawn(len(z), seed)
    z, depth, types = z[rows], depth[rows], None if types is None else types[rows]
    if len(z) < MIN_CELLS or np.ptp(depth) == 0:
        return float("nan")
    error, spread = 0.0, 0.0
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(z):
        groups = np.zeros(len(z), np.int64) if types is None else types
        x, y = _centred(z.astype(np.float64), groups, train), _centred(depth[:, None], groups, train)[:, 0]
        model = _regression(trees, seed).fit(x[train], y[train])
        error += float(((y[test] - model.predict(x[test])) ** 2).sum())
        spread += float((y[test] ** 2).sum())
    return max(0.0, 1 - error / spread) if spread > 0 else float("nan")


def _centred(values: Floats, groups: Index, train: Index) -> Floats:
    """``values`` (cells, n) without the mean that their group has in the cells ``train``; of a group without any, that of all."""
    sizes = np.bincount(groups[train], minlength=int(groups.max()) + 1)
    totals = np.zeros((len(sizes), values.shape[1]))
    np.add.at(totals, groups[train], values[train])
    means = np.where(sizes[:, None] > 0, totals / np.maximum(sizes, 1)[:, None], values[train].mean(0))
    centred: Floats = values - means[groups]
    return centred


def _regression(trees: bool, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if trees:
        return HistGradientBoostingRegressor(max_iter=100, max_leaf_nodes=15, early_stopping=False, random_state=seed)
    return make_pipeline(StandardScaler(), Ridge(1.0))


# ---- do two modalities meet?


def without(z: Array, depths: Floats) -> Floats:
    """What of ``z`` (cells, dimensions) a line in ``depths`` (cells, n; log) does not explain."""
    design = np.column_stack([np.ones(len(z)), depths])
    values = z.astype(np.float64)
    left: Floats = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return left


def matching(first: npt.NDArray[Any], second: npt.NDArray[Any], codes: Index | None) -> tuple[float, float]:
    """(FOSCTTM, label match) of two embeddings of the same cells, (cells, dimensions) each, row by row the same cell.

    FOSCTTM (Liu et al. 2019): share of the other modality's cells that are closer than the cell itself, both ways; 0 is
    perfect, 0.5 chance.  Label match: share of cells whose nearest in the other modality has the same label, both ways.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    shift = b.mean(0)  # keeps digits where both lie far from zero
    a, b = a - shift, b - shift
    square = (b**2).sum(1)
    own = ((a - b) ** 2).sum(1)
    closer = 0.0
    best, nearest = np.full(len(b), np.inf), np.zeros(len(b), np.int64)
    forward = np.zeros(len(a), np.int64)
    for rows in _blocks(len(a), len(b)):
        d = (a[rows] ** 2).sum(1)[:, None] + square - 2 * (a[rows] @ b.T)
        d[np.arange(len(d)), np.arange(len(a))[rows]] = own[rows]
        closer += (d < own[rows][:, None]).sum() + (d < own).sum()
        forward[rows] = d.argmin(1)
        here = d.argmin(0)
        least = d[here, np.arange(len(b))]
        nearest, best = np.where(least < best, here + rows.start, nearest), np.minimum(best, least)
    share = float(closer / (2 * len(a) * len(b)))
    if codes is None:
        return share, float("nan")
    return share, float(((codes[forward] == codes).mean() + (codes[nearest] == codes).mean()) / 2)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(columns, 1))
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
