"""Words of the report about annotated cells: their labels, how sure these are, by which genes, and what was rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.reporting.report_words import number, plain, unaligned
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    from xmodal.reporting.report_inputs import Inputs
    from xmodal.reporting.text_inputs import Annotated

Content = dict[str, Any]
SHOWN_GENES = 8  # of each call on the page
MOST_LABELS = 40  # rows of a table; all are in composition.tsv
REJECTED = 20  # rejected cells on the page
WHY = {
    "novel": "unlike every type that the model was trained on",
    "undecided": "no term that says more than 'a cell' is likely enough",
    "empty": "no counts",
}
KINDS = {
    "seen": "the types that the model was trained on",
    "all": "all terms under",
    "given": "the terms that were given",
}
GLOSSARY = {
    "Cell Ontology": "The common list of cell types, with an id for each (CL:0000084 is the T cell) and what is a kind of what.",
    "Calibrated probability": "Of the cells whose label has a probability of 80 %, about 80 % are right, among cells like "
    "those that the model was tried on.",
    "Coarse label": "A more general term that holds all likely ones: 'T cell' where two kinds of T cells are equally likely.",
    "Unknown": "A cell that is unlike every type trained on, or for which no term is likely enough. It gets no id.",
}


def glossary(inputs: Inputs) -> dict[str, str]:
    """The words that only pages about annotation use."""
    return GLOSSARY if inputs.annotations or any(e.annotation for e in inputs.evaluations) else {}


def answer(inputs: Inputs) -> list[str]:
    """Lines for the head of the page."""
    lines = []
    for found in inputs.annotations:
        about, status = found.about, found.about["status"]
        lines.append(
            f"{found.name}: of {number(about['cells'])} cells, {number(status[fields.ASSIGNED])} got a label, "
            f"{number(status[fields.COARSE])} a more general one, and {number(status[fields.UNKNOWN])} none"
            f"{_most(found.table)}."
        )
    for part in inputs.evaluations:
        if part.annotation:
            lines.append(
                f"The labels of {number(part.annotation.get('cells'))} cells were compared with those that are known "
                f"({part.name})."
            )
    return lines


def _most(table: pd.DataFrame) -> str:
    first = table[table["label"] != fields.UNKNOWN].head(3)
    named = [f"{r['label']} ({100 * r['share']:.0f} %)" for r in first.to_dict("records")]
    return f"; the most frequent: {', '.join(named)}" if named else ""


def section(found: Annotated) -> Content:
    """What the template shows of one annotated sample."""
    about, table = found.about, found.table
    why = {WHY.get(k, k): n for k, n in (about.get("why_unknown") or {}).items() if n}
    return {
        "name": found.name,
        "picture": found.picture,
        "alt": seen(found),
        "rows": [_row(r) for r in table.head(MOST_LABELS).to_dict("records")],
        "more": max(0, len(table) - MOST_LABELS),
        "genes": genes(found),
        "clusters": clusters(found),
        "facts": facts(about),
        "why": why,
        "rejected": rejected(found),
        "unknown": int(about["status"][fields.UNKNOWN]),
    }


def _row(row: Content) -> Content:
    return {
        "label": row["label"],
        "term": "-" if row[fields.TERM] == fields.UNKNOWN else row[fields.TERM],
        "cells": int(row["cells"]),
        "share": f"{100 * row['share']:.1f} %",
        "coarse": int(row[fields.COARSE]),
        "score": float(row["mean_score"]),
    }


def genes(found: Annotated) -> list[Content]:
    """For each call the genes that spoke most for it; in brackets in how many of its cells, and of all others, each was seen."""
    if not len(found.genes):
        return []
    rows = []
    order = {label: i for i, label in enumerate(found.table["label"])}
    for label, own in sorted(found.genes.groupby("label", sort=False), key=lambda item: order.get(str(item[0]), 0)):
        first = own.sort_values("rank", kind="stable").head(SHOWN_GENES).to_dict("records")
        shown_genes = [{"gene": r["gene"], "seen": f"{_percent(r['inside'])}, {_percent(r['outside'])}"} for r in first]
        rows.append({"label": str(label), "cells": int(own["cells"].iloc[0]), "genes": shown_genes})
    return rows[:MOST_LABELS]


def _percent(share: Any) -> str:
    return "-" if pd.isna(share) else f"{100 * share:.0f} %"


def clusters(found: Annotated) -> Content | None:
    """How far the cells of a cluster agree; the clusters that agree least, where their table is given."""
    about = found.about.get("clusters")
    if not about:
        return None
    table = found.clusters
    if len(table):
        least = table[(table["cells"] >= 3) & (table["agreement"] < 1)]
        table = least.sort_values(["agreement", "cluster"], kind="stable").head(10)
    return {
        "key": "small clusters of the embedding" if about["key"] == "auto" else f"obs column {about['key']}",
        "number": about["clusters"],
        "agreement": about["agreement"],
        "rows": table.to_dict("records"),
    }


def rejected(found: Annotated) -> list[Content]:
    """The cells that got no label, those first that were least like the types trained on."""
    cells = found.cells
    if not len(cells):
        return []
    own = cells[cells[fields.CT_STATUS] == fields.UNKNOWN].sort_values([fields.CT_KNOWN, "cell"], kind="stable")
    names = found.about.get("names") or {}
    rows = []
    for r in own.head(REJECTED).to_dict("records"):
        best, _, share = str(r[fields.CT_TOP]).split("|")[0].rpartition("=")
        rows.append(
            {
                "cell": r["cell"],
                "why": WHY.get(str(r["why"]), str(r["why"])),
                "best": f"{names.get(best, best)} ({100 * float(share):.0f} %)",
                "known": float(r[fields.CT_KNOWN]),
                "counts": int(r["counts"]),
                "unlike": str(r[fields.UNLIKE]) == "True",
            }
        )
    return rows


def facts(about: Content) -> Content:
    """How it was made, for a table of two columns."""
    chosen, limits = about.get("candidates") or {}, about.get("thresholds") or {}
    kind = KINDS.get(str(chosen.get("kind")), str(chosen.get("kind")))
    root = str(chosen.get("root") or "")
    texts = about.get("ontology") or {}
    unlike = about.get("unlike")
    found = {
        "Model": about.get("model"),
        "Cells": about.get("cells"),
        "Candidates": f"{number(chosen.get('number'))}: {kind}{' ' + root if root else ''}",
        "Types that the model was trained on": len(about.get("seen") or []),
        "Least probability of a label": limits.get("least"),
        "Rejected below a likeness of": limits.get("reject") if limits.get("least") else "nothing",
        "Cell Ontology": f"{texts.get('source')} ({texts.get('version')})",
        "Cells unlike the training cells": f"{100 * unlike:.1f} %" if isinstance(unlike, int | float) else None,
    }
    return {k: v for k, v in found.items() if v not in (None, "")}


def seen(found: Annotated) -> str:
    """The picture in words, for those who cannot see it, and for servers that drop pictures."""
    first = [f"{r['label']} {int(r['cells']):,}" for r in found.table.head(6).to_dict("records")]
    return f"Cells of each label ({', '.join(first)}), how sure the labels are, and how like the types trained on the cells are"


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """Features that the model knows but the file lacks, unlike cells, notes of scores."""
    rows = []
    for part in inputs.evaluations:
        notes = (part.annotation or {}).get("notes") or []
        rows += [{"where": f"{part.name}, cell types", "what": str(n), "level": "warning"} for n in notes]
    for found in inputs.annotations:
        for modality, about in (found.about.get("modalities") or {}).items():
            content = {"missing": about.get("alignment"), "novelty": about.get("novelty")}
            rows += [{"where": f"{found.name}, {shown(modality)}", **r} for r in unaligned(content, modality)]
    return rows


def provenance(inputs: Inputs) -> list[tuple[str, str]]:
    """Models and fingerprints."""
    rows = []
    for part in inputs.evaluations:
        said = (part.annotation or {}).get("provenance") or {}
        rows += [(f"{part.name}, cell types: {k.replace('_', ' ')}", plain(v)) for k, v in said.items() if v]
    for found in inputs.annotations:
        encoder = found.about.get("text_encoder") or {}
        said = {
            "model": found.about.get("model"),
            "checkpoint SHA-256": found.about.get("checkpoint_sha256"),
            "text encoder": f"{encoder.get('name')} ({str(encoder.get('digest'))[:12]})" if encoder else "",
        }
        rows += [(f"annotation {found.name}: {k}", plain(v)) for k, v in said.items() if v]
    return rows
