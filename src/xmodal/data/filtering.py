"""Filters of cells (before the split is drawn) and of features (by training cells only)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from xmodal.data import splits
from xmodal.data.leaving import kept
from xmodal.data.on_disk import blocks, entries, taken
from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import ATAC, DEPTH, RNA, TRAIN

if TYPE_CHECKING:
    from xmodal.data.prepare_settings import PrepareSettings

log = logging.getLogger(__name__)
Mask = npt.NDArray[np.bool_]


def cells(parts: dict[str, ad.AnnData], labels: pd.DataFrame, settings: PrepareSettings) -> tuple[Mask, dict[str, Any]]:
    """Which rows of ``labels`` stay, and how many each filter took.  A filter judges cells that have its modality."""
    facts: dict[str, Any] = {"before": len(labels)}
    keep = np.ones(len(labels), dtype=bool)
    for rule in settings.exclude:
        facts[f"exclude {rule}"] = _drop(keep, _excluded(labels, rule))
    least_of = {"min_rna_counts": (RNA, settings.min_rna_counts), "min_peaks": (ATAC, settings.min_peaks)}
    for option, (name, least) in least_of.items():
        if least and name in parts:
            part = parts[name]
            measured = part.obs[DEPTH].to_numpy() if name == RNA else entries(part.X)
            low = part.obs_names[measured < least]
            facts[option] = _drop(keep, labels.index.isin(low))
    facts["after"] = int(keep.sum())
    if not keep.any():
        taken = ", ".join(f"{k}: {v}" for k, v in facts.items() if k not in ("before", "after"))
        raise InputRefused(
            f"no cells are left of {len(keep)} ({taken})",
            where="filters of cells",
            do="lower --min-rna-counts or --min-peaks, or exclude less",
        )
    if len(facts) > 2:
        log.info("%d of %d cells stay after the filters", facts["after"], facts["before"])
    return keep, facts


def _drop(keep: Mask, out: Mask) -> int:
    taken = int((keep & out).sum())
    keep &= ~out
    return taken


def _excluded(labels: pd.DataFrame, rule: str) -> Mask:
    column, equals, value = rule.partition("=")
    if not equals:
        raise UsageRefused(f"--exclude {rule}: give COLUMN=VALUE")
    if column not in labels:
        do = splits.near(column, list(labels.columns))
        raise InputRefused(f"obs has no column '{column}'", where="--exclude", do=do)
    if value == "":
        return labels[column].isna().to_numpy() | (labels[column].astype(str) == "").to_numpy()
    out: Mask = (labels[column].astype(str) == value).to_numpy()
    if not out.any():
        known = sorted(labels[column].dropna().astype(str).unique())
        log.warning("warning: --exclude %s takes no cell: %s", rule, splits.near(value, known))
    return out


def rows(part: ad.AnnData, names: pd.Index) -> ad.AnnData:
    """The cells of a modality that are among ``names``."""
    keep = part.obs_names.isin(names)
    return part if keep.all() else kept(part, keep)


def features(
    parts: dict[str, ad.AnnData], split: pd.Series, peaks: set[str], fraction: float
) -> tuple[dict[str, ad.AnnData], dict[str, Any]]:
    """Peaks open in at least ``fraction`` of the training cells that have them (and in one); all other features."""
    training = split.index[(split == TRAIN).to_numpy()]
    facts: dict[str, Any] = {}
    result = {}
    for name, part in parts.items():
        facts[name] = {"before": part.n_vars}
        if name in peaks and fraction > 0:
            train = np.flatnonzero(part.obs_names.isin(training))
            if not len(train):
                raise InputRefused("no training cell has this modality", where=name, do="give another --seed or split")
            opened = np.zeros(part.n_vars, np.int64)
            for _, block in blocks(taken(part.X, train)):
                opened += np.bincount(block.indices, minlength=part.n_vars)
            keep = opened >= max(1.0, fraction * len(train))
            if not keep.any():
                raise InputRefused(
                    f"no peak is open in {fraction:.4g} of the {len(train)} training cells",
                    where=name,
                    do="lower --min-peak-fraction",
                )
            part = part if keep.all() else kept(part, columns=keep)
        facts[name]["after"] = part.n_vars
        result[name] = part
    return result, facts
