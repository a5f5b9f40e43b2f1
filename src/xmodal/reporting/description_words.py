"""Words of the report about descriptions that were compared with known types and with the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting import description_scores_figure, figures
from xmodal.reporting.annotation_scores_words import best_of
from xmodal.reporting.report_words import number, plain
from xmodal.scores.description_texts import METHODS, OWN, ordered, text_of

if TYPE_CHECKING:
    from xmodal.reporting.report_inputs import Evaluation, Inputs
    from xmodal.reporting.text_inputs import Described

MOST_TEXTS = 40  # on the page; all are in descriptions.tsv


def scored(part: Evaluation) -> dict[str, Any]:
    """One evaluated file of descriptions: what it amounts to, scores of all methods, picture."""
    about = part.description or {}
    methods = {m: v for m, v in (about.get("methods") or {}).items() if m in METHODS}
    own, names = methods.get(OWN) or {}, [m for m in METHODS if m in methods]
    return {
        "name": part.name,
        "about": about,
        "methods": {m: METHODS[m] for m in names},
        "lines": lines(about),
        "rows": [row(s, {m: methods[m] for m in names}) for s in ordered(own)],
        "picture": figures.png(description_scores_figure.scores(about)) if own else b"",
    }


def row(score: str, methods: dict[str, dict[str, float]]) -> dict[str, Any]:
    """One row of the table of scores, the best marked."""
    text = text_of(score)
    values = {m: v[score] for m, v in methods.items() if score in v}
    return {"key": score, "text": text, "values": values, "best": best_of(values, text.better)}


def answer(inputs: Inputs) -> list[str]:
    """Lines for the top of the page."""
    told = [f"{d.name}: {_said(d)}" for d in inputs.descriptions]
    return told + [
        f"Descriptions ({e.name}): {x}" for e in inputs.evaluations if e.description for x in lines(e.description)
    ]


def _said(found: Described) -> str:
    """What was described, in a sentence or two."""
    about, genes = found.about, found.about["genes"]
    what = "single cells" if (about.get("settings") or {}).get("per") == "cell" else "groups of cells"
    tested = (
        f" Of {number(genes['chosen'])} genes chosen in one half of the cells, {number(genes['confirmed'])} were confirmed "
        "in the other, and only these are named."
    )
    said = f"{number(len(about['units']))} {what} out of {number(about['cells'])} cells were described in words."
    return said + (tested if genes.get("chosen") else "")


def section(found: Described) -> dict[str, Any]:
    """What the template shows of one folder of descriptions."""
    from xmodal.describing.page import in_order

    units = found.about["units"]
    units = in_order(units, str(found.about.get("group_by")), [int(unit["cells"]) for unit in units])
    return {
        "name": found.name,
        "line": _said(found),
        "units": [_unit(u) for u in units[:MOST_TEXTS]],
        "more": max(0, len(units) - MOST_TEXTS),
    }


def _unit(unit: dict[str, Any]) -> dict[str, Any]:
    name, label = str(unit["name"]), str(unit["label"])
    cells = int(unit["cells"])
    line = f"{number(cells)} cells" if unit.get("cell") is None else f"a cell of the group {unit['group']}"
    title = label if name == label else f"{name}: {label}"
    said = {"title": title, "line": f"{line}, {unit['status']}", "text": unit["text"]}
    return {**said, "name": name, "label": label, "cells": cells}


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """Notes of descriptions and of their scores."""
    told = [(d.name, d.about) for d in inputs.descriptions]
    told += [(e.name, e.description) for e in inputs.evaluations if e.description]
    return [
        {"where": f"{name}, descriptions", "what": str(note), "level": "warning"}
        for name, about in told
        for note in about.get("notes") or []
    ]


def provenance(inputs: Inputs) -> list[tuple[str, str]]:
    """Models, decoders and fingerprints."""
    rows = []
    for part in inputs.evaluations:
        said = (part.description or {}).get("provenance") or {}
        rows += [(f"{part.name}, descriptions: {k.replace('_', ' ')}", plain(v)) for k, v in said.items() if v]
    for found in inputs.descriptions:
        about = found.about
        said = {"model": about.get("model"), "checkpoint SHA-256": about.get("checkpoint_sha256")}
        said["worded by"] = (about.get("decoder") or {}).get("name")
        rows += [(f"descriptions {found.name}: {k}", plain(v)) for k, v in said.items() if v]
    return rows


def lines(about: dict[str, Any]) -> list[str]:
    """What the scores amount to, for a person."""
    own, counts = (about.get("methods") or {}).get(OWN) or {}, about.get("counts") or {}
    found = []
    if "traceable" in own:
        found.append(f"{_of(own['traceable'], counts, 'sentences')} sentences are proven by their evidence.")
    if {"gene_claims_true", "genes_chosen_true"} <= set(own):
        found.append(
            f"{_of(own['gene_claims_true'], counts, 'gene_claims')} genes that are named are high in cells in which they were "
            f"not chosen; so are {_of(own['genes_chosen_true'], counts, 'genes_chosen')} that were chosen."
        )
    if about.get("wrong"):
        found.append(f"{about['wrong']} things are not true or not proven: wrong.tsv.")
    return found


def _of(share: float, counts: dict[str, int], what: str) -> str:
    number = int(counts.get(what, 0))
    return f"{round(share * number)} of {number}"
