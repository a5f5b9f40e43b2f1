"""Products of sparse rows with a matrix: what a first layer is, and its gradient, at the cost of the entries alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.kernels.rows import Rows


def times(rows: Rows, weight: Tensor) -> Tensor:
    """``rows`` (cells, features) @ ``weight`` (features, hidden) -> (cells, hidden); the gradient is that of ``weight``.

    Torch's weighted bag, whose gradient takes three times as long on a CPU as a loop of numba, which takes its place there.
    """
    if rows.device.type != "cpu" or weight.dtype != torch.float32:
        first, column = rows.first[:-1], rows.column.long()
        return F.embedding_bag(column, weight, first, mode="sum", per_sample_weights=rows.value.to(weight.dtype))
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return _bag(weight, rows)  # without numba, which takes 100 MB
    found: Tensor = _Times.apply(weight, rows)  # type: ignore[no-untyped-call]
    return found


def _bag(weight: Tensor, rows: Rows) -> Tensor:
    first = rows.first[:-1].int()
    return F.embedding_bag(rows.column, weight.contiguous(), first, mode="sum", per_sample_weights=rows.value)


def times_rows(rows: Rows, other: Rows) -> Tensor:
    """``rows`` (cells, features) @ ``other`` (features, n), both sparse and without a gradient -> dense (cells, n)."""
    if rows.device.type != "cpu":
        found: Tensor = torch.sparse.mm(_coo(other).T, rows.dense().T).T
        return found
    from xmodal.kernels import loops

    out = torch.zeros(len(rows), other.width)
    pair = rows.arrays(), other.arrays()
    shared(len(rows), lambda begin, end: loops.times_rows(*pair, out.numpy(), begin, end))
    return out


def _coo(rows: Rows) -> Tensor:
    index = torch.stack([rows.cell(), rows.column.long()])
    return torch.sparse_coo_tensor(index, rows.value, (len(rows), rows.width))


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Rows) -> Tensor:
        ctx.rows, ctx.shape = rows, weight.shape
        return _bag(weight.detach(), rows)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        from xmodal.kernels import loops

        out, grad, rows = outputs[0].new_zeros(ctx.shape), outputs[0].contiguous().numpy(), ctx.rows.arrays()
        shared(len(out), lambda low, high: loops.transposed_times_dense(rows, grad, out.numpy(), low, high))
        return out, None


def shared(size: int, work: Callable[[int, int], None]) -> None:
    """``work(begin, end)`` on parts of ``size`` items, by as many threads as torch may use."""
    parts = min(torch.get_num_threads(), size)
    if parts <= 1:
        work(0, size)
        return
    edges = [size * i // parts for i in range(parts + 1)]
    for done in [_pool(parts).submit(work, *edge) for edge in pairwise(edges)]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="xmodal-rows")
