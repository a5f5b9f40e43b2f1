"""The mean of the training cells: what any prediction must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xmodal import fields
from xmodal.data.batches import Batch, Cells
from xmodal.data.vocabulary import Vocabulary
from xmodal.models.base import CrossModalModel, ModelSettings

CHUNK = 512  # cells made dense at once


def column_means(cells: Cells, modality: str) -> Tensor:
    """Mean value of each feature over the cells that have ``modality``, on its scale, (features,)."""
    measured = cells.having(modality)
    total = np.zeros(len(cells.vocabulary[modality]), np.float64)
    for start in range(0, len(measured), CHUNK):
        rows = slice(start, start + CHUNK)
        if (
            cells.vocabulary[modality].scale == fields.BINARY
        ):  # whole numbers: the same without making 512 x 100,000 dense
            opened = measured.counts[modality][rows]
            total += np.bincount(opened.indices, opened.data > 0, minlength=len(total))
        else:
            total += measured.values(modality, rows).sum(0, dtype=np.float64)
    return torch.from_numpy((total / max(len(measured), 1)).astype(np.float32))


class Mean(CrossModalModel):
    """Every cell gets the training mean of the target."""

    name = "mean"
    summary = "Control: the mean of the training cells, the same for every cell."
    source = "trivial control"
    Settings = ModelSettings
    streams = True
    min_cells = 1
    min_pairs = 1

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        for m in vocabulary:
            self.register_buffer(f"mean_{m}", torch.zeros(len(vocabulary[m])))

    def prepare(self, cells: Cells) -> None:
        for m in self.vocabulary:
            self.get_buffer(f"mean_{m}").copy_(column_means(cells, m))

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        return self.get_buffer(f"mean_{target}").expand(len(batch), -1).clone()
