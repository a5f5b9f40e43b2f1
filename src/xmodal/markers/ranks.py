"""Cells of a group against all others by ranks, within strata of cells of like depth.

With one stratum this is the Wilcoxon rank-sum test with its correction for ties, number by number that of
``scanpy.tl.rank_genes_groups``.  With strata it is van Elteren's test (1960), and where values are 0 or 1 the test of Cochran,
Mantel and Haenszel (1959).  Strata are needed: zeros are ties at the lowest rank, and a deeper cell has fewer of them, so that
cells of unequal depth differ in every feature however their counts are divided (benchmarks/RESULTS.md, "Markers").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
# Cells of a stratum: fewer lose information (one part in their number), more leave depth in.  25 to 400 were measured.
STRATUM = 50
VALUES = 4_000_000  # of a chunk of features: some 200 MB while they are sorted
SKEWED = 1e-4  # below this skewness the normal distribution is as good to the last digits


@dataclass(frozen=True)
class Columns:
    """Dense columns, made when they are asked for: ``matrix`` (cells, features; CSC) less ``shift`` (cells,)."""

    matrix: sp.csc_matrix
    shift: Float

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    def block(self, first: int, last: int) -> Float:
        return self.matrix[:, first:last].toarray() - self.shift[:, None]

    def blocks(self) -> Iterator[Float]:
        """All columns, some ``VALUES`` numbers at a time."""
        step = max(1, VALUES // max(self.shape[0], 1))
        for first in range(0, self.shape[1], step):
            yield self.block(first, first + step)


@dataclass(frozen=True)
class RankTest:
    """All (groups, features): ``statistic`` is standard normal without a difference; ``auroc`` is 0.5 there.

    ``auroc``: how often a cell of the group has more than another cell of its stratum, ties counted half.  nan where
    a feature does not vary or a group has no other cell in any of its strata.
    """

    statistic: Float
    pvalue: Float
    auroc: Float


def strata_of(depth: Float, cells: int = STRATUM) -> Index:
    """Strata (cells,) of about ``cells`` cells of like depth, numbered from the shallowest."""
    number = max(1, len(depth) // cells)
    strata = np.empty(len(depth), np.int64)
    strata[np.argsort(depth, kind="stable")] = np.arange(len(depth)) * number // len(depth)
    return strata


def test(values: Any, groups: Index, count: int, strata: Index) -> RankTest:
    """Each of ``count`` groups (``groups``: code of every cell, -1 for cells of no group) against all other cells.

    ``values``: (cells, features), sparse without negative values, dense, or :class:`Columns`.  P-values are
    two-sided, from the mean, variance and skewness that the sum of ranks has when groups are dealt out anew within strata:
    without the skewness, a peak that is open in three cells of a small group would be taken for a discovery.
    """
    layout = _layout(groups, count, strata)
    parts = [_compared(scores, layout) for scores in _scored(values, strata, layout)]
    return RankTest(*(np.concatenate([getattr(p, key) for p in parts], 1) for key in ("statistic", "pvalue", "auroc")))


@dataclass(frozen=True)
class _Layout:
    """Cells of each stratum (strata,); of each group in each stratum (groups, strata); code of each cell, ``count`` for none."""

    sizes: Float
    inside: Float
    codes: Index


@dataclass(frozen=True)
class _Scores:
    """Of a chunk: sums of the scores in each group (groups, features); of their powers in each stratum (strata, features)."""

    observed: Float
    powers: tuple[Float, Float, Float]


def _layout(groups: Index, count: int, strata: Index) -> _Layout:
    number = int(strata.max()) + 1
    codes = np.where(groups < 0, count, groups)
    inside = np.bincount(codes * number + strata, minlength=(count + 1) * number).reshape(count + 1, number)
    return _Layout(inside.sum(0).astype(np.float64), inside[:count].astype(np.float64), codes)


def _scored(values: Any, strata: Index, layout: _Layout) -> Iterator[_Scores]:
    """Chunk by chunk; the score of a value is its rank in its stratum less the rank of a zero that is not stored."""
    cells, features = values.shape
    columns = values.tocsc() if sp.issparse(values) else values
    filled = columns.nnz if sp.issparse(values) else cells * features
    step = max(1, int(VALUES // max(filled / max(features, 1), 1)))
    for first in range(0, features, step):
        last = min(first + step, features)
        chunk: Any = values.block(first, last) if isinstance(values, Columns) else columns[:, first:last]
        if sp.issparse(chunk):
            rows, data = chunk.indices.astype(np.int64), chunk.data
            column = np.repeat(np.arange(last - first), np.diff(chunk.indptr))
        else:
            rows, column = (a.ravel() for a in np.indices(chunk.shape))
            data = np.asarray(chunk).ravel()
        scores = _ranked(data, column, strata[rows], layout)
        yield _summed(scores, column, rows, strata, layout, last - first)


def _ranked(data: Any, column: Index, stratum: Index, layout: _Layout) -> Float:
    """Rank of each stored value in its feature and stratum, tied values sharing theirs, less that of a zero.

    All that is not stored is a zero, and the lowest: ``z`` of them share the rank (z + 1) / 2.
    """
    order = np.lexsort((data, stratum, column))
    key = (column * len(layout.sizes) + stratum)[order]
    value = data[order]
    number = np.arange(len(key))
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else number
    lengths = np.diff(np.r_[starts, len(key)])
    ties = np.flatnonzero(np.r_[True, (key[1:] != key[:-1]) | (value[1:] != value[:-1])]) if len(key) else number
    tied = np.diff(np.r_[ties, len(key)])
    middle = np.repeat(ties + (tied - 1) / 2, tied) - np.repeat(starts, lengths) + 1
    zeros = layout.sizes[stratum[order]] - np.repeat(lengths, lengths)
    scores = np.empty(len(key))
    scores[order] = middle + np.where(zeros > 0, (zeros - 1) / 2, 0)
    return scores


def _summed(scores: Float, column: Index, rows: Index, strata: Index, layout: _Layout, features: int) -> _Scores:
    def total(weights: Float, code: Index, codes: int) -> Float:
        sums: Float = np.bincount(code * features + column, weights, codes * features).astype(np.float64)
        return sums.reshape(codes, features)

    groups, number = layout.inside.shape
    observed = total(scores, layout.codes[rows], groups + 1)[:groups]
    powers = [total(scores**power, strata[rows], number) for power in (1, 2, 3)]
    return _Scores(observed, (powers[0], powers[1], powers[2]))


def _compared(scores: _Scores, layout: _Layout) -> RankTest:
    """Moments of a sum over cells drawn without replacement, added over strata (they are dealt out independently)."""
    size, inside = layout.sizes, layout.inside
    mean, second, third = (p / size[:, None] for p in scores.powers)
    variance = np.maximum(second - mean**2, 0)
    skew = third - 3 * mean * second + 2 * mean**3
    pairs = inside * (size - inside)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_variance = np.where(size > 1, pairs / (size - 1), 0)
        of_skew = np.where(size > 2, pairs * (size - 2 * inside) / ((size - 1) * (size - 2)), 0)
        away = scores.observed - inside @ mean
        spread = np.sqrt(of_variance @ variance)
        spread[spread < 1e-9 * np.maximum(np.abs(scores.observed), 1)] = np.nan  # a constant feature, but for rounding
        statistic = away / spread
        pvalue = two_sided(statistic, (of_skew @ skew) / spread**3)
        auroc = 0.5 + away / pairs.sum(1)[:, None]
    return RankTest(statistic, pvalue, auroc)


def two_sided(statistic: Float, skewness: Float) -> Float:
    """Twice the smaller tail of a Pearson type III distribution (a shifted gamma) of mean 0, variance 1; nan stays nan."""
    from scipy.special import gammainc, gammaincc, ndtr

    skewed = np.abs(skewness) > SKEWED
    flip = np.where(skewness < 0, -1.0, 1.0)
    shape = 4 / np.where(skewed, skewness, 1.0) ** 2
    place = np.maximum(shape + flip * statistic * np.sqrt(shape), 0)
    smaller = np.minimum(gammaincc(shape, place), gammainc(shape, place))
    normal = ndtr(-np.abs(statistic))
    return np.where(np.isnan(statistic), np.nan, np.minimum(2 * np.where(skewed, smaller, normal), 1))
