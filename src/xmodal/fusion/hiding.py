"""Cells that lack modalities, made of cells that have them: so that a missing modality is normal input."""

from __future__ import annotations

import torch
from torch import Tensor

Present = dict[str, Tensor]  # which cells have a modality, (cells,) each


def one_only(present: Present, share: float) -> Present:
    """``present``, where a ``share`` of the cells, drawn anew, keep one of their modalities only."""
    names = list(present)
    there = torch.stack([present[m] for m in names], 1)
    one = torch.multinomial(there.float() + 1e-9, 1)
    only = torch.zeros_like(there).scatter_(1, one, True) & there
    few = (torch.rand(len(there), device=there.device) < share)[:, None]
    return dict(zip(names, torch.where(few, only, there).T, strict=True))


def mean_of(latents: dict[str, Tensor], present: Present) -> Tensor:
    """Mean of the latents (cells, latent) of the modalities that are present; zeros for a cell without any."""
    there = {m: present[m][:, None].to(z.dtype) for m, z in latents.items()}
    total = torch.stack([z * there[m] for m, z in latents.items()]).sum(0)
    return total / torch.stack(list(there.values())).sum(0).clamp(min=1)
