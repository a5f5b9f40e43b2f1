"""What is read of a cell before its type is asked for: principal components of its genes, its genes as tokens, or an embedding.

Principal components are those of z-scores, cut at 10, as CellTypist scales genes: types of a few cells are told apart by genes
that hardly vary over all cells, which unscaled values leave out of the leading components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xmodal import fields
from xmodal.data.transforms import CP, to_scale
from xmodal.errors import InputRefused, SettingRefused
from xmodal.models.layers import drawn
from xmodal.models.parts.perceiver import Perceiver

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Modality, Vocabulary
    from xmodal.models.scmmgpt import ScMMGPTSettings

CUT = 10.0  # largest z-score
LEAST_SPREAD = 1e-3  # added to standard deviations: a gene of one count in all cells is no signal
MOST_CELLS = 20_000  # that components are taken from: more change the leading ones little
ENTRIES = 2_000_000_000  # values read for it at most: of wide files fewer cells
CHUNK = 512  # cells made dense at once
# Of subspace iteration, and columns besides those asked for (Halko, Martinsson & Tropp 2011).  In shallow cells the values fall
# slowly: with 4 rounds and 10 columns the later components were blurred, and one label in a hundred was lost by it (pbmc3k).
ROUNDS, SPARE = 6, 70
EMBEDDING, TOKENS, COMPONENTS = "obsm:", "builtin", "builtin-mlp"


class Genes(nn.Module):
    """z-scores of log1p CP10k of one modality, (cells, genes), and their principal components, (cells, width).

    Counts are per 10,000 of the genes that the model knows, not of all in the file: a training file of 2,000 variable genes and
    new cells with all genes would else be on two scales.
    """

    def __init__(self, modality: Modality, count: int) -> None:
        super().__init__()
        self.modality = modality
        self.width = max(1, min(count, len(modality) - 1))
        self.register_buffer("mean", torch.zeros(len(modality)))
        self.register_buffer("spread", torch.ones(len(modality)))
        self.register_buffer("axes", torch.zeros(len(modality), self.width))
        self.register_buffer("scale", torch.ones(()))  # of the components, over all of them
        self.register_buffer("left", torch.zeros(3))  # log of what the components leave, as a parabola of the log depth

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        """Statistics of the cells that have the modality."""
        measured = cells.having(self.modality.name)
        if not len(measured):
            return
        most = min(MOST_CELLS, max(1_000, ENTRIES // len(self.modality)))
        measured = measured.subset(rows_of(len(measured), most))
        total = square = torch.zeros(len(self.modality), dtype=torch.float64)
        for values in self._chunks(measured):
            total, square = total + values.double().sum(0), square + values.double().square().sum(0)
        mean = total / len(measured)
        spread = (square / len(measured) - mean.square()).clamp(min=0).sqrt()
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("spread").copy_(torch.where(spread > 0, spread + LEAST_SPREAD, torch.inf))
        axes = components(lambda: map(self.scores, self._chunks(measured)), len(mean), self.width)
        self.get_buffer("axes").copy_(axes)
        self._scale(measured)

    def _scale(self, cells: Cells) -> None:
        """The spread of the components, and how much of a cell they usually leave at its depth."""
        found, left = [], []
        for values in self._chunks(cells):
            scores = self.scores(values)
            found.append(scores @ self.get_buffer("axes"))
            left.append(self._left(scores, found[-1]))
        self.get_buffer("scale").copy_(torch.cat(found).std().clamp(min=1e-6))
        total = torch.from_numpy(np.asarray(cells.counts[self.modality.name].sum(1))).double().ravel()
        depth = torch.log(total.clamp(min=1))
        powers = torch.stack([depth**p for p in range(3)], 1)
        self.get_buffer("left").copy_(torch.linalg.lstsq(powers, torch.cat(left).double()[:, None]).solution[:, 0])

    def values(self, batch: Batch) -> Tensor:
        """log1p of counts per 10,000 of these genes, (cells, genes); values that are no counts as they are."""
        if self.modality.scale != fields.LOG_CP10K:
            return batch.values[self.modality.name]
        counts = batch.counts[self.modality.name]
        return torch.log1p(CP * counts / counts.sum(1, keepdim=True).clamp(min=1))

    def _chunks(self, cells: Cells) -> Iterator[Tensor]:
        m = self.modality
        for start in range(0, len(cells), CHUNK):
            rows = slice(start, start + CHUNK)
            depth = None if m.scale == fields.LOG_CP10K else cells.depth[m.name][rows]
            yield torch.from_numpy(to_scale(cells.counts[m.name][rows], depth, m.scale))

    def scores(self, values: Tensor) -> Tensor:
        """z-scores of ``values`` (cells, genes); zeros where a gene never varies."""
        return ((values - self.get_buffer("mean")) / self.get_buffer("spread")).clamp(-CUT, CUT)

    def components(self, scores: Tensor) -> Tensor:
        """(cells, width), of spread 1 over all components together: the leading ones stay the largest."""
        return scores @ self.get_buffer("axes") / self.get_buffer("scale")

    def leftover(self, scores: Tensor, batch: Batch) -> Tensor:
        """How much more the components leave of a cell than of training cells of its counts, in logarithms, (cells,)."""
        log_depth = torch.log(batch.counts[self.modality.name].sum(1).clamp(min=1))
        usual = sum(c * log_depth**p for p, c in enumerate(self.get_buffer("left")))
        return self._left(scores, scores @ self.get_buffer("axes")) - usual

    @staticmethod
    def _left(scores: Tensor, projected: Tensor) -> Tensor:
        return torch.log((scores.square().sum(1) - projected.square().sum(1)).clamp(min=1e-6))


def rows_of(cells: int, most: int) -> npt.NDArray[np.int64]:
    """Rows of at most ``most`` cells, sorted."""
    return drawn(cells, 1, most) if cells > most else np.arange(cells)


def components(chunks: Callable[[], Iterator[Tensor]], features: int, count: int) -> Tensor:
    """Leading principal axes of the rows that ``chunks`` gives, read a few times, (features, count); columns of length 1.

    Subspace iteration with a last Rayleigh-Ritz step; an axis points to where its largest entry is positive.
    """
    width = min(count + SPARE, features)
    basis = torch.linalg.qr(torch.randn(features, width, generator=torch.Generator().manual_seed(0))).Q
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(sum((x.T @ (x @ basis) for x in chunks()), torch.zeros(features, width))).Q
    inner = sum(((y := x @ basis).T @ y for x in chunks()), torch.zeros(width, width))
    axes = basis @ torch.linalg.eigh(inner).eigenvectors.flip(1)[:, :count]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0)


class CellEncoder(nn.Module):
    """A cell to ``width`` numbers, (cells, width)."""

    width: int

    def prepare(self, cells: Cells) -> None:
        """Take statistics of the training cells."""

    def forward(self, batch: Batch, scores: Tensor) -> Tensor:
        """``scores``: z-scores of the cells' genes."""
        raise NotImplementedError


class Components(CellEncoder):
    """Principal components of the genes."""

    def __init__(self, genes: Genes) -> None:
        super().__init__()
        self._genes = [genes]  # a module of its own elsewhere: here it would stand in the checkpoint twice
        self.width = genes.width

    def forward(self, batch: Batch, scores: Tensor) -> Tensor:
        return self._genes[0].components(scores)


class Tokens(CellEncoder):
    """The mean of the latents of :class:`Perceiver`, which is trained further."""

    def __init__(self, settings: ScMMGPTSettings, modality: Modality) -> None:
        super().__init__()
        self.modality = modality.name
        self.perceiver = Perceiver(len(modality), settings)
        self.width = settings.width

    def forward(self, batch: Batch, scores: Tensor) -> Tensor:
        return Perceiver.pooled(self.perceiver(batch.values[self.modality], batch.depth[self.modality]))


class Embedding(CellEncoder):
    """What the cells bring along, ``obsm[KEY]``, each column brought to mean 0 and spread 1."""

    def __init__(self, key: str, width: int) -> None:
        super().__init__()
        self.key, self.width = key, width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        given = torch.from_numpy(cells.extra[fields.REFERENCE])
        given = given[given.isfinite().all(1)]
        self.get_buffer("mean").copy_(given.mean(0))
        self.get_buffer("spread").copy_(given.std(0, correction=0).clamp(min=1e-6))

    def forward(self, batch: Batch, scores: Tensor) -> Tensor:
        given = batch.extra.get(fields.REFERENCE)
        if given is None or not bool(given.isfinite().all()):
            raise InputRefused(
                f"there are cells without the embedding obsm['{self.key}'] that the model reads",
                do="compute it for all cells, with the model that made it for the training cells",
            )
        return (given - self.get_buffer("mean")) / self.get_buffer("spread")


def cell_encoder(settings: ScMMGPTSettings, vocabulary: Vocabulary, genes: Genes) -> CellEncoder:
    """The encoder that ``settings.cell_model`` names; :class:`SettingRefused` for another."""
    asked = settings.cell_model
    if asked == COMPONENTS:
        return Components(genes)
    if asked == TOKENS:
        return Tokens(settings, vocabulary[fields.RNA])
    if asked.startswith(EMBEDDING) and vocabulary.reference is not None:
        return Embedding(vocabulary.reference.key, vocabulary.reference.width)
    raise SettingRefused(
        f"--set cell_model={asked}: give {COMPONENTS}, {TOKENS}, {EMBEDDING}KEY, scgpt:DIR or geneformer:DIR"
    )
