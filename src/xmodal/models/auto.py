"""The default: groups of cells, small networks and ridge regression, each weighted by what it is worth on held-out cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields
from xmodal.data.batches import Batch, Cells, joined
from xmodal.models.base import CrossModalModel, GradientSettings
from xmodal.models.mean import column_means
from xmodal.models.parts.blending import Stacking
from xmodal.models.parts.depths import TargetDepth
from xmodal.models.parts.groups import Choice, Groups, Paired, clustered
from xmodal.models.parts.nets import DirectNet, Form, neighbours
from xmodal.models.parts.ridges import LowRankRidge
from xmodal.models.parts.sparse import group_sums, sparse_values
from xmodal.models.parts.states import States

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float32]
CHUNK = 256
SMALLEST_BATCH, STEPS = 16, 24  # cells; steps an epoch should have
OWN = (0.5, 1.0)  # of the networks' targets, in turn; the rest is the mean of neighbours: unlike members are worth more
SMOOTHING = 0.3  # of the profiles that networks learn from; see SHRINK in parts/groups.py
SLOW = 0.5  # of the learning rate, for networks that predict shares
BETTER = 1.02  # states of both modalities are used where they explain so much more than those of one
GROUPS_FIRST = 0.5  # weight of the groups before a cell was seen; the rest is shared by the others


class AutoSettings(GradientSettings):
    epochs: int = Field(32, ge=0, description="Epochs of the networks, all of them in one cycle of the learning rate.")
    batch_size: int = Field(128, ge=8, description="Cells in a minibatch; also where neighbours are found.")
    learning_rate: float = Field(0.008, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.1, ge=0, description="Weight decay (decoupled, as in AdamW).")
    schedule: Literal["plateau", "onecycle"] = Field("onecycle", description="Course of the learning rate.")
    patience: int = Field(1000, ge=1, description="Epochs without a better validation loss before training stops.")
    clip: float = Field(100.0, gt=0, description="Largest norm of the gradient.")
    refit_epochs: int = Field(8, ge=0, description="Epochs on all cells, once the weights are chosen.")
    coarse: int = Field(20, ge=2, description="Groups in the coarser clusterings.")
    fine: int = Field(60, ge=2, description="Groups in the finer clusterings.")
    restarts: int = Field(4, ge=1, description="Clusterings of each size.")
    members: int = Field(2, ge=0, description="Networks of each direction.")
    hidden: int = Field(128, ge=2, description="Width of the networks' hidden layer.")
    bottleneck: int = Field(32, ge=1, description="Width of what the networks predict from.")
    input_dropout: float = Field(0.6, ge=0, lt=1, description="Share of input features hidden in training.")
    counts_dropout: float = Field(0.7, ge=0, lt=1, description="The same where the inputs are counts, such as genes.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of the hidden layer.")

    def minibatch(self, cells: int) -> int:
        """Smaller for few cells, which would else be over after a few steps."""
        return min(self.batch_size, max(SMALLEST_BATCH, cells // STEPS))


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
        self.nets = nn.ModuleList(
            DirectNet(self.source, self.target, form, widths, dropout, OWN[i % len(OWN)])
            for i in range(settings.members)
        )
        self.ridge = LowRankRidge(self.source, self.target)
        width = len(self.target)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("within", torch.zeros(2, width))  # on standardised depth and its square, minus one
        others = len(self.nets) + 1
        self.register_buffer("weights", torch.tensor([GROUPS_FIRST, *[(1 - GROUPS_FIRST) / others] * others]))
        self.space: tuple[str, ...] = ()  # the rest is needed in training only, and in no checkpoint
        self.centres, self.smooth = torch.zeros(0), torch.zeros(0)

    def clusterings(self) -> list[Groups]:
        return [cast(Groups, groups) for groups in self.groups]

    def networks(self) -> list[DirectNet]:
        return [cast(DirectNet, net) for net in self.nets]

    def parts(self, batch: Batch) -> list[Tensor]:
        """Deviation of each part from the mean, (cells, features of the target) each; of shares where the target is binary.

        Depth is kept apart from state there: all parts are multiplied with the same depth afterwards.
        """
        standard = self.depth.standard(batch)
        expected = torch.stack([groups(batch) for groups in self.groups]).mean(0)
        found = [expected if self.binary else expected + self._within(standard)]
        found += [net(batch, standard) for net in self.nets]
        return [p - self.get_buffer("mean") for p in [*found, self.ridge(batch, standard)]]

    def forward(self, batch: Batch) -> Tensor:
        """The prediction on the target's scale, (cells, features of the target)."""
        weights = self.get_buffer("weights")
        total = self.get_buffer("mean").expand(len(batch), -1).clone()
        for weight, part in zip(weights, self.parts(batch), strict=True):
            total += weight * part
        if self.binary:
            return (total * torch.expm1(self.depth(batch)).clamp(min=0)[:, None]).clamp(1e-6, 1 - 1e-6)
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


class Auto(CrossModalModel):
    """An ensemble of unlike parts, each weighted by stacked regression on the validation cells."""

    name = "auto"
    summary = (
        "Default: groups of cells, networks and ridge, weighted by validation; levels and cell states in one output."
    )
    source = "this project; stacking after Breiman 1996, naive Bayes groups, mixup after Zhang et al. 2018"
    Settings = AutoSettings
    min_cells = 24
    min_pairs = 20
    settings: AutoSettings

    def __init__(self, settings: AutoSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        self.states = nn.ModuleDict({m: States(modality) for m, modality in vocabulary.modalities.items()})
        self.ways = nn.ModuleDict({f"{s}_{t}": Direction(settings, vocabulary, s, t) for s, t in self.directions()})
        self.train_cells: Cells | None = None
        self.held: dict[tuple[str, str], tuple[Cells, Array]] = {}

    def way(self, source: str, target: str) -> Direction:
        """Everything of one direction."""
        return cast(Direction, self.ways[f"{source}_{target}"])

    def state(self, modality: str) -> States:
        return cast(States, self.states[modality])

    def prepare(self, cells: Cells) -> None:
        self.train_cells = cells
        for m in self.vocabulary:
            self.state(m).prepare(cells)
        for s, t in self.learned(cells):
            both, way = cells.having(s, t), self.way(s, t)
            way.prepare(both)
            way.space = self._space(both, way)
            way.fit_smooth(both, self._states(both, way.space))
            log.info("%s -> %s: groups are found in the state of %s", s, t, " and ".join(way.space))

    def _states(self, cells: Cells, space: tuple[str, ...]) -> Array:
        return np.concatenate([self.state(m).of(cells).numpy() for m in space], 1)

    def _space(self, cells: Cells, way: Direction) -> tuple[str, ...]:
        """In which states groups predict the target best, tried on a fifth of the training cells."""
        s, t = way.source.name, way.target.name
        order = np.random.default_rng(0).permutation(len(cells))
        held, fit = cells.subset(np.sort(order[: len(cells) // 5])), cells.subset(np.sort(order[len(cells) // 5 :]))
        scores = {space: self._trial(fit, held, way, space) for space in ((t,), (s,), (s, t))}
        alone = max(((t,), (s,)), key=lambda space: scores[space])
        return (s, t) if scores[s, t] > BETTER * scores[alone] else alone

    def _trial(self, fit: Cells, held: Cells, way: Direction, space: tuple[str, ...]) -> float:
        """Share of the variance of ``held`` that groups explain, mean over features (after the best scaling)."""
        groups = Groups(way.source, way.target, self.settings.coarse, 2)
        pair = [Paired.of(c, way.source, way.target, self._states(c, space)) for c in (fit, held)]
        groups.fit(pair[0], groups.choose(pair[0], pair[1]))
        stack = Stacking(held.values(way.target.name).var(0).astype(np.float64), 1)
        for start in range(0, len(held), CHUNK):
            batch = held.batch(slice(start, start + CHUNK))
            true, scale = way.truth(batch)
            stack.add([(scale * (groups(batch) - way.get_buffer("mean"))).numpy()], true.numpy())
        return stack.explained()

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """Networks that predict shares learn from far more numbers a cell, and overfit sooner."""
        ways = [self.way(s, t) for s, t in self.directions()]
        slow = [p for way in ways if way.binary for p in way.parameters()]
        fast = [p for way in ways if not way.binary for p in way.parameters()]
        groups = ({"params": fast, "lr": rate}, {"params": slow, "lr": SLOW * rate})
        return [g for g in groups if g["params"]] or super().parameter_groups(rate)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for s, t in self.directions():
            way = self.way(s, t)
            rows = (batch.present[s] & batch.present[t]).nonzero().ravel()
            if not way.space or len(rows) < 2 or not len(way.nets):
                continue
            both = batch if len(rows) == len(batch) else batch.rows(rows)
            with torch.no_grad():
                depth = way.depth.standard(both)
                state = torch.cat([self.state(m)(self._raw(both, m)) for m in way.space], 1)
                group = torch.cdist(state, way.centres.to(state.device)).argmin(1)
                near, smooth = neighbours(state, group), way.smooth.to(state.device)[group]
            for i, net in enumerate(way.networks()):
                terms[f"{s}_to_{t}_{i}"] = net.loss(both, depth, near, smooth)
        return terms

    def _raw(self, batch: Batch, m: str) -> Tensor:
        return (batch.counts if self.vocabulary[m].likelihood == fields.NB else batch.values)[m]

    def finish(self, cells: Cells) -> None:
        train = self.train_cells
        if train is None:
            return
        self.to("cpu")
        held = cells if cells is not train and not np.isin(cells.names, train.names).any() else None
        for s, t in self.learned(train):
            self._finish(self.way(s, t), train.having(s, t), held.having(s, t) if held is not None else None)
        self.train_cells = None

    def _finish(self, way: Direction, train: Cells, held: Cells | None) -> None:
        """Choose on ``held`` cells with parts that were fitted without them, then fit the closed forms to all cells."""
        s, t = way.source.name, way.target.name
        states = self._states(train, way.space)
        if held is None or not len(held):
            alone = Paired.of(train, way.source, way.target, states)
            chosen = [groups.choose(alone, alone) for groups in way.clusterings()]
            way.fit_closed(train, states, chosen)
            return
        own = self._states(held, way.space)
        paired = [Paired.of(c, way.source, way.target, x) for c, x in ((train, states), (held, own))]
        chosen = [groups.choose(paired[0], paired[1]) for groups in way.clusterings()]
        way.fit_closed(train, states, chosen)
        self._weigh(way, held)
        self.held[s, t] = super().calibration(held, s, t, torch.device("cpu"))
        weights = [round(float(w), 2) for w in way.get_buffer("weights")]
        log.info("%s -> %s: %s, weights %s", s, t, chosen, weights)
        way.fit_closed(joined(train, held), np.concatenate([states, own]), chosen)

    def _weigh(self, way: Direction, held: Cells) -> None:
        weights, stack = way.get_buffer("weights"), self._stacked(way, held)
        found = stack.weights(weights.numpy().astype(np.float64))
        if float(found @ stack.centred()[1]) <= 0:
            log.warning(
                "%s -> %s: no better than the mean; the mean is what will be predicted",
                way.source.name,
                way.target.name,
            )
            found[:] = 0
        weights.copy_(torch.from_numpy(found.astype(np.float32)))

    def _stacked(self, way: Direction, held: Cells) -> Stacking:
        """How the parts go with the truth in ``held``."""
        values = sparse_values(held, way.target.name)
        square = values.multiply(values).mean(0) if hasattr(values, "multiply") else np.square(values).mean(0)
        variance = np.asarray(square).ravel() - np.square(np.asarray(values.mean(0)).ravel())
        stack = Stacking(variance.astype(np.float64), len(way.get_buffer("weights")))
        for start in range(0, len(held), CHUNK):
            batch = held.batch(slice(start, start + CHUNK))
            true, scale = way.truth(batch)
            stack.add([(scale * p).numpy() for p in way.parts(batch)], true.numpy())
        return stack

    def calibration(self, held: Cells, source: str, target: str, device: torch.device) -> tuple[Cells, Array]:
        """Of the validation cells: what was predicted before the groups were fitted to them as well."""
        return self.held.get((source, target)) or super().calibration(held, source, target, device)

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        out: Tensor = self.way(source, target)(batch)
        return out
