"""Husformer: modalities as tokens that attend to each other, then self-attention over all of them (Wang et al. 2022).

A token is what a learned group of features tells of a cell.  All tokens that come out are brought to one latent, from which
every modality is told, so that what only one of them knows is kept as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from xmodal.fusion.attention import CrossModal, Shape
from xmodal.fusion.fused import Fused, FusedSettings
from xmodal.fusion.hiding import Present

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary


class HusformerSettings(FusedSettings):
    latent: int = Field(64, ge=2, description="Dimensions of the latent.")
    input_dropout: float = Field(0.3, ge=0, lt=1, description="Share of input features hidden in training.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout of hidden layers.")
    tokens: int = Field(20, ge=1, description="Tokens of a modality.")
    heads: int = Field(2, ge=1, description="Heads of attention.")
    head_width: int = Field(8, ge=1, description="Width of a head; a token is as wide as all heads together.")
    cross: int = Field(1, ge=0, description="Layers in which each modality attends to the tokens of all.")
    layers: int = Field(1, ge=0, description="Layers of self-attention over all tokens.")
    attention_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the layers of attention.")


class Husformer(Fused):
    """Cross-modal attention."""

    name = "husformer"
    summary = "Husformer: modalities as tokens that attend to each other; predicts, and embeds what all of them tell."
    source = "Husformer, Wang et al. 2022"
    Settings = HusformerSettings
    settings: HusformerSettings

    def __init__(self, settings: HusformerSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        s = settings
        shape = Shape(s.tokens, s.heads * s.head_width, s.heads, s.cross, s.layers, s.attention_dropout)
        self.mechanism = CrossModal(list(vocabulary), shape)
        self.past = nn.ModuleDict({m: nn.Linear(self.encoded_width(), s.latent) for m in vocabulary})
        self.join = nn.Linear(len(list(vocabulary)) * self.encoded_width(), s.latent)

    def encoded_width(self) -> int:
        return self.settings.tokens * self.settings.heads * self.settings.head_width

    def fuse(self, latents: dict[str, Tensor], present: Present) -> Tensor:
        """What the tokens came to, and past attention, which is slow to let it through, what each encoder tells alone."""
        found: Tensor = self.join(self.mechanism(latents, present).flatten(1))
        for m, state in latents.items():
            found = found + self.past[m](state) * present[m][:, None].to(found.dtype)
        return found
