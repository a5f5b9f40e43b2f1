"""Many cells: graph, UMAP and clusters of some that were drawn, and the others put beside those that they are nearest to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import compiled
from xmodal.embedding.graph import Array, Groups, by_size

if TYPE_CHECKING:
    from xmodal.embedding.clustering import Found

log = logging.getLogger(__name__)
Index = npt.NDArray[np.int64]
NEAR = 15  # drawn cells that vote on another one's cluster
BRUTE = 5_000  # drawn cells up to which all distances are looked at
BLOCK = 1 << 16  # cells looked up at once


def drawn(cells: int, most: int, seed: int) -> Index:
    """Which cells are drawn, sorted."""
    return np.sort(np.random.default_rng([seed, 3]).choice(cells, most, replace=False))


def all_beside(found: Found, embedding: Array, rows: Index, seed: int) -> Found:
    """What was ``found`` of the cells ``rows`` for all cells of ``embedding``, (cells, latent).

    A cell that was not drawn gets the commonest cluster of the drawn ones nearest to it, and the mean of their places in the
    UMAP, as far as they are of that cluster.  In the graph it has no neighbours.
    """
    cells, drawn_embedding = len(embedding), embedding[rows]
    clusters, umap = np.empty(cells, np.int64), np.empty((cells, 2), np.float32)
    clusters[rows], umap[rows] = found.clusters, found.umap
    others = np.setdiff1d(np.arange(cells), rows)
    nearest = _search(drawn_embedding, seed)
    for first in range(0, len(others), BLOCK):
        part = others[first : first + BLOCK]
        near = nearest(embedding[part])
        clusters[part], umap[part] = _voted(found.clusters[near], found.umap[near])
        log.info("%d of %d cells put beside those in the graph", min(first + BLOCK, len(others)), len(others))
    graphs = {k: _wide(getattr(found, k), rows, cells) for k in ("distances", "connectivities")}
    facts = {**found.facts, "graph_cells": len(rows)}
    return replace(found, clusters=by_size(clusters), umap=umap, facts=facts, **graphs)


def joined(groups: Groups, drawn_embedding: Array, others: Iterable[Array], seed: int) -> Groups:
    """The commonest of the drawn cells' ``groups`` among those nearest to each other one, whose embedding comes in parts."""
    nearest, found, waiting = _search(drawn_embedding, seed), [np.zeros(0, np.int64)], 0
    parts: list[Array] = []
    for part in others:
        parts.append(part)
        waiting += len(part)
        if waiting >= BLOCK:
            found.append(_commonest(groups[nearest(np.concatenate(parts))]))
            parts, waiting = [], 0
    if parts:
        found.append(_commonest(groups[nearest(np.concatenate(parts))]))
    return np.concatenate(found)


def _search(drawn_embedding: Array, seed: int) -> Callable[[Array], Index]:
    """The rows of the nearest drawn cells of each given one, (cells, NEAR)."""
    near = min(NEAR, len(drawn_embedding))
    if len(drawn_embedding) <= BRUTE:
        from sklearn.neighbors import NearestNeighbors

        exact = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(drawn_embedding)
        return lambda x: np.asarray(exact.kneighbors(x, return_distance=False), np.int64)
    compiled.provide()
    from pynndescent import NNDescent

    found = NNDescent(drawn_embedding, n_neighbors=max(2 * near, 30), random_state=seed)
    return lambda x: np.asarray(found.query(x, near)[0], np.int64)


def _voted(clusters: Groups, places: Array) -> tuple[Groups, Array]:
    """Commonest cluster (of equals the largest), and mean place of those that have it; (cells, NEAR) and (cells, NEAR, 2)."""
    own = _commonest(clusters)
    same = (clusters == own[:, None])[:, :, None]
    return own, ((places * same).sum(1) / same.sum(1)).astype(np.float32)


def _commonest(groups: Groups) -> Groups:
    """Of each row, of equals the largest, which has the lowest number; (cells, NEAR) to (cells,)."""
    number = np.sort(groups, axis=1)
    votes = (number[:, :, None] == number[:, None, :]).sum(2)
    return number[np.arange(len(number)), votes.argmax(1)]


def _wide(matrix: sp.csr_matrix, rows: Index, cells: int) -> sp.csr_matrix:
    """A matrix (drawn, drawn) as one of all cells; what is stored stays stored, zeros too."""
    sizes = np.zeros(cells, np.int64)
    sizes[rows] = np.diff(matrix.indptr)
    return sp.csr_matrix((matrix.data, rows[matrix.indices], np.concatenate([[0], np.cumsum(sizes)])), (cells, cells))
