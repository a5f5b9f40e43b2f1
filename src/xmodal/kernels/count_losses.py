"""Losses of counts whose means are shares of a cell's depth: mean = depth x softmax(logits), logits = hidden @ weight.T + bias.

Computed for a few cells at a time, so that what is dense stays in the cache, together with the gradients: of m = log mean,
those of the logits are g - softmax x (sum of g), with g the loss's own by m.  Every entry pays for a count of zero; what the
counts above zero add is a loop over these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xmodal.kernels import losses
from xmodal.kernels.rows import Rows


def poisson(hidden: Tensor, layer: tuple[Tensor, Tensor], target: Rows, vectors: tuple[Tensor, Tensor]) -> Tensor:
    """Sum over cells and features of share x negative log probability of the counts ``target`` (cells, features), a scalar.

    ``hidden`` (cells, h); ``layer``: weight (features, h), bias (features,); ``vectors``: share and depth, (cells,) each.
    """
    weight, bias = layer
    found: Tensor = _Counts.apply(hidden, weight, bias, None, target, vectors)  # type: ignore[no-untyped-call]
    return found


def negative_binomial(
    hidden: Tensor, layer: tuple[Tensor, Tensor], log_theta: Tensor, target: Rows, vectors: tuple[Tensor, Tensor]
) -> Tensor:
    """The same of negative binomials with inverse overdispersions exp(``log_theta``), (features,)."""
    weight, bias = layer
    found: Tensor = _Counts.apply(hidden, weight, bias, log_theta, target, vectors)  # type: ignore[no-untyped-call]
    return found


class _Counts(torch.autograd.Function):
    """Where the value is not asked for, everything is left to the way back, as in :mod:`xmodal.kernels.losses`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        log_theta: Tensor | None,
        target: Rows,
        vectors: tuple[Tensor, Tensor],
    ) -> Tensor:
        inputs = (hidden, weight, bias) if log_theta is None else (hidden, weight, bias, log_theta)
        teaching = any(ctx.needs_input_grad[:4])
        ctx.later, ctx.kind = teaching and not losses.wanted(), losses.kind()
        ctx.theta = log_theta is not None
        if ctx.later:
            ctx.target, ctx.vectors = target, vectors
            ctx.save_for_backward(*inputs)
            return hidden.new_tensor(torch.nan)
        value, grads = _computed(inputs, target, vectors, ctx.kind, measured=True, teaching=teaching)
        ctx.save_for_backward(*grads)
        return value.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        if ctx.later:
            share, depth = ctx.vectors
            vectors = share * scale, depth
            grads = _computed(ctx.saved_tensors, ctx.target, vectors, ctx.kind, measured=False, teaching=True)[1]
        else:
            grads = [g.mul_(scale) for g in ctx.saved_tensors]
        return *grads, *([] if ctx.theta else [None]), None, None


def _computed(
    inputs: Sequence[Tensor],
    target: Rows,
    vectors: tuple[Tensor, Tensor],
    kind: torch.dtype,
    *,
    measured: bool,
    teaching: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The value, where it is ``measured``, and the gradients of ``inputs``, where one is taught.

    ``kind``: the numbers that matrices are multiplied in.
    """
    hidden, weight, bias, *theta = inputs
    share, depth = vectors
    grads = [torch.zeros_like(x) for x in inputs] if teaching else []
    value = torch.zeros((), dtype=torch.float64, device=hidden.device)
    size = max(1, min(losses.CHUNK // max(len(bias), 1), len(hidden)))
    layer = weight.to(kind)
    for low in range(0, len(hidden), size):
        some = slice(low, min(low + size, len(hidden)))
        logits = _logits(hidden[some], layer, bias)
        shares = logits.sub_(logits.logsumexp(1, keepdim=True))  # their logs
        cells = _Cells.of(target.take(some) if size < len(hidden) else target, share[some], depth[some])
        found = value if measured else None
        grad = _nb(shares, cells, found, theta[0], grads[3:]) if theta else _poisson(shares, cells, found)
        if teaching:
            grads[2].addmv_(grad.T, cells.share)
            rounded = grad.to(kind)
            losses.put_product(grads[0][some], rounded, layer)
            losses.add_product(grads[1], rounded.T, (hidden[some] * cells.share[:, None]).to(kind))
    if teaching:
        grads[0].mul_(share[:, None])
    return value, grads


def _logits(hidden: Tensor, layer: Tensor, bias: Tensor) -> Tensor:
    """Of all features, (cells, features) float32; ``layer`` in the numbers that are multiplied."""
    if layer.dtype == hidden.dtype:
        return torch.addmm(bias, hidden, layer.T)
    return (hidden.to(layer.dtype) @ layer.T).float().add_(bias)


@dataclass(frozen=True)
class _Cells:
    """A few cells: ``share`` and ``depth`` of each, and of each entry its cell, its feature, its place and its count."""

    share: Tensor
    depth: Tensor
    cell: Tensor
    feature: Tensor
    place: Tensor  # in (cells, features) laid flat
    count: Tensor

    @classmethod
    def of(cls, rows: Rows, share: Tensor, depth: Tensor) -> _Cells:
        cell, feature = rows.cell(), rows.column.long()
        return cls(share, depth, cell, feature, cell * rows.width + feature, rows.value)

    def add_to(self, dense: Tensor, values: Tensor) -> None:
        """``dense`` (cells, features) += the ``values`` of the entries."""
        dense.view(-1).index_add_(0, self.place, values)

    def total(self, values: Tensor) -> Tensor:
        """Sum of share x the ``values`` of the entries."""
        return (self.share[self.cell] * values).double().sum()


def _poisson(shares: Tensor, cells: _Cells, value: Tensor | None) -> Tensor:
    """The gradient of the ``cells``' loss by the logits, which ``shares`` becomes: their logs; the loss is added to ``value``.

    g = mean - count sums to depth - (sum of counts), so that mean itself falls out of g - softmax x (sum of g).
    """
    if value is not None:
        log_mean = shares.take(cells.place) + cells.depth.log()[cells.cell]
        value += cells.share.double() @ cells.depth.double()
        value -= cells.total(cells.count * log_mean - torch.lgamma(cells.count + 1))
    total = torch.zeros_like(cells.depth).index_add_(0, cells.cell, cells.count)
    grad = shares.exp_().mul_(total[:, None])
    cells.add_to(grad, -cells.count)
    return grad


def _nb(shares: Tensor, cells: _Cells, value: Tensor | None, log_theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """The same of negative binomials; the gradient by ``log_theta`` is added to the first of ``grads``, if there is one.

    With r = mean / theta and q = r / (1 + r): -log p(0) = theta log(1 + r), and a count x adds x (log(1 + r) - log r) and what
    has the gamma functions.
    """
    x, theta = cells.count, log_theta.exp()
    own_theta = theta[cells.feature]
    log_r = shares.add_(cells.depth.log()[:, None]).sub_(log_theta)
    at_entries = log_r.take(cells.place)
    r = log_r.exp_()
    zero = r.log1p()
    if value is not None:
        gammas = torch.lgamma(x + own_theta) - torch.lgamma(theta)[cells.feature] - torch.lgamma(x + 1)
        value += cells.share.double() @ (zero @ theta).double()
        value -= cells.total(gammas + x * (at_entries - zero.take(cells.place)))
    q = r + 1
    torch.div(r, q, out=q)
    less = x * (1 - q.take(cells.place))
    if grads:
        slope = torch.digamma(x + own_theta) - torch.digamma(theta)[cells.feature]
        grads[0].addcmul_(cells.share @ zero.sub_(q), theta)
        grads[0].index_add_(0, cells.feature, cells.share[cells.cell] * (less - own_theta * slope))
    grad = q.mul_(theta)
    cells.add_to(grad, -less)
    r.mul_(theta).mul_((grad.sum(1) / cells.depth)[:, None])
    return grad.sub_(r)
