"""Losses of wide sparse targets, computed chunk by chunk together with their gradients: no target and no logit is dense at once.

The last layer of a decoder belongs to it: logits = hidden @ weight.T + bias.  For a Bernoulli target the loss is
sum softplus(logit) - sum of the logits that are 1, and its gradient sigmoid(logit) - target needs no softplus, so that the value
of the loss is computed only where it is asked for (:func:`without_values`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.kernels.rows import Rows

CHUNK = 4096  # features at once: with 256 cells 4 MB of logits, which stay in the cache
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


def bernoulli(hidden: Tensor, layer: tuple[Tensor, Tensor], target: Rows, share: Tensor) -> Tensor:
    """Sum over cells and features of ``share`` x binary cross-entropy, a scalar.

    ``hidden`` (cells, h); ``layer``: weight (features, h) and bias (features,); ``target`` (cells, features): above zero is 1;
    ``share`` (cells,): weight of each cell.
    """
    weight, bias = layer
    found: Tensor = _Bernoulli.apply(hidden, weight, bias, target.positive(), share)  # type: ignore[no-untyped-call]
    return found


class _Bernoulli(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, target: Rows, share: Tensor) -> Tensor:
        teaching = any(ctx.needs_input_grad[:3])
        grads = [torch.zeros_like(hidden), torch.empty_like(weight), torch.empty_like(bias)] if teaching else []
        value = torch.zeros((), dtype=torch.float64, device=hidden.device)
        measured = _wanted or not teaching
        ones = Windows(target)
        shared = hidden * share[:, None]  # once here, not in every chunk of logits
        size = min(CHUNK, len(bias))
        logits = hidden.new_empty(len(hidden), size)
        for low in range(0, len(bias), size):
            some = slice(low, min(low + size, len(bias)))
            out = logits if some.stop - low == size else logits.new_empty(len(hidden), some.stop - low)
            torch.addmm(bias[some], hidden, weight[some].T, out=out)
            ones.move(some)
            if measured:
                value += F.softplus(out).double().sum(1) @ share.double() - ones.dot(out, share)
            if teaching:
                ones.subtract_from(out.sigmoid_())
                grads[0].addmm_(out, weight[some])
                torch.mm(out.T, shared, out=grads[1][some])
                torch.mv(out.T, share, out=grads[2][some])
        if teaching:
            grads[0].mul_(share[:, None])
        ctx.save_for_backward(*grads)
        return (value if measured else value + torch.nan).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        hidden, weight, bias = (g.mul_(scale) for g in ctx.saved_tensors)
        return hidden, weight, bias, None, None


class Windows:
    """The entries of ``target`` (cells, features) that lie in a range of features."""

    def __init__(self, target: Rows) -> None:
        self.target, self.low = target, 0
        self.here = target.device.type == "cpu"
        if self.here:
            self._arrays = target.arrays()
            self._ends = np.zeros(len(target), np.int64), np.zeros(len(target), np.int64)
        else:
            self._cell = target.cell()

    def move(self, some: slice) -> None:
        """To the features ``some``."""
        self.low = some.start
        if self.here:
            from xmodal.kernels import loops

            loops.window(self._arrays[:2], (some.start, some.stop), self._ends)
        else:
            inside = ((self.target.column >= some.start) & (self.target.column < some.stop)).nonzero().ravel()
            self._some = self._cell[inside], self.target.column[inside].long() - some.start, self.target.value[inside]

    def dot(self, dense: Tensor, share: Tensor) -> Tensor | float:
        """Sum over cells of ``share`` (cells,) x the entries x what stands in their places in ``dense`` (cells, range)."""
        if self.here:
            from xmodal.kernels import loops

            total: float = loops.gather(self._arrays[1:], self._ends, self.low, dense.numpy(), share.numpy())
            return total
        cell, column, value = self._some
        return (share[cell] * value * dense[cell, column]).double().sum()

    def subtract_from(self, dense: Tensor) -> None:
        """``dense`` (cells, range) -= the entries."""
        if self.here:
            from xmodal.kernels import loops

            loops.subtract(self._arrays[1:], self._ends, self.low, dense.numpy())
        else:
            cell, column, value = self._some
            dense.index_put_((cell, column), -value, accumulate=True)
