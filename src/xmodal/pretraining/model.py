"""The cell encoder with its objective, as something that the one training loop can train.  It is no model of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmodal import fields
from xmodal.models.base import CrossModalModel, ModelSettings
from xmodal.models.parts.perceiver import MaskedGenes, Perceiver, hide, masked_loss
from xmodal.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from xmodal.data.batches import Batch
    from xmodal.data.vocabulary import Vocabulary

SAME = 0  # seed of the genes that are hidden when the loss is judged: the same every time


class Pretraining(CrossModalModel):
    """Hides genes and predicts their counts; ``loss`` has one term in training, and the floor beside it when it is judged."""

    name: ClassVar[str] = "pretrain"
    summary: ClassVar[str] = "The cell encoder `builtin`, pretrained on cells without labels."
    source: ClassVar[str] = "Perceiver (Jaegle et al. 2021) on masked genes"
    Settings: ClassVar[type[ModelSettings]] = PretrainSettings

    def __init__(self, settings: PretrainSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        genes = len(vocabulary[fields.RNA])
        self.mask = settings.mask
        self.encoder = Perceiver(genes, settings)
        self.task = MaskedGenes(genes, settings)

    def start(self, totals: npt.NDArray[np.float64]) -> None:
        """Take the shares of genes from counts summed over some cells, (genes,)."""
        self.task.prepare(torch.from_numpy(totals.astype(np.float32)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        m = fields.RNA
        cells = (batch.counts[m], batch.values[m], batch.depth[m])
        same = None if self.training else torch.Generator().manual_seed(SAME)
        found, floor = masked_loss(self.encoder, self.task, cells, hide(cells[0], self.mask, same))
        return {"masked": found} if self.training else {"masked": found, "floor": floor}
