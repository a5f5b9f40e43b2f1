"""Inputs that the scikit-learn peers share: LSI of peaks, PCA of levels, fitted on training and validation cells."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from contract import Array, Job
from sklearn.decomposition import PCA, TruncatedSVD

RANK = 50


def tfidf(binary: sp.csr_matrix, rows: np.ndarray) -> sp.csr_matrix:
    """log1p(1e4 x share x idf) with the idf of ``rows``; Signac's first method."""
    share = sp.diags(1e4 / np.maximum(np.asarray(binary.sum(1)).ravel(), 1)) @ binary
    weight = np.log1p(len(rows) / (1 + np.asarray(binary[rows].sum(0)).ravel()))
    return (share @ sp.diags(weight)).tocsr().log1p()


def embedding(job: Job, modality: str, rows: np.ndarray) -> Array:
    """(all cells, RANK): the low-rank input, z-scored; fitted to ``rows`` only."""
    if modality == "atac":
        x = tfidf((job.other.X > 0).astype(np.float32).tocsr(), rows)
        fitted = TruncatedSVD(min(RANK, len(rows) - 1, x.shape[1] - 1), random_state=job.seed).fit(x[rows])
    else:
        x = job.values(modality)
        fitted = PCA(min(RANK, len(rows) - 1, x.shape[1] - 1), random_state=job.seed).fit(x[rows])
    z = fitted.transform(x)
    return np.asarray((z - z[rows].mean(0)) / np.maximum(z[rows].std(0), 1e-9), np.float32)
