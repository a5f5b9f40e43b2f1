"""Pictures and main tables of the report as files, for servers that show no HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal.outputs import replacing_files

KINDS = (
    *("scores", "features", "umap", "reliability", "learning", "prediction", "unlikeness", "trials"),
    *("joint", "embedding", "markers", "annotation", "labels", "described", "generated", "imitated", "robustness"),
)
TABLES: dict[str, list[str]] = {
    "scores": ["sample", "target", "source", "method", "score", "value"],
    "verdicts": ["sample", "target", "source", "verdict", "sentence", "advice"],
    "predictions": ["sample", "predicted", "model", "cells", "features", "features_found", "unlike", "means", "trust"],
    "variable_features": ["sample", "feature", "mean", "sd", "reliability", "trust"],
    "clusters": ["sample", "cluster", "cells", "label", "label_share"],
    "top_markers": ["sample", "modality", "group", "rank", "feature", "log2fc", "auroc", "padj"],
    "cell_types": ["sample", "label", "term", "cells", "coarse", "mean_score"],
    "descriptions": ["sample", "name", "cells", "label", "text"],
    "prompts": ["sample", "prompt", "term", "nearest", "cells", "median_counts"],
    "findings": ["level", "where", "what"],
}
# What evaluations are of besides predictions, and where the view has them.
SCORED = (("embedding", "joints"), ("annotation", "namings"), ("description", "worded"), ("generation", "imitations"))
OWN = (*(f"{kind}*.png" for kind in KINDS), *(f"{name}.tsv" for name in TABLES))
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")  # in names of files: samples are called as people like


def write(folder: Path, content: dict[str, Any]) -> None:
    """All pictures and tables that a :func:`xmodal.reporting.report.view` has, all or nothing."""
    with replacing_files(folder, OWN, overwrite=True) as temporary:
        for name, png in pictures(content).items():
            (temporary / name).write_bytes(png)
        for name, rows in tables(content).items():
            if rows:
                frame = pd.DataFrame(rows, columns=TABLES[name])
                frame.to_csv(temporary / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")


def pictures(content: dict[str, Any]) -> dict[str, bytes]:
    """Every picture by its file name, which says what it shows of what."""
    found: dict[str, bytes] = {}
    for words, png in _pictures(content):
        stem = "-".join(UNSAFE.sub("_", word).strip("._-") or "x" for word in words)
        taken, name = 1, f"{stem}.png"
        while name in found:  # two samples whose names differ in unsafe signs only
            taken += 1
            name = f"{stem}-{taken}.png"
        if png:
            found[name] = png
    return found


def _pictures(content: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    for r in content["results"]:
        for kind, key in (("scores", "bars"), ("features", "curves"), ("umap", "umap")):
            yield (kind, r["sample"], r["name"]), r[key]
        if r["trust"]:
            yield ("reliability", r["sample"], r["name"]), r["trust"]["picture"]
    for t in content["trainings"]:
        yield ("learning", t["name"]), t["curve"]
    for o in content["overviews"]:
        yield ("prediction", o["name"]), o["picture"]
    yield from _joint_pictures(content)
    yield ("unlikeness",), content["unlikeness"]
    if content["sweep"]:
        yield ("trials",), content["sweep"]["picture"]


def _joint_pictures(content: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    for j in content.get("joints", ()):
        yield ("joint", j["name"]), j["picture"]
    for e in content.get("embedded", ()):
        yield ("embedding", e["name"]), e["picture"]
    for m in content.get("marked", ()):
        for part in m["modalities"]:
            yield ("markers", m["name"], part["name"]), part["picture"]
    for a in content.get("named", ()):
        yield ("annotation", a["name"]), a["picture"]
    for a in content.get("namings", ()):
        yield ("labels", a["name"]), a["picture"]
    for kind, key in (
        ("described", "worded"),
        ("imitated", "imitations"),
        ("robustness", "bearings"),
        ("generated", "imagined"),
    ):
        for part in content.get(key, ()):
            yield (kind, part["name"]), part["picture"]


def tables(content: dict[str, Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of each table of :data:`TABLES`."""
    results = content["results"]
    return {
        "scores": [
            (r["sample"], r["name"], _source(r), method, score, value)
            for r in results
            for method in r["methods"]
            for score, value in r["target"]["methods"][method].items()
        ]
        + [
            (part["name"], target, "", method, score, value)
            for target, key in SCORED
            for part in content[key]
            for method in part["methods"]
            for score, value in part["about"]["methods"][method].items()
        ],
        "verdicts": [
            (r["sample"], r["name"], _source(r), r["verdict"].level, r["verdict"].headline, r["verdict"].advice)
            for r in results
        ]
        + [
            (j["name"], what, "", j["verdict"].level, j["verdict"].headline, j["verdict"].advice)
            for what, key in SCORED
            for j in content[key]
            if "verdict" in j
        ],
        "predictions": [
            (*(p[k] for k in ("sample", "what", "model", "cells", "features", "found", "unlike", "means", "trust")),)
            for p in content["predictions"]
        ],
        "variable_features": [
            (o["name"], *(row[k] for k in ("feature", "mean", "sd", "reliability", "trust")))
            for o in content["overviews"]
            for row in o["rows"]
        ],
        "clusters": [
            (e["name"], *(row[k] for k in ("cluster", "cells", "label", "share")))
            for e in content["embedded"]
            for row in e["rows"]
        ],
        "top_markers": [row for m in content["marked"] for row in m["top"]],
        "cell_types": [
            (a["name"], *(row[k] for k in ("label", "term", "cells", "coarse", "score")))
            for a in content["named"]
            for row in a["rows"]
        ],
        "descriptions": [
            (d["name"], *(u[k] for k in ("name", "cells", "label", "text")))
            for d in content["told"]
            for u in d["units"]
        ],
        "prompts": [
            (g["name"], *(row[k] for k in ("prompt", "term", "nearest", "cells", "counts")))
            for g in content["imagined"]
            for row in g["rows"]
        ],
        "findings": [(row["level"], row["where"], row["what"]) for row in content["missing"]],
    }


def _source(result: dict[str, Any]) -> str:
    return str(result["target"].get("source") or "")
