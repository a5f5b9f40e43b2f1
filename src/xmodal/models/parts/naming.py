"""What is chosen after the networks are trained: by types that some of them were not taught, and on validation cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xmodal import fields
from xmodal.models.parts import text_scores, type_places
from xmodal.models.parts.text_scores import Course
from xmodal.models.parts.type_places import TypePlaces, WithinTypes

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.models.scmmgpt import Read, ScMMGPT

SIGNALS = len(type_places.SIGNALS) + 1  # and how near a cell is, in what the networks are given
# The fewer types networks were taught, the less they say of others, and the more their inputs do.  Measured with 6 types, where
# weights of 1 to 4 are alike and 0 is worse, and with 15, where 0 and .5 are alike and more is worse.
FEW_TYPES, MOST_WEIGHT = 10, 4.0
MOST_OF_A_TYPE, MOST = 500, 20_000  # training cells that centres are taken from
OF_A_LEFT_OUT_TYPE = 150  # cells that a penalty is tried on
CHUNK = 256


@dataclass(frozen=True)
class Gathered:
    """What is kept of cells: ``inputs`` (cells, encoder's width), ``codes`` (cells,)."""

    inputs: Tensor
    codes: Tensor

    def rows(self, index: Tensor) -> Gathered:
        return Gathered(self.inputs[index], self.codes[index])

    def with_(self, other: Gathered) -> Gathered:
        return Gathered(torch.cat([self.inputs, other.inputs]), torch.cat([self.codes, other.codes]))


def folds(size: Tensor, count: int) -> Tensor:
    """To which fold each type belongs, (types,), -1 for one without cells; ``size``: its cells.

    Drawn once for so many types: kin fall into one fold as often as chance has it, as they do where users leave out some.
    """
    out = torch.full_like(size, -1)
    if count:
        there = size.nonzero().ravel()
        order = torch.randperm(len(there), generator=torch.Generator().manual_seed(0)).to(there)
        out[there[order]] = torch.arange(len(there), device=there.device) % count
    return out


def finish(model: ScMMGPT, fitted: Cells, held: Cells) -> None:
    """Fill the buffers of ``model``: ``fitted`` are its training cells, ``held`` cells that the weights were not fitted to."""
    fitted, held = _labelled(fitted), _labelled(held)
    train = _gathered(model, fitted.subset(_some(fitted.extra[fields.LABEL_CODE])))
    _lay(model, train)
    if not len(held):
        held = fitted
    valid = _gathered(model, held)
    if model.members.groups > 1:
        _choose_penalty(model, train, valid)
    _calibrate(model, held)
    both = train.with_(valid) if held is not fitted else train
    _lay(model, both)


def _lay(model: ScMMGPT, cells: Gathered) -> None:
    """Where the types lie: to the first ensemble, and in what it is given."""
    likeness = model.get_buffer("likeness")
    model.places.fit(model.members.place(cells.inputs), cells.codes, likeness)
    model.within.fit(cells.inputs, cells.codes)
    model.around.fit(model.within(cells.inputs), cells.codes, likeness)


def _labelled(cells: Cells) -> Cells:
    keep = (cells.extra[fields.LABEL_CODE] >= 0) & cells.present[fields.RNA]
    return cells if keep.all() else cells.subset(np.flatnonzero(keep))


def _some(codes: np.ndarray) -> np.ndarray:
    """Rows of at most so many cells of each type, sorted; the same for the same codes."""
    types = np.unique(codes)
    most = max(50, min(MOST_OF_A_TYPE, MOST // max(len(types), 1)))
    order = np.random.default_rng(0).permutation(len(codes))
    return np.sort(np.concatenate([order[codes[order] == t][:most] for t in types]))


def _batches(model: ScMMGPT, cells: Cells) -> list[Batch]:
    device = model.get_buffer("likeness").device
    return [cells.batch(slice(i, i + CHUNK)).to(device) for i in range(0, len(cells), CHUNK)]


def _gathered(model: ScMMGPT, cells: Cells) -> Gathered:
    parts = []
    for batch in _batches(model, cells):
        parts.append(model.encoder(batch, model.genes.scores(model.genes.values(batch))))
    codes = torch.from_numpy(cells.extra[fields.LABEL_CODE]).to(parts[0].device)
    return Gathered(torch.cat(parts), codes)


def _choose_penalty(model: ScMMGPT, train: Gathered, valid: Gathered) -> None:
    """The penalty on seen types with the best harmonic mean over the folds, and how sure the gate is."""
    tried = [_fold(model, group, train, valid) for group in range(1, model.members.groups)]
    courses = [Course.of(*one) for one in tried]
    penalty = text_scores.best_penalty(courses)
    ahead, seen, weight = (np.concatenate(x) for x in zip(*(_ahead(*one) for one in tried), strict=True))
    slope = text_scores.slope(ahead - penalty, seen, weight)
    model.get_buffer("chosen")[:2] = torch.tensor([penalty, slope])


def _fold(model: ScMMGPT, group: int, train: Gathered, valid: Gathered) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (cells, types), codes (cells,) and which types are known (types,), for a group that was not taught some."""
    known = model.members.get_buffer("known")[group]
    out = model.members.get_buffer("known")[0] & ~known
    likeness = model.get_buffer("likeness")
    own = train.rows(known[train.codes].nonzero().ravel())
    seen = _seen_by(model, group, own)
    places = TypePlaces(len(likeness), seen(own.inputs).shape[1]).to(likeness.device)
    places.fit(seen(own.inputs), own.codes, likeness)
    both = train.with_(valid)
    new = torch.cat([(both.codes == c).nonzero().ravel()[:OF_A_LEFT_OUT_TYPE] for c in out.nonzero().ravel()])
    cells = valid.rows(known[valid.codes].nonzero().ravel()).with_(both.rows(new))
    at = places.standard(seen(cells.inputs))
    scores = torch.full((len(at), len(likeness)), -torch.inf, device=at.device)
    scores[:, known] = places.nearness(at)[:, known]
    scores[:, out] = places.nearness(at, model.guessed(group, out, places))
    return scores.double().cpu().numpy(), cells.codes.cpu().numpy(), known.cpu().numpy()


def _seen_by(model: ScMMGPT, group: int, own: Gathered) -> Callable[[Tensor], Tensor]:
    """From the encoder's output to where cells are compared, for a group that may know the cells ``own`` alone."""
    if model.projector is not None:
        return lambda inputs: model.members.place(inputs, group)
    return WithinTypes(own.inputs.shape[1]).to(own.inputs.device).fit(own.inputs, own.codes)


def _ahead(scores: np.ndarray, codes: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By how much the nearest seen type is nearer, whether the cell is of a seen one, and the weight of the cell."""
    ahead = np.where(seen, scores, -np.inf).max(1) - np.where(seen, -np.inf, scores).max(1)
    own = seen[codes]
    size = np.bincount(codes, minlength=len(seen))[codes]
    weight = 1 / size
    weight = np.where(own, weight / weight[own].sum(), weight / max(weight[~own].sum(), 1e-9))
    return ahead, own, weight


def _calibrate(model: ScMMGPT, cells: Cells) -> None:
    """Temperature of the seen types' logits; mean and spread of the signals; where a cell is rejected."""
    named, signals = [], []
    for batch in _batches(model, cells):
        read = model.read(batch)
        named.append(model.named(read))
        signals.append(_signals(model, read, model.genes.leftover(read.scores, batch)))
    codes = torch.from_numpy(cells.extra[fields.LABEL_CODE]).to(named[0].device)
    able = model.places.get_buffer("known")[codes]
    if bool(able.any()):
        logits = torch.cat(named)[able].clamp(min=-50)
        model.get_buffer("chosen")[2] = text_scores.temperature(logits, codes[able])
    every = torch.cat(signals)
    spread = every.std(0, correction=0).clamp(min=1e-3)
    model.get_buffer("signal").copy_(torch.stack([every.mean(0), spread]))
    total = _together(model, (every - every.mean(0)) / spread)
    cut = torch.quantile(total, model.settings.reject)
    model.get_buffer("doubt").copy_(torch.stack([cut, total.std(correction=0).clamp(min=1e-3)]))


def _signals(model: ScMMGPT, read: Read, leftover: Tensor) -> Tensor:
    """(cells, signals)."""
    near = model.around.nearness(model.around.standard(model.within(read.inputs)))[:, model.around.get_buffer("known")]
    closeness = -torch.log((-near.amax(1)).clamp(min=type_places.LEAST))
    return torch.cat([model.places.signals(read.at, read.logits, leftover), closeness[:, None]], 1)


def _together(model: ScMMGPT, signals: Tensor) -> Tensor:
    """Weighted mean of standardised signals, (cells,)."""
    types = model.places.get_buffer("known").sum().clamp(min=1)
    last = ((FEW_TYPES / types) ** 2).clamp(max=MOST_WEIGHT)
    return (signals[:, :-1].sum(1) + last * signals[:, -1]) / (SIGNALS - 1 + last)


def familiarity(model: ScMMGPT, read: Read, leftover: Tensor) -> Tensor:
    """How like a cell is to those trained on, (cells,): 0 where as many known cells are less so as may be rejected."""
    mean, spread = model.get_buffer("signal")
    total = _together(model, (_signals(model, read, leftover) - mean) / spread)
    cut, unit = model.get_buffer("doubt")
    return (total - cut) / unit
