"""One direction of `auto`: the parts that predict a target from a source, and how they are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xmodal import fields
from xmodal.models.mean import column_means
from xmodal.models.parts.depths import TargetDepth
from xmodal.models.parts.groups import Choice, Groups, Paired, clustered
from xmodal.models.parts.nets import DirectNet, Form
from xmodal.models.parts.ridges import LowRankRidge
from xmodal.models.parts.sparse import group_sums, sparse_values

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Vocabulary
    from xmodal.models.auto import AutoSettings

Array = npt.NDArray[np.float32]
OWN_VALUES = (
    0.5,
    1.0,
)  # of the networks' targets, in turn; the rest is the mean of the group: unlike members are worth more
OWN_SHARES = (0.5,)  # of single cells with few open peaks no network learns shares well
SMOOTHING = 0.3  # of the profiles that networks learn from; see SHRINK in groups.py
GROUPS_FIRST, RIDGE_FIRST = 0.5, 0.1  # weights before a cell was seen; the rest is shared by the networks


class Direction(nn.Module):
    """Everything one direction needs: depth, groups, networks, and their weights."""

    def __init__(self, settings: AutoSettings, vocabulary: Vocabulary, source: str, target: str) -> None:
        super().__init__()
        self.source, self.target = vocabulary[source], vocabulary[target]
        self.binary = self.target.scale == fields.BINARY
        self.depth = TargetDepth(self.source, self.target)
        self.groups = nn.ModuleList(
            Groups(self.source, self.target, size, settings.restarts) for size in (settings.coarse, settings.fine)
        )
        form: Form = "shares" if self.binary else "values"
        hidden = settings.counts_dropout if self.source.likelihood == fields.NB else settings.input_dropout
        widths, dropout = (settings.hidden, settings.bottleneck), (hidden, settings.dropout)
        own = OWN_SHARES if self.binary else OWN_VALUES
        self.nets = nn.ModuleList(
            DirectNet(self.source, self.target, form, widths, dropout, own[i % len(own)])
            for i in range(settings.members)
        )
        self.ridge = LowRankRidge(self.source, self.target)
        width = len(self.target)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("within", torch.zeros(2, width))  # on standardised depth and its square, minus one
        each = (1 - GROUPS_FIRST - RIDGE_FIRST) / max(len(self.nets), 1)
        self.register_buffer("weights", torch.tensor([GROUPS_FIRST, *[each] * len(self.nets), RIDGE_FIRST]))
        self.space: tuple[str, ...] = ()  # the rest is needed in training only, and in no checkpoint
        self.centres, self.smooth = torch.zeros(0), torch.zeros(0)

    def clusterings(self) -> list[Groups]:
        return [cast(Groups, groups) for groups in self.groups]

    def networks(self) -> list[DirectNet]:
        return [cast(DirectNet, net) for net in self.nets]

    def parts(self, batch: Batch, depth: Tensor) -> list[Tensor]:
        """Deviation of each part from the mean, (cells, features of the target) each; of shares where the target is binary.

        ``depth``: the target's expected log depth, (cells,).  It is kept apart from the state where the target is binary: all
        parts are multiplied with it afterwards.
        """
        standard = self.depth.standardised(depth)
        expected = torch.stack([groups(batch) for groups in self.groups]).mean(0)
        found = [expected if self.binary else expected + self._within(standard)]
        found += [net(batch, standard) for net in self.nets]
        return [p - self.get_buffer("mean") for p in [*found, self.ridge(batch, standard)]]

    def forward(self, batch: Batch) -> Tensor:
        """The prediction on the target's scale, (cells, features of the target)."""
        weights, depth = self.get_buffer("weights"), self.depth(batch)
        total = self.get_buffer("mean").expand(len(batch), -1).clone()
        for weight, part in zip(weights, self.parts(batch, depth), strict=True):
            total += weight * part
        if self.binary:
            return (total * torch.expm1(depth).clamp(min=0)[:, None]).clamp(1e-6, 1 - 1e-6)
        return total.clamp(min=0) if self.target.scale == fields.LOG_CP10K else total

    def truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the parts are to say of these cells, as deviation from the mean, and the scale of each cell, (cells, 1).

        Of peaks: (y - n mean) / sqrt(n) and sqrt(n), with n open peaks, so that every cell is equally noisy.
        """
        true, mean = batch.values[self.target.name], self.get_buffer("mean")
        if not self.binary:
            return true - mean, torch.ones(len(true), 1)
        opened = true.sum(1, keepdim=True).clamp(min=1)
        return (true - opened * mean) / opened.sqrt(), opened.sqrt()

    def _within(self, standard: Tensor) -> Tensor:
        return torch.cat([standard, standard.square() - 1], 1) @ self.get_buffer("within")

    def prepare(self, cells: Cells) -> None:
        self._fit_mean(cells)
        self.depth.prepare(cells)
        self.ridge.prepare(cells)
        for net in self.networks():
            net.prepare(cells)

    def fit_smooth(self, cells: Cells, states: Array) -> None:
        """Centres of fine groups, and the mean profiles that the networks' targets are drawn to."""
        groups, centres = clustered(states, self.clusterings()[-1].size, 0)
        target = sparse_values(cells, self.target.name)
        self.centres = torch.from_numpy(centres)
        self.smooth = torch.from_numpy(self.clusterings()[-1].expected(target, groups, SMOOTHING).astype(np.float32))

    def _fit_mean(self, cells: Cells) -> None:
        mean = column_means(cells, self.target.name)
        self.get_buffer("mean").copy_(mean / mean.sum().clamp(min=1e-9) if self.binary else mean)

    def standard_depth(self, cells: Cells) -> Array:
        """z-score of the target's expected log depth, (cells, 1)."""
        parts = [self.depth.standard(cells.batch(slice(i, i + 512))) for i in range(0, len(cells), 512)]
        return torch.cat(parts).numpy()

    def fit_closed(self, cells: Cells, states: Array, chosen: list[Choice]) -> None:
        """Fill what has a closed form from ``cells``: the groups, what depth adds within them, and the ridge."""
        paired = Paired.of(cells, self.source, self.target, states)
        self._fit_mean(cells)
        labels = [g.fit(paired, choice)[0] for g, choice in zip(self.clusterings(), chosen, strict=True)]
        depth = self.standard_depth(cells)
        self.ridge.fit(cells, depth)
        if not self.binary:
            self._fit_within(depth, paired, labels[0])

    def _fit_within(self, d: Array, paired: Paired, groups: npt.NDArray[np.int64]) -> None:
        """Regress what is left of the values within groups on the expected depth; sums only, so that nothing is made dense."""
        x = np.concatenate([d, d**2 - 1], 1).astype(np.float64)
        count = int(groups.max()) + 1
        sizes = np.bincount(groups, minlength=count)[:, None]
        x -= (group_sums(x.astype(np.float32), groups, count) / sizes)[groups]
        cross = np.asarray(paired.target.T @ x).T  # x is centred within groups, so the target need not be
        found = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(2), cross)
        self.get_buffer("within").copy_(torch.from_numpy(found.astype(np.float32)))
