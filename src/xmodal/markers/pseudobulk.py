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
INSIDE, OUTSIDE = "inside", "outside"


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
    """All (features,), nan for features with too few counts and where one sample alone makes the difference."""

    log2fc: Float
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


def test(counts: sp.csr_matrix, groups: Groups, group: int, chosen: Plan, threads: int = 1) -> Tested:
    """DESeq2's Wald test between the sides; ``counts``: (cells, features)."""
    sums = np.concatenate(
        [
            _sums(counts, groups.sample_codes, groups.codes == group, chosen.inside),
            _sums(counts, groups.sample_codes, groups.codes != group, chosen.outside),
        ]
    )  # (pseudobulks, features)
    kept = np.flatnonzero(sums.sum(0) >= LEAST_COUNTS)
    result = np.full((3, counts.shape[1]), np.nan)
    if len(kept):
        result[:, kept] = _wald(sums[:, kept], chosen, threads)
    return Tested(*result)


def _sums(counts: sp.csr_matrix, codes: Index, side: npt.NDArray[np.bool_], samples: Index) -> Float:
    """(samples, features)"""
    place = np.full(max(codes.max(), samples.max()) + 2, -1)
    place[samples] = np.arange(len(samples))
    cells = np.flatnonzero(side & (place[codes] >= 0))
    into = sp.csr_matrix((np.ones(len(cells)), (place[codes[cells]], cells)), (len(samples), len(codes)))
    return np.asarray((into @ counts).todense())


def _wald(sums: Float, chosen: Plan, threads: int) -> Float:
    """log2 fold change, statistic and p-value, (3, features)."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    from xmodal.markers.together import Together

    about = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in np.concatenate([chosen.inside, chosen.outside])],
            "side": [INSIDE] * len(chosen.inside) + [OUTSIDE] * len(chosen.outside),
        },
        index=[f"p{i}" for i in range(len(sums))],
    )
    table = pd.DataFrame(sums.astype(np.int64), index=about.index)
    table.columns = table.columns.astype(str)
    fits: Any = Together(n_cpus=threads)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # Features of shallow data are seldom in every pseudobulk, which the ratios of plain DESeq2 need.
        data = DeseqDataSet(
            counts=table,
            metadata=about,
            design=chosen.design,
            size_factors_fit_type="poscounts",
            inference=fits,
            quiet=True,
        )
        data.deseq2()
        found = DeseqStats(
            data, contrast=["side", INSIDE, OUTSIDE], independent_filter=False, inference=fits, quiet=True
        )
        found.summary()
    frame = found.results_df
    return frame[["log2FoldChange", "stat", "pvalue"]].to_numpy(np.float64).T
