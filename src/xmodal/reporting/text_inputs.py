"""What a report is made of, cells and text: folders that annotate, describe and generate left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal.errors import InputRefused
from xmodal.fields import CT_STATUS, CT_TOP, NEAREST_NAME, PROMPT
from xmodal.reporting.folders import PNG, member, name_of, read_json, table


@dataclass(frozen=True)
class Annotated:
    """A folder that ``xmodal annotate --report-dir`` left; ``table``: of the labels, ``picture`` is a PNG."""

    name: str
    about: dict[str, Any]
    table: pd.DataFrame
    genes: pd.DataFrame
    clusters: pd.DataFrame
    cells: pd.DataFrame
    picture: bytes


@dataclass(frozen=True)
class Described:
    """A folder that ``xmodal describe`` left: what descriptions.json holds."""

    name: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Imagined:
    """A folder that ``xmodal generate --overview`` left; ``prompts`` and ``genes``: its tables, ``picture`` is a PNG."""

    name: str
    about: dict[str, Any]
    prompts: pd.DataFrame
    genes: pd.DataFrame
    picture: bytes


def annotated(folder: Path, name: str = "") -> Annotated:
    """What annotate left in ``folder``, called like it where no name is given."""
    from xmodal.annotating import writing as files

    needed = (files.SUMMARY, files.COMPOSITION, files.CELLS, files.PICTURE)
    about, labels, cells, picture = (member(folder, n, "annotate --report-dir") for n in needed)
    content, rows, every = read_json(about), table(labels), table(cells)
    drawn = picture.read_bytes()
    whole = {"cells", "status", "composition"} <= set(content) and {"label", "cells"} <= set(rows)
    if not (whole and {"cell", CT_STATUS, CT_TOP} <= set(every) and drawn.startswith(PNG)):
        raise InputRefused("this is no annotation", where=str(folder), do="give what annotate --report-dir wrote")
    genes, clusters = table(folder / files.GENES), table(folder / files.CLUSTERS)
    return Annotated(name or name_of(folder), content, rows, genes, clusters, every, drawn)


def described(folder: Path) -> Described:
    """What describe left in ``folder``."""
    from xmodal.describing.writing import CONTENT_FILE

    content = read_json(member(folder, CONTENT_FILE, "describe"))
    if not {"units", "decoder", "genes", "cells"} <= set(content):
        raise InputRefused(
            "these are no descriptions", where=str(folder), do="give a folder that xmodal describe wrote"
        )
    return Described(name_of(folder), content)


def imagined(folder: Path) -> Imagined:
    """What generate --overview left in ``folder``."""
    from xmodal.generating.writing import GENES, PICTURE, PROMPTS, SUMMARY

    paths = [member(folder, n, "generate --overview") for n in (SUMMARY, PROMPTS, GENES, PICTURE)]
    found = Imagined(name_of(folder), read_json(paths[0]), table(paths[1]), table(paths[2]), paths[3].read_bytes())
    whole = {"prompts", "cells"} <= set(found.about) and {PROMPT, NEAREST_NAME, "cells"} <= set(found.prompts)
    if not (whole and {PROMPT, "gene"} <= set(found.genes) and found.picture.startswith(PNG)):
        raise InputRefused("these are no generated cells", where=str(folder), do="give what generate --overview wrote")
    return found
