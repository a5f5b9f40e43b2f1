"""Files of as many cells as are wanted, written block by block: simulated cells drawn again and again, each time with other
counts lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

BLOCK = 4_096  # cells
LOST = 0.1  # share of the entries of a simulated cell that each of its draws lacks
PACKED = {"compression": "lzf", "chunks": (1 << 16,), "maxshape": (None,)}


def base(
    peaks: int, share: float, copies: int = 1
) -> tuple[dict[str, sp.csr_matrix], dict[str, pd.DataFrame], pd.DataFrame]:
    """Counts, features and labels of a few simulated cells; ``share`` of the peaks is open, there are ten to a gene.

    ``copies``: so many peaks of each simulated one, with counts lost at random.
    """
    from xmodal.simulation.simulate import SimulateSettings, simulate

    settings = SimulateSettings(
        cells=1_200, genes=peaks // 10, peaks=peaks, open=0.75 * share, type_weight=0.3, depth=1200
    )
    found = simulate(settings, seed=0)
    rna, atac = (sp.csr_matrix(found.mdata.mod[m].X, dtype=np.float32) for m in ("rna", "atac"))
    var = found.mdata.mod["atac"].var
    if copies > 1:
        rng = np.random.default_rng(1)
        atac = sp.hstack([thinned(atac, rng) for _ in range(copies)], format="csr")
        places = np.arange(atac.shape[1])
        chrom, start = [f"chr{1 + i // 20_000}" for i in places], 1_000 * (places % 20_000)
        names = [f"{c}:{s}-{s + 500}" for c, s in zip(chrom, start, strict=True)]
        var = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500}, index=names)
    return {"rna": rna, "atac": atac}, {"rna": found.mdata.mod["rna"].var, "atac": var}, found.obs[["type", "batch"]]


def thinned(matrix: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    kept = rng.random(matrix.nnz, dtype=np.float32) >= LOST
    starts = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return sp.csr_matrix((matrix.data[kept], matrix.indices[kept], starts), matrix.shape)


def draws(counts: sp.csr_matrix, which: np.ndarray, seed: int) -> Iterator[sp.csr_matrix]:
    """The cells ``which``, block by block."""
    rng = np.random.default_rng(seed)
    for first in range(0, len(which), BLOCK):
        yield thinned(counts[which[first : first + BLOCK]], rng)


def write(folder: Path, cells: int, peaks: int, share: float, copies: int = 1, by_type: bool = False) -> None:
    """``rna.h5ad`` and ``atac.h5ad`` of ``cells`` cells; ``by_type``: all cells of a type one after the other."""
    counts, var, obs = base(peaks, share, copies)
    which = np.random.default_rng(2).integers(len(obs), size=cells)
    if by_type:
        which = which[np.argsort(obs["type"].to_numpy()[which], kind="stable")]
    labels = (
        obs.iloc[which].astype("category").set_index(pd.Index([f"cell{i + 1}" for i in range(cells)], dtype=object))
    )
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (m, matrix) in enumerate(counts.items()):
        write_one(folder / f"{m}.h5ad", draws(matrix, which, 10 + seed), labels, var[m])


def write_one(path: Path, blocks: Iterator[sp.csr_matrix], obs: pd.DataFrame, var: pd.DataFrame) -> None:
    ad.AnnData(sp.csr_matrix((len(obs), len(var)), dtype=np.float32), obs=obs, var=var).write_h5ad(path)
    with h5py.File(path, "r+") as handle:
        group: Any = handle["X"]
        for name in ("data", "indices", "indptr"):
            del group[name]
        data = group.create_dataset("data", (0,), np.float32, **PACKED)
        indices = group.create_dataset("indices", (0,), np.int32, **PACKED)
        starts, total = [np.zeros(1, np.int64)], 0
        for block in blocks:
            for part, values in ((data, block.data), (indices, block.indices)):
                part.resize((total + block.nnz,))
                part[total:] = values
            starts.append(total + block.indptr[1:].astype(np.int64))
            total += block.nnz
        group.create_dataset("indptr", data=np.concatenate(starts))
