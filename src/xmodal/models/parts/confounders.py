"""Depth beside the state: in standard deviations, less that of like cells, and as what a cell's place can be trusted by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmodal.models.parts.placing import Place

TRUST = (0.01, 0.99)  # quantiles of the log depth that count as no and full trust
LEAST_TRUST = 0.05  # so that no cell is without structure
GROUPS = 15  # k-means groups of the reference within which depth is taken out


class Depths(nn.Module):
    """Log depths of the ``modalities``; groups of like cells are those of the reference, (cells, ``width``)."""

    def __init__(self, modalities: list[str], width: int, lead: str) -> None:
        super().__init__()
        self.modalities, self.lead = modalities, lead
        self.register_buffer("groups", torch.zeros(GROUPS, width))
        for m in modalities:
            self.register_buffer(f"spread_{m}", torch.tensor([0.0, 1.0]))  # mean and spread of the log depth
            self.register_buffer(f"group_{m}", torch.zeros(GROUPS))
        self.register_buffer("trust", torch.tensor([0.0, 1.0]))  # depths of no and of full trust

    @torch.no_grad()
    def prepare(self, places: dict[str, Place], reference: Tensor, known: Tensor) -> None:
        """Of the training cells: spreads, groups of those with a ``known`` reference, their mean depths, limits of trust."""
        from sklearn.cluster import KMeans

        for m in self.modalities:
            depth = places[m].log_depth[places[m].present]
            if len(depth) > 1:
                self.get_buffer(f"spread_{m}").copy_(torch.stack([depth.mean(), depth.std().clamp(min=1e-3)]))
        if int(known.sum()) < 2 * GROUPS:
            return
        centres = KMeans(GROUPS, n_init=1, random_state=0).fit(reference[known].double().numpy()).cluster_centers_
        self.get_buffer("groups").copy_(torch.from_numpy(centres).float())
        group = self._group(reference)
        for m in self.modalities:
            depth, there = self.of(places[m], m), places[m].present & known
            for g in range(GROUPS):
                if (mine := there & (group == g)).any():
                    self.get_buffer(f"group_{m}")[g] = depth[mine].mean()
        self.get_buffer("trust").copy_(
            torch.quantile(self.of(places[self.lead], self.lead)[known], torch.tensor(TRUST))
        )

    def of(self, place: Place, m: str) -> Tensor:
        """Log depth of modality ``m`` in standard deviations of the training cells, (cells,)."""
        centre, spread = self.get_buffer(f"spread_{m}")
        return (place.log_depth - centre) / spread

    def beyond_group(self, place: Place, m: str, reference: Tensor) -> Tensor:
        """The same less the mean of the cell's group, (cells,)."""
        return self.of(place, m) - self.get_buffer(f"group_{m}")[self._group(reference)]

    def trusted(self, place: Place) -> Tensor:
        """How far a cell's ``place`` in the leading modality is to be trusted: its log depth between two quantiles, (cells,)."""
        low, high = self.get_buffer("trust")
        depth = (self.of(place, self.lead) - low) / (high - low).clamp(min=1e-6)
        weight = depth.clamp(LEAST_TRUST, 1.0)
        return torch.where(place.present, weight, torch.ones_like(weight))

    def _group(self, reference: Tensor) -> Tensor:
        return torch.cdist(reference, self.get_buffer("groups")).argmin(1)
