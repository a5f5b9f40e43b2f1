"""Counts to a few coordinates without training by gradient: what encoders begin with, and the structure that others follow.

Statistics are those of the training cells and lie in buffers, so new cells are projected as the training cells were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal import fields
from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Modality, Vocabulary
from xmodal.kernels import products
from xmodal.models.layers import SPREAD_FLOOR, drawn
from xmodal.models.mean import column_means

if TYPE_CHECKING:
    from xmodal.data.batches import Batch

MOST_CELLS = 20_000  # that axes are taken from: more change the leading ones little
DISPERSION = 10.0  # theta of the residuals' negative binomial; Lause, Berens & Kobak 2021 found 10 to 100 alike
CLIP = 3.0  # residuals are cut at sqrt(cells) / 3: a gene of a handful of cells must not make an axis of its own
OPEN_SCALE = 1e4
PAIRED_CELLS = 1_000  # whose pairwise similarities are compared: half a million pairs
HALVINGS = 2
LEAST_RELIABLE, MOST_RELIABLE = 0.005, 0.995


def axes(matrix: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Leading right singular vectors of (cells, features), (features, count); columns of zeros where there are fewer."""
    from sklearn.utils.extmath import randomized_svd

    possible = min(count, min(matrix.shape) - 1)
    out = np.zeros((matrix.shape[1], count), np.float32)
    if possible > 0:
        out[:, :possible] = randomized_svd(matrix, possible, n_iter=5, random_state=0)[2].T
    return out


def project(modality: Modality, count: int) -> Projection:
    """The projection that fits the likelihood of ``modality``, to ``count`` dimensions."""
    kinds = {fields.NB: PearsonResiduals, fields.BERNOULLI: Topics}
    return kinds.get(modality.likelihood, Components)(modality, count)


class Projection(nn.Module, ABC):
    """One modality to ``width`` coordinates, rows of length 1 (zeros for a cell without counts), (cells, width)."""

    def __init__(self, modality: Modality, count: int) -> None:
        super().__init__()
        self.modality = modality
        self.width = max(1, min(count, len(modality) - 1))
        self.register_buffer("axes", torch.zeros(len(modality), self.width))

    @abstractmethod
    def prepare(self, cells: Cells) -> None:
        """Statistics of the cells that have the modality, and the axes."""

    @abstractmethod
    def raw(self, batch: Batch) -> Tensor:
        """Coordinates before they are brought to length 1."""

    def forward(self, batch: Batch) -> Tensor:
        return F.normalize(self.raw(batch), dim=1, eps=SPREAD_FLOOR)

    def _drawn(self, cells: Cells) -> Cells:
        measured = cells.having(self.modality.name)
        return measured.subset(drawn(len(measured), len(self.modality), MOST_CELLS)).in_memory()


class PearsonResiduals(Projection):
    """Principal components of analytic Pearson residuals of counts (Lause, Berens & Kobak, Genome Biol 2021).

    The residual of a count x of a cell with n counts, of a gene with share p: (x - np) / sqrt(np + (np)^2 / theta).  The
    expectation has the cell's depth in it, so depth is taken out before the axes are found; log-normalised counts carry it
    into the first one (mouse cortex: R2 of predicting log depth .87 against .21).
    """

    def __init__(self, modality: Modality, count: int) -> None:
        super().__init__(modality, count)
        self.register_buffer("share", torch.full((len(modality),), 1.0 / len(modality)))
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("limit", torch.tensor(10.0))

    def residuals(self, counts: Tensor) -> Tensor:
        """(cells, features) of counts to (cells, features) of residuals, clipped."""
        expected = counts.sum(1, keepdim=True) * self.get_buffer("share")
        spread = (expected + expected.square() / DISPERSION).sqrt().clamp(min=1e-6)
        limit = self.get_buffer("limit")
        return ((counts - expected) / spread).clamp(-limit, limit)

    def prepare(self, cells: Cells) -> None:
        m = self.modality.name
        measured = cells.having(m)
        if not len(measured):
            return
        total = np.asarray(measured.counts[m].sum(0), np.float64).ravel()
        share = np.maximum(total / max(total.sum(), 1.0), 1e-12)
        self.get_buffer("share").copy_(torch.from_numpy(share.astype(np.float32)))
        self.get_buffer("limit").fill_(float(np.sqrt(len(measured)) / CLIP))
        some = self._drawn(cells)
        residuals = self.residuals(torch.from_numpy(some.counts[m].toarray())).numpy()
        mean = residuals.mean(0)
        residuals -= mean
        self.get_buffer("axes").copy_(torch.from_numpy(axes(residuals, self.width)))
        self.get_buffer("centre").copy_(torch.from_numpy(mean) @ self.get_buffer("axes"))

    def raw(self, batch: Batch) -> Tensor:
        coordinates = self.residuals(batch.counts[self.modality.name]) @ self.get_buffer("axes")
        return coordinates - self.get_buffer("centre")


class Topics(Projection):
    """Latent semantic indexing of open peaks: TF-IDF, log1p, singular vectors; the first, which is depth, is left out."""

    def __init__(self, modality: Modality, count: int) -> None:
        super().__init__(modality, count)
        self.register_buffer("rarity", torch.ones(len(modality)))

    def prepare(self, cells: Cells) -> None:
        from sklearn.utils.extmath import randomized_svd

        m = self.modality.name
        measured = cells.having(m)
        if not len(measured):
            return
        rows = np.sort(torch.randperm(len(measured), generator=torch.Generator().manual_seed(0))[:MOST_CELLS].numpy())
        opened = (measured.counts[m][rows] > 0).astype(np.float32)
        rarity = np.log1p(len(rows) / np.maximum(np.asarray(opened.sum(0)).ravel(), 1)).astype(np.float32)
        self.get_buffer("rarity").copy_(torch.from_numpy(rarity))
        each = np.maximum(np.asarray(opened.sum(1)), 1)
        weighted = opened.multiply(OPEN_SCALE / each).multiply(rarity[None]).log1p().tocsr().astype(np.float32)
        possible = min(self.width + 1, min(weighted.shape) - 1)
        if possible < 2:
            return
        found = randomized_svd(weighted, possible, n_iter=5, random_state=0)[2][1:].T
        self.get_buffer("axes")[:, : found.shape[1]] = torch.from_numpy(np.ascontiguousarray(found))

    def raw(self, batch: Batch) -> Tensor:
        opened = batch.sparse[self.modality.name].positive()
        share = opened.times(1 / opened.sums().clamp(min=1))
        rarity = self.get_buffer("rarity")[share.column.long()]
        return products.times(
            replace(share, value=torch.log1p(OPEN_SCALE * share.value * rarity)), self.get_buffer("axes")
        )


class Components(Projection):
    """Principal components of z-scores, for values that are no counts (proteins on the CLR scale, any numeric table)."""

    def __init__(self, modality: Modality, count: int) -> None:
        super().__init__(modality, count)
        self.register_buffer("mean", torch.zeros(len(modality)))
        self.register_buffer("spread", torch.ones(len(modality)))

    def standard(self, values: Tensor) -> Tensor:
        return ((values - self.get_buffer("mean")) / self.get_buffer("spread")).clamp(-5, 5)

    def prepare(self, cells: Cells) -> None:
        m = self.modality.name
        some = self._drawn(cells)
        if not len(some):
            return
        self.get_buffer("mean").copy_(column_means(cells, m))
        values = torch.from_numpy(some.values(m))
        spread = values.std(0, correction=0)
        self.get_buffer("spread").copy_(torch.where(spread > SPREAD_FLOOR, spread, torch.inf))
        self.get_buffer("axes").copy_(torch.from_numpy(axes(self.standard(values).numpy(), self.width)))

    def raw(self, batch: Batch) -> Tensor:
        return self.standard(batch.values[self.modality.name]) @ self.get_buffer("axes")


def reliability(cells: Cells, name: str, count: int) -> float:
    """How well the structure of ``name`` is measured: correlation of pairwise cosines between two random halves of its features.

    Between 0 and 1.  Log depth, which both halves share, is taken out of the coordinates first (linear and square).
    Mouse cortex SNARE-seq: RNA .58, ATAC .01; A549 sci-CAR .35 and .05; CITE-seq RNA .82, proteins .76.
    """
    measured = cells.having(name)
    modality = cells.vocabulary[name]
    if len(measured) < 10 or len(modality) < 8:
        return LEAST_RELIABLE
    some = measured.subset(drawn(len(measured), len(modality), 4 * PAIRED_CELLS)).in_memory()
    found = []
    for turn in range(HALVINGS):
        order = torch.randperm(len(modality), generator=torch.Generator().manual_seed(turn)).numpy()
        halves = (np.sort(order[::2]), np.sort(order[1::2]))
        first, second = (_pairwise(_with_features(some, modality, columns), count) for columns in halves)
        found.append(float(torch.corrcoef(torch.stack([first, second]))[0, 1].nan_to_num()))
    return min(max(float(np.mean(found)), LEAST_RELIABLE), MOST_RELIABLE)


def _with_features(cells: Cells, modality: Modality, columns: npt.NDArray[np.int64]) -> Cells:
    """The cells as if only these features of one modality had been measured."""
    ids = None if modality.gene_ids is None else tuple(modality.gene_ids[i] for i in columns)
    fewer = replace(modality, features=tuple(modality.features[i] for i in columns), gene_ids=ids)
    m = modality.name
    counts = cells.counts[m][:, columns]
    total = np.asarray(counts.sum(1), np.float32).ravel()
    return Cells(Vocabulary({m: fewer}), cells.names, {m: counts}, {m: total}, {m: cells.present[m]})


def _pairwise(cells: Cells, count: int) -> Tensor:
    """Cosines of all pairs of the first cells in the projection of their one modality, depth taken out."""
    name = next(iter(cells.vocabulary))
    projection = project(cells.vocabulary[name], count)
    projection.prepare(cells)
    step, most = 256, min(PAIRED_CELLS, len(cells))
    rows = [cells.batch(slice(i, min(i + step, most))) for i in range(0, most, step)]
    coordinates = torch.cat([projection(b) for b in rows]).double()
    depth = torch.log1p(torch.cat([b.sparse[name].sums().clamp(min=0) for b in rows])).double()
    known = torch.stack([torch.ones_like(depth), depth, depth.square()], 1)
    coordinates = F.normalize(coordinates - known @ torch.linalg.lstsq(known, coordinates).solution, dim=1)
    similar = coordinates @ coordinates.T
    return similar[tuple(torch.triu_indices(most, most, 1))].float()
