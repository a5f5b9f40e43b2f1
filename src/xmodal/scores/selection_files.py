"""Folders of the trials of a sweep in, the folder ``xmodal select`` leaves out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal import fields
from xmodal.errors import InputRefused
from xmodal.outputs import replacing_files, write_json
from xmodal.provenance import sha256
from xmodal.reporting.folders import read_json
from xmodal.scores.selection import Ranked, Selection, Trial

TABLE_FILE, CONTENT_FILE, PICTURE_FILE = "selection.tsv", "selection.json", "selection.png"
OWN = (TABLE_FILE, CONTENT_FILE, PICTURE_FILE, fields.CHECKPOINT_FILE)
ENDED = "it left no result (killed, out of memory or time, or an error: see the log of its task)"


def read(trainings: Sequence[Path], evaluations: Sequence[Path], expected: Sequence[str] = ()) -> list[Trial]:
    """The trials, by name: folders that ``train --trial`` left, and what evaluate says of their validation cells.

    An evaluation belongs to the training whose checkpoint made its predictions.  ``expected``: trials that were started.
    """
    trials: dict[str, Trial] = {}
    made: dict[str, list[str]] = {}
    for folder in trainings:
        trial = _training(folder)
        if trial.name in trials:
            raise InputRefused(
                "two trainings have this name", where=trial.name, do="give each trial a folder name of its own"
            )
        trials[trial.name] = trial
        if (folder / fields.CHECKPOINT_FILE).is_file():
            made.setdefault(sha256(folder / fields.CHECKPOINT_FILE), []).append(trial.name)
    for folder in evaluations:
        for direction, target in _targets(folder).items():
            digest = str(target.get("provenance", {}).get("checkpoint_sha256", ""))
            if digest not in made:
                raise InputRefused(
                    "no --training made the checkpoint of its predictions",
                    where=str(folder),
                    do="give the training folder of each trial",
                )
            for name in made[digest]:  # equal weights make equal predictions
                trials[name].directions[direction] = target
    for name in expected:
        trials.setdefault(name, Trial(name, why=ENDED))
    return [_with_reason(trials[name]) for name in sorted(trials)]


def name_of(folder: Path) -> str:
    """The name a folder is given by; of a link its own, not that of what it leads to."""
    return Path(os.path.abspath(folder)).name


def _with_reason(trial: Trial) -> Trial:
    return (
        trial
        if trial.judged or trial.why
        else replace(trial, why="it was trained, but its predictions were not scored")
    )


def _training(folder: Path) -> Trial:
    path = folder / fields.METRICS_FILE
    if not path.is_file():
        raise InputRefused(
            f"there is no {path.name} in it", where=str(folder), do="give what xmodal train --trial wrote"
        )
    metrics = read_json(path)
    asked = metrics.get("trial")
    if not isinstance(asked, dict):
        raise InputRefused(
            "this is no trial: the model may have learned from the cells that are to judge it",
            where=str(folder),
            do="train it with --trial",
        )
    why = str((metrics.get("failed") or {}).get("why", ""))
    name = name_of(folder)
    return Trial(name, str(asked["model"]), tuple(asked["settings"]), int(asked["seed"]), {}, why)


def _targets(folder: Path) -> dict[str, dict[str, Any]]:
    """What a folder of evaluate says of each direction; refused where it was not about validation cells."""
    path = folder / fields.METRICS_FILE
    if not path.is_file():
        raise InputRefused(f"there is no {path.name} in it", where=str(folder), do="give what xmodal evaluate wrote")
    metrics = read_json(path)
    if "targets" not in metrics:
        raise InputRefused("this is no folder of evaluate", where=str(folder), do="give it as --training")
    cells = metrics.get("settings", {}).get("cells")
    if cells != fields.VALID:
        raise InputRefused(
            f"it scored the {cells} cells, and cells that choose a model can no longer judge it",
            where=str(folder),
            do="predict --split valid, and evaluate that",
        )
    return {f"{t.get('source') or '?'} -> {name}": t for name, t in sorted(metrics["targets"].items())}


def content(found: Selection) -> dict[str, Any]:
    """What selection.json holds."""
    best = found.best.trial
    return {
        "best": {"name": best.name, "model": best.model, "settings": list(best.settings), "seed": best.seed},
        "close": list(found.close),
        "judged_on": fields.VALID,
        "measures": {d: list(m) for d, m in found.measures.items()},
        "linear": {d or "score": v for d, v in found.linear.items()},
        "trials": [_described(r, found) for r in found.trials],
    }


def _described(ranked: Ranked, found: Selection) -> dict[str, Any]:
    t = ranked.trial
    return {
        "name": t.name,
        "rank": ranked.rank or None,
        "status": "judged" if ranked.rank else "failed",
        "why": t.why or "; ".join(ranked.notes),
        "model": t.model,
        "settings": list(t.settings),
        "seed": t.seed,
        "score": ranked.score if ranked.rank else None,
        "directions": {
            d: {
                "score": score,
                "cells": t.directions.get(d, {}).get("cells"),
                "measures": {
                    m: v
                    for m, v in t.directions.get(d, {}).get("methods", {}).get("prediction", {}).items()
                    if m in found.measures[d]
                },
            }
            for d, score in ranked.directions.items()
        },
    }


def table(about: dict[str, Any]) -> pd.DataFrame:
    """selection.tsv from selection.json: a row for each trial, the best first; failed ones last, without rank and score."""
    rows = []
    for t in about["trials"]:
        row = {k: t[k] for k in ("rank", "name", "model")}
        row |= {"settings": " ".join(t["settings"]), "seed": t["seed"], "score": t["score"]}
        for direction, measures in about["measures"].items():
            own, place = t["directions"].get(direction, {}), direction.replace(" -> ", "_to_")
            row[place] = own.get("score")
            row |= {f"{place}.{m}": own.get("measures", {}).get(m) for m in measures}
        rows.append({**row, "status": t["status"], "why": t["why"]})
    return pd.DataFrame(rows).astype({"rank": "Int64"})


def write(folder: Path, found: Selection, trainings: Sequence[Path], overwrite: bool) -> dict[str, Any]:
    """Write everything into ``folder`` at once, the best trial's checkpoint as well; returns what selection.json holds."""
    from xmodal.reporting import figures, selection_figure

    about = content(found)
    best = next(p for p in trainings if name_of(p) == found.best.trial.name)
    with replacing_files(folder, OWN, overwrite) as temporary:
        write_json(temporary / CONTENT_FILE, about)
        table(about).to_csv(temporary / TABLE_FILE, sep="\t", index=False, lineterminator="\n")
        (temporary / PICTURE_FILE).write_bytes(figures.png(selection_figure.selection(about)))
        shutil.copyfile(best / fields.CHECKPOINT_FILE, temporary / fields.CHECKPOINT_FILE)
    return about


def in_words(about: dict[str, Any]) -> list[str]:
    """Lines for a person."""
    width = max(len(t["name"]) for t in about["trials"])
    lines = []
    for t in about["trials"]:
        what = f"{t['score']:8.4f}" if t["rank"] else "  failed"
        more = f"  {t['why']}" if t["why"] else ""
        lines.append(
            f"{t['rank'] or '-':>3}  {t['name']:{width}}  {what}  {t['model']} {' '.join(t['settings'])}{more}"
        )
    if "score" in about["linear"]:
        lines.append(f"     {'(control linear)':{width}}  {about['linear']['score']:8.4f}")
    return lines
