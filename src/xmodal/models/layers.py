"""Encoders and decoders that models share: they know features and likelihoods, not how modalities meet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.kernels import products
from xmodal.kernels.rows import Rows
from xmodal.models.mean import column_means

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Modality

CLIP_QUANTILES = (0.005, 0.995)  # z-scores outside the central 99 % are cut, as CrossMP does
SPREAD_FLOOR = 1e-6  # a feature that never varies is left at zero, not divided by nothing
SAMPLE = 2_000  # training cells that quantiles and spreads are taken from
ENTRIES = 20_000_000  # values made dense at once for it (80 MB), so that wide modalities take fewer cells
FEWEST = 200


def drawn(cells: int, width: int, most: int = SAMPLE) -> npt.NDArray[np.int64]:
    """Rows of the cells that statistics of ``width`` features are taken from, sorted; the same for the same numbers."""
    most = min(most, max(FEWEST, ENTRIES // max(width, 1)))
    order = torch.randperm(cells, generator=torch.Generator().manual_seed(0))[:most]
    return order.sort().values.numpy()


class Standardise(nn.Module):
    """What an encoder sees of one modality, with its log depth as a last column: (cells, features + 1).

    Peaks: open / sqrt(number of open peaks), so that depth sits in the depth column alone; everything else: z-scores
    clipped at the 0.5 and 99.5 % quantiles.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.modality = modality
        self.register_buffer("mean", torch.zeros(len(modality)))
        self.register_buffer("spread", torch.ones(len(modality)))
        self.register_buffer("limits", torch.tensor([-10.0, 10.0]))
        self.register_buffer("depth", torch.tensor([0.0, 1.0]))  # mean and spread of the log depth

    def prepare(self, cells: Cells) -> None:
        m = self.modality.name
        cells = cells.having(m)
        if not len(cells):
            return
        rows = drawn(len(cells), len(self.modality))
        logged = torch.log1p(torch.from_numpy(cells.counts[m][rows].sum(1)).float().ravel().clamp(min=0))
        self.get_buffer("depth").copy_(torch.stack([logged.mean(), logged.std(correction=0).clamp(min=SPREAD_FLOOR)]))
        if self.modality.scale == fields.BINARY:
            return
        values = torch.from_numpy(cells.values(m, rows))
        spread = values.std(0, correction=0)
        self.get_buffer("mean").copy_(column_means(cells, m))
        self.get_buffer("spread").copy_(torch.where(spread > SPREAD_FLOOR, spread, torch.inf))
        scores = ((values - self.get_buffer("mean")) / self.get_buffer("spread")).flatten()
        step = max(1, len(scores) // 1_000_000)  # torch.quantile takes 16 million values at most
        self.get_buffer("limits").copy_(torch.quantile(scores[::step], torch.tensor(CLIP_QUANTILES)))

    def forward(self, batch: Batch) -> Tensor:
        if self.modality.scale == fields.BINARY:
            x = self.rows(batch).dense()
        else:
            low, high = self.get_buffer("limits")
            scores = (batch.values[self.modality.name] - self.get_buffer("mean")) / self.get_buffer("spread")
            x = scores.clamp(low, high)
        return torch.cat([x, self.log_depth(batch)[:, None]], 1)

    def rows(self, batch: Batch) -> Rows:
        """Peaks alone, sparse, (cells, features)."""
        opened = batch.sparse[self.modality.name].positive()
        return opened.times(1 / opened.sums().clamp(min=1).sqrt())

    def log_depth(self, batch: Batch) -> Tensor:
        """The last column, (cells,)."""
        centre, width = self.get_buffer("depth")
        return (torch.log1p(batch.sparse[self.modality.name].sums().clamp(min=0)) - centre) / width


class Hide(nn.Module):
    """Dropout of wide inputs: hides a share of the entries (a multiple of 1/256) in training and scales up the rest.

    One random byte for each entry, drawn eight at a time: measured 6 times faster than torch's dropout on CPU, where
    drawing the mask was a fifth of a training step.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.limit = round(share * 256)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.limit:
            return x
        return x * self._kept(x) * (256 / (256 - self.limit))

    def rows(self, x: Rows) -> Rows:
        """The same for sparse rows: zeros are zero whether they are hidden or not."""
        return replace(x, value=self(x.value))

    def at(self, x: Rows) -> Rows:
        """Exactly what :meth:`forward` does to the dense form of ``x``, by the same random numbers: for models that began so."""
        if not self.training or not self.limit:
            return x
        kept = self._kept(x.value, len(x) * x.width)[x.cell() * x.width + x.column]
        return replace(x, value=x.value * kept * (256 / (256 - self.limit)))

    def _kept(self, x: Tensor, size: int | None = None) -> Tensor:
        """As many as ``x`` has entries, of its shape, or ``size``."""
        size, shape = (x.numel(), x.shape) if size is None else (size, (size,))
        words = torch.empty(size // 8 + 1, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        return words.view(torch.uint8)[:size].view(shape) >= self.limit


class WideLinear(nn.Linear):
    """A linear layer from the features of a modality, each process's own rows of which it computes (:mod:`xmodal.ranks`)."""

    def forward(self, x: Tensor) -> Tensor:
        if not ranks.shared():
            return super().forward(x)
        ranks.owe([self.weight])
        out = ranks.gathered(F.linear(x[ranks.own(len(x))], self.weight), len(x))
        return out if self.bias is None else out + self.bias


class RowLinear(WideLinear):
    """A linear layer that also takes sparse rows; its weight lies in memory feature by feature, as these read it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(self.weight.detach().T.contiguous().T)

    def forward(self, x: Tensor | Rows) -> Tensor:
        if isinstance(x, Tensor):
            return super().forward(x)
        cells = len(x)
        if ranks.shared():
            ranks.owe([self.weight])
            x = x.take(ranks.own(cells))
        return ranks.gathered(products.times(x, self.weight.T), cells) + self.bias


def block(inputs: int, outputs: int, dropout: float = 0.0, first: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    """Linear (of the kind ``first``), BatchNorm, PReLU, dropout."""
    return nn.Sequential(first(inputs, outputs), nn.BatchNorm1d(outputs), nn.PReLU(), nn.Dropout(dropout))


class BlockEncoder(nn.Module):
    """Features split into blocks (chromosomes), each through its own small layers, then joined: (cells, n) -> (cells, latent)."""

    def __init__(self, blocks: list[Tensor], widths: tuple[int, int], latent: int, dropout: float) -> None:
        super().__init__()
        self.blocks = blocks
        first, second = widths
        self.parts = nn.ModuleList(nn.Sequential(block(len(b), first, dropout), block(first, second)) for b in blocks)
        self.join = nn.Linear(second * len(blocks) + 1, latent)  # + 1: the log depth

    def forward(self, x: Tensor) -> Tensor:
        parts = [part(x[:, b]) for part, b in zip(self.parts, self.blocks, strict=True)]
        return self.join(torch.cat([*parts, x[:, -1:]], 1))


class BlockDecoder(nn.Module):
    """The mirror image: latent -> a small hidden vector for each block -> the block's features."""

    def __init__(self, blocks: list[Tensor], latent: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.widths = widths
        self.order = torch.argsort(torch.cat(blocks))
        self.split = block(latent, widths[1] * len(blocks))
        self.parts = nn.ModuleList(
            nn.Sequential(block(widths[1], widths[0]), nn.Linear(widths[0], len(b))) for b in blocks
        )

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.split(z).split(self.widths[1], 1)
        return torch.cat([part(h) for part, h in zip(self.parts, hidden, strict=True)], 1)[:, self.order]
