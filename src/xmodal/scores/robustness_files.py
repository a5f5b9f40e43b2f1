"""The folder ``xmodal evaluate --drop --noise`` leaves: metrics.json, robustness.tsv, scores.tsv and robustness.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.outputs import replacing_files, write_json
from xmodal.provenance import sha256
from xmodal.scores import method_files
from xmodal.scores.evaluation_files import OWN as OTHERS
from xmodal.scores.robustness_changes import Change
from xmodal.scores.robustness_evaluation import AUROC, BALANCED, COLUMNS, KNN, PEARSON
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    from xmodal.scores.method_files import Run
    from xmodal.scores.robustness_evaluation import Scene

TARGET = "robustness"
OWN = (*OTHERS, "robustness.*")
LABELS = {KNN: "labels by 15 neighbours (share right)", BALANCED: "the same, mean over labels"}
UNITS = {PEARSON: "Pearson r", AUROC: "AUROC"}


def results(scene: Scene, rows: list[dict[str, Any]], model: Path, run: Run) -> dict[str, Any]:
    """Content of metrics.json."""
    settings = run[1]
    about = {
        "model": scene.model.name,
        "cells": len(scene.test),
        "training_cells": len(scene.train),
        "label_key": settings.label_key if scene.labels is not None else None,
        "rows": [method_files.rounded(row) for row in rows],
        "provenance": {"model": scene.model.name, "checkpoint_sha256": sha256(model)},
        "notes": scene.notes,
    }
    return method_files.results(TARGET, about, scene.which, run)


def table(about: dict[str, Any]) -> pd.DataFrame:
    """robustness.tsv."""
    return pd.DataFrame(about["rows"], columns=COLUMNS)


def scores_table(about: dict[str, Any]) -> pd.DataFrame:
    """The same as every evaluation has it: a change is a method."""
    rows = [
        (r["target"], r["source"], Change(r["kind"], r["modality"], r["strength"]).name, r["score"], r["value"])
        for r in about["rows"]
    ]
    return pd.DataFrame(rows, columns=method_files.COLUMNS)


def write(folder: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.figures import png
    from xmodal.reporting.robustness_figure import curves

    about = content[TARGET]
    with replacing_files(folder, OWN, overwrite) as temporary:
        write_json(temporary / fields.METRICS_FILE, content)
        for name, frame in (("robustness", table(about)), ("scores", scores_table(about))):
            frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
        (temporary / "robustness.png").write_bytes(png(curves(about)))


def said(row: dict[str, Any]) -> str:
    """What a score is of, in words."""
    if not row["target"]:
        return LABELS[row["score"]]
    how = f"from {shown(row['source'])}" if row["source"] else "imputed"
    return f"{shown(row['target'])} {how} ({UNITS[row['score']]})"


def series(about: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[float, float]]]:
    """By (kind, modality) and what is scored: the value at each strength."""
    found: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for row in about["rows"]:
        own = found.setdefault((row["kind"], row["modality"]), {}).setdefault(said(row), {})
        own[row["strength"]] = row["value"]
    return found


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: each curve in a row."""
    about = content[TARGET]
    lines = [f"robustness of {about['model']}: {about['cells']} cells, {about['training_cells']} training cells"]
    for (kind, modality), curves in series(about).items():
        strengths = sorted({s for own in curves.values() for s in own})
        lines.append(f"  {f'{kind} {modality}':40} " + " ".join(f"{s:>8g}" for s in strengths))
        for name, own in curves.items():
            lines.append(f"    {name:38} " + " ".join(f"{own[s]:8.4f}" for s in strengths))
    return lines
