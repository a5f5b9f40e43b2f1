"""The scores of labels themselves: arrays in, numbers out.

``right``: (cells,) bool; ``score``: probability of the label, (cells,); ids of types as text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.scores.metrics import Bools, Floats

Strings = npt.NDArray[Any]
BINS = 15  # Guo et al. 2017, On calibration of modern neural networks
POINTS = 50  # of a curve that is kept


def macro_f1(truth: Strings, told: Strings) -> float:
    """F1 of each type of the truth, mean over these types."""
    return float(np.mean([f1(truth, told, t) for t in np.unique(truth.astype(str))]))


def f1(truth: Strings, told: Strings, term: str) -> float:
    """2 TP / (2 TP + FP + FN) of one type."""
    of, so = truth == term, told == term
    return float(2 * (of & so).sum() / max(int(of.sum() + so.sum()), 1))


def macro(values: npt.NDArray[Any], truth: Strings) -> float:
    """Mean inside each type of the truth, then over these types."""
    return float(np.mean([values[truth == t].mean() for t in np.unique(truth.astype(str))]))


def calibration(right: Bools, score: Floats) -> list[dict[str, float]]:
    """Bins of equal width that hold cells: ``cells``, mean probability (``confidence``), share right (``accuracy``)."""
    place = np.clip(np.ceil(score * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "cells": int(own.sum()),
            "confidence": float(score[own].mean()),
            "accuracy": float(right[own].mean()),
        }
        for i in range(BINS)
        if (own := place == i).any()
    ]


def ece(bins: list[dict[str, float]]) -> float:
    """Expected calibration error: distance of probability and share right, mean over cells (Naeini et al. 2015)."""
    total = sum(b["cells"] for b in bins)
    return float(sum(b["cells"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / max(total, 1))


def risk(right: Bools, score: Floats) -> Floats:
    """Share of wrong labels among the surest 1, 2, ... all cells, (cells,); equally sure cells stand for each other."""
    order = np.argsort(-score, kind="stable")
    _, first, many = np.unique(-score[order], return_index=True, return_counts=True)
    wrong = np.add.reduceat((~right[order]).astype(np.float64), first)
    spread = np.repeat(wrong / many, many)
    found: Floats = np.cumsum(spread) / np.arange(1, len(right) + 1)
    return found


def curve(risks: Floats) -> list[list[float]]:
    """Pairs of coverage and risk at up to so many shares of the cells."""
    count = len(risks)
    places = np.unique(np.linspace(1, count, min(POINTS, count)).round().astype(int))
    return [[float(i / count), float(risks[i - 1])] for i in places]


def auroc(positive: Floats, negative: Floats) -> float:
    """Chance that one of ``positive`` is greater than one of ``negative``, ties counting half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))
    own = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(own / (len(positive) * len(negative)))


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
