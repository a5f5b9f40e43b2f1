"""Cells from a text: a conditional variational autoencoder of counts, negative binomial, with a learned prior p(z | text).

Sohn, Lee and Yan 2015 (conditional VAE), Lopez et al. 2018 (scVI: counts as negative binomial given depth).  What is fixed
before training is not learned again: the decoder adds to the log shares of each type's counts, so that it has to learn only
how the cells of a type differ.  After training the learned prior gives way to the aggregated posterior of each type's cells
(:mod:`xmodal.models.parts.type_states`), and the mean of what is drawn of a type is set right
(:mod:`xmodal.models.parts.type_means`).

A text that is of no training type gets shares mixed from those of all (:meth:`KnownTexts.mixed`): a neural decoder alone did
worse than ridge regression there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xmodal.models.base import GradientSettings
from xmodal.models.likelihoods import log_nb
from xmodal.models.parts import type_profiles
from xmodal.models.parts.known_texts import KnownTexts, Wanted
from xmodal.models.parts.type_means import Drawn, Means
from xmodal.models.parts.type_states import TypeStates

if TYPE_CHECKING:
    import scipy.sparse as sp

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CONDITION = 16  # numbers that a text is brought to
PRIOR_HIDDEN = 64
HIDE, DROPOUT = 0.2, 0.1  # of the counts, of the hidden layer
WARM_UP = 0.3  # share of the training in which the divergence rises
FASTER = 10.0  # the log dispersion is a small number times this: at the decoder's rate it would move too slowly
DISPERSION = (0.1, (-3.0, 6.0))  # at first (of that small number), and the limits of its logarithm
STEEPEST = (-8.0, 4.0)  # of the posterior's log variance
PRIOR_VARIANCE = (-6.0, 3.0)  # of the prior's
RARE, MOST_WEIGHT = 0.5, 5.0  # cells of a type count by (mean size / size)^0.5, at most five times
SHOWN, FEWEST_PASSES = 100_000, 5  # cells shown in all, where there are many; passes over them at least
KEPT = 400  # cells of a type, from which its states are taken
AT_ONCE = 256  # cells decoded at once
DRAWN, DRAWN_IN_ALL = 400, 20_000  # cells of a type, of all types, by whose mean its shares are set right
WIDER = 1.3  # spread of the states of a type of few cells: where its middle is, is not known well either
HALF_WAY = 0.5  # whole way, and twice whole way, were no better than none on validation cells


class GeneratorSettings(GradientSettings):
    """Settings of a model that learns to generate cells as well."""

    generator_passes: int = Field(
        40,
        ge=0,
        description="Times that each training cell teaches the generator, at most once an epoch; 0: no generator.",
    )
    generator_latent: int = Field(10, ge=1, description="Dimensions in which the generated cells of one type differ.")
    generator_hidden: int = Field(128, ge=2, description="Width of the generator's hidden layers.")


class TextGenerator(nn.Module):
    """p(counts | z, text, depth) and its priors, for the types whose texts are ``known``."""

    def __init__(self, genes: int, known: KnownTexts, settings: GeneratorSettings) -> None:
        super().__init__()
        types, width = len(known.ids), known.views.shape[2]
        hidden, latent = settings.generator_hidden, settings.generator_latent
        self.known, self.latent, self.settings = known, latent, settings
        self.hide = nn.Dropout(HIDE)
        self.encoder = nn.Sequential(nn.Linear(genes + 1, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(DROPOUT))
        self.condition = nn.Linear(width, CONDITION)
        self.posterior = nn.Linear(hidden + CONDITION, 2 * latent)
        self.prior = nn.Sequential(nn.Linear(CONDITION, PRIOR_HIDDEN), nn.GELU(), nn.Linear(PRIOR_HIDDEN, 2 * latent))
        self.decoder = nn.Sequential(
            nn.Linear(latent + CONDITION, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, genes)
        )
        self.dispersion = nn.Parameter(torch.full((genes,), DISPERSION[0]))
        self.states = TypeStates(types, latent)
        self.register_buffer("views", torch.from_numpy(known.views), persistent=False)
        self.register_buffer("log_shares", torch.full((types, genes), -math.log(genes)))
        self.register_buffer("depths", torch.ones(types, type_profiles.DEPTHS))
        self.register_buffer("cells", torch.ones(types))  # trained on, of each type
        self.register_buffer("weight", torch.ones(types))
        self.register_buffer("depth", torch.tensor([1.0, 0.0, 1.0]))  # median; mean and spread of the logarithm
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))  # cells trained on so far
        self.register_buffer("planned", torch.ones((), dtype=torch.float64))
        self._kept: tuple[sp.csr_matrix, Ints] | None = None  # training cells, until finish
        self._means: Means | None = None  # of all of them, until finish

    @torch.no_grad()
    def prepare(self, counts: sp.csr_matrix, codes: Ints) -> None:
        """Statistics of the training cells: ``counts`` (cells, genes), ``codes`` (cells,) of their types, -1 for none."""
        total = np.asarray(counts.sum(1), np.float64).ravel()
        rows = np.flatnonzero((codes >= 0) & (total > 0))
        counts, codes, total = counts[rows], codes[rows], total[rows]
        types = len(self.known.ids)
        shares = type_profiles.shares(counts, codes, types)
        self._fill("log_shares", np.log(shares))
        self._fill("depths", type_profiles.depth_quantiles(total, codes, types))
        logged = np.log(total)
        self._fill("depth", np.array([np.median(total), logged.mean(), max(float(logged.std()), 1e-3)]))
        sizes = np.maximum(np.bincount(codes, minlength=types), 1)
        self._means = Means.of(counts, codes, types, float(np.median(total)))
        self._fill("cells", sizes)
        weight = np.minimum((sizes.mean() / sizes) ** RARE, MOST_WEIGHT)
        self._fill("weight", weight / weight[codes].mean())
        self.get_buffer("seen").zero_()
        self.get_buffer("planned").fill_(max(1.0, len(codes) * self._passes))
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(0.1)  # at first the type's own shares
        last.bias.zero_()
        order = np.random.default_rng(0).permutation(len(codes))
        some = np.sort(np.concatenate([order[codes[order] == t][:KEPT] for t in range(types)]))
        self._kept = counts[some], codes[some]

    def _fill(self, name: str, values: Array) -> None:
        buffer = self.get_buffer(name)
        buffer.copy_(torch.from_numpy(np.asarray(values)).to(buffer))

    @property
    def _passes(self) -> float:
        """Times that each cell is looked at in training: fewer where there are many, which teach as much."""
        cells = float(self.get_buffer("cells").sum())
        most = min(self.settings.generator_passes, self.settings.epochs)
        return min(float(most), max(SHOWN / max(cells, 1), FEWEST_PASSES))

    def running(self) -> list[Tensor]:
        """Buffers that :meth:`loss` changes."""
        return [self.get_buffer("seen")]

    # Training

    def loss(self, counts: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """Negative log likelihood and divergence, each the mean over cells and genes; none without a labelled cell.

        ``counts`` (cells, genes), ``codes`` (cells,), -1 for none.  In training, where there are more epochs than passes, only
        that share of the minibatch, which is in random order, is looked at.
        """
        codes, counts = self._taught(codes, counts)
        if not len(codes):
            return {}
        genes = counts.shape[1]
        condition = self.condition(self._texts(codes))
        mean, log_variance = self._posterior(counts, condition)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        prior_mean, prior_log = self._prior(condition)
        ratio = (log_variance - prior_log).exp() + (mean - prior_mean).square() / prior_log.exp()
        divergence = 0.5 * (prior_log - log_variance + ratio - 1).sum(1)
        log_mean = self._log_shares(z, condition, self.get_buffer("log_shares")[codes])
        log_mean = log_mean + counts.sum(1, keepdim=True).log()
        likelihood = log_nb(counts, log_mean, self.log_dispersion)
        weight = self.get_buffer("weight")[codes]
        return {
            "counts": -(weight * likelihood).mean() / genes,
            "divergence": self._warmth(len(codes)) * (weight * divergence).mean() / genes,
        }

    def _taught(self, codes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            some = math.ceil(self._passes / max(self.settings.epochs, 1) * len(codes))
            codes, counts = codes[:some], counts[:some]
        usable = (codes >= 0) & (counts.sum(1) > 0)
        return codes[usable], counts[usable]

    def _warmth(self, cells: int) -> float:
        """Weight of the divergence: rises to 1 in the first third of the training."""
        if not self.training:
            return 1.0
        seen = self.get_buffer("seen")
        done = float(seen / self.get_buffer("planned"))
        seen += cells
        return min(1.0, done / WARM_UP)

    def _texts(self, codes: Tensor) -> Tensor:
        """A text for each cell, (cells, width): in training any view of its type, else the mean of them."""
        views = self.get_buffer("views")
        if not self.training:
            return F.normalize(views.mean(0), dim=1)[codes]
        view = torch.randint(len(views), codes.shape, device=codes.device)
        return views[view, codes]

    def _posterior(self, counts: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, (cells, latent) each."""
        median, centre, spread = self.get_buffer("depth")
        total = counts.sum(1, keepdim=True).clamp(min=1)
        values = self.hide(torch.log1p(counts / total * median))
        hidden = self.encoder(torch.cat([values, (total.log() - centre) / spread], 1))
        mean, log_variance = self.posterior(torch.cat([hidden, condition], 1)).chunk(2, 1)
        return mean, log_variance.clamp(*STEEPEST)

    def _prior(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.prior(condition).chunk(2, 1)
        return mean, log_variance.clamp(*PRIOR_VARIANCE)

    def _log_shares(self, z: Tensor, condition: Tensor, base: Tensor) -> Tensor:
        """Log share of each gene in a cell's counts, (cells, genes); ``base``: those of its type."""
        return F.log_softmax(self.decoder(torch.cat([z, condition], 1)) + base, 1)

    @property
    def log_dispersion(self) -> Tensor:
        return (FASTER * self.dispersion).clamp(*DISPERSION[1])

    @torch.no_grad()
    def finish(self) -> None:
        """The aggregated posterior of each type's training cells; the learned prior, wider, where they are fewer than 20."""
        assert self._kept is not None, "prepare comes first"
        counts, codes = self._kept
        self._kept = None
        self.eval()
        device = self.dispersion.device
        mean, spread = self._encoded(counts, codes, device)
        depth = np.asarray(counts.sum(1), np.float64).ravel()
        centres = F.normalize(self.get_buffer("views").mean(0), dim=1)
        prior_mean, prior_log = (p.double().cpu().numpy() for p in self._prior(self.condition(centres)))
        for one in range(len(self.known.ids)):
            own = codes == one
            if own.sum() >= type_profiles.MIN_CELLS:
                self.states.fit(one, mean[own], spread[own], depth[own])
            else:
                self.states.set_gaussian(one, prior_mean[one], WIDER * np.exp(prior_log[one] / 2))
        self._set_right()

    def _set_right(self) -> None:
        """Move the shares of each type of 20 cells or more half way to where its drawn cells have the mean that is believed.

        What the decoder learned and what is believed err in ways of their own, so half way is nearer the type than either.
        """
        assert self._means is not None, "prepare comes first"
        means, self._means = self._means, None
        believed, log_shares = means.believed(self.known.likeness), self.get_buffer("log_shares").double().cpu().numpy()
        types = np.flatnonzero(means.many)
        cells = min(DRAWN, max(1, DRAWN_IN_ALL // max(len(types), 1)))
        for one in types:
            drawn = self._drawn(np.full(cells, one), log_shares[one], np.random.default_rng(one))
            log_shares[one] += HALF_WAY * drawn.step(believed[one], means.depth)
            log_shares[one] -= np.logaddexp.reduce(log_shares[one])
        self._fill("log_shares", log_shares)

    def _drawn(self, codes: Ints, base: Array, rng: np.random.Generator) -> Drawn:
        """Cells of the type ``codes`` (cells,), all the same, whose log shares are ``base`` (genes,)."""
        quantiles = self.get_buffer("depths").double().cpu().numpy()[codes]
        z, totals = self._states(codes, quantiles, rng, None)
        shares = self._decoded(z, self.known.centres[codes], np.tile(base, (len(codes), 1)))
        return Drawn(self._dealt(shares, totals, rng).astype(np.float64), shares * totals[:, None], totals)

    def _encoded(self, counts: sp.csr_matrix, codes: Ints, device: torch.device) -> tuple[Array, Array]:
        """Mean and spread of the posterior of each cell, (cells, latent)."""
        parts = []
        for start in range(0, len(codes), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            x = torch.from_numpy(counts[rows].toarray().astype(np.float32)).to(device)
            condition = self.condition(self._texts(torch.from_numpy(codes[rows]).to(device)))
            parts.append([p.double().cpu().numpy() for p in self._posterior(x, condition)])
        mean, log_variance = (np.concatenate(p) for p in zip(*parts, strict=True))
        return mean, np.exp(log_variance / 2)

    # Generating

    def frequencies(self, types: list[int]) -> Array:
        """Shares (types,) of those named, by how many cells of each were trained on; none of the others."""
        cells = self.get_buffer("cells").double().cpu().numpy()
        found = np.zeros(len(cells))
        found[types] = cells[types]
        out: Array = found / found.sum()
        return out

    def profiles(self) -> dict[str, tuple[Array, Array]]:
        """Of each type with 20 training cells or more: the shares of its counts (genes,), and quantiles of its depth."""
        shares = self.get_buffer("log_shares").double().exp().cpu().numpy()
        depths = self.get_buffer("depths").double().cpu().numpy()
        many = (self.get_buffer("cells") >= type_profiles.MIN_CELLS).tolist()
        return {one: (shares[i], depths[i]) for i, one in enumerate(self.known.ids) if many[i]}

    def wanted(self, text: npt.NDArray[np.float32], line: npt.NDArray[np.float32] | None = None) -> Wanted:
        """What a text asks for: the types it is near, or a mixed profile where it is near none.

        ``line`` (ids of the bank,): the ancestors of the term that it is, if it is one.
        """
        extrapolated = float(self.known.cosines(text).max()) < self.known.extrapolating
        return Wanted(text, self.known.near(text), self.known.mixed(text, line) if extrapolated else None)

    @torch.no_grad()
    def sample(self, wanted: Wanted, cells: int, rng: np.random.Generator, depth: int | None = None) -> sp.csr_matrix:
        """Counts of new cells, int32 CSR (cells, genes); each has ``depth`` counts, or as many as cells of its type.

        Noise: a gamma draw around each gene's share (negative binomial), then that many counts are dealt by the shares.
        """
        import scipy.sparse as sp

        self.eval()
        codes = rng.choice(len(wanted.shares), cells, p=wanted.shares).astype(np.int64)
        base, which, quantiles = self._profile(wanted, codes)
        z, totals = self._states(codes, quantiles, rng, depth)
        texts = np.tile(wanted.text, (cells, 1)) if wanted.extrapolated else self.known.centres[codes]
        parts = []
        for start in range(0, cells, AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            shares = self._decoded(z[rows], texts[rows], base[which[rows]])
            parts.append(sp.csr_matrix(self._dealt(shares, totals[rows], rng).astype(np.int32)))
        return sp.vstack(parts, format="csr")

    def _dealt(self, shares: Array, totals: Ints, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """``totals`` (cells,) counts, dealt by noisy ``shares``, (cells, genes)."""
        theta = self.log_dispersion.exp().double().cpu().numpy()
        noisy = shares * rng.gamma(theta, 1 / theta, shares.shape)
        noisy /= noisy.sum(1, keepdims=True)
        return rng.multinomial(totals, noisy)

    def _decoded(self, z: Array, texts: npt.NDArray[np.float32], base: Array) -> Array:
        """Expected share of each gene, (cells, genes)."""
        device = self.dispersion.device
        inputs: list[Any] = [torch.from_numpy(np.asarray(a, np.float32)).to(device) for a in (z, texts, base)]
        found: Array = self._log_shares(inputs[0], self.condition(inputs[1]), inputs[2]).exp().double().cpu().numpy()
        return found

    def _profile(self, wanted: Wanted, codes: Ints) -> tuple[Array, Ints, Array]:
        """Log shares (profiles, genes), which of them each cell has (cells,), and quantiles of the depth (cells, DEPTHS)."""
        log_shares = self.get_buffer("log_shares").double().cpu().numpy()
        depths = self.get_buffer("depths").double().cpu().numpy()
        if wanted.mixed is None:
            return log_shares, codes, depths[codes]
        mixed = np.log(type_profiles.mixed_shares(wanted.mixed, np.exp(log_shares)))
        own = type_profiles.mixed_depths(wanted.mixed, depths)
        return mixed[None], np.zeros_like(codes), np.tile(own, (len(codes), 1))

    def _states(self, codes: Ints, quantiles: Array, rng: np.random.Generator, depth: int | None) -> tuple[Array, Ints]:
        """Latent states (cells, latent) and total counts (cells,)."""
        from scipy.stats import norm

        if depth is not None:
            score = norm.ppf(type_profiles.place_of(quantiles, depth))
            return self.states.draw_given(codes, score, rng)[:, :-1], np.full(len(codes), depth, np.int64)
        drawn = self.states.draw(codes, rng)
        return drawn[:, :-1], type_profiles.depths_at(quantiles, norm.cdf(drawn[:, -1]))
