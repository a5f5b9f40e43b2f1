"""Samples against samples: counts summed over the cells of a sample inside and outside a group, compared with DESeq2.

Cells of one donor resemble each other, so a test that takes each of them for a replicate finds differences between donors
(Squair et al. 2021, Nature Communications 12:5692).  Sums by sample, compared as bulk samples are, do not.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from xmodal.markers.groups import Groups

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
PAIRED, SIDES = "~sample + side", "~side"
LEAST = 2  # samples with both sides, or on either side; two find little and are no less honest (benchmarks/RESULTS.md)
LEAST_COUNTS = 10  # of a feature, over all pseudobulks: with fewer no test can tell anything, as DESeq2's vignette says
LEAST_MEAN = 1e-6  # of a pseudobulk: most are below the half count of DESeq2's default
OUTSIDE, INSIDE = "0 outside", "1 inside"  # in this order, the second is compared with the first


@dataclass(frozen=True)
class Plan:
    """Which samples of a group are compared: ``inside``, ``outside``: their codes; no ``design``: not at all, and ``why``."""

    design: str
    inside: Index
    outside: Index
    why: str = ""

    @property
    def samples(self) -> int:
        return len(np.union1d(self.inside, self.outside))


@dataclass(frozen=True)
class Tested:
    """All (features,), nan for features with too few counts; ``statistic`` is standard normal without a difference."""

    statistic: Float
    pvalue: Float


def plan(groups: Groups, group: int, least_cells: int) -> Plan:
    """``~sample + side`` where two samples or more have enough cells on both sides, else ``~side`` where two have on either.

    Where every sample is on one side, as with groups that are treatments, ``~side`` is all that can be asked.
    """
    nothing = np.zeros(0, np.int64)
    if not groups.samples:
        return Plan("", nothing, nothing, "no column says which sample a cell is of")
    inside, outside = (_samples(groups, side, least_cells) for side in (groups.codes == group, groups.codes != group))
    both = np.intersect1d(inside, outside)
    if len(both) >= LEAST:
        return Plan(PAIRED, both, both)
    if min(len(inside), len(outside)) >= LEAST:
        return Plan(SIDES, inside, outside)
    where, few = ("in", len(inside)) if len(inside) < LEAST else ("outside", len(outside))
    number = f"{few or 'no'} sample{'s' * (few != 1)}"
    why = f"{number} of '{groups.sample_key}' with {least_cells} cells or more {where} the group"
    return Plan("", nothing, nothing, why)


def _samples(groups: Groups, side: npt.NDArray[np.bool_], least_cells: int) -> Index:
    """Codes of the samples with enough cells of ``side`` (cells,)."""
    own = groups.sample_codes[side & (groups.sample_codes >= 0)]
    return np.flatnonzero(np.bincount(own, minlength=len(groups.samples)) >= least_cells).astype(np.int64)


def test(counts: sp.csr_matrix, depth: Float, groups: Groups, group: int, chosen: Plan) -> Tested:
    """DESeq2 between the sides; ``counts``: (cells, features), ``depth``: counts of each cell over all features."""
    into = sp.vstack(
        [
            _members(groups.sample_codes, groups.codes == group, chosen.inside),
            _members(groups.sample_codes, groups.codes != group, chosen.outside),
        ]
    )
    sums = np.asarray((into @ counts).todense())  # (pseudobulks, features)
    kept = np.flatnonzero(sums.sum(0) >= LEAST_COUNTS)
    result = np.full((2, counts.shape[1]), np.nan)
    if len(kept):
        result[:, kept] = _ratio(sums[:, kept], into @ depth, chosen)
    return Tested(*result)


def _members(codes: Index, side: npt.NDArray[np.bool_], samples: Index) -> sp.csr_matrix:
    """(samples, cells): 1 where a cell of the side is of the sample."""
    place = np.full(int(max(codes.max(), samples.max())) + 2, -1)  # the last one for cells of no sample
    place[samples] = np.arange(len(samples))
    cells = np.flatnonzero(side & (place[codes] >= 0))
    return sp.csr_matrix((np.ones(len(cells)), (place[codes[cells]], cells)), (len(samples), len(codes)))


def _ratio(sums: Float, size: Float, chosen: Plan) -> Float:
    """Statistic and p-value, (2, features): the ratio of likelihoods with and without the sides.

    With a floor of means of 1e-6 and no replacement of outliers, as DESeq2's vignette advises for single cells.  Its usual Wald
    test finds three to ten times as many as it should where a side has few counts (benchmarks/RESULTS.md).
    """
    from scipy.special import erfc

    from xmodal.markers.two_sides import Sized, TwoSides

    inside = np.arange(len(sums)) < len(chosen.inside)
    sample = np.concatenate([chosen.inside, chosen.outside])
    about = pd.DataFrame(
        {"sample": [f"s{i}" for i in sample], "side": np.where(inside, INSIDE, OUTSIDE)},
        index=[f"p{i}" for i in range(len(sums))],
    )
    table = pd.DataFrame(sums.astype(np.int64), index=about.index)
    table.columns = table.columns.astype(str)
    strata = np.unique(sample, return_inverse=True)[1] if chosen.design == PAIRED else np.zeros_like(sample)
    fits: Any = TwoSides(strata, inside)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        data: Any = Sized(
            counts=table, metadata=about, design=chosen.design, min_mu=LEAST_MEAN, inference=fits, quiet=True
        )
        data.size = size
        data.fit_MAP_dispersions()
        data.fit_LFC()
        root = np.sqrt(fits.likelihood_ratio(data))
        more = np.sign(data.varm["LFC"].iloc[:, -1].to_numpy(np.float64))  # the last coefficient is that of INSIDE
    return np.stack([root * more, erfc(root / np.sqrt(2))])
