"""pydeseq2's fits for all features at once: the same equations (Love, Huber and Anders 2014), some ten times faster.

pydeseq2 starts an optimiser for each feature, 8 ms of one core: half an hour for 15 groups of 15,000 features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydeseq2.default_inference import DefaultInference
from scipy.special import gammaln
from scipy.stats import norm

Float = npt.NDArray[np.float64]
RIDGE, LARGEST, ROUNDS = 1e-6, 30.0, 250  # as pydeseq2 has them
GRID = 16  # dispersions to start from, evenly on a log scale between the bounds
GOLDEN = (5**0.5 - 1) / 2
NARROWINGS = 24  # of the interval between two points of the grid: to 1e-5 of a log dispersion
FEATURES = 4_000  # at once: 100 MB with 20 pseudobulks and 11 coefficients


class Together(DefaultInference):
    """All features in one go; those whose fit runs away are left to pydeseq2, one by one."""

    def lin_reg_mu(self, counts: Any, size_factors: Any, design_matrix: Any, min_mu: float) -> Float:
        """Means (pseudobulks, features) of a linear model of the scaled counts."""
        fitted = design_matrix @ np.linalg.lstsq(design_matrix, counts / size_factors[:, None], rcond=None)[0]
        return np.maximum(size_factors[:, None] * fitted, min_mu)

    def irls(
        self,
        counts: Any,
        size_factors: Any,
        design_matrix: Any,
        disp: Any,
        min_mu: float,
        beta_tol: float,
        **rest: Any,
    ) -> tuple[Float, Float, Float, npt.NDArray[np.bool_]]:
        """Coefficients (features, design), means and leverages (pseudobulks, features), and whether it converged."""
        x = np.asarray(design_matrix, np.float64)
        size, disp = np.asarray(size_factors, np.float64), np.asarray(disp, np.float64)
        y = np.asarray(counts, np.float64).T  # (features, pseudobulks)
        beta, astray = np.empty((len(y), x.shape[1])), np.zeros(len(y), bool)
        for at in _pieces(len(y)):
            beta[at], astray[at] = _reweighted(y[at], size, x, disp[at], min_mu, beta_tol)
        mean = size * np.exp(beta @ x.T)
        leverage = np.empty_like(mean)
        for at in _pieces(len(y)):
            weights = _weights(np.maximum(mean[at], min_mu), disp[at])
            leverage[at] = weights * np.einsum("ij,gjk,ik->gi", x, np.linalg.inv(_gram(weights, x, RIDGE)), x)
        converged = np.ones(len(y), bool)
        if astray.any():
            own = super().irls(counts[:, astray], size_factors, x, disp[astray], min_mu, beta_tol, **rest)
            beta[astray], mean[astray], leverage[astray] = own[0], own[1].T, own[2].T
            converged[astray] = own[3]
        return beta, mean.T, leverage.T, converged

    def alpha_mle(
        self,
        counts: Any,
        design_matrix: Any,
        mu: Any,
        alpha_hat: Any,
        min_disp: float,
        max_disp: float,
        prior_disp_var: float | None = None,
        cr_reg: bool = True,
        prior_reg: bool = False,
        **_: Any,
    ) -> tuple[Float, npt.NDArray[np.bool_]]:
        """Dispersions (features,): the best of a grid, then a golden-section search around it."""
        x = np.asarray(design_matrix, np.float64)
        y, mean, centre = np.asarray(counts, np.float64).T, np.asarray(mu, np.float64).T, np.log(alpha_hat)
        bounds = float(np.log(min_disp)), float(np.log(max_disp))
        found = np.empty(len(y))
        for at in _pieces(len(y)):

            def loss(log_alpha: Float, at: slice = at) -> Float:
                value = _unlikely(y[at], mean[at], np.exp(log_alpha))
                if cr_reg:
                    weights = _weights(mean[at], np.exp(log_alpha))
                    value += 0.5 * np.linalg.slogdet(_gram(weights, x, 0.0))[1]
                if prior_reg and prior_disp_var:
                    value += (log_alpha - centre[at]) ** 2 / (2 * prior_disp_var)
                return value

            found[at] = _least(loss, len(y[at]), bounds)
        return np.exp(found), np.ones(len(y), bool)

    def wald_test(
        self, design_matrix: Any, disp: Any, lfc: Any, mu: Any, ridge_factor: Any, contrast: Any, *_: Any, **__: Any
    ) -> tuple[Float, Float, Float]:
        """Two-sided p-values, statistics and standard errors (features,) of no difference."""
        x, disp = np.asarray(design_matrix, np.float64), np.asarray(disp, np.float64)
        weights = _weights(np.asarray(mu, np.float64).T, disp)
        error = np.full(len(disp), np.nan)
        for at in _pieces(len(disp)):
            gram = _gram(weights[at], x, 0.0)
            known = np.isfinite(gram).all((1, 2))
            turned = np.linalg.solve(
                gram[known] + ridge_factor, np.broadcast_to(contrast, (known.sum(), len(contrast)))[..., None]
            )
            error[at][known] = np.sqrt(np.einsum("gi,gij,gj->g", turned[..., 0], gram[known], turned[..., 0]))
        statistic = np.asarray(lfc) @ contrast / error
        return 2 * norm.sf(np.abs(statistic)), statistic, error


def _pieces(features: int) -> list[slice]:
    return [slice(first, min(first + FEATURES, features)) for first in range(0, features, FEATURES)]


def _weights(mean: Float, disp: Float) -> Float:
    return mean / (1 + mean * disp[:, None])


def _gram(weights: Float, x: Float, ridge: float) -> Float:
    """X' W X of every feature, (features, design, design)."""
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    result = (weights @ products).reshape(len(weights), x.shape[1], x.shape[1])
    return result + ridge * np.eye(x.shape[1])


def _unlikely(y: Float, mean: Float, alpha: Float) -> Float:
    """Negative log likelihood of a negative binomial, but for what does not depend on mean or dispersion; (features,)."""
    inverse = (1 / alpha)[:, None]
    each = gammaln(inverse) - gammaln(y + inverse) + (y + inverse) * np.log(inverse + mean) - y * np.log(mean)
    return each.sum(1) - y.shape[1] * inverse[:, 0] * np.log(inverse[:, 0])


def _reweighted(
    y: Float, size: Float, x: Float, disp: Float, min_mu: float, tolerance: float
) -> tuple[Float, npt.NDArray[np.bool_]]:
    """Iteratively reweighted least squares: coefficients (features, design), and for which they run away."""
    beta: Float = np.linalg.lstsq(x, np.log(y / size + 0.1).T, rcond=None)[0].T.astype(np.float64)
    mean = np.maximum(size * np.exp(beta @ x.T), min_mu)
    before, astray = np.full(len(y), 1000.0), np.zeros(len(y), np.bool_)
    left = np.arange(len(y))
    for _ in range(ROUNDS):
        m = mean[left]
        weights = _weights(m, disp[left])
        working = np.log(m / size) + (y[left] - m) / m
        new = np.linalg.solve(_gram(weights, x, RIDGE), ((weights * working) @ x)[..., None])[..., 0]
        away = (np.abs(new) > LARGEST).any(1)
        astray[left[away]] = True
        left, new = left[~away], new[~away]
        beta[left] = new
        mean[left] = np.maximum(size * np.exp(new @ x.T), min_mu)
        deviance = -2 * _unlikely(y[left], mean[left], disp[left])
        moved = np.abs(deviance - before[left]) / (np.abs(deviance) + 0.1)
        before[left] = deviance
        left = left[moved > tolerance]
        if not len(left):
            break
    astray[left] = True
    return beta, astray


def _least(loss: Callable[[Float], Float], features: int, bounds: tuple[float, float]) -> Float:
    """Where ``loss`` of each feature is least between ``bounds``, (features,)."""
    grid = np.linspace(*bounds, GRID)
    best = np.argmin([loss(np.full(features, point)) for point in grid], axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)]
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    losses = [loss(point) for point in inner]
    for _ in range(NARROWINGS):
        left = losses[0] < losses[1]
        low, high = np.where(left, low, inner[0]), np.where(left, inner[1], high)
        fresh = np.where(left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        value = loss(fresh)
        inner = [np.where(left, fresh, inner[1]), np.where(left, inner[0], fresh)]
        losses = [np.where(left, value, losses[1]), np.where(left, losses[0], value)]
    return (low + high) / 2
