"""Are these cells like the ones the model was trained on?  A score for each cell and a verdict on the file.

What is compared is described in :mod:`xmodal.learning.novelty_views`.  How much a training cell of each depth deviates by
itself is learned from training cells that the groups were not fitted to (cross-fitting), as they are and thinned to smaller
depths, so neither fit nor depth makes a cell unlike.  The deviation of a new cell is weighed by how much likelier it is for
a foreign cell (Gaussian, smooth over the strata) than for a training cell; the score is -log10 of the share of training
cells that deviate as much: 2 means that one training cell in a hundred does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.data.on_disk import Counts, OnDisk
from xmodal.data.transforms import to_scale
from xmodal.errors import InputRefused
from xmodal.learning import novelty_views as views
from xmodal.learning.novelty_first import LIMIT as LIMIT
from xmodal.learning.novelty_first import FirstNovelty
from xmodal.learning.novelty_views import Float

Array = npt.NDArray[np.float32]
GROUPS = 12  # enough for the main cell types; each group mean rests on at least MIN_GROUP cells
MIN_GROUP = 20
PER_GROUP = 60  # cells for one group where there are few
SAMPLE = 5_000
FOLDS = 3
THINNED = (1.0, 0.5, 0.25, 0.1, 0.03)  # parts of the counts kept: shallow cells must be known too
KNOTS = 12  # depths at which the deviations of training cells are stored
FOREIGN, REACH, ROUGH = (
    0.1,
    0.5,
    0.05,
)  # deviation of foreign cells: size, reach over the strata (share of them), rough part
SHRINK = 0.05  # of the correlations between strata towards none
FEWEST = 400  # training cells, whole or thinned, from which the odds at one depth are learned
DIRECTIONS, PER_DIRECTION = 20, 100  # more than one direction in so many cells is noise; the rest is one number
TAIL = 0.95  # beyond this share of the training cells the tail is taken as exponential
REFUSE = 0.5  # share of unlike cells above which the file is refused
WARN = 0.1
CHUNK = 4_096
FEW = 512  # cells whose counts are copied at once: 1.5 million of 100,000 peaks
EDGES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 10)  # of the histogram; the last bin is open
SCALES = (fields.LOG_CP10K, fields.BINARY, fields.CLR, fields.IDENTITY)


@dataclass(frozen=True)
class Novelty:
    """What the training cells of one modality look like.

    ``profiles``: mean of each group, (groups, features).  ``strata``: (features,), and
    ``correction`` of their expected shares: of counts.  ``spread`` (features,) and ``directions`` (directions, features): of
    values.  ``means``, ``spreads``: of the deviations at each depth, (knots,
    numbers), the log depths being ``knots``; ``correlation`` (numbers, numbers).  ``calibration``: quantiles of the odds
    of training cells at each depth, and the mean excess over the last one, (knots, quantiles + 1).
    """

    scale: str
    profiles: Array
    strata: npt.NDArray[np.int32]
    correction: Array
    spread: Array
    directions: Array
    knots: Array
    means: Array
    spreads: Array
    correlation: Array
    calibration: Array

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """As they stand in the checkpoint."""
        kept = {k: v for k, v in vars(self).items() if k != "scale"}
        return {"scale": np.array([SCALES.index(self.scale)], np.int32), **kept}

    @staticmethod
    def from_tensors(tensors: dict[str, npt.NDArray[Any]]) -> Novelty | FirstNovelty:
        """From a checkpoint, of this form or the first one."""
        if "limit" in tensors:
            return FirstNovelty.from_tensors(tensors)
        return Novelty(scale=SCALES[int(tensors["scale"][0])], **{k: v for k, v in tensors.items() if k != "scale"})

    def scores(self, x: Counts, lost: tuple[int, ...] = ()) -> Array:
        """Score of each cell, (cells,): -log10 of the share of training cells as odd; nan where a cell has no counts.

        ``lost``: features that were not measured in these cells; they count neither for nor against.
        """
        there = np.ones(self.profiles.shape[1], bool)
        there[list(lost)] = False
        view = self._view(there)
        known = self._known(there)
        parts = []
        for start in range(0, x.shape[0], CHUNK):
            deviation, depth = self._seen(view, x, start, min(start + CHUNK, x.shape[0]))
            parts.append(np.where(depth > 0, self._rarity(self.odds(deviation, depth, known), depth), np.nan))
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)

    def _seen(self, view: views.View, x: Counts, first: int, last: int) -> tuple[Float, Float]:
        """``view`` of the cells from ``first`` to ``last``; of counts, each of which is seen by itself, few at once."""
        step = FEW if len(self.strata) else CHUNK
        found = [view(x[i : min(i + step, last)]) for i in range(first, last, step)]
        deviation, depth = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return deviation, depth

    def _known(self, there: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which numbers say something: strata of which no feature was measured do not."""
        if len(self.strata):
            return np.bincount(self.strata[there], minlength=views.STRATA) > 0
        return np.ones(self.means.shape[1], bool)

    def _view(self, there: npt.NDArray[np.bool_]) -> views.View:
        profiles = self.profiles.astype(np.float64)
        if len(self.strata):
            expect = views.expectation(profiles, self.strata, self.scale == fields.BINARY, there)
            return views.of_counts(expect, self.correction.astype(np.float64))
        return views.of_values(
            profiles, self.spread.astype(np.float64), self.directions.astype(np.float64), self.scale, there
        )

    def odds(self, deviation: Float, depth: Float, known: npt.NDArray[np.bool_]) -> Float:
        """How much likelier the deviation is for a foreign cell, (cells,), brought to mean 0 and variance 1 of training cells."""
        log_depth = np.log(np.maximum(depth, 1))
        inside = np.clip(log_depth, self.knots[0], self.knots[-1])
        spread = _at(inside, self.knots, self.spreads)
        if len(self.strata):  # cells deeper than the training cells have less of the noise of counting, .25 / depth
            noise = 0.25 * (np.exp(-inside) - np.exp(-np.maximum(log_depth, inside)))[:, None]
            spread = np.sqrt(np.maximum(spread**2 - noise, spread**2 / 10))
        z = ((deviation - _at(inside, self.knots, self.means)) / spread)[:, known]
        usual = self.correlation[np.ix_(known, known)]
        inverse = np.linalg.inv(usual)
        foreign = self._foreign()[np.ix_(known, known)]
        out = np.empty(len(z))
        nearest = np.abs(inside[:, None] - self.knots).argmin(1)
        for k in np.unique(nearest):
            here = nearest == k
            size = self.spreads[k][known].astype(np.float64)
            weight = inverse - np.linalg.inv(usual + foreign / np.outer(size, size))
            through = weight @ usual
            centre, width = np.trace(through), np.sqrt(2 * np.trace(through @ through))
            out[here] = (((z[here] @ weight) * z[here]).sum(1) - centre) / width
        return out

    def _foreign(self) -> Float:
        """Covariance of the deviations of foreign cells, (numbers, numbers)."""
        count = self.means.shape[1]
        if not len(self.strata):
            return np.eye(count) * 1e6  # any direction
        place = np.arange(count)
        smooth = np.exp(-0.5 * ((place[:, None] - place) / (REACH * count)) ** 2)
        return FOREIGN**2 * (smooth + ROUGH * np.eye(count))

    def _rarity(self, odds: Float, depth: Float) -> Float:
        """-log10 of the share of training cells of that depth with such odds or greater, between the two nearest knots."""
        out = np.zeros(len(odds))
        weights = _at(np.log(np.maximum(depth, 1)), self.knots, np.eye(len(self.knots)))
        for k, table in enumerate(self.calibration.astype(np.float64)):
            here = weights[:, k] > 0
            quantiles, mean_excess = table[:-1], table[-1]
            below = np.interp(odds[here], quantiles, np.linspace(0, TAIL, len(quantiles)))
            beyond = np.maximum(odds[here] - quantiles[-1], 0) / mean_excess
            out[here] += weights[here, k] * (beyond / np.log(10) - np.log10(1 - below))
        return out


def _at(log_depth: Float, knots: npt.NDArray[Any], curves: npt.NDArray[Any]) -> Float:
    """Each curve (knots, numbers) at each cell's depth, (cells, numbers)."""
    return np.column_stack([np.interp(log_depth, knots, curves[:, j]) for j in range(curves.shape[1])])


def fit(counts: Counts, likelihood: str, scale: str, seed: int = 0) -> Novelty | None:
    """Learn what the training cells of one modality look like; None below MIN_GROUP cells.

    ``counts``: CSR (cells, features) as they are fed to models; ``scale`` that of the modality.
    """
    if counts.shape[0] < MIN_GROUP:
        return None
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(counts.shape[0], min(SAMPLE, counts.shape[0]), replace=False))
    x = sp.csr_matrix(counts[rows], dtype=np.float32)
    if likelihood == fields.GAUSSIAN:
        return _fit_values(x, scale, rng, seed)
    binary = likelihood == fields.BERNOULLI
    x = sp.csr_matrix((x > 0).astype(np.float32)) if binary else x
    there = np.ones(x.shape[1], bool)

    fold = _folds(x.shape[0], rng)
    expects = [
        views.expectation(_profiles(x[fold != k], seed), views.strata_of(x[fold != k]), binary, there)
        for k in range(FOLDS)
    ]
    told = [expect(x[fold == k]) for k, expect in enumerate(expects)]
    seen, expected = (np.sum([t[i].T @ t[2] for t in told], 0) + 1 for i in (0, 1))
    correction = seen / expected
    each = [views.of_counts(expect, correction) for expect in expects]
    profiles, strata = _profiles(x, seed), views.strata_of(x)
    own = views.of_counts(views.expectation(profiles, strata, binary, there), correction)
    parts = {"profiles": profiles, "correction": correction, "spread": np.zeros(0), "directions": np.zeros((0, 0))}
    found = _deviations(x, fold, [*each, own], THINNED, rng)
    return _calibrated(fields.BINARY if binary else scale, strata, parts, found, x.shape[0])


def _fit_values(x: sp.csr_matrix, scale: str, rng: np.random.Generator, seed: int) -> Novelty | None:
    there = np.ones(x.shape[1], bool)
    spread = np.maximum(to_scale(x, None, scale).std(0), 1e-3).astype(np.float64)

    count = max(1, min(DIRECTIONS, x.shape[0] // PER_DIRECTION, x.shape[1] - 1))

    def centres_of(part: sp.csr_matrix) -> Float:
        dense = to_scale(part, None, scale)
        return np.stack([dense[g].mean(0) for g in _groups(sp.csr_matrix(dense / spread), seed)]).astype(np.float64)

    def learned(part: sp.csr_matrix) -> tuple[Float, Float]:
        """Centres of the groups, and the main directions in which cells differ from those of other cells."""
        half = np.arange(part.shape[0]) % 2 == 0  # the order of the cells was drawn already, or does not matter
        left = np.vstack([views.residuals(part[h], centres_of(part[~h]), spread, scale, there) for h in (half, ~half)])
        return centres_of(part), np.linalg.svd(left - left.mean(0), full_matrices=False)[2][:count]

    def view(part: sp.csr_matrix) -> views.View:
        centres, directions = learned(part)
        return views.of_values(centres, spread, directions, scale, there)

    fold = _folds(x.shape[0], rng)
    centres, directions = learned(x)
    parts = {"profiles": centres, "correction": np.zeros(0), "spread": spread, "directions": directions}
    # proteins are not thinned: most of their counts are background, which a shallower run does not thin alike
    own = views.of_values(centres, spread, directions, scale, there)
    each = [*(view(x[fold != k]) for k in range(FOLDS)), own]
    return _calibrated(scale, np.zeros(0, np.int32), parts, _deviations(x, fold, each, (1.0,), rng), x.shape[0])


def _folds(cells: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rng.permutation(np.arange(cells) * FOLDS // cells)


def _deviations(
    x: sp.csr_matrix, fold: Any, each: list[views.View], parts: tuple[float, ...], rng: np.random.Generator
) -> list[Float]:
    """Deviations (cells, numbers) and depths of the cells of each fold, whole and thinned, in the view of the other folds.

    And of all cells in the last view, that of all cells: those the model was trained on are not unlike them either.
    """
    found = []
    for k, view in enumerate(each):
        held = x[fold == k] if k < FOLDS else x
        for part in parts:
            deviation, depth = view(held if part == 1 else views.thinned(held, part, rng))
            some = depth > 0
            found.append((deviation[some], depth[some]))
    return [np.concatenate([f[i] for f in found]) for i in range(2)]


def _calibrated(
    scale: str, strata: npt.NDArray[np.int32], parts: dict[str, Float], found: list[Float], cells: int
) -> Novelty | None:
    """The deviations' mean and spread at each depth, their correlation, and how odd the whole training cells are."""
    deviation, depth = found
    if not len(depth):
        return None
    log_depth = np.log(depth)
    first, last = (float(q) for q in np.quantile(log_depth, [0.01, 0.99]))
    knots = np.linspace(first, last, KNOTS) if last > first + 0.01 else np.array([first])
    reach = max(float(knots[1] - knots[0]) if len(knots) > 1 else 1.0, 0.15)
    weights = np.exp(-0.5 * ((log_depth - knots[:, None]) / reach) ** 2)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-300)  # (knots, cells)
    means = weights @ deviation
    spreads = np.sqrt(np.maximum(weights @ deviation**2 - means**2, 0)) + 1e-6
    z = (deviation - _at(log_depth, knots, means)) / _at(log_depth, knots, spreads)
    shrink = max(SHRINK, z.shape[1] / (z.shape[1] + cells))  # few cells know little of what goes together
    correlation = (1 - shrink) * z.T @ z / len(z) + shrink * np.eye(z.shape[1])
    learned = {
        "knots": knots,
        "means": means,
        "spreads": spreads,
        "correlation": correlation,
        "calibration": np.zeros(0),
    }
    known = Novelty(scale=scale, strata=strata, **{k: v.astype(np.float32) for k, v in {**parts, **learned}.items()})
    everything = np.ones(known.profiles.shape[1], bool)
    odds = known.odds(deviation, depth, known._known(everything))
    near = max(FEWEST, len(odds) // len(knots))
    nearest = [np.argsort(np.abs(log_depth - knot), kind="stable")[:near] for knot in knots]
    return Novelty(**{**vars(known), "calibration": np.stack([_quantiles(odds[rows]) for rows in nearest])})


def _quantiles(odds: Float) -> Array:
    """Quantiles up to TAIL, and the mean excess over the last one."""
    quantiles = np.quantile(odds, np.linspace(0, TAIL, 96))
    beyond = odds[odds > quantiles[-1]] - quantiles[-1]
    return np.append(quantiles, max(float(beyond.mean()) if len(beyond) else 0.0, 1e-3)).astype(np.float32)


def _profiles(x: sp.csr_matrix, seed: int) -> Float:
    return np.stack([views.shares(x[g]) for g in _groups(_logged(x), seed)])


def _groups(x: sp.csr_matrix, seed: int) -> list[npt.NDArray[np.bool_]]:
    """Cells that are alike, at least MIN_GROUP in each group; smaller ones go to the nearest."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD

    wanted = max(1, min(GROUPS, x.shape[0] // PER_GROUP))
    if wanted == 1 or x.shape[1] < 3:
        return [np.ones(x.shape[0], bool)]
    reduced = TruncatedSVD(min(20, x.shape[0] - 1, x.shape[1] - 1), random_state=seed).fit_transform(x)
    found = MiniBatchKMeans(wanted, random_state=seed, n_init=3).fit_predict(reduced)
    names, sizes = np.unique(found, return_counts=True)
    large = names[sizes >= MIN_GROUP]
    if not len(large):
        return [np.ones(len(found), bool)]
    centres = np.stack([reduced[found == g].mean(0) for g in large])
    lone = ~np.isin(found, large)
    found[lone] = large[((reduced[lone][:, None] - centres) ** 2).sum(2).argmin(1)]
    return [found == g for g in large]


def _logged(x: sp.csr_matrix) -> sp.csr_matrix:
    total = np.maximum(np.asarray(x.sum(1)).ravel(), 1e-9)
    scaled = (sp.diags(1e4 / total) @ x).tocsr()
    scaled.data = np.log1p(scaled.data)
    return scaled


def scores(known: Novelty | FirstNovelty, counts: Counts, likelihood: str, lost: tuple[int, ...] = ()) -> Array:
    """Score of each cell of aligned ``counts`` (cells, features), (cells,); above LIMIT it is unlike the training cells."""

    def seen(x: sp.csr_matrix) -> sp.csr_matrix:
        return sp.csr_matrix(x > 0 if likelihood == fields.BERNOULLI else x, dtype=np.float32)

    return known.scores(counts.then(seen, counts.shape[1]) if isinstance(counts, OnDisk) else seen(counts), lost)


def verdict(scores: Array, calibrated: bool = True) -> dict[str, Any]:
    """``unlike``: share of cells above the ``limit``; ``median`` score; ``level``: fine, warning or refused; ``histogram``.

    Not ``calibrated``: scores of a :class:`FirstNovelty`, whose distribution in training cells is not known.
    """
    known = scores[np.isfinite(scores)]
    unlike = float((known > LIMIT).mean()) if len(known) else 0.0
    level = "refused" if unlike > REFUSE else "warning" if unlike > WARN else "fine"
    median = round(float(np.median(known)), 3) if len(known) else None
    found = {"unlike": round(unlike, 4), "median": median, "limit": LIMIT, "level": level}
    if not calibrated:
        return found
    counted = np.histogram(np.maximum(known, 0), [*EDGES, np.inf])[0]
    return {**found, "histogram": {"edges": list(EDGES), "cells": [int(c) for c in counted]}}


def require(name: str, found: dict[str, Any], force: bool) -> None:
    """Refuse a file most of whose cells are unlike the training cells, unless ``force``."""
    if found["level"] == "refused" and not force:
        raise InputRefused(
            f"{found['unlike']:.0%} of the cells are unlike the training cells in {name} (median score {found['median']}, "
            f"limit {found['limit']}: of the training cells one in a hundred is above it): another tissue, species, assay or "
            "scale?",
            do="use a checkpoint trained on such cells, or go on with --force",
        )
