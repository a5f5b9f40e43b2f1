"""The folder ``xmodal evaluate --generated`` leaves: metrics.json, scores.tsv, types.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.data.genome import genome_of
from xmodal.outputs import replacing_files, write_json
from xmodal.scores.evaluation_files import DIGITS, OWN, split_of
from xmodal.scores.generation_texts import METHODS, of_methods, short
from xmodal.scores.generation_verdicts import judge

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.scores.generation_evaluation import Result

TARGET = "generation"  # in scores.tsv, where predictions have their modality
COLUMNS = ["target", "source", "method", "score", "value"]
FILES = (*OWN, "types.tsv")
KEPT = ("model", "model_version", "checkpoint_sha256", "version", "seed", "device")


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
    """The entry ``generation`` of metrics.json."""
    found, given = result.scene, result.generated
    about = {
        "model": str(given.about.get("model", "")),
        "cells": len(found.generated),
        "test_cells": int((found.test_type >= 0).sum()),
        "training_cells": int((found.train_type >= 0).sum()),
        "label_key": found.key,
        "methods": {
            m: {k: round(v, DIGITS) for k, v in result.methods[m].items()} for m in METHODS if m in result.methods
        },
        "types": [{k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()} for row in result.types],
        "provenance": {k: given.about[k] for k in KEPT if k in given.about},
        "notes": result.notes,
    }
    return {**about, "passed": judge(about).passed}


def write(folder: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.figures import png
    from xmodal.reporting.generation_scores_figure import scores

    about = content[TARGET]
    with replacing_files(folder, FILES, overwrite) as temporary:
        write_json(temporary / fields.METRICS_FILE, content)
        for name, frame in (("scores", table(about)), ("types", pd.DataFrame(about["types"]))):
            frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
        (temporary / "scores.png").write_bytes(png(scores(about)))


def table(about: dict[str, Any]) -> pd.DataFrame:
    """Long table, with the columns that predictions have: one row for each score of each method."""
    rows = [
        (TARGET, "", method, score, value) for method, own in about["methods"].items() for score, value in own.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the scores of the generated cells beside ceiling and floors, and the verdict."""
    about = content[TARGET]
    methods = about["methods"]
    lines = [
        f"generation: {about['cells']} cells of {len(about['types'])} types, against {about['test_cells']} test cells"
    ]
    lines.append("  " + " ".join([f"{'score':32}", *(f"{m:>12}" for m in methods)]))
    for score in of_methods(methods["generated"]):
        values = (f"{methods[m][score]:12.4f}" if score in methods[m] else f"{'-':>12}" for m in methods)
        lines.append("  " + " ".join([f"{short(score):32}", *values]))
    return [*lines, judge(about).headline]
