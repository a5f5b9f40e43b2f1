"""Labels of cells beside plain methods: every score of every method, on the same cells."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.scores import annotation_measures as measures
from xmodal.scores.annotation_floors import Guess, fitted, joint_places, majority, rna_places
from xmodal.scores.annotation_input import Annotation, Scene, scene
from xmodal.scores.annotation_texts import CLUSTERS, MAJORITY, OWN
from xmodal.scores.metrics import Bools
from xmodal.text.ontology import PSEUDO

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.scores.scoring import Scores
    from xmodal.text.ontology import Ontology

log = logging.getLogger(__name__)
OTHERS = 2  # what else the cells of a type are called, in the table of types
LEAST = 5  # cells of either side, below which types never seen are not told apart by luck
Strings = npt.NDArray[Any]


@dataclass
class Result:
    """Scores of each method and what a reader must know of them.

    ``bins``: calibration, ``risks``: risk by coverage, of the methods that give probabilities; ``types``: of the truth;
    ``possible``: share of the scored cells whose type is among the candidates.
    """

    scene: Scene
    annotation: Annotation
    methods: dict[str, Scores] = field(default_factory=dict)
    bins: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    risks: dict[str, list[list[float]]] = field(default_factory=dict)
    types: list[dict[str, Any]] = field(default_factory=list)
    possible: float = 1.0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        log.warning("%s", text)
        self.notes.append(text)


def evaluate(
    mdata: MuData, annotation: Annotation, settings: EvaluationSettings, ontology: Ontology | None, seed: int
) -> Result:
    """Score ``annotation`` and the floors; raises :class:`InputRefused` where truth and annotation do not fit."""
    found = scene(mdata, annotation, settings, ontology)
    result = Result(found, annotation)
    for text in found.notes:
        result.note(text)
    _say_releases(result, ontology)
    truth = found.truth[found.scored]
    _say_possible(result, truth)
    row = found.row[found.scored]
    guesses = {OWN: _rows(annotation.guess, row), **_floors(mdata, result, settings, seed)}
    if annotation.votes is not None:
        guesses = {OWN: guesses.pop(OWN), CLUSTERS: Guess(annotation.votes[row]), **guesses}
    for name, guess in guesses.items():
        result.methods[name] = _scores(name, guess, truth, result, ontology)
    if annotation.status is not None:
        result.methods[OWN] |= _calls(annotation.called[row], annotation.status[row], truth, annotation.seen, ontology)
    result.types = _types(result, truth, row, ontology)
    result.methods = {m: {k: float(v) for k, v in s.items() if np.isfinite(v)} for m, s in result.methods.items()}
    return result


def _rows(guess: Guess, row: npt.NDArray[np.int64]) -> Guess:
    return Guess(*(None if v is None else v[row] for v in (guess.best, guess.top, guess.score, guess.known)))  # type: ignore[arg-type]


def _say_releases(result: Result, ontology: Ontology | None) -> None:
    said = result.annotation.said("ontology") or {}
    if result.annotation.plain:
        return
    if ontology is None:
        result.note("no Cell Ontology is here (--ontology), so distances in it are not scored")
    elif said and said.get("version") != ontology.version:
        result.note(
            f"the labels are of {said.get('source')} ({said.get('version')}), they are compared by {ontology.title}; names may "
            "have changed between the two"
        )


def _say_possible(result: Result, truth: Strings) -> None:
    """Known types that could not be named: candidates may be coarser or finer than the truth."""
    able = _possible(OWN, truth, result)
    result.possible = float(able.mean())
    if not able.all():
        many = len(np.unique(truth[~able].astype(str)))
        result.note(
            f"{many} of {len(np.unique(truth.astype(str)))} known types ({(~able).sum()} cells) are not among the candidates, so "
            "none of these labels counts as right; on_path says how many are right up to how finely types were told apart"
        )


def _floors(mdata: MuData, result: Result, settings: EvaluationSettings, seed: int) -> dict[str, Guess]:
    """Plain methods on the truth's training cells; the most frequent of the scored cells alone where there are none."""
    found, seen = result.scene, result.annotation.seen
    if not settings.controls:  # --no-controls
        return {}
    train = found.train if seen is None else found.train & np.isin(found.truth.astype(str), sorted(seen))
    truth = found.truth[found.scored]
    if train.any() and result.annotation.plain:
        told = result.annotation.said("modalities") or {}
        places = joint_places(mdata, found.names, train, [m for m in told if m in mdata.mod], seed)
        return fitted(places, train, found.truth, found.scored, seed)
    if not train.any() or fields.RNA not in mdata.mod:
        result.note(
            "the truth holds no training cells: no plain method but the most frequent of its labels is compared"
        )
        return {MAJORITY: majority(truth, len(truth))}
    rna = mdata.mod[fields.RNA]
    place = rna.obs_names.get_indexer(found.names)
    if (place[found.scored] < 0).any():
        result.note("scored cells without RNA counts: no plain method but the most frequent label is compared")
        return {MAJORITY: majority(found.truth[train], len(truth))}
    used = place >= 0
    places = rna_places(rna[place[used]], train[used], seed)
    return fitted(places, train[used], found.truth[used], found.scored[used], seed)


# ---- the scores


def _scores(name: str, guess: Guess, truth: Strings, result: Result, ontology: Ontology | None) -> Scores:
    """What can be said of every method."""
    right: Bools = guess.best == truth
    scores: Scores = {
        "accuracy": float(right.mean()),
        "macro_f1": measures.macro_f1(truth, guess.best),
        "accuracy_macro": measures.macro(right, truth),
    }
    if guess.top is not None:
        scores["hit3"] = float((guess.top == truth[:, None]).any(1).mean())
    if ontology is not None and name != CLUSTERS:  # of which some have no label, and no distance
        scores |= _in_ontology(guess.best, truth, ontology)
    if guess.score is not None:
        able = _possible(name, truth, result)
        result.bins[name] = measures.calibration(right[able], guess.score[able]) if able.any() else []
        risks = measures.risk(right, guess.score)
        result.risks[name] = measures.curve(risks)
        scores |= {"risk_coverage": float(risks.mean())}
        if able.any():
            scores["ece"] = measures.ece(result.bins[name])
    return scores | _by_seen(guess, right, truth, result.annotation)


def _possible(name: str, truth: Strings, result: Result) -> Bools:
    """Cells whose type the method could name: probabilities are conditional on that."""
    known = result.annotation.candidates if name == OWN else result.annotation.seen
    if known is None:
        return np.ones(len(truth), bool)
    return np.isin(truth.astype(str), sorted(known))


def _in_ontology(told: Strings, truth: Strings, ontology: Ontology) -> Scores:
    """Mean steps, and the share of labels on one line of descent with the truth, over pairs of terms."""
    able = np.array([t in ontology for t in truth]) & np.array([t in ontology for t in told])
    if not able.any():
        return {}
    pairs, code = np.unique(np.stack([told[able], truth[able]], 1).astype(str), axis=0, return_inverse=True)
    steps = np.array([ontology.distance(a, b) for a, b in pairs], float)
    line = np.array([a in ontology.ancestors(b, True) or b in ontology.ancestors(a) for a, b in pairs])
    return {"ontology_distance": float(steps[code.ravel()].mean()), "on_path": float(line[code.ravel()].mean())}


def _by_seen(guess: Guess, right: Bools, truth: Strings, annotation: Annotation) -> Scores:
    """Types trained on against types never seen, where there are both."""
    if annotation.seen is None:
        return {}
    old = np.isin(truth.astype(str), sorted(annotation.seen))
    if old.all() or not old.any():
        return {}
    seen, unseen = measures.macro(right[old], truth[old]), measures.macro(right[~old], truth[~old])
    scores: Scores = {"accuracy_seen": seen}
    asked = annotation.candidates is None or annotation.candidates & set(truth[~old])
    if asked:  # else none of them could be named
        scores |= {"accuracy_unseen": unseen, "h": measures.harmonic(seen, unseen)}
    if asked and guess.top is not None:
        scores["hit3_unseen"] = measures.macro((guess.top == truth[:, None]).any(1)[~old], truth[~old])
    if guess.known is not None and min(old.sum(), (~old).sum()) >= LEAST:
        scores["auroc_unseen"] = measures.auroc(guess.known[old], guess.known[~old])
    return scores


def _calls(
    called: Strings, status: Strings, truth: Strings, seen: frozenset[str] | None, ontology: Ontology | None
) -> Scores:
    """Labels as they stand in the file, with what was rejected or made more general."""
    unknown, assigned = status == fields.UNKNOWN, status == fields.ASSIGNED
    scores: Scores = {"share_unknown": float(unknown.mean()), "share_coarse": float((status == fields.COARSE).mean())}
    if assigned.any():
        scores["accuracy_assigned"] = float((called == truth)[assigned].mean())
    if ontology is not None and (~unknown).any():
        true = np.array([_holds(a, b, ontology) for a, b in zip(called[~unknown], truth[~unknown], strict=True)])
        scores["accuracy_called"] = float(true.mean())
    if seen is not None:
        old = np.isin(truth.astype(str), sorted(seen))
        scores |= {
            f"unknown_of_{kind}": float(unknown[rows].mean())
            for kind, rows in (("seen", old), ("unseen", ~old))
            if rows.any()
        }
    return scores


def _holds(called: str, truth: str, ontology: Ontology) -> bool:
    """Is a cell of type ``truth`` what it is called?"""
    return called == truth or (truth in ontology and called in ontology.ancestors(truth))


def _types(
    result: Result, truth: Strings, row: npt.NDArray[np.int64], ontology: Ontology | None
) -> list[dict[str, Any]]:
    """Each type of the truth, those with the most cells first: found, F1, left unknown, and what else they are called."""
    annotation = result.annotation
    best = annotation.guess.best[row]
    unknown = annotation.status[row] == fields.UNKNOWN if annotation.status is not None else np.zeros(len(row), bool)
    rows = []
    for term in np.unique(truth.astype(str)):
        own = truth == term
        wrong, many = np.unique(best[own & (best != term)].astype(str), return_counts=True)
        order = np.lexsort([wrong, -many])[:OTHERS]
        rows.append(
            {
                "term": str(term),
                "name": _name(str(term), annotation, ontology),
                "cells": int(own.sum()),
                "seen": annotation.seen is None or term in annotation.seen,
                "recall": float((best[own] == term).mean()),
                "f1": measures.f1(truth, best, str(term)),
                "unknown": float(unknown[own].mean()),
                "others": [
                    {"name": _name(str(wrong[i]), annotation, ontology), "share": float(many[i] / own.sum())}
                    for i in order
                ],
            }
        )
    return sorted(rows, key=lambda r: (-r["cells"], r["name"]))


def _name(term: str, annotation: Annotation, ontology: Ontology | None) -> str:
    if term.startswith(PSEUDO):
        return term.removeprefix(PSEUDO)
    if ontology is not None and term in ontology:
        return ontology.terms[term].name
    return annotation.names.get(term, term)
