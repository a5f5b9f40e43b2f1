"""What ``xmodal describe`` leaves: descriptions.tsv, descriptions.json (every sentence with its evidence), index.html."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal.describing.evidence import GENE
from xmodal.outputs import replacing_files, write_json
from xmodal.text.ontology import PSEUDO

if TYPE_CHECKING:
    from xmodal.describing.run import Found, Unit

TABLE_FILE, CONTENT_FILE, PAGE_FILE = OWN = ("descriptions.tsv", "descriptions.json", "index.html")
DIGITS = 6  # significant ones of values in the JSON
COLUMNS = (
    *("name", "group", "cells", "label", "cell_type_ontology_term_id", "status", "probability", "genes"),
    *("text", "text_with_evidence"),
)


def write(folder: Path, found: Found, overwrite: bool = False) -> dict[str, Any]:
    """Write everything into ``folder`` at once; returns what descriptions.json holds."""
    from xmodal.describing import page

    with replacing_files(folder, OWN, overwrite) as temporary:
        about = content(found)
        write_json(temporary / CONTENT_FILE, about)
        table(found).to_csv(temporary / TABLE_FILE, sep="\t", index=False, lineterminator="\n")
        (temporary / PAGE_FILE).write_text(page.render(found), encoding="utf-8")
    return about


def content(found: Found) -> dict[str, Any]:
    """What descriptions.json holds; ``groups``: the cells in which genes were chosen, and those in which they were tested."""
    names = found.job.cells.names
    groups = {}
    for group in found.groups.names:
        chosen, tested = found.named.halves(group)
        genes = [str(g) for g in found.named.of(group, confirmed=False)["gene"]]
        groups[group] = {"chosen_in": list(names[chosen]), "tested_in": list(names[tested]), "genes": genes}
    return {**found.about, "groups": groups, "units": [_unit(unit) for unit in found.units]}


def name_of(unit: Unit) -> str:
    return unit.subject.group if unit.subject.cell is None else unit.subject.cell


def _unit(unit: Unit) -> dict[str, Any]:
    subject = unit.subject
    return {
        "name": name_of(unit),
        "group": subject.group,
        "cell": subject.cell,
        "cells": len(unit.rows),
        "term": subject.call.term,
        "label": subject.call.name,
        "status": subject.call.status,
        "text": unit.text,
        "sentences": [one.to_json() for one in unit.sentences],
        "evidence": [_rounded(one.to_json()) for one in unit.evidence],
    }


def _rounded(value: Any) -> Any:
    """Floats with so many significant digits: the last ones differ between machines."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def table(found: Found) -> pd.DataFrame:
    """One row for each description."""
    return pd.DataFrame([_row(unit) for unit in found.units], columns=list(COLUMNS))


def _row(unit: Unit) -> dict[str, Any]:
    call = unit.subject.call
    genes = [one.values["gene"] for one in unit.evidence if one.kind == GENE]
    return {
        "name": name_of(unit),
        "group": unit.subject.group,
        "cells": len(unit.rows),
        "label": call.name,
        "cell_type_ontology_term_id": "unknown" if call.term.startswith(PSEUDO) else call.term,
        "status": call.status,
        "probability": round(call.score, 4),
        "genes": "|".join(genes),
        "text": unit.text,
        "text_with_evidence": " ".join(f"{s.text} [{', '.join(s.evidence)}]" for s in unit.sentences),
    }


def in_words(about: dict[str, Any]) -> list[str]:
    """Lines for a person."""
    units, genes, decoder = about["units"], about["genes"], about["decoder"]
    what = "cells" if about["settings"]["per"] == "cell" else "groups"
    named = sum(u["status"] != "unknown" for u in units)
    lines = [f"{len(units)} {what} described, {named} with a name (groups: {about['group_by']})"]
    if genes["chosen"]:
        lines.append(
            f"genes: {genes['chosen']} chosen in one half of the cells, {genes['confirmed']} confirmed in the other"
        )
    if "sentences" in decoder:
        share = f"{decoder['fallen_back']} of {decoder['sentences']} sentences are the template's instead"
        lines.append(f"worded by {decoder['name']}: {share}")
    return [*lines, *(f"note: {note}" for note in about["notes"])]
