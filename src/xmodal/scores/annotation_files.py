"""The folder ``xmodal evaluate --annotation`` leaves: metrics.json, scores.tsv, types.tsv, calibration.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal.errors import InputRefused
from xmodal.scores import method_files
from xmodal.scores.annotation_texts import OWN as METHOD
from xmodal.scores.annotation_texts import of_calls, of_methods, text_of
from xmodal.scores.evaluation_files import DIGITS, OWN
from xmodal.scores.method_files import rounded

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.annotation_evaluation import Result
    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.text.ontology import Ontology

TARGET = "annotation"  # in scores.tsv, where predictions have their modality
FILES = (*OWN, "types.tsv", "calibration.tsv")
KEPT = ("model", "model_version", "checkpoint_sha256", "version", "seed", "device")


def ontology_of(path: Path | None) -> Ontology | None:
    """The ontology of a file, or of the installed package; None where neither is there."""
    from xmodal.text import ontology

    try:
        return ontology.read(path)
    except InputRefused:
        if path is not None:
            raise
        return None


def results(
    result: Result, mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return method_files.results(TARGET, describe(result), result.scene.which, (mdata, settings, seed, timing))


def describe(result: Result) -> dict[str, Any]:
    """The entry ``annotation`` of metrics.json."""
    found, given = result.scene, result.annotation
    candidates = given.said("candidates") or {}
    return {
        "model": str(given.about.get("model", "")),
        "cells": int(found.scored.sum()),
        "training_cells": int(found.train.sum()),
        "label_key": found.key,
        "possible": round(result.possible, DIGITS),
        "candidates": {k: candidates[k] for k in ("kind", "root", "number") if k in candidates},
        "methods": method_files.scores_of(result.methods, result.methods),
        "types": [rounded(row) for row in result.types],
        "calibration": {m: [rounded(b) for b in bins] for m, bins in result.bins.items()},
        "risk_coverage": {m: [[round(v, DIGITS) for v in p] for p in c] for m, c in result.risks.items()},
        "provenance": {k: given.about[k] for k in KEPT if k in given.about},
        "notes": result.notes,
    }


def write(folder: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.annotation_scores_figure import scores
    from xmodal.reporting.figures import png

    about = content["annotation"]
    bins = [{"method": m, **row} for m, rows in about["calibration"].items() for row in rows]
    types = [{k: v for k, v in row.items() if k != "others"} for row in about["types"]]
    tables = {
        "scores": method_files.table(TARGET, about),
        "types": pd.DataFrame(types),
        "calibration": pd.DataFrame(bins),
    }
    method_files.write(folder, FILES, content, (tables, png(scores(about))), overwrite)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the scores of the labels beside those of plain methods."""
    about = content["annotation"]
    methods = about["methods"]
    lines = [f"annotation: {about['cells']} cells, labels of '{about['label_key']}'"]
    names = {score: text_of(score).name for score in of_methods(methods[METHOD])}
    lines += method_files.lines(methods, names, (40, 10))
    lines += [f"  {text_of(s).name}: {methods[METHOD][s]:.4f}" for s in of_calls(methods[METHOD])]
    return lines
