"""Names of cells, measured: `scmmgpt` beside logistic regression, neighbours, CellTypist, and ridge from texts to types.

    python benchmarks/cell_text.py [--part heldout|transfer|unseen|reject|ablations|all] [--sets pbmc3k,cortex] [--seeds 5]
                                   [--folds 20] [--celltypist PYTHON_OR_DIR] [--fresh] [--write]

The model is trained by the one loop (`learning.training.fit`) with its defaults, without the generator, on one thread.  All
methods get the same cells: the baselines all training cells, `scmmgpt` nine tenths of them, the last tenth being what it chooses
on.  Cortex types are subtypes with the ids in `cell_text_cells.TERMS`, written by hand before anything was measured; claustrum
cells have a text of their own.  Unseen types: 3 of them at a time, all types as candidates; the area is over all penalties, H at
the one that was chosen on training types.  Ablations: judged on validation cells, and on folds of types that only they see.
Every run is kept in benchmarks/results/cell_text.json as soon as it is done and not measured again (``--fresh``: it is);
``--write`` also rewrites the tables of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anndata as ad
import cell_text_baselines as plain
import numpy as np
import torch
from cell_text_cells import VALID, Index, Set, data, fitted, measures, shares, softmax, texts
from cell_text_tables import write
from common import HERE, REAL
from scipy.stats import rankdata

from xmodal import fields
from xmodal.data.alignment import align
from xmodal.data.batches import Cells
from xmodal.models.parts.text_scores import Course, best_penalty, harmonic

warnings.simplefilter("ignore")
log = logging.getLogger("benchmark")
RESULTS = HERE / "results" / "cell_text.json"
FORTY = {  # what pbmc3k's types can say of the 40 cells
    "CL:0000815": ("CL:0000895", "CL:0000897"),  # regulatory T: any CD4-positive T cell
    "CL:0000990": ("CL:0000451",),  # conventional dendritic
    "CL:0000905": ("CL:0000897",),  # effector memory CD4 T
    "CL:0000787": ("CL:0000236",),  # memory B
}
TEST = 0.2
LEFT_OUT, MOST, INNER = (
    3,
    250,
    6,
)  # types, cells of a type that are scored, groups that the ridge's penalty is chosen on
ABLATION_FOLDS = 1_000  # seed of folds that only ablations see
ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without genes": {"genes": 0.0},
    "one network": {"members": 1},
    "kin get nothing": {"kin": 0.0},
    "60 components": {"components": 60},
    "projector mlp": {"projector": "mlp"},
    "projector qformer": {"projector": "qformer"},
    "matching": {"matching": 0.5},
    "captioning": {"captioning": 0.5},
}


def named(given: Set, train: Index, test: Index, seed: int, **settings: Any) -> dict[str, Any]:
    """Measures of all methods that learn from the cells ``train``, on the cells ``test``."""
    values, true = plain.logged(given.counts), given.types
    calls = plain.plain((values[train], true[train]), values[test])
    if CELLTYPIST is not None:
        calls["CellTypist"] = plain.CellTypist(CELLTYPIST, values[train], given.genes, true[train])(
            values[test], given.genes
        )
    own = fitted(given, train, seed, **settings)
    probability = softmax(own.scores(test, own.model.seen))
    calls["scmmgpt"] = np.array(own.model.seen)[probability.argmax(1)], probability.max(1)
    return {**{k: measures(true[test], *v) for k, v in calls.items()}, "seconds": own.seconds}


def heldout(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A fifth of the cells of each type held out."""
    given = data(name)
    for seed in range(ARGS.seeds):
        held = shares(given.types, seed, TEST)
        yield f"seed {seed}", lambda h=held, s=seed: named(given, *(np.flatnonzero(x) for x in (~h, h)), s)  # type: ignore[misc]


def transfer(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Trained on one part, other cells named: pbmc3k and the 40 cells of another assay; thirds of the cortex' batches."""
    given = data(name)
    if name == "pbmc3k":
        for seed in range(ARGS.seeds):
            yield f"seed {seed}", lambda s=seed: forty(given, s)  # type: ignore[misc]
        return
    batches = np.unique(given.batch)
    for third in range(3):
        held = np.isin(given.batch, batches[third::3])
        yield f"third {third}", lambda h=held, s=third: named(given, *(np.flatnonzero(x) for x in (~h, h)), s)  # type: ignore[misc]


def forty(given: Set, seed: int) -> dict[str, Any]:
    """Accuracy on the 40 cells; all of pbmc3k is learned from."""
    cells = ad.read_h5ad(REAL / "human_pbmc_multiome_40cells" / "rna.h5ad")
    true = cells.obs[fields.TERM].astype(str).to_numpy()
    every = np.arange(len(given.types))
    own = fitted(given, every, seed)
    rna = own.cells.vocabulary[fields.RNA]
    counts, depth, report = align(cells, rna)
    codes = np.full(len(true), -1)
    there = {fields.RNA: np.ones(len(true), bool)}
    new = Cells(
        own.cells.vocabulary, true, {fields.RNA: counts}, {fields.RNA: depth}, there, {fields.LABEL_CODE: codes}
    )
    logits = own.over(new, np.arange(len(true)), lambda b: own.model.scores(b, own.model.seen))
    found = {"scmmgpt": np.array(own.model.seen)[logits.argmax(1)]}
    if CELLTYPIST is not None:
        model = plain.CellTypist(CELLTYPIST, plain.logged(given.counts), given.genes, given.types)
        found["CellTypist"] = model(plain.logged(cells.X), cells.var_names.to_numpy(str))[0]
    right = {k: [v in FORTY[t] for v, t in zip(f, true, strict=True)] for k, f in found.items()}
    by_type = {
        k: {t: float(np.mean([r for r, u in zip(v, true, strict=True) if u == t])) for t in FORTY}
        for k, v in right.items()
    }
    scores = {k: {"accuracy": float(np.mean(v)), **by_type[k]} for k, v in right.items()}
    return {**scores, "coverage": report.coverage}


def unseen(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Three types at a time without any training cell, all types as candidates."""
    for fold in range(ARGS.folds):
        yield f"fold {fold}", lambda f=fold: one_fold(name, f, f)  # type: ignore[misc]


def one_fold(name: str, fold: int, seed: int, ridges: bool = True, **settings: Any) -> dict[str, Any]:
    given = data(name)
    types = tuple(sorted(set(given.types)))
    out = np.random.default_rng(fold).permutation(len(types))[:LEFT_OUT]
    seen = ~np.isin(np.arange(len(types)), out)
    place = np.searchsorted(types, given.types)
    held = shares(given.types, seed % ARGS.seeds, TEST)
    train = np.flatnonzero(~held & seen[place])
    test = capped(place, np.flatnonzero(np.where(seen[place], held, True)), seed)
    own = fitted(given, train, seed, **settings)
    course = Course.of(own.scores(test, types), place[test], seen)
    known, old = own.known(test), seen[place[test]]
    found = {
        "scmmgpt": summary(course, 0.0),
        "left out": [types[i] for i in out],
        "auroc": [auroc(known[old], known[place[test] == i]) for i in out],
        "seconds": own.seconds,
    }
    if ridges:
        values = plain.logged(given.counts)
        reduced = plain.Components(values[train])
        at = {"train": reduced(values[train]), "test": reduced(values[test])}
        for title, ancestors in (("ridge, definitions", False), ("ridge, definitions and ancestors", True)):
            words = plain.texts_of(texts(), types, ancestors)
            found[title] = ridged(at, (place[train], place[test]), words, seen, seed)
    return found


def capped(place: Index, rows: Index, seed: int) -> Index:
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(np.concatenate([order[place[order] == t][:MOST] for t in np.unique(place[rows])]))


def summary(course: Course, penalty: float) -> dict[str, float]:
    own, new = course.at(penalty)
    best = max(harmonic(s, u) for s, u in zip(course.seen, course.unseen, strict=True))
    among = {"among_unseen": float(course.unseen[-1]), "among_seen": float(course.seen[0])}
    return {"area": course.area, "h": harmonic(own, new), "seen": own, "unseen": new, "best_h": best, **among}


def ridged(at: dict[str, Any], codes: tuple[Index, Index], words: Any, seen: Index, seed: int) -> dict[str, float]:
    """Ridge from texts to the centres of types; its penalty on seen types by groups of training types left out."""
    train, test = codes
    known = np.flatnonzero(seen)
    held = np.random.default_rng(seed).random(len(train)) < VALID
    centres = {c: at["train"][~held & (train == c)].mean(0) for c in known}
    centres = {c: x if np.isfinite(x).all() else at["train"][train == c].mean(0) for c, x in centres.items()}
    strength = plain.best_ridge(words[known], np.stack([centres[c] for c in known]))
    courses = []
    for group in range(INNER if len(known) > 2 * INNER else 3):
        lost = np.random.default_rng(seed).permutation(known)[group :: INNER if len(known) > 2 * INNER else 3]
        left = np.setdiff1d(known, lost)
        guess = plain.ridge(words[left], np.stack([centres[c] for c in left]), strength)(words)
        rows = np.flatnonzero(np.where(np.isin(train, left), held, True))
        rows = capped(train, rows, seed)
        scores = np.where(seen, plain.distances(at["train"][rows], guess), -np.inf)
        courses.append(Course.of(scores, train[rows], np.isin(np.arange(len(seen)), left)))
    guess = plain.ridge(words[known], np.stack([centres[c] for c in known]), strength)(words)
    return summary(Course.of(plain.distances(at["test"], guess), test, seen), best_penalty(courses))


def auroc(known: Index, new: Index) -> float:
    """That a known cell's value is above a new one's."""
    ranks = rankdata(np.concatenate([known, new]))
    return float((ranks[: len(known)].sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(new)))


def reject(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One type of the file (``cell_type``) at a time without any training cell."""
    given = data(name)
    for kind in np.unique(given.coarse):
        yield kind, lambda k=kind: rejected(given, k)  # type: ignore[misc]


def rejected(given: Set, kind: str) -> dict[str, Any]:
    held = shares(given.types, 0, TEST)
    new = given.coarse == kind
    train, test = np.flatnonzero(~held & ~new), np.flatnonzero(held & ~new)
    values = plain.logged(given.counts)
    every = np.r_[test, np.flatnonzero(new)]
    own = fitted(given, train, 0)
    familiar = {"scmmgpt": own.known(every)}
    familiar |= {
        f"{k}, highest probability": v[1]
        for k, v in plain.plain((values[train], given.types[train]), values[every]).items()
    }
    found: dict[str, Any] = {k: {"auroc": auroc(v[: len(test)], v[len(test) :])} for k, v in familiar.items()}
    limit = own.model.thresholds()["reject"]
    of_known, of_new = ((familiar["scmmgpt"][s] < limit).mean() for s in (slice(len(test)), slice(len(test), None)))
    return {**found, "cells": int(new.sum()), "rejected_known": float(of_known), "rejected_new": float(of_new)}


def ablations(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One part changed at a time: validation cells of training cells, and folds of types that nothing else sees."""
    given = data(name)
    for title, changes in ABLATIONS.items():
        for seed in range(2):
            yield f"{title}; cells {seed}", lambda c=changes, s=seed: on_validation(given, s, c)  # type: ignore[misc]
        for fold in range(4):
            yield (
                f"{title}; types {fold}",
                lambda c=changes, f=fold: one_fold(name, ABLATION_FOLDS + f, f, ridges=False, **c),  # type: ignore[misc]
            )


def on_validation(given: Set, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    rows = np.flatnonzero(~shares(given.types, seed, TEST))
    held = shares(given.types[rows], seed, TEST)
    own = fitted(given, rows[~held], seed, **changes)
    probability = softmax(own.scores(rows[held], own.model.seen))
    found = np.array(own.model.seen)[probability.argmax(1)]
    return {"scmmgpt": measures(given.types[rows[held]], found, probability.max(1)), "seconds": own.seconds}


PARTS = {"heldout": heldout, "transfer": transfer, "unseen": unseen, "reject": reject, "ablations": ablations}


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def main() -> None:
    torch.set_num_threads(1)
    parts = [p for p in PARTS if p != "ablations"] if ARGS.part == "all" else ARGS.part.split(",")
    for part in parts:
        for name in ARGS.sets.split(","):
            if not (REAL / "tables").is_dir():
                log.warning("%s, %s: skipped, because there is no %s (XMODAL_REAL_DATA)", part, name, REAL)
                continue
            for run, measure in PARTS[part](name):
                key = f"{part}, {name}"
                if run in read().get(key, {}) and not ARGS.fresh:
                    continue
                found = measure()
                known = read()
                known.setdefault(key, {})[run] = found
                RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
                log.info("%s, %s: %s", key, run, json.dumps(found))
    if ARGS.write:
        write(read())


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", help=", ".join([*PARTS, "all"]) + "; all: but ablations")
    parser.add_argument("--sets", default="pbmc3k,cortex")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=20)
    parser.add_argument("--celltypist", help="a folder that celltypist was installed to, or a Python that has it")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--write", action="store_true")
    ARGS = parser.parse_args()
    CELLTYPIST = plain.celltypist_of(ARGS.celltypist)
    main()
