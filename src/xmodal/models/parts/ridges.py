"""Ridge from a low-rank view of the source to the target: what is linear, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from xmodal import fields
from xmodal.data.transforms import CP
from xmodal.models.parts.sparse import sparse_values

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Modality

RANK = 50
PENALTY = 0.3  # times the number of cells, of z-scored inputs
Array = npt.NDArray[np.float64]


class LowRankRidge(nn.Module):
    """z-scored SVD scores of the source and the expected depth -> values of the target, or shares of its open peaks.

    Shares are regressed with the cells' depths as weights, so that a shallow cell says as little as it knows.
    """

    def __init__(self, source: Modality, target: Modality) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.shares = target.scale == fields.BINARY
        if source.scale == fields.BINARY:
            self.register_buffer("idf", torch.zeros(len(source)))
        self.register_buffer("components", torch.zeros(len(source), RANK))
        self.register_buffer("centre", torch.zeros(RANK + 1))
        self.register_buffer("coefficient", torch.zeros(RANK + 1, len(target)))
        self.register_buffer("intercept", torch.zeros(len(target)))

    def inputs(self, batch: Batch, depth: Tensor) -> Tensor:
        """(cells, RANK + 1); ``depth``: z-score, (cells, 1)."""
        x = batch.values[self.source.name]
        if self.source.scale == fields.BINARY:
            x = torch.log1p(CP * x / x.sum(1, keepdim=True).clamp(min=1) * self.get_buffer("idf"))
        scores = x @ self.get_buffer("components")
        return torch.cat([scores, depth], 1) - self.get_buffer("centre")

    def forward(self, batch: Batch, depth: Tensor) -> Tensor:
        """Values or shares, (cells, features of the target)."""
        out = self.inputs(batch, depth) @ self.get_buffer("coefficient") + self.get_buffer("intercept")
        return out.clamp(min=0) if self.shares else out

    def prepare(self, cells: Cells) -> None:
        """The view of the source, from cells that have both modalities."""
        from sklearn.decomposition import TruncatedSVD

        values = sparse_values(cells, self.source.name)
        if self.source.scale == fields.BINARY:
            idf = np.log1p(len(cells) / (1 + np.asarray(values.sum(0)).ravel()))
            self.get_buffer("idf").copy_(torch.from_numpy(idf.astype(np.float32)))
            values = self._view(values)
        k = min(RANK, len(cells) - 2, len(self.source) - 1)
        svd = TruncatedSVD(k, random_state=0).fit(values)
        spread = np.maximum(svd.transform(values).std(0), 1e-9)
        self.get_buffer("components")[:, :k] = torch.from_numpy((svd.components_.T / spread).astype(np.float32))

    def _view(self, values: Any) -> Any:
        """What the SVD is taken of: LSI of peaks, the values themselves of everything else."""
        if self.source.scale != fields.BINARY:
            return values
        total = np.maximum(np.asarray(values.sum(1)).ravel(), 1)
        out = (sp.diags(CP / total) @ values @ sp.diags(self.get_buffer("idf").numpy())).tocsr().astype(np.float32)
        out.data = np.log1p(out.data)
        return out

    def fit(self, cells: Cells, depth: npt.NDArray[np.float32]) -> None:
        """Fill the coefficients; the target is never made dense."""
        target = sparse_values(cells, self.target.name)
        view = self._view(sparse_values(cells, self.source.name))
        x = np.asarray(view @ self.get_buffer("components").numpy(), np.float64)
        x = np.concatenate([x, depth], 1)
        weight = np.ones(len(cells))
        if self.shares:  # weighted regression of y / n with weight n: the products are those of y itself
            weight = np.maximum(np.asarray(target.sum(1), np.float64).ravel(), 1.0)
        centre = weight @ x / weight.sum()
        x = x - centre
        cross = np.asarray(target.T @ (x if self.shares else x * weight[:, None])).T
        gram = x.T @ (x * weight[:, None]) + PENALTY * weight.sum() * np.eye(x.shape[1])
        total = np.asarray(target.sum(0), np.float64).ravel()
        self.get_buffer("centre").copy_(torch.from_numpy(centre))
        self.get_buffer("coefficient").copy_(torch.from_numpy(np.linalg.solve(gram, cross).astype(np.float32)))
        self.get_buffer("intercept").copy_(torch.from_numpy((total / weight.sum()).astype(np.float32)))
