"""CrossMP: two encoders, one latent, two decoders, four paths (Genes 2024, 15(7):882), for any two or more modalities.

Peaks are encoded together or chromosome by chromosome, beside a gene-activity branch (peaks summed over genes with a 10 kb
decay); every modality is decoded from every modality's latent, its own included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.data.batches import Batch, Cells
from xmodal.kernels import products
from xmodal.kernels.rows import Rows
from xmodal.models.base import CrossModalModel, GradientSettings
from xmodal.models.layers import BlockDecoder, BlockEncoder, Hide, RowLinear, Standardise, WideLinear, block, drawn
from xmodal.models.likelihoods import Head

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Vocabulary

CALIBRATION_CELLS = 4_000
LOW = 0.2  # of a feature's training mean: a calibrated log1p CP10k below it bends, since none can be negative
SLOPES = (0.02, 1.5)  # a slope outside means that the weights, not the scale, are wrong


class CrossMPSettings(GradientSettings):
    epochs: int = Field(120, ge=0, description="Most epochs to train.")
    batch_size: int = Field(256, ge=2, description="Cells in a minibatch.")
    learning_rate: float = Field(0.005, gt=0, description="Learning rate of Adam.")
    patience: int = Field(12, ge=1, description="Epochs without a better validation loss before training stops.")
    plateau_patience: int = Field(4, ge=1, description="Epochs without a better validation loss before the rate falls.")
    hidden: int = Field(64, ge=2, description="Width of the hidden layers of RNA, protein and gene activity.")
    latent: int = Field(16, ge=1, description="Dimensions of the latent.")
    block_hidden: int = Field(32, ge=2, description="Hidden width of one chromosome's encoder and decoder.")
    block_latent: int = Field(16, ge=1, description="What one chromosome passes on.")
    split_chromosomes: bool = Field(
        False, description="Encode and decode peaks chromosome by chromosome, as the paper does."
    )
    gene_activity: bool = Field(True, description="Use the gene-activity branch where links are known.")
    rna_likelihood: Literal["nb", "zinb"] = Field("nb", description="Likelihood of counts of a modality 'nb'.")
    binary_weight: float = Field(1.33, gt=0, description="Weight of the losses of binary modalities.")
    input_dropout: float = Field(0.5, ge=0, lt=1, description="Share of input features hidden in training.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of hidden layers.")
    calibrate: bool = Field(
        True,
        description="Predict the expected log1p CP10k, fitted to validation cells; false: log1p of the expected share.",
    )


def to_positive(x: Tensor, floor: Tensor) -> Tensor:
    """Values below ``floor`` (features,) approach zero exponentially instead of crossing it; their order stays."""
    floor = floor.clamp(min=1e-6)
    return torch.where(x < floor, floor * torch.exp((x.clamp(max=floor) - floor) / floor), x)


class Encoder(nn.Module):
    """One modality to the latent, (cells, latent)."""

    def __init__(self, settings: CrossMPSettings, vocabulary: Vocabulary, name: str) -> None:
        super().__init__()
        modality = vocabulary[name]
        self.inputs = Standardise(modality)
        self.hide = Hide(settings.input_dropout)
        self.peaks = modality.scale == fields.BINARY  # which are read as sparse rows
        blocks = [torch.from_numpy(b) for b in modality.blocks()]
        self.body: nn.Module
        if len(blocks) > 1 and settings.split_chromosomes:
            widths = (settings.block_hidden, settings.block_latent)
            self.body = BlockEncoder(blocks, widths, settings.latent, settings.dropout)
        else:
            self.sparse = modality.scale == fields.BINARY
            first = block(
                len(modality) + 1, settings.hidden, settings.dropout, RowLinear if self.sparse else WideLinear
            )
            self.body = nn.Sequential(first, nn.Linear(settings.hidden, settings.latent))
        self.activity: Activity | None = None
        if name == fields.ATAC and vocabulary.links is not None and settings.gene_activity:
            self.activity = Activity(settings, vocabulary)

    def prepare(self, cells: Cells) -> None:
        self.inputs.prepare(cells)
        if self.activity is not None:
            self.activity.prepare(cells)

    def forward(self, batch: Batch) -> Tensor:
        """The depth is never hidden; where peaks are, the activity is summed over the others."""
        if not self.peaks:
            x = self.inputs(batch)
            z: Tensor = self.body(torch.cat([self.hide(x[:, :-1]), x[:, -1:]], 1))
            return z
        opened = self.hide.rows(self.inputs.rows(batch))
        rows = opened.beside(self.inputs.log_depth(batch))
        z = self.body(rows.dense() if isinstance(self.body, BlockEncoder) else rows)
        return z if self.activity is None else z + self.activity(opened.positive())


class Activity(nn.Module):
    """Gene activity: open peaks summed over the genes they are linked to, log1p per 10k, z-scored -> latent."""

    def __init__(self, settings: CrossMPSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        assert vocabulary.links is not None
        self.links = Rows.of(vocabulary.links.tocsr())  # (peaks, genes)
        genes = self.links.width
        self.register_buffer("mean", torch.zeros(genes))
        self.register_buffer("spread", torch.ones(genes))
        self.body = nn.Sequential(
            block(genes, settings.hidden, settings.dropout, WideLinear), nn.Linear(settings.hidden, settings.latent)
        )

    def scores(self, opened: Rows) -> Tensor:
        """Activity of each gene, (cells, genes)."""
        if self.links.device != opened.device:
            self.links = self.links.to(opened.device)
        raw = products.times_rows(opened, self.links)
        return torch.log1p(1e4 * raw / raw.sum(1, keepdim=True).clamp(min=1e-6))

    def prepare(self, cells: Cells) -> None:
        measured = cells.having(fields.ATAC)
        if len(measured) < 2:
            return
        rows = drawn(len(measured), max(len(self.links), self.links.width))
        scores = self.scores(Rows.of(measured.counts[fields.ATAC][rows]).positive())
        spread = scores.std(0, correction=0)
        self.get_buffer("mean").copy_(scores.mean(0))
        self.get_buffer("spread").copy_(torch.where(spread > 1e-6, spread, torch.inf))

    def forward(self, opened: Rows) -> Tensor:
        """``opened`` (cells, peaks): 1 where open."""
        z = (self.scores(opened) - self.get_buffer("mean")) / self.get_buffer("spread")
        return self.body(z.clamp(-5, 5))


class CrossMP(CrossModalModel):
    """Cross-modal prediction through a shared latent."""

    name = "crossmp"
    summary = "CrossMP: encoders and decoders of every modality around one latent; predicts any from any."
    source = "CrossMP, Genes 2024, 15(7):882"
    Settings = CrossMPSettings
    streams = True
    has_latent = True
    decodes = True
    shares = True
    min_cells = 50
    settings: CrossMPSettings

    def __init__(self, settings: CrossMPSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        self.encoders = nn.ModuleDict({m: Encoder(settings, vocabulary, m) for m in vocabulary})
        self.decoders = nn.ModuleDict({m: self._decoder(m) for m in vocabulary})
        self.heads = nn.ModuleDict(
            {m: Head(modality, settings.rna_likelihood) for m, modality in vocabulary.modalities.items()}
        )
        for s, t in self.directions():
            self.register_buffer(f"scale_{s}_{t}", torch.ones(()))
            self.register_buffer(f"shift_{s}_{t}", torch.zeros(len(vocabulary[t])))

    def _decoder(self, m: str) -> nn.Module:
        s, modality = self.settings, self.vocabulary[m]
        blocks = [torch.from_numpy(b) for b in modality.blocks()]
        if len(blocks) > 1 and s.split_chromosomes:
            return BlockDecoder(blocks, s.latent, (s.block_hidden, s.block_latent))
        return nn.Sequential(block(s.latent, s.hidden, s.dropout), nn.Linear(s.hidden, len(modality)))

    def prepare(self, cells: Cells) -> None:
        for m in self.vocabulary:
            self.encoders[m].prepare(cells)  # type: ignore[operator]
            self.heads[m].prepare(cells)  # type: ignore[operator]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """One term for every path source -> target, averaged over the cells that have both."""
        losses = {}
        for s in self.vocabulary:
            rows = batch.present[s].nonzero().ravel()
            if len(rows) < (2 if self.training else 1):  # batch normalisation has no variance to learn from one cell
                continue
            part = batch if len(rows) == len(batch) else batch.rows(rows)
            z = self.encoders[s](part)
            for t in self.vocabulary:
                has = part.present[t]
                if not has.any():
                    continue
                weight = self.settings.binary_weight if self.vocabulary[t].likelihood == fields.BERNOULLI else 1.0
                losses[f"{s}_to_{t}"] = weight * self._path(z, t, part, has)
        return losses

    def _path(self, z: Tensor, target: str, batch: Batch, has: Tensor) -> Tensor:
        """Mean loss of ``target`` decoded from ``z`` (cells, latent) over the cells that ``has`` (cells,) marks."""
        decoder, head = self.decoders[target], self.heads[target]
        assert isinstance(head, Head)
        if isinstance(decoder, BlockDecoder):
            return head.loss(decoder(z), batch)[has].mean()
        assert isinstance(decoder, nn.Sequential)
        body, last = decoder
        assert isinstance(last, nn.Linear)
        ranks.owe(last)
        return head.total(body(z), (last.weight, last.bias), batch, has.to(z.dtype) / has.sum())

    def embed(self, batch: Batch) -> Tensor:
        """Mean of the latents of the modalities a cell has, (cells, latent)."""
        total = torch.zeros(len(batch), self.settings.latent, device=next(self.parameters()).device)
        count = torch.zeros(len(batch), 1, device=total.device)
        for m in self.vocabulary:
            has = batch.present[m][:, None].float()
            if has.any():
                total = total + has * self.encoders[m](batch)
                count = count + has
        return total / count.clamp(min=1)

    def impute(self, batch: Batch, modality: str) -> Tensor:
        head, outputs = self.heads[modality], self.decoders[modality](self.embed(batch))
        expected: Tensor = head.expected(outputs, plain=True)  # type: ignore[operator]
        return expected

    def encode(self, batch: Batch, source: str) -> Tensor:
        z: Tensor = self.encoders[source](batch)
        return z

    def predict(self, batch: Batch, source: str, target: str) -> Tensor:
        return self.decode(self.encode(batch, source), source, target)

    def decode(self, latent: Tensor, source: str, target: str) -> Tensor:
        out = self._uncalibrated(latent, target)
        if self.vocabulary[target].scale == fields.BINARY:
            return out
        out = self.get_buffer(f"shift_{source}_{target}") + self.get_buffer(f"scale_{source}_{target}") * out
        if self.vocabulary[target].scale != fields.LOG_CP10K:
            return out
        return to_positive(out, LOW * self.heads[target].get_buffer("mean"))

    def _uncalibrated(self, latent: Tensor, target: str) -> Tensor:
        head, outputs = self.heads[target], self.decoders[target](latent)
        expected: Tensor = head.expected(outputs, plain=not self.settings.calibrate)  # type: ignore[operator]
        return expected

    def finish(self, cells: Cells) -> None:
        """One slope for all features and one shift for each, by least squares on cells the weights were not fitted to."""
        if not self.settings.calibrate:
            return
        for s, t in self.directions():
            both = cells.having(s, t)
            if self.vocabulary[t].scale == fields.BINARY or len(both) < 2:
                continue
            slope, average = self._slope(both.subset(drawn(len(both), 1, CALIBRATION_CELLS)), s, t)
            self.get_buffer(f"scale_{s}_{t}").copy_(slope)
            mean = self.heads[t].get_buffer("mean")  # the training mean: no noise from few held-out cells
            self.get_buffer(f"shift_{s}_{t}").copy_(mean - slope * average)

    def _slope(self, cells: Cells, source: str, target: str) -> tuple[Tensor, Tensor]:
        """Least-squares slope of the values on the raw prediction inside features, and the raw prediction's mean."""
        device = next(self.parameters()).device
        total_raw = total_true = cross = square = torch.zeros(
            len(self.vocabulary[target]), dtype=torch.float64, device=device
        )
        for batch in cells.minibatches(self.settings.batch_size):
            moved = batch.to(device)
            raw, true = self._uncalibrated(self.encode(moved, source), target).double(), moved.values[target].double()
            total_raw, total_true = total_raw + raw.sum(0), total_true + true.sum(0)
            cross, square = cross + (raw * true).sum(0), square + raw.square().sum(0)
        mean = total_raw / len(cells)
        covariance, variance = (cross - mean * total_true).sum(), (square - mean * total_raw).sum()
        return (covariance / variance.clamp(min=1e-9)).clamp(*SLOPES).float(), mean.float()
