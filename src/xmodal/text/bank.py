"""All that a cell could be called, as vectors: each live term of the ontology, and labels without a term, in three views.

The views: the name; the name with the definition; the mean of the name and the exact synonyms.  What a definition says of the
species is cut: "(Mmus)" draws a text to all others of the mouse.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.errors import InputRefused
from xmodal.text.encoder import TextEncoder
from xmodal.text.ontology import PSEUDO, Ontology, Term

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
NAME, DEFINITION, SYNONYMS = "name", "definition", "synonyms"
VIEWS = (NAME, DEFINITION, SYNONYMS)
ABOUT = "about"  # the tensor of JSON
_SPECIES = r"(?:Mmus|Hsap|Mus musculus|Homo sapiens)"
_COMMON = rf"(?:{_SPECIES}|human|mouse|Mus)"
SPECIES = (
    re.compile(rf"\s*\((?:sensu )?{_COMMON}(?:(?:,| and| or|/) ?{_COMMON})*\)"),  # (Mmus), (human and mouse)
    re.compile(rf"\s+(?:in|of|from) {_SPECIES}(?=[.,;:)]|$)"),
    re.compile(rf"\b{_SPECIES}\b ?"),
)


@dataclass(frozen=True, eq=False)
class TextBank:
    """``ids``: live terms and ``label:VALUE``, sorted; ``embeddings[view]``: (ids, width) float32, rows of length 1.

    ``ontology`` has the labels as terms without parents, and obsolete terms, so that their replacement can be named;
    ``encoder``: name and digest.  Values are those of float16, so that a checkpoint keeps them as they are; the length of a
    row is 1 to the same precision.
    """

    ontology: Ontology
    ids: tuple[str, ...]
    embeddings: dict[str, Floats]
    encoder: dict[str, str]

    @property
    def width(self) -> int:
        return int(self.embeddings[NAME].shape[1])

    @cached_property
    def _place(self) -> dict[str, int]:
        return {term: i for i, term in enumerate(self.ids)}

    def row(self, term: str) -> int:
        """Place of an id in ``ids``; refused, with near ones or the replacement, where it is none."""
        found = self._place.get(term)
        if found is None:
            found = self._place[self.ontology[term].id]  # which refuses it
        return found

    def rows(self, terms: Iterable[str]) -> npt.NDArray[np.int64]:
        return np.array([self.row(t) for t in terms], np.int64)

    def ancestor_matrix(self, terms: Sequence[str], itself: bool = True) -> npt.NDArray[np.bool_]:
        """(terms, ids): True where the id is an ancestor of the term, or (``itself``) the term."""
        found = np.zeros((len(terms), len(self.ids)), bool)
        for i, term in enumerate(terms):
            found[i, self.rows(self.ontology.ancestors(term, itself))] = True
        return found

    def to_tensors(self) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint: the views as float16, all else as the bytes of one JSON object."""
        about = {
            "version": self.ontology.version,
            "source": self.ontology.source,
            "encoder": self.encoder,
            "terms": [_to_json(self.ontology.terms[t]) for t in sorted(self.ontology.terms)],
        }
        text = json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        views = {view: self.embeddings[view].astype(np.float16) for view in VIEWS}
        return {**views, ABOUT: np.frombuffer(text.encode("utf-8"), np.uint8).copy()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> TextBank:
        about = json.loads(tensors[ABOUT].tobytes().decode("utf-8"))
        terms = {t["id"]: _from_json(t) for t in about["terms"]}
        ontology = Ontology(terms, about["version"], about["source"])
        return cls(ontology, ontology.live, {v: tensors[v].astype(np.float32) for v in VIEWS}, about["encoder"])


def build(ontology: Ontology, encoder: TextEncoder, pseudo: Sequence[str] = ()) -> TextBank:
    """The bank of an ontology and of labels ``pseudo`` that have no term in it (with or without ``label:``).

    A release of 3,300 terms has 9,300 texts: a minute on one core, once; then they are in the encoder's cache.
    """
    labels = sorted({value.removeprefix(PSEUDO) for value in pseudo})
    terms = {**ontology.terms, **{PSEUDO + value: Term(PSEUDO + value, value) for value in labels}}
    whole = Ontology(terms, ontology.version, ontology.source)
    texts = {t: texts_of(terms[t]) for t in whole.live}
    every = sorted({text for views in texts.values() for view in VIEWS for text in views[view]})
    log.info("%s: %d terms, %d texts for %s", whole.title, len(whole.live), len(every), encoder.name)
    vectors = encoder.encode(every)
    place = {text: i for i, text in enumerate(every)}
    embeddings = {}
    for view in VIEWS:
        means = np.stack([vectors[[place[x] for x in texts[t][view]]].mean(0) for t in whole.live])
        embeddings[view] = _kept(means)
    return TextBank(whole, whole.live, embeddings, {"name": encoder.name, "digest": encoder.digest})


def texts_of(term: Term) -> dict[str, list[str]]:
    """The texts of each view, without what they say of the species; a view's vector is the mean over its texts."""
    name = without_species(term.name) or term.name
    definition = without_species(term.definition)
    synonyms = [s for s in (without_species(x) for x in term.synonyms) if s]
    return {
        NAME: [name],
        DEFINITION: [f"{name}. {definition}" if definition else name],
        SYNONYMS: list(dict.fromkeys([name, *synonyms])),
    }


def without_species(text: str) -> str:
    """
    >>> without_species("A microglial cell of the Mus musculus brain (Mmus).")
    'A microglial cell of the brain.'
    """
    for pattern in SPECIES:
        text = pattern.sub("", text)
    return text.strip()


def _kept(rows: Floats) -> Floats:
    """Rows of length 1, rounded to what a checkpoint keeps of them."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (length > 0).all():
        raise InputRefused("the text model gives a vector of zeros", where="--text-model", do="use another")
    return (rows / length).astype(np.float16).astype(np.float32)


def _to_json(term: Term) -> dict[str, Any]:
    return {key: value for key, value in asdict(term).items() if value}


def _from_json(content: dict[str, Any]) -> Term:
    lists: dict[str, Any] = {key: tuple(content[key]) for key in ("synonyms", "parents", "consider") if key in content}
    return Term(**{**content, **lists})
