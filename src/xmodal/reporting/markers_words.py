"""Words of the report about markers: the first of each group in every modality, and by which test."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xmodal.reporting.report_inputs import Marked
from xmodal.scores.score_texts import WORDS, shown

Content = dict[str, Any]
SHOWN = 5  # markers of each group on the page
TESTS = {
    "wilcoxon": "cells against cells (Wilcoxon)",
    "pseudobulk": "samples against samples (DESeq2 on summed counts)",
}


def section(found: Marked) -> Content:
    """What the template shows of one folder."""
    about = found.about
    return {
        "name": found.name,
        "group_by": about.get("group_by"),
        "modalities": [modality(found, m) for m in about["modalities"]],
        "notes": [str(n) for n in about.get("notes") or []],
        "top": rows(found),
    }


def modality(found: Marked, name: str) -> Content:
    """Picture and rows of one modality; a row for each group, as the file has them."""
    own = found.table[found.table["modality"] == name]
    word = WORDS.get(name, "feature")
    groups = (found.about["modalities"][name].get("groups") or {}) if found.about["modalities"][name] else {}
    return {
        "name": name,
        "title": f"{shown(name)}: {word}s that mark each group",
        "picture": found.pictures.get(name, b""),
        "alt": f"Dot plot of the first {word}s of each group: share of cells and mean in every group",
        "rows": [_row(str(g), groups.get(g) or {}, first(own, str(g))) for g in found.about["groups"]],
    }


def first(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """The first markers of ``group``, best first."""
    kept = table[(table["group"] == group) & (table["is_marker"].astype(str) == "True")]
    return kept.sort_values("rank", kind="stable").head(SHOWN)


def _row(group: str, about: Content, best: pd.DataFrame) -> Content:
    test = about.get("method")
    return {
        "group": group,
        "cells": about.get("cells"),
        "test": TESTS.get(str(test), "not compared"),
        "markers": about.get("markers"),
        "first": ", ".join(best["feature"].astype(str)) or "-",
    }


def rows(found: Marked) -> list[tuple[Any, ...]]:
    """Rows of a table of the first markers: sample, modality, group, rank, feature, log2fc, auroc, padj."""
    out = []
    for m in found.about["modalities"]:
        own = found.table[found.table["modality"] == m]
        for group in found.about["groups"]:
            for r in first(own, str(group)).to_dict("records"):
                out.append(
                    (found.name, m, str(group), *(r.get(k) for k in ("rank", "feature", "log2fc", "auroc", "padj")))
                )
    return out
