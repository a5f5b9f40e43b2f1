"""Where a cell stands in the reference: as it was measured, less depth and batch, and as the latent says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.models.parts.levelling import Levelled

LEAST_SHARE = 0.1  # of the reliable structure, below which a modality has no place of its own


@dataclass(frozen=True)
class Place:
    """One modality's ``place`` of cells, rows of length 1, (cells, width); ``log_depth`` and ``present``, (cells,)."""

    place: Tensor
    log_depth: Tensor
    present: Tensor

    def known(self) -> Tensor:
        """Cells that have the modality and any count of it, (cells,)."""
        return self.present & (self.place.square().sum(1) > 0)

    @classmethod
    def joined(cls, parts: list[Place]) -> Place:
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("place", "log_depth", "present")))


class Placing(nn.Module):
    """Places of the leading modalities side by side, each by the root of its share, so that a cosine is the mean of theirs."""

    def __init__(self, latent: int, widths: dict[str, int], batches: int) -> None:
        super().__init__()
        self.widths = widths
        self.levelled = nn.ModuleDict({m: Levelled(width, batches) for m, width in widths.items()})
        self.expected = nn.Linear(latent, sum(widths.values()))
        for m in widths:
            self.register_buffer(f"share_{m}", torch.tensor(1 / len(widths)))

    def prepare(self, places: dict[str, Place], covariates: Tensor, worth: dict[str, float]) -> None:
        """Of the training cells; ``worth``: how far each modality's structure is reliable."""
        kept = {m: w if w >= LEAST_SHARE * sum(worth.values()) else 0.0 for m, w in worth.items()}
        for m, one in places.items():
            self.get_buffer(f"share_{m}").fill_(kept[m] / sum(kept.values()))
            known = one.known()
            self.levelled[m].prepare(one.place[known], one.log_depth[known], covariates[known])  # type: ignore[operator]

    def share(self, m: str) -> Tensor:
        """How much of a place is that of modality ``m``, a scalar; 0 where it does not lead."""
        return self.get_buffer(f"share_{m}") if m in self.widths else torch.zeros(())

    def forward(self, direction: Tensor, places: dict[str, Place], covariates: Tensor, trust: float) -> Tensor:
        """Rows of length 1, (cells, width): ``trust`` of a cell's measured place, the rest where the latent puts it.

        ``direction``: of the latent, (cells, latent), zeros for a cell without any signal, which gets zeros.  Where a modality
        was not measured its part is what the latent says.
        """
        expected = self._expected(direction)
        return F.normalize(torch.lerp(expected, self._measured(places, covariates, expected), trust), dim=1)

    def loss(self, direction: Tensor, places: dict[str, Place], covariates: Tensor) -> Tensor:
        """Mean of one minus the cosine of expected and measured place, over cells that have all of it.

        The latent is not changed by it: what it is to be like, the similarity says.
        """
        expected = self._expected(direction.detach())
        measured = self._measured(places, covariates, torch.zeros_like(expected))
        every = torch.stack([one.known() for m, one in places.items() if float(self.share(m))], 1).all(1)
        return ((1 - (expected * measured).sum(1)) * every).sum() / every.sum().clamp(min=1)

    def _expected(self, direction: Tensor) -> Tensor:
        known = direction.square().sum(1, keepdim=True) > 0
        return F.normalize(self.expected(direction), dim=1) * known

    def _measured(self, places: dict[str, Place], covariates: Tensor, instead: Tensor) -> Tensor:
        """Measured places, depth and batch taken out, (cells, width); ``instead`` where a modality was not measured."""
        parts = []
        for (m, one), other in zip(places.items(), torch.split(instead, list(self.widths.values()), 1), strict=True):
            share = self.share(m)
            found = self.levelled[m](one.place, one.log_depth, covariates) * share.sqrt()
            parts.append(torch.where(one.known()[:, None], found, other) * (share > 0))
        return torch.cat(parts, 1)
