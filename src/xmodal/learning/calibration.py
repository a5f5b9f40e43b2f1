"""Learning the errors of a model from cells it was not fitted to: intervals, and the reliability of every feature."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data.batches import joined
from xmodal.learning import training
from xmodal.learning.uncertainty import LEVELS, SPARSE, Uncertainty, in_range, nearest
from xmodal.models.base import CrossModalModel, GradientSettings
from xmodal.scores.metrics import Matrix, blocks, feature_pearson, feature_ranking

if TYPE_CHECKING:
    import torch

    from xmodal.data.batches import Cells

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float32]
MIN_CELLS = 50  # held-out cells below which a tenth of their values is too few to set a threshold for other cells
MIN_GROUP = 50
FOLDS = 5
GROUPS = 8  # more, or of 25 cells, did not bring the coverage of types nearer (cortex, CITE-seq)
GRID = 256
ENTRIES = 24_000_000  # values made dense at once
SORTED = 4_000_000  # values in which groups and thresholds are found: ten times as many bytes are held for each
DRAW = 2_000_000  # values of which the quantiles are taken
MIN_BIN = 200  # values in a bin of the prediction: ten of them lie beyond a 95 % quantile
MIN_SEEN = 5  # as in scores/scoring.py: a feature seen in fewer cells cannot be judged
Z = 1.959964  # of a 95 % interval
TINY = 1e-6


def fit(predicted: Array, true: Array, scale: str, seed: int = 0) -> Uncertainty:
    """Learn from predictions and truth of the same held-out cells, (cells, features) each on ``scale``."""
    p = in_range(predicted, scale)
    mean = np.maximum(p.mean(0), TINY) if scale in SPARSE else p.mean(0)
    spread = np.sqrt(np.maximum(mean, 1e-4)) if scale in SPARSE else np.maximum(p.std(0), TINY)
    weight = (1 / spread).astype(np.float32)
    part = _rows(len(p), max(4 * MIN_CELLS, SORTED // p.shape[1]), seed)
    centres = _centres(p[part], mean, weight, seed)
    empty = np.zeros((len(LEVELS), 0), np.float32)
    top, low, high = _tables(p, true, seed) if scale in SPARSE else (1.0, empty, empty)
    error = np.sqrt(np.square(p - true).mean(0))
    shape = (len(LEVELS), len(centres))
    found = Uncertainty(
        scale=scale,
        cells=len(p),
        top=top,
        floor=np.array([0.05 * row.mean() + TINY if len(row) else 0 for row in high], np.float32),
        low=low,
        high=high,
        width=np.zeros(0, np.float32) if scale in SPARSE else np.maximum(error, 0.01 * error.mean() + TINY),
        usual=_usual(p[part]) if scale in SPARSE else np.zeros((2, 0), np.float32),
        mean=mean,
        weight=weight,
        centres=centres,
        widen=np.zeros(shape, np.float32),
        trim=np.zeros(shape, np.int32),
        reliability=reliability(p, true, scale),
        seen=np.count_nonzero(true, 0).astype(np.int32),
        coverage=np.zeros((len(LEVELS), p.shape[1]), np.float32),
    )
    _thresholds(found, p[part], true[part])
    for i, level in enumerate(LEVELS):
        for s in blocks(len(p)):
            found.coverage[i] += covered(found.bounds(p[s], level), true[s]).sum(0)
    found.coverage[:] /= len(p)
    return found


def _rows(cells: int, most: int, seed: int) -> slice | npt.NDArray[np.int64]:
    """At most so many of the cells, drawn."""
    if cells <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(cells, most, replace=False))


def covered(bounds: tuple[Array, Array], true: Array) -> npt.NDArray[np.bool_]:
    return (bounds[0] <= true) & (true <= bounds[1])


def _tables(p: Array, true: Array, seed: int) -> tuple[float, Array, Array]:
    """The largest prediction, and the quantiles of the truth at both ends of each level, (levels, GRID) over its square root."""
    drawn = np.random.default_rng(seed).integers(0, p.size, DRAW) if p.size > DRAW else slice(None)
    x, y = p.ravel()[drawn], true.ravel()[drawn]
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    # ten bins of equal size, the uppermost in ever smaller ones: most predictions are near zero, the telling ones are not
    last = max(2, int(np.log2(max(0.1 * len(x) / MIN_BIN, 4))) + 1)
    shares = np.concatenate([np.linspace(0, 0.9, 10), 1 - 0.1 * 0.5 ** np.arange(1, last), [1]])
    edges = np.unique((shares * len(x)).astype(int))
    bins = [slice(a, b) for a, b in pairwise(edges) if b - a >= MIN_BIN]
    bins = bins or [slice(None)]  # a handful of features
    centre = np.array([np.median(x[b]) for b in bins])
    top = float(max(x[-1], TINY))
    grid = np.square(np.linspace(0, 1, GRID)) * top
    ends = {q: np.zeros((len(LEVELS), GRID), np.float32) for q in ("low", "high")}
    for i, level in enumerate(LEVELS):
        for name, share in (("low", (1 - level) / 2), ("high", (1 + level) / 2)):
            values = np.array([np.quantile(y[b], share, method="higher") for b in bins])
            ends[name][i] = np.interp(grid, centre, np.maximum.accumulate(values))
    return top, ends["low"], ends["high"]


def _centres(p: Array, mean: Array, weight: Array, seed: int) -> Array:
    """Mean predictions of groups of at least MIN_GROUP cells, (groups, features), from ``mean`` in units of ``weight``."""
    from sklearn.cluster import KMeans

    standard = (p - mean) * weight
    k = min(GROUPS, len(p) // MIN_GROUP)
    centres = np.zeros((1, p.shape[1]), np.float32)
    if k > 1 and standard.std(0).max() > TINY:
        centres = KMeans(k, n_init=3, random_state=seed).fit(standard).cluster_centers_.astype(np.float32)
    while len(centres) > 1:
        sizes = np.bincount(nearest(p, mean, weight, centres), minlength=len(centres))
        if sizes.min() >= MIN_GROUP:
            break
        centres = np.delete(centres, sizes.argmin(), 0)
    return centres


def _thresholds(found: Uncertainty, p: Array, true: Array) -> None:
    """Fill ``widen`` and ``trim``: each group's intervals get wider, or leave zero out, until the stated share is inside."""
    group = found.groups(p)
    for i, level in enumerate(LEVELS):
        lower, upper = found.base(p, i)
        width = np.broadcast_to(found.units(lower, upper, i), p.shape)
        inside = covered((lower, upper), true)
        rank = _ranks(found.standing(p, lower)) if found.scale in SPARSE else None
        for g in range(len(found.centres)):
            rows = group == g
            share = inside[rows].mean()
            if share <= level:
                error = np.maximum(lower[rows] - true[rows], true[rows] - upper[rows]) / width[rows]
                found.widen[i, g] = max(0.0, float(np.quantile(error, level)))
            elif rank is not None:
                lost = rank[rows][inside[rows] & (true[rows] <= 0)]
                counts = np.bincount(lost[lost >= 0], minlength=p.shape[1])
                left = share - np.concatenate([[0], counts.cumsum()]) / max(inside[rows].size, 1)
                found.trim[i, g] = int(np.abs(left - level)[: p.shape[1]].argmin())


def _ranks(values: Array) -> npt.NDArray[np.int32]:
    """Place of each value in its row, from the least; -1 where infinite."""
    order = values.argsort(1, kind="stable")
    rank = np.empty(values.shape, np.int32)
    np.put_along_axis(rank, order, np.arange(values.shape[1], dtype=np.int32)[None, :], 1)
    rank[np.isinf(values)] = -1
    return rank


def _usual(p: Array) -> Array:
    """Mean of the square root (which evens out the variance of counts) and one over its spread, (2, features)."""
    root = np.sqrt(p)
    mean, spread = root.mean(0, dtype=np.float64), root.std(0, dtype=np.float64)
    varies = spread > 1e-4 * mean  # less is rounding, and would put features in an order that means nothing
    return np.stack([mean, np.divide(1, spread, out=np.zeros_like(spread), where=varies)]).astype(np.float32)


def reliability(p: Array, true: Array, scale: str) -> Array:
    """Pearson r or AUROC of each feature with the ends of its 95 % interval, (3, features).

    Pearson: Fisher's z, its standard error from the influence of each cell where that is larger than the normal one: sparse
    counts have long tails.  AUROC: Hanley and McNeil 1982, on the logit scale.
    nan where the feature is not zero (binary: or is open) in fewer than MIN_SEEN cells.
    """
    seen = (true != 0).sum(0)
    if scale == fields.BINARY:
        value, _ = feature_ranking(p, Matrix(true))
        out = _auroc_interval(value, seen, len(p) - seen)
        seen = np.minimum(seen, len(p) - seen)
    else:
        value = np.clip(feature_pearson(p, Matrix(true)), -1 + TINY, 1 - TINY)
        z, half = np.arctanh(value), Z * np.maximum(_error_of_z(p, true, value), 1 / np.sqrt(max(len(p) - 3, 1)))
        out = np.stack([value, np.tanh(z - half), np.tanh(z + half)])
    out[:, seen < MIN_SEEN] = np.nan
    return out.astype(np.float32)


def _error_of_z(p: Array, true: Array, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Standard error of Fisher's z of each feature by the delta method, (features,)."""
    error = np.zeros(p.shape[1])
    for s in blocks(p.shape[1]):
        x, y = ((a[:, s] - a[:, s].mean(0)) / np.maximum(a[:, s].std(0), TINY) for a in (p, true))
        influence = x * y - (np.square(x) + np.square(y)) * (value[s] / 2).astype(np.float32)
        error[s] = np.sqrt(np.square(influence).mean(0) / len(p)) / (1 - value[s] ** 2)
    return error


def _auroc_interval(
    value: npt.NDArray[Any], positive: npt.NDArray[Any], negative: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    n1, n0 = np.maximum(positive, 1), np.maximum(negative, 1)
    a = np.clip(value, 0.5 / n1, 1 - 0.5 / n1)  # a perfect ranking of few cells is no proof of a perfect one
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (n1 - 1) * (q1 - a * a) + (n0 - 1) * (q2 - a * a)) / (n1 * n0)
    logit, half = np.log(a / (1 - a)), Z * np.sqrt(variance) / (a * (1 - a))
    return np.stack([value, 1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit))])


def of_training(
    model: CrossModalModel,
    cells: tuple[Cells, Cells],
    directions: list[tuple[str, str]],
    device: torch.device,
    seed: int,
) -> tuple[dict[tuple[str, str], Uncertainty], list[str]]:
    """Uncertainty of each direction of a trained ``model``; and why, where there is none.

    ``cells``: training cells without the validation cells, and the validation cells.
    """
    found, why = {}, []
    for (s, t), (held, predicted) in held_out(model, cells, directions, device, seed).items():
        if len(held) >= MIN_CELLS:
            found[s, t] = fit(predicted, held.values(t), model.vocabulary[t].scale, seed)
            continue
        why.append(
            f"{s} -> {t}: predictions will have no intervals, since the errors of the model are known in {len(held)} cells "
            f"with both it was not fitted to; {MIN_CELLS} are needed: prepare more cells, or a larger --valid-fraction"
        )
        log.warning(why[-1])
    return found, why


def held_out(
    model: CrossModalModel,
    cells: tuple[Cells, Cells],
    directions: list[tuple[str, str]],
    device: torch.device,
    seed: int,
) -> dict[tuple[str, str], tuple[Cells, Array]]:
    """Cells of each direction that have both modalities, and their prediction by a model that was not fitted to them.

    A model trained by gradient, and one that brings its own held-out predictions, is asked for those of the validation cells.
    A closed-form model was fitted to these as well: a copy of it is fitted to the training cells only; where too few
    validation cells are left to learn from, copies are fitted to all but a fifth of the cells, five times.
    """
    train, valid = cells
    own = isinstance(model.settings, GradientSettings) or type(model).calibration is not CrossModalModel.calibration
    if own:
        return {(s, t): model.calibration(_drawn(valid.having(s, t), t, seed), s, t, device) for s, t in directions}
    splits = [(train, valid)]
    if min((len(valid.having(*d)) for d in directions), default=0) < MIN_CELLS:
        every = joined(train, valid)
        fold = np.random.default_rng(seed).permutation(len(every)) % FOLDS
        splits = [
            (every.subset(np.flatnonzero(fold != f)), every.subset(np.flatnonzero(fold == f))) for f in range(FOLDS)
        ]
    parts: dict[tuple[str, str], list[tuple[Cells, Array]]] = {d: [] for d in directions}
    for rest, held in splits:
        if not len(rest):
            continue
        copy = type(model).build(model.settings, model.vocabulary)
        training.fit(copy, rest, held, device, seed=seed)
        for s, t in sorted(set(directions) & set(copy.learned(rest))):
            parts[s, t].append(copy.calibration(_drawn(held.having(s, t), t, seed), s, t, device))
    none = (valid.subset(np.zeros(0, int)), np.zeros((0, 0), np.float32))
    return {d: _put_together(p) if p else none for d, p in parts.items()}


def _put_together(parts: list[tuple[Cells, Array]]) -> tuple[Cells, Array]:
    cells = parts[0][0]
    for more, _ in parts[1:]:
        cells = joined(cells, more)
    return cells, np.concatenate([p for _, p in parts])


def _drawn(cells: Cells, target: str, seed: int) -> Cells:
    """At most as many cells as can be made dense at once."""
    rows = _rows(len(cells), max(4 * MIN_CELLS, ENTRIES // len(cells.vocabulary[target])), seed)
    return cells if isinstance(rows, slice) else cells.subset(rows)
