"""What the folders of `xmodal evaluate` have in common where methods are scored beside each other on the same cells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.data.genome import genome_of
from xmodal.outputs import replacing_files, write_json
from xmodal.scores.evaluation_files import DIGITS, split_of

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings

COLUMNS = ["target", "source", "method", "score", "value"]  # those that predictions have
Run = tuple["MuData", "EvaluationSettings", int, dict[str, Any]]  # truth, settings, seed, timing


def results(target: str, about: dict[str, Any], cells: str, run: Run) -> dict[str, Any]:
    """Content of metrics.json: ``about`` under ``target``, and of what it was made; ``cells``: which of them were scored."""
    mdata, settings, seed, timing = run
    return {
        target: about,
        "modalities": {m: {"genome": genome_of(mdata, m)} for m in mdata.mod},
        "split": split_of(mdata),
        "settings": {**settings.model_dump(mode="json"), "cells": cells, "seed": seed},
        "timing": timing,
    }


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()}


def scores_of(methods: dict[str, dict[str, float]], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """The methods ``names`` that there are, in their order, with their scores rounded."""
    return {m: {k: round(v, DIGITS) for k, v in methods[m].items()} for m in names if m in methods}


def table(target: str, about: dict[str, Any]) -> pd.DataFrame:
    """Long table: one row for each score of each method."""
    rows = [
        (target, "", method, score, value) for method, own in about["methods"].items() for score, value in own.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def write(
    folder: Path,
    own: tuple[str, ...],
    content: dict[str, Any],
    kept: tuple[dict[str, pd.DataFrame], bytes],
    overwrite: bool,
) -> None:
    """metrics.json, tables and picture into ``folder`` at once; ``own``: names of all that an earlier run may have left.

    ``kept`` = (tables by their names, the picture scores.png).
    """
    tables, picture = kept
    with replacing_files(folder, own, overwrite) as temporary:
        write_json(temporary / fields.METRICS_FILE, content)
        for name, frame in tables.items():
            frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
        (temporary / "scores.png").write_bytes(picture)


def lines(methods: dict[str, dict[str, float]], names: dict[str, str], widths: tuple[int, int]) -> list[str]:
    """For a person: the scores ``names`` (their words), a column for each method; ``widths`` of words and columns."""
    first, width = widths
    found = ["  " + " ".join([f"{'score':{first}}", *(f"{m:>{width}}" for m in methods)])]
    for score, name in names.items():
        values = (f"{own[score]:{width}.4f}" if score in own else f"{'-':>{width}}" for own in methods.values())
        found.append("  " + " ".join([f"{name:{first}}", *values]))
    return found
