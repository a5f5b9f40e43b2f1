"""The head that tells a column of obs, such as a state, from the joint latent of whatever a cell has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST = 10  # cells with a label, below which the validation cells say nothing of how sure the head may be
TEMPERATURES = (-1.0, 2.0, 61)  # of the grid that is searched: powers of ten, how many


class TargetHead(nn.Module):
    """Logits of the classes from the joint latent, (cells, width) to (cells, classes).

    Probabilities are the softmax of the logits over a temperature, which validation cells choose (Guo et al. 2017).
    """

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        """Probabilities, (cells, classes)."""
        return torch.softmax(self.layers(z) / self.get_buffer("temperature"), 1)

    def loss(self, z: Tensor, code: Tensor) -> Tensor | None:
        """Mean cross-entropy of the cells with a label; ``code``: their classes, -1 for none.  None: no cell has one."""
        known = code >= 0
        return F.cross_entropy(self.layers(z[known]), code[known]) if bool(known.any()) else None

    @torch.no_grad()
    def calibrate(self, z: Tensor, code: Tensor) -> None:
        """Choose the temperature with the least cross-entropy; with few cells it stays at 1."""
        known = code >= 0
        if int(known.sum()) < FEWEST:
            return
        logits = self.layers(z[known]).double()
        first, last, many = TEMPERATURES
        grid = torch.logspace(first, last, many, dtype=torch.float64)
        lost = torch.stack([F.cross_entropy(logits / t, code[known]) for t in grid])
        self.get_buffer("temperature").fill_(float(grid[lost.argmin()]))
