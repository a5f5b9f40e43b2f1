"""The folder ``xmodal evaluate --annotation`` leaves: metrics.json, scores.tsv, types.tsv, calibration.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.data.genome import genome_of
from xmodal.errors import InputRefused
from xmodal.outputs import replacing_files, write_json
from xmodal.scores.annotation_texts import OWN as METHOD
from xmodal.scores.annotation_texts import of_calls, of_methods, text_of
from xmodal.scores.evaluation_files import DIGITS, OWN, split_of

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.annotation_evaluation import Result
    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.text.ontology import Ontology

TARGET = "annotation"  # in scores.tsv, where predictions have their modality
COLUMNS = ["target", "source", "method", "score", "value"]
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
    return {
        "annotation": describe(result),
        "modalities": {m: {"genome": genome_of(mdata, m)} for m in mdata.mod},
        "split": split_of(mdata),
        "settings": {**settings.model_dump(mode="json"), "cells": result.scene.which, "seed": seed},
        "timing": timing,
    }


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
        "methods": {m: {k: round(v, DIGITS) for k, v in s.items()} for m, s in result.methods.items()},
        "types": [_rounded(row) for row in result.types],
        "calibration": {m: [_rounded(b) for b in bins] for m, bins in result.bins.items()},
        "risk_coverage": {m: [[round(v, DIGITS) for v in p] for p in c] for m, c in result.risks.items()},
        "provenance": {k: given.about[k] for k in KEPT if k in given.about},
        "notes": result.notes,
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()}


def write(folder: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.annotation_scores_figure import scores
    from xmodal.reporting.figures import png

    about = content["annotation"]
    bins = [{"method": m, **row} for m, rows in about["calibration"].items() for row in rows]
    types = [{k: v for k, v in row.items() if k != "others"} for row in about["types"]]
    tables = {"scores": table(about), "types": pd.DataFrame(types), "calibration": pd.DataFrame(bins)}
    with replacing_files(folder, FILES, overwrite) as temporary:
        write_json(temporary / fields.METRICS_FILE, content)
        for name, frame in tables.items():
            frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
        (temporary / "scores.png").write_bytes(png(scores(about)))


def table(about: dict[str, Any]) -> pd.DataFrame:
    """Long table, with the columns that predictions have: one row for each score of each method."""
    rows = [
        (TARGET, "", method, score, value)
        for method, scores in about["methods"].items()
        for score, value in scores.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the scores of the labels beside those of plain methods."""
    about = content["annotation"]
    methods = about["methods"]
    lines = [f"annotation: {about['cells']} cells, labels of '{about['label_key']}'"]
    lines.append("  " + " ".join([f"{'score':40}", *(f"{m:>10}" for m in methods)]))
    for score in of_methods(methods[METHOD]):
        values = (f"{methods[m][score]:10.4f}" if score in methods[m] else f"{'-':>10}" for m in methods)
        lines.append("  " + " ".join([f"{text_of(score).name:40}", *values]))
    lines += [f"  {text_of(s).name}: {methods[METHOD][s]:.4f}" for s in of_calls(methods[METHOD])]
    return lines
