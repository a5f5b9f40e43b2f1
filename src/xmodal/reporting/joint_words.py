"""Words of the report about joint embeddings: how one was scored, and the cells that were embedded and clustered."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xmodal.reporting import embedding_scores_figure, figures
from xmodal.reporting.report_inputs import Embedded, Evaluation, Inputs
from xmodal.reporting.report_words import number, plain, unaligned
from xmodal.scores.embedding_texts import METHODS, headline, of_meeting, of_methods, short, text_of
from xmodal.scores.embedding_verdicts import judge
from xmodal.scores.score_texts import shown

Content = dict[str, Any]
GLOSSARY = {
    "Joint embedding": "A few numbers for each cell, made of all modalities that were measured in it, such that like cells "
    "lie near each other.",
    "Cluster": "A group of cells that lie near each other. How many there are depends on the resolution; a cluster is a "
    "proposal, not a type.",
    "Batch": "Cells that were handled together (a plate, a lane, a day). What differs between batches alone is no biology.",
    "Depth": "How many counts a cell has. It says how deeply the cell was read, so an embedding should not tell it.",
    "Marker": "A feature that is higher in one group of cells than in all others.",
}
SHARE, WEIGHT, BATCH = "share_", "weight_", "batch_"  # columns of clusters.tsv, a modality or batch behind
MOST_BATCHES = 8  # columns that a table of their own has room for


def glossary(inputs: Inputs) -> dict[str, str]:
    """The words that only pages about embeddings use."""
    joint = inputs.embeddings or inputs.markers or any(e.embedding for e in inputs.evaluations)
    return GLOSSARY if joint else {}


def answer(inputs: Inputs) -> list[str]:
    """Lines for the head of the page."""
    lines = []
    for found in inputs.embeddings:
        about = found.about
        measured = " and ".join(f"{shown(m)} in {number(v.get('cells'))}" for m, v in _modalities(about).items())
        lines.append(
            f"{number(about['cells'])} cells of {found.name} were embedded together ({measured or 'measured'}) and fall into "
            f"{number(len(found.clusters))} clusters."
        )
    for part in inputs.evaluations:
        if part.embedding:
            which = {"test": "held-out cells", "valid": "validation cells"}.get(_scored(part), "cells")
            lines.append(
                f"The joint embedding of {number(part.embedding.get('cells'))} {which} was compared with plain ones of the "
                f"same counts ({part.name})."
            )
    return lines


def _scored(part: Evaluation) -> str:
    return str((part.metrics.get("settings") or {}).get("cells"))


def _modalities(about: Content) -> Content:
    found = about.get("modalities")
    return found if isinstance(found, dict) else {}


# ---- scores


def scored(part: Evaluation) -> Content:
    """One evaluated embedding: verdict, scores of all methods, how modalities meet, picture."""
    about = part.embedding or {}
    methods = about.get("methods") or {}
    names = [m for m in METHODS if m in methods]
    own = methods.get("embedding") or {}
    main = headline(own)
    fewer = {m: n for m, n in (about.get("method_cells") or {}).items() if m in methods and n != about.get("cells")}
    return {
        "name": part.name,
        "about": about,
        "verdict": judge(about),
        "methods": {m: METHODS[m] + (f"; of {number(fewer[m])} cells only" if m in fewer else "") for m in names},
        "rows": [row(s, {m: methods[m] for m in names}) for s in main],
        "further": [row(s, {m: methods[m] for m in names}) for s in of_methods(own) if s not in main],
        "meeting": [(text_of(s), s, own[s]) for s in of_meeting(own)],
        "paired": ", ".join(number(n) for n in (about.get("paired") or {}).values()),
        "picture": figures.png(embedding_scores_figure.scores(about)) if own else b"",
        "alt": "Dots of the scores below for the embedding and each plain one",
    }


def row(score: str, methods: dict[str, dict[str, float]]) -> Content:
    """One row of the table of scores, the best marked."""
    text = text_of(score)
    values = {m: v[score] for m, v in methods.items() if score in v}
    best = {"higher": max, "lower": min}[text.better](values.values()) if len(values) > 1 else None
    return {
        "key": score,
        "short": short(score),
        "text": text,
        "values": values,
        "best": {m for m, v in values.items() if v == best},
    }


# ---- cells


def embedded(found: Embedded) -> Content:
    """What the template shows of embedded cells: the picture, its clusters, and how they were made."""
    about, table = found.about, found.clusters
    return {
        "name": found.name,
        "picture": found.picture,
        "alt": seen(found),
        "facts": facts(about),
        "heads": heads(table),
        "rows": [cluster(row, table) for row in table.to_dict("records")],
        "labelled": "label" in table,
        "label_key": about.get("label_key"),
        "batches": batches(table),
        "unseen": sum(c.startswith(BATCH) for c in table) > MOST_BATCHES,
    }


def facts(about: Content) -> Content:
    """How it was made, for a table of two columns."""
    weights = {shown(m): w for m, w in (about.get("weights") or {}).items() if w is not None}
    chosen = {"stability": "the most stable", "clusters": "to get so many clusters"}.get(
        str(about.get("resolution_by"))
    )
    unlike = about.get("unlike")
    found = {
        "Model": about.get("model"),
        "Cells": about.get("cells"),
        "of them with several modalities": about.get("several_modalities"),
        "Numbers for each cell": about.get("latent"),
        "Clusters": about.get("clusters"),
        "Resolution": plain(about.get("resolution")) + (f" ({chosen})" if chosen else ""),
        "Mean weight of the modalities": ", ".join(f"{m} {w:.2f}" for m, w in weights.items()),
        "Cells unlike the training cells": f"{100 * unlike:.1f} %" if isinstance(unlike, int | float) else None,
    }
    return {k: v for k, v in found.items() if v not in (None, "", "-")}


def heads(table: pd.DataFrame) -> list[str]:
    """Titles of the columns that tables of clusters have beyond cluster, cells and label."""
    return [_head(c) for c in _columns(table)]


def batches(table: pd.DataFrame) -> Content | None:
    """Names of the batches, and their shares of each cluster; None where there are none, or too many for a page."""
    columns = [c for c in table if c.startswith(BATCH)]
    if not 0 < len(columns) <= MOST_BATCHES:
        return None
    rows = [(row["cluster"], [percent(row[c]) for c in columns]) for row in table.to_dict("records")]
    return {"heads": [c.removeprefix(BATCH) for c in columns], "rows": rows}


def _columns(table: pd.DataFrame) -> list[str]:
    """What is worth a column: shares that differ from one, and weights."""
    shares = [c for c in table if c.startswith(SHARE) and c != f"{SHARE}unlike" and (table[c] < 1).any()]
    weights = [c for c in table if c.startswith(WEIGHT) and table[c].notna().any()]
    unlike = [c for c in (f"{SHARE}unlike",) if c in table]
    return [*shares, *weights, *unlike]


def _head(column: str) -> str:
    if column == f"{SHARE}unlike":
        return "Unlike"
    for start, title in ((SHARE, "With {}"), (WEIGHT, "Weight of {}")):
        if column.startswith(start):
            return title.format(shown(column.removeprefix(start)))
    return column


def percent(share: float | None) -> str:
    """Whole percents; a dash where there are none."""
    return "-" if share is None or pd.isna(share) else f"{100 * share:.0f} %"


def cluster(row: Content, table: pd.DataFrame) -> Content:
    return {
        "cluster": row["cluster"],
        "cells": int(row["cells"]),
        "label": row.get("label") or "-",
        "share": row.get("label_share"),
        "others": [_cell(c, row[c]) for c in _columns(table)],
    }


def _cell(column: str, value: Any) -> str:
    if column.startswith(WEIGHT) and not pd.isna(value):
        return f"{value:.2f}"
    return percent(value)


def seen(found: Embedded) -> str:
    """The picture in words, for those who cannot see it, and for servers that drop pictures."""
    table = found.clusters
    largest = [
        f"{r['cluster']} ({int(r['cells']):,} cells{', mostly ' + str(r['label']) if r.get('label') else ''})"
        for r in table.head(5).to_dict("records")
    ]
    return f"Map of {number(found.about['cells'])} cells by their joint embedding; the largest clusters: {', '.join(largest)}"


# ---- what else


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """Notes of scores, and features of embedded cells that the model knows but the file lacks."""
    rows = []
    for part in inputs.evaluations:
        notes = (part.embedding or {}).get("notes") or []
        rows += [{"where": f"{part.name}, joint embedding", "what": str(n), "level": "warning"} for n in notes]
    for found in inputs.embeddings:
        for modality, about in _modalities(found.about).items():
            content = {"missing": about.get("alignment"), "novelty": about.get("novelty")}
            rows += [{"where": f"{found.name}, {shown(modality)}", **r} for r in unaligned(content, modality)]
    return rows


def provenance(inputs: Inputs) -> list[tuple[str, str]]:
    """Models and fingerprints."""
    rows = []
    for part in inputs.evaluations:
        said = (part.embedding or {}).get("provenance") or {}
        names = {k: k.replace("_sha256", " SHA-256").replace("_", " ") for k in said}
        rows += [(f"{part.name}, embedding: {names[k]}", plain(v)) for k, v in said.items() if v]
    for found in inputs.embeddings:
        said = {"model": found.about.get("model"), "checkpoint SHA-256": found.about.get("checkpoint_sha256")}
        rows += [(f"embedding {found.name}: {k}", plain(v)) for k, v in said.items() if v]
    return rows
