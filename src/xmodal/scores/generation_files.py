"""The folder ``xmodal evaluate --generated`` leaves: metrics.json, scores.tsv, types.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal.scores import method_files
from xmodal.scores.evaluation_files import OWN
from xmodal.scores.generation_texts import METHODS, of_methods, short
from xmodal.scores.generation_verdicts import judge

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.scores.generation_evaluation import Result

TARGET = "generation"  # in scores.tsv, where predictions have their modality
FILES = (*OWN, "types.tsv")
KEPT = ("model", "model_version", "checkpoint_sha256", "version", "seed", "device")


def results(
    result: Result, mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return method_files.results(TARGET, describe(result), result.scene.which, (mdata, settings, seed, timing))


def describe(result: Result) -> dict[str, Any]:
    """The entry ``generation`` of metrics.json."""
    found, given = result.scene, result.generated
    about = {
        "model": str(given.about.get("model", "")),
        "cells": len(found.generated),
        "test_cells": int((found.test_type >= 0).sum()),
        "training_cells": int((found.train_type >= 0).sum()),
        "label_key": found.key,
        "methods": method_files.scores_of(result.methods, METHODS),
        "types": [method_files.rounded(row) for row in result.types],
        "provenance": {k: given.about[k] for k in KEPT if k in given.about},
        "notes": result.notes,
    }
    return {**about, "passed": judge(about).passed}


def write(folder: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.figures import png
    from xmodal.reporting.generation_scores_figure import scores

    about = content[TARGET]
    tables = {"scores": method_files.table(TARGET, about), "types": pd.DataFrame(about["types"])}
    method_files.write(folder, FILES, content, (tables, png(scores(about))), overwrite)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the scores of the generated cells beside ceiling and floors, and the verdict."""
    about = content[TARGET]
    methods = about["methods"]
    lines = [
        f"generation: {about['cells']} cells of {len(about['types'])} types, against {about['test_cells']} test cells"
    ]
    names = {score: short(score) for score in of_methods(methods["generated"])}
    lines += method_files.lines(methods, names, (32, 12))
    return [*lines, judge(about).headline]
