"""The head that tells a column of obs, such as a state, of whatever a cell has.

Logits are the sum of a small network on the joint latent, which sees what modalities mean together, and of a linear layer on
the leading coordinates of each modality, without which the head was less right than logistic regression on the cells of mouse
cortex.  Of a cell with all modalities, what they tell together and what each tells alone is weighed by the validation cells:
a modality that tells little must not spoil what another tells (benchmarks/RESULTS.md, "A column of obs").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.models.parts.projections import Projection, project

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.fusion.hiding import Present

PLACES = 50  # leading coordinates of each modality
CHUNK = 512
FLOOR = 1e-4  # standard deviation of a coordinate, below which it is not scaled up
FEWEST = 10  # cells with a label, below which the validation cells say nothing of how sure the head may be
TEMPERATURES = (-1.0, 2.0, 61)  # of the grid that is searched: powers of ten, how many
ROUNDS, RATE = 300, 0.05  # of the fit of the weights, which are a handful


class Coordinates(nn.Module):
    """Leading coordinates of all modalities side by side, each of variance one among the training cells, (cells, width)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.each = nn.ModuleDict({m: project(vocabulary[m], PLACES) for m in vocabulary})
        self.width = sum(self._of(m).width for m in vocabulary)
        for m in vocabulary:
            self.register_buffer(f"mean_{m}", torch.zeros(self._of(m).width))
            self.register_buffer(f"spread_{m}", torch.ones(self._of(m).width))

    def _of(self, m: str) -> Projection:
        found = self.each[m]
        assert isinstance(found, Projection)
        return found

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        """Take the coordinates and their spread from the training cells."""
        for m in self.each:
            own = cells.having(m)
            if not len(own):
                continue
            self._of(m).prepare(own)
            places = torch.cat([self._of(m)(own.batch(slice(i, i + CHUNK))) for i in range(0, len(own), CHUNK)])
            self.get_buffer(f"mean_{m}").copy_(places.mean(0))
            self.get_buffer(f"spread_{m}").copy_(places.std(0, correction=0).clamp(min=FLOOR))

    def forward(self, batch: Batch, shown: Present) -> Tensor:
        """Zeros, the mean, where a modality is not ``shown``."""
        parts = []
        for m in self.each:
            with torch.no_grad():
                place = (self._of(m)(batch) - self.get_buffer(f"mean_{m}")) / self.get_buffer(f"spread_{m}")
            parts.append(place * shown[m][:, None])
        return torch.cat(parts, 1)


class TargetHead(nn.Module):
    """Probabilities of the classes, (cells, classes).

    They are the softmax of the logits over a temperature (Guo et al. 2017), or of a weighted sum of the logits from all and
    from each modality alone, where a cell has all; temperature and weights are chosen by the validation cells.
    """

    def __init__(self, width: int, hidden: int, vocabulary: Vocabulary, dropout: float) -> None:
        super().__init__()
        assert vocabulary.target is not None
        many = len(vocabulary.target.classes)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, many)
        )
        self.coordinates = Coordinates(vocabulary)
        self.beside = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.coordinates.width, many))
        self.register_buffer("temperature", torch.ones(()))
        # Of what all modalities tell together, then of each one's own; without validation cells the first alone counts.
        self.register_buffer("weights", torch.eye(1 + len(vocabulary.modalities))[0])

    def prepare(self, cells: Cells) -> None:
        """Statistics of the training cells."""
        self.coordinates.prepare(cells)

    def logits(self, z: Tensor, batch: Batch, shown: Present) -> Tensor:
        """``z``: the joint latent of what is ``shown``, (cells, width)."""
        found: Tensor = self.layers(z) + self.beside(self.coordinates(batch, shown))
        return found

    def probabilities(self, together: Tensor, alone: list[Tensor], whole: Tensor) -> Tensor:
        """From logits of all that is there and of each modality alone, (cells, classes) each; ``whole``: cells with all."""
        weights = self.get_buffer("weights")
        mixed = torch.einsum("w,wnc->nc", weights, torch.stack([together, *alone]))
        return torch.softmax(torch.where(whole[:, None], mixed, together / self.get_buffer("temperature")), 1)

    def loss(self, z: Tensor, batch: Batch, shown: Present, code: Tensor) -> Tensor | None:
        """Mean cross-entropy of the cells with a label; ``code``: their classes, -1 for none.  None: no cell has one."""
        known = code >= 0
        return F.cross_entropy(self.logits(z, batch, shown)[known], code[known]) if bool(known.any()) else None

    def weigh(self, together: Tensor, alone: list[Tensor], code: Tensor) -> None:
        """Choose the weights, never negative, with the least cross-entropy of cells with all modalities.

        Logits (cells, classes) as in :meth:`probabilities`; of fewer than a handful of cells, the temperature is the weight.
        """
        known = code >= 0
        self.get_buffer("weights").zero_()[0] = 1 / float(self.get_buffer("temperature"))
        if int(known.sum()) < FEWEST:
            return
        logits = torch.stack([together, *alone])[:, known].double()
        with torch.set_grad_enabled(True):
            free = self.get_buffer("weights").double().clamp(min=FLOOR).sqrt().requires_grad_()
            fit = torch.optim.Adam([free], RATE)
            for _ in range(ROUNDS):
                fit.zero_grad()
                F.cross_entropy(torch.einsum("w,wnc->nc", free**2, logits), code[known]).backward()  # type: ignore[no-untyped-call]
                fit.step()
        self.get_buffer("weights").copy_(free.detach() ** 2)

    def calibrate(self, logits: Tensor, code: Tensor) -> None:
        """Choose the temperature with the least cross-entropy of ``logits`` (cells, classes); of few cells it stays at 1."""
        known = code >= 0
        if int(known.sum()) < FEWEST:
            return
        first, last, many = TEMPERATURES
        grid = torch.logspace(first, last, many, dtype=torch.float64)
        lost = torch.stack([F.cross_entropy(logits[known].double() / t, code[known]) for t in grid])
        self.get_buffer("temperature").fill_(float(grid[lost.argmin()]))
