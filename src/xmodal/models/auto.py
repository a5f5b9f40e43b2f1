"""The default: groups of cells, small networks and PLS, each weighted by what it is worth on held-out cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

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
from xmodal.models.parts.groups import Choice, Groups, Paired
from xmodal.models.parts.nets import DirectNet, Form
from xmodal.models.parts.ridges import LowRankRidge
from xmodal.models.parts.sparse import group_sums, sparse_values
from xmodal.models.parts.states import States

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float32]
CHUNK = 256
OWN = (0.5, 1.0)  # of the networks' targets, in turn; the rest is the mean of neighbours: unlike members are worth more
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
    coarse: int = Field(15, ge=2, description="Groups in the coarser clusterings.")
    fine: int = Field(40, ge=2, description="Groups in the finer clusterings.")
    restarts: int = Field(5, ge=1, description="Clusterings of each size.")
    members: int = Field(2, ge=0, description="Networks of each direction.")
    hidden: int = Field(128, ge=2, description="Width of the networks' hidden layer.")
    bottleneck: int = Field(32, ge=1, description="Width of what the networks predict from.")
    input_dropout: float = Field(0.6, ge=0, lt=1, description="Share of input features hidden in training.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of the hidden layer.")


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
        widths, dropout = (settings.hidden, settings.bottleneck), (settings.input_dropout, settings.dropout)
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
        self.space: tuple[str, ...] = ()

    def parts(self, batch: Batch) -> list[Tensor]:
        """Deviation of each part from the mean, (cells, features of the target) each."""
        depth, standard = self.depth(batch), self.depth.standard(batch)
        opened = torch.expm1(depth).clamp(min=0)[:, None]
        expected = torch.stack([groups(batch) for groups in self.groups]).mean(0)
        found = [expected * opened if self.binary else expected + self._within(standard)]
        for net in self.nets:
            out = net(batch, standard)
            found.append(out * opened if self.binary else out)
        out = self.ridge(batch, standard)
        found.append(out * opened if self.binary else out)
        return [p - self.get_buffer("mean") for p in found]

    def forward(self, batch: Batch) -> Tensor:
        """The prediction on the target's scale, (cells, features of the target)."""
        weights = self.get_buffer("weights")
        total = self.get_buffer("mean").expand(len(batch), -1).clone()
        for weight, part in zip(weights, self.parts(batch), strict=True):
            total += weight * part
        return self.in_range(total)

    def in_range(self, values: Tensor) -> Tensor:
        if self.binary:
            return values.clamp(1e-6, 1 - 1e-6)
        return values.clamp(min=0) if self.target.scale == fields.LOG_CP10K else values

    def _within(self, standard: Tensor) -> Tensor:
        return torch.cat([standard, standard.square() - 1], 1) @ self.get_buffer("within")

    def prepare(self, cells: Cells) -> None:
        self.get_buffer("mean").copy_(column_means(cells, self.target.name))
        self.depth.prepare(cells)
        self.ridge.prepare(cells)
        for net in self.nets:
            net.prepare(cells)

    def standard_depth(self, cells: Cells) -> Array:
        """z-score of the target's expected log depth, (cells, 1)."""
        parts = [self.depth.standard(cells.batch(slice(i, i + 512))) for i in range(0, len(cells), 512)]
        return torch.cat(parts).numpy()

    def fit_closed(self, cells: Cells, states: Array, chosen: list[Choice]) -> None:
        """Fill what has a closed form from ``cells``: the groups, what depth adds within them, and the ridge."""
        paired = Paired.of(cells, self.source, self.target, states)
        self.get_buffer("mean").copy_(column_means(cells, self.target.name))
        labels = [g.fit(paired, choice)[0] for g, choice in zip(self.groups, chosen, strict=True)]
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
        cross = np.asarray((paired.target.T @ x)).T  # x is centred within groups, so the target need not be
        found = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(2), cross)
        self.get_buffer("within").copy_(torch.from_numpy(found.astype(np.float32)))


class Auto(CrossModalModel):
    """An ensemble of unlike parts, each weighted by stacked regression on the validation cells."""

    name = "auto"
    summary = "Default: groups, networks and PLS, weighted by validation; levels and cell states in one output."
    source = "this project; stacking after Breiman 1996, naive Bayes groups, mixup after Zhang et al. 2018"
    Settings = AutoSettings
    min_cells = 20
    min_pairs = 20
    settings: AutoSettings

    def __init__(self, settings: AutoSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        self.states = nn.ModuleDict({m: States(modality) for m, modality in vocabulary.modalities.items()})
        self.ways = nn.ModuleDict({f"{s}_{t}": Direction(settings, vocabulary, s, t) for s, t in self.directions()})
        self.train_cells: Cells | None = None
        self.held: dict[tuple[str, str], tuple[Cells, Array]] = {}

    def prepare(self, cells: Cells) -> None:
        self.train_cells = cells
        for state in self.states.values():
            state.prepare(cells)
        for s, t in self.learned(cells):
            both, way = cells.having(s, t), self.ways[f"{s}_{t}"]
            way.prepare(both)
            way.space = self._space(both, way)
            log.info("%s -> %s: groups are found in the state of %s", s, t, " and ".join(way.space))

    def _states(self, cells: Cells, space: tuple[str, ...]) -> Array:
        return np.concatenate([self.states[m].of(cells).numpy() for m in space], 1)

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
        groups.fit(pair[0], groups.choose(*pair))
        true = held.values(way.target.name)
        stack = Stacking(true.var(0).astype(np.float64), 1)
        values = sparse_values(held, way.target.name)
        mean = np.asarray(values.mean(0)).ravel()
        for start in range(0, len(held), CHUNK):
            batch = held.batch(slice(start, start + CHUNK))
            out = groups(batch)
            if way.binary:
                out = out * torch.expm1(way.depth(batch))[:, None]
            stack.add([out.numpy() - mean], true[start : start + CHUNK] - mean)
        return float(stack.with_truth[0] / np.sqrt(max(stack.gram[0, 0], 1e-12)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for s, t in self.directions():
            way = self.ways[f"{s}_{t}"]
            rows = (batch.present[s] & batch.present[t]).nonzero().ravel()
            if not way.space or len(rows) < 2 or not len(way.nets):
                continue
            both = batch if len(rows) == len(batch) else batch.rows(rows)
            with torch.no_grad():
                depth = way.depth.standard(both)
                state = torch.cat([self.states[m](self._raw(both, m)) for m in way.space], 1)
                similar = state @ state.T
            for i, net in enumerate(way.nets):
                terms[f"{s}_to_{t}_{i}"] = net.loss(both, depth, similar)
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
            self._finish(self.ways[f"{s}_{t}"], train.having(s, t), held.having(s, t) if held is not None else None)
        self.train_cells = None

    def _finish(self, way: Direction, train: Cells, held: Cells | None) -> None:
        """Choose on ``held`` cells with parts that were fitted without them, then fit the closed forms to all cells."""
        s, t = way.source.name, way.target.name
        states = self._states(train, way.space)
        if held is None or not len(held):
            chosen = [g.choose(*[Paired.of(train, way.source, way.target, states)] * 2) for g in way.groups]
            way.fit_closed(train, states, chosen)
            return
        own = self._states(held, way.space)
        paired = [Paired.of(c, way.source, way.target, x) for c, x in ((train, states), (held, own))]
        chosen = [groups.choose(*paired) for groups in way.groups]
        way.fit_closed(train, states, chosen)
        self._weigh(way, held)
        self.held[s, t] = super().calibration(held, s, t, torch.device("cpu"))
        weights = [round(float(w), 2) for w in way.get_buffer("weights")]
        log.info("%s -> %s: %s, weights %s", s, t, chosen, weights)
        way.fit_closed(joined(train, held), np.concatenate([states, own]), chosen)

    def _weigh(self, way: Direction, held: Cells) -> None:
        weights = way.get_buffer("weights")
        found = self._stacked(way, held).weights(weights.numpy().astype(np.float64))
        weights.copy_(torch.from_numpy(found.astype(np.float32)))

    def _stacked(self, way: Direction, held: Cells) -> Stacking:
        """How the parts go with the truth in ``held``."""
        t = way.target.name
        values = sparse_values(held, t)
        mean = way.get_buffer("mean").numpy()
        square = values.multiply(values).mean(0) if hasattr(values, "multiply") else np.square(values).mean(0)
        variance = np.asarray(square).ravel() - np.square(np.asarray(values.mean(0)).ravel())
        stack = Stacking(variance.astype(np.float64), len(way.get_buffer("weights")))
        for start in range(0, len(held), CHUNK):
            batch = held.batch(slice(start, start + CHUNK))
            stack.add([p.numpy() for p in way.parts(batch)], batch.values[t].numpy() - mean)
        return stack

    def calibration(self, held: Cells, source: str, target: str, device: torch.device) -> tuple[Cells, Array]:
        """Of the validation cells: what was predicted before the groups were fitted to them as well."""
        return self.held.get((source, target)) or super().calibration(held, source, target, device)

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        out: Tensor = self.ways[f"{source}_{target}"](batch)
        return out
