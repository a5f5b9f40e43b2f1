"""Losses of wide sparse targets, computed chunk by chunk together with their gradients: no target and no logit is dense at once.

The last layer of a decoder belongs to it: logits = hidden @ weight.T + bias.  For a Bernoulli target the loss is
sum softplus(logit) - sum of the logits that are 1, and its gradient sigmoid(logit) - target needs no softplus, so that the value
of the loss is computed only where it is asked for (:func:`without_values`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.kernels import products
from xmodal.kernels.rows import Rows

CHUNK = 2**20  # logits at once: 4 MB, which stay in the cache; of 256 cells 4,096 features
_wanted = True


@contextmanager
def without_values(really: bool = True) -> Iterator[None]:
    """Losses inside have the right gradient and the value nan, where that saves time."""
    global _wanted
    before, _wanted = _wanted, _wanted and not really
    try:
        yield
    finally:
        _wanted = before


def wanted() -> bool:
    """Are values of losses asked for?"""
    return _wanted


def bernoulli(hidden: Tensor, layer: tuple[Tensor, Tensor], target: Rows, share: Tensor) -> Tensor:
    """Sum over cells and features of ``share`` x binary cross-entropy, a scalar.

    ``hidden`` (cells, h); ``layer``: weight (features, h) and bias (features,); ``target`` (cells, features): above zero is 1;
    ``share`` (cells,): weight of each cell.
    """
    weight, bias = layer
    found: Tensor = _Bernoulli.apply(hidden, weight, bias, target.opened(), share)  # type: ignore[no-untyped-call]
    return found


class _Bernoulli(torch.autograd.Function):
    """Where the value is not asked for, everything is left to the way back: the gradient's factor is known there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, target: Rows, share: Tensor) -> Tensor:
        teaching = any(ctx.needs_input_grad[:3])
        ctx.later = teaching and not _wanted
        if ctx.later:
            ctx.target = target
            ctx.save_for_backward(hidden, weight, bias, share)
            return hidden.new_tensor(torch.nan)
        value, grads = _bernoulli((hidden, weight, bias), target, share, measured=True, teaching=teaching)
        ctx.save_for_backward(*grads)
        return value.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        if ctx.later:
            *inputs, share = ctx.saved_tensors
            grads = _bernoulli(inputs, ctx.target, share * scale, measured=False, teaching=True)[1]
        else:
            grads = [g.mul_(scale) for g in ctx.saved_tensors]
        return *grads, None, None


def _bernoulli(
    inputs: Sequence[Tensor], target: Rows, share: Tensor, *, measured: bool, teaching: bool
) -> tuple[Tensor, list[Tensor]]:
    """The value, where it is ``measured``, and the gradients of hidden, weight and bias (``inputs``), where one is taught."""
    hidden, weight, bias = inputs
    grads = [torch.zeros_like(hidden), torch.empty_like(weight), torch.empty_like(bias)] if teaching else []
    value = torch.zeros((), dtype=torch.float64, device=hidden.device)
    ones, shared = Windows(target), hidden * share[:, None]
    size = min(max(1, CHUNK // max(len(hidden), 1)), len(bias))
    logits = hidden.new_empty(size, len(hidden))  # a feature in a row: faster products than with a cell in a row
    for low in range(0, len(bias), size):
        some = slice(low, min(low + size, len(bias)))
        out = logits[: some.stop - low]
        torch.mm(weight[some], hidden.T, out=out)
        ones.move(some)
        if measured:
            whole = out + bias[some, None]
            value += (F.softplus(whole) @ share).double().sum() - ones.dot(whole, share)
        if teaching:
            ones.residuals(out, (bias[some], share, grads[2][some]))
            grads[0].addmm_(out.T, weight[some])
            torch.mm(out, shared, out=grads[1][some])
    if teaching:
        grads[0].mul_(share[:, None])
    return value, grads


class Windows:
    """Where ``target`` (cells, features) has entries in a range of features, beside dense (range, cells)."""

    def __init__(self, target: Rows) -> None:
        self.target = target
        self.here = target.device.type == "cpu"
        if self.here:
            self._rows = target.arrays()[:2]
            self._place = self._rows[0][:-1].copy()
            self._cells = np.empty_like(self._rows[1])  # of which few are touched
        else:
            self._cell = target.cell()

    def move(self, some: slice) -> None:
        """To the features ``some``, which begin where the last ones ended."""
        if self.here:
            from xmodal.kernels import loops

            self._found = np.empty(some.stop - some.start + 1, np.int64), self._cells
            loops.window(self._rows, (some.start, some.stop), self._place, self._found)
        else:
            inside = ((self.target.column >= some.start) & (self.target.column < some.stop)).nonzero().ravel()
            self._some = self.target.column[inside].long() - some.start, self._cell[inside]

    def dot(self, dense: Tensor, share: Tensor) -> Tensor | float:
        """Sum over cells of ``share`` (cells,) x what stands in the entries' places in ``dense`` (range, cells)."""
        if self.here:
            from xmodal.kernels import loops

            total: float = loops.gather(self._found, dense.numpy(), share.numpy())
            return total
        return (share[self._some[1]] * dense[self._some]).double().sum()

    def residuals(self, dense: Tensor, vectors: tuple[Tensor, Tensor, Tensor]) -> None:
        """``dense`` (range, cells) becomes sigmoid(``dense`` + bias), less 1 where the entries are.

        ``vectors``: bias (range,), share (cells,), and (range,), which becomes the sums of share x that.
        """
        bias, share, sums = vectors
        if self.here:
            from xmodal.kernels import loops

            arrays = dense.numpy(), (bias.numpy(), share.numpy(), sums.numpy())
            products.shared(len(dense), lambda low, high: loops.sigmoid_less(self._found, *arrays, low, high))
            return
        dense.add_(bias[:, None]).sigmoid_()
        dense[self._some] -= 1
        torch.mv(dense, share, out=sums)
