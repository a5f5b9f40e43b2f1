"""From counts to the scale on which a modality is fed, predicted and scored.  The only place where that scale is defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.errors import UsageRefused
from xmodal.fields import BINARY, CLR, IDENTITY, LOG_CP10K

Array = npt.NDArray[np.float32]
CP = 1e4  # counts per ten thousand, the field's convention


def to_scale(counts: Any, depth: npt.ArrayLike | None, scale: str) -> Array:
    """Counts (cells, features; CSR or dense) -> float32 dense (cells, features) on ``scale``.

    ``log1p_cp10k``: log1p(1e4 x / depth), with ``depth`` (cells,) the total over all features of the source file (row sums
    where None; a cell without counts stays 0).  ``binary``: x > 0.  ``clr``: log1p(x) minus the cell's mean of it
    (Stoeckius et al. 2017, per cell).  ``identity``: unchanged.
    """
    x = np.asarray(counts.toarray() if sp.issparse(counts) else counts, dtype=np.float32)
    if scale == LOG_CP10K:
        total = np.asarray(x.sum(1) if depth is None else depth, dtype=np.float64).ravel()
        factor = np.divide(CP, total, out=np.zeros_like(total), where=total > 0).astype(np.float32)
        return np.log1p(x * factor[:, None], dtype=np.float32)
    if scale == BINARY:
        return (x > 0).astype(np.float32)
    if scale == CLR:
        logged = np.log1p(np.maximum(x, 0))
        centred: Array = logged - logged.mean(1, keepdims=True)
        return centred
    if scale == IDENTITY:
        return x
    raise UsageRefused(f"unknown scale '{scale}'")


def log_depth(depth: npt.ArrayLike) -> Array:
    """log1p of the total counts of each cell, (cells,)."""
    return np.log1p(np.asarray(depth, dtype=np.float32)).ravel()
