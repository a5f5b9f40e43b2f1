"""Shared and private factors (MFM, Tsai et al. 2019): what all modalities tell of a cell, and what only one does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmodal.fusion.hiding import Present

KERNELS = (0.5, 1.0, 2.0, 4.0)  # widths of the Gaussian kernels, in roots of the dimensions
LOG_PRECISION = (-4.0, 4.0)


class SharedFactor(nn.Module):
    """Surrogate posterior of the shared factor given the modalities a cell has: (cells, latent).

    Each modality says where the factor is and how sure it is of each dimension; the prior, mean 0 and precision 1, is one
    more voice.  So a modality that is missing is no special case, and a cell without any stands at zero.
    """

    def forward(self, told: dict[str, Tensor], present: Present) -> Tensor:
        """``told``: means and log precisions side by side, (cells, 2 latent) each."""
        weighted, precision = torch.zeros(()), torch.ones(())
        for m, both in told.items():
            mean, log_precision = both.chunk(2, 1)
            own = log_precision.clamp(*LOG_PRECISION).exp() * present[m][:, None].to(mean.dtype)
            weighted, precision = weighted.to(mean) + own * mean, precision.to(mean) + own
        return weighted / precision


def discrepancy(factors: Tensor) -> Tensor:
    """Maximum mean discrepancy between ``factors`` (cells, d) and as many draws of a standard normal (Gretton et al. 2012)."""
    draws = torch.randn_like(factors)
    n = len(factors)
    off = 1 - torch.eye(n, device=factors.device)
    inside = (_kernel(factors, factors) * off).sum() + (_kernel(draws, draws) * off).sum()
    return inside / max(n * (n - 1), 1) - 2 * _kernel(factors, draws).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    square = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp(min=0) / a.shape[1]
    return torch.stack([torch.exp(-square / (2 * width**2)) for width in KERNELS]).mean(0)
