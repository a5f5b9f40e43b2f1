"""What a model knows of texts: those of the types it was trained on, how near another text is, and when that is too far.

Two limits, found from the texts of the training types alone, each left out in turn.  *Extrapolating*: below it a text is
further from all training types than other wordings of theirs are.  *Outside*: below it a text is further from all training
types than nearly every one of them is from the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xmodal.models.parts import type_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmodal.text.bank import TextBank

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
FEWEST = 3  # described types below which those without a definition count for the limit as well
RARE_TYPE = 0.05  # share of the training types that may be further from the others than the limit
RARE_WORDING = 0.1  # share of the wordings of training types that may be taken for those of another
SAME = 0.999  # cosine of texts that are one text
TEMPERATURE = 0.05  # of cosines: a type that is .1 further away has an eighth of the weight
NEAR, FLAT = 0.25, 0.1  # share of nearness in a guess, and its temperature; the rest is ridge, which also extrapolates


@dataclass(frozen=True, eq=False)
class KnownTexts:
    """``ids``: the types, sorted; ``views``: (views, types, width), rows of length 1; ``described`` (types,): defined.

    ``lines`` (types, ids of the bank): ancestors by what they say, rows of length 1, or 0 for a type without a term.
    """

    ids: tuple[str, ...]
    views: Floats
    described: npt.NDArray[np.bool_]
    lines: Floats

    @classmethod
    def of(cls, bank: TextBank, ids: Sequence[str]) -> KnownTexts:
        from xmodal.models.parts.text_scores import Kernel
        from xmodal.text.bank import VIEWS

        rows = bank.rows(ids)
        described = np.array([bool(bank.ontology.terms[i].definition) for i in ids], bool)
        views = np.stack([bank.embeddings[view][rows] for view in VIEWS])
        return cls(tuple(ids), views, described, Kernel.of(bank, ids).lines.numpy())

    @cached_property
    def centres(self) -> Floats:
        """One text for each type: the mean of its views, (types, width), rows of length 1."""
        return unit(self.views.mean(0))

    def cosines(self, text: Floats) -> Array:
        """Cosine of ``text`` (width,) with the nearest view of each type, (types,)."""
        found: Array = (self.views.astype(np.float64) @ text.astype(np.float64)).max(0)
        return found

    @cached_property
    def extrapolating(self) -> float:
        """The cosine that nine of ten wordings of the training types have to another wording of the same type.

        Each view is left out in turn and compared with the other views of its type; views that say the same (a term without
        synonyms, a label) do not count.
        """
        views, n = self.views.astype(np.float64), len(self.views)
        each = np.einsum("atw,btw->tab", views, views)
        each[:, range(n), range(n)] = 1
        each[each > SAME] = -1
        found = each.max(2).ravel()
        found = found[found > -1]
        return float(np.quantile(found, RARE_WORDING)) if len(found) else float(np.max(self._nearest_others))

    @cached_property
    def _nearest_others(self) -> Array:
        """Cosine of each type, left out, with the nearest view of another type, (types,)."""
        each = self.views.astype(np.float64) @ self.centres.astype(np.float64).T  # (views, types, types)
        nearest = each.max(0)
        np.fill_diagonal(nearest, -1)
        found: Array = nearest.max(0)
        return found

    @cached_property
    def outside(self) -> float:
        """The cosine to the nearest other type that all but a twentieth of the training types have."""
        some = self.described if self.described.sum() >= FEWEST else np.ones_like(self.described)
        return float(min(np.quantile(self._nearest_others[some], RARE_TYPE), self.extrapolating))

    def near(self, text: Floats) -> Array:
        """Shares of the types by how near they are, (types,), summing to 1."""
        cosines = self.cosines(text)
        weight = np.exp((cosines - cosines.max()) / TEMPERATURE)
        found: Array = weight / weight.sum()
        return found

    @cached_property
    def likeness(self) -> Array:
        """How alike types are by what is written of them, (types, types): half their texts, half their ancestors."""
        return self._like(self.centres, self.lines)

    def _like(self, texts: Floats, lines: Floats) -> Array:
        """Likeness of ``texts`` (terms, width) with ancestors ``lines`` (terms, ids) to the types, (terms, types)."""
        found: Array = (texts.astype(np.float64) @ self.centres.T + lines.astype(np.float64) @ self.lines.T) / 2
        return found

    def mixed(self, text: Floats, line: Floats | None = None) -> Array:
        """Weights of the types for a text that is of none of them, (types,), summing to 1; some are negative.

        A quarter as near the types are, the rest kernel ridge regression by texts and ancestors, ``line`` (ids,); by texts alone
        where the text is no term.
        """
        if line is None:
            texts = self.centres.astype(np.float64)
            among, towards = texts @ texts.T, texts @ text.astype(np.float64)
        else:
            among, towards = self.likeness, self._like(text[None], line[None])[0]
        near = np.exp((towards - towards.max()) / FLAT)
        found: Array = NEAR * near / near.sum() + (1 - NEAR) * type_means.ridge(among, towards)
        return found


@dataclass(frozen=True)
class Wanted:
    """What to generate: ``text`` (width,) of length 1; ``shares`` of the training types in it, (types,), summing to 1.

    ``mixed`` (types,): the cells are of one type that was never seen, whose profile is mixed from these with such weights.
    """

    text: Floats
    shares: Array
    mixed: Array | None = None

    @property
    def extrapolated(self) -> bool:
        return self.mixed is not None


def unit(rows: Floats) -> Floats:
    """The rows at length 1."""
    found: Floats = (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
    return found
