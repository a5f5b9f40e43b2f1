"""AdamW that reads every matrix as it lies in memory.

First layers of sparse rows keep their weights feature by feature (:class:`xmodal.models.layers.RowLinear`): seen as torch names
them, columns lie in memory one after the other.  torch's fused AdamW brings the gradient of such a matrix into rows and back in
every step: 184 instead of 39 ms for 256 x 100,000 weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def plain(method: Callable[..., Any]) -> Any:
    """What torch has wrapped for its compiler, whose import takes .8 s of every training and 110 MB; nothing is compiled."""
    return inspect.unwrap(method)


class AdamW(torch.optim.AdamW):
    """Bit for bit the steps of torch's (Loshchilov and Hutter 2019), without the copies and without torch's compiler."""

    add_param_group, zero_grad = plain(torch.optim.AdamW.add_param_group), plain(torch.optim.AdamW.zero_grad)
    state_dict, load_state_dict = plain(torch.optim.AdamW.state_dict), plain(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(plain(torch.optim.AdamW.step))

    def _init_group(self, group: Any, *lists: Any) -> bool:
        """``lists``: parameters, then their gradients, moments and steps, which torch fills and then works on."""
        complex_there: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        parameters, gradients = lists[0], lists[1]
        gradients[:] = map(lying_as, gradients, parameters)
        turned = [in_columns(p) for p in parameters]
        for tensors in lists:
            tensors[:] = [x.T if t and x.ndim == 2 else x for x, t in zip(tensors, turned, strict=False)]
        return complex_there


def lying_as(gradient: Tensor, parameter: Tensor) -> Tensor:
    """torch brings gradients into the layout of their parameters; of others its fused steps on a CPU take the wrong numbers."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def in_columns(tensor: Tensor) -> bool:
    """Do the columns of this matrix lie in memory one after the other?"""
    return tensor.ndim == 2 and not tensor.is_contiguous() and tensor.T.is_contiguous()


def clip(parameters: list[torch.nn.Parameter], most: float) -> None:
    """Gradients scaled down to the norm ``most``, where theirs is larger, as torch's ``clip_grad_norm_`` does.

    That multiplies by 1 where it is not, which takes as long as the norm; on a GPU, where asking costs more, so does this.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if norm.device.type != "cpu" or not float(norm) + 1e-6 <= most:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
