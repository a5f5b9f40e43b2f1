"""What the models tell of a column of obs (`xmodal train --target`), beside plain classifiers, on folds of mouse cortex.

    python benchmarks/fusion_target.py [--models contrastive,mfm] [--folds 1,2,0] [--set NAME=VALUE ...] [--write]

The types of cells of two whole batches are told from both modalities and from either alone; `latent alone`: the head without
its linear part.  Results are kept in benchmarks/results/fusion_target.json with ``--write``, which also rewrites the table of
benchmarks/RESULTS.md.  The batches of the final test are in no fold.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import mudata as md
import numpy as np
import torch
from common import HERE, between, mean_table
from fusion_measures import chunked
from trials import prepared

from xmodal import registry
from xmodal.data.batches import Cells, cells_of
from xmodal.data.labels import classes_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.fields import ATAC, RNA, SPLIT, TARGET_CODE, TEST, TRAIN, VALID
from xmodal.fusion.fused import Fused
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.scores import annotation_floors, annotation_measures
from xmodal.scores.annotation_floors import Guess

log = logging.getLogger("benchmark")
RESULTS = HERE / "results" / "fusion_target.json"
TYPE = "cell_type"
ALONE = "latent alone"
Scores = dict[str, float]
SHOWN = {
    "accuracy": "right",
    "macro_f1": "F1, mean over types",
    "ece": "calibration error",
    "risk": "wrong among the surest",
    "accuracy_rna": "right, RNA alone",
    "accuracy_atac": "right, ATAC alone",
    "cpu_s": "CPU s",
}


def scored(guess: Guess, truth: np.ndarray) -> Scores:
    """Accuracy, macro F1, calibration and risk of what a method says of the scored cells."""
    right = guess.best == truth
    found = {"accuracy": float(right.mean()), "macro_f1": annotation_measures.macro_f1(truth, guess.best)}
    if guess.score is not None:
        found["ece"] = annotation_measures.ece(annotation_measures.calibration(right, guess.score))
        found["risk"] = float(annotation_measures.risk(right, guess.score).mean())
    return found


def told(name: str, parts: dict[str, Cells], truth: np.ndarray, changes: list[str], seed: int) -> Scores:
    """The scores of a model; ``name`` may end in ", latent alone"."""
    model_class = registry.get(name.partition(",")[0])
    torch.manual_seed(seed)
    model = model_class.build(parse_settings(model_class, tuple(changes)), parts[TRAIN].vocabulary)
    assert isinstance(model, Fused) and model.target is not None
    if name.endswith(ALONE):
        for weight in model.target.beside.parameters():
            torch.nn.init.zeros_(weight).requires_grad_(False)
    began = time.process_time()
    training.fit(model, parts[TRAIN], parts[VALID], torch.device("cpu"), seed=seed)
    spent = time.process_time() - began
    model.eval()
    target = parts[TRAIN].vocabulary.target
    assert target is not None
    terms = np.array(target.classes, object)
    found = scored(annotation_floors.ranked(chunked(parts[TEST], model.tell_target).astype(float), terms), truth)
    for m in (RNA, ATAC):
        only = chunked(parts[TEST], lambda batch, m=m: model.tell_target(batch.only(m)))
        found[f"accuracy_{m}"] = float((terms[only.argmax(1)] == truth).mean())
    return {**found, "cpu_s": spent}


def fold_of(fold: str, asked: argparse.Namespace) -> dict[str, Scores]:
    with tempfile.TemporaryDirectory() as folder:
        mdata = md.read_h5mu(prepared(Path(folder), fold))
    part = mdata.obs[SPLIT].to_numpy(str)
    target = classes_of(mdata[part != TEST], TYPE, "--target")
    cells = cells_of(mdata, replace(Vocabulary.from_prepared(mdata), target=target))
    parts = {p: cells.subset(np.flatnonzero(part == p)) for p in (TRAIN, VALID, TEST)}
    place = dict(zip(target.values, target.terms, strict=True))
    every = np.array([place.get(v, v) for v in mdata.obs[TYPE].astype(str)], object)
    parts[TEST].extra[TARGET_CODE][:] = -1
    learned, seen = np.isin(part, (TRAIN, VALID)), part == TEST  # as `xmodal evaluate` has it
    places = annotation_floors.joint_places(mdata, mdata.obs_names.to_numpy(str), learned, [RNA, ATAC], asked.seed)
    floors = annotation_floors.fitted(places, learned, every, seen, asked.seed)
    found = {name: scored(guess, every[seen]) for name, guess in floors.items()}
    for name in asked.models.split(";"):
        found[name] = told(name, parts, every[seen], asked.set, asked.seed)
        log.info("fold %s %s: %s", fold, name, {k: round(v, 3) for k, v in found[name].items()})
    return found


def table(known: dict[str, dict[str, Scores]]) -> str:
    """Means over the folds, one line for each method."""
    return mean_table(known, SHOWN, "folds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default=f"contrastive;contrastive, {ALONE};mfm;interact;husformer")
    parser.add_argument("--folds", default="1,2,0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("xmodal").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    known: dict[str, dict[str, Scores]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for fold in asked.folds.split(","):
        known[fold] = {**known.get(fold, {}), **fold_of(fold, asked)}
        if asked.write:
            RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            between(HERE / "RESULTS.md", "fusion_target", table(known))


if __name__ == "__main__":
    main()
