"""What cells may be called: ids of the bank, checked one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.annotating.settings import ALL, GIVEN, SEEN
from xmodal.errors import InputRefused
from xmodal.text.ontology import ID, NOT_FOR_ANNOTATION, PSEUDO, ROOT

if TYPE_CHECKING:
    from xmodal.annotating.settings import AnnotateSettings
    from xmodal.text.ontology import Ontology

TOO_GENERAL = (ROOT, *NOT_FOR_ANNOTATION)  # say of a cell that it is one
HEADS = ("id", "term", fields.TERM)  # first line of a file that is a table
FORMS = f"give {SEEN}, {ALL}, a file with an id in each line, or ids with commas between them (CL:0000084,CL:0000236)"


@dataclass(frozen=True)
class Candidates:
    """``ids``: sorted; ``kind``: seen, all or given; ``root``: above all of them, where they are all of it."""

    ids: tuple[str, ...]
    kind: str
    root: str = ""


@dataclass(frozen=True)
class Family:
    """Which terms stand above which candidates, those that are too general to say anything left out.

    ``terms``: sorted; ``above``: (candidates, terms), a candidate being above itself; ``depth``: (terms,).
    """

    terms: tuple[str, ...]
    above: npt.NDArray[np.bool_]
    depth: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ontology: Ontology, candidates: tuple[str, ...]) -> Family:
        lines = [ontology.ancestors(c, itself=True) - set(TOO_GENERAL) for c in candidates]
        terms = tuple(sorted(frozenset().union(*lines)))
        place = {term: i for i, term in enumerate(terms)}
        above = np.zeros((len(candidates), len(terms)), bool)
        for row, line in enumerate(lines):
            above[row, [place[t] for t in line]] = True
        return cls(terms, above, np.array([ontology.depth(t) for t in terms], np.int64))

    @cached_property
    def specific(self) -> npt.NDArray[np.int64]:
        """Places of the terms, the deepest first; of several the first by id, as ``Ontology.common_ancestor`` has it."""
        return np.lexsort([np.arange(len(self.terms)), -self.depth])


def chosen(settings: AnnotateSettings, ontology: Ontology, seen: tuple[str, ...]) -> Candidates:
    """The candidates asked for; ``seen``: the types trained on.

    Raises :class:`InputRefused` for ids that do not exist, are obsolete (the replacement is named) or no annotation, and
    where fewer than two are left.
    """
    if settings.candidates == SEEN:
        return _several(Candidates(tuple(sorted(seen)), SEEN))
    if settings.candidates == ALL:
        return _under(settings.root, ontology, seen)
    given = Path(settings.candidates)
    from_file = given.is_file()
    texts = _lines(given) if from_file else _listed(settings.candidates)
    where = f"--candidates {given.name}" if from_file else "--candidates"
    return _several(Candidates(_checked(texts, ontology, where), GIVEN))


def _under(root: str | None, ontology: Ontology, seen: tuple[str, ...]) -> Candidates:
    """All terms below ``root`` and itself; without one below what all types trained on are, and types without a term."""
    terms = [t for t in seen if not t.startswith(PSEUDO)]
    extra: tuple[str, ...] = ()
    if root is None:
        if not terms:
            raise InputRefused(
                "no type that the model was trained on has a term of the Cell Ontology",
                where=f"--candidates {ALL}",
                do="give --root, the term under which all are candidates",
            )
        root = ontology.common_ancestor(terms)
        extra = tuple(t for t in seen if t.startswith(PSEUDO))
    (root,) = _checked([root], ontology, "--root", whole=False)
    below = [t for t in ontology.descendants(root) if t not in TOO_GENERAL]
    return _several(Candidates(tuple(sorted({*below, *extra})), ALL, root), f"--root {root}")


def _lines(path: Path) -> list[str]:
    """The first field of each line; empty lines and comments are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(
            f"cannot be read as text ({error})", where=f"--candidates {path.name}", do="give an id in each line"
        ) from None
    first = [line.split("\t")[0].strip() for line in text.splitlines()]
    kept = [line for line in first if line and not line.startswith("#")]
    return kept[1:] if kept and kept[0].lower() in HEADS else kept


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not any(ID.fullmatch(p) or p.startswith(PSEUDO) for p in parts):
        raise InputRefused(f"'{text}' is neither a file that is there nor ids", where="--candidates", do=FORMS)
    return parts


def _checked(texts: Iterable[str], ontology: Ontology, where: str, whole: bool = True) -> tuple[str, ...]:
    """Sorted ids, each once; ``whole``: terms that may not be annotations are refused."""
    found = set()
    for text in texts:
        known = ID.fullmatch(text)
        try:
            term = ontology[f"CL:{known[1]}" if known else text]
        except InputRefused as refused:
            raise refused.at(where) from None
        if whole and term.id in NOT_FOR_ANNOTATION:
            raise InputRefused(
                f"{term.id} ({term.name}) is too general to be an annotation (CELLxGENE forbids it)",
                where=where,
                do="leave it out",
            )
        found.add(term.id)
    return tuple(sorted(found))


def _several(found: Candidates, where: str = "--candidates") -> Candidates:
    if len(found.ids) < 2:
        only = f"only one candidate ({found.ids[0]})" if found.ids else "no candidate"
        raise InputRefused(
            f"there is {only}; a probability needs two", where=where, do="give more candidates, or a term further up"
        )
    return found
