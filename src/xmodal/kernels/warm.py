"""Compiles the loops once, into NUMBA_CACHE_DIR: ``python -m xmodal.kernels.warm``, when an image is built."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from xmodal.kernels import losses, products
from xmodal.kernels.rows import Rows


def warm() -> None:
    rows = Rows.of(sp.csr_matrix(np.eye(4, 6, dtype=np.float32)))
    weight = torch.zeros(6, 2, requires_grad=True)
    hidden = products.times(rows, weight) + products.times_rows(rows, Rows.of(sp.csr_matrix((6, 2), dtype=np.float32)))
    losses.bernoulli(hidden, (weight, torch.zeros(6)), rows, torch.ones(4)).backward()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    warm()
