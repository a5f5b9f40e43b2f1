"""The folder ``xmodal evaluate --embedding`` leaves: metrics.json, scores.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xmodal import fields
from xmodal.data.genome import genome_of
from xmodal.outputs import replacing_files, write_json
from xmodal.scores.embedding_evaluation import OWN as METHOD
from xmodal.scores.embedding_texts import headline, of_meeting, short, text_of
from xmodal.scores.evaluation_files import DIGITS, OWN, split_of
from xmodal.scores.validation_cells import TRIAL, of_trial

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.embedding_evaluation import Result
    from xmodal.scores.evaluation_settings import EvaluationSettings

TARGET = "embedding"  # in scores.tsv, where predictions have their modality
COLUMNS = ["target", "source", "method", "score", "value"]


def results(
    result: Result, mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return {
        "embedding": describe(result),
        "modalities": {m: {"genome": genome_of(mdata, m)} for m in mdata.mod},
        "split": split_of(mdata),
        "settings": {**settings.model_dump(mode="json"), "cells": result.scene.which, "seed": seed},
        "timing": timing,
    }


def describe(result: Result) -> dict[str, Any]:
    """The entry ``embedding`` of metrics.json."""
    found, about = result.scene, result.embedding.about
    every = found.scored | found.train
    kept = ("model", "model_version", "checkpoint_sha256", "version", "seed", "device")
    clusters = {m: {"clusters": n, "resolution": round(r, DIGITS)} for m, (r, n) in result.clusters.items()}
    return {
        "model": str(about.get("model", "")),
        "cells": int(found.scored.sum()),
        "training_cells": int(found.train.sum()),
        "dimensions": result.embedding.z.shape[1],
        "label_key": found.labels.key if found.labels else None,
        "labels": found.labels.counts(found.scored) if found.labels else {},
        "batch_key": found.batches.key if found.batches else None,
        "batches": found.batches.counts(every) if found.batches else {},
        "methods": {m: {k: round(v, DIGITS) for k, v in s.items()} for m, s in result.methods.items()},
        "method_cells": result.cells,
        "clusters": clusters,
        "paired": result.paired,
        "provenance": {k: about[k] for k in kept if k in about},
        "notes": result.notes,
        **({TRIAL: True} if of_trial(about) else {}),
    }


def write(folder: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting.embedding_scores_figure import scores
    from xmodal.reporting.figures import png

    about = content["embedding"]
    with replacing_files(folder, OWN, overwrite) as temporary:
        write_json(temporary / fields.METRICS_FILE, content)
        table(about).to_csv(temporary / "scores.tsv", sep="\t", index=False, lineterminator="\n")
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
    """Lines for a person: the headline scores of the embedding beside those of the plain ones."""
    about = content["embedding"]
    methods = about["methods"]
    lines = [f"embedding: {about['cells']} cells x {about['dimensions']} dimensions"]
    lines.append("  " + " ".join([f"{'score':28}", *(f"{m:>12}" for m in methods)]))
    for score in headline(methods[METHOD]):
        values = (f"{methods[m][score]:12.4f}" if score in methods[m] else f"{'-':>12}" for m in methods)
        lines.append("  " + " ".join([f"{short(score):28}", *values]))
    lines += [f"  {text_of(s).name}: {methods[METHOD][s]:.4f}" for s in of_meeting(methods[METHOD])]
    return lines
