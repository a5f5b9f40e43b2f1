"""The model over all cells, batch by batch: probabilities to calls, sums of clusters, genes that made the calls.

Probabilities of thousands of candidates for a million cells would fill any memory; only what is said of a cell is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch

from xmodal import fields, memory
from xmodal.annotating import decisions
from xmodal.data.on_disk import entries
from xmodal.embedding.latents import streamed
from xmodal.errors import NotApplicable

if TYPE_CHECKING:
    from xmodal.annotating.annotator import Annotator
    from xmodal.annotating.candidates import Candidates, Family
    from xmodal.annotating.clusters import Clusters, Embed
    from xmodal.annotating.decisions import Calls, Rule
    from xmodal.data.batches import Batch, Cells
    from xmodal.models.base import CrossModalModel

log = logging.getLogger(__name__)
GENES = 5  # of each cell
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass
class Made:
    """What made the calls: ``total``: sum of the contributions of each gene over the cells of a call, (genes,), by term.

    ``first``: the genes that count most for each cell, (cells, GENES), -1 where fewer speak for the call; None where the
    model cannot say.
    """

    total: dict[str, Floats] = field(default_factory=dict)
    first: Index | None = None


@dataclass(frozen=True)
class Scored:
    """``known``: (cells,); ``votes``: calls of the clusters, in the order of their codes, None without clusters."""

    calls: Calls
    known: Floats
    made: Made
    votes: Calls | None


def embedding(model: Annotator, cells: Cells, how: tuple[torch.device, list[str]]) -> Embed:
    """What gives the joint embedding of any of the cells, batch by batch, (cells, width); ``how`` = (device, shared)."""

    def work(batch: Batch, rows: int) -> memory.Arrays:
        return (model.embed(batch.to(how[0]))[:rows].float().cpu().numpy(),)

    def embed(rows: Index) -> Iterator[npt.NDArray[np.float32]]:
        for (found,) in streamed(_module(model), cells, rows, how, work, "embedded"):
            yield found

    return embed


def _module(model: Annotator) -> CrossModalModel:
    return cast("CrossModalModel", model)


def scored(
    model: Annotator,
    cells: Cells,
    names: tuple[Candidates, Family],
    rule: Rule,
    clusters: Clusters | None,
    how: tuple[torch.device, list[str]],
) -> Scored:
    """Calls of all cells, and of clusters by the means over their cells; ``how`` = (device, shared modalities)."""
    candidates = names[0].ids
    empty = np.sum([entries(cells.counts[m]) for m in how[1]], axis=0) == 0
    explained = _Explained(model, candidates)
    votes = _Votes(len(clusters.names), len(candidates)) if clusters is not None else None
    calls, known, first, at = [], [], [], 0

    def work(batch: Batch, rows: int) -> memory.Arrays:
        moved = batch.to(how[0])
        logits, novelty = model.scores(moved, candidates), model.known(moved)
        return tuple(v[:rows].float().cpu().numpy() for v in (logits, novelty, *explained(moved)))

    for logits, here, *genes in streamed(_module(model), cells, np.arange(len(cells)), how, work, "annotated"):
        rows = slice(at, at := at + len(logits))
        probability = decisions.softmax(logits)
        calls.append(decisions.decide(probability, here.astype(np.float64), empty[rows], names, rule))
        known.append(here.astype(np.float64))
        if votes is not None and clusters is not None:
            votes.add(clusters.codes[rows], probability, known[-1], empty[rows])
        if genes:
            first.append(explained.add(genes[0], calls[-1]))
    made = Made(explained.total, np.concatenate(first) if first else None)
    voted = votes.calls(names, rule) if votes is not None else None
    return Scored(decisions.joined(calls), np.concatenate(known), made, voted)


class _Votes:
    """Means over the cells of each cluster; cells without counts do not vote."""

    def __init__(self, clusters: int, candidates: int) -> None:
        self.probability = np.zeros((clusters, candidates))
        self.known = np.zeros(clusters)
        self.cells = np.zeros(clusters)

    def add(self, codes: Index, probability: Floats, known: Floats, empty: npt.NDArray[np.bool_]) -> None:
        able = (codes >= 0) & ~empty
        np.add.at(self.probability, codes[able], probability[able])
        np.add.at(self.known, codes[able], known[able])
        np.add.at(self.cells, codes[able], 1)

    def calls(self, names: tuple[Candidates, Family], rule: Rule) -> Calls:
        many = np.maximum(self.cells, 1)
        return decisions.decide(self.probability / many[:, None], self.known / many, self.cells == 0, names, rule)


class _Explained:
    """Contributions of the genes to the best candidate's score (gradient x input), and their sums by call."""

    def __init__(self, model: Annotator, candidates: tuple[str, ...]) -> None:
        self.model, self.candidates = model, candidates
        self.able = True
        self.total: dict[str, Floats] = {}

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """(cells, genes), or nothing where the model cannot say."""
        if not self.able:
            return ()
        try:
            with torch.set_grad_enabled(True):
                return (self.model.explain(batch, self.candidates).detach(),)
        except NotApplicable as why:
            log.info("genes that made the calls are not known: %s", why)
            self.able = False
            return ()

    def add(self, contributions: npt.NDArray[np.float32], calls: Calls) -> Index:
        """Add to the sums; the genes that count most for each cell, (cells, GENES), -1 where none speaks for the call."""
        for term in dict.fromkeys(calls.term[calls.status != fields.UNKNOWN]):
            own = contributions[calls.term == term].sum(0, dtype=np.float64)
            self.total[term] = self.total.get(term, 0.0) + own
        return strongest(contributions, GENES)


def strongest(contributions: npt.NDArray[np.float32], most: int) -> Index:
    """The genes with the greatest contributions above zero, greatest first, (cells, most); -1 where there are no more."""
    most = min(most, contributions.shape[1])
    some = np.sort(np.argpartition(-contributions, most - 1, axis=1)[:, :most], axis=1)
    values = np.take_along_axis(contributions, some, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    found = np.where(values > 0, some, -1)
    return np.take_along_axis(found, order, 1).astype(np.int64)
