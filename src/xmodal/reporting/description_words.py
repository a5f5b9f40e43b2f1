"""Words of the report about descriptions that were compared with known types and with the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting import description_scores_figure, figures
from xmodal.reporting.annotation_scores_words import best_of
from xmodal.scores.description_texts import METHODS, OWN, ordered, text_of

if TYPE_CHECKING:
    from xmodal.reporting.report_inputs import Evaluation, Inputs


def scored(part: Evaluation) -> dict[str, Any]:
    """One evaluated file of descriptions: what it amounts to, scores of all methods, picture."""
    about = part.description or {}
    methods = {m: v for m, v in (about.get("methods") or {}).items() if m in METHODS}
    own, names = methods.get(OWN) or {}, [m for m in METHODS if m in methods]
    return {
        "name": part.name,
        "about": about,
        "methods": {m: METHODS[m] for m in names},
        "lines": lines(about),
        "rows": [row(s, {m: methods[m] for m in names}) for s in ordered(own)],
        "picture": figures.png(description_scores_figure.scores(about)) if own else b"",
    }


def row(score: str, methods: dict[str, dict[str, float]]) -> dict[str, Any]:
    """One row of the table of scores, the best marked."""
    text = text_of(score)
    values = {m: v[score] for m, v in methods.items() if score in v}
    return {"key": score, "text": text, "values": values, "best": best_of(values, text.better)}


def answer(inputs: Inputs) -> list[str]:
    """Lines for the top of the page."""
    return [f"Descriptions ({e.name}): {x}" for e in inputs.evaluations if e.description for x in lines(e.description)]


def lines(about: dict[str, Any]) -> list[str]:
    """What the scores amount to, for a person."""
    own, counts = (about.get("methods") or {}).get(OWN) or {}, about.get("counts") or {}
    found = []
    if "traceable" in own:
        found.append(f"{_of(own['traceable'], counts, 'sentences')} sentences are proven by their evidence.")
    if {"gene_claims_true", "genes_chosen_true"} <= set(own):
        found.append(
            f"{_of(own['gene_claims_true'], counts, 'gene_claims')} genes that are named are high in cells in which they were "
            f"not chosen; so are {_of(own['genes_chosen_true'], counts, 'genes_chosen')} that were chosen."
        )
    if about.get("wrong"):
        found.append(f"{about['wrong']} things are not true or not proven: wrong.tsv.")
    return found


def _of(share: float, counts: dict[str, int], what: str) -> str:
    number = int(counts.get(what, 0))
    return f"{round(share * number)} of {number}"
