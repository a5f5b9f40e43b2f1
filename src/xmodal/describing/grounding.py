"""Sentences and the facts that they name: filling slots, and proving of a sentence that all it says stands in its evidence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from xmodal.describing.evidence import Evidence
from xmodal.describing.wordings import SLOT, WORDINGS, forms, slots, tokens

if TYPE_CHECKING:
    from xmodal.text.ontology import Ontology

WORD = re.compile(r"[A-Za-z0-9][\w.\-/]*[A-Za-z0-9]|[A-Za-z0-9]")  # as genes are written: HLA-DRA, RP11-290F20.3
NUMBER = re.compile(r"[A-Z]*:?\d(?:[\w.\-]*\w)?")
LONGEST_NAME = 16  # words and signs of a cell type's name that is looked for in what is left of a sentence
# Names of terms that are words of the wordings as well: they name no type there.
PLAIN = frozenset({"", "cell", "cells", "group"})


@dataclass(frozen=True)
class Slot:
    """What is put in: ``text``, from the facts ``evidence`` (ids)."""

    text: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A sentence to be worded: its kind, what goes into its slots, and the facts that stand behind it without being quoted."""

    kind: str
    slots: dict[str, Slot]
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """``evidence``: ids of the facts that it quotes or rests on; ``by``: who worded it."""

    kind: str
    text: str
    evidence: tuple[str, ...]
    by: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, "evidence": list(self.evidence), "by": self.by}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Sentence:
        """Raises ``KeyError`` or ``TypeError`` where it is none."""
        ids = tuple(map(str, content["evidence"]))
        return cls(str(content["kind"]), str(content["text"]), ids, str(content["by"]))


def filled(plan: Plan, form: str, by: str) -> Sentence:
    """The sentence of ``form`` with the facts of the plan in its slots."""
    named = [i for slot in slots(form) for i in plan.slots[slot].evidence]
    text = SLOT.sub(lambda found: plan.slots[found[0][1:-1]].text, form)
    return Sentence(plan.kind, text, tuple(dict.fromkeys([*named, *plan.behind])), by)


def joined(texts: Iterable[str]) -> str:
    """
    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    parts = list(texts)
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Prover:
    """Proves sentences.  ``genes``: all that could be named; ``ontology``: whose terms' names are looked for."""

    genes: Collection[str]
    ontology: Ontology

    def untraceable(self, sentence: Sentence, table: dict[str, Evidence]) -> str:
        """Why the sentence is not traceable; nothing where it is.

        It is, where it names facts of the ``table``, and what is left of it without what these show holds no number, no gene
        and no name of a cell type.
        """
        if not sentence.evidence:
            return "it names no evidence"
        if missing := [i for i in sentence.evidence if i not in table]:
            return f"there is no evidence {missing[0]}"
        left = without(sentence.text, [s for i in sentence.evidence for s in table[i].shown.values()])
        for word in WORD.findall(left):
            if word in self._genes:
                return f"nothing that it names shows the gene {word}"
        if name := self._named(left):
            return f"nothing that it names shows the type '{name}'"
        found = NUMBER.search(left)
        return f"nothing that it names shows '{found[0]}'" if found else ""

    @cached_property
    def _genes(self) -> frozenset[str]:
        """Without those that are plain words of the wordings: "was" at a sentence's start is the mouse's gene Was otherwise."""
        plain = {t.lower() for kind in WORDINGS for form in forms(kind) for t in tokens(form)}
        return frozenset(g for g in self.genes if g.lower() not in plain)

    @cached_property
    def _names(self) -> frozenset[str]:
        terms = [self.ontology[t] for t in self.ontology]
        return frozenset({_plain(name) for t in terms for name in (t.name, *t.synonyms)} - PLAIN)

    def _named(self, left: str) -> str:
        """A name or exact synonym of a term in what is left, the first; nothing where there is none."""
        words = _plain(left).split(" ")
        for start in range(len(words)):
            for end in range(start + 1, start + LONGEST_NAME + 1):
                if (name := " ".join(words[start:end])) in self._names:
                    return name
        return ""


def _plain(text: str) -> str:
    """Words and signs in lower case, one blank between them."""
    return " ".join(re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()))


def without(text: str, shown: Iterable[str]) -> str:
    """``text`` without what is ``shown``, the longest first, each as a whole: 5 is not taken out of 57 or 0.5."""
    for part in sorted({s for s in shown if s}, key=lambda s: (-len(s), s)):
        text = re.sub(rf"(?<![\w.]){re.escape(part)}(?!\w|[.\-]\w)", " | ", text)
    return text
