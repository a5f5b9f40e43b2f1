"""MultiQC's sections about cell types: their scores beside those of plain methods, and the labels of each sample."""

from __future__ import annotations

from typing import Any

from xmodal import fields
from xmodal.reporting.annotation_figure import COLOURS
from xmodal.reporting.figures import LABEL_COLOURS
from xmodal.reporting.multiqc_cells import bars
from xmodal.reporting.multiqc_rows import PARENT, order
from xmodal.reporting.report_inputs import Inputs
from xmodal.scores.annotation_texts import METHODS, OWN, of_calls, of_methods, text_of

OTHER = "#B8C0C8"
MOST_LABELS = 40  # parts of a bar; all are in the table of the report


def scores(inputs: Inputs) -> dict[str, Any]:
    """A table: a row for each annotation and each plain method beside it."""
    data, columns = {}, []
    for part in inputs.evaluations:
        methods = (part.annotation or {}).get("methods") or {}
        own = methods.get(OWN) or {}
        kept = [*of_methods(own), *of_calls(own)]
        columns += [s for s in kept if s not in columns]
        for method in (m for m in METHODS if m in methods):
            data[f"{part.name} | {method}"] = {s: methods[method][s] for s in kept if s in methods[method]}
    return {
        "id": "xmodal_labels",
        **PARENT,
        "section_name": "Cell types, scored",
        "description": "Are cells named rightly, do probabilities mean what they say, are types never seen found? The plain "
        "methods learned from the same training cells and named the same cells.",
        "helptext": "\n\n".join(f"**{text_of(s).name}**: {text_of(s).says}" for s in columns),
        "plot_type": "table",
        "pconfig": {
            "id": "xmodal_labels_table",
            "title": "xmodal: cell types, scored",
            "namespace": "xmodal",
            "col1_header": "Labels",
            "sort_rows": False,
        },
        "headers": {s: _header(s) for s in columns},
        "data": data,
    }


def _header(score: str) -> dict[str, Any]:
    text = text_of(score)
    scale = {"lower": "OrRd", "none": "Greys"}.get(text.better, "Blues")
    ends = {"min": 0} if score == "ontology_distance" else {"min": 0, "max": 1}
    return {"title": text.name, "description": text.says, "format": "{:,.3f}", "scale": scale, **ends}


def labels(inputs: Inputs) -> dict[str, Any]:
    """Bars: cells of each label, a bar for each sample."""
    data = {}
    for found in sorted(inputs.annotations, key=lambda a: order(a.name)):
        table = found.table.head(MOST_LABELS)
        data[found.name] = {str(n): int(c) for n, c in zip(table["label"], table["cells"], strict=True)}
    totals: dict[str, int] = {}
    for row in data.values():
        for name, cells in row.items():
            totals[name] = totals.get(name, 0) + cells
    names = sorted(totals, key=lambda n: (n == fields.UNKNOWN, -totals[n], n))
    colours = dict(zip([n for n in names if n != fields.UNKNOWN], LABEL_COLOURS, strict=False))
    colours[fields.UNKNOWN] = COLOURS[fields.UNKNOWN]
    return bars(
        "cell_types",
        "Cell types",
        "Cells of each label, by sample; unknown: cells that are unlike every type trained on, or for which no term is likely "
        "enough.",
        "cells",
        data,
        {n: (n, colours.get(n, OTHER)) for n in names},
        tt_decimals=0,
    )


def statuses(inputs: Inputs) -> dict[str, Any]:
    """Bars: cells that were assigned a label, got a coarser one, or none."""
    ordered = sorted(inputs.annotations, key=lambda a: order(a.name))
    data = {a.name: {s: int(a.about["status"].get(s, 0)) for s in COLOURS} for a in ordered}
    return bars(
        "label_status",
        "Labels of the cells",
        "How sure the names are: a label of its own, a more general term, or none.",
        "cells",
        data,
        {s: (s, colour) for s, colour in COLOURS.items()},
        tt_decimals=0,
    )
