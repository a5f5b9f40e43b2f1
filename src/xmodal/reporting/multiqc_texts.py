"""MultiQC's sections about descriptions and generated cells: their scores beside those of floors and ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from xmodal.reporting.multiqc_rows import PARENT
from xmodal.reporting.report_inputs import Inputs
from xmodal.scores import description_texts, generation_texts
from xmodal.scores.score_texts import ScoreText

Parts = list[tuple[str, dict[str, dict[str, float]]]]  # of each evaluation its name, and the scores of each method


def descriptions(inputs: Inputs) -> dict[str, Any]:
    """A table: a row for each file of descriptions and each floor."""
    parts = [(e.name, (e.description or {}).get("methods") or {}) for e in inputs.evaluations]
    said = (
        "Descriptions, scored",
        "Do texts name the right type, are their sentences proven by their evidence, are genes that they name high? "
        "<code>lookup</code> is the same label with its definition and nothing else; the other rows are floors.",
    )
    text = description_texts.text_of
    return _table("xmodal_descriptions", said, parts, (description_texts.OWN, description_texts.ordered, text))


def generated(inputs: Inputs) -> dict[str, Any]:
    """A table: a row for each file of generated cells, for real cells and each floor."""
    parts = [(e.name, (e.generation or {}).get("methods") or {}) for e in inputs.evaluations]
    said = (
        "Generated cells, scored",
        "Can generated cells be told from real ones of their type? <code>real</code> is the mark to reach; the first four "
        "columns count together, since floors beat real cells in some.",
    )
    text = generation_texts.text_of
    return _table("xmodal_generated", said, parts, (generation_texts.OWN, generation_texts.of_methods, text))


def _table(
    key: str,
    said: tuple[str, str],
    parts: Parts,
    texts: tuple[str, Callable[[Iterable[str]], list[str]], Callable[[str], ScoreText]],
) -> dict[str, Any]:
    """``said``: title and description; ``texts``: the method that is judged, the order of its scores, what each means."""
    own, ordered, text_of = texts
    data, columns = {}, []
    for name, methods in parts:
        kept = ordered(methods.get(own) or {})
        columns += [s for s in kept if s not in columns]
        for method, values in methods.items():
            data[f"{name} | {method}"] = {s: values[s] for s in kept if s in values}
    return {
        "id": key,
        **PARENT,
        "section_name": said[0],
        "description": said[1],
        "helptext": "\n\n".join(f"**{text_of(s).name}**: {text_of(s).says}" for s in columns),
        "plot_type": "table",
        "pconfig": {
            "id": f"{key}_table",
            "title": f"xmodal: {said[0].lower()}",
            "namespace": "xmodal",
            "col1_header": "Method",
            "sort_rows": False,
        },
        "headers": {s: _header(text_of(s)) for s in columns},
        "data": data,
    }


def _header(text: ScoreText) -> dict[str, Any]:
    scale = {"lower": "OrRd", "none": "Greys"}.get(text.better, "Blues")
    return {"title": text.name, "description": text.says, "format": "{:,.3f}", "scale": scale}
