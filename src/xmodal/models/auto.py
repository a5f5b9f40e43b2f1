"""The default: groups of cells, small networks and ridge regression, each weighted by what it is worth on held-out cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.data.batches import Batch, Cells, joined
from xmodal.data.shuffling import LARGE
from xmodal.models.base import CrossModalModel, GradientSettings
from xmodal.models.parts.blending import Stacking
from xmodal.models.parts.direction import Direction
from xmodal.models.parts.groups import Groups, Paired
from xmodal.models.parts.nets import neighbours
from xmodal.models.parts.sparse import sparse_values, variances
from xmodal.models.parts.states import States
from xmodal.scores.metrics import Matrix, feature_pearson

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float32]
CHUNK = 256
SMALLEST_BATCH, STEPS = 16, 24  # cells; steps an epoch should have
SLOW = 0.5  # of the learning rate, for networks that predict shares
BETTER = 1.02  # states of both modalities are used where they explain so much more than those of one


def held(cells: Cells) -> Cells:
    """The cells in memory, as many of them as what is fitted in closed form may hold (1 GB of counts)."""
    entries = cells.entries
    if entries.sum() <= LARGE:
        return cells.in_memory()
    order = np.random.default_rng(0).permutation(len(cells))
    most = int((np.cumsum(entries[order]) <= LARGE).sum())
    log.info("groups, ridge and depth are fitted to %d of %d cells; networks learn from all", most, len(cells))
    return cells.subset(np.sort(order[:most])).in_memory()


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


class Auto(CrossModalModel):
    """An ensemble of unlike parts, each weighted by stacked regression on the validation cells."""

    name = "auto"
    summary = (
        "Default: groups of cells, networks and ridge, weighted by validation; levels and cell states in one output."
    )
    source = "this project; stacking after Breiman 1996, naive Bayes groups, mixup after Zhang et al. 2018"
    Settings = AutoSettings
    streams = True
    min_cells = 24
    shares = True
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
        cells = self.train_cells = held(cells)
        for m in self.vocabulary:
            self.state(m).prepare(cells)
        learned = self.learned(cells)
        for s, t in learned:
            self.way(s, t).prepare(cells.having(s, t))
        for pair in dict.fromkeys(tuple(m for m in self.vocabulary if m in way) for way in learned):
            both = cells.having(*pair)
            ways = [self.way(s, t) for s, t in learned if {s, t} == set(pair)]
            space = self._space(both, ways)
            log.info("%s and %s: groups are found in the state of %s", *pair, " and ".join(space))
            for way in ways:
                way.space = space
                way.fit_smooth(both, self._states(both, space))

    def _states(self, cells: Cells, space: tuple[str, ...]) -> Array:
        return np.concatenate([self.state(m).of(cells).numpy() for m in space], 1)

    def _space(self, cells: Cells, ways: list[Direction]) -> tuple[str, ...]:
        """In which states groups predict best, both directions of a pair together, tried on a fifth of the training cells."""
        first, second = ways[0].source.name, ways[0].target.name
        order = np.random.default_rng(0).permutation(len(cells))
        held, fit = cells.subset(np.sort(order[: len(cells) // 5])), cells.subset(np.sort(order[len(cells) // 5 :]))
        spaces = ((first,), (second,), (first, second))
        known = [{m: self.state(m).of(c).numpy() for m in (first, second)} for c in (fit, held)]
        scores = np.zeros((len(spaces), len(ways)))
        for i, space in enumerate(spaces):
            states = [np.concatenate([of[m] for m in space], 1) for of in known]
            scores[i] = [max(self._trial((fit, held), states, way), 0.0) for way in ways]
        total = scores.sum(1)
        alone = int(total[:2].argmax())
        return spaces[2] if total[2] > BETTER * total[alone] else spaces[alone]

    def _trial(self, cells: tuple[Cells, Cells], states: list[Array], way: Direction) -> float:
        """Correlation of what groups of the first ``cells`` predict for the second with the truth, over all of these."""
        held = cells[1]
        groups = Groups(way.source, way.target, self.settings.coarse, 2)
        pair = [Paired.of(c, way.source, way.target, x) for c, x in zip(cells, states, strict=True)]
        groups.fit(pair[0], groups.choose(pair[0], pair[1]))
        stack = Stacking(variances(sparse_values(held, way.target.name)), 1)
        for start in range(0, len(held), CHUNK):
            batch = held.batch(slice(start, start + CHUNK))
            true, scale = way.truth(batch)
            stack.add([(scale * (groups(batch) - way.get_buffer("mean"))).numpy()], true.numpy())
        return stack.explained() / float(np.sqrt(len(held) * len(way.target)))

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
                state = torch.cat([self.state(m)(self._raw(both.own, m)) for m in way.space], 1)
                state = ranks.gathered(state, len(both))
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
        apart = held(cells) if cells is not train and not np.isin(cells.names, train.names).any() else None
        for s, t in self.learned(train):
            self._finish(self.way(s, t), train.having(s, t), apart.having(s, t) if apart is not None else None)
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
        weights = [round(float(w), 2) for w in way.get_buffer("weights")]
        log.info("%s -> %s: %s, weights %s", s, t, chosen, weights)
        everything = joined(train, held)
        way.depth.prepare(everything)
        way.fit_closed(everything, np.concatenate([states, own]), chosen)

    def _weigh(self, way: Direction, held: Cells) -> None:
        """Weights of the parts on ``held`` cells, and the prediction of these; none of a part where it tells no feature."""
        s, t = way.source.name, way.target.name
        weights = way.get_buffer("weights")
        found = self._stacked(way, held).weights(weights.numpy().astype(np.float64))
        weights.copy_(torch.from_numpy(found.astype(np.float32)))
        self.held[s, t] = super().calibration(held, s, t, torch.device("cpu"))
        told = feature_pearson(self.held[s, t][1], Matrix(sparse_values(held, t)))
        if float(told.mean()) <= 0:
            log.warning("%s -> %s: no better than the mean, which is what will be predicted", s, t)
            weights.zero_()
            self.held[s, t] = super().calibration(held, s, t, torch.device("cpu"))

    def _stacked(self, way: Direction, held: Cells) -> Stacking:
        """How the parts go with the truth in ``held``."""
        variance = variances(sparse_values(held, way.target.name))
        stack = Stacking(variance, len(way.get_buffer("weights")))
        for start in range(0, len(held), CHUNK):
            batch = held.batch(slice(start, start + CHUNK))
            true, scale = way.truth(batch)
            stack.add([(scale * p).numpy() for p in way.parts(batch, way.depth(batch))], true.numpy())
        return stack

    def calibration(self, held: Cells, source: str, target: str, device: torch.device) -> tuple[Cells, Array]:
        """Of the validation cells: what was predicted before the groups were fitted to them as well."""
        return self.held.get((source, target)) or super().calibration(held, source, target, device)

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        out: Tensor = self.way(source, target)(batch)
        return out
