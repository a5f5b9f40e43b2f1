"""What descriptions are scored on: the file, its sentences and evidence, and the cells that they are about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.describing.evidence import Evidence
from xmodal.describing.grounding import Sentence
from xmodal.describing.wordings import FIXED
from xmodal.errors import InputRefused
from xmodal.scores import given_results
from xmodal.scores.annotation_floors import Guess
from xmodal.scores.annotation_input import Annotation

if TYPE_CHECKING:
    from mudata import MuData

OF_GENES = ("genes", "cell_genes")  # kinds of sentences that say of genes that they are high
REMAKE = "give the descriptions.json that `xmodal describe` wrote"


@dataclass(frozen=True)
class Unit:
    """A description; ``cells``: names of those that it is about, ``cell``: the one, None where it is about a group."""

    name: str
    group: str
    cell: str | None
    cells: tuple[str, ...]
    sentences: tuple[Sentence, ...]
    evidence: tuple[Evidence, ...]

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.sentences)

    @property
    def about_type(self) -> str:
        """The sentences that say the type and what it is: all that a reference of the literature has."""
        return self._of(*FIXED)

    @property
    def about_genes(self) -> str:
        """The same and those that name genes."""
        return self._of(*FIXED, *OF_GENES)

    def _of(self, *kinds: str) -> str:
        return " ".join(one.text for one in self.sentences if one.kind in kinds)


@dataclass(frozen=True)
class Group:
    """Cells in which genes were chosen, cells in which they were tested, and the genes."""

    chosen_in: tuple[str, ...]
    tested_in: tuple[str, ...]
    genes: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """A file of descriptions; ``about``: what it says of how it was made."""

    where: str
    units: tuple[Unit, ...]
    groups: dict[str, Group]
    about: dict[str, Any]


def read_description(path: Path) -> Description:
    """Raises :class:`InputRefused` where it is no file of descriptions."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about, dict) or about.get("schema") != fields.DESCRIPTIONS_SCHEMA:
            raise InputRefused("these are no descriptions", where=str(path), do=REMAKE)
        groups = {
            str(name): Group(*(tuple(map(str, own[k])) for k in ("chosen_in", "tested_in", "genes")))
            for name, own in about.pop("groups").items()
        }
        units = tuple(_unit(one, groups) for one in about.pop("units"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputRefused("this is no file of descriptions", where=str(path), do=REMAKE) from None
    if not units:
        raise InputRefused("there is no description in it", where=str(path), do="describe cells first")
    return Description(str(path), units, groups, about)


def _unit(content: dict[str, Any], groups: dict[str, Group]) -> Unit:
    group, cell = str(content["group"]), content["cell"]
    own = groups[group]
    cells = (str(cell),) if cell is not None else (*own.chosen_in, *own.tested_in)
    sentences = tuple(Sentence.from_json(one) for one in content["sentences"])
    evidence = tuple(Evidence.from_json(one) for one in content["evidence"])
    return Unit(str(content["name"]), group, None if cell is None else str(cell), cells, sentences, evidence)


def require_checkpoint(checkpoint: Path, given: Description) -> None:
    """Refuse descriptions that another checkpoint made."""
    given_results.require_checkpoint(checkpoint, {given.where: given.about.get("checkpoint_sha256")}, "describe")


def as_annotation(given: Description, named: npt.NDArray[Any]) -> Annotation:
    """The labels that the texts name (units,), as those of the cells that they are about: cells and truth are found as there."""
    cells = [cell for unit in given.units for cell in unit.cells]
    if len(set(cells)) < len(cells):
        raise InputRefused("a cell is in two descriptions", where=given.where, do="describe again")
    called = np.repeat(named, [len(unit.cells) for unit in given.units])
    trained = given.about.get("trained") or {}
    kept = {"split": (given.about.get("settings") or {}).get("split"), "trained": trained}
    return Annotation(given.where, np.array(cells, str), Guess(called), called, about={"settings": kept})


def require_cells(mdata: MuData, given: Description) -> None:
    """Refuse a truth that lacks cells in which genes were chosen or tested."""
    there = set(mdata.obs_names.astype(str))
    missing = [c for g in given.groups.values() for c in (*g.chosen_in, *g.tested_in) if c not in there]
    if missing:
        raise InputRefused(
            f"{len(missing)} of its cells are not in the truth, first {', '.join(missing[:3])}",
            where=given.where,
            do="give the truth of the same cells, with the same cell names",
        )
    if fields.RNA not in mdata.mod:
        raise InputRefused(
            f"the truth has {', '.join(mdata.mod)}, no {fields.RNA}", where="truth", do="give RNA counts"
        )
