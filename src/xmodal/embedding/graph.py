"""The graph of cells: scanpy's neighbours, and igraph's Leiden on it.  Everything is seeded.

Leiden is that of ``scanpy.tl.leiden(flavor="igraph", directed=False)``, with every edge once instead of twice: the same
objective, half the work, and a graph that is built once for all resolutions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import compiled, fields

if TYPE_CHECKING:
    import igraph
    from anndata import AnnData

EXACT = 50_000  # cells up to which all distances are looked at (30 s); beyond, descent misses one neighbour in thirty
ROUNDS = 2  # of Leiden, as scanpy advises; more changed no clusters of separated types
Array = npt.NDArray[np.float32]
Groups = npt.NDArray[np.int64]
Index = npt.NDArray[np.int64]


def neighbours(embedding: Array, count: int, seed: int) -> AnnData:
    """The cells of ``embedding`` (cells, latent) with their graph in ``obsp`` and ``uns``, as scanpy writes it.

    ``count``: neighbours of each cell, itself among them.
    """
    compiled.umap()
    import anndata as ad
    import scanpy as sc

    held = ad.AnnData(obsm={fields.EMBEDDING: embedding})
    search = "sklearn" if len(embedding) <= EXACT else Descent(count, seed)
    sc.pp.neighbors(held, count, use_rep=fields.EMBEDDING, random_state=seed, transformer=search)
    return held


@dataclass
class Descent:
    """Approximate neighbours (Dong, Moses and Li 2011) in the form that scanpy takes; its own does not fit SciPy's arrays."""

    n_neighbors: int
    seed: int

    def get_params(self) -> dict[str, Any]:
        return {"n_neighbors": self.n_neighbors}

    def fit_transform(self, x: Array) -> sp.csr_matrix:
        """Distances to the nearest cells, CSR (cells, cells); each cell is its own nearest, at a stored zero."""
        from pynndescent import NNDescent

        index, distance = NNDescent(x, n_neighbors=self.n_neighbors, random_state=self.seed).neighbor_graph
        starts = np.arange(0, index.size + 1, self.n_neighbors)
        return sp.csr_matrix((distance.ravel(), index.ravel(), starts), shape=(len(x), len(x)))


@dataclass(frozen=True)
class Graph:
    """Cells and how closely they are connected."""

    inner: igraph.Graph

    @classmethod
    def of(cls, connectivities: Any) -> Graph:
        """From a symmetric matrix (cells, cells)."""
        import igraph

        upper = sp.triu(connectivities, 1).tocoo()
        inner = igraph.Graph(upper.shape[0], np.column_stack([upper.row, upper.col]))
        inner.es["weight"] = upper.data.astype(np.float64)
        return cls(inner)

    def __len__(self) -> int:
        return int(self.inner.vcount())

    def part(self, rows: Index) -> Graph:
        """Only the cells ``rows``, which ascend, and what connects them."""
        return Graph(self.inner.induced_subgraph(rows.tolist()))

    def leiden(self, resolution: float, seed: int) -> Groups:
        """Clusters of the cells, (cells,), 0 the largest (Traag, Waltman and van Eck 2019; modularity)."""
        import igraph

        igraph.set_random_number_generator(random.Random(seed))
        try:
            found = self.inner.community_leiden("modularity", "weight", resolution=resolution, n_iterations=ROUNDS)
        finally:
            igraph.set_random_number_generator(random)
        return by_size(np.array(found.membership, np.int64))


def by_size(groups: Groups) -> Groups:
    """The same groups numbered by falling size; of two of one size that of the earlier cell comes first."""
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort([first, -sizes])] = np.arange(len(sizes))
    return rank[inverse]
