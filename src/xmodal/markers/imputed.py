"""How well imputed values tell a group from all other cells.  They rank; they test nothing.

A model smooths over like cells, so imputed values of cells of a group agree far better than measurements would: any test takes
that for evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.fields import BINARY, CLR, LOG_CP10K
from xmodal.markers.groups import Index

Float = npt.NDArray[np.float64]
VALUES = 4_000_000  # of a chunk of features: 32 MB as float64
TINY = 1e-6  # added to both means, which could be zero


@dataclass(frozen=True)
class Ranked:
    """All (groups, features), nan where nothing was imputed or a group has no cell in it."""

    auroc: Float
    log2fc: Float


def rank(layer: Any, rows: Index, codes: Index, count: int, scale: str) -> Ranked:
    """``layer``: (all cells, features) on ``scale``, dense or sparse, may hold nan; ``codes`` (cells,): groups of ``rows``."""
    cells, features = len(rows), layer.shape[1]
    result = Ranked(np.full((count, features), np.nan), np.full((count, features), np.nan))
    step = max(1, VALUES // max(cells, 1))
    for first in range(0, features, step):
        block = layer[:, first : first + step][rows]
        block = np.ascontiguousarray(
            (block.toarray() if sp.issparse(block) else np.asarray(block)).T
        )  # (features, cells)
        there = ~np.isnan(block)
        whole = np.flatnonzero(there.all(1))
        result.auroc[:, first + whole], result.log2fc[:, first + whole] = _whole(block[whole], codes, count, scale)
        for row in np.flatnonzero(there.any(1) & ~there.all(1)):
            own = there[row]
            column = _whole(block[row : row + 1, own], codes[own], count, scale)
            result.auroc[:, first + row], result.log2fc[:, first + row] = (c[:, 0] for c in column)
    return result


def _whole(block: Any, codes: Index, count: int, scale: str) -> tuple[Float, Float]:
    """AUROC and log2 fold change (groups, features) of ``block``, (features, cells) without nan."""
    cells = block.shape[1]
    size = np.bincount(codes, minlength=count).astype(np.float64)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        above = _rank_sums(block, codes, count) - size * (size + 1) / 2
        auroc = above / (size * (cells - size))
        total = _group_sums(np.expm1(block) if scale == LOG_CP10K else block, codes, count)
        inside, outside = total / size, (total.sum(0) - total) / (cells - size)
        if scale in (LOG_CP10K, BINARY):
            return auroc, np.log2((inside + TINY) / (outside + TINY))
    return auroc, (inside - outside) / (np.log(2) if scale == CLR else 1.0)


def _group_sums(block: Any, codes: Index, count: int) -> Float:
    """(groups, features)"""
    inside = (codes[:, None] == np.arange(count)).astype(np.float64)
    return np.asarray(block.astype(np.float64) @ inside).T


def _rank_sums(block: Any, codes: Index, count: int) -> Float:
    """Sums of the ranks of each group, (groups, features)."""
    features, cells = block.shape
    order = np.argsort(block, axis=1)
    ordered = np.take_along_axis(block, order, 1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    sums = np.empty((features, count))
    own, plain = codes.astype(np.int32), np.arange(1.0, cells + 1)
    for i in range(features):
        rank = _shared(ordered[i]) if tied[i] else plain
        sums[i] = np.bincount(own[order[i]], rank, count)
    return sums.T


def _shared(ordered: Any) -> Float:
    """Ranks of sorted values (cells,), the mean rank where they are tied."""
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    return np.repeat(starts + (lengths + 1) / 2, lengths)
