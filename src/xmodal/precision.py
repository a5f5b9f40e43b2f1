"""In which numbers training multiplies matrices: float32, or bfloat16 with sums in float32.

What bfloat16 changes are products with large weights alone (:func:`linear`, and those in :mod:`xmodal.kernels`): their operands
and results are rounded to 8 bits.  Weights, what a sparse first layer reads, normalisation, contrasts, losses, gradients and
the optimizer stay float32; so does all that is not a training step: the validation loss, calibration, and what is predicted,
so that shards agree and a checkpoint means the same everywhere.

Not torch.autocast: what follows a layer (exponentials, variances, distances) would be bfloat16 too, and our kernels with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xmodal import ranks
from xmodal.fields import BF16, FP32, PRECISION_AUTO

log = logging.getLogger(__name__)
FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # of Linux: Intel and AMD; ARM
AMPERE = 8  # major compute capability of the first GPUs that multiply bfloat16
LARGE = 2**14  # numbers in a weight; products with smaller ones cost less than to round what they multiply
_chosen, _lowered = FP32, False


def resolved(asked: str, device: torch.device) -> str:
    """``fp32`` or ``bf16`` for ``auto`` and these two; bfloat16 that the device only imitates is warned of.

    ``auto`` is fp32 on every CPU: else equal commands would give other weights on another processor.
    """
    if asked == PRECISION_AUTO:
        return BF16 if device.type == "cuda" and native(device) else FP32
    if asked == BF16 and not native(device):
        log.warning(
            "--precision bf16: this %s has no bfloat16 of its own, so it will be slower than fp32, with the same result",
            "GPU" if device.type == "cuda" else "processor",
        )
    return asked


def agreed(asked: str, device: torch.device) -> str:
    """The same in all processes of one training: what the first one's device makes of ``asked``."""
    lower = ranks.of_first(lambda: resolved(asked, device) == BF16, device)
    return BF16 if lower else FP32


def native(device: torch.device) -> bool:
    """Does the device itself multiply bfloat16?"""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= AMPERE
    return bool(FLAGS & flags())


def flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What the processor can do, in the words of Linux; elsewhere nothing is known of it."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()[2:]}


@contextmanager
def training_in(precision: str) -> Iterator[None]:
    """Training steps inside are in ``precision``."""
    global _chosen
    before, _chosen = _chosen, precision
    try:
        yield
    finally:
        _chosen = before


def chosen() -> str:
    """What training steps are in."""
    return _chosen


@contextmanager
def step() -> Iterator[None]:
    """A training step is inside: products are in the chosen precision."""
    global _lowered
    if _chosen == FP32:
        yield
        return
    before, _lowered = _lowered, True
    try:
        with _Linear():
            yield
    finally:
        _lowered = before


def lowered() -> bool:
    """Are products in bfloat16, here and now?"""
    return _lowered


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x`` (..., inputs) @ ``weight`` (outputs, inputs).T + ``bias``, float32, multiplied in bfloat16 both ways."""
    found: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight)  # type: ignore[no-untyped-call]
    found = found.view(*x.shape[:-1], len(weight))
    return found if bias is None else found + bias


class _Linear(TorchFunctionMode):
    """Takes the place of torch's own linear layers, whosever they are, where the weight is large."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.linear and _applies(*args, **kwargs):
            return linear(*args, **kwargs)
        return function(*args, **kwargs)


def _applies(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return input.dtype == weight.dtype == torch.float32 and weight.numel() >= LARGE


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        low = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(*low)
        return (low[0] @ low[1].T).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].bfloat16()
        by_x = (grad @ weight).float() if ctx.needs_input_grad[0] else None
        by_weight = (grad.T @ x).float() if ctx.needs_input_grad[1] else None
        return by_x, by_weight
