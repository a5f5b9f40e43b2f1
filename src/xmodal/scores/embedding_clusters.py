"""Leiden clusters of a graph of cells, as many as there are labels, so that methods are compared at the same number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from xmodal.scores.embedding_measures import NEIGHBORS, Neighbors
from xmodal.scores.metrics import Index

STEPS, CLOSE = 64, 1e-5  # of UMAP's search for the width of a cell's kernel
LEAST_WIDTH = 1e-3  # of that width, as a share of the mean distance


@dataclass(frozen=True)
class Clusters:
    """``codes`` (cells,), the resolution that gave them, and their number."""

    codes: Index
    resolution: float
    number: int


def graph_of(near: Neighbors) -> sp.csr_matrix:
    """UMAP's weights of the nearest neighbours (McInnes et al. 2018), CSR (cells, cells), symmetric.

    The same as scanpy's with ``n_neighbors=15``, which counts the cell itself; written here because umap's takes half a
    minute to compile.
    """
    near = near.first(NEIGHBORS - 1)
    cells, k = near.index.shape
    positive = np.where(near.distance > 0, near.distance, np.inf).min(1)
    nearest = np.where(np.isfinite(positive), positive, 0)[:, None]
    beyond = np.maximum(near.distance - nearest, 0)
    target, width = np.log2(k + 1), np.ones(cells)
    low, high = np.zeros(cells), np.full(cells, np.inf)
    for _ in range(STEPS):
        excess = np.exp(-beyond / width[:, None]).sum(1) - target
        open_ = np.abs(excess) >= CLOSE
        if not open_.any():
            break
        low, high = np.where(excess > 0, low, width), np.where(excess > 0, width, high)
        further = np.where(np.isinf(high), width * 2, (low + np.where(np.isinf(high), 0, high)) / 2)
        width = np.where(open_, further, width)
    every = near.distance.sum(1) / (k + 1)  # the cell itself counts
    width = np.maximum(width, LEAST_WIDTH * np.where(nearest[:, 0] > 0, every, every.mean()))
    weights = np.exp(-beyond / np.maximum(width, np.finfo(float).tiny)[:, None])
    rows = np.repeat(np.arange(cells), k)
    directed = sp.csr_matrix((weights.ravel(), (rows, near.index.ravel())), shape=(cells, cells))
    both = directed.multiply(directed.T)
    return sp.csr_matrix(directed + directed.T - both)


def matched(graph: sp.csr_matrix, wanted: int, seed: int) -> Clusters:
    """Leiden clusters (Traag et al. 2019) of ``graph``, ``wanted`` of them or as near to that as there are."""
    from xmodal.embedding.graph import Graph
    from xmodal.embedding.resolutions import for_clusters

    cells = Graph.of(graph)
    resolution = for_clusters(cells, wanted, seed)
    codes = cells.leiden(resolution, seed)
    return Clusters(codes, resolution, int(codes.max()) + 1)
