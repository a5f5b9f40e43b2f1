"""Sections for MultiQC, as its custom content: files ``*_mqc.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xmodal.outputs import replacing_files
from xmodal.reporting import (
    multiqc_annotation,
    multiqc_cells,
    multiqc_joint,
    multiqc_scores,
    multiqc_texts,
    selection_words,
)
from xmodal.reporting.multiqc_rows import PARENT, rows
from xmodal.reporting.report_inputs import Inputs, Training

LOSSES = {"train_loss": "training cells", "valid_loss": "validation cells"}
LOOKS = {"train_loss": "dash", "valid_loss": "solid"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of models


def write(folder: Path, inputs: Inputs, overwrite: bool = False) -> None:
    """Write every section there is content for into ``folder``."""
    with replacing_files(folder, ("*_mqc.json",), overwrite) as temporary:
        for content in sections(inputs):
            # Not sorted: MultiQC shows columns and categories in the order of the file.
            path = temporary / f"{content['id']}_mqc.json"
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def sections(inputs: Inputs) -> list[dict[str, Any]]:
    """The sections that have data."""
    found = rows(inputs)
    every = [
        multiqc_scores.general(found),
        multiqc_cells.cells(inputs, found),
        multiqc_cells.features(inputs, found),
        learning(inputs.trainings),
        selection_words.multiqc(inputs.selection),
        *multiqc_scores.scores(found),
        multiqc_joint.scores(inputs),
        multiqc_joint.clusters(inputs),
        multiqc_annotation.scores(inputs),
        multiqc_annotation.labels(inputs),
        multiqc_annotation.statuses(inputs),
        multiqc_texts.groups(inputs),
        multiqc_texts.prompts(inputs),
        multiqc_texts.descriptions(inputs),
        multiqc_texts.generated(inputs),
        multiqc_cells.trust(inputs, found),
        multiqc_cells.coverage(found),
        multiqc_cells.alignment(found),
        multiqc_cells.unlike(found),
    ]
    return [s for s in every if s["data"]]


def learning(trainings: list[Training]) -> dict[str, Any]:
    """Loss by epoch: both losses, then each alone, since their levels may lie apart."""
    curves = {column: _curves(trainings, column) for column in LOSSES}
    drawn = {c: lines for c, lines in curves.items() if lines}
    both = {name: line for lines in drawn.values() for name, line in lines.items()}
    data = [both, *drawn.values()] if len(drawn) > 1 else list(drawn.values())
    labels = [{"name": n, "ylab": "loss"} for n in ("Both", *(LOSSES[c].capitalize() for c in drawn))]
    kept = [int(t.metrics.get("best_epoch") or 0) for t in trainings]
    names = {t.name: COLOURS[i % len(COLOURS)] for i, t in enumerate(trainings)}
    config: dict[str, Any] = {
        "id": "xmodal_learning_plot",
        "title": "xmodal: loss by epoch",
        "xlab": "epoch",
        "ylab": "loss",
        "x_decimals": 0,
        "showlegend": len(both) <= multiqc_cells.MOST_NAMED,
        "colors": {f"{t}: {LOSSES[c]}": colour for t, colour in names.items() for c in LOSSES},
        "dash_styles": {f"{t}: {LOSSES[c]}": look for t in names for c, look in LOOKS.items()},
    }
    if len(data) > 1:
        config["data_labels"] = labels
    if len(kept) == 1 and kept[0]:
        config["x_lines"] = [{"value": kept[0], "color": "#8C8C8C", "dash": "dash", "width": 1, "label": "kept"}]
    return {
        "id": "xmodal_learning",
        **PARENT,
        "section_name": "Learning curves",
        "description": "The loss should fall and level out, that of the training cells (dashed) and that of the validation "
        "cells (solid). Where the solid line rises while the dashed one falls, the model learns by heart.",
        "plot_type": "linegraph",
        "pconfig": config,
        "data": data,
    }


def _curves(trainings: list[Training], column: str) -> dict[str, list[list[float]]]:
    """Line by line pairs of epoch and loss: the keys of a JSON object would be text, which MultiQC sorts 1, 10, 11, 2."""
    found = {}
    for part in trainings:
        if column in part.history and "epoch" in part.history:
            kept = part.history[["epoch", column]].dropna()
            if len(kept) > 1:
                found[f"{part.name}: {LOSSES[column]}"] = [[int(e), float(v)] for e, v in kept.itertuples(index=False)]
    return found
