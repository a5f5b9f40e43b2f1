"""From probabilities to what a cell is called: its best candidate, a more general term, or nothing.

A cell that is unlike every type trained on is called nothing.  Else the best candidate is the call where its probability
reaches the threshold; else the lowest common ancestor of the best two, three, ... candidates, as soon as the candidates that
are a kind of it have that probability together.  Where that ends at terms that say no more than that it is a cell, the cell
is called nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields

if TYPE_CHECKING:
    from xmodal.annotating.candidates import Candidates, Family

TOP = 3  # candidates that are kept of each cell
NOVEL, UNDECIDED, EMPTY = "novel", "undecided", "empty"  # why a cell is called nothing
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]
Strings = npt.NDArray[Any]


@dataclass(frozen=True)
class Rule:
    """``least``: probability of a call; ``reject``: value of ``known`` below which a cell is of no type trained on.

    With ``least`` 0 nothing is rejected: every cell gets its best candidate.
    """

    least: float
    reject: float


@dataclass(frozen=True)
class Calls:
    """What cells are called, (cells,) each.

    ``term``: an id, or "unknown"; ``score``: probability of the term, of the best candidate where that is unknown;
    ``status``: assigned, coarse, unknown; ``why``: of the unknown ones.  ``best``, ``probability``: the best candidates' places
    and probabilities, (cells, TOP or all there are).
    """

    term: Strings
    score: Floats
    status: Strings
    why: Strings
    best: Index
    probability: Floats

    def __len__(self) -> int:
        return len(self.term)

    @property
    def margin(self) -> Floats:
        """Probability of the best candidate less that of the second."""
        found: Floats = self.probability[:, 0] - self.probability[:, 1]
        return found


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities of the candidates, (cells, candidates), each row summing to one."""
    shifted = logits.astype(np.float64)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    found: Floats = shifted / shifted.sum(1, keepdims=True)
    return found


def decide(probability: Floats, known: Floats, empty: Bools, names: tuple[Candidates, Family], rule: Rule) -> Calls:
    """Calls of cells by ``probability`` (cells, candidates); ``known``: 0 to 1, (cells,); ``empty``: without counts, (cells,)."""
    candidates, family = names
    # Equal probabilities go by the order of the candidates, not by that of a sort.
    best = np.argsort(-probability, axis=1, kind="stable")[:, :TOP]
    first = np.take_along_axis(probability, best, 1)
    term = np.array([candidates.ids[i] for i in best[:, 0]], object)
    score = first[:, 0].copy()
    status = np.full(len(term), fields.ASSIGNED, object)
    why = np.full(len(term), "", object)
    novel = (known < rule.reject) & (rule.least > 0)
    for cell in np.flatnonzero(~novel & ~empty & (score < rule.least)):
        found, share = coarser(probability[cell], family, rule.least)
        if found is None:
            why[cell] = UNDECIDED
        else:
            term[cell], score[cell], status[cell] = found, share, fields.COARSE
    why[novel] = NOVEL
    why[empty] = EMPTY
    nothing = why != ""
    term[nothing], status[nothing] = fields.UNKNOWN, fields.UNKNOWN
    return Calls(term, score, status, why, best, first)


def coarser(probability: Floats, family: Family, least: float) -> tuple[str | None, float]:
    """The lowest common ancestor of the best candidates that has at least this probability, and that; None, 0 without one.

    ``probability``: (candidates,).
    """
    order = np.argsort(-probability, kind="stable")
    shared = family.above[order[0]].copy()
    for candidate in order[1:]:
        shared &= family.above[candidate]
        if not shared.any():
            break
        term = family.specific[shared[family.specific]][0]
        share = float(probability[family.above[:, term]].sum())
        if share >= least:
            return family.terms[term], share
    return None, 0.0


def joined(parts: list[Calls]) -> Calls:
    """Calls of one batch after the other."""
    names = ("term", "score", "status", "why", "best", "probability")
    return Calls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
