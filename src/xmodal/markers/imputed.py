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


def rank(layer: Any, codes: Index, count: int, scale: str) -> Ranked:
    """``layer``: (cells, features) on ``scale``, dense or sparse, may hold nan; ``codes``: group of each cell, (cells,)."""
    cells, features = layer.shape
    result = Ranked(np.full((count, features), np.nan), np.full((count, features), np.nan))
    step = max(1, VALUES // max(cells, 1))
    for first in range(0, features, step):
        block = layer[:, first : first + step]
        block = np.ascontiguousarray((block.toarray() if sp.issparse(block) else np.asarray(block)).T)
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
    inside = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), (count, len(codes)))
    return np.asarray(inside @ block.T.astype(np.float64))


def _rank_sums(block: Any, codes: Index, count: int) -> Float:
    """Sums of the ranks of each group, (groups, features); ties share their rank."""
    from scipy.stats import rankdata

    features, cells = block.shape
    order = np.argsort(block, axis=1)
    ordered = np.take_along_axis(block, order, 1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    place = codes[order] + count * np.arange(features)[:, None]  # (features, cells)
    rank = np.broadcast_to(np.arange(1.0, cells + 1), block.shape)
    sums: Float = (
        np.bincount(place.ravel(), rank.ravel(), count * features).reshape(features, count).T.astype(np.float64)
    )
    if tied.any():
        sums[:, tied] = _group_sums(rankdata(block[tied], axis=1), codes, count)
    return sums
