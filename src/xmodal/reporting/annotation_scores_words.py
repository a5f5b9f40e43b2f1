"""Words of the report about labels that were compared with known ones."""

from __future__ import annotations

from typing import Any

from xmodal.reporting import annotation_scores_figure, figures
from xmodal.reporting.report_inputs import Evaluation
from xmodal.scores.annotation_texts import METHODS, OWN, of_calls, of_methods, text_of
from xmodal.scores.annotation_verdicts import judge

Content = dict[str, Any]
MOST_TYPES = 60  # rows of the table; all are in types.tsv


def scored(part: Evaluation) -> Content:
    """One evaluated annotation: verdict, scores of all methods, each known type, picture."""
    about = part.annotation or {}
    methods = about.get("methods") or {}
    names = [m for m in METHODS if m in methods]
    own = methods.get(OWN) or {}
    return {
        "name": part.name,
        "about": about,
        "verdict": judge(about),
        "methods": {m: METHODS[m] for m in names},
        "rows": [row(s, {m: methods[m] for m in names}) for s in of_methods(own)],
        "further": [row(s, {OWN: own}) for s in of_calls(own)],
        "types": [_type(t) for t in (about.get("types") or [])[:MOST_TYPES]],
        "picture": figures.png(annotation_scores_figure.scores(about)) if own else b"",
        "alt": alt(own),
    }


def row(score: str, methods: dict[str, dict[str, float]]) -> Content:
    """One row of the table of scores, the best marked."""
    text = text_of(score)
    values = {m: v[score] for m, v in methods.items() if score in v}
    return {"key": score, "text": text, "values": values, "best": best_of(values, text.better)}


def best_of(values: dict[str, float], better: str) -> set[str]:
    """The methods with the best value; none where all are alike or nothing is better."""
    if len(set(values.values())) < 2 or better not in ("higher", "lower"):
        return set()
    best = (max if better == "higher" else min)(values.values())
    return {m for m, v in values.items() if v == best}


def _type(found: Content) -> Content:
    others = ", ".join(f"{o['name']} ({100 * o['share']:.0f} %)" for o in found.get("others") or [])
    return {**found, "others": others or "-"}


def alt(own: dict[str, float]) -> str:
    """The picture in words."""
    told = []
    if "ece" in own:
        told.append(f"probabilities are off by {100 * own['ece']:.0f} points on average")
    if "accuracy" in own:
        told.append(f"{100 * (1 - own['accuracy']):.0f} % of all labels are wrong")
    return f"Reliability diagram and risk against coverage: {'; '.join(told)}"
