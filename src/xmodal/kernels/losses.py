"""Losses of wide sparse targets, computed chunk by chunk together with their gradients: no target and no logit is dense at once.

The last layer of a decoder belongs to it: logits = hidden @ weight.T + bias.  For a Bernoulli target the loss is
sum softplus(logit) - sum of the logits that are 1, and its gradient sigmoid(logit) - target needs no softplus, so that the value
of the loss is computed only where it is asked for (:func:`without_values`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal import precision
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
        ctx.later, ctx.kind = teaching and not _wanted, kind()
        if ctx.later:
            ctx.target = target
            ctx.save_for_backward(hidden, weight, bias, share)
            return hidden.new_tensor(torch.nan)
        inputs = _Inputs(hidden, weight, bias, ctx.kind)
        value, grads = _bernoulli(inputs, target, share, measured=True, teaching=teaching)
        ctx.save_for_backward(*grads)
        return value.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        if ctx.later:
            hidden, weight, bias, share = ctx.saved_tensors
            inputs = _Inputs(hidden, weight, bias, ctx.kind)
            grads = _bernoulli(inputs, ctx.target, share * scale, measured=False, teaching=True)[1]
        else:
            grads = [g.mul_(scale) for g in ctx.saved_tensors]
        return *grads, None, None


def kind() -> torch.dtype:
    """In which numbers matrices are multiplied, here and now."""
    return torch.bfloat16 if precision.lowered() else torch.float32


class _Inputs(NamedTuple):
    """A last layer and what it reads.  ``kind``: the numbers that these are multiplied in."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    kind: torch.dtype


def _bernoulli(
    inputs: _Inputs, target: Rows, share: Tensor, *, measured: bool, teaching: bool
) -> tuple[Tensor, list[Tensor]]:
    """The value, where it is ``measured``, and the gradients of hidden, weight and bias (``inputs``), where one is taught."""
    hidden, weight, bias, kind = inputs
    grads = [torch.zeros_like(hidden), torch.empty_like(weight), torch.empty_like(bias)] if teaching else []
    value = torch.zeros((), dtype=torch.float64, device=hidden.device)
    ones, shared, read = Windows(target), (hidden * share[:, None]).to(kind), hidden.to(kind)
    size = min(max(1, CHUNK // max(len(hidden), 1)), len(bias))
    logits = hidden.new_empty(size, len(hidden))  # a feature in a row: faster products than with a cell in a row
    low_logits = logits if kind == logits.dtype else torch.empty_like(logits, dtype=kind)
    for low in range(0, len(bias), size):
        some = slice(low, min(low + size, len(bias)))
        out, low_out, layer = logits[: some.stop - low], low_logits[: some.stop - low], weight[some].to(kind)
        torch.mm(layer, read.T, out=low_out)
        into(out, low_out)
        ones.move(some)
        if measured:
            whole = out + bias[some, None]
            value += (F.softplus(whole) @ share).double().sum() - ones.dot(whole, share)
        if teaching:
            ones.residuals(out, (bias[some], share, grads[2][some]))
            into(low_out, out)
            add_product(grads[0], low_out.T, layer)
            put_product(grads[1][some], low_out, shared)
    if teaching:
        grads[0].mul_(share[:, None])
    return value, grads


def into(to: Tensor, values: Tensor) -> None:
    """``to`` becomes ``values`` in its own numbers; nothing is done where they are one tensor."""
    if to.dtype != values.dtype:
        to.copy_(values)


def add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """``to`` += ``a`` @ ``b``, which may be in lower numbers."""
    if a.dtype == to.dtype:
        to.addmm_(a, b)
    else:
        to.add_(a @ b)


def put_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """``to`` becomes ``a`` @ ``b``, which may be in lower numbers."""
    if a.dtype == to.dtype:
        torch.mm(a, b, out=to)
    else:
        to.copy_(a @ b)


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
