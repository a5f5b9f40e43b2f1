"""Interaction layers between modalities, taught first to predict all features from one modality (MolInteract).

Every modality keeps a state of its own, which the others change layer by layer; each is decoded from its own state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from xmodal.fusion.fused import Fused, FusedSettings
from xmodal.fusion.hiding import Present
from xmodal.fusion.interaction import Interaction

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary


class InteractSettings(FusedSettings):
    layers: int = Field(2, ge=1, description="Interaction layers.")
    pretraining: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="Share of the epochs, the first ones, in which every cell shows one modality, from which all are predicted.",
    )


class Interact(Fused):
    """Interaction layers."""

    name = "interact"
    summary = "Interact: every modality keeps a state, which the others change layer by layer; predicts and embeds."
    source = "interaction layers with cross-feature prediction, after MolInteract"
    Settings = InteractSettings
    settings: InteractSettings

    def __init__(self, settings: InteractSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        self.interaction = Interaction(list(vocabulary), settings.latent, settings.layers, settings.dropout)

    def fused_width(self) -> int:
        return len(list(self.vocabulary)) * self.settings.latent

    def fuse(self, latents: dict[str, Tensor], present: Present) -> Tensor:
        """The states of all modalities side by side, (cells, modalities x latent)."""
        return torch.cat(list(self.interaction(latents, present).values()), 1)

    def decoded(self, z: Tensor, latents: dict[str, Tensor], shown: Present, modality: str) -> Tensor:
        place = list(self.vocabulary).index(modality) * self.settings.latent
        return z[:, place : place + self.settings.latent]

    def pretrains(self) -> bool:
        """Whether this is still the first phase.

        What is shown is taught beside what is hidden: hidden features alone leave products unlearned (RESULTS.md).
        """
        return self.done() < self.settings.pretraining

    def hidden(self) -> float:
        return 1.0 if self.pretrains() else self.settings.hide
