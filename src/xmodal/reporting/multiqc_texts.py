"""MultiQC's sections about descriptions and generated cells: what they are, their scores beside those of floors and ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

import pandas as pd

from xmodal.fields import NEAREST_COSINE, NEAREST_NAME, PROMPT
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


def groups(inputs: Inputs) -> dict[str, Any]:
    """A table: what was said of each group of cells; of single cells how many were described."""
    data: dict[str, dict[str, Any]] = {}
    for part in inputs.descriptions:
        of_groups = [unit for unit in part.about["units"] if unit.get("cell") is None]
        for unit in of_groups:
            row = {"label": escape(str(unit["label"])), "cells": int(unit["cells"])}
            data[f"{part.name} | {escape(str(unit['name']))}"] = row | {"sentences": len(unit.get("sentences", ()))}
        if len(of_groups) < len(part.about["units"]):
            data[f"{part.name} | single cells"] = {"cells": len(part.about["units"]) - len(of_groups)}
    headers = {
        "label": _plain("Called"),
        "cells": _plain("Cells", "{:,.0f}"),
        "sentences": _plain("Sentences", "{:,.0f}"),
    }
    said = ("Cells in words", "Which groups were described, and as what; the sentences are in the report.")
    return _framed("xmodal_described", said, "Group", headers, data)


def prompts(inputs: Inputs) -> dict[str, Any]:
    """A table: what cells were asked for and made."""
    data: dict[str, dict[str, Any]] = {}
    kept = {
        "cells": _plain("Cells", "{:,.0f}"),
        NEAREST_NAME: _plain("Nearest type"),
        NEAREST_COSINE: _plain("Cosine", "{:,.2f}"),
        "median_counts": _plain("Median counts", "{:,.0f}"),
    }
    for part in inputs.generated:
        for row in part.prompts.to_dict("records"):
            there = {k: v for k, v in row.items() if k in kept and not pd.isna(v)}
            said_of = {k: escape(v) if isinstance(v, str) else v for k, v in there.items()}
            data[f"{part.name} | {escape(str(row[PROMPT]))}"] = said_of
    said = (
        "Generated cells",
        "Prompts, the training type whose text is nearest, and the cosine of the two texts: a low one is an extrapolation.",
    )
    return _framed("xmodal_prompts", said, "Prompt", kept, data)


def _plain(title: str, form: str | None = None) -> dict[str, Any]:
    return {"title": title, **({"format": form, "scale": "Blues"} if form else {"scale": False})}


def _framed(
    key: str, said: tuple[str, str], rows: str, headers: dict[str, dict[str, Any]], data: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    config = {"id": f"{key}_table", "title": f"xmodal: {said[0].lower()}", "namespace": "xmodal"}
    return {
        "id": key,
        **PARENT,
        "section_name": said[0],
        "description": said[1],
        "plot_type": "table",
        "pconfig": {**config, "col1_header": rows, "sort_rows": False},
        "headers": headers,
        "data": data,
    }


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
