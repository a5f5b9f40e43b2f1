"""What neural decoders learn from: every term of the checkpoint's ontology in the sentences of the template's kinds.

No cell is needed: in the joint space a text of a term lies where its cells do, so that a decoder that learned to read the one
reads the other.  Noise is added in training, since they do not lie quite there (Nukrai, Mokady and Globerson 2022, Text-only
training for image captioning using noise-injected CLIP, arXiv 2211.00575).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xmodal.describing.wordings import WORDED, forms, slots
from xmodal.text.bank import VIEWS

if TYPE_CHECKING:
    from xmodal.text.bank import TextBank
    from xmodal.text.ontology import Term


@dataclass(frozen=True)
class Example:
    """``row``: of the bank, ``view``: of its vectors; what the decoder is asked and what it should say."""

    row: int
    view: str
    prompt: str
    form: str


def prompt(kind: str, name: str) -> str:
    """What a decoder is asked: a sentence of which kind, about what, with which facts to fill in.

    >>> prompt("unlike", "B cell")
    'unlike: B cell; {unlike} ->'
    """
    wanted = ", ".join(f"{{{slot}}}" for slot in slots(forms(kind)[0]))
    return f"{kind.replace('_', ' ')}: {name}; {wanted or 'nothing'} ->"


def examples(bank: TextBank, seed: int) -> Iterator[Example]:
    """Without end: terms, views, names or exact synonyms, kinds and ways to say it, each drawn evenly."""
    draw = random.Random(seed)
    while True:
        row = draw.randrange(len(bank.ids))
        kind = draw.choice(WORDED)
        name = draw.choice(_names(bank.ontology[bank.ids[row]]))
        yield Example(row, draw.choice(VIEWS), prompt(kind, name), draw.choice(forms(kind)))


def _names(term: Term) -> list[str]:
    return [term.name, *term.synonyms]
