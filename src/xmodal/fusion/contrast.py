"""Contrasts between latents of cells (InfoNCE): which cells are the same, whom to leave out, and how far others are like them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(a: Tensor, b: Tensor, temperature: float, apart: Tensor | None = None) -> Tensor:
    """Each of ``a`` (cells, d) is to find its own in ``b`` (cells, d), and the other way round (van den Oord et al. 2018).

    ``apart`` (cells, cells), symmetric: how far pairs count as unlike, 0: left out of the negatives, 1: one of them.  A scalar.
    """
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    if apart is not None:
        own = torch.eye(len(a), dtype=torch.bool, device=a.device)
        logits = logits + apart.to(logits.dtype).masked_fill(own, 1.0).log()
    cells = torch.arange(len(a), device=a.device)
    return 0.5 * (F.cross_entropy(logits, cells) + F.cross_entropy(logits.T, cells))


def near_as(a: Tensor, b: Tensor, positives: Tensor, temperature: float, own: bool = True) -> Tensor:
    """Each of ``a`` is to be near all its positives in ``b`` (Khosla et al. 2020); a cell without any says nothing.

    ``positives`` (cells of a, cells of b): how far each pair is to be alike, 0: a negative.  Without ``own`` they are the same
    cells, and none is compared with itself.  A scalar.
    """
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    if not own:
        logits = logits.masked_fill(torch.eye(len(a), dtype=torch.bool, device=a.device), -1e4)
    wanted = positives.sum(1)
    each = -(positives * F.log_softmax(logits, 1)).sum(1) / wanted.clamp(min=1e-6)
    return each[wanted > 0].mean() if bool((wanted > 0).any()) else logits.sum() * 0
