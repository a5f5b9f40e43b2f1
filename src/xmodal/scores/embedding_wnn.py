"""Weighted nearest neighbours of two or more embeddings of the same cells (WNN; Hao et al. 2021).

The same as ``muon.pp.neighbors`` after ``muon.pp.l2norm``, but exact where that searches by descent, and without the minutes
that it compiles for (docs/scores.md says how closely they agree).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from xmodal.scores.embedding_measures import Neighbors, neighbors
from xmodal.scores.metrics import Array, Floats, Index, blocks

OWN = 19  # neighbours from which a modality foretells a cell: 20 with the cell itself, as its authors have it
BANDWIDTH = 20  # cells that set the width of a cell's kernel
CANDIDATES = 200  # neighbours in each modality among which the joint ones are sought
EPSILON = 1e-4  # of the ratio of the modalities
TINY = 1e-12


@dataclass(frozen=True)
class Side:
    """One modality: cells of length one ``z`` (cells, dimensions), their neighbours, and the width of each cell's kernel."""

    z: Array
    near: Neighbors
    width: Floats


def weighted_neighbors(parts: list[Array], k: int) -> Neighbors:
    """The ``k`` nearest of each cell by all of ``parts``, (cells, dimensions) each, modalities weighted in each cell."""
    sides = [_side(z) for z in parts]
    weights = modality_weights(sides)
    out = []
    for s in blocks(len(parts[0])):
        candidates = np.concatenate([side.near.index[s] for side in sides], axis=1)
        candidates.sort(axis=1)
        again = np.zeros(candidates.shape, bool)
        again[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
        likeness = np.zeros(candidates.shape)
        for i, side in enumerate(sides):
            away = np.linalg.norm(side.z[candidates] - side.z[s][:, None], axis=2)
            likeness += np.exp(-away / side.width[s][:, None]) * weights[s, i][:, None]
        likeness[again] = -np.inf
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        apart = 1 - np.take_along_axis(likeness, order, 1)
        out.append((np.take_along_axis(candidates, order, 1), np.sqrt(0.5 * np.maximum(apart, 0))))
    return Neighbors(np.concatenate([i for i, _ in out]), np.concatenate([d for _, d in out]))


def modality_weights(sides: list[Side]) -> Floats:
    """How much each modality counts in each cell, (cells, modalities): by how much better its own neighbours foretell it."""
    ratios = []
    for i, side in enumerate(sides):
        told = [_foretold(side, other.near.first(OWN).index) for other in sides]
        others = np.max([t for j, t in enumerate(told) if j != i], axis=0)
        ratios.append(told[i] / (others + EPSILON))
    powers = np.exp(np.stack(ratios, 1) - np.max(ratios, axis=0)[:, None])
    weights: Floats = powers / powers.sum(1, keepdims=True)
    return weights


def _side(z: Array) -> Side:
    unit = np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), TINY), dtype=np.float32)
    near = neighbors(unit, CANDIDATES)
    return Side(unit, near, _widths(unit, near.first(OWN).index))


def _widths(z: Array, index: Index) -> Floats:
    """Mean distance to the 20 cells that share fewest neighbours, but one at least; of equals to the farthest, (cells,)."""
    cells, k = index.shape
    member = sp.csr_matrix((np.ones(index.size), (np.repeat(np.arange(cells), k), index.ravel())), shape=(cells, cells))
    other = sp.csr_matrix(member.T)
    widths = np.ones(cells)
    for s in blocks(cells):
        shared = sp.csr_matrix(member[s] @ other).tocoo()
        row, cell = shared.row.astype(np.int64), shared.col.astype(np.int64)
        apart = row + s.start != cell
        row, cell, common = row[apart], cell[apart], shared.data[apart]
        away = np.linalg.norm(z[row + s.start] - z[cell], axis=1)
        order = np.lexsort((-away, common / (2 * k - common), row))
        row, away = row[order], away[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        taken = place < BANDWIDTH
        many = np.bincount(row[taken], minlength=s.stop - s.start)
        total = np.bincount(row[taken], away[taken], minlength=s.stop - s.start)
        widths[s] = np.where(many > 0, total / np.maximum(many, 1), 1)
    return np.maximum(widths, TINY)


def _foretold(side: Side, index: Index) -> Floats:
    """How near a cell lies to the mean of the cells ``index`` (cells, k), from 0 to 1, (cells,)."""
    out = []
    for s in blocks(len(index)):
        off = np.linalg.norm(side.z[s] - side.z[index[s]].mean(1), axis=1)
        nearest = side.near.distance[s, 0]
        out.append(np.exp(-np.maximum(off - nearest, 0) / np.maximum(side.width[s] - nearest, TINY)))
    return np.concatenate(out)
