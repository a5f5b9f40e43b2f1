"""Leiden clusters of a graph of cells, as many as there are labels, so that methods are compared at the same number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from xmodal.scores.embedding_measures import NEIGHBORS, Neighbors
from xmodal.scores.metrics import Index

MOST_STEPS = 25  # of the search; the number of clusters need not grow steadily with the resolution
LOWEST, HIGHEST = 1e-3, 64.0
ITERATIONS = 2  # of Leiden, as scanpy advises
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
    """Leiden clusters of ``graph``, ``wanted`` of them or as near to that as bisection of the log resolution comes."""
    low, high = np.log(LOWEST), np.log(HIGHEST)
    best, at = leiden(graph, 1.0, seed), 0.0
    found = best
    for _ in range(MOST_STEPS):
        if found.number == wanted or high - low < CLOSE:
            break
        low, high = (at, high) if found.number < wanted else (low, at)
        at = (low + high) / 2
        found = leiden(graph, float(np.exp(at)), seed)
        if abs(found.number - wanted) < abs(best.number - wanted):
            best = found
    return best


def leiden(graph: sp.csr_matrix, resolution: float, seed: int) -> Clusters:
    """Leiden clusters (Traag et al. 2019) at one resolution."""
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    cells = ad.AnnData(obs=pd.DataFrame(index=np.arange(graph.shape[0]).astype(str)))
    sc.tl.leiden(
        cells,
        resolution,
        adjacency=graph,
        key_added="found",
        flavor="igraph",
        n_iterations=ITERATIONS,
        directed=False,
        random_state=seed,
    )
    codes = cells.obs["found"].cat.codes.to_numpy().astype(np.int64)
    return Clusters(codes, resolution, int(codes.max()) + 1)
