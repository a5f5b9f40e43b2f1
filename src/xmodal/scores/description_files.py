"""The folder ``xmodal evaluate --description`` leaves: metrics.json, scores.tsv, wrong.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal.scores import method_files
from xmodal.scores.description_texts import METHODS, OWN, ordered, text_of
from xmodal.scores.evaluation_files import OWN as FILES_OF_PREDICTIONS

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.description_evaluation import Result
    from xmodal.scores.evaluation_settings import EvaluationSettings

TARGET = "description"  # in scores.tsv, where predictions have their modality
FILES = (*FILES_OF_PREDICTIONS, "wrong.tsv")
KEPT = ("model", "checkpoint_sha256", "version", "seed", "ontology", "decoder", "group_by", "genes")


def results(
    result: Result, mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return method_files.results(TARGET, describe(result), result.scene.which, (mdata, settings, seed, timing))


def describe(result: Result) -> dict[str, Any]:
    """The entry ``description`` of metrics.json."""
    found, given = result.scene, result.description
    return {
        "model": str(given.about.get("model", "")),
        "cells": int(found.scored.sum()),
        "descriptions": len(given.units),
        "label_key": found.key,
        "methods": method_files.scores_of(result.methods, METHODS),
        "counts": result.faith.counts,
        "wrong": len(result.faith.wrong),
        "text_encoder": result.encoder,
        "provenance": {k: given.about[k] for k in KEPT if k in given.about},
        "notes": result.notes,
    }


def write(folder: Path, result: Result, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.description_scores_figure import scores
    from xmodal.reporting.figures import png

    tables = {
        "scores": method_files.table(TARGET, content[TARGET]),
        "wrong": pd.DataFrame({"what": result.faith.wrong}),
    }
    method_files.write(folder, FILES, content, (tables, png(scores(content[TARGET]))), overwrite)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the scores of the descriptions beside those of plain texts."""
    about = content[TARGET]
    methods = about["methods"]
    lines = [f"{about['descriptions']} descriptions of {about['cells']} cells, labels of '{about['label_key']}'"]
    names = {score: text_of(score).name for score in ordered(methods[OWN])}
    lines += method_files.lines(methods, names, (52, 12))
    if about["wrong"]:
        lines.append(f"  {about['wrong']} things are not true or not proven: wrong.tsv")
    return lines
