"""Genes of which a group has more: chosen in one half of the cells, tested in the other.

What is chosen among thousands of genes looks better than it is in the cells in which it was chosen.  The figures that a
description shows are those of the other half, and a gene that fails there is not named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from xmodal.fields import RNA
from xmodal.markers import comparison, measured
from xmodal.markers.groups import Groups
from xmodal.markers.settings import MarkerSettings

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.describing.settings import DescribeSettings
    from xmodal.markers.measured import Measured

Index = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]
# What is as clear as this in one half (standard deviations of the test, twofold) is seldom nothing in the other; what was seen
# in fewer cells may by chance be in none there, and the test's normal scale means little for it.
CLEAR, TWOFOLD, SEEN = 5.0, 1.0, 5
COLUMNS = ("group", "gene", "log2fc", "share_in", "share_out", "auroc", "padj", "above_median", "confirmed")


@dataclass(frozen=True)
class Named:
    """``names``, ``codes``: groups and the group of each cell, -1 for none; ``first``: the half in which genes are chosen.

    ``table``: genes in the order of their evidence in the first half, with the figures of the second (``COLUMNS``); ``few``:
    groups that are too small for any.
    """

    names: tuple[str, ...]
    codes: Index
    first: Bools
    table: pd.DataFrame
    few: frozenset[str]

    def of(self, group: str, confirmed: bool = True) -> pd.DataFrame:
        """The genes of a group, all that were chosen or only those that were confirmed."""
        own = self.table[self.table["group"] == group]
        return own[own["confirmed"].astype(bool)] if confirmed else own

    def halves(self, group: str) -> tuple[Index, Index]:
        """Cells of the group in the half where genes were chosen, and in the other."""
        own = self.codes == self.names.index(group)
        return np.flatnonzero(own & self.first), np.flatnonzero(own & ~self.first)


def find(
    mdata: MuData, groups: tuple[tuple[str, ...], Index], settings: DescribeSettings, seed: int, path: Path
) -> Named:
    """Genes of every group of the RNA of ``mdata``; ``groups``: names, and the code of each cell of it, -1 for none."""
    names, codes = groups
    first = half(codes, seed)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    few = {n for n, s in zip(names, sizes, strict=True) if min(s, sizes.sum() - s) < settings.min_cells}
    empty = pd.DataFrame(columns=list(COLUMNS))
    if not settings.genes or len(few) == len(names):
        return Named(names, codes, first, empty, frozenset(few))
    kind = measured.kinds(mdata, [RNA], path)[RNA]
    chosen = _chosen(_part(mdata, kind, names, np.where(first, codes, -1)), few, settings)
    own = _part(mdata, kind, names, np.where(first, -1, codes))
    table = test(own, chosen, settings.fdr) if chosen else empty
    return Named(names, codes, first, table, frozenset(few))


def half(codes: Index, seed: int) -> Bools:
    """One half of the cells of each group, drawn by ``seed``, (cells,); of an odd number the larger half is the first."""
    order = np.random.default_rng(seed).permutation(len(codes))
    first = np.zeros(len(codes), bool)
    for code in np.unique(codes):
        first[order[codes[order] == code][::2]] = True
    return first


def of_groups(mdata: MuData, names: tuple[str, ...], codes: Index, path: Path) -> Measured:
    """The RNA of the cells that have a group."""
    return _part(mdata, measured.kinds(mdata, [RNA], path)[RNA], names, codes)


def _part(mdata: MuData, kind: tuple[str, str], names: tuple[str, ...], codes: Index) -> Measured:
    asked = tuple(range(len(names)))
    return measured.of_modality(mdata, RNA, kind, Groups(names, codes, asked, None, (), np.full(len(codes), -1)))


def _chosen(own: Measured, few: set[str], settings: DescribeSettings) -> list[tuple[str, str]]:
    """(group, gene): of each group that is large enough the clear markers that come first in two orders together.

    By the order of `xmodal markers` alone (fold change, and that against the next group) genes of few cells come first; by AUROC
    alone those that the group shares with its nearest.
    """
    asked = MarkerSettings(method="wilcoxon", fdr=settings.fdr, min_cells=max(2, settings.min_cells // 2 - 1))
    table = _compared(own, asked)
    clear = table["is_marker"].astype(bool) & (table["statistic"] >= CLEAR) & (table["log2fc"] >= TWOFOLD)
    clear &= table["share_in"] * table["cells"] >= SEEN - 0.5
    table = table[clear & ~table["group"].isin(few)]
    chosen = []
    for group, part in table.groupby("group", sort=True):
        both = part["rank"].rank() + (-part["auroc"]).rank()
        first = part.assign(both=both).sort_values(["both", "rank"]).head(settings.genes)
        chosen += [(str(group), str(gene)) for gene in first["feature"]]
    return chosen


def test(own: Measured, claims: list[tuple[str, str]], fdr: float) -> pd.DataFrame:
    """Is it true of the cells ``own`` that the group has more of the gene than the other cells have?

    A claim is confirmed where the gene is higher by ranks (Wilcoxon, within strata of cells of like depth; false discovery
    rate over all claims at most ``fdr``), the fold change is above none, and the mean log expression of the group is above
    the median of those of the other groups.  A claim about a group or gene that is not there, or has too few cells, is not
    confirmed, its figures nan.
    """
    place = {str(name): i for i, name in enumerate(own.features)}
    wanted = np.array(sorted({place[gene] for _, gene in claims if gene in place}), np.int64)
    table = pd.DataFrame(claims, columns=["group", "gene"])
    figures = _figures(own, wanted) if len(wanted) else pd.DataFrame(columns=["group", "gene", "pvalue"])
    table = table.merge(figures, "left", ["group", "gene"], validate="many_to_one").reindex(
        columns=[*COLUMNS, "pvalue"]
    )
    table["padj"] = comparison.adjusted(table.pop("pvalue").to_numpy(np.float64))
    table["above_median"] = table["above_median"].fillna(False).astype(bool)
    table["confirmed"] = (table["padj"] <= fdr) & (table["log2fc"] > 0) & (table["auroc"] > 0.5) & table["above_median"]
    return table


def _compared(own: Measured, settings: MarkerSettings) -> pd.DataFrame:
    with np.errstate(invalid="ignore"):  # a gene that this half lacks leads nowhere
        return comparison.compare(own, settings).table


def _figures(own: Measured, wanted: Index) -> pd.DataFrame:
    """Figures of the genes ``wanted`` (places) in every group that can be compared."""
    assert isinstance(own.values, sp.csc_matrix)
    part = replace(
        own, features=own.features[wanted], counts=own.counts[:, wanted].tocsr(), values=own.values[:, wanted]
    )
    # Two cells on each side: a claim about fewer is nobody's to confirm.
    table = _compared(part, MarkerSettings(method="wilcoxon", min_cells=2))
    above = pd.DataFrame(above_median(part), index=list(own.groups.names), columns=part.features)
    table = table.rename(columns={"feature": "gene"})
    table["above_median"] = [bool(above.at[g, f]) for g, f in zip(table["group"], table["gene"], strict=True)]
    return table[["group", "gene", "log2fc", "share_in", "share_out", "auroc", "above_median", "pvalue"]]


def above_median(own: Measured) -> Bools:
    """Whether the mean log1p CP10k of each group is above the median of those of the other groups, (groups, features)."""
    number = len(own.groups.names)
    inside = sp.csr_matrix((np.ones(len(own.groups.codes)), (own.groups.codes, np.arange(len(own.groups.codes)))))
    inside.resize(number, len(own.groups.codes))
    sizes = np.bincount(own.groups.codes, minlength=number)
    assert isinstance(own.values, sp.csc_matrix)
    mean = (inside @ own.values.log1p()).toarray() / np.maximum(sizes, 1)[:, None]
    found = np.zeros(mean.shape, bool)
    for group in np.flatnonzero(sizes):
        others = mean[(np.arange(number) != group) & (sizes > 0)]
        found[group] = mean[group] > np.median(others, 0) if len(others) else False
    return found
