"""The folder ``xmodal evaluate --embedding`` leaves: metrics.json, scores.tsv and scores.png."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.scores import method_files
from xmodal.scores.embedding_evaluation import OWN as METHOD
from xmodal.scores.embedding_texts import headline, of_meeting, short, text_of
from xmodal.scores.evaluation_files import DIGITS, OWN
from xmodal.scores.validation_cells import TRIAL, of_trial

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.embedding_evaluation import Result
    from xmodal.scores.evaluation_settings import EvaluationSettings

TARGET = "embedding"  # in scores.tsv, where predictions have their modality


def results(
    result: Result, mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return method_files.results(TARGET, describe(result), result.scene.which, (mdata, settings, seed, timing))


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
        "methods": method_files.scores_of(result.methods, result.methods),
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
    tables = {"scores": method_files.table(TARGET, about)}
    method_files.write(folder, OWN, content, (tables, png(scores(about))), overwrite)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the headline scores of the embedding beside those of the plain ones."""
    about = content["embedding"]
    methods = about["methods"]
    lines = [f"embedding: {about['cells']} cells x {about['dimensions']} dimensions"]
    names = {score: short(score) for score in headline(methods[METHOD])}
    lines += method_files.lines(methods, names, (28, 12))
    lines += [f"  {text_of(s).name}: {methods[METHOD][s]:.4f}" for s in of_meeting(methods[METHOD])]
    return lines
