"""The work of ``xmodal markers``: cells in, the folder of tables and pictures out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal import __version__
from xmodal.data import io
from xmodal.errors import InputRefused
from xmodal.fields import CLUSTER
from xmodal.markers import comparison, groups, measured
from xmodal.markers.comparison import Compared
from xmodal.markers.settings import MarkerSettings
from xmodal.outputs import replacing_files, write_json

log = logging.getLogger(__name__)
TABLE_FILE, CONTENT_FILE, PICTURE = "markers.tsv", "markers.json", "markers_{}.png"
OWN = (TABLE_FILE, CONTENT_FILE, PICTURE.format("*"))
SCHEMA = "xmodal-markers/1"
DIGITS = 6  # significant ones in the table
TWICE = (
    "the clusters were found in the same cells, which makes p-values better than they are: they order the features, and "
    "do not prove that a cluster exists"
)


@dataclass(frozen=True)
class Found:
    """All modalities, and what markers.json holds."""

    modalities: list[Compared]
    about: dict[str, Any]
    top: int


def run(path: Path, settings: MarkerSettings, seed: int = 0) -> Found:
    """Compare the groups in every modality; nothing is drawn, so ``seed`` is only noted."""
    mdata = io.read_cells(path)
    kinds = measured.kinds(mdata, measured.names_of(mdata, settings.modality, path), path)
    known = groups.find(mdata, settings)
    without = int((known.codes < 0).sum())
    compared: list[Compared] = []
    for name, kind in kinds.items():
        log.info("%s: %d groups are compared", name, len(known.asked))
        compared.append(comparison.compare(measured.of_modality(mdata, name, kind, known), settings))
    if not any(len(c.table) for c in compared):
        first = next(f"{group}: {what}" for c in compared for what, group in c.notes if group)
        raise InputRefused(
            f"no group can be compared ({first})",
            where=str(path),
            do="lower --min-cells, or give another --group-by, --sample-key or --method",
        )
    about = {
        "schema": SCHEMA,
        "command": "markers",
        "version": __version__,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "group_by": settings.group_by,
        "groups": {name: int((known.codes == i).sum()) for i, name in enumerate(known.names)},
        "sample_key": known.sample_key,
        "samples": len(known.samples),
        "modalities": {c.name: c.about for c in compared},
        "notes": _notes(settings, without, compared),
    }
    return Found(compared, about, settings.top)


def _notes(settings: MarkerSettings, without: int, compared: list[Compared]) -> list[str]:
    """Each once, with the groups that it is about."""
    notes = [TWICE] if settings.group_by == CLUSTER else []
    if without:
        notes.append(f"{without} cells have no value in '{settings.group_by}' and are left out")
    for found in compared:
        about: dict[str, list[str]] = {}
        for what, group in found.notes:
            about.setdefault(what, []).append(group)
        for what, names in about.items():
            every = len(names) == len(found.about["groups"])
            of = "" if names == [""] else ", all groups" if every else f", {', '.join(names)}"
            notes.append(f"{found.name}{of}: {what}")
    return notes


def write(folder: Path, found: Found, overwrite: bool = False) -> dict[str, Any]:
    """Write everything into ``folder`` at once; returns what markers.json holds."""
    from xmodal.reporting import figures, markers_figure

    with replacing_files(folder, OWN, overwrite) as temporary:
        table = pd.concat([c.table for c in found.modalities if len(c.table)], ignore_index=True)
        table.to_csv(temporary / TABLE_FILE, sep="\t", index=False, lineterminator="\n", float_format=f"%.{DIGITS}g")
        write_json(temporary / CONTENT_FILE, found.about)
        for compared in found.modalities:
            if len(compared.table):
                picture = figures.png(markers_figure.markers(compared, found.top))
                (temporary / PICTURE.format(compared.name)).write_bytes(picture)
    return found.about


def in_words(about: dict[str, Any]) -> list[str]:
    """Lines for a person."""
    lines = []
    for name, modality in about["modalities"].items():
        counts = {group: own.get("markers", 0) for group, own in modality["groups"].items() if own["method"]}
        each = ", ".join(f"{group} {number}" for group, number in counts.items())
        lines.append(f"{name}: {sum(counts.values())} markers of {len(counts)} groups ({each})")
    return [*lines, *(f"note: {note}" for note in about["notes"])]
