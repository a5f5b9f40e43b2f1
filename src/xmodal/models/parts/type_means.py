"""What the mean expression of each type is believed to be, and by how much a generator's shares miss it.

The mean of a few dozen cells is itself uncertain: on the scale on which cells are compared that was most of what told generated
cells from new ones.  So each gene's mean is drawn towards what the other types say of it (empirical Bayes, Efron and Morris
1973): strongly where cells of a type differ and types do not.  What the others say is kernel ridge regression over types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.models.parts import type_profiles
from xmodal.models.parts.type_profiles import MIN_CELLS

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NOISE = 0.1  # of the kernel ridge, on likeness of types, which is 1 of a type with itself
FEWEST_TYPES = 3  # with enough cells; below it others say nothing
LEAST_BETWEEN = 2e-3  # variance of a gene between types, in units of that within: so much any gene may differ
PSEUDO = 2e-3  # added to means whose ratio is taken: a gene that one cell in hundreds shows
FARTHEST = 1.5  # of the logarithm of a share, at once
JUMPS = 5.0  # counts that a gene is taken to have shown besides its own


@dataclass(frozen=True)
class Means:
    """Of log1p(counts / depth x ``depth``): ``mean`` and ``variance`` (types, genes) and number of cells, ``size`` (types,)."""

    mean: Array
    variance: Array
    size: Ints
    depth: float

    @classmethod
    def of(cls, counts: Any, codes: Ints, types: int, depth: float) -> Means:
        """``counts``: CSR (cells, genes), none of them empty; ``codes`` (cells,)."""
        logged = counts.astype(np.float64)
        total = np.asarray(counts.sum(1), np.float64).ravel()
        logged.data = np.log1p(logged.data * np.repeat(depth / total, np.diff(logged.indptr)))
        size = np.bincount(codes, minlength=types)
        number = np.maximum(size, 1)[:, None]
        mean = type_profiles.sums(logged, codes, types) / number
        logged.data = np.square(logged.data)
        variance = type_profiles.sums(logged, codes, types) / number - np.square(mean)
        return cls(mean, np.maximum(variance, 0), size, depth)

    @property
    def many(self) -> npt.NDArray[np.bool_]:
        """Types of 20 cells or more, (types,)."""
        found: npt.NDArray[np.bool_] = self.size >= MIN_CELLS
        return found

    def believed(self, likeness: Array) -> Array:
        """The mean of each type of 20 cells or more, drawn towards what the other ones say, (types, genes); 0 of the others.

        ``likeness`` (types, types).
        """
        many, size = self.many, self.size[self.many][:, None]
        own = self.mean[many]
        found = np.zeros_like(self.mean)
        if len(own) < FEWEST_TYPES:
            found[many] = own
            return found
        others = said(likeness[np.ix_(many, many)]) @ own
        within = (size * self.variance[many]).sum(0) / (size.sum() - len(size))
        between = (np.square(own - others) - within / size).mean(0)
        between = np.maximum(between, LEAST_BETWEEN * within) + 1e-12
        trust = between / (between + within / size)
        found[many] = np.maximum(trust * own + (1 - trust) * others, 0)
        return found


def said(likeness: Array) -> Array:
    """Weights (types, types), rows summing to 1, by which each type is guessed from the others; the diagonal is 0."""
    found = np.zeros_like(likeness)
    for one in range(len(likeness)):
        some = np.arange(len(likeness)) != one
        found[one, some] = ridge(likeness[np.ix_(some, some)], likeness[one, some])
    return found


def ridge(among: Array, towards: Array) -> Array:
    """Weights (known,) of the known types for one whose likeness to them is ``towards`` (known,); they sum to 1."""
    weight = np.linalg.solve(among + NOISE * np.eye(len(among)), towards)
    found: Array = weight + (1 - weight.sum()) / len(weight)
    return found


@dataclass(frozen=True)
class Drawn:
    """Cells drawn of a type: ``counts`` and their expectations, ``expected``, (cells, genes); ``totals`` (cells,)."""

    counts: Array
    expected: Array
    totals: Ints

    def step(self, wanted: Array, depth: float) -> Array:
        """What to add to the log shares (genes,) so that the mean of log1p(counts / total x ``depth``) is ``wanted`` (genes,).

        The slope of that mean is E[k (f(k) - f(k - 1))] for Poisson counts k.  The noise of the draw is taken out of the mean
        by that of the counts, whose expectation is known.
        """
        scale = (depth / self.totals)[:, None]
        logged = np.log1p(scale * self.counts)
        jump = self.counts * (logged - np.log1p(scale * np.maximum(self.counts - 1, 0)))
        each = (jump.sum(0) + JUMPS * np.log1p(scale).mean()) / (self.counts.sum(0) + JUMPS)
        mean = self.expected.mean(0)
        found = np.maximum(logged.mean(0) - each * (self.counts.mean(0) - mean), 0)
        elastic = np.clip((each * mean + PSEUDO) / (found + PSEUDO), 0.1, 1)
        out: Array = np.clip(np.log((wanted + PSEUDO) / (found + PSEUDO)) / elastic, -FARTHEST, FARTHEST)
        return out
