"""How generated cells of one type compare with measured ones.  Functions of arrays, cells in rows.

None of these says enough alone: a type's mean without any noise is named rightly more often than real cells are.  Sources:
Gretton et al. 2012 (MMD), Szekely and Rizzo 2013 (energy distance), Bonneel et al. 2015 (sliced Wasserstein), Lopez-Paz and
Oquab 2017 (classifier two-sample test).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmodal.scores.metrics import Array, Floats, Index

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median squared distance between measured cells
PROJECTIONS = 200
FOLDS = 3
ROUNDS = 60  # trees of the classifier: more tell nothing more apart in a few thousand cells


def squared_distances(a: Array, b: Array) -> Floats:
    """(rows of a, rows of b)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    found: Floats = np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0)
    return found


def mmd2(generated: Array, real: Array) -> float:
    """Unbiased squared maximum mean discrepancy, kernels exp(-d^2 / h), mean over five h by the real cells' median d^2."""
    n, m = len(generated), len(real)
    own, others, between = (
        squared_distances(generated, generated),
        squared_distances(real, real),
        squared_distances(generated, real),
    )
    median = max(float(np.median(others[np.triu_indices(m, 1)])), 1e-12)
    found = []
    for factor in BANDWIDTHS:
        a, b, c = (np.exp(-d / (factor * median)) for d in (own, others, between))
        found.append((a.sum() - n) / (n * (n - 1)) + (b.sum() - m) / (m * (m - 1)) - 2 * c.mean())
    return float(np.mean(found))


def energy(generated: Array, real: Array) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, pairs of different cells."""
    n, m = len(generated), len(real)
    between = np.sqrt(squared_distances(generated, real)).mean()
    own = np.sqrt(squared_distances(generated, generated)).sum() / (n * (n - 1))
    others = np.sqrt(squared_distances(real, real)).sum() / (m * (m - 1))
    return float(2 * between - own - others)


def wasserstein(generated: Array, real: Array) -> float:
    """Mean over the columns of the one-dimensional earth mover's distance."""
    from scipy.stats import wasserstein_distance

    each = [wasserstein_distance(generated[:, i], real[:, i]) for i in range(generated.shape[1])]
    return float(np.mean(each))


def sliced_wasserstein(generated: Array, real: Array) -> float:
    """Root mean over 200 fixed directions of the squared 2-Wasserstein distance along each, by 100 quantiles."""
    directions = np.random.default_rng(0).standard_normal((generated.shape[1], PROJECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    levels = (np.arange(100) + 0.5) / 100
    a, b = (np.quantile(x.astype(np.float64) @ directions, levels, axis=0) for x in (generated, real))
    return float(np.sqrt(np.square(a - b).mean()))


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """nan where one does not vary."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt(np.square(x).sum() * np.square(y).sum())
    return float(x @ y / size) if size > 0 else float("nan")


def variance_ratio(generated: Array, real: Array) -> float:
    """Median over the columns that vary in the real cells of the variance between generated over that between real cells."""
    there = real.var(0, ddof=1)
    some = there > 0
    ratio = generated.var(0, ddof=1)[some] / there[some]
    return float(np.median(ratio)) if some.any() else float("nan")


def neighbours_say(real: Array, types: Index, generated: Array, k: int) -> Index:
    """The type of each generated cell by the vote of its ``k`` nearest real cells, (cells,)."""
    from sklearn.neighbors import KNeighborsClassifier

    found: Index = KNeighborsClassifier(k).fit(real, types).predict(generated).astype(np.int64)
    return found


def told_apart(generated: Array, real: Array, seed: int) -> float:
    """AUC of gradient boosting that tells generated from real cells, in three shuffled folds; 0.5: it cannot.

    The folds are shuffled: cells stand in the order of their types, and ordered folds gave 0.2.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    x = np.vstack([generated, real])
    y = np.repeat([1, 0], [len(generated), len(real)])
    if len(x) < 2 * FOLDS or min(len(generated), len(real)) < FOLDS:
        return float("nan")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    trees = HistGradientBoostingClassifier(max_iter=ROUNDS, random_state=0)
    chance = cross_val_predict(trees, x, y, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(y, chance))
