"""MultiQC's general statistics, and the scores of predictions beside those of the controls."""

from __future__ import annotations

from typing import Any

from xmodal.fields import ATAC, RNA
from xmodal.reporting.figures import METHOD_COLOURS
from xmodal.reporting.multiqc_rows import PARENT, Row
from xmodal.scores.score_texts import HEADLINE, short_for, shown, text_for

METHODS = ("prediction", "linear", "depth", "mean")
GENERAL = ("gene_pearson", "peak_auroc", "label_transfer_macro")
TITLES = {  # short, since six or seven stand side by side
    "gene_pearson_top_hvg": "Top 200 genes",
    "cell_pearson_centred": "Cells, centred",
    "gene_pearson_within_type": "Genes in a type",
    "peak_pearson_within_type": "Peaks in a type",
    "peak_auprc_over_prevalence": "Peak precision",
    "label_transfer": "Own type",
    "label_transfer_macro": "Own type, mean",
}
PERCENT = {"suffix": "%", "min": 0, "max": 100, "format": "{:,.1f}"}


def general(found: dict[str, Row]) -> dict[str, Any]:
    """Columns of the table of general statistics, a row for each prediction."""
    data = {name: {k: v for k, v in _facts(row).items() if v is not None} for name, row in found.items()}
    several = len({row.model for row in found.values()}) > 1
    columns: dict[str, dict[str, Any]] = {
        "model": {"title": "Model", "description": "Model that predicted", "hidden": not several},
        "cells": {"title": "Cells", "description": "Predicted cells", "format": "{:,d}", "min": 0, "scale": "Greys"},
        "found": {
            "title": "Features found",
            "description": "Share of the features the model reads that the sample has",
            "scale": "RdYlGn",
            **PERCENT,
        },
        "unlike": {
            "title": "Unlike cells",
            "description": "Share of cells unlike the cells the model was trained on: one in a hundred is usual; for "
            "unlike cells the scores of the model do not hold",
            "scale": "OrRd",
            **PERCENT,
        },
        **{score: header(score, _modality(found, score)) for score in GENERAL},
    }
    shown_columns = [
        {k: {"namespace": "xmodal", **v}} for k, v in columns.items() if any(k in r for r in data.values())
    ]
    return {"id": "xmodal_general", "plot_type": "generalstats", "pconfig": shown_columns, "data": data}


def _facts(row: Row) -> dict[str, Any]:
    own = row.methods().get("prediction", {})
    return {
        "model": row.model or None,
        "cells": row.cells,
        "found": _percent(row.about("alignment").get("coverage")),
        "unlike": _percent(row.about("novelty").get("unlike")),
        **{s: own.get(s) for s in GENERAL},
    }


def _percent(share: Any) -> float | None:
    return round(100 * share, 2) if isinstance(share, int | float) else None


def _modality(found: dict[str, Row], score: str) -> str:
    """The one modality that has ``score``; empty where several have it, so that words fit all."""
    having = {row.target for row in found.values() if score in row.methods().get("prediction", {})}
    return having.pop() if len(having) == 1 else ""


def header(score: str, modality: str) -> dict[str, Any]:
    """A column of a table: title, description and colour of one score."""
    text = text_for(score, modality)
    title = _title(score, modality)
    if text.better == "lower":
        return {"title": title, "description": text.says, "format": "{:,.3f}", "scale": "OrRd"}
    ends = {} if score == "peak_auprc_over_prevalence" else {"max": 1}
    least = text.chance if text.chance is not None else 0
    return {"title": title, "description": text.says, "format": "{:,.3f}", "scale": "Blues", "min": least, **ends}


def scores(found: dict[str, Row]) -> list[dict[str, Any]]:
    """For each predicted modality bars of every headline score, and the same as a table."""
    targets = sorted({row.target for row in found.values() if row.methods()})
    parts = {t: {n: r for n, r in found.items() if r.target == t and r.methods()} for t in targets}
    return [section for target, rows in parts.items() for section in (bars(target, rows), table(target, rows))]


def _there(rows: dict[str, Row]) -> list[str]:
    return [s for s in HEADLINE if any(s in r.methods().get("prediction", {}) for r in rows.values())]


def bars(target: str, rows: dict[str, Row]) -> dict[str, Any]:
    """Grouped bars, one headline score at a time."""
    labels, data = [], []
    for score in _there(rows):
        data.append({n: {m: v[score] for m, v in r.methods().items() if score in v} for n, r in rows.items()})
        text = text_for(score, target)
        chance = f" ({text.chance:g} is chance)" if text.chance is not None else ""
        labels.append({"name": _title(score, target), "ylab": f"{text.name}{chance}"})
    models = {row.model for row in rows.values()} - {""}
    own = f"prediction ({models.pop()})" if len(models) == 1 else "prediction"
    # What comes first is drawn lowest: so the prediction, last, stands on top of its controls.
    drawn = [m for m in reversed(METHODS) if any(m in r.methods() for r in rows.values())]
    return {
        "id": f"xmodal_bars_{target}",
        **PARENT,
        "section_name": f"Scores of predicted {shown(target)}",
        "description": "Every prediction beside the controls it must beat: <code>mean</code> (the average cell for all), "
        "<code>depth</code> (from the counts in a cell alone) and <code>linear</code>. Longer is better; the buttons choose the "
        "score.",
        "helptext": "\n\n".join(f"**{_title(s, target)}**: {text_for(s, target).says}" for s in _there(rows)),
        "plot_type": "bargraph",
        "pconfig": {
            "id": f"xmodal_bars_{target}_plot",
            "title": f"xmodal: scores of predicted {shown(target)}",
            "stacking": "group",
            "cpswitch": False,
            "hide_zero_cats": False,
            "sort_samples": False,
            "use_legend": True,
            "data_labels": labels,
            "ylab": labels[0]["ylab"] if labels else "score",
            "tt_decimals": 3,
        },
        "categories": [{m: {"name": own if m == "prediction" else m, "color": METHOD_COLOURS[m]} for m in drawn}]
        * len(data),
        "data": data,
    }


def _title(score: str, modality: str) -> str:
    """The title of a button or column, in words that fit the modality."""
    title = TITLES.get(score) if modality in ("", RNA, ATAC) else None
    title = title or short_for(score, modality)
    return title[0].upper() + title[1:]


def table(target: str, rows: dict[str, Row]) -> dict[str, Any]:
    """A row for each prediction and each control."""
    data = {}
    for name, row in rows.items():
        for method in METHODS:
            own = row.methods().get(method, {})
            if kept := {s: own[s] for s in HEADLINE if s in own}:
                data[f"{name} | {method}"] = kept
    return {
        "id": f"xmodal_scores_{target}",
        **PARENT,
        "section_name": f"Scores of predicted {shown(target)}, table",
        "description": "The same in figures.",
        "plot_type": "table",
        "pconfig": {
            "id": f"xmodal_scores_{target}_table",
            "title": f"xmodal: scores of predicted {shown(target)}, table",
            "namespace": "xmodal",
            "col1_header": "Prediction",
            "sort_rows": False,
        },
        "headers": {s: header(s, target) for s in _there(rows)},
        "data": data,
    }
