"""Layers in which modalities change each other's state and stay apart (MolInteract)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmodal.fusion.hiding import Present


class Interaction(nn.Module):
    """h_m' = h_m + phi_m([h_m, mean of the other modalities' h]) for every modality, (cells, width) each.

    The state of a modality that is missing begins as a vector that is learned, which the others change as any state: what comes
    out is what they say about it.  It says nothing to the others.
    """

    def __init__(self, names: list[str], width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.names = names
        self.missing = nn.ParameterDict({m: nn.Parameter(torch.zeros(width)) for m in names})
        self.layers = nn.ModuleList(nn.ModuleDict({m: _phi(width, dropout) for m in names}) for _ in range(layers))

    def forward(self, states: dict[str, Tensor], present: Present) -> dict[str, Tensor]:
        """States of all modalities after all layers; the given states of those that are not ``present`` change nothing."""
        there = {m: present[m][:, None].to(states[m].dtype) for m in self.names}
        now = {m: torch.where(present[m][:, None], states[m], self.missing[m]) for m in self.names}
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            now = {m: now[m] + layer[m](torch.cat([now[m], _others(m, now, there)], 1)) for m in self.names}
        return now


def _others(m: str, states: dict[str, Tensor], there: dict[str, Tensor]) -> Tensor:
    """Mean of the states of the other modalities that a cell has, zeros where it has none, (cells, width)."""
    total, count = torch.zeros_like(states[m]), torch.zeros_like(there[m])
    for other in states:
        if other != m:
            total, count = total + states[other] * there[other], count + there[other]
    return total / count.clamp(min=1)


def _phi(width: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(2 * width, width)
    nn.init.zeros_(last.bias)
    nn.init.normal_(last.weight, std=0.02)
    return nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Dropout(dropout), last)
