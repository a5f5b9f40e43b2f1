"""The folder ``xmodal evaluate`` leaves: metrics.json, scores.tsv, features.tsv, umap.tsv and pictures."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xmodal import fields
from xmodal.data.genome import genome_of
from xmodal.outputs import replacing_files, write_json
from xmodal.scores import projection
from xmodal.scores.validation_cells import TRIAL, of_trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from xmodal.scores.evaluation import Target
    from xmodal.scores.evaluation_settings import EvaluationSettings

log = logging.getLogger(__name__)
DIGITS = 5
UMAP_COLUMNS = ["target", "cell", "kind", "umap1", "umap2", "label"]


def results(
    targets: Sequence[Target], mdata: MuData, settings: EvaluationSettings, seed: int, timing: dict[str, Any]
) -> dict[str, Any]:
    """Content of metrics.json."""
    return {
        "targets": {t.name: describe(t, settings) for t in targets},
        "modalities": {m: {"genome": genome_of(mdata, m)} for m in mdata.mod},
        "split": split_of(mdata),
        "settings": {**settings.model_dump(mode="json"), "seed": seed},
        "timing": timing,
    }


OWN = (fields.METRICS_FILE, "scores.*", "features.tsv", "features_*.png", "umap.tsv", "umap_*.png", "reliability*")


def write(folder: Path, targets: Sequence[Target], content: dict[str, Any], overwrite: bool) -> None:
    """Write everything into ``folder`` at once; ``content`` is that of metrics.json."""
    from xmodal.reporting import figures

    tables = {"scores": scores_table(targets), "features": features_table(targets)}
    with replacing_files(folder, OWN, overwrite) as temporary:
        tables["umap"] = umap_table(targets, content["settings"]["umap_cells"], content["settings"]["seed"])
        write_json(temporary / fields.METRICS_FILE, content)
        known = [t.intervals.table.round(DIGITS) for t in targets if t.intervals]
        if known:
            tables["reliability"] = pd.concat(known, ignore_index=True)
        for name, frame in tables.items():
            frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
        figures.write_all(temporary, content, tables)


def describe(target: Target, settings: EvaluationSettings) -> dict[str, Any]:
    """One entry of ``targets`` in metrics.json."""
    about = target.about
    inner = about.get("settings", {})
    kept = ("model", "model_version", "checkpoint_sha256", "version", "units", "seed", "device")
    return {
        "source": target.source,
        "model": str(about.get("model", "")),
        "scale": target.truth.scale,
        "cells": len(target.truth.cells),
        "features": len(target.truth.features),
        "features_filled": target.filled,
        "label_key": settings.label_key if target.truth.labels is not None else None,
        "labels": _label_counts(target),
        "methods": {m: {k: round(v, DIGITS) for k, v in s.overall.items()} for m, s in target.methods.items()},
        "missing": inner.get("alignment", {}),
        "novelty": inner.get("novelty", {}),
        "intervals": target.intervals.content if target.intervals else {},
        "provenance": {k: about[k] for k in kept if k in about},
        "notes": target.notes,
        **({TRIAL: True} if of_trial(about) else {}),
    }


def _label_counts(target: Target) -> dict[str, int]:
    if target.truth.labels is None:
        return {}
    names, counts = np.unique(target.truth.labels, return_counts=True)
    return {str(n) or "(no label)": int(c) for n, c in zip(names, counts, strict=True)}


def split_of(mdata: MuData) -> dict[str, Any]:
    """Cells of each part, and what the file says of how they were split."""
    if fields.SPLIT not in mdata.obs:
        return {}
    part = mdata.obs[fields.SPLIT].astype(str)
    counts = {p: int((part == p).sum()) for p in (fields.TRAIN, fields.VALID, fields.TEST)}
    try:
        stored = json.loads(str(dict(mdata.uns[fields.UNS])["settings"])).get("split", {})
    except (KeyError, TypeError, ValueError):
        stored = {}
    return {**(stored if isinstance(stored, dict) else {}), **counts}


def scores_table(targets: Sequence[Target]) -> pd.DataFrame:
    """Long table: one row for each score of each method of each target."""
    rows = [
        (t.name, t.source, method, score, round(value, DIGITS))
        for t in targets
        for method, scored in t.methods.items()
        for score, value in scored.overall.items()
    ]
    return pd.DataFrame(rows, columns=["target", "source", "method", "score", "value"])


def features_table(targets: Sequence[Target]) -> pd.DataFrame:
    """One row for each feature and score, one column for each method."""
    parts = []
    for t in targets:
        for score in t.methods["prediction"].by_feature:
            columns = {m: np.round(s.by_feature[score], DIGITS) for m, s in t.methods.items()}
            level, seen = np.round(t.truth.mean, 6), t.truth.values.nonzero()
            about = {"target": t.name, "feature": t.truth.features, "score": score}
            parts.append(pd.DataFrame({**about, **columns, "mean_level": level, "n_nonzero": seen}))
    return pd.concat(parts, ignore_index=True)


def umap_table(targets: Sequence[Target], most: int, seed: int) -> pd.DataFrame:
    """Rows of all targets that have enough cells for a picture."""
    parts = [pd.DataFrame(columns=UMAP_COLUMNS)]
    for t in targets:
        picture = projection.project(t.predicted, t.truth, most, seed)
        if picture is not None:
            parts.append(projection.table(t.name, picture, t.truth))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def summary(content: dict[str, Any]) -> list[str]:
    """Lines for a person: the headline scores of the prediction beside those of the controls."""
    from xmodal.scores.score_texts import HEADLINE

    lines = []
    for name, target in content["targets"].items():
        methods = target["methods"]
        lines.append(f"{name} from {target['source'] or '?'}: {target['cells']} cells x {target['features']} features")
        inside = target["intervals"].get("coverage")
        if inside is not None:
            lines.append(
                f"  {inside:.1%} of the values lie in the intervals meant to hold {target['intervals']['level']:.0%}"
            )
        lines.append("  " + " ".join([f"{'score':28}", *(f"{m:>10}" for m in methods)]))
        for score in HEADLINE:
            if score in methods["prediction"]:
                values = (f"{methods[m][score]:10.4f}" if score in methods[m] else f"{'-':>10}" for m in methods)
                lines.append("  " + " ".join([f"{score:28}", *values]))
    return lines
