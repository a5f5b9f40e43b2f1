"""Compiles what numba runs once, into NUMBA_CACHE_DIR: ``python -m xmodal.warm``, when an image is built."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch

from xmodal import compiled
from xmodal.kernels import losses, products
from xmodal.kernels.rows import Rows


def loops() -> None:
    rows = Rows.of(sp.csr_matrix(np.eye(4, 6, dtype=np.float32)))
    weight = torch.zeros(6, 2, requires_grad=True)
    hidden = products.times(rows, weight) + products.times_rows(rows, Rows.of(sp.csr_matrix((6, 2), dtype=np.float32)))
    losses.bernoulli(hidden, (weight, torch.zeros(6)), rows, torch.ones(4)).backward()  # type: ignore[no-untyped-call]


def graphs() -> None:
    """As `xmodal evaluate` and `xmodal embed` have them: positions of both kinds of floats."""
    from sklearn.neighbors import NearestNeighbors

    umap = compiled.umap()
    for kind in (np.float32, np.float64):
        cells = np.random.default_rng(0).normal(size=(200, 10)).astype(kind)
        distance, index = NearestNeighbors(n_neighbors=15).fit(cells).kneighbors(cells)
        known = {"precomputed_knn": (index, distance, None), "force_approximation_algorithm": True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no new cells can be placed
            umap.UMAP(n_neighbors=15, random_state=0, n_jobs=1, **known).fit_transform(cells)


if __name__ == "__main__":
    loops()
    graphs()
