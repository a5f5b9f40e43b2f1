"""From the files of one or many samples to one checked MuData with a split: the work of ``xmodal prepare``."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd

from xmodal import progress, provenance
from xmodal.data import contracts, features, filtering, fragments, joining, splits, tables
from xmodal.data.contracts import Finding
from xmodal.data.genes import read_gene_table
from xmodal.data.on_disk import entries
from xmodal.data.prepare_settings import OF_FRAGMENTS, PrepareSettings, parse_likelihoods
from xmodal.data.samples import FRAGMENTS, Sample, SampleFiles, load, one_modality
from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import (
    ATAC,
    BERNOULLI,
    DEPTH,
    FLAG_EMPTY,
    GENOME,
    PREPARED_SCHEMA,
    PROTEIN,
    RNA,
    SAMPLE,
    SPLIT,
    UNS,
)

log = logging.getLogger(__name__)
NAME = re.compile(r"\w+", re.ASCII)


def prepare(files: list[SampleFiles], settings: PrepareSettings, seed: int = 0) -> tuple[mu.MuData, dict[str, Any]]:
    """One MuData as docs/architecture.md describes, and its summary (what ``uns["xmodal"]["settings"]`` holds).

    Raises :class:`InputRefused` with all findings of all samples, before anything is joined.
    """
    if settings.split_by and settings.split:
        raise UsageRefused("--split-by and --split: give one of them")
    mu.set_options(pull_on_update=False)
    counting = _counting(files, settings)
    followed = progress.along(files, len(files), "reading", "samples") if len(files) > 1 else files
    samples = [load(f, settings.layer, counting, settings.on_disk) for f in followed]
    kinds, duplicates = _check(samples, settings)
    log.info("read %s", ", ".join(f"{s.name} ({len(s.labels)} cells)" for s in samples))
    peaks = {n for n, (likelihood, _) in kinds.items() if likelihood == BERNOULLI and _are_peaks(n, samples)}
    genome = joining.one_genome(samples, set(kinds) - {PROTEIN}, settings.genome)
    counts: dict[str, Any] = {"samples": _sizes(samples), "duplicates_summed": duplicates}
    if counting is not None:
        counts[FRAGMENTS] = {s.name: s.fragments for s in samples if s.fragments}
    parts, labels, counts["joined"] = joining.join(samples, peaks)
    if settings.obs:
        labels = joining.writable(tables.join_labels(labels, Path(settings.obs)))
    _require_columns(labels, settings)
    keep, counts["cells"] = filtering.cells(parts, labels, settings)
    given, labels = labels[SAMPLE], labels[keep].copy()
    parts = {name: filtering.rows(part, labels.index) for name, part in parts.items()}
    split, split_facts = _split(labels, settings, seed)
    labels[SPLIT] = split
    counts["split_by_sample"] = _by_sample(given, labels)
    least = 0 if settings.checkpoint else settings.min_peak_fraction  # a model needs all the peaks it knows
    parts, counts["features"] = filtering.features(parts, split, peaks, least)
    genomes = {n: genome if n == RNA or n in peaks else None for n in parts}
    if genome is None and peaks:
        log.warning("warning: the genome is not known. What to do: say it with --genome, so that it can be checked")
    mdata = _assemble(parts, labels, genomes)
    counts["paired"], counts["single"] = _pairing(mdata)
    modalities = {n: {"likelihood": k, "scale": s, "genome": genomes[n]} for n, (k, s) in kinds.items()}
    summary = {
        "modalities": modalities,
        "options": _options(settings, counting),
        "split": split_facts,
        "counts": counts,
    }
    mdata.uns[UNS] = provenance.record("prepare", summary, schema=PREPARED_SCHEMA, seed=seed)
    return mdata, summary


def _require_columns(labels: pd.DataFrame, settings: PrepareSettings) -> None:
    """Refuse cells without the columns that later steps will need, before anything is learned from them."""
    findings = []
    for name in ("label_key", "batch_key", "sample_key"):
        key, option = getattr(settings, name), f"--{name.replace('_', '-')}"
        if key and key != SPLIT and key not in labels:
            do = splits.near(key, list(labels.columns))
            findings.append(Finding("error", option, f"obs has no column '{key}'", do))
    key = settings.sample_key
    if key and key in labels and splits.is_continuous(labels[key]):
        what = f"'{key}' holds continuous numbers, and no samples"
        findings.append(Finding("error", "--sample-key", what, "give a column of labels"))
    contracts.require(findings)


def _counting(files: list[SampleFiles], settings: PrepareSettings) -> fragments.Counting | None:
    """How fragments are counted, where there are any."""
    if any(FRAGMENTS in f.files for f in files):
        return fragments.counting(settings)
    for name in ("checkpoint", "peaks"):
        if getattr(settings, name):
            raise UsageRefused(f"--{name}: says over which peaks fragments are counted, and no fragments are given")
    return None


def _check(samples: list[Sample], settings: PrepareSettings) -> tuple[dict[str, tuple[str, str]], dict[str, int]]:
    """Names made uniform and all contracts checked, in place; (likelihood, scale) and duplicates by modality."""
    given = parse_likelihoods(settings.likelihood)
    table = read_gene_table(settings.gene_table) if settings.gene_table else None
    findings: list[Finding] = []
    kinds: dict[str, tuple[str, str]] = {}
    duplicates: dict[str, int] = {}
    for sample in samples:
        for name, part in sample.parts.items():
            where = sample.where[name]
            if not NAME.fullmatch(name):
                what = f"'{name}' is no name for a modality"
                findings.append(Finding("error", where, what, "use letters, digits and _"))
            try:
                kind = contracts.resolve_likelihood(name, part, given.get(name) or sample.likelihoods.get(name))
                if kinds.setdefault(name, kind) != kind:
                    raise InputRefused(
                        f"it would be modelled as {kind[0]} on the scale {kind[1]}, other samples as "
                        f"{kinds[name][0]} on {kinds[name][1]}",
                        where=where,
                        do="give counts in all samples",
                    )
                part, summed = _named(name, part, where, table)
                duplicates[name] = duplicates.get(name, 0) + summed
            except InputRefused as error:
                findings.append(Finding("error", error.where, error.what, error.do))
                kind = kinds.get(name, contracts.DEFAULTS.get(name, ("gaussian", "identity")))
            findings += contracts.check_modality(name, part, *kind, where=where)
            sample.parts[name] = _measured(part)
        findings += contracts.check_pairing({n: p.obs_names for n, p in sample.parts.items()}, sample.name)
    if len(kinds) > 1:  # where nothing else is given, nothing is missing
        findings += [found for sample in samples for found in one_modality(sample)]
    unknown = sorted(set(given) - set(kinds))
    if unknown:
        raise UsageRefused(f"--likelihood: no modality '{unknown[0]}': {splits.near(unknown[0], list(kinds))}")
    if sum(len(s.labels) for s in samples) == 1:
        findings.append(Finding("error", samples[0].name, "there is one cell only", "give a file with more cells"))
    contracts.require(findings)
    return kinds, duplicates


def _named(name: str, part: ad.AnnData, where: str, table: pd.DataFrame | None) -> tuple[ad.AnnData, int]:
    if name == RNA:
        part, facts = features.name_genes(part, where, table)
        return part, facts["duplicates_summed"]
    if name == ATAC or features.is_peaks(name, part):
        return features.name_peaks(part, where), 0
    return part, 0


def _measured(part: ad.AnnData) -> ad.AnnData:
    """A modality with nothing but its depth and its flag in ``obs``; labels live in the MuData."""
    total = contracts.totals(part.X)
    depth = part.obs[DEPTH].to_numpy(np.float64) if DEPTH in part.obs else total  # prepared before: features are gone
    obs = pd.DataFrame({DEPTH: depth, FLAG_EMPTY: entries(part.X) == 0}, index=part.obs_names)
    return ad.AnnData(part.X, obs=obs, var=part.var)


def _are_peaks(name: str, samples: list[Sample]) -> bool:
    return name == ATAC or all(features.is_peaks(name, s.parts[name]) for s in samples if name in s.parts)


def _split(labels: pd.DataFrame, settings: PrepareSettings, seed: int) -> tuple[pd.Series, dict[str, Any]]:
    if settings.split == "file" and SPLIT not in labels:
        raise InputRefused(f"obs has no column '{SPLIT}'", where="--split file", do="give --split-by or --split random")
    if SPLIT in labels and not settings.split_by and settings.split != "random":
        return splits.from_file(labels, seed, settings.valid_fraction)
    if not settings.split_by and not settings.split:
        log.info("the split is drawn at random over cells: for claims about new donors or sites give --split-by COLUMN")
    return splits.assign(
        labels,
        by=settings.split_by,
        seed=seed,
        test_fraction=settings.test_fraction,
        valid_fraction=settings.valid_fraction,
        test_groups=settings.test_groups,
        valid_groups=settings.valid_groups,
    )


def _assemble(parts: dict[str, ad.AnnData], labels: pd.DataFrame, genomes: dict[str, str | None]) -> mu.MuData:
    for name, part in parts.items():
        part.uns = {GENOME: genomes[name]} if genomes[name] else {}
    mdata = mu.MuData(parts)
    mdata.obs = labels.reindex(mdata.obs_names)
    return mdata


def _pairing(mdata: mu.MuData) -> tuple[int, dict[str, int]]:
    """Cells with all modalities, and cells that have one modality only."""
    masks = {name: mdata.obs_names.isin(part.obs_names) for name, part in mdata.mod.items()}
    number = np.sum(list(masks.values()), axis=0)
    return int((number == len(masks)).sum()) if len(masks) > 1 else 0, {
        n: int((m & (number == 1)).sum()) for n, m in masks.items()
    }


def _sizes(samples: list[Sample]) -> dict[str, Any]:
    return {s.name: {n: {"cells": p.n_obs, "features": p.n_vars} for n, p in s.parts.items()} for s in samples}


def _by_sample(given: pd.Series, labels: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Of each sample: cells ``before`` the filters, and cells in each part of the split."""
    before, kept = given.astype(str).value_counts(), labels.astype({SAMPLE: str}).groupby([SAMPLE, SPLIT]).size()
    return {
        name: {"before": int(before[name]), **{p: int(kept.get((name, p), 0)) for p in splits.PARTS}}
        for name in sorted(before.index)
    }


def _options(settings: PrepareSettings, counting: fragments.Counting | None) -> dict[str, Any]:
    """What was asked for, without folders: equal work on two machines gives equal files."""
    options = settings.model_dump(mode="json", exclude=None if counting else OF_FRAGMENTS)
    if settings.obs is None:
        del options["obs"]
    for name in ("gene_table", "checkpoint", "peaks", "obs"):
        if options.get(name):
            options[name] = Path(options[name]).name
    return options


def in_words(summary: dict[str, Any]) -> str:
    """The summary in a few lines for people."""
    counts, split = summary["counts"], summary["split"]
    drawn = {"file": "the file's own", "random": "drawn over cells", "groups": f"whole groups of {split['by']}"}
    cells = counts["cells"]
    paired = f"; {counts['paired']} with all modalities" if len(counts["features"]) > 1 else ""
    lines = [f"cells: {cells['before']} -> {cells['after']}{paired}"]
    for name, number in counts["features"].items():
        kind = summary["modalities"][name]
        lines.append(
            f"{name}: {number['before']} -> {number['after']} features, {kind['likelihood']} on "
            f"{kind['scale']}, genome {kind['genome'] or 'not known'}"
        )
    parts = ", ".join(
        f"{split[p]} {p}" + (f" ({', '.join(split['groups'][p])})" if split["groups"] else "") for p in splits.PARTS
    )
    return "\n  ".join(["prepared", *lines, f"split ({drawn[split['source']]}): {parts}"])
