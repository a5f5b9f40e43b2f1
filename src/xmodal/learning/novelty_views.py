"""What of a cell is compared with the training cells: a few numbers that do not depend on how deeply it was sequenced.

Counts: the features are put into strata by how often the training cells have them; the share of a cell's counts in each stratum,
beside the share expected in the training group the cell resembles most (square roots, whose noise depends on depth alone).
Foreign cells have counts where training cells rarely do.  Open or closed: the same, with the expectation at the cell's own
number of open features (common ones are used up first).  Values: residuals from the nearest group along the main directions
in which held-out training cells leave theirs, and how much is left beside these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.data.transforms import to_scale
from xmodal.fields import CLR

Float = npt.NDArray[np.float64]
View = Callable[[sp.csr_matrix], tuple[Float, Float]]
Expectation = Callable[[sp.csr_matrix], tuple[Float, Float, Float]]
STRATA = 20
EVEN = 0.5  # strata hold equal sums of counts ** EVEN: between equal numbers of features (0) and of counts (1)
SMOOTH = 0.05  # share of the average feature that a feature without any count gets
GRID = np.geomspace(1, 1e6, 48)  # numbers of open features between which the expectation is interpolated


def shares(x: sp.csr_matrix) -> Float:
    """Expected share of counts of each feature, (features,), smoothed so that none is impossible."""
    total = np.asarray(x.sum(0), dtype=np.float64).ravel()
    smooth = total + SMOOTH * max(total.sum(), 1) / len(total)
    return smooth / smooth.sum()


def strata_of(x: sp.csr_matrix) -> npt.NDArray[np.int32]:
    """Stratum of each feature, (features,): 0 holds the most frequent ones."""
    total = np.asarray(x.sum(0), dtype=np.float64).ravel()
    order = np.argsort(-total, kind="stable")
    filled = np.cumsum((total[order] + 1e-3) ** EVEN)
    strata = np.empty(len(total), np.int32)
    strata[order] = np.minimum(filled / filled[-1] * STRATA, STRATA - 1).astype(np.int32)
    return strata


def of_counts(expect: Expectation, correction: Float) -> View:
    """Cells (CSR counts) -> deviations (cells, STRATA) and counts (cells,).

    ``correction`` (STRATA,): what new cells have over what is expected; features seen rarely are commoner than they seemed.
    """

    def view(x: sp.csr_matrix) -> tuple[Float, Float]:
        found, expected, total = expect(x)
        expected = expected * correction
        expected /= np.maximum(expected.sum(1, keepdims=True), 1e-300)
        half = 0.25 / np.maximum(total, 1)[:, None]
        return np.sqrt(found + half) - np.sqrt(expected + half), total

    return view


def expectation(
    profiles: Float, strata: npt.NDArray[np.int32], binary: bool, there: npt.NDArray[np.bool_]
) -> Expectation:
    """Cells (CSR counts) -> shares found and expected in each stratum, (cells, STRATA), and counts (cells,).

    Over the features that are ``there``; expected by the profile, (groups, features), that explains the cell best.
    """
    own = np.where(there, profiles, 0)
    own = own / np.maximum(own.sum(1, keepdims=True), 1e-300)
    member = sp.csr_matrix((np.ones(len(strata)), (np.arange(len(strata)), strata)), (len(strata), STRATA))
    log_own = np.log(np.where(there, np.maximum(own, 1e-300), 1)).T.copy()  # (features, groups)
    table = _saturated(own, member) if binary else np.asarray(own @ member)[None]

    def expect(x: sp.csr_matrix) -> tuple[Float, Float, Float]:
        x = sp.csr_matrix((x > 0) if binary else x, dtype=np.float64)
        total = np.asarray(x.sum(1)).ravel()
        n = np.maximum(total, 1)[:, None]
        best = np.asarray(x @ log_own).argmax(1)
        expected = table[0, best] if len(table) == 1 else _between(table, best, n.ravel())
        return (x @ member).toarray() / n, expected, total

    return expect


def _saturated(own: Float, member: sp.csr_matrix) -> Float:
    """Expected share of each stratum among the open features, (GRID, groups, STRATA), where each can be open only once."""
    table = np.empty((len(GRID), len(own), STRATA))
    for g, rates in enumerate(own):
        total, parts = np.empty(80), []
        for i, t in enumerate(np.geomspace(1, 1e9, 80)):  # one after the other: of 100,000 peaks all take 64 MB
            opened = -np.expm1(-t * rates)[None]  # (1, features)
            total[i] = opened.sum()
            parts.append(np.asarray(opened @ member))
        part = np.concatenate(parts) / total[:, None]
        for k in range(STRATA):
            table[:, g, k] = np.interp(np.log(GRID), np.log(total), part[:, k])
    return table


def _between(table: Float, best: npt.NDArray[np.int64], n: Float) -> Float:
    """The table's row for each cell, between the two nearest numbers of open features, (cells, STRATA)."""
    above = np.clip(np.searchsorted(GRID, n), 1, len(GRID) - 1)
    weight = np.clip(np.log(n / GRID[above - 1]) / np.log(GRID[above] / GRID[above - 1]), 0, 1)[:, None]
    mixed: Float = table[above - 1, best] * (1 - weight) + table[above, best] * weight
    return mixed


def residuals(x: sp.csr_matrix, centres: Float, spread: Float, scale: str, there: npt.NDArray[np.bool_]) -> Float:
    """Distance of values from the nearest group in spreads of the training cells, (cells, features); 0 where not measured."""
    standard = np.zeros(x.shape)
    standard[:, there] = to_scale(x[:, there], None, scale) / spread[there]
    own = np.where(there, centres / spread, 0)
    nearest = ((own**2).sum(1) - 2 * standard @ own.T).argmin(1)
    out: Float = standard - own[nearest]
    return out


def of_values(centres: Float, spread: Float, directions: Float, scale: str, there: npt.NDArray[np.bool_]) -> View:
    """Cells (CSR values) -> (cells, directions + 1) and, for CLR, counts (cells,); one for all where depth has no meaning."""

    def view(x: sp.csr_matrix) -> tuple[Float, Float]:
        left = residuals(x, centres, spread, scale, there)
        along = left @ directions.T
        rest = np.maximum((left**2).sum(1) - (along**2).sum(1), 0) / max(int(there.sum()), 1)
        depth = np.asarray(abs(x).sum(1), dtype=np.float64).ravel() if scale == CLR else np.ones(x.shape[0])
        return np.column_stack([along, 0.5 * np.log(rest + 1e-6)]), depth

    return view


def thinned(x: sp.csr_matrix, part: float, rng: np.random.Generator) -> sp.csr_matrix:
    """The same cells sequenced less deeply: each count stays with probability ``part``."""
    out = x.copy()
    out.data = rng.binomial(np.maximum(np.rint(x.data), 0).astype(np.int64), part).astype(x.dtype)
    out.eliminate_zeros()
    return out
