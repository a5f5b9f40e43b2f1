"""The ablation with a hard shared latent: one encoder of all modalities in place of a product of experts, one for each.

A model of its own, registered for the benchmark by an entry point in a folder on PYTHONPATH: nobody should have to choose it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmodal.models.parts.experts import LOG_VARIANCE, Encoder, Gaussian
from xmodal.models.sailerx import SailerX, SailerXSettings

if TYPE_CHECKING:
    from xmodal.data.batches import Batch
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.models.parts.placing import Place

NAME = "sailerx_shared"


class SharedLatent(SailerX):
    """Early concatenation: the first layers of the modalities that are shown are summed, the rest of the encoder is one."""

    name = NAME
    summary = "SAILERX with one encoder of all modalities (ablation)."

    def __init__(self, settings: SailerXSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        first = self._encoder(next(iter(vocabulary)))
        for m in vocabulary:
            self._encoder(m).body, self._encoder(m).out = first.body, first.out
        self._hidden: dict[str, Tensor] = {}  # of the batch whose posteriors were asked for last

    def _encoder(self, m: str) -> Encoder:
        found = self.encoders[m]
        assert isinstance(found, Encoder)
        return found

    def _posteriors(self, batch: Batch, places: dict[str, Place]) -> dict[str, Gaussian]:
        self._hidden = {
            m: self._encoder(m).hidden(batch, places[m].place) for m in self.vocabulary if bool(batch.present[m].any())
        }
        return {m: self._gaussian(hidden) for m, hidden in self._hidden.items()}

    def _gaussian(self, hidden: Tensor) -> Gaussian:
        encoder = self._encoder(next(iter(self.vocabulary)))
        mean, log_variance = encoder.out(encoder.body(hidden)).chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def _product(self, posteriors: dict[str, Gaussian], shown: dict[str, Tensor], by_trust: bool = False) -> Gaussian:
        parts = [self._hidden[m] * shown[m][:, None].float() for m in posteriors]
        return self._gaussian(torch.stack(parts).sum(0))

    def encode(self, batch: Batch, source: str) -> Tensor:
        return self._posteriors(batch.only(source), self._places(batch))[source][0]


def registered(folder: Path) -> str:
    """A PYTHONPATH with which every `xmodal` knows the model."""
    about = folder / f"{NAME}-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0\n")
    (about / "entry_points.txt").write_text(f"[xmodal.models]\n{NAME} = joint_shared:SharedLatent\n")
    return f"{Path(__file__).resolve().parent}:{folder}"
