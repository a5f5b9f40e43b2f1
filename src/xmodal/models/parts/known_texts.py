"""What a model knows of texts: those of the types it was trained on, how near another text is, and when that is too far.

Two limits, found from the texts of the training types alone, each left out in turn.  *Extrapolating*: below it a text is more
like that of a type which was left out than like another wording of one that was not.  *Outside*: below it a text is further
from all training types than nearly every one of them is from the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmodal.text.bank import TextBank

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
FEWEST = 3  # described types below which those without a definition count for the limit as well
RARE = 0.05  # share of the training types that may be further from the others than the limit
TEMPERATURE = 0.05  # of cosines: a type that is .1 further away has an eighth of the weight
PENALTY = 0.3  # of the ridge from texts to types; texts have length 1


@dataclass(frozen=True, eq=False)
class KnownTexts:
    """``ids``: the types, sorted; ``views``: (views, types, width), rows of length 1; ``described`` (types,): defined."""

    ids: tuple[str, ...]
    views: Floats
    described: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, bank: TextBank, ids: Sequence[str]) -> KnownTexts:
        from xmodal.text.bank import VIEWS

        rows = bank.rows(ids)
        described = np.array([bool(bank.ontology.terms[i].definition) for i in ids], bool)
        return cls(tuple(ids), np.stack([bank.embeddings[view][rows] for view in VIEWS]), described)

    @cached_property
    def centres(self) -> Floats:
        """One text for each type: the mean of its views, (types, width), rows of length 1."""
        return unit(self.views.mean(0))

    def cosines(self, text: Floats) -> Array:
        """Cosine of ``text`` (width,) with the nearest view of each type, (types,)."""
        found: Array = (self.views.astype(np.float64) @ text.astype(np.float64)).max(0)
        return found

    @cached_property
    def _other_wordings(self) -> Array:
        """Cosine of each view of a type with the nearest other view of it, (views x types,)."""
        views, n = self.views.astype(np.float64), len(self.views)
        each = np.einsum("atw,btw->tab", views, views)
        each[:, range(n), range(n)] = -1
        found: Array = each.max(2).T.ravel()
        return found

    @cached_property
    def _left_out(self) -> Array:
        """Cosine of each view of a type with the nearest view of any other type, (views x types,)."""
        views = self.views.astype(np.float64)
        each = np.einsum("atw,bsw->atbs", views, views)
        for t in range(len(self.ids)):
            each[:, t, :, t] = -1
        found: Array = each.max((2, 3)).ravel()
        return found

    @cached_property
    def extrapolating(self) -> float:
        """The cosine that tells best (most of both) another wording of a known type from a type that was left out."""
        own, other = self._other_wordings, self._left_out
        limits = np.unique(np.concatenate([own, other]))
        right = [(own >= limit).mean() + (other < limit).mean() for limit in limits]
        return float(limits[int(np.argmax(right))])

    @cached_property
    def outside(self) -> float:
        """The cosine to the nearest other type that all but a twentieth of the training types have."""
        some = self.described if self.described.sum() >= FEWEST else np.ones_like(self.described)
        each = self.views.astype(np.float64) @ self.centres.astype(np.float64).T  # (views, types, types)
        nearest = each.max(0)
        np.fill_diagonal(nearest, -1)
        return float(min(np.quantile(nearest.max(0)[some], RARE), self.extrapolating))

    def near(self, text: Floats) -> Array:
        """Shares of the types by how near they are, (types,), summing to 1."""
        cosines = self.cosines(text)
        weight = np.exp((cosines - cosines.max()) / TEMPERATURE)
        found: Array = weight / weight.sum()
        return found

    def mixed(self, text: Floats) -> Array:
        """Weights of the types for a text that is of none of them, (types,), summing to 1; some are negative.

        Half as near the types are, half ridge regression from texts to types, which also extrapolates.
        """
        texts = self.centres.astype(np.float64)
        origin = texts.mean(0)
        away = texts - origin
        inner = away @ away.T + PENALTY * np.eye(len(texts))
        ridge = np.linalg.solve(inner, away @ (text.astype(np.float64) - origin))
        ridge = ridge - ridge.mean() + 1 / len(ridge)
        found: Array = 0.5 * self.near(text) + 0.5 * ridge
        return found


def unit(rows: Floats) -> Floats:
    """The rows at length 1."""
    found: Floats = (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
    return found
