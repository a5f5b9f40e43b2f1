"""Encoders to Gaussians and decoders with covariates, one of each for a modality: the experts whose product is a joint latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.kernels import products
from xmodal.models.layers import Hide
from xmodal.models.likelihoods import Head
from xmodal.models.parts.projections import project

if TYPE_CHECKING:
    from xmodal.data.batches import Batch
    from xmodal.data.vocabulary import Modality
    from xmodal.models.sailerx import SailerXSettings

Gaussian = tuple[Tensor, Tensor]  # mean and log variance, (cells, latent) each
LOG_VARIANCE = (-6.0, 4.0)  # limits that keep products and exponentials in range
LOG_DISPERSION = 2.0
TOPICS = 30  # coordinates of peaks: shallow ATAC has no more that are not noise


class Encoder(nn.Module):
    """One modality to a Gaussian, (cells, latent) each: its projection, and peaks also as they are.

    Topics of shallow peaks lose much that the decoders of the other modalities can teach a layer over all peaks.
    """

    def __init__(self, settings: SailerXSettings, modality: Modality) -> None:
        super().__init__()
        self.modality = modality
        peaks = modality.likelihood == fields.BERNOULLI
        self.projection = project(modality, TOPICS if peaks else settings.reference_dimensions)
        self.first = nn.Linear(self.projection.width, settings.hidden)
        self.wide: nn.Linear | None = None
        if modality.likelihood != fields.NB:
            self.wide = nn.Linear(len(modality), settings.hidden, bias=False)
            nn.init.normal_(self.wide.weight, std=0.02)
            self.wide.weight = nn.Parameter(self.wide.weight.detach().T.contiguous().T)  # as sparse rows read it
        self.hide = Hide(settings.input_dropout if peaks else 0.0)
        self.body = nn.Sequential(nn.LayerNorm(settings.hidden), nn.GELU(), nn.Dropout(settings.dropout))
        self.out = nn.Linear(settings.hidden, 2 * settings.latent)
        nn.init.zeros_(self.out.bias)

    def forward(self, batch: Batch, place: Tensor) -> Gaussian:
        """``place``: the projection of the batch, which others need as well."""
        mean, log_variance = self.out(self.body(self.hidden(batch, place))).chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def hidden(self, batch: Batch, place: Tensor) -> Tensor:
        """The first layer, (cells, hidden)."""
        hidden: Tensor = self.first(place * self.projection.width**0.5)
        if self.wide is not None:
            hidden = hidden + self._wide(batch, self.wide)
        return hidden

    def _wide(self, batch: Batch, layer: nn.Linear) -> Tensor:
        """The features as they are through ``layer``, (cells, hidden); of peaks only the open ones are read."""
        m = self.modality.name
        ranks.owe(layer)
        if self.modality.likelihood != fields.BERNOULLI:
            own = layer(self.hide(self.projection.standard(batch.own.values[m])))  # type: ignore[operator]
            return ranks.gathered(own, len(batch))
        opened = batch.sparse[m].positive()
        shown = self.hide.at(opened.times(1 / opened.sums().clamp(min=1).sqrt()))
        if ranks.shared():
            shown = shown.take(ranks.own(len(batch)))
        return ranks.gathered(products.times(shown, layer.weight.T), len(batch))


class Decoder(nn.Module):
    """Latent and batch to what the head of the modality turns into values, (cells, features)."""

    def __init__(self, settings: SailerXSettings, modality: Modality, batches: int) -> None:
        super().__init__()
        self.modality = modality
        self.body = nn.Sequential(
            nn.Linear(settings.latent + batches, settings.hidden),
            nn.LayerNorm(settings.hidden),
            nn.GELU(),
            nn.Dropout(settings.dropout),
        )
        self.out = nn.Linear(settings.hidden, len(modality), bias=False)  # the head has a bias
        nn.init.normal_(self.out.weight, std=0.01)
        self.head = Head(modality)
        if modality.likelihood == fields.NB:  # molecules counted once are nearer to Poisson than the head begins with
            self.head.log_dispersion.data.fill_(LOG_DISPERSION)
        self.slope: nn.Parameter | None = None
        if modality.likelihood == fields.BERNOULLI:  # counts have their depth in the head
            self.slope = nn.Parameter(torch.full((len(modality),), 0.5))

    def forward(self, z: Tensor, covariates: Tensor, depth: Tensor | None = None) -> Tensor:
        """``covariates``: (cells, batches); ``depth``: log depth in standard deviations, (cells,), or None: average."""
        outputs: Tensor = self.out(self.body(torch.cat([z, covariates], 1)))
        return outputs if self.slope is None or depth is None else outputs + self.slope * depth[:, None]

    def loss(self, inputs: tuple[Tensor, Tensor, Tensor], batch: Batch, share: Tensor) -> Tensor:
        """Sum of ``share`` (cells,) x the head's loss, a scalar; ``inputs``: z, covariates and depth of :meth:`forward`."""
        z, covariates, depth = inputs
        ranks.owe([self.out.weight, *([] if self.slope is None else [self.slope])])
        hidden, weight = self.body(torch.cat([z, covariates], 1)), self.out.weight
        if self.slope is not None:  # one more input of the last layer
            hidden, weight = torch.cat([hidden, depth[:, None]], 1), torch.cat([weight, self.slope[:, None]], 1)
        return self.head.total(hidden, (weight, None), batch, share)
