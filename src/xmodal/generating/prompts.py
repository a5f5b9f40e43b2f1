"""From prompts to what a generator is asked for: which training types a text means, and which texts are refused.

A prompt that is an id, a name or an exact synonym of the ontology needs no text model: the checkpoint holds the vectors of all
terms.  Any other text is read by the encoder that the checkpoint was trained with.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.errors import InputRefused, UsageRefused
from xmodal.models.parts.known_texts import Wanted, unit

if TYPE_CHECKING:
    from xmodal.models.parts.generator import TextGenerator
    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)
NEAREST = 3  # types that a message names
DO = "prompt for a type that is near one of these, train with cells of this type, or give --force"


@dataclass(frozen=True)
class Prompt:
    """``given``: as asked; ``term``: its id, where it is one; ``nearest``: the training type nearest to it, and the ``cosine``.

    ``covers``: the training types that its cells come from; none for a text that is of no training type.
    """

    given: str
    term: str | None
    nearest: str
    cosine: float
    covers: tuple[str, ...]
    wanted: Wanted

    @property
    def extrapolating(self) -> bool:
        return self.wanted.extrapolated

    def to_json(self, texts: TextBank) -> dict[str, Any]:
        return {
            "prompt": self.given,
            "term": self.term,
            "nearest": self.nearest,
            "nearest_name": texts.ontology.terms[self.nearest].name,
            "cosine": round(self.cosine, 4),
            "extrapolating": self.extrapolating,
            "covers": list(self.covers),
        }


@dataclass(frozen=True)
class TextModel:
    """Which text encoder to read free text with: ``spec`` (None: that of the installed package)."""

    spec: str | None = None
    allow_download: bool = False


def read(path: Path) -> list[str]:
    """The column ``prompt`` of a TSV; refused where there is none, or nothing in it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, delimiter="\t")
            if fields.PROMPT not in (table.fieldnames or ()):
                shown = ", ".join(map(str, table.fieldnames or ())) or "none"
                raise InputRefused(
                    f"there is no column '{fields.PROMPT}' (columns: {shown})",
                    where=f"--prompts {path}",
                    do=f"give a TSV whose first line names a column '{fields.PROMPT}'",
                )
            found = [(row[fields.PROMPT] or "").strip() for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputRefused(
            f"not a table of text ({error})", where=f"--prompts {path}", do="give a TSV in UTF-8"
        ) from None
    found = [text for text in found if text]
    if not found:
        raise InputRefused("there is no prompt in it", where=f"--prompts {path}", do="write one in each line")
    return found


def understood(
    given: Sequence[str], generator: TextGenerator, texts: TextBank, model: TextModel, force: bool
) -> list[Prompt]:
    """Each prompt once, in the order given.  Raises :class:`InputRefused` for one that is far from all training types."""
    asked = list(dict.fromkeys(" ".join(text.split()) for text in given))
    if "" in asked:
        raise UsageRefused("--prompt: an empty text says nothing about a cell")
    terms = {text: _term(text, texts) for text in asked}
    vectors = _vectors(asked, terms, texts, model)
    found = [_prompt(text, terms[text], vectors[text], generator, texts) for text in asked]
    for prompt in found:
        _judge(prompt, generator, texts, force)
    return found


def _term(text: str, texts: TextBank) -> str | None:
    """The id of a prompt that is a term: an id that is none is refused, as is a label that is none."""
    from xmodal.text.ontology import ID, PSEUDO

    found = texts.ontology.find(text)
    if found is None and (ID.fullmatch(text) or text.startswith(PSEUDO)):
        one = ID.fullmatch(text)
        return texts.ontology[f"CL:{one[1]}" if one else text].id  # which refuses it
    return found


def _vectors(
    asked: Sequence[str], terms: dict[str, str | None], texts: TextBank, model: TextModel
) -> dict[str, npt.NDArray[np.float32]]:
    """The vector of each prompt, (width,) of length 1: of a term the mean of its views."""
    from xmodal.text.bank import VIEWS

    found = {}
    for text, term in terms.items():
        if term is not None:
            row = texts.row(term)
            found[text] = unit(np.mean([texts.embeddings[view][row] for view in VIEWS], axis=0))
    free = [text for text in asked if terms[text] is None]
    if free:
        found |= dict(zip(free, _encoded(free, texts, model), strict=True))
    elif model.spec is not None:
        log.info("--text-model is not needed: every prompt is a term that the checkpoint holds")
    return found


def _encoded(free: Sequence[str], texts: TextBank, model: TextModel) -> npt.NDArray[np.float32]:
    from xmodal.text import encoder

    try:
        loaded = encoder.load(model.spec, model.allow_download)
    except InputRefused as error:
        what = (
            f"'{free[0]}' is no id, name or exact synonym of the checkpoint's ontology, so a text model has to read it"
        )
        why = f"{error.where}: {error.what}" if error.where else error.what
        raise InputRefused(f"{what}: {why}", do=f"{error.do}; or prompt with a Cell Ontology id") from None
    if loaded.digest != texts.encoder["digest"]:
        raise InputRefused(
            f"{loaded.name} ({loaded.digest[:12]}...) is another text encoder than the one the checkpoint was trained with, "
            f"{texts.encoder['name']} ({texts.encoder['digest'][:12]}...)",
            where="--text-model",
            do="give that one, or prompt with ids or names of the Cell Ontology, for which none is needed",
        )
    return loaded.encode(free)


def _prompt(
    text: str, term: str | None, vector: npt.NDArray[np.float32], generator: TextGenerator, texts: TextBank
) -> Prompt:
    known = generator.known
    cosines = known.cosines(vector)
    covers = () if term is None else _kinds(term, known.ids, texts)
    if covers:
        wanted = Wanted(vector, generator.frequencies([known.ids.index(one) for one in covers]))
    else:
        wanted = generator.wanted(vector, None if term is None else _line(term, texts))
    best = int(np.argmax(np.where(wanted.shares > 0, cosines, -1) if covers else cosines))
    if not covers and not wanted.extrapolated:
        covers = tuple(known.ids[i] for i in np.flatnonzero(wanted.shares > LEAST_SHARE))
    return Prompt(text, term, known.ids[best], float(cosines[best]), covers, wanted)


def _line(term: str, texts: TextBank) -> npt.NDArray[np.float32]:
    """The ancestors of a term by what they say, (ids,)."""
    from xmodal.models.parts.text_scores import Kernel

    found: npt.NDArray[np.float32] = Kernel.of(texts, [term]).lines[0].numpy()
    return found


LEAST_SHARE = 0.01  # of the cells: types with less are not named


def _kinds(term: str, known: Sequence[str], texts: TextBank) -> tuple[str, ...]:
    """The training types that are this term, or else kinds of it."""
    if term in known:
        return (term,)
    return tuple(one for one in known if term in texts.ontology.ancestors(one))


def _judge(prompt: Prompt, generator: TextGenerator, texts: TextBank, force: bool) -> None:
    """Refuse what is outside the model's knowledge; warn of what is beyond it."""
    if not prompt.extrapolating:
        return
    known = generator.known
    near = nearest(prompt, generator, texts)
    if prompt.cosine < known.outside and not force:
        raise InputRefused(
            f"the model knows nothing like it (cosine {prompt.cosine:.2f} to the nearest training type, at least "
            f"{known.outside:.2f} is needed); nearest: {near}",
            where=f"--prompt '{prompt.given}'",
            do=DO,
        )
    log.warning(
        "prompt '%s' is of no training type (cosine %.2f, below %.2f): its cells are a guess between types; nearest: %s",
        *(prompt.given, prompt.cosine, known.extrapolating, near),
    )


def nearest(prompt: Prompt, generator: TextGenerator, texts: TextBank) -> str:
    """The training types nearest to a prompt, in words."""
    cosines = generator.known.cosines(prompt.wanted.text)
    order = np.argsort(-cosines, kind="stable")[:NEAREST]
    ids = generator.known.ids
    return ", ".join(f"{texts.ontology.terms[ids[i]].name} ({ids[i]}, {cosines[i]:.2f})" for i in order)
