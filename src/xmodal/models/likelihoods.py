"""Output heads: what a decoder's numbers mean for each likelihood, and what is lost when they are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal import fields, ranks
from xmodal.data.transforms import CP
from xmodal.kernels import count_losses, losses
from xmodal.models.layers import drawn
from xmodal.models.mean import column_means

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Modality


POINTS, LOWEST = 256, -18.5  # grid of log shares: one count in 100 million and up
MANY = 100  # means above are expanded


class ExpectedLog(nn.Module):
    """Expected log1p(1e4 x / depth) of a Poisson count, as a curve over the log of its expected share of the counts.

    The log of an expectation is not the expectation of the log: with 245 counts in a cell one count is 41 per 10k, and a
    gene's mean log1p CP10k is nearly proportional to its share, while log1p(1e4 x share) has long bent over.  The curve is the
    mean over depths of the training cells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("curve", torch.zeros(POINTS))

    def prepare(self, depths: npt.NDArray[np.float32]) -> None:
        """``depths``: total counts of the training cells, (cells,)."""
        depths = depths[depths > 0]
        if not len(depths):
            return
        shares = np.exp(np.linspace(LOWEST, 0.0, POINTS))
        each = [expected_log(shares, depth) for depth in np.quantile(depths, np.linspace(0.05, 0.95, 10))]
        self.get_buffer("curve").copy_(torch.from_numpy(np.mean(each, 0).astype(np.float32)))

    def forward(self, log_share: Tensor) -> Tensor:
        """Linear interpolation on the grid, any shape."""
        curve = self.get_buffer("curve")
        place = (log_share.clamp(LOWEST, 0.0) - LOWEST) * ((POINTS - 1) / -LOWEST)
        left = place.floor().clamp(max=POINTS - 2)
        low, high = curve[left.long()], curve[left.long() + 1]
        return low + (place - left) * (high - low)


def expected_log(shares: npt.NDArray[np.float64], depth: float) -> npt.NDArray[np.float64]:
    """Mean of log1p(1e4 X / depth) with X ~ Poisson(depth x share), for each share.

    Summed up to where the Poisson ends; for large means, where the sum would be long, by the second-order expansion.
    """
    from scipy.stats import poisson

    mean, scale = depth * shares, CP / depth
    counts = np.arange(4 * MANY)
    small = mean <= MANY
    exact = poisson.pmf(counts, mean[small][:, None]) @ np.log1p(scale * counts)
    out = np.log1p(scale * mean) - 0.5 * mean * (scale / (1 + scale * mean)) ** 2
    out[small] = exact
    return out


def log_nb(x: Tensor, log_mean: Tensor, log_theta: Tensor, dropout_logit: Tensor | None = None) -> Tensor:
    """Log probability of the counts ``x`` of each cell, summed over features, (cells,); zero-inflated by ``dropout_logit``.

    ``log_mean`` (cells, features); ``log_theta`` and ``dropout_logit`` (features,).  Every entry has log p(0) = theta
    (log theta - log(theta + mean)); only the few counts above zero need the gamma functions, which are most of the cost.
    """
    log_sum = torch.logaddexp(log_theta.expand_as(log_mean), log_mean)
    zero = log_theta.exp() * (log_theta - log_sum)  # log p(0) of the negative binomial
    cell, feature = x.nonzero(as_tuple=True)
    some, theta = x[cell, feature], log_theta.exp()[feature]
    above = torch.lgamma(some + theta) - torch.lgamma(theta) - torch.lgamma(some + 1)
    above = above + some * (log_mean - log_sum)[cell, feature]
    if dropout_logit is not None:
        dropped, kept = F.logsigmoid(dropout_logit), F.logsigmoid(-dropout_logit)
        mixed = torch.logaddexp(dropped.expand_as(zero), kept + zero)
        above = above + (kept + zero - mixed)[cell, feature]
        zero = mixed
    return zero.sum(1).index_add(0, cell, above)


class Head(nn.Module):
    """Turns decoder outputs (cells, features) into a loss for each cell and an expectation on the modality's scale.

    ``nb``/``zinb``: outputs are logits of the expected share of counts, biased by the training share; ``bernoulli``: logits
    of an open peak, biased by prevalence; ``gaussian``: deviations from the training mean in training spreads.
    """

    def __init__(self, modality: Modality, counts: str = fields.NB) -> None:
        super().__init__()
        self.modality, self.counts = modality, counts
        self.register_buffer("mean", torch.zeros(len(modality)))
        self.register_buffer("spread", torch.ones(len(modality)))
        self.bias = nn.Parameter(torch.zeros(len(modality)))
        if modality.likelihood == fields.NB:
            self.curve = ExpectedLog()
            self.log_dispersion = nn.Parameter(torch.zeros(len(modality)))
            if counts == fields.ZINB:
                self.dropout_logit = nn.Parameter(torch.full((len(modality),), -2.0))

    @torch.no_grad()
    def prepare(self, cells: Cells) -> None:
        m = self.modality.name
        measured = cells.having(m)
        mean = column_means(cells, m)
        self.get_buffer("mean").copy_(mean)
        if self.modality.likelihood == fields.NB:
            self.curve.prepare(measured.depth[m])
            total = torch.from_numpy(measured.counts[m].sum(0)).float().ravel()
            self.bias.copy_(torch.log((total + 0.5) / (total.sum() + 0.5 * len(total))))
        elif self.modality.likelihood == fields.BERNOULLI:
            self.bias.copy_(torch.logit(((mean * len(measured)) + 0.5) / (len(measured) + 1)))
        else:
            values = torch.from_numpy(measured.values(m, drawn(len(measured), len(self.modality))))
            self.get_buffer("spread").copy_(values.std(0, correction=0).clamp(min=1e-3))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean negative log likelihood over the features of each cell, (cells,)."""
        m = self.modality.name
        if self.modality.likelihood == fields.BERNOULLI:
            return F.binary_cross_entropy_with_logits(outputs + self.bias, batch.values[m], reduction="none").mean(1)
        if self.modality.likelihood == fields.GAUSSIAN:
            standard = (batch.values[m] - self.get_buffer("mean")) / self.get_buffer("spread")
            return 0.5 * (outputs + self.bias - standard).square().mean(1)
        counts = batch.counts[m]
        log_mean = F.log_softmax(outputs + self.bias, 1) + torch.log(counts.sum(1, keepdim=True).clamp(min=1))
        return -self._log_nb(counts, log_mean)

    def total(self, hidden: Tensor, layer: tuple[Tensor, Tensor | None], batch: Batch, share: Tensor) -> Tensor:
        """Sum of ``share`` (cells,) x :meth:`loss`, a scalar; outputs are ``hidden`` (cells, h) through ``layer``.

        ``layer``: weight (features, h) and bias (features,) or None.  Peaks and counts are compared chunk by chunk, so that
        neither they nor the outputs are dense at once.  Who gives ``layer`` says that it is owed (:mod:`xmodal.ranks`).
        """
        ranks.owe(self)
        hidden, batch, share = ranks.own_rows(hidden), batch.own, share[ranks.own(len(share))]
        return ranks.total(self._total(hidden, layer, batch, share))

    def _total(self, hidden: Tensor, layer: tuple[Tensor, Tensor | None], batch: Batch, share: Tensor) -> Tensor:
        kind, rows = self.modality.likelihood, batch.sparse[self.modality.name]
        weight, bias = layer
        if kind == fields.GAUSSIAN or (kind == fields.NB and self.counts == fields.ZINB):
            return share @ self.loss(F.linear(hidden, weight, bias), batch)
        last = weight, self.bias if bias is None else bias + self.bias
        each = share / len(self.modality)
        if kind == fields.BERNOULLI:
            return losses.bernoulli(hidden, last, rows, each)
        depth = rows.sums().clamp(min=1)
        return count_losses.negative_binomial(hidden, last, self.log_dispersion.clamp(-6, 6), rows, (each, depth))

    def _log_nb(self, x: Tensor, log_mean: Tensor) -> Tensor:
        """Mean log probability of the counts of each cell, (cells,)."""
        dropout = self.dropout_logit if self.counts == fields.ZINB else None
        return log_nb(x, log_mean, self.log_dispersion.clamp(-6, 6), dropout) / x.shape[1]

    def expected(self, outputs: Tensor, plain: bool = False) -> Tensor:
        """Expectation of log1p CP10k (``plain``: log1p of the expectation), probability, or value; (cells, features)."""
        if self.modality.likelihood == fields.BERNOULLI:
            return torch.sigmoid(outputs + self.bias)
        if self.modality.likelihood == fields.GAUSSIAN:
            return self.get_buffer("mean") + self.get_buffer("spread") * (outputs + self.bias)
        log_share = F.log_softmax(outputs + self.bias, 1)
        return torch.log1p(CP * log_share.exp()) if plain else self.curve(log_share)
