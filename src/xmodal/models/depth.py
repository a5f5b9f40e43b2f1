"""The depth of the source modality alone: how far a prediction gets without looking at any feature."""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal import fields
from xmodal.data.batches import Batch, Cells
from xmodal.data.vocabulary import Vocabulary
from xmodal.models.base import CrossModalModel, ModelSettings
from xmodal.models.mean import CHUNK

TINY = 1e-3  # below this a linear prediction of a probability bends towards 0 instead of going through it


def to_probability(x: Tensor) -> Tensor:
    """Map a linear prediction into (0, 1) without changing any order: identity inside, exponential tails at both ends."""
    low = TINY * torch.exp((x.clamp(max=TINY) - TINY) / TINY)
    high = 1 - TINY * torch.exp((1 - TINY - x.clamp(min=1 - TINY)) / TINY)
    return torch.where(x < TINY, low, torch.where(x > 1 - TINY, high, x))


class Depth(CrossModalModel):
    """Least-squares line of every target feature on the source's log depth."""

    name = "depth"
    summary = "Control: a line on the log depth of the source modality, nothing else."
    source = "trivial control"
    Settings = ModelSettings
    streams = True

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        for s, t in self.directions():
            self.register_buffer(f"intercept_{s}_{t}", torch.zeros(len(vocabulary[t])))
            self.register_buffer(f"slope_{s}_{t}", torch.zeros(len(vocabulary[t])))
            self.register_buffer(f"centre_{s}_{t}", torch.zeros(()))

    def prepare(self, cells: Cells) -> None:
        for s, t in self.directions():
            both = cells.having(s, t)
            if len(both) < self.min_pairs:
                continue
            x = torch.log1p(torch.from_numpy(both.counts[s].sum(1)).float().ravel().clamp(min=0))
            centred = x - x.mean()
            mean, cross = torch.zeros(len(self.vocabulary[t])), torch.zeros(len(self.vocabulary[t]))
            for start in range(0, len(both), CHUNK):
                y = torch.from_numpy(both.values(t, slice(start, start + CHUNK)))
                mean += y.sum(0)
                cross += centred[start : start + CHUNK] @ y
            self.get_buffer(f"intercept_{s}_{t}").copy_(mean / len(both))
            self.get_buffer(f"slope_{s}_{t}").copy_(cross / centred.square().sum().clamp(min=1e-9))
            self.get_buffer(f"centre_{s}_{t}").copy_(x.mean())

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        x = torch.log1p(batch.counts[source].sum(1).clamp(min=0)) - self.get_buffer(f"centre_{source}_{target}")
        slope, intercept = (self.get_buffer(f"{k}_{source}_{target}") for k in ("slope", "intercept"))
        out = intercept + x[:, None] * slope  # (cells, features)
        return to_probability(out) if self.vocabulary[target].scale == fields.BINARY else out
