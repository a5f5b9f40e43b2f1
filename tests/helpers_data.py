"""Tiny made cells for the tests of the data layer."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

REAL = Path(os.environ.get("XMODAL_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL} (XMODAL_REAL_DATA)")
GENES = [f"TMEM{i}A" for i in range(1, 13)]
PEAKS = [f"chr{1 + i // 8}:{1000 * i + 100}-{1000 * i + 600}" for i in range(16)]


def cells(names: list[str], n: int = 30, seed: int = 0, prefix: str = "c", rate: float = 2.0) -> ad.AnnData:
    """``n`` cells of Poisson counts over ``names``, with labels ``kind`` (2) and ``donor`` (5)."""
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.poisson(rate, (n, len(names))).astype(np.int32))
    index = [f"{prefix}{i:03d}" for i in range(n)]
    obs = pd.DataFrame({"kind": [f"k{i % 2}" for i in range(n)], "donor": [f"d{i % 5}" for i in range(n)]}, index=index)
    return ad.AnnData(counts, obs=obs.astype("category"), var=pd.DataFrame(index=names))


def write(adata: ad.AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path


def pair(folder: Path, n: int = 30, prefix: str = "c", seed: int = 0) -> tuple[Path, Path]:
    """Files of RNA and ATAC of the same cells, genome GRCh38."""
    rna, atac = cells(GENES, n, seed, prefix), cells(PEAKS, n, seed + 1, prefix, 0.5)
    atac.uns["genome"] = "GRCh38"
    folder.mkdir(parents=True, exist_ok=True)
    return write(rna, folder / "rna.h5ad"), write(atac, folder / "atac.h5ad")


def write_10x(path: Path, n: int = 6) -> Path:
    """A Cell Ranger ARC matrix: 4 genes (one symbol twice), 3 peaks, one antibody."""
    symbols = ["TMEM1", "TMEM2", "TMEM1", "LINC5"]
    peaks = ["chr1:10-90", "chr1:200-300", "chr2:5-25"]
    names = [*symbols, *peaks, "CD4_TotalSeqB"]
    ids = [f"ENSG0000000000{i}" for i in range(4)] + peaks + ["CD4"]
    kinds = ["Gene Expression"] * 4 + ["Peaks"] * 3 + ["Antibody Capture"]
    dense = np.arange(n * len(names)).reshape(n, len(names)) % 5
    matrix = sp.csc_matrix(dense.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for key, value in (
            ("data", matrix.data.astype(np.int32)),
            ("indices", matrix.indices.astype(np.int64)),
            ("indptr", matrix.indptr.astype(np.int64)),
            ("shape", np.array(matrix.shape, np.int32)),
        ):
            group[key] = value
        group["barcodes"] = np.array([f"AAACAGCCAAGG{i:04d}-1" for i in range(n)], dtype="S")
        features = group.create_group("features")
        for key, texts in (("id", ids), ("name", names), ("feature_type", kinds), ("genome", ["GRCh38"] * 7 + [""])):
            features[key] = np.array(texts, dtype="S")
        features["_all_tag_keys"] = np.array(["genome"], dtype="S")
    return path
