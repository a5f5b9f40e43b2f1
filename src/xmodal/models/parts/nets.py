"""A small network from one modality to another, trained on cells mixed with their neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.models.layers import drawn
from xmodal.models.mean import column_means
from xmodal.models.parts.sparse import SparseLinear

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Modality
    from xmodal.kernels.rows import Rows

NEIGHBOURS = 3
MIXED = 0.7  # share of training cells that are mixed with a neighbour
Form = Literal["values", "shares"]


class DirectNet(nn.Module):
    """Sparse layer -> LayerNorm, GELU, dropout -> bottleneck -> features of the target.

    In training a cell is mixed, before the first nonlinearity, with one of its nearest neighbours in the minibatch, and its
    target with theirs: mixup (Zhang et al. 2018) kept within groups of like cells, which teaches the first layer far more than
    single shallow cells do.  ``form``: what the outputs are: ``values`` (squared error), or ``shares`` of the open peaks
    (multinomial; to be multiplied with the target's expected depth).  ``own``: how much of a training target is the cell's own;
    the rest is the mean profile of its group.
    """

    def __init__(
        self,
        source: Modality,
        target: Modality,
        form: Form,
        widths: tuple[int, int],
        dropout: tuple[float, float],
        own: float,
    ):
        super().__init__()
        self.source, self.target, self.form, self.own = source, target, form, own
        hidden, bottleneck = widths
        self.first = SparseLinear(len(source), hidden, dropout[0])
        self.depth = nn.Linear(1, hidden, bias=False)
        self.body = nn.Sequential(
            nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout[1]), nn.Linear(hidden, bottleneck)
        )
        self.out = nn.Linear(bottleneck, len(target))
        nn.init.normal_(self.out.weight, std=0.05)
        self.register_buffer("scale", torch.ones(len(source)))
        self.register_buffer("centre", torch.zeros(len(source)))
        self.register_buffer("variance", torch.ones(()))

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        """Input scales and output bias, from cells that have both modalities."""
        s, t = self.source, self.target
        if s.scale != fields.BINARY:
            values = torch.from_numpy(cells.values(s.name, drawn(len(cells), len(s))))
            spread = values.std(0, correction=0)
            self.get_buffer("scale").copy_(torch.where(spread > 1e-3, spread, torch.inf))
            if s.likelihood == fields.GAUSSIAN:
                self.get_buffer("centre").copy_(values.mean(0))
        mean = column_means(cells, t.name)
        if self.form == "values":
            self.out.bias.copy_(mean)
            true = torch.from_numpy(cells.values(t.name, drawn(len(cells), len(t))))
            self.get_buffer("variance").copy_(true.var(0, correction=0).mean().clamp(min=1e-6))
        else:
            self.out.bias.copy_(torch.log((mean * len(cells) + 0.5) / (mean.sum() * len(cells) + 0.5 * len(mean))))

    def inputs(self, batch: Batch) -> Tensor | Rows:
        """What the first layer reads, (cells, features): sparse where zero stays zero."""
        m = self.source.name
        if self.source.scale == fields.BINARY:
            opened = batch.sparse[m].positive()
            return opened.times(1 / opened.sums().clamp(min=1).sqrt())
        scale = self.get_buffer("scale")
        if self.source.scale == fields.LOG_CP10K:
            rows = batch.sparse_values(m)
            return replace(rows, value=rows.value / scale[rows.column.long()])
        x = batch.values[m]
        if self.source.likelihood == fields.GAUSSIAN:
            return ((x - self.get_buffer("centre")) / scale).clamp(-5, 5)
        return x / scale

    def before(self, batch: Batch, depth: Tensor) -> Tensor:
        """Output of the linear part, (cells, hidden); ``depth``: z-score, (cells, 1)."""
        return self.first(self.inputs(batch)) + self.depth(depth)

    def forward(self, batch: Batch, depth: Tensor) -> Tensor:
        """Values or shares, (cells, features of the target)."""
        out: Tensor = self.out(self.body(self.before(batch, depth)))
        return out.softmax(1) if self.form == "shares" else out

    def loss(self, batch: Batch, depth: Tensor, near: Tensor, smooth: Tensor) -> Tensor:
        """Mean loss of the minibatch.

        ``near``: neighbours of each cell among them, (cells, NEIGHBOURS), -1 where there is none; ``smooth``: the target's mean
        profile of the cell's group, (cells, features).
        """
        ranks.owe(self.out)
        hidden, true = self.before(batch, depth), batch.values[self.target.name]
        if self.form == "shares":
            true = true / true.sum(1, keepdim=True).clamp(min=1e-6)
        if self.training:
            true = torch.lerp(smooth, true, self.own) if self.own < 1 else true
            hidden, true = self._mixed(hidden, true, near)
        true = true[ranks.own(len(true))]
        outputs = self.out(ranks.own_rows(self.body(hidden)))
        if self.form == "values":
            return ranks.mean((outputs - true).square(), len(hidden)) / self.get_buffer("variance")
        return -ranks.mean((true * outputs.log_softmax(1)).sum(1), len(hidden)) / 5

    @staticmethod
    def _mixed(hidden: Tensor, true: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        cells = torch.arange(len(true), device=true.device)
        other = near[cells, torch.randint(near.shape[1], (len(true),), device=true.device)]
        mixed = (torch.rand(len(true), device=true.device) < MIXED) & (other >= 0)
        part = 0.5 * mixed[:, None]
        return hidden.lerp(hidden[other], part), true.lerp(true[other], part)


def neighbours(state: Tensor, group: Tensor) -> Tensor:
    """The most similar cells of the same group, (cells, NEIGHBOURS); -1 where the group has no more cells in the minibatch."""
    similar = (state @ state.T).masked_fill(group[:, None] != group[None], -torch.inf).fill_diagonal_(-torch.inf)
    found = similar.topk(min(NEIGHBOURS, len(state)), 1)
    return torch.where(found.values > -torch.inf, found.indices, -1)
