"""Several samples become one: genes by name, peaks by a consensus of overlapping peaks, barcodes made unique."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from xmodal.data.features import gather
from xmodal.data.genome import normal_genome
from xmodal.data.intervals import Ints, on_one_line, peak_names
from xmodal.data.leaving import kept
from xmodal.data.on_disk import stacked
from xmodal.data.samples import Sample
from xmodal.errors import InputRefused
from xmodal.fields import CHROM, END, GENE_ID, SAMPLE, START

log = logging.getLogger(__name__)
# A peak called in few samples was not counted in the others, whose zeros are no measurements: half must have it.
CONSENSUS = 0.5
FEW_SHARED = 0.5  # share of a sample's genes in common below which it is told


def join(samples: list[Sample], peaks: set[str]) -> tuple[dict[str, ad.AnnData], pd.DataFrame, dict[str, Any]]:
    """Modalities and labels of all samples, and what was joined.  ``peaks``: modalities whose features are intervals.

    Features other than peaks: those measured in all samples that have the modality.  Cells keep their names, except
    those that come up in several samples (``SAMPLE_barcode``).
    """
    facts: dict[str, Any] = {}
    renamed = unique_barcodes(samples)
    if renamed:
        facts["barcodes_renamed"] = renamed
    parts = {}
    for name in dict.fromkeys(m for s in samples for m in s.parts):
        having = [s for s in samples if name in s.parts]
        if len(having) > 1:
            same = _same_peaks if name in peaks else _same_features
            facts[name] = same(name, having)
        parts[name] = _stack([s.parts[name] for s in having])
    labels = pd.concat([_labels(s, alone=len(samples) == 1) for s in samples])
    return parts, writable(labels), facts


def one_genome(samples: list[Sample], modalities: set[str], given: str | None) -> str | None:
    """The genome of all ``modalities`` of all samples; refused where two are named (``given`` is one)."""
    said = {f"{s.name} ({m})": g for s in samples for m, g in s.genomes.items() if g and m in modalities}
    given = normal_genome(given)
    if given:
        said["--genome"] = given
    if len(set(said.values())) > 1:
        shown = ", ".join(f"{who}: {g}" for who, g in said.items())
        raise InputRefused(
            f"the genomes differ ({shown})",
            where="genome",
            do="prepare samples of one genome together, or lift the peaks over first",
        )
    return next(iter(said.values()), None)


def unique_barcodes(samples: list[Sample]) -> int:
    """Put the sample's name before barcodes that several samples use; returns how many cells got another name."""
    owners = pd.concat([pd.Series(s.name, index=s.labels.index) for s in samples])
    taken = set(owners.index[owners.index.duplicated(keep=False)]) if len(samples) > 1 else set()
    renamed = 0
    for sample in samples:
        colliding = sample.labels.index.isin(list(taken)) if taken else np.zeros(len(sample.labels), bool)
        if not colliding.any():
            continue
        renamed += int(colliding.sum())
        sample.labels.index = _prefixed(sample.labels.index, taken, sample.name)
        for part in sample.parts.values():
            part.obs_names = _prefixed(part.obs_names, taken, sample.name)
    if renamed:
        log.info("%d barcodes come up in several samples and get the sample's name in front", renamed)
    return renamed


def _prefixed(index: pd.Index, taken: set[str], name: str) -> pd.Index:
    return pd.Index([f"{name}_{i}" if i in taken else i for i in index], dtype=object)


def _labels(sample: Sample, alone: bool) -> pd.DataFrame:
    labels = sample.labels.copy()
    if SAMPLE not in labels or (not alone and labels[SAMPLE].nunique() < 2):
        labels[SAMPLE] = sample.name
    for column in labels.columns[labels.dtypes == "category"] if not alone else []:
        labels[column] = labels[column].astype(object)  # categories of several samples do not concatenate
    return labels


def writable(labels: pd.DataFrame) -> pd.DataFrame:
    """Columns as HDF5 can hold them: text and mixtures as categories, truth values with gaps as nullable booleans.

    A ``/`` in a column's name would nest silently and becomes ``_``.
    """
    labels = labels.rename(columns={c: str(c).replace("/", "_") for c in labels.columns})
    labels = labels.loc[:, ~labels.columns.duplicated()].drop(columns="_index", errors="ignore")
    for column in labels.columns:
        values = labels[column]
        if values.dtype == object and values.dropna().map(lambda v: isinstance(v, bool)).all() and values.notna().any():
            labels[column] = values.astype("boolean")
        elif values.dtype == object or values.dtype.kind in "mM":
            labels[column] = values.astype(object).where(values.isna(), values.astype(str)).astype("category")
    return labels


def _stack(parts: list[ad.AnnData]) -> ad.AnnData:
    if len(parts) == 1:
        return parts[0]
    matrix = stacked([p.X for p in parts])
    return ad.AnnData(matrix, obs=pd.concat([p.obs for p in parts]), var=parts[0].var)


def _same_features(name: str, samples: list[Sample]) -> dict[str, Any]:
    """Bring the modality of all samples to the features that all have, in the order of the first."""
    common = samples[0].parts[name].var_names
    everything = set(common)
    for sample in samples[1:]:
        names = sample.parts[name].var_names
        everything |= set(names)
        common = common[common.isin(names)]
    if common.empty:
        first, second = (", ".join(s.parts[name].var_names[:3]) for s in samples[:2])
        raise InputRefused(
            f"the samples have no {name} feature in common ({samples[0].name}: {first}, ...; "
            f"{samples[1].name}: {second}, ...)",
            where=name,
            do="prepare samples of one species with the same kind of names",
        )
    for sample in samples:
        part = sample.parts[name]
        if len(common) < FEW_SHARED * part.n_vars:
            log.warning(
                "warning: %s: only %d of its %d %s features are in all samples",
                sample.name,
                len(common),
                part.n_vars,
                name,
            )
        if not part.var_names.equals(common):
            sample.parts[name] = kept(part, columns=part.var_names.get_indexer(common))
    _agree_on_ids(name, samples)
    left = len(everything) - len(common)
    log.info("%s: %d features in all samples, %d left out", name, len(common), left)
    return {"features": len(common), "left_out": left}


def _agree_on_ids(name: str, samples: list[Sample]) -> None:
    """The first sample's ``var`` stays; an id it lacks comes from the next one that has it."""
    var = samples[0].parts[name].var
    for sample in samples[1:]:
        other = sample.parts[name].var
        if GENE_ID in other:
            own = var[GENE_ID] if GENE_ID in var else pd.Series("", index=var.index)
            var[GENE_ID] = own.where(own != "", other[GENE_ID]).astype(object)


def _same_peaks(name: str, samples: list[Sample]) -> dict[str, Any]:
    """Bring the peaks of all samples to one set: as they are where equal, else merged intervals, counts added up."""
    first = samples[0].parts[name]
    if all(set(s.parts[name].var_names) == set(first.var_names) for s in samples[1:]):
        for sample in samples[1:]:
            if not sample.parts[name].var_names.equals(first.var_names):
                part = sample.parts[name]
                sample.parts[name] = kept(part, columns=part.var_names.get_indexer(first.var_names))
        return {"features": first.n_vars, "left_out": 0, "consensus": False}
    tables = [s.parts[name].var[[CHROM, START, END]] for s in samples]
    merged, groups = consensus(tables)
    if merged.empty:
        raise InputRefused(
            "the samples have no overlapping peaks",
            where=name,
            do="prepare samples of one genome, counted over peaks of the same kind",
        )
    lost = {}
    for sample, group in zip(samples, groups, strict=True):
        part = sample.parts[name]
        lost[sample.name] = int((group < 0).sum())
        sample.parts[name] = gather(part, group, merged)
        if lost[sample.name] > FEW_SHARED * part.n_vars:
            log.warning(
                "warning: %s: %d of its %d peaks overlap too few other samples and are left out",
                sample.name,
                lost[sample.name],
                part.n_vars,
            )
    log.info("%s: %d consensus peaks", name, len(merged))
    return {"features": len(merged), "peaks_left_out": lost, "consensus": True}


def consensus(tables: list[pd.DataFrame]) -> tuple[pd.DataFrame, list[Ints]]:
    """Overlapping peaks of all tables merged, kept where peaks of at least half of the tables (and two) lie in them.

    Returns the merged peaks (chrom, start, end; named; in the order of their places) and, for each table, the row of
    every peak in them (-1: left out).
    """
    lines = on_one_line(*tables)
    start = np.concatenate([line[0] for line in lines])
    end = np.concatenate([line[1] for line in lines])
    owner = np.repeat(np.arange(len(tables)), [len(t) for t in tables])
    order = np.argsort(start, kind="stable")
    reach = np.maximum.accumulate(end[order])
    opens = np.r_[True, start[order][1:] >= reach[:-1]]  # half-open: peaks that only touch stay apart
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(opens) - 1
    pairs = np.unique(np.stack([group, owner], axis=1), axis=0)
    support = np.bincount(pairs[:, 0])
    kept = support >= max(2, int(np.ceil(CONSENSUS * len(tables))))
    row = np.where(kept, np.cumsum(kept) - 1, -1)
    whole = pd.concat(tables, ignore_index=True).assign(group=group)
    merged = whole.groupby("group", sort=True).agg({CHROM: "first", START: "min", END: "max"})[kept]
    merged = merged.astype({CHROM: object, START: np.int64, END: np.int64})
    merged.index = peak_names(merged)
    edges = np.cumsum([len(t) for t in tables])[:-1]
    return merged, np.split(row[group], edges)
