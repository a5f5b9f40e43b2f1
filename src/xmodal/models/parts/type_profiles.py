"""What cells of each type are made of, as shares of their counts, and how deep they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIN_CELLS = 20  # a profile is a mean over at least so many cells
PSEUDO = 0.05  # counts of the mean that a type gets besides its own, for each feature
HALF = 0.5  # count, so that no share is zero
SCALE = 1e4  # shares are mixed on the scale log1p(1e4 x share), on which profiles are compared
DEPTHS = 50  # quantiles of the depths of a type


def sums(counts: Any, codes: Ints, types: int) -> Array:
    """Total counts of each type, (types, features); ``counts``: CSR (cells, features)."""
    rows = np.flatnonzero(codes >= 0)
    member = sp.csr_matrix((np.ones(len(rows)), (codes[rows], rows)), shape=(types, counts.shape[0]))
    found: Array = np.asarray((member @ counts).todense(), np.float64)
    return found


def shares(counts: Any, codes: Ints, types: int) -> Array:
    """Share of each feature in the counts of each type, (types, features), rows sum to 1.

    Each type gets some counts of the mean over all cells besides its own, so that a feature that few cells show is pooled and a
    marker stays.  A type of fewer than 20 cells gets that mean alone.
    """
    total = sums(counts, codes, types)  # (types, features)
    mean = total.sum(0) + HALF
    mean /= mean.sum()
    many = np.bincount(codes[codes >= 0], minlength=types) >= MIN_CELLS
    own = np.where(many[:, None], total, 0) + PSEUDO * len(mean) * mean
    found: Array = own / own.sum(1, keepdims=True)
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


def mixed_shares(weight: Array, shares: Array) -> Array:
    """Shares (features,), summing to 1, mixed from those of types, (types, features), with ``weight`` (types,)."""
    found = np.expm1(np.maximum(weight @ np.log1p(SCALE * shares), 0)) / SCALE
    found = np.maximum(found, shares.min(0) / 2)  # no type has none of a feature
    out: Array = found / found.sum()
    return out


def mixed_depths(weight: Array, depths: Array) -> Array:
    """Rising quantiles of the depth (DEPTHS,), mixed from those of types, (types, DEPTHS); within what these have."""
    mixed = np.exp(weight @ np.log(depths)).clip(depths.min(0), depths.max(0))
    found: Array = np.maximum.accumulate(mixed)
    return found
