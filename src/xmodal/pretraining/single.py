"""Every modality from itself: what encoders and decoders of single modalities learn from before modalities meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmodal.fusion.fused import Fused, FusedSettings
from xmodal.models.base import CrossModalModel

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells


class Alone(CrossModalModel):
    """A model of :mod:`xmodal.fusion` that is shown one modality at a time, a share of its features hidden, and tells it whole.

    The latent goes through the model's own way of joining, so that decoders read what they will read later.  The loss is that
    of the modality's likelihood; cells need not have more than one modality.
    """

    name = "pretraining"
    summary = "Encoders and decoders of single modalities."
    source = "denoising autoencoder (Vincent et al. 2008)"
    Settings = FusedSettings
    settings: FusedSettings

    def __init__(self, fused: Fused) -> None:
        super().__init__(fused.settings, fused.vocabulary)
        self.fused = fused

    def prepare(self, cells: Cells) -> None:
        for part in (self.fused.encoders, self.fused.decoders):
            for one in part.values():
                one.prepare(cells)  # type: ignore[operator]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {m: self._of_one(batch, m) for m in self.vocabulary if bool(batch.present[m].any())}

    def _of_one(self, batch: Batch, m: str) -> Tensor:
        fused, shown = self.fused, batch.only(m).present
        nothing = torch.zeros(len(batch), fused.encoded_width(), device=fused.decoders_device())
        latents = {k: fused.encoders[m](batch) if k == m else nothing for k in self.vocabulary}
        read = fused.decoded(fused.fuse(latents, shown), latents, shown, m)
        return fused.decoder(m).loss(read, batch, shown[m])
