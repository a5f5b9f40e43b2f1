"""Small embeddings of small cells for the tests of their scores and of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd

from helpers_evaluation import paired
from xmodal.reporting.figures import canvas, png

TYPES = ("T", "B", "<script>alert(1)</script>")


def with_batches(cells: int = 240) -> mu.MuData:
    """Prepared cells of three types in two batches that have nothing to do with them."""
    mdata = paired(cells)
    mdata.obs["batch"] = pd.Categorical(np.where(np.arange(cells) % 24 < 12, "one", "two"))
    return mdata


def latent(mdata: mu.MuData, seed: int = 0, apart: float = 4.0) -> np.ndarray:
    """(cells, 5): types lie ``apart``, all else is noise."""
    rng = np.random.default_rng(seed)
    place = np.array([TYPES.index(t) for t in mdata.obs["cell_type"]])
    z = rng.normal(size=(mdata.n_obs, 5))
    z[np.arange(mdata.n_obs), place] += apart
    return z.astype(np.float32)


def about(**settings: Any) -> dict[str, Any]:
    """``uns`` of an embedding, as embed writes it."""
    return {
        "schema": "xmodal-embedding/1",
        "command": "embed",
        "version": "0",
        "model": "toy",
        "checkpoint_sha256": "ab" * 32,
        "seed": 0,
        "settings": json.dumps(settings),
    }


def written(mdata: mu.MuData, path: Path, z: np.ndarray | None = None, by_modality: bool = True) -> Path:
    """The cells with an embedding, as .h5mu, or the embedding alone as .h5ad."""
    z = latent(mdata) if z is None else z
    held: dict[str, np.ndarray] = {"X_xmodal": z}
    if by_modality:
        rng = np.random.default_rng(5)
        held |= {f"X_xmodal_{m}": z + rng.normal(0, 0.1, z.shape).astype(np.float32) for m in ("rna", "atac")}
    if path.suffix == ".h5ad":
        ad.AnnData(z, obs=mdata.obs[["cell_type"]], obsm=held, uns={"xmodal": about()}).write_h5ad(path)
        return path
    out = mu.MuData(dict(mdata.mod))
    out.obs, out.uns = mdata.obs, {**mdata.uns, "xmodal_embedding": about()}
    for key, values in held.items():
        out.obsm[key] = values
    out.write_h5mu(path)
    return path


def overview(folder: Path) -> Path:
    """What embed --overview leaves."""
    folder.mkdir(parents=True)
    (folder / "embedding.png").write_bytes(png(canvas(2, 1)[0]))
    table = pd.DataFrame(
        {
            "cluster": ["0", "1"],
            "cells": [150, 90],
            "share_rna": [1.0, 1.0],
            "share_atac": [0.8, 1.0],
            "weight_rna": [0.7, 0.6],
            "weight_atac": [0.3, 0.4],
            "share_unlike": [0.01, 0.0],
            "label": ["<b>T</b>", ""],
            "label_share": [0.9, np.nan],
            "batch_one": [0.5, 0.4],
            "batch_two": [0.5, 0.6],
        }
    )
    table.to_csv(folder / "clusters.tsv", sep="\t", index=False)
    alignment = {"features": 9, "missing": 2, "first_missing": ["<b>x</b>"], "unused": 1, "coverage": 0.8}
    summary = {
        "model": "toy",
        "cells": 240,
        "clusters": 2,
        "resolution": 0.5,
        "resolution_by": "stability",
        "several_modalities": 210,
        "latent": 5,
        "unlike": 0.006,
        "weights": {"rna": 0.65, "atac": None},
        "label_key": "cell_type",
        "checkpoint_sha256": "cd" * 32,
        "modalities": {"rna": {"cells": 240, "alignment": alignment}, "atac": {"cells": 210}},
    }
    (folder / "embedding.json").write_text(json.dumps(summary))
    return folder


def markers(folder: Path) -> Path:
    """What markers leaves: one modality, two groups, the second without a marker."""
    folder.mkdir(parents=True)
    rows = [("rna", "0", f"gene<{i}>", i, "wilcoxon", 0, 150, 2 - i / 10, 0.9, 1e-9, i <= 7) for i in range(1, 10)] + [
        ("rna", "1", "gene<1>", 1, "wilcoxon", 0, 90, 0.1, 0.5, 0.9, False)
    ]
    names = [
        "modality",
        "group",
        "feature",
        "rank",
        "method",
        "samples",
        "cells",
        "log2fc",
        "auroc",
        "padj",
        "is_marker",
    ]
    pd.DataFrame(rows, columns=names).to_csv(folder / "markers.tsv", sep="\t", index=False)
    groups = {
        "0": {"cells": 150, "method": "wilcoxon", "markers": 7},
        "1": {"cells": 90, "method": None},
    }
    content = {
        "schema": "xmodal-markers/1",
        "group_by": "xmodal_cluster",
        "groups": {"0": 150, "1": 90},
        "modalities": {"rna": {"groups": groups}},
        "notes": ["clusters were found in the <same> cells"],
    }
    (folder / "markers.json").write_text(json.dumps(content))
    (folder / "markers_rna.png").write_bytes(png(canvas(2, 1)[0]))
    return folder
