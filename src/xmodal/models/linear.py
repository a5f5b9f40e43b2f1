"""PLS and ridge between standard low-rank inputs: the control that published neural models often do not beat.

Inputs: LSI-50 of ATAC (TF-IDF, log1p of 1e4 x, SVD) and PCA-50 of the values of any other modality, z-scored on training cells.
PLS with 10 components (of ATAC targets: of their 50 SVD scores); ridge on the features themselves, its penalty chosen from
1..1e4 on an eighth of the training cells.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor

from xmodal import fields
from xmodal.data.batches import Batch, Cells
from xmodal.models.base import CrossModalModel, ModelSettings
from xmodal.models.depth import to_probability

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float32]
ENTRIES = 60_000_000  # values of one modality made dense at once; of 30,000 genes that is 2,000 cells
FEWEST = 1_000
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)


class LinearSettings(ModelSettings):
    method: Literal["pls", "ridge"] = Field("pls", description="PLS or ridge regression.")
    rank: int = Field(50, ge=2, description="Dimensions of the low-rank inputs.")
    components: int = Field(10, ge=1, description="Components of PLS.")
    max_cells: int = Field(20_000, ge=100, description="Most training cells used; more are drawn at random.")


class Linear(CrossModalModel):
    """PLS-10 (default) or ridge, both directions of every pair of modalities."""

    name = "linear"
    summary = "Control: PLS or ridge regression between low-rank inputs; fast and hard to beat on levels."
    source = "scikit-learn; pinned as the reference control"
    Settings = LinearSettings
    streams = True
    decodes = True
    min_cells = 20
    min_pairs = 20
    settings: LinearSettings

    def __init__(self, settings: LinearSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        k = settings.rank
        for m, modality in vocabulary.modalities.items():
            width = len(modality)
            for key, shape in {
                "weight": (width,),
                "offset": (width,),
                "components": (k, width),
                "centre": (k,),
                "spread": (k,),
            }.items():
                self.register_buffer(f"{key}_{m}", torch.zeros(shape))
            if settings.method == "pls" and modality.scale == fields.BINARY:
                self.register_buffer(f"decode_{m}", torch.zeros(k, width))
        for s, t in self.directions():
            width = k if self._decoded(t) else len(vocabulary[t])
            self.register_buffer(f"coefficient_{s}_{t}", torch.zeros(k, width))
            self.register_buffer(f"intercept_{s}_{t}", torch.zeros(width))

    def _decoded(self, target: str) -> bool:
        return self.settings.method == "pls" and self.vocabulary[target].scale == fields.BINARY

    def prepare(self, cells: Cells) -> None:
        widest = max((len(m) for m in self.vocabulary.modalities.values() if m.scale != fields.BINARY), default=1)
        most = min(self.settings.max_cells, max(FEWEST, ENTRIES // widest))
        if len(cells) > most:
            rows = np.random.default_rng(0).choice(len(cells), most, replace=False)
            log.info("linear: fitted to %d of %d cells", most, len(cells))
            cells = cells.subset(np.sort(rows))
        cells = cells.in_memory()
        for m in self.vocabulary:
            measured = cells.having(m)
            if len(measured) > 2:
                self._fit_input(m, measured)
        for s, t in self.directions():
            both = cells.having(s, t)
            if len(both) >= self.min_pairs:
                self._fit_direction(s, t, both)

    def _fit_input(self, m: str, cells: Cells) -> None:
        """Fill the projection of modality ``m``: z = ((weighted values - offset) @ components.T - centre) / spread."""
        from sklearn.decomposition import PCA, TruncatedSVD

        modality = self.vocabulary[m]
        k = min(self.settings.rank, len(cells) - 1, len(modality) - 1)
        if modality.scale == fields.BINARY:
            binary = binarised(cells.counts[m])
            weight = np.log1p(len(cells) / (1 + np.asarray(binary.sum(0)).ravel()))
            self.get_buffer(f"weight_{m}").copy_(torch.from_numpy(weight.astype(np.float32)))
            fitted = TruncatedSVD(k, random_state=0).fit(tfidf(binary, weight))
            if self._decoded(m):
                scores = TruncatedSVD(k, random_state=0).fit(binary).components_
                self.get_buffer(f"decode_{m}")[:k] = torch.from_numpy(scores.astype(np.float32))
        else:
            fitted = PCA(k, random_state=0).fit(cells.values(m))
            self.get_buffer(f"offset_{m}").copy_(torch.from_numpy(fitted.mean_))
        self.get_buffer(f"components_{m}")[:k] = torch.from_numpy(np.ascontiguousarray(fitted.components_, np.float32))
        raw = self._project(m, cells)
        self.get_buffer(f"centre_{m}")[:k] = raw[:, :k].mean(0)
        self.get_buffer(f"spread_{m}")[:k] = raw[:, :k].std(0, correction=0).clamp(min=1e-9)

    def _project(self, m: str, cells: Cells) -> Tensor:
        chunks = range(0, len(cells), 1024)
        return torch.cat([self._raw(m, cells.batch(slice(i, i + 1024))) for i in chunks])

    def _raw(self, m: str, batch: Batch) -> Tensor:
        """Low-rank input before z-scoring, (cells, rank)."""
        x = batch.values[m]
        if self.vocabulary[m].scale == fields.BINARY:
            share = x / x.sum(1, keepdim=True).clamp(min=1)
            x = torch.log1p(1e4 * share * self.get_buffer(f"weight_{m}"))
        return (x - self.get_buffer(f"offset_{m}")) @ self.get_buffer(f"components_{m}").T

    def _scores(self, m: str, raw: Tensor) -> Tensor:
        spread = self.get_buffer(f"spread_{m}")
        return torch.where(spread > 0, (raw - self.get_buffer(f"centre_{m}")) / spread.clamp(min=1e-9), 0.0)

    def _fit_direction(self, s: str, t: str, cells: Cells) -> None:
        z = self._scores(s, self._project(s, cells)).numpy()
        if self.settings.method == "pls":
            target = (
                binarised(cells.counts[t]) @ self.get_buffer(f"decode_{t}").numpy().T
                if self._decoded(t)
                else cells.values(t)
            )
            coefficient, intercept = pls(z, np.asarray(target), self.settings.components)
        else:
            values = binarised(cells.counts[t]) if self.vocabulary[t].scale == fields.BINARY else cells.values(t)
            coefficient, intercept = ridge(z, values)
        self.get_buffer(f"coefficient_{s}_{t}").copy_(torch.from_numpy(coefficient.astype(np.float32)))
        self.get_buffer(f"intercept_{s}_{t}").copy_(torch.from_numpy(intercept.astype(np.float32)))

    def encode(self, batch: Batch, source: str) -> Tensor:
        return self._scores(source, self._raw(source, batch))

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        return self.decode(self.encode(batch, source), source, target)

    def decode(self, latent: Tensor, source: str, target: str) -> Tensor:
        out = latent @ self.get_buffer(f"coefficient_{source}_{target}") + self.get_buffer(
            f"intercept_{source}_{target}"
        )
        if self._decoded(target):
            out = out @ self.get_buffer(f"decode_{target}")
        return to_probability(out) if self.vocabulary[target].scale == fields.BINARY else out


def binarised(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Open or not, CSR float32."""
    binary = (counts > 0).astype(np.float32)
    return sp.csr_matrix(binary)


def tfidf(binary: sp.csr_matrix, weight: npt.NDArray[np.float64]) -> sp.csr_matrix:
    """log1p(1e4 x share x idf), (cells, peaks); Signac's first method."""
    total = np.maximum(np.asarray(binary.sum(1)).ravel(), 1)
    scaled = (sp.diags(1e4 / total) @ binary @ sp.diags(weight)).tocsr()
    scaled.data = np.log1p(scaled.data)
    return scaled


def pls(z: Array, target: Array, components: int) -> tuple[Array, Array]:
    """Coefficients (rank, targets) and intercept (targets,) of PLS regression."""
    from sklearn.cross_decomposition import PLSRegression

    used = np.flatnonzero(z.std(0) > 0)  # small data has fewer dimensions than the rank
    fitted = PLSRegression(min(components, len(used), target.shape[1], len(z) - 1), scale=False).fit(z[:, used], target)
    coefficient = np.zeros((z.shape[1], target.shape[1]), np.float32)
    coefficient[used] = fitted.coef_.T
    centre = z.mean(0)
    return coefficient, target.mean(0) - centre @ coefficient


def ridge(z: Array, target: Array | sp.csr_matrix) -> tuple[Array, Array]:
    """Ridge with the penalty that predicts an eighth of the cells best; works on sparse targets without making them dense."""
    rows = np.random.RandomState(1).permutation(len(z))
    held, fit = rows[: max(1, len(z) // 8)], np.sort(rows[max(1, len(z) // 8) :])

    def solve(index: npt.NDArray[np.int64], penalty: float) -> tuple[Array, Array]:
        centre = z[index].mean(0, dtype=np.float64)
        mean = np.asarray(target[index].mean(0), dtype=np.float64).ravel()
        x = z[index] - centre
        cross = np.asarray(target[index].T @ x).T  # (rank, targets); x is centred, so the target need not be
        w = np.linalg.solve(x.T @ x + penalty * np.eye(z.shape[1]), cross)
        return w, mean - centre @ w

    def error(penalty: float) -> float:
        w, b = solve(fit, penalty)
        total = 0.0
        for rows in np.array_split(held, -(-len(held) // 512)):
            true: Any = target[rows]
            total += float(np.square(z[rows] @ w + b - (true.toarray() if sp.issparse(true) else true)).sum())
        return total

    return solve(np.arange(len(z)), min(PENALTIES, key=error))
