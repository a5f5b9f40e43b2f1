"""Sentences with slots in place of facts, and the ways in which each may be said.

``(a|b)`` is said one way or the other; the first of each is the template's.  What a decoder says must be one of them all: it may
choose words, and nothing that it chooses turns what is said or says more.  Whether a fluent sentence that was put together
anew is still true, no rule can tell: "all other cells have more of CD79A" is made of the same words.
"""

from __future__ import annotations

import re
from functools import cache

SLOT = re.compile(r"\{[a-z_]+\}")
TOKEN = re.compile(r"\{[a-z_]*\}?|[A-Za-z]+|[^\sA-Za-z]")  # a slot (perhaps begun), a word, a sign
CHOICE = re.compile(r"\(([^()]*)\)")

_WHY = "no type is sure enough(, or|, or else) {who} unlike all types that the model was trained on."
WORDINGS = {
    # In the form of the literature (scMMGPT): "cell type: NAME. DEFINITION".  It is read back, so nobody words it anew.
    "type": "Cell type: {name}.",
    "definition": "{definition}",
    "call": (
        "(The {cells} cells of {group} are|All {cells} cells of {group} together are|With its {cells} cells {group} is) "
        "called {id} with a mean (calibrated probability|probability, calibrated,) of {probability}; "
        "(one by one, {agreement} of (them|the cells) get this label|{agreement} of (them|the cells) get this label one by one|"
        "this is also what {agreement} of (them|the cells) are called one by one)."
    ),
    "coarse": (
        "(No narrower type is sure enough, (so|and so) a more general one is given|"
        "A more general type is given, (since|because) no narrower one is sure enough|"
        "(Since|Because) no narrower type is sure enough, a more general one is given)."
    ),
    "unknown": (
        "(The {cells} cells of {group} get no name|No name is given to the {cells} cells of {group}|"
        "With its {cells} cells {group} gets no name): " + _WHY.format(who="they are")
    ),
    "next": (
        "(The next candidate is|Next comes|Behind it comes|The second candidate is) "
        "{candidate} with (a probability of |){candidate_probability}."
    ),
    "nearest": (
        "(The nearest candidate is|Nearest comes|The best candidate would be) "
        "{candidate} with (a probability of |){candidate_probability}."
    ),
    "genes": (
        "(Compared with|In comparison with|Against) (all other|the other) cells they (have|show) more of {genes}, "
        "in brackets (how much more|how many times as much) and the cells that show it."
    ),
    "tested": (
        "(Genes were chosen|The genes were chosen|Genes were looked for) in {half} of the cells and tested in the other {rest}, "
        "(where the figures come from|from where the figures come): {confirmed} of {chosen} were confirmed at a false discovery "
        "rate of {fdr}."
    ),
    "no_genes": "No gene (was found|could be found) of which they clearly have more than (all other|the other) cells.",
    "few": "(They, or all others, are too few|There are too few of them, or of all others,) to (test|compare) genes.",
    "unlike": "(Take care|Caution|Note): {unlike} of them are unlike the cells that the model was (trained|fitted) on.",
    "cell_call": (
        "(This cell is called {id}|{id} is what this cell is called) with a (calibrated probability|probability, calibrated,) "
        "of {probability}."
    ),
    "cell_unknown": "(This cell gets no name|No name is given to this cell): " + _WHY.format(who="it is"),
    "cell_genes": (
        "Of the genes of which {group} has more than (all other|the other) cells, (it|this cell) (shows|has) {genes}."
    ),
    "cell_no_genes": (
        "(It|This cell) (shows|has) none of the genes of which {group} has more than (all other|the other) cells."
    ),
    "cell_unlike": "(Take care|Caution|Note): it is unlike the cells that the model was (trained|fitted) on.",
}
FIXED = ("type", "definition")  # these are quoted: no decoder words them
WORDED = tuple(kind for kind in WORDINGS if kind not in FIXED)


def tokens(form: str) -> list[str]:
    """
    >>> tokens("They have {genes}.")
    ['They', 'have', '{genes}', '.']
    """
    return TOKEN.findall(form)


def slots(form: str) -> list[str]:
    """Names of the slots, in their order."""
    return [slot[1:-1] for slot in SLOT.findall(form)]


@cache
def forms(kind: str) -> tuple[str, ...]:
    """All ways to say it, the template's first."""
    return _expanded(WORDINGS[kind])


def template(kind: str) -> str:
    return forms(kind)[0]


def _expanded(text: str) -> tuple[str, ...]:
    """Innermost choices first.

    >>> _expanded("(a|b (c|d)) e")
    ('a e', 'b c e', 'b d e')
    """
    waiting: tuple[str, ...] = (text,)
    while any(CHOICE.search(t) for t in waiting):
        waiting = tuple(dict.fromkeys(one for t in waiting for one in _opened(t)))
    return waiting


def _opened(text: str) -> list[str]:
    found = CHOICE.search(text)
    if found is None:
        return [text]
    return [text[: found.start()] + way + text[found.end() :] for way in found[1].split("|")]


@cache
def _tokenised(kind: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((form, tuple(tokens(form))) for form in forms(kind))


def following(kind: str, said: str) -> dict[str, str]:
    """What may be said next after ``said``, the beginning of a sentence: token -> the beginning with it.

    Empty where ``said`` is whole.

    >>> following("cell_unlike", "Take")
    {'care': 'Take care'}
    """
    begun = tuple(tokens(said))
    found: dict[str, str] = {}
    for form, parts in _tokenised(kind):
        if parts[: len(begun)] == begun and len(parts) > len(begun):
            upto = list(TOKEN.finditer(form))[len(begun)].end()
            found.setdefault(parts[len(begun)], form[:upto])
    return found
