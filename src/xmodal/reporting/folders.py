"""Files in the folders that commands leave, read for a report: tables, JSON; refused where they are not what they should be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal.errors import InputRefused
from xmodal.fields import (
    CT_CLUSTER,
    CT_CLUSTER_LABEL,
    CT_LABEL,
    CT_SECOND,
    CT_TOP,
    NEAREST,
    NEAREST_NAME,
    PROMPT,
    TERM,
)

# Names of features and labels are text, even where they look like numbers or missing values ("NA", "1e5").
NAMES = (
    *("target", "feature", "score", "cell", "kind", "label", "trust", "modality", "group", "method", "cluster"),
    *("gene", "genes", "why", TERM, CT_LABEL, CT_SECOND, CT_TOP, CT_CLUSTER, CT_CLUSTER_LABEL),
    *(PROMPT, NEAREST, NEAREST_NAME, "cells_of", "extrapolating"),
)
TEXT = dict.fromkeys(NAMES, str)
PNG = b"\x89PNG\r\n\x1a\n"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise InputRefused("this is not a JSON file", where=str(path), do="give what xmodal wrote") from None
    if not isinstance(content, dict):
        raise InputRefused("it holds no JSON object", where=str(path), do="give what xmodal wrote")
    return content


def name_of(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name  # of a link its own name


def member(folder: Path, name: str, command: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputRefused(
            f"there is no {name} in it", where=str(folder), do=f"give a folder that xmodal {command} wrote"
        )
    return path


def table(path: Path) -> pd.DataFrame:
    if not path.is_file() or path.stat().st_size == 0:
        return pd.DataFrame()
    try:
        return pd.read_csv(
            path, sep="\t", dtype=TEXT, keep_default_na=False, na_values={c: [""] for c in _numeric(path)}
        )
    except (ValueError, pd.errors.ParserError):
        raise InputRefused("this is not a table xmodal wrote", where=str(path), do="run the command again") from None


def _numeric(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as handle:
        return [c for c in handle.readline().rstrip("\n").split("\t") if c not in TEXT]
