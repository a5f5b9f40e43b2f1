"""How a text compares with a reference: words in common, and the type that it names.  Functions of texts.

Sources: Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE-L), Banerjee and Lavie 2005 (METEOR).  Words are runs of letters and
digits in lower case; signs do not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xmodal import fields
from xmodal.text.ontology import PSEUDO

if TYPE_CHECKING:
    from xmodal.text.ontology import Ontology

WORD = re.compile(r"[a-z0-9]+")
TYPE = re.compile(r"cell type: *", re.IGNORECASE)
OWN_ID = re.compile(r"(?<!\()\bCL:\d{7}\b")  # not one in brackets, which stand behind other candidates
# METEOR's weights as first published; words match as they are: no stems, no synonyms.
RECALL, PENALTY, POWER = 9.0, 0.5, 3.0


def words(text: str) -> list[str]:
    """
    >>> words("Cell type: B cell.")
    ['cell', 'type', 'b', 'cell']
    """
    return WORD.findall(text.lower())


def bleu(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]], order: int) -> float:
    """Of a corpus: geometric mean of the clipped precisions of 1 to ``order`` words, with the brevity penalty; no smoothing."""
    match, total = np.zeros(order), np.zeros(order)
    for text, reference in zip(texts, references, strict=True):
        for n in range(order):
            own, theirs = Counter(_grams(text, n + 1)), Counter(_grams(reference, n + 1))
            match[n] += sum(min(count, theirs[gram]) for gram, count in own.items())
            total[n] += sum(own.values())
    length, wanted = sum(map(len, texts)), sum(map(len, references))
    if not length or (match == 0).any():
        return 0.0
    brevity = min(1.0, float(np.exp(1 - wanted / length)))
    return brevity * float(np.exp(np.log(match / total).mean()))


def _grams(text: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return (tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def rouge_l(text: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words."""
    common = longest_common(text, reference)
    return 2 * common / (len(text) + len(reference)) if common else 0.0


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of one number (Hyyro 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    rest = full
    for word in b:
        same = rest & places.get(word, 0)
        rest = ((rest + same) | (rest - same)) & full
    return len(a) - rest.bit_count()


def meteor(text: Sequence[str], reference: Sequence[str]) -> float:
    """F mean with recall weighing nine times, times 1 - 0.5 (chunks / matches)^3.

    Each word of the text is matched with the next word of the reference where that is the same, so that chunks are few, else
    with its first one that is free.
    """
    free: dict[str, list[int]] = {}
    for i, word in enumerate(reference):
        free.setdefault(word, []).append(i)
    matched: list[int | None] = []
    for word in text:
        mine = free.get(word) or []
        last = matched[-1] if matched else None
        place = last + 1 if last is not None and last + 1 in mine else (mine[0] if mine else None)
        if place is not None:
            mine.remove(place)
        matched.append(place)
    there = [p for p in matched if p is not None]
    if not there:
        return 0.0
    chunks = sum(p is not None and (i == 0 or matched[i - 1] != p - 1) for i, p in enumerate(matched))
    precision, recall = len(there) / len(text), len(there) / len(reference)
    mean = (1 + RECALL) * precision * recall / (recall + RECALL * precision)
    return mean * (1 - PENALTY * (chunks / len(there)) ** POWER)


def averaged(score: Callable[[Sequence[str], Sequence[str]], float], pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The score of each (text, reference); equal pairs are computed once."""
    known = {pair: score(words(pair[0]), words(pair[1])) for pair in dict.fromkeys(pairs)}
    return [known[pair] for pair in pairs]


def named_term(text: str, ontology: Ontology, labels: frozenset[str] = frozenset()) -> str:
    """The id of the type that a text names: behind "cell type:", else the first id that stands alone; "unknown" without one.

    ``labels``: names of types without a term, which are ``label:NAME``.
    """
    if begun := TYPE.search(text):
        rest = text[begun.end() :]
        for end in [m.start() for m in re.finditer(r"\.(?=\s|$)", rest)][::-1] or [len(rest)]:
            name = rest[:end]
            if name in labels:
                return f"{PSEUDO}{name}"
            if name == fields.UNKNOWN or (found := ontology.find(name)):
                return fields.UNKNOWN if name == fields.UNKNOWN else str(found)
    alone = OWN_ID.search(text)
    return alone[0] if alone and alone[0] in ontology else fields.UNKNOWN
