"""Between which values does a measurement lie, and which features can be trusted?  What a checkpoint knows about its errors.

Intervals are conformal: learned by :mod:`xmodal.learning.calibration` on cells the model was not fitted to, so that the
stated share of their values lies inside, in every group of like predictions.  What that does and does not say:
docs/uncertainty.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as attributes
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal import fields

Array = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]
LEVELS = (0.5, 0.8, 0.9, 0.95)
DEFAULT = 0.9
SPARSE = (fields.LOG_CP10K, fields.BINARY)  # scales whose zero means "nothing seen", and is most values
HAIR = 0.1  # the lower end of an interval that leaves zero out, as a share of the prediction
RELIABLE, WEAK, NONE, UNKNOWN = "reliable", "weak", "no better than the mean", "too rare to tell"
TRUST = (RELIABLE, WEAK, NONE, UNKNOWN)
# Reliable: at least medium (Cohen 1988; for AUROC acceptable, Hosmer and Lemeshow 2000; as in scores/verdicts.py), and the lower
# end of the feature's own 95 % interval at least small.  Weak: the lower end above chance.  Too rare to tell: the interval
# reaches from chance to medium, or the feature was hardly ever seen.
MEDIUM, SMALL, CHANCE = ({"pearson": r, "auroc": a} for r, a in ((0.3, 0.7), (0.1, 0.6), (0.0, 0.5)))
LUCK = 0.05  # share of features above chance that a prediction without any signal reaches, and a little more


@dataclass(frozen=True)
class Uncertainty:
    """How far the predictions of one direction were off, on ``cells`` cells that the model was not fitted to.

    Sparse scales: ``low`` and ``high`` (levels, grid) hold quantiles of the measured value given the predicted one, over the
    square root of the prediction up to ``top``; ``floor`` (levels,) is the least width.  ``usual`` (2, features): mean of
    that root and one over its spread (0 where constant), by which a prediction is low or high for its feature.  Other scales:
    all of these are empty, and ``width`` (features,) is the typical error.

    ``centres`` (groups, features), over ``mean`` and ``weight`` (features,), put a cell in its group; ``widen`` and ``trim``
    (levels, groups) are the group's thresholds.  ``reliability`` (3, features): Pearson r or AUROC with its 95 % interval, nan
    where hardly ever seen; ``seen`` (features,): cells in which the feature was not zero; ``coverage`` (levels, features):
    share of values inside.
    """

    scale: str
    cells: int
    top: float
    floor: Array
    low: Array
    high: Array
    width: Array
    usual: Array
    mean: Array
    weight: Array
    centres: Array
    widen: Array
    trim: npt.NDArray[np.int32]
    reliability: Array
    seen: npt.NDArray[np.int32]
    coverage: Array

    def tensors(self) -> Tensors:
        kept = {a.name: getattr(self, a.name) for a in attributes(self) if a.name not in ("scale", "cells", "top")}
        return {**kept, "cells": np.array([self.cells], np.int32), "top": np.array([self.top], np.float32)}

    @classmethod
    def from_tensors(cls, tensors: Tensors, scale: str) -> Uncertainty:
        rest = {k: v for k, v in tensors.items() if k not in ("cells", "top")}
        return cls(scale=scale, cells=int(tensors["cells"][0]), top=float(tensors["top"][0]), **rest)

    def bounds(self, predicted: Array, level: float) -> tuple[Array, Array]:
        """Lower and upper end for predictions (cells, features), one of :data:`LEVELS`; inside the range of the scale."""
        index, p = LEVELS.index(level), in_range(predicted, self.scale)
        group = self.groups(p)
        lower, upper = self.base(p, index)
        widen = self.widen[index][group][:, None]
        if widen.any():
            width = self.units(lower, upper, index)
            lower, upper = in_range(lower - widen * width, self.scale), in_range(upper + widen * width, self.scale)
        count = self.trim[index][group]
        for k in np.unique(count[count > 0]):
            rows = np.flatnonzero(count == k)
            away = self.standing(p[rows], lower[rows])
            limit = np.partition(away, k, axis=1)[:, k : k + 1]
            lower[rows] = np.where(away < limit, HAIR * p[rows], lower[rows])
        return lower, upper

    def units(self, lower: Array, upper: Array, index: int) -> Array:
        """The unit in which a group's threshold widens an interval, (cells, features) or (features,)."""
        return upper - lower + self.floor[index] if self.scale in SPARSE else self.width

    def base(self, p: Array, index: int) -> tuple[Array, Array]:
        """Lower and upper end before the group's threshold, (cells, features) each."""
        if self.scale not in SPARSE:
            return p, p
        root = np.sqrt(p)
        root *= np.float32((self.low.shape[1] - 1) / np.sqrt(self.top))
        place = root.astype(np.int32)
        # beyond the largest prediction that was calibrated the last step goes on; all in place, since this is done per value
        beyond = np.maximum(p - np.float32(self.top), 0) if p.max(initial=0) > self.top else np.float32(0)
        upper = np.maximum(np.take(self.high[index], place, mode="clip") + beyond, p)
        lower = np.zeros_like(p)
        if self.low[index].any():
            np.minimum(np.take(self.low[index], place, mode="clip") + beyond, p, out=lower)
        return lower, np.minimum(upper, 1, out=upper) if self.scale == fields.BINARY else upper

    def standing(self, p: Array, lower: Array) -> Array:
        """How far the square root of a prediction is from the feature's usual one, in its spreads; infinite where the interval

        does not hold zero, or the prediction is zero.  (cells, features)
        """
        away = (np.sqrt(p) - self.usual[0]) * self.usual[1]
        return np.where((lower <= 0) & (p > 0), away, np.float32(np.inf))

    def groups(self, p: Array) -> npt.NDArray[np.int64]:
        """The group whose mean prediction is nearest, (cells,)."""
        return nearest(p, self.mean, self.weight, self.centres)

    def of_level(self, level: float) -> Array:
        """Share of the held-out values of each feature that lay inside, (features,)."""
        inside: Array = self.coverage[LEVELS.index(level)]
        return inside

    @property
    def measure(self) -> str:
        return "auroc" if self.scale == fields.BINARY else "pearson"

    def trust(self) -> npt.NDArray[np.str_]:
        """A word of :data:`TRUST` for each feature, (features,)."""
        value, low, high = self.reliability
        medium, small, chance = (limits[self.measure] for limits in (MEDIUM, SMALL, CHANCE))
        unclear = np.isnan(value) | ((low <= chance) & (high >= medium))
        words = np.where((value >= medium) & (low >= small), RELIABLE, np.where(low > chance, WEAK, NONE))
        return np.where(unclear, UNKNOWN, words)

    def summary(self, level: float = DEFAULT) -> dict[str, Any]:
        """What a person wants to know of it, all JSON."""
        words, index = self.trust(), LEVELS.index(level)
        judged = int((~np.isnan(self.reliability[0])).sum())
        better = int(np.isin(words, (RELIABLE, WEAK)).sum())
        return {
            "level": level,
            "cells": self.cells,
            "groups": len(self.centres),
            "measure": self.measure,
            "coverage": round(float(self.coverage[index].mean()), 4),
            "trust": {w: int((words == w).sum()) for w in TRUST},
            "signal": better > LUCK * judged,
        }


def in_range(values: Array, scale: str) -> Array:
    """Values clipped to what can be measured on ``scale``."""
    if scale == fields.BINARY:
        return np.clip(values, 0, 1)
    return np.maximum(values, 0) if scale == fields.LOG_CP10K else values


def nearest(p: Array, mean: Array, weight: Array, centres: Array) -> npt.NDArray[np.int64]:
    """Row of ``centres`` (groups, features; in units of ``weight`` from ``mean``) next to each row of ``p``, (cells,)."""
    weighted = centres * weight
    offset = weighted @ mean + 0.5 * np.square(centres).sum(1)
    return (p @ weighted.T - offset).argmax(1)
