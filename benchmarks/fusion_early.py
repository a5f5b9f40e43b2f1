"""The plain way for modalities to meet: features side by side into one network.  A comparator, no model of the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmodal.data.vocabulary import Vocabulary
from xmodal.fusion.coders import body
from xmodal.fusion.fused import Fused, FusedSettings
from xmodal.fusion.hiding import Present


class Early(Fused):
    """A first layer over all features, zero where a modality is missing, then one body."""

    name = "early"
    summary = "Comparator: early concatenation with modality dropout."
    source = "trivial control"
    Settings = FusedSettings

    def __init__(self, settings: FusedSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        for encoder in self.encoders.values():  # the first layer alone: their sum is that of all features side by side
            encoder.body = nn.Identity()
        self.body = body(self.widths, settings.latent)

    def encoded_width(self) -> int:
        return self.settings.hidden

    def fuse(self, latents: dict[str, Tensor], present: Present) -> Tensor:
        total = torch.stack([z * present[m][:, None] for m, z in latents.items()]).sum(0)
        found: Tensor = self.body(total)
        return found
