"""How the cells of one type differ: mixtures of Gaussians over their latent states and depth, one for each type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from xmodal.models.parts.type_profiles import MIN_CELLS

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MOST_PARTS = 5
CELLS_OF_PART = 50  # of so many cells at least, on average: a covariance of eleven numbers needs them
DRAWS = 200  # of the posteriors of few cells, so that the mixture sees their spread
REGULAR = 1e-2  # added to variances; the prior has 1


class TypeStates(nn.Module):
    """For each type up to five Gaussians over (latent..., normal score of the depth), width = latent + 1.

    The aggregated posterior of the training cells (Tomczak and Welling 2018 take it as the prior), fitted after training: a
    learned Gaussian prior leaves holes, from which cells of no type come.
    """

    def __init__(self, types: int, latent: int) -> None:
        super().__init__()
        self.width = latent + 1
        self.register_buffer("share", torch.zeros(types, MOST_PARTS))
        self.register_buffer("mean", torch.zeros(types, MOST_PARTS, self.width))
        self.register_buffer("factor", torch.zeros(types, MOST_PARTS, self.width, self.width))  # Cholesky, lower

    def set_gaussian(self, one: int, mean: Array, spread: Array) -> None:
        """One Gaussian for type ``one``, from the learned prior: ``mean`` and ``spread`` (latent,); depth is independent."""
        means = np.concatenate([mean, [0.0]])
        self._set(one, np.ones(1), means[None], np.diag(np.concatenate([spread, [1.0]]))[None])

    def fit(self, one: int, mean: Array, spread: Array, depth: Array) -> None:
        """The mixture of type ``one`` from its cells: posteriors ``mean`` and ``spread`` (cells, latent), ``depth`` (cells,)."""
        rng = np.random.default_rng(one)
        times = max(1, -(-DRAWS // len(mean)))
        score = normal_scores(depth)[:, None]
        points = np.concatenate(
            [np.hstack([mean + spread * rng.standard_normal(mean.shape), score]) for _ in range(times)]
        )
        for parts in range(max(1, min(MOST_PARTS, len(mean) // CELLS_OF_PART)), 0, -1):
            found = _mixture(points, parts)
            if parts == 1 or found.weights_.min() * len(mean) >= MIN_CELLS:
                self._set(one, found.weights_, found.means_, np.linalg.cholesky(found.covariances_))
                return

    def _set(self, one: int, share: Array, mean: Array, factor: Array) -> None:
        for name, values in (("share", share), ("mean", mean), ("factor", factor)):
            buffer = self.get_buffer(name)
            buffer[one].zero_()
            buffer[one, : len(values)] = torch.from_numpy(np.asarray(values)).to(buffer)

    def draw(self, types: Ints, rng: np.random.Generator) -> Array:
        """A draw for each of ``types`` (cells,), (cells, width)."""
        return self._at(types, self._parts(types, rng), rng)

    def draw_given(self, types: Ints, score: Array, rng: np.random.Generator) -> Array:
        """The same where the ``score`` of the depth is given, (cells,): parts by their density there, then Matheron's rule."""
        mean, factor = self._numbers("mean")[types], self._numbers("factor")[types]
        covariance = factor @ np.swapaxes(factor, 2, 3)  # (cells, parts, width, width)
        variance = np.maximum(covariance[:, :, -1, -1], 1e-9)
        log = -0.5 * np.square(score[:, None] - mean[:, :, -1]) / variance - 0.5 * np.log(variance)
        part = self._parts(types, rng, np.exp(log - log.max(1, keepdims=True)))
        found = self._at(types, part, rng)
        row = np.arange(len(types))
        slope = covariance[row, part, :, -1] / variance[row, part][:, None]
        out: Array = found + slope * (score - found[:, -1])[:, None]
        return out

    def _parts(self, types: Ints, rng: np.random.Generator, density: Array | None = None) -> Ints:
        share = self._numbers("share")[types] * (1 if density is None else density)
        upto = np.cumsum(share, 1)
        found: Ints = (upto <= rng.random((len(types), 1)) * upto[:, -1:]).sum(1)
        return found

    def _at(self, types: Ints, part: Ints, rng: np.random.Generator) -> Array:
        noise = rng.standard_normal((len(types), self.width, 1))
        found: Array = self._numbers("mean")[types, part] + (self._numbers("factor")[types, part] @ noise)[:, :, 0]
        return found

    def _numbers(self, name: str) -> Array:
        found: Array = self.get_buffer(name).double().cpu().numpy()
        return found


def _mixture(points: Array, parts: int) -> GaussianMixture:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(parts, reg_covar=REGULAR, random_state=0).fit(points)


def normal_scores(values: Array) -> Array:
    """The standard normal quantile of each value's rank, (values,); equal values share their rank's."""
    from scipy.stats import norm, rankdata

    found: Array = norm.ppf((rankdata(values) - 0.5) / len(values))
    return found
