"""One modality of the cells that are compared: what is ranked, what is summed, and how much was sequenced of each cell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.data import contracts, samples
from xmodal.data.splits import near
from xmodal.data.transforms import CP
from xmodal.errors import InputRefused
from xmodal.fields import BERNOULLI, CLR, DEPTH, GAUSSIAN, IDENTITY, IMPUTED, NB, UNS
from xmodal.markers.groups import Groups, Index
from xmodal.markers.ranks import Columns

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Float = npt.NDArray[np.float64]
HALF = 0.5  # counts added on both sides of a ratio, so that a feature that one side lacks has a finite one
FEW = 4.0  # counts (of values: cells) at the mean of all that each group gets, so that a chance count of a small one says little


@dataclass(frozen=True)
class Measured:
    """A modality of the cells with a label and with counts.

    ``counts``: CSR (cells, features): counts, ones for open peaks, or values on the scale "as measured".  ``values``: what
    is ranked.  ``depth`` (cells,): counts, or open peaks; of values 1.  ``imputed``: the layer (all cells, features), which
    may hold nan, or None; ``rows``: places of the cells in it.
    """

    name: str
    likelihood: str
    scale: str
    features: npt.NDArray[np.object_]
    groups: Groups
    counts: sp.csr_matrix
    values: sp.csc_matrix | Columns
    depth: Float
    imputed: Any | None
    rows: Index

    @property
    def countable(self) -> bool:
        """Whether ``counts`` may be summed: values as measured may not."""
        return self.scale != IDENTITY


@dataclass(frozen=True)
class Profiles:
    """All (groups, features): each group, the cells outside it, and ``log2fc`` between the two.

    ``lead``: the same between the group and the one that has most, or for that one the next.
    """

    mean_in: Float
    mean_out: Float
    share_in: Float
    share_out: Float
    log2fc: Float
    lead: Float


def names_of(mdata: MuData, asked: tuple[str, ...], path: Path) -> list[str]:
    """The modalities to look at; refused where one that is asked for is not there."""
    for name in asked:
        if name not in mdata.mod:
            raise InputRefused(f"it has no modality '{name}'", where=str(path), do=near(name, list(mdata.mod)))
    return [name for name in mdata.mod if not asked or name in asked]


def kinds(mdata: MuData, names: list[str], path: Path) -> dict[str, tuple[str, str]]:
    """(likelihood, scale) of the modalities, checked as ``check`` and ``prepare`` do, all mistakes told at once."""
    findings, found = [], {}
    for name in names:
        where = f"{path} ({name})" if len(mdata.mod) > 1 else str(path)
        found[name] = _kind(mdata, name, where)
        findings += contracts.check_modality(name, mdata.mod[name], *found[name], where=where)
    contracts.require(replace(f, do=_through_prepare(f.do)) for f in findings if f.level == "error")
    return found


def _kind(mdata: MuData, name: str, where: str) -> tuple[str, str]:
    """As an earlier ``prepare`` wrote it, else by the modality's name and values."""
    sample = samples.Sample("", dict(mdata.mod), mdata.obs)
    samples.remember_likelihood(sample, name, mdata.uns.get(UNS))
    try:
        return contracts.resolve_likelihood(name, mdata.mod[name], sample.likelihoods.get(name))
    except InputRefused as error:
        raise InputRefused(error.what, where=where, do=_through_prepare(error.do)) from None


def _through_prepare(do: str) -> str:
    """The option is one of prepare, whose file says it from then on."""
    return do if "--likelihood" not in do else f"{do} (an option of xmodal prepare)"


def of_modality(mdata: MuData, name: str, kind: tuple[str, str], groups: Groups) -> Measured:
    """The cells of a checked modality; those without label or counts are left out."""
    part, (likelihood, scale) = mdata.mod[name], kind
    own = groups.at(mdata.obs_names.get_indexer(part.obs_names).astype(np.int64))
    depth = _depth(part, likelihood, scale)
    rows = np.flatnonzero((own.codes >= 0) & (depth > 0))
    counts = sp.csr_matrix(part.X[rows], dtype=np.float64)
    if likelihood == BERNOULLI:
        counts.data[:] = 1
    layer = part.layers.get(IMPUTED)
    values = _values(counts, depth[rows], likelihood, scale)
    names = part.var_names.to_numpy(object)
    return Measured(name, likelihood, scale, names, own.at(rows), counts, values, depth[rows], layer, rows)


def _depth(part: AnnData, likelihood: str, scale: str) -> Float:
    """Counts of each cell over all features of its source; open peaks; 1 for values that are not counts."""
    if scale == IDENTITY:
        return np.ones(part.n_obs)
    if likelihood == BERNOULLI:
        return np.diff(part.X.indptr).astype(np.float64)
    if DEPTH in part.obs and likelihood == NB:
        return part.obs[DEPTH].to_numpy(np.float64)
    return contracts.totals(part.X)


def _values(counts: sp.csr_matrix, depth: Float, likelihood: str, scale: str) -> sp.csc_matrix | Columns:
    """What is ranked: counts over depth (as log1p CP10k does), open or not, CLR, or the values."""
    if likelihood == BERNOULLI:
        return counts.tocsc()
    if likelihood == GAUSSIAN:
        logged = counts.log1p() if scale == CLR else counts
        shift = np.asarray(logged.mean(1)).ravel() if scale == CLR else np.zeros(len(depth))
        return Columns(logged.tocsc(), shift)
    return sp.csr_matrix(sp.diags_array(CP / depth) @ counts).tocsc()


def profiles(measured: Measured) -> Profiles:
    """Means and shares of cells.

    Counts: summed over the cells of a side, per 10,000 (of open peaks: per 10,000 open ones), so that no cell counts for its
    depth; ``share``: cells with the feature.  Values: their mean; ``share``: cells above the mean of all.  ``log2fc`` of CLR
    is the difference divided by log 2, of values as measured the difference.
    """
    groups = measured.groups
    number, cells = len(groups.names), len(groups.codes)
    place = (np.ones(cells), (groups.codes, np.arange(cells)))
    inside = sp.csr_matrix(place, (number, cells))
    size = np.bincount(groups.codes, minlength=number).astype(np.float64)[:, None]
    if isinstance(measured.values, Columns):
        total, above = _of_values(measured.values, inside)
        mean, out = _sides(total, size)
        factor = 1 / np.log(2) if measured.scale == CLR else 1.0
        near = (total + FEW * total.sum(0) / cells) / (size + FEW)
        return Profiles(mean, out, *_sides(above, size), (mean - out) * factor, lead(near) * factor)
    total, above = (np.asarray((inside @ x).todense()) for x in (measured.counts, measured.counts.sign()))
    depth = (inside @ measured.depth)[:, None]
    mean, out = _sides(CP * total, depth)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (total + HALF) / depth / ((total.sum(0) - total + HALF) / (depth.sum() - depth))
        near = np.log2((total + FEW) / (depth + FEW * depth.sum() / total.sum(0)))
    return Profiles(mean, out, *_sides(above, size), np.log2(ratio), lead(near))


def lead(near: Float) -> Float:
    """How far each group is ahead of the best other one, (groups, features)."""
    ordered = np.sort(near, axis=0)
    first = near == ordered[-1]
    return near - np.where(first & (first.sum(0) == 1), ordered[-2], ordered[-1])


def _sides(total: Float, weight: Float) -> tuple[Float, Float]:
    """Mean inside and outside of each group, nan where there is no cell."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return total / weight, (total.sum(0) - total) / (weight.sum() - weight)


def _of_values(values: Columns, inside: sp.csr_matrix) -> tuple[Float, Float]:
    """Sums of the values, and cells above the feature's mean, of each group, (groups, features)."""
    parts = []
    for block in values.blocks():
        parts.append((inside @ block, inside @ (block > block.mean(0)).astype(np.float64)))
    return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts], 1)
