"""The folder ``xmodal evaluate --description`` leaves: metrics.json, scores.tsv, wrong.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.data.genome import genome_of
from xmodal.outputs import replacing_files, write_json
from xmodal.scores.description_texts import METHODS, OWN, ordered, text_of
from xmodal.scores.evaluation_files import DIGITS, split_of
from xmodal.scores.evaluation_files import OWN as FILES_OF_PREDICTIONS

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.description_evaluation import Result
    from xmodal.scores.evaluation_settings import EvaluationSettings

TARGET = "description"  # in scores.tsv, where predictions have their modality
COLUMNS = ["target", "source", "method", "score", "value"]
FILES = (*FILES_OF_PREDICTIONS, "wrong.tsv")
KEPT = ("model", "checkpoint_sha256", "version", "seed", "ontology", "decoder", "group_by", "genes")


def results(
    result: Result, mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return {
        TARGET: describe(result),
        "modalities": {m: {"genome": genome_of(mdata, m)} for m in mdata.mod},
        "split": split_of(mdata),
        "settings": {**settings.model_dump(mode="json"), "cells": result.scene.which, "seed": seed},
        "timing": timing,
    }


def describe(result: Result) -> dict[str, Any]:
    """The entry ``description`` of metrics.json."""
    found, given = result.scene, result.description
    methods = {m: {k: round(v, DIGITS) for k, v in result.methods[m].items()} for m in METHODS if m in result.methods}
    return {
        "model": str(given.about.get("model", "")),
        "cells": int(found.scored.sum()),
        "descriptions": len(given.units),
        "label_key": found.key,
        "methods": methods,
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

    tables = {"scores": table(content[TARGET]), "wrong": pd.DataFrame({"what": result.faith.wrong})}
    with replacing_files(folder, FILES, overwrite) as temporary:
        write_json(temporary / fields.METRICS_FILE, content)
        for name, frame in tables.items():
            frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
        (temporary / "scores.png").write_bytes(png(scores(content[TARGET])))


def table(about: dict[str, Any]) -> pd.DataFrame:
    """Long table, with the columns that predictions have: one row for each score of each method."""
    rows = [
        (TARGET, "", method, score, value) for method, own in about["methods"].items() for score, value in own.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the scores of the descriptions beside those of plain texts."""
    about = content[TARGET]
    methods = about["methods"]
    lines = [f"{about['descriptions']} descriptions of {about['cells']} cells, labels of '{about['label_key']}'"]
    lines.append("  " + " ".join([f"{'score':52}", *(f"{m:>12}" for m in methods)]))
    for score in ordered(methods[OWN]):
        values = (f"{methods[m][score]:12.4f}" if score in methods[m] else f"{'-':>12}" for m in methods)
        lines.append("  " + " ".join([f"{text_of(score).name:52}", *values]))
    if about["wrong"]:
        lines.append(f"  {about['wrong']} things are not true or not proven: wrong.tsv")
    return lines
