"""One training in several processes, on GPUs or hosts, started by torchrun: each takes its share of every minibatch's rows.

All processes draw the same minibatch with the same random numbers.  What is wide, a layer from or to the features of a modality,
each computes for its own rows only; what is narrow (hidden layers, batch normalisation, the latent, pairs and neighbours of
cells) all compute for all rows, from hidden rows that are gathered.  So every statistic over a minibatch, every draw and every
loss is what one process has, up to rounding; torch's DistributedDataParallel, which knows no rows of others, cannot do that.

The rules: results of own rows are :func:`gathered` before they meet those of others, and :func:`own_rows` of narrow results go
into wide layers; a loss over own rows becomes that of all by :func:`total` or :func:`mean`.  The parameters that only saw own
rows are named by :func:`owe`, and :func:`settle` adds up their gradients before the optimiser's step; those of narrow layers
are whole already.  Outside of :func:`sharing` and without torchrun all of these do nothing.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xmodal.errors import UsageRefused, XmodalError
from xmodal.starting import asked, count, here

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

log = logging.getLogger(__name__)
PATIENCE = timedelta(minutes=10)  # without a word from another process, which then is taken for lost
SMALL = 65_536  # numbers of a gradient that is sent together with others
_owed: dict[int, Tensor] = {}
_sharing = False


class Elsewhere(XmodalError):
    """Another process of this training has ended or is not to be reached."""

    exit_code = 3
    hearsay = True


def first() -> bool:
    """Is this the process that writes?"""
    return here() == 0


def take_gpu(device: str) -> None:
    """Each process of a host its own GPU, before one is looked for."""
    if not asked() or device == "cpu" or not torch.cuda.is_available():
        return
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise UsageRefused(
            f"{os.environ.get('LOCAL_WORLD_SIZE', '?')} processes on a host with {there} GPU{'s' * (there > 1)}; give torchrun "
            f"--nproc-per-node {there}, or --device cpu"
        )
    torch.cuda.set_device(local)


def begin(device: torch.device) -> None:
    """Meet the other processes; from here on only the first one speaks."""
    if not asked():
        return
    import torch.distributed as dist

    if not first():
        logging.getLogger("xmodal").setLevel(logging.ERROR)
    with _together(), _stdout_is_ours():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        dist.barrier()
    log.info("%d processes train together, each its share of every minibatch", count())


def end() -> None:
    """Part from the others, whatever became of them."""
    if asked():
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, rows of minibatches are shared among the processes, where there are several."""
    global _sharing
    before, _sharing = _sharing, _met() is not None
    try:
        yield
    finally:
        _sharing = before
        _owed.clear()


def shared() -> bool:
    """Are rows of minibatches shared here and now?"""
    return _sharing


def own(rows: int) -> slice:
    """Those of so many rows that are this process's; all where there is one."""
    if not _sharing:
        return slice(0, rows)
    return slice(*(rows * turn // count() for turn in (here(), here() + 1)))


def own_rows(x: Tensor) -> Tensor:
    """The own ones of ``x`` (rows, ...), which all processes have; the gradient is that of all rows."""
    if not _sharing:
        return x
    found: Tensor = _OwnRows.apply(x)  # type: ignore[no-untyped-call]
    return found


def gathered(x: Tensor, rows: int) -> Tensor:
    """All ``rows`` of what each process has of its own, ``x`` (own rows, ...); the gradient is that of the own ones."""
    if not _sharing:
        return x
    found: Tensor = _Gathered.apply(x, rows)  # type: ignore[no-untyped-call]
    return found


def total(x: Tensor) -> Tensor:
    """Sum over the processes of a loss over own rows, a scalar."""
    if not _sharing:
        return x
    found: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return found


def mean(x: Tensor, rows: int | Tensor) -> Tensor:
    """Mean of ``x`` (own rows, ...) over all ``rows``, of which there is one, and whatever else it has, a scalar."""
    return total(x.sum() / (rows * x.shape[1:].numel())) if _sharing else x.mean()


def owe(what: nn.Module | Iterable[Tensor]) -> None:
    """These parameters are used for own rows only in this step."""
    if _sharing and torch.is_grad_enabled():
        each = what.parameters() if isinstance(what, nn.Module) else what
        _owed.update((id(p), p) for p in each if p.requires_grad)


def settle() -> None:
    """Add up the gradients of what is owed; all processes have used the same layers in the same order."""
    if not _owed:
        return
    for parameter in _owed.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [p.grad for p in _owed.values() if p.grad is not None]
    _owed.clear()
    small = [g for g in grads if g.numel() <= SMALL]
    if small:
        flat = torch.cat([g.flatten() for g in small])
        _summed(flat)
        place = 0
        for g in small:
            g.copy_(flat[place : place + g.numel()].view(g.shape))
            place += g.numel()
    for g in (g for g in grads if g.numel() > SMALL):
        dense = (
            g.T if g.dim() == 2 and not g.is_contiguous() else g
        )  # layers that read sparse rows keep their weight feature by feature
        sent = dense if dense.is_contiguous() else g.contiguous()
        _summed(sent)
        if sent is not dense:
            g.copy_(sent)


def agree(tensors: Iterable[Tensor]) -> None:
    """Everybody takes the first process's values, so that unlike hosts do not drift apart by rounding."""
    if _met() is None:
        return
    import torch.distributed as dist

    with _together():
        for x in tensors:
            dense = x.detach() if x.is_contiguous() else x.detach().contiguous()
            dist.broadcast(dense, 0)
            if dense.data_ptr() != x.data_ptr():
                x.detach().copy_(dense)


def agreed(row: dict[str, float], device: torch.device) -> dict[str, float]:
    """The first process's numbers: decisions are made by these."""
    if _met() is None:
        return row
    values = torch.tensor(list(row.values()), dtype=torch.float64, device=device)
    agree([values])
    return dict(zip(row, values.tolist(), strict=True))


def of_first(work: Callable[[], bool], device: torch.device) -> bool:
    """What ``work`` says in the first process, which alone does it; the others wait for it."""
    if _met() is None:
        return work()
    found = torch.tensor(float(work()) if first() else 0.0, device=device)
    agree([found])
    return bool(found.item())


def _met() -> ProcessGroup | None:
    if not asked():
        return None
    import torch.distributed as dist

    return dist.group.WORLD if dist.is_initialized() else None


@contextmanager
def _together() -> Iterator[None]:
    """Another process that is gone is told as that; why it went it says itself."""
    try:
        yield
    except RuntimeError as error:  # gloo's, NCCL's and the store's are RuntimeErrors
        raise Elsewhere(
            f"another process of this training failed or is not to be reached ({str(error).splitlines()[0]}). What to do: see "
            "what it said itself; all hosts need the same torchrun options and a way to --rdzv-endpoint"
        ) from None


@contextmanager
def _stdout_is_ours() -> Iterator[None]:
    """gloo tells of its connections on stdout, where results go; inside, that is stderr."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has not yet written
        os.dup2(ours, 1)
        os.close(ours)


def _summed(x: Tensor) -> None:
    import torch.distributed as dist

    with _together():
        dist.all_reduce(x)


def _all(x: Tensor, rows: int) -> Tensor:
    """Rows of all processes, padded to one number of rows for the way."""
    import torch.distributed as dist

    ends = [rows * turn // count() for turn in range(count() + 1)]
    sizes = [b - a for a, b in pairwise(ends)]
    sent = x.new_zeros(max(sizes), *x.shape[1:])
    sent[: len(x)] = x
    found = [torch.empty_like(sent) for _ in sizes]
    with _together():
        dist.all_gather(found, sent)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])


class _OwnRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return x[own(len(x))].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _all(grads[0], ctx.rows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int) -> Tensor:
        ctx.own = own(rows)
        return _all(x, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0][ctx.own], None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = x.clone()
        _summed(found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]
