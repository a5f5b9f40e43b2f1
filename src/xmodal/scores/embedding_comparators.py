"""The plain embeddings that stand beside every joint one, made of the truth's counts and fitted to its training cells.

``rna_pca`` (log1p CP10k), ``rna_pearson`` (analytic Pearson residuals; Lause et al. 2021), ``atac_lsi`` (TF-IDF; Cusanovich et
al. 2015), ``protein_pca`` (CLR), these side by side (``concatenated``), and the weighted nearest neighbours of two or three of
them (``wnn``, ``wnn_pearson``; Hao et al. 2021), which are a graph and no coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.data.transforms import to_scale
from xmodal.scores.metrics import Array, Bools, Floats, blocks

COMPONENTS = 30  # of the PCAs and the LSI
PEARSON_COMPONENTS = 15
THETA = 10.0  # overdispersion of the residuals, as Lause et al. have it: a little more than technical
CLIP = 3.0  # residuals are cut at the root of the training cells' number over this
MOST_FEATURES = 3_000  # for the residuals, which are dense: those that vary most


@dataclass(frozen=True)
class Counts:
    """One modality of the cells that have it: ``x`` CSR (cells, features), ``depth`` (cells,), ``train`` (cells,; bool)."""

    x: sp.csr_matrix
    depth: Floats
    train: Bools


def rna_pca(counts: Counts, seed: int) -> Array:
    """PCA of log1p CP10k, (cells, 30)."""
    logged = [
        sp.csr_matrix(to_scale(counts.x[s], counts.depth[s], fields.LOG_CP10K)) for s in blocks(counts.x.shape[0])
    ]
    return projected(sp.vstack(logged, format="csr"), counts.train, COMPONENTS, seed)


def protein_pca(counts: Counts, seed: int) -> Array:
    """PCA of CLR, (cells, 30 or one fewer than there are proteins)."""
    return projected(to_scale(counts.x, None, fields.CLR), counts.train, COMPONENTS, seed)


def projected(values: Any, train: Bools, components: int, seed: int) -> Array:
    """Principal components of the training cells, and the place of every cell on them."""
    from sklearn.decomposition import PCA

    fitted = values[np.flatnonzero(train)]
    most = max(1, min(components, min(fitted.shape) - 1))
    pca = PCA(most, svd_solver="arpack", random_state=seed).fit(fitted)
    axes = pca.components_.T
    return np.asarray(values @ axes - pca.mean_ @ axes, dtype=np.float32)


def atac_lsi(counts: Counts, seed: int) -> Array:
    """Latent semantic indexing, (cells, 29): SVD of log(1 + 10,000 TF-IDF) of open peaks without the first component."""
    from sklearn.decomposition import TruncatedSVD

    opened = counts.x.copy()
    opened.data = np.ones_like(opened.data)
    rows = np.flatnonzero(counts.train)
    often = np.bincount(opened[rows].indices, minlength=opened.shape[1])
    inverse = len(rows) / np.maximum(often, 1)
    share = 1e4 / np.maximum(np.asarray(opened.sum(1)).ravel(), 1)
    weighed = sp.csr_matrix(sp.diags(share) @ opened @ sp.diags(inverse))
    weighed.data = np.log1p(weighed.data).astype(np.float32)
    most = max(2, min(COMPONENTS, min(len(rows), weighed.shape[1]) - 1))
    svd = TruncatedSVD(most, algorithm="arpack", random_state=seed).fit(weighed[rows])
    return np.asarray(weighed @ svd.components_[1:].T, dtype=np.float32)


def rna_pearson(counts: Counts, seed: int) -> Array:
    """PCA of Pearson residuals, each cell scaled to length one, (cells, 15).

    The residuals of every cell are those of the training cells' model, which is the share of each gene there.
    """
    learned = counts.x[np.flatnonzero(counts.train)]
    clip = float(np.sqrt(learned.shape[0]) / CLIP)
    seen = np.asarray(learned.sum(0, dtype=np.float64)).ravel()
    share = seen / max(seen.sum(), 1)
    kept = np.flatnonzero(seen)
    if len(kept) > MOST_FEATURES:
        variance = _moments(learned, share, kept, clip, whole=False)[1]
        kept = np.sort(kept[np.argsort(-variance, kind="stable")[:MOST_FEATURES]])
    mean, covariance = _moments(learned, share, kept, clip)
    most = max(1, min(PEARSON_COMPONENTS, len(kept), learned.shape[0] - 1))
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :most]
    parts = [(_residuals(counts.x[s], share, kept, clip) - mean) @ axes for s in blocks(counts.x.shape[0])]
    places = np.concatenate(parts)
    return np.asarray(places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _residuals(x: sp.csr_matrix, share: Floats, kept: npt.NDArray[Any], clip: float) -> Floats:
    """Pearson residuals of a negative binomial, dense (cells, kept features)."""
    expected = np.asarray(x.sum(1, dtype=np.float64)) * share[kept]
    spread = np.sqrt(np.maximum(expected + expected**2 / THETA, 1e-12))
    found: Floats = np.clip((x[:, kept].toarray() - expected) / spread, -clip, clip)
    return found


def _moments(
    x: sp.csr_matrix, share: Floats, kept: npt.NDArray[Any], clip: float, whole: bool = True
) -> tuple[Floats, Floats]:
    """Mean of the residuals, and their covariance (features, features), or their variance alone where not ``whole``."""
    total, square = np.zeros(len(kept)), np.zeros((len(kept), len(kept)) if whole else len(kept))
    for s in blocks(x.shape[0]):
        part = _residuals(x[s], share, kept, clip)
        total += part.sum(0)
        square += part.T @ part if whole else (part**2).sum(0)
    mean = total / x.shape[0]
    return mean, square / x.shape[0] - (np.outer(mean, mean) if whole else mean**2)


PLAIN: dict[str, tuple[str, Callable[[Counts, int], Array]]] = {
    "rna_pca": (fields.RNA, rna_pca),
    "rna_pearson": (fields.RNA, rna_pearson),
    "atac_lsi": (fields.ATAC, atac_lsi),
    "protein_pca": (fields.PROTEIN, protein_pca),
}
# Made of those above, as far as they are there: one of each modality, and two at least.
JOINED = {
    "concatenated": ("rna_pca", "atac_lsi", "protein_pca"),
    "wnn": ("rna_pca", "atac_lsi", "protein_pca"),
    "wnn_pearson": ("rna_pearson", "atac_lsi", "protein_pca"),
}


def concatenated(parts: list[Array], train: Bools) -> Array:
    """Embeddings side by side, each scaled to a total variance of one in the training cells."""
    scaled = [z / np.sqrt(max(float(z[train].var(0, dtype=np.float64).sum()), 1e-12)) for z in parts]
    return np.concatenate(scaled, axis=1).astype(np.float32)
