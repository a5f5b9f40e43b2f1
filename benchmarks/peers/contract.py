"""What every peer script shares: its arguments, its cells, its files.  Runs in each peer's own environment.

    NAME.py RNA.h5ad SECOND.h5ad PREFIX --seed S --threads T [--second atac|protein] [--genes TSV] [--setting NAME=VALUE]

Both files hold the same cells in the same order: counts in X, obs["xmodal_split"] (train, valid, test) and
obs["xmodal_depth"] (total counts of the source file).  A script writes PREFIX_rna.h5ad (log1p CP10k) and PREFIX_SECOND.h5ad
(chance that a peak is open; protein: log1p minus the cell's mean) for the test cells, and PREFIX_extra.json.
Only `train` and `valid` cells may be looked at before predicting; settings are chosen on `valid`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[np.float32]


@dataclass
class Job:
    """The cells and the options of one run; ``seconds`` and ``chosen`` go into PREFIX_extra.json."""

    rna: ad.AnnData
    other: ad.AnnData
    second: str
    prefix: str
    seed: int
    threads: int
    genes: str | None
    settings: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)

    def rows(self, *parts: str) -> npt.NDArray[np.int64]:
        """Row numbers of the cells of these parts of the split."""
        return np.flatnonzero(np.isin(self.rna.obs["xmodal_split"].astype(str), parts))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds of the block to ``what`` (train or predict)."""
        start = time.monotonic()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - start

    def values(self, modality: str) -> Array:
        """(cells, features) on the scale that is scored."""
        adata = self.rna if modality == "rna" else self.other
        x = np.asarray(adata.X.toarray(), np.float32)
        if modality == "rna":
            depth = np.maximum(adata.obs["xmodal_depth"].to_numpy(np.float32), 1)
            return np.log1p(x / depth[:, None] * 1e4)
        return clr(x) if modality == "protein" else (x > 0).astype(np.float32)

    def write(self, **predictions: Array) -> None:
        """Write the predictions of the test cells by modality, and PREFIX_extra.json."""
        test = self.rows("test")
        for modality, values in predictions.items():
            adata = self.rna if modality == "rna" else self.other
            out = ad.AnnData(np.asarray(values, np.float32), obs=adata.obs.iloc[test][[]], var=adata.var[[]])
            out.write_h5ad(f"{self.prefix}_{modality}.h5ad")
        extra = {f"{k}_s": round(v, 2) for k, v in self.seconds.items()}
        with open(f"{self.prefix}_extra.json", "w") as handle:
            json.dump({**extra, "chosen": self.chosen}, handle)


def read_job() -> Job:
    """Arguments and cells of this run."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("rna", "other", "prefix"):
        parser.add_argument(name)
    parser.add_argument("--second", default="atac")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--genes")
    parser.add_argument("--setting", action="append", default=[])
    given = parser.parse_args()
    rna, other = ad.read_h5ad(given.rna), ad.read_h5ad(given.other)
    if list(rna.obs_names) != list(other.obs_names):
        raise SystemExit("the two files must hold the same cells in the same order")
    for adata in (rna, other):
        adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    settings = dict(s.split("=", 1) for s in given.setting)
    return Job(rna, other, given.second, given.prefix, given.seed, given.threads, given.genes, settings)


def clr(counts: Array) -> Array:
    """log1p minus the mean of it in each cell, (cells, features)."""
    logged = np.log1p(np.maximum(counts, 0))
    return np.asarray(logged - logged.mean(1, keepdims=True), np.float32)


def agreement(predicted: Array, true: Array) -> float:
    """What settings are chosen by, on validation cells: mean Pearson over features that vary in both."""
    p, t = predicted - predicted.mean(0), true - true.mean(0)
    below = np.sqrt((p**2).sum(0) * (t**2).sum(0))
    r = np.divide((p * t).sum(0), below, out=np.zeros_like(below), where=below > 1e-12)
    return float(r[(t**2).sum(0) > 0].mean())
