"""Do the intervals of a prediction hold what was measured, in every type, and which features can be trusted?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xmodal import fields
from xmodal.scores.metrics import blocks, dense

if TYPE_CHECKING:
    from anndata import AnnData

    from xmodal.scores.scoring import Truth

DIGITS = 4
MIN_CELLS = 20  # of a type, below which its coverage is shown but not judged
SLACK = 0.02  # a nominal 90 % is kept where 88 to 92 % of the values lie inside
COLUMNS = ["target", "feature", "reliability", "low", "high", "trust", "coverage_valid", "coverage", "width"]


@dataclass(frozen=True)
class Intervals:
    """``content``: what metrics.json says; ``table``: one row for each predicted feature (:data:`COLUMNS`)."""

    content: dict[str, Any]
    table: pd.DataFrame


def measure(name: str, adata: AnnData, truth: Truth, about: dict[str, Any]) -> Intervals | None:
    """Share of the true values inside the intervals of a prediction; None where it has neither these nor reliabilities."""
    if fields.RELIABILITY not in adata.var and fields.LOWER not in adata.layers:
        return None
    position = adata.var_names.get_indexer(truth.features)
    there = np.flatnonzero(position >= 0)
    var = adata.var.iloc[position[there]]
    table = pd.DataFrame({"target": name, "feature": truth.features[there]})
    given = {c: var[f].to_numpy() for c, f in zip(COLUMNS[2:7], _ORDER, strict=True) if f in var}
    table = table.assign(**given).reindex(columns=COLUMNS)
    said = about.get("settings", {}).get("interval", {})
    content = {k: said[k] for k in ("level", "cells", "groups", "measure", "trust", "signal", "why") if k in said}
    if fields.LOWER in adata.layers and fields.UPPER in adata.layers:
        content |= _coverage(adata, truth, (position, there), table)
    return Intervals(content, table)


_ORDER = (fields.RELIABILITY, fields.RELIABILITY_LOW, fields.RELIABILITY_HIGH, fields.TRUST, fields.COVERAGE)


def _coverage(adata: AnnData, truth: Truth, columns: tuple[Any, Any], table: pd.DataFrame) -> dict[str, Any]:
    """Coverage of all values, of those that are not zero and of each label; fills the table's own columns."""
    position, there = columns
    rows = adata.obs_names.get_indexer(truth.cells)
    lower, upper = adata.layers[fields.LOWER], adata.layers[fields.UPPER]
    cell, inside, width = np.zeros(len(rows)), np.zeros(len(there)), np.zeros(len(there))
    seen = seen_inside = 0
    for s in blocks(len(rows)):
        low, high = (dense(x[rows[s]])[:, position[there]] for x in (lower, upper))
        true = truth.values.rows(s)[:, there]
        hit = (low <= true) & (true <= high)
        cell[s], inside, width = hit.mean(1), inside + hit.sum(0), width + (high - low).sum(0)
        seen, seen_inside = seen + int((true != 0).sum()), seen_inside + int((hit & (true != 0)).sum())
    table["coverage"], table["width"] = inside / len(rows), width / len(rows)
    by_label: dict[str, dict[str, float]] = {}
    out = {
        "coverage": round(float(cell.mean()), DIGITS),
        "coverage_of_detected": round(seen_inside / seen, DIGITS) if seen else None,
        "width": round(float(table["width"].mean()), DIGITS),
        "by_label": by_label,
    }
    if truth.labels is not None:
        for label in np.unique(truth.labels[truth.labels != ""]):
            own = truth.labels == label
            share = round(float(cell[own].mean()), DIGITS)
            by_label[str(label)] = {"cells": int(own.sum()), "coverage": share}
    return out
