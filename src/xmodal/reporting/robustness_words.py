"""Words of the report about a model whose cells were made worse on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting import figures
from xmodal.reporting.report_words import number
from xmodal.reporting.robustness_figure import curves
from xmodal.scores.robustness_files import series
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    from xmodal.reporting.report_inputs import Evaluation, Inputs

KINDS = {"drop": "{} missing in a share of the cells", "noise": "a share of the {} signal replaced by noise"}


def answer(inputs: Inputs) -> list[str]:
    """Lines for the head of the page."""
    return [
        f"{number(about.get('cells'))} held-out cells were made worse on purpose, and the model {about.get('model')} was "
        f"scored on them ({part.name}): how much it loses is in the curves below."
        for part in inputs.evaluations
        if (about := part.robustness)
    ]


def scored(part: Evaluation) -> dict[str, Any]:
    """One evaluation: a table for each change, and the picture of all."""
    about = part.robustness or {}
    tables = []
    for (kind, modality), own in series(about).items():
        strengths = sorted({s for values in own.values() for s in values})
        rows = [
            {"name": name, "values": [f"{values[s]:.3f}" if s in values else "-" for s in strengths]}
            for name, values in own.items()
        ]
        title = KINDS[kind].format(shown(modality))
        tables.append(
            {"title": title[:1].upper() + title[1:], "strengths": [f"{s:g}" for s in strengths], "rows": rows}
        )
    picture = figures.png(curves(about)) if tables else b""
    return {"name": part.name, "about": about, "tables": tables, "picture": picture, "notes": about.get("notes") or []}
