"""Sections for MultiQC, as its custom content: files ``*_mqc.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xmodal.outputs import replacing_files
from xmodal.reporting.report_inputs import Inputs
from xmodal.scores.score_texts import HEADLINE, short_for, text_for

PARENT = {
    "parent_id": "xmodal",
    "parent_name": "xmodal",
    "parent_description": "predicts the single-cell modality that was not measured.",
}
METHODS = ("prediction", "mean", "depth", "linear")
COLOURS = {"train": "#0072B2", "valid": "#56B4E9", "test": "#E69F00"}
GENERAL = ("gene_pearson", "peak_auroc", "label_transfer_macro")


def write(folder: Path, inputs: Inputs, overwrite: bool = False) -> None:
    """Write every section there is content for into ``folder``."""
    with replacing_files(folder, ("*_mqc.json",), overwrite) as temporary:
        for content in sections(inputs):
            # Not sorted: MultiQC shows columns and categories in the order of the file.
            path = temporary / f"{content['id']}_mqc.json"
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def sections(inputs: Inputs) -> list[dict[str, Any]]:
    """The sections that have data."""
    every = [general(inputs), scores(inputs), bars(inputs), learning(inputs), cells(inputs)]
    return [s for s in every if s["data"]]


def _results(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Name of the sample in MultiQC -> target of metrics.json."""
    return {
        f"{e.name}: {name} from {t.get('source') or '?'}": t
        for e in inputs.evaluations
        for name, t in e.targets.items()
    }


def _modality(inputs: Inputs, score: str) -> str:
    """The one modality that has ``score``; empty where several have it, so that words fit all."""
    every = [(n, t.get("methods", {})) for e in inputs.evaluations for n, t in e.targets.items()]
    found = {name for name, methods in every if score in methods.get("prediction", {})}
    return found.pop() if len(found) == 1 else ""


def _header(inputs: Inputs, score: str, hidden: bool = False) -> dict[str, Any]:
    modality = _modality(inputs, score)
    text = text_for(score, modality)
    scale = "RdYlGn-rev" if text.better == "lower" else "Blues"
    return {
        "title": short_for(score, modality),
        "description": text.says,
        "format": "{:,.3f}",
        "scale": scale,
        "hidden": hidden,
    }


def general(inputs: Inputs) -> dict[str, Any]:
    """Columns of the table of general statistics, a row for each prediction."""
    data = {}
    for sample, target in _results(inputs).items():
        own = target.get("methods", {}).get("prediction", {})
        data[sample] = {"cells": target.get("cells"), **{s: own[s] for s in GENERAL if s in own}}
    headers = [{"cells": {"title": "Scored cells", "format": "{:,d}", "scale": "Greys"}}]
    headers += [{s: _header(inputs, s)} for s in GENERAL if any(s in row for row in data.values())]
    return {"id": "xmodal_general", "plot_type": "generalstats", "pconfig": headers, "data": data}


def scores(inputs: Inputs) -> dict[str, Any]:
    """Table of the headline scores: a row for each prediction and each control."""
    data = {}
    for sample, target in _results(inputs).items():
        for method in METHODS:
            own = target.get("methods", {}).get(method, {})
            row = {s: own[s] for s in HEADLINE if s in own}
            if row:
                data[f"{sample} | {method}"] = row
    return {
        "id": "xmodal_scores",
        **PARENT,
        "section_name": "Scores against controls",
        "description": "Each prediction beside the controls it must beat: <code>mean</code> (the average cell), "
        "<code>depth</code> (counts in a cell only) and <code>linear</code>.",
        "plot_type": "table",
        "pconfig": {
            "id": "xmodal_scores_table",
            "title": "xmodal: scores",
            "namespace": "xmodal",
            "col1_header": "Prediction",
        },
        "headers": {s: _header(inputs, s) for s in HEADLINE if any(s in row for row in data.values())},
        "data": data,
    }


def bars(inputs: Inputs) -> dict[str, Any]:
    """Grouped bars of each headline score."""
    shown, labels = [], []
    for score in HEADLINE:
        data = {
            sample: {m: t["methods"][m][score] for m in METHODS if score in t.get("methods", {}).get(m, {})}
            for sample, t in _results(inputs).items()
        }
        data = {k: v for k, v in data.items() if v}
        if data:
            shown.append(data)
            modality = _modality(inputs, score)
            labels.append({"name": short_for(score, modality), "ylab": text_for(score, modality).name})
    return {
        "id": "xmodal_score_bars",
        **PARENT,
        "section_name": "Scores as bars",
        "description": "One score at a time; longer is better.",
        "plot_type": "bargraph",
        "pconfig": {
            "id": "xmodal_score_bars_plot",
            "title": "xmodal: scores against controls",
            "stacking": "group",
            "cpswitch": False,
            "data_labels": labels,
            "ylab": "score",
            "tt_decimals": 3,
        },
        "data": shown,
    }


def learning(inputs: Inputs) -> dict[str, Any]:
    """Loss by epoch."""
    data = {}
    for part in inputs.trainings:
        for column, name in (("train_loss", "training cells"), ("valid_loss", "validation cells")):
            if column in part.history and len(part.history) > 1:
                kept = part.history[["epoch", column]].dropna()
                # Pairs, since the keys of a JSON object are text, which MultiQC sorts 1, 10, 11, 2.
                data[f"{part.name}: {name}"] = [[int(e), float(v)] for e, v in kept.itertuples(index=False)]
    return {
        "id": "xmodal_learning",
        **PARENT,
        "section_name": "Learning curves",
        "description": "The loss should fall and level out; the epoch with the lowest validation loss is kept.",
        "plot_type": "linegraph",
        "pconfig": {"id": "xmodal_learning_plot", "title": "xmodal: loss by epoch", "xlab": "epoch", "ylab": "loss"},
        "data": data,
    }


def cells(inputs: Inputs) -> dict[str, Any]:
    """Cells in each part of the split."""
    data = {}
    for part in inputs.trainings:
        split = part.metrics.get("split") or {}
        if row := {k: int(split[k]) for k in COLOURS if isinstance(split.get(k), int)}:
            data[part.name] = row
    for name, content in inputs.prepares:
        split = content.get("split") or {}
        if row := {k: int(split[k]) for k in COLOURS if isinstance(split.get(k), int)}:
            data[name] = row
    return {
        "id": "xmodal_cells",
        **PARENT,
        "section_name": "Cells",
        "description": "Cells that train a model, that choose its best epoch, and that it never sees.",
        "plot_type": "bargraph",
        "pconfig": {"id": "xmodal_cells_plot", "title": "xmodal: cells", "ylab": "cells"},
        "categories": {
            k: {"name": n, "color": COLOURS[k]}
            for k, n in (("train", "training"), ("valid", "validation"), ("test", "test"))
        },
        "data": data,
    }
