"""One modality to a latent and back, of any likelihood: what all models of this package share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmodal import fields
from xmodal.kernels.rows import Rows
from xmodal.models.layers import Hide, RowLinear, Standardise
from xmodal.models.likelihoods import Head

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Modality

FEATURE_AXIS = {  # tensors of an encoder or a decoder that know features, and along which axis: pretraining matches them by name
    "inputs.mean": 0,
    "inputs.spread": 0,
    "first.weight": 1,
    "last.weight": 0,
    "last.bias": 0,
    "head.mean": 0,
    "head.spread": 0,
    "head.bias": 0,
    "head.log_dispersion": 0,
}
OF_CELLS = ("head.curve.curve",)  # what depends on the depth of the cells that are trained on


@dataclass(frozen=True)
class Widths:
    """Sizes and dropout of encoders and decoders."""

    hidden: int
    latent: int
    input_dropout: float
    dropout: float
    encoder_layers: int = 1


class Stacked(nn.Module):
    """Hidden layers one upon the other, (cells, hidden) to (cells, outputs); the last layer reads all of them.

    So what is linear in the features need not pass through what products of them need.
    """

    def __init__(self, widths: Widths, outputs: int) -> None:
        super().__init__()
        hidden, dropout = widths.hidden, widths.dropout
        self.first = nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout))
        self.further = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout / 2))
            for _ in range(widths.encoder_layers - 1)
        )
        self.last = nn.Linear(widths.encoder_layers * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        each = [self.first(x)]
        for layer in self.further:
            each.append(layer(each[-1]))
        out: Tensor = self.last(torch.cat(each, 1))
        return out


def body(widths: Widths, outputs: int) -> nn.Module:
    """What follows the first layer of an encoder, (cells, hidden) to (cells, outputs)."""
    if widths.encoder_layers > 1:
        return Stacked(widths, outputs)
    return nn.Sequential(
        nn.LayerNorm(widths.hidden), nn.GELU(), nn.Dropout(widths.dropout), nn.Linear(widths.hidden, outputs)
    )


class Encoder(nn.Module):
    """All features of one modality and its depth to a latent, (cells, outputs).

    Features are z-scored each, or rows of peaks brought to one length; principal components are not whitened, since the
    small ones, which are noise, would hide products of the large ones.
    """

    def __init__(self, modality: Modality, widths: Widths, outputs: int) -> None:
        super().__init__()
        self.inputs = Standardise(modality)
        self.hide = Hide(widths.input_dropout)
        self.sparse = modality.scale == fields.BINARY
        kind = RowLinear if self.sparse else nn.Linear
        self.first = kind(len(modality) + 1, widths.hidden)
        self.body = body(widths, outputs)

    def prepare(self, cells: Cells) -> None:
        self.inputs.prepare(cells)

    def read(self, batch: Batch) -> Tensor | Rows:
        """What the first layer reads, a share of it hidden in training; the depth never is."""
        if self.sparse:
            return self.hide.rows(self.inputs.rows(batch)).beside(self.inputs.log_depth(batch))
        x = self.inputs(batch)
        return torch.cat([self.hide(x[:, :-1]), x[:, -1:]], 1)

    def forward(self, batch: Batch) -> Tensor:
        z: Tensor = self.body(self.first(self.read(batch)))
        return z


class Decoder(nn.Module):
    """A latent to the expectation of one modality, (cells, features), and what is lost when it is wrong."""

    def __init__(self, modality: Modality, widths: Widths, inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inputs, widths.hidden), nn.LayerNorm(widths.hidden), nn.GELU(), nn.Dropout(widths.dropout)
        )
        self.last = nn.Linear(widths.hidden, len(modality))
        nn.init.normal_(self.last.weight, std=0.01)
        self.head = Head(modality)

    def prepare(self, cells: Cells) -> None:
        self.head.prepare(cells)

    def loss(self, z: Tensor, batch: Batch, has: Tensor) -> Tensor:
        """Mean over the cells that ``has`` (cells,) marks, a scalar."""
        share = has.to(z.dtype) / has.sum()
        return self.head.total(self.body(z), (self.last.weight, self.last.bias), batch, share)

    def forward(self, z: Tensor, plain: bool = False) -> Tensor:
        """Expected values; ``plain``: counts as the log of their expectation, not the expectation of their log."""
        return self.head.expected(self.last(self.body(z)), plain)
