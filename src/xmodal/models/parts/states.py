"""The state of a cell in one modality, with depth taken out: what groups and neighbours are found in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from xmodal import fields
from xmodal.models.layers import ENTRIES, drawn
from xmodal.models.parts.sparse import sparse_values

if TYPE_CHECKING:
    from xmodal.data.batches import Cells
    from xmodal.data.vocabulary import Modality

DIMENSIONS = 15
THETA = 10.0  # overdispersion of counts in Pearson residuals (Lause, Berens, Kobak 2021, use 100 for deep data)
CHUNK = 1_024  # cells at once; fewer of wide modalities


class States(nn.Module):
    """Rows of unit length, (cells, DIMENSIONS): PCA of Pearson residuals of counts, or of z-scores of values.

    Pearson residuals with clipping at sqrt(cells) / 3 (Lause, Berens, Kobak 2021, eq. 4), PCA, rows scaled to length one: of the
    embeddings measured on real data the one that holds least depth and most cell type.  Needed in training only: nothing of it
    is in a checkpoint.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.modality = modality
        width = len(modality)
        self.counts = modality.likelihood != fields.GAUSSIAN
        for name, shape in {"share": (width,), "centre": (width,), "spread": (width,)}.items():
            self.register_buffer(name, torch.zeros(shape), persistent=False)
        self.register_buffer("components", torch.zeros(width, DIMENSIONS), persistent=False)
        self.limit = 1.0

    def prepare(self, cells: Cells) -> None:
        """Learn from the cells that have the modality."""
        from sklearn.decomposition import PCA

        cells = cells.having(self.modality.name)
        if len(cells) < 3:
            return
        values = self._raw(cells)
        total = np.asarray(values.sum(0)).ravel()
        self.limit = float(np.sqrt(len(cells)) / 3)
        rows = drawn(len(cells), len(self.modality), 5_000)
        if self.counts:
            self.get_buffer("share").copy_(torch.from_numpy((total / max(total.sum(), 1e-9)).astype(np.float32)))
        else:
            spread = np.maximum(values.std(0), 1e-6)
            self.get_buffer("centre").copy_(torch.from_numpy(total / len(cells)))
            self.get_buffer("spread").copy_(torch.from_numpy(spread))
        x = self._standard(self._tensor(values[rows]))
        k = min(DIMENSIONS, len(rows) - 1, x.shape[1])
        fitted = PCA(k, random_state=0).fit(x.numpy())
        if self.counts:
            self.get_buffer("centre").copy_(torch.from_numpy(fitted.mean_))
        self.get_buffer("components")[:, :k] = torch.from_numpy(fitted.components_.T.copy())

    def of(self, cells: Cells) -> Tensor:
        """States of ``cells``, chunk by chunk."""
        values = self._raw(cells)
        size = max(1, min(CHUNK, ENTRIES // len(self.modality)))
        parts = [self(self._tensor(values[i : i + size])) for i in range(0, len(cells), size)]
        return torch.cat(parts) if parts else torch.zeros(0, DIMENSIONS)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: counts, opened peaks or values, (cells, features) dense."""
        z = self._standard(x)
        if self.counts:
            z.sub_(self.get_buffer("centre"))
        return nn.functional.normalize(z @ self.get_buffer("components"), dim=1)

    def _raw(self, cells: Cells) -> Any:
        m = self.modality
        return cells.counts[m.name] if m.likelihood == fields.NB else sparse_values(cells, m.name)

    @staticmethod
    def _tensor(values: Any) -> Tensor:
        return torch.from_numpy(np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float32))

    def _standard(self, x: Tensor) -> Tensor:
        if not self.counts:
            spread = self.get_buffer("spread").clamp(min=1e-6)
            return ((x - self.get_buffer("centre")) / spread).clamp(-10, 10)
        mean = x.sum(1, keepdim=True) * self.get_buffer("share")
        spread = mean.square().div_(THETA).add_(mean).sqrt_().clamp_(min=1e-6)
        return (x - mean).div_(spread).clamp_(-self.limit, self.limit)
