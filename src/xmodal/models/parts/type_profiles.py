"""What cells of each type are made of: shares of their counts, as far as few and shallow cells can tell; and their depths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIN_CELLS = 20  # a profile is a mean over at least so many cells
FANO = (1.0, 20.0)  # least and most variance of a count over its mean
ALIKE = 0.1  # types differ in every feature by a tenth of its share at least
DEPTHS = 50  # quantiles of the depths of a type
FEWER = 2  # types below which nothing says how much they differ


def sums(counts: Any, codes: Ints, types: int) -> Array:
    """Total counts of each type, (types, features); ``counts``: CSR (cells, features)."""
    rows = np.flatnonzero(codes >= 0)
    member = sp.csr_matrix((np.ones(len(rows)), (codes[rows], rows)), shape=(types, counts.shape[0]))
    found: Array = np.asarray((member @ counts).todense(), np.float64)
    return found


def shares(counts: Any, codes: Ints, types: int) -> Array:
    """Share of each feature in the counts of each type, (types, features), rows sum to 1.

    Empirical Bayes, feature by feature: shares of the types are draws from a gamma distribution whose spread is what the types
    differ by beyond noise; a feature that they do not differ in is pooled, a marker is left as it is.  Counts vary more than a
    Poisson's (Fano factor of the feature within types), so they say that much less.  Types of fewer than 20 cells get the mean.
    """
    total = sums(counts, codes, types)  # (types, features)
    cells = np.bincount(codes[codes >= 0], minlength=types)
    many = cells >= MIN_CELLS
    rates = total / np.maximum(total.sum(1, keepdims=True), 1)
    mean = rates[many].mean(0) if many.any() else total.sum(0)
    mean = np.maximum(mean, 0.5 / max(total.sum(), 1))
    mean /= mean.sum()
    if many.sum() < FEWER:
        return np.tile(mean, (types, 1))
    fano = _fano(counts, codes, rates, total.sum(0))
    depth = total.sum(1, keepdims=True)
    noise = (np.maximum(rates[many], mean) * fano / depth[many]).mean(0)
    between = np.square(rates[many] - mean).sum(0) / (many.sum() - 1) - noise
    prior = mean**2 / np.maximum(between, np.square(ALIKE * mean))
    found = np.tile(mean, (types, 1))
    found[many] = (total[many] / fano + prior) / (depth[many] / fano + prior / mean)
    out: Array = found / found.sum(1, keepdims=True)
    return out


def _fano(counts: Any, codes: Ints, rates: Array, total: Array) -> Array:
    """Variance over mean of each feature within types, given the cells' depths, (features,).

    Sum of (x - mu)^2 = sum x^2 - 2 sum x mu + sum mu^2, so that the matrix stays sparse.
    """
    rows = np.flatnonzero(codes >= 0)
    x, own = counts[rows], codes[rows]
    depth = np.asarray(x.sum(1), np.float64).ravel()
    squares = np.asarray(x.multiply(x).sum(0), np.float64).ravel()
    weighted = sums(sp.diags(depth) @ x, own, len(rates))  # (types, features): sum of depth * x
    depths = np.bincount(own, depth**2, len(rates))
    away = squares - 2 * (weighted * rates).sum(0) + (depths[:, None] * rates**2).sum(0)
    found: Array = np.clip(away / np.maximum(total, 1), *FANO)
    return found


def depth_quantiles(depths: Array, codes: Ints, types: int) -> Array:
    """Quantiles of the total counts of the cells of each type, (types, DEPTHS); of all cells for a type of fewer than 20."""
    levels = (np.arange(DEPTHS) + 0.5) / DEPTHS
    found = np.tile(np.quantile(depths[codes >= 0], levels), (types, 1))
    for t in range(types):
        own = depths[codes == t]
        if len(own) >= MIN_CELLS:
            found[t] = np.quantile(own, levels)
    out: Array = np.maximum(found, 1)
    return out


def depths_at(quantiles: Array, place: Array) -> Ints:
    """Total counts (cells,) at ``place`` (cells,; 0 to 1) of ``quantiles`` (cells, DEPTHS)."""
    at = np.clip(place * DEPTHS - 0.5, 0, DEPTHS - 1)
    low = np.minimum(at.astype(np.int64), DEPTHS - 2)
    row = np.arange(len(at))
    values = quantiles[row, low] + (at - low) * (quantiles[row, low + 1] - quantiles[row, low])
    found: Ints = np.maximum(np.round(values), 1).astype(np.int64)
    return found


def place_of(quantiles: Array, depth: float) -> Array:
    """Where ``depth`` lies among the ``quantiles`` (cells, DEPTHS), (cells,; between 0 and 1, never at the ends)."""
    found: Array = ((quantiles < depth).sum(1) + 0.5) / (DEPTHS + 1)
    return found
