"""The Cell Ontology: its terms, who is a kind of whom, and how far two terms lie apart.

Source: Diehl et al. 2016, The Cell Ontology 2016 (J Biomed Semantics 7:44).  No reasoner is run: the hierarchy is what the
file says (`is_a`, and the genus of logical definitions).
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from xmodal.errors import InputRefused

log = logging.getLogger(__name__)
ROOT = "CL:0000000"  # cell
PSEUDO = "label:"  # before a label that has no term, where an id is asked for
# The CELLxGENE schema does not take these as annotations: eukaryotic cell, Eumycetozoan cell, animal cell.
NOT_FOR_ANNOTATION = ("CL:0000255", "CL:0000257", "CL:0000548")
ID = re.compile(r"CL[:_](\d{7})", re.IGNORECASE)
PART = re.compile(r"(cytoplasm|nucleus|chromatin|_part|_completed)$")  # how terms of CL end that are no cells
SHOWN = 5


@dataclass(frozen=True)
class Term:
    """One term.  ``synonyms``: exact ones; ``parents``: direct, live; ``replaced_by``, ``consider``: of an obsolete one."""

    id: str
    name: str
    definition: str = ""
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    obsolete: bool = False
    replaced_by: str = ""
    consider: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ontology:
    """Terms by id, live and obsolete; ``version`` as the file says it, ``source``: its name, no path."""

    terms: dict[str, Term]
    version: str
    source: str

    def __contains__(self, term: object) -> bool:
        """Is it the id of a live term?"""
        return term in self.terms and not self.terms[str(term)].obsolete

    def __iter__(self) -> Iterator[str]:
        """Ids of the live terms, sorted."""
        return iter(self.live)

    def __len__(self) -> int:
        return len(self.live)

    @cached_property
    def live(self) -> tuple[str, ...]:
        return tuple(sorted(t.id for t in self.terms.values() if not t.obsolete))

    def __getitem__(self, term: str) -> Term:
        """The live term of this id.  :class:`InputRefused` for one that is unknown (near ones are named) or obsolete."""
        found = self.terms.get(term)
        if found is None:
            raise InputRefused(f"there is no term '{term}' in {self.title}", do=self._near(term))
        if found.obsolete:
            raise InputRefused(f"term {term} ({found.name}) is obsolete in {self.title}", do=self._instead(found))
        return found

    @property
    def title(self) -> str:
        """Source and version, for messages."""
        return f"{self.source} ({self.version})" if self.version else self.source

    def find(self, text: str) -> str | None:
        """The live term with this id, name or exact synonym, in whichever case; None where there is none, or several."""
        if is_id := ID.fullmatch(text.strip()):
            known = f"CL:{is_id[1]}"
            return known if known in self else None
        if text in self:
            return text
        wanted = _plain(text)
        found = self._names.get(wanted) or self._synonyms.get(wanted) or set()
        return next(iter(found)) if len(found) == 1 else None

    def children(self, term: str) -> tuple[str, ...]:
        """Direct children, live, sorted."""
        return self._children.get(self[term].id, ())

    def ancestors(self, term: str, itself: bool = False) -> frozenset[str]:
        return frozenset(self._above(self[term].id)) - (frozenset() if itself else {term})

    def descendants(self, root: str, itself: bool = True) -> tuple[str, ...]:
        """All that are a kind of ``root``, live, sorted."""
        below, new = {self[root].id}, [root]
        while new:
            new = [child for one in new for child in self._children.get(one, ()) if child not in below]
            below.update(new)
        return tuple(sorted(below - (set() if itself else {root})))

    def distance(self, a: str, b: str) -> int:
        """Edges from ``a`` to ``b`` over the common ancestor that makes the way shortest; terms without one meet at the root."""
        ways = [self._to_root(self._above(self[t].id)) for t in (a, b)]
        return min(edges + ways[1][t] for t, edges in ways[0].items() if t in ways[1])

    def common_ancestor(self, terms: Iterable[str]) -> str:
        """The deepest term that is, or is above, each of ``terms``; of several the first by id; the root where there is none."""
        shared = frozenset.intersection(*(self.ancestors(t, itself=True) for t in terms))
        return min(shared, key=lambda t: (-self.depth(t), t), default=ROOT)

    def depth(self, term: str) -> int:
        """Edges of the longest way from the root; 0 for a term that has no parents."""
        return self._depths[self[term].id]

    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = defaultdict(list)
        for child in self.live:
            for parent in self.terms[child].parents:
                found[parent].append(child)
        return {parent: tuple(children) for parent, children in found.items()}

    @cached_property
    def _names(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for one in self.live:
            found[_plain(self.terms[one].name)].add(one)
        return dict(found)

    @cached_property
    def _synonyms(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for one in self.live:
            for synonym in self.terms[one].synonyms:
                found[_plain(synonym)].add(one)
        return dict(found)

    def _above(self, term: str) -> dict[str, int]:
        """The term and its ancestors, each with the edges of the shortest way; a circle ends where it began."""
        edges, new = {term: 0}, [term]
        while new:
            above = {parent: edges[one] + 1 for one in new for parent in self.terms[one].parents}
            new = [parent for parent in above if parent not in edges]
            edges.update((parent, above[parent]) for parent in new)
        return edges

    def _to_root(self, edges: dict[str, int]) -> dict[str, int]:
        """With the root, one edge above the topmost, where the terms do not lead there."""
        if ROOT in edges:
            return edges
        tops = [n for t, n in edges.items() if not self.terms[t].parents]
        return {**edges, ROOT: 1 + min(tops, default=max(edges.values()))}

    @cached_property
    def _depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        for term in self._parents_first():
            known = [depths[p] for p in self.terms[term].parents if p in depths]  # not: one that closes a circle
            depths[term] = 1 + max(known, default=-1)
        return depths

    def _parents_first(self) -> Iterator[str]:
        """Live terms such that each comes after its parents, except where they go round in a circle."""
        begun: set[str] = set()
        for start in self.live:
            ways = [(start, iter(self.terms[start].parents))] if start not in begun else []
            begun.add(start)
            while ways:
                following = next((p for p in ways[-1][1] if p not in begun), None)
                if following is None:
                    yield ways.pop()[0]
                else:
                    begun.add(following)
                    ways.append((following, iter(self.terms[following].parents)))

    def _near(self, term: str) -> str:
        named = {_plain(self.terms[t].name): t for t in self.live}
        if term in named or self.find(term):
            found = self.find(term)
            return f"give the id: {found}" if found else "give the id"
        if is_id := ID.fullmatch(term):
            close = get_close_matches(f"CL:{is_id[1]}", self.live, 3, 0.85)  # one digit is wrong, or two changed places
        else:
            close = [named[n] for n in get_close_matches(_plain(term), named, 3)]
        shown = ", ".join(f"{t} ({self.terms[t].name})" for t in close)
        return f"did you mean {shown}?" if shown else "give an id as CL:0000084, of this release of the ontology"

    def _instead(self, term: Term) -> str:
        known = [now for t in (term.replaced_by, *term.consider) if (now := self._now(t))]
        shown = " or ".join(f"{t} ({self.terms[t].name})" if t in self.terms else t for t in dict.fromkeys(known))
        return f"use {shown}" if shown else "give the term that fits now; this release names none in its place"

    def _now(self, term: str) -> str:
        """The term, or what replaces it where it is obsolete as well; "" where nothing does."""
        seen: set[str] = set()
        while term in self.terms and self.terms[term].obsolete and term not in seen:
            seen.add(term)
            term = self.terms[term].replaced_by
        return "" if term in seen else term


def _plain(text: str) -> str:
    """As names are compared: in lower case, blanks as one."""
    return " ".join(text.casefold().split())


def cells_only(terms: Iterable[Term], version: str, source: str) -> Ontology:
    """An ontology of the Cell Ontology's terms that are cells, and of the obsolete ones, which name what replaces them.

    Left out are terms of other ontologies, parts of cells, and parents that are not there or obsolete.  Where the root is
    there, terms without a parent are its children.  Circles stay, and are said.
    """
    found = {t.id: t for t in sorted(terms, key=lambda t: (t.id, not t.obsolete)) if t.id.startswith("CL:")}
    live = {t.id for t in found.values() if not t.obsolete}
    if not live:
        raise InputRefused("no term of the Cell Ontology (CL:...) is in it", where=source, do="give --ontology cl.obo")
    parts = sorted(_parts({t: found[t] for t in live}))
    if parts:
        shown = ", ".join(f"{t} {found[t].name}" for t in parts[:SHOWN])
        log.info("%s: %d terms that are no cells are left out (%s)", source, len(parts), shown)
    live -= set(parts)
    kept = {t: _with_parents(one, live) for t, one in found.items() if t in live or one.obsolete}
    ontology = Ontology(kept, version, source)
    circle = [t for t in ontology.live if any(t in ontology._above(p) for p in kept[t].parents)]
    if circle:
        log.warning("%s: %s are kinds of each other", source, ", ".join(circle[:SHOWN]))
    return ontology


def _parts(terms: dict[str, Term]) -> set[str]:
    """Of live ``terms`` those that are no cells: kinds only of what other ontologies have, or called as a part of a cell."""
    whole = Ontology({t: _with_parents(one, terms) for t, one in terms.items()}, "", "")
    tops = [t for t in terms if t != ROOT and set(whole.terms[t].parents) <= {ROOT}]
    foreign = {t for t in tops if any(not p.startswith("CL:") for p in terms[t].parents)}
    parts = {t for t in tops if ROOT not in terms[t].parents and (t in foreign or PART.search(terms[t].name))}
    cells = {t for top in tops if top not in parts for t in whole.descendants(top)}
    below = {t for part in parts for t in whole.descendants(part)}
    return below - cells


def _with_parents(term: Term, live: Collection[str]) -> Term:
    """The term with parents that are ``live``; the root, where it has none."""
    parents = {p for p in term.parents if p in live and p != term.id}
    if not parents and ROOT in live and term.id != ROOT:
        parents = {ROOT}
    return Term(
        term.id,
        term.name.strip() or term.id,
        " ".join(term.definition.split()),
        term.synonyms,
        () if term.obsolete else tuple(sorted(parents)),
        *(term.obsolete, term.replaced_by, term.consider),
    )


def read(path: Path | None) -> Ontology:
    """The ontology of a file (.tsv, .obo, .owl, each also .gz); None: the release that cellxgene-ontology-guide carries.

    Raises :class:`InputRefused` where the file is none, or the package is not installed.
    """
    from xmodal.text import ontology_files

    return ontology_files.of_package() if path is None else ontology_files.of_file(path)
