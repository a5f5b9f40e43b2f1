"""From counts to the scale on which a modality is fed, predicted and scored.  The only place where that scale is defined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.errors import UsageRefused
from xmodal.fields import BINARY, CLR, IDENTITY, LOG_CP10K

if TYPE_CHECKING:
    from torch import Tensor

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


def tensor_to_scale(counts: Tensor, depth: Tensor, scale: str) -> Tensor:
    """The same for tensors (cells, features) and (cells,); on a CPU with exactly the same result."""
    if counts.device.type == "cpu":
        import torch

        return torch.from_numpy(to_scale(counts.numpy(), depth.numpy(), scale))
    if scale == LOG_CP10K:
        factor = (CP / depth.double()).where(depth > 0, 0.0).float()
        return (counts * factor[:, None]).log1p()
    if scale == BINARY:
        return (counts > 0).float()
    if scale == CLR:
        logged = counts.clamp(min=0).log1p()
        return logged - logged.mean(1, keepdim=True)
    if scale == IDENTITY:
        return counts
    raise UsageRefused(f"unknown scale '{scale}'")


def log_depth(depth: npt.ArrayLike) -> Array:
    """log1p of the total counts of each cell, (cells,)."""
    return np.log1p(np.asarray(depth, dtype=np.float32)).ravel()
