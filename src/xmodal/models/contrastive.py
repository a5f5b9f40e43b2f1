"""Encoders of single modalities that learn first alone and then from each other, by contrast (InfoNCE).

A cell's own other modality is what its latent shall be found by, among the other cells of the minibatch; two views of one
modality with different features hidden shall be found by each other as well.  What only one modality tells has no place
in the latent; what both tell, in whatever form, has.
"""

from __future__ import annotations

from itertools import combinations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xmodal.data.batches import Batch
from xmodal.fusion.contrast import info_nce
from xmodal.fusion.fused import Fused, FusedSettings
from xmodal.fusion.hiding import Present, mean_of


class ContrastiveSettings(FusedSettings):
    learning_rate: float = Field(0.004, gt=0, description="Highest learning rate of AdamW.")
    latent: int = Field(64, ge=2, description="Dimensions of the latent.")
    between: float = Field(0.1, ge=0, description="Weight of the contrast between modalities of a cell.")
    within: float = Field(0.0, ge=0, description="Weight of the contrast between two views of one modality.")
    temperature: float = Field(0.1, gt=0, description="Temperature of the contrasts; small: near cells are told apart.")
    alone: float = Field(
        0.1, ge=0, lt=1, description="Share of the epochs in which every encoder learns from its own modality only."
    )


class Contrastive(Fused):
    """Contrastive alignment of the modalities."""

    name = "contrastive"
    summary = "Contrastive: encoders aligned so that a cell finds itself in its other modality; predicts any from any."
    source = "InfoNCE (van den Oord et al. 2018) between modalities, as in CLIP"
    Settings = ContrastiveSettings
    settings: ContrastiveSettings

    def fuse(self, latents: dict[str, Tensor], present: Present) -> Tensor:
        """The mean direction, of length 1."""
        return F.normalize(mean_of({m: F.normalize(z, dim=1) for m, z in latents.items()}, present), dim=1)

    def decoded(self, z: Tensor, latents: dict[str, Tensor], shown: Present, modality: str) -> Tensor:
        return z * self.settings.latent**0.5

    def hidden(self) -> float:
        return 1.0 if self.done() < self.settings.alone else self.settings.hide

    def taught(self, batch: Batch, shown: Present, modality: str) -> Tensor:
        """At first only the one modality that is shown: every encoder learns from its own features."""
        return shown[modality] if self.done() < self.settings.alone else batch.present[modality]

    def further(self, batch: Batch, latents: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
        s, terms = self.settings, {}
        if self.done() < s.alone:
            return {}
        for a, b in combinations(self.vocabulary, 2):
            both = batch.present[a] & batch.present[b]
            if s.between and int(both.sum()) > 1:
                terms[f"{a}_{b}"] = s.between * info_nce(latents[a][both], latents[b][both], s.temperature)
        for m in self.vocabulary if s.within and self.training else ():
            has = batch.present[m]
            if int(has.sum()) > 1:
                again = self.encoders[m](batch)
                terms[f"views_{m}"] = s.within * info_nce(latents[m][has], again[has], s.temperature)
        return terms
