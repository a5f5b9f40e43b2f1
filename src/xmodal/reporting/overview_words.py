"""Words of the report about the overview of a prediction, and its most variable features."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xmodal import fields
from xmodal.reporting.report_inputs import Overview
from xmodal.reporting.report_words import number

CLASSES = (
    "The bars are the cells of each class, as the model tells it; the histogram says how probable it thinks the class of a "
    "cell. Cell by cell: cells.tsv beside the picture."
)
CLASS_NOTE = (
    "Mean and standard deviation of the probability of each class over all cells. That a class is probable does not say that "
    "it is right: compare with known cells (xmodal evaluate --prediction)."
)
SHOWN = 20  # features in the table
COLUMNS = {"cell", "unlikeness", "unlike", "source_counts"}  # of cells.tsv; what else it has is the type


def section(found: Overview) -> dict[str, Any]:
    """What the template shows: the picture, what is seen in it, and the features that vary most between the cells."""
    told = fields.CELLS_TOLD in found.features
    by = fields.CELLS_TOLD if told else "sd"
    table = found.features.sort_values(by, ascending=False, kind="stable").head(SHOWN)
    kept = "cells_kept" in table
    return {
        "name": found.name,
        "picture": found.picture,
        "alt": classes_seen(found) if told else seen(found, [str(f) for f in table["feature"].head(3)]),
        "caption": CLASSES if told else caption(found),
        "rows": [_row(row) for row in table.to_dict("records")],
        "kept": kept,
        "known": "reliability" in table,
        "note": CLASS_NOTE if told else note(kept, "reliability" in table),
    }


def classes_seen(found: Overview) -> str:
    """The picture of cells whose class was told, in words."""
    many = found.features.sort_values(fields.CELLS_TOLD, ascending=False, kind="stable").head(5)
    shown = (f"{row['feature']} ({int(row[fields.CELLS_TOLD]):,})" for row in many.to_dict("records"))
    return f"Classes of {number(len(found.cells))} cells, those with the most cells first: {', '.join(shown)}"


def label_of(found: Overview) -> str | None:
    """The column of types that the cells have."""
    return next((str(c) for c in found.cells if c not in COLUMNS), None)


def seen(found: Overview, first: list[str]) -> str:
    """The picture in words, for those who cannot see it, and for servers that drop pictures."""
    label, cells = label_of(found), found.cells
    parts = [f"Map of {number(len(cells))} cells by their predicted profiles"]
    if label is not None:
        common = [f"{name} ({count:,})" for name, count in cells[label].dropna().value_counts().head(5).items()]
        parts[0] += f", coloured by {label}: most are {', '.join(common)}"
    if "unlike" in cells:
        parts.append(f"{number(int((cells['unlike'] == 'yes').sum()))} of them are unlike the training cells")
    parts.append(f"the features that vary most between the cells are {', '.join(first) or 'none'}")
    return "; ".join(parts)


def caption(found: Overview) -> str:
    """What the panels are."""
    label = label_of(found)
    colour = ""
    if label is not None:
        colour = f", coloured by the column '{label}' of the input"
    elif "unlikeness" in found.cells:
        colour = ", coloured by how unlike the training cells it is"
    bars = " The bars show how unlike the training cells they are, beside what held-out training cells show."
    return (
        f"Each point of the map is a cell{colour}; cells with like predicted profiles lie near each other (the first two "
        "principal components of the most variable predicted features, of at most 3,000 cells)."
        + (bars if "unlikeness" in found.cells else "")
        + " The dots are the features whose prediction varies most: their mean, with one standard deviation between the cells "
        "to either side. All cells and features: cells.tsv and features.tsv beside the picture."
    )


def note(kept: bool, known: bool) -> str:
    """How to read the table."""
    text = "Mean and standard deviation between the cells, in the units of the prediction."
    if kept:
        text += (
            " Only the highest values of each cell were kept; where a feature is not among them it counts as 0 here."
        )
    if known:
        text += " Reliability was learned on cells held out in training, with its 95 % interval in brackets."
    return text + " That a feature varies does not say that it is predicted rightly."


def _row(row: dict[str, Any]) -> dict[str, Any]:
    value, trust = row.get("reliability"), row.get("trust")
    ends = [row.get("reliability_low"), row.get("reliability_high")]
    shown = "-" if value is None or pd.isna(value) else f"{value:.2f}"
    if shown != "-" and not any(e is None or pd.isna(e) for e in ends):
        shown += f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    return {
        "feature": row["feature"],
        "mean": float(row["mean"]),
        "sd": float(row["sd"]),
        "kept": row.get("cells_kept"),
        "reliability": shown,
        "trust": trust or "-",
    }
