"""MultiQC's sections about joint embeddings: their scores beside those of plain ones, and the clusters of each sample."""

from __future__ import annotations

from typing import Any

from xmodal.reporting.figures import LABEL_COLOURS
from xmodal.reporting.multiqc_rows import PARENT, order
from xmodal.reporting.report_inputs import Inputs
from xmodal.scores.embedding_texts import METHODS, headline, of_meeting, short, text_of

OTHER = "#B8C0C8"
MOST_CLUSTERS = 40  # columns of the bars; all are in the table of the report


def scores(inputs: Inputs) -> dict[str, Any]:
    """A table: a row for each embedding and each plain one beside it."""
    data, columns = {}, []
    for part in inputs.evaluations:
        methods = (part.embedding or {}).get("methods") or {}
        own = methods.get("embedding") or {}
        kept = [*headline(own), *of_meeting(own)]
        columns += [s for s in kept if s not in columns]
        for method in (m for m in METHODS if m in methods):
            data[f"{part.name} | {method}"] = {s: methods[method][s] for s in kept if s in methods[method]}
    return {
        "id": "xmodal_joint",
        **PARENT,
        "section_name": "Joint embedding",
        "description": "Are cells of one label together, do batches mix, does the embedding tell how many counts a cell has? "
        "The plain embeddings beside it saw the same counts of the same cells.",
        "helptext": "\n\n".join(f"**{_title(s)}**: {text_of(s).says}" for s in columns),
        "plot_type": "table",
        "pconfig": {
            "id": "xmodal_joint_table",
            "title": "xmodal: joint embedding",
            "namespace": "xmodal",
            "col1_header": "Embedding",
            "sort_rows": False,
        },
        "headers": {s: _header(s) for s in columns},
        "data": data,
    }


def _header(score: str) -> dict[str, Any]:
    text = text_of(score)
    scale = "OrRd" if text.better == "lower" else "Blues"
    ends = {"min": -1 if score == "silhouette" else 0, "max": 0.5 if score.startswith("foscttm") else 1}
    return {"title": _title(score), "description": text.says, "format": "{:,.3f}", "scale": scale, **ends}


def _title(score: str) -> str:
    title = short(score)
    return title[0].upper() + title[1:]


def clusters(inputs: Inputs) -> dict[str, Any]:
    """Bars: cells of each cluster, a bar for each sample."""
    data = {}
    for found in sorted(inputs.embeddings, key=lambda e: order(e.name)):
        table = found.clusters.head(MOST_CLUSTERS)
        data[found.name] = {f"cluster {c}": int(n) for c, n in zip(table["cluster"], table["cells"], strict=True)}
    names = list(dict.fromkeys(name for row in data.values() for name in row))
    names.sort(key=lambda n: order(n)[1])
    colours = [LABEL_COLOURS[i] if i < len(LABEL_COLOURS) else OTHER for i in range(len(names))]
    return {
        "id": "xmodal_clusters",
        **PARENT,
        "section_name": "Clusters",
        "description": "Cells in each cluster of the joint embedding, the largest first. Clusters of one number are no "
        "counterparts in different samples.",
        "plot_type": "bargraph",
        "pconfig": {
            "id": "xmodal_clusters_plot",
            "title": "xmodal: clusters",
            "ylab": "cells",
            "sort_samples": False,
            "tt_decimals": 0,
        },
        "categories": {name: {"name": name, "color": colour} for name, colour in zip(names, colours, strict=True)},
        "data": data,
    }
