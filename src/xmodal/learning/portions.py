"""A minibatch on a GPU that cannot hold it: computed in portions whose gradients add up to one step of the optimiser.

Why not smaller minibatches: the settings in the checkpoint, the number of steps, the course of the learning rate and the norm
that gradients are clipped at stay what they were asked to be.  What does change is what cells of a minibatch do to each other:
batch normalisation takes the mean and spread of a portion (Hoffer et al. 2017, "ghost batches"), and `auto` finds neighbours in
it.  So the weights are not those of a GPU with more memory, which is why `metrics.json` says it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmodal import ranks, starting
from xmodal.memory import Portions
from xmodal.models.base import CrossModalModel

if TYPE_CHECKING:
    from xmodal.data.batches import Batch
    from xmodal.learning.training import Running

LEAST = 8  # cells: of fewer, mean and spread say nothing, and hardly one has a neighbour
MAY_FAIL = frozenset({"cuda"})  # kinds of devices
Terms = list[tuple[dict[str, Tensor], int]]  # loss terms of each portion, and its cells


def of_training(cells: int) -> Portions:
    """Portions of minibatches of at most so many cells."""
    least = cells if starting.asked() else LEAST  # processes that share a minibatch must agree on what is done with it
    return Portions(cells, least, "training", "nothing, or a GPU with more memory, or --set batch_size={size}")


def cut(batch: Batch, size: int) -> list[Batch]:
    """``batch`` in as few portions as have ``size`` cells at most, all nearly alike, so that none is a single cell."""
    count = -(-len(batch) // size)
    if count <= 1:
        return [batch]
    edges = [len(batch) * i // count for i in range(count + 1)]
    return [batch.rows(slice(a, b)) for a, b in pairwise(edges)]


def gradients(running: Running, batch: Batch, device: torch.device, size: int) -> Terms:
    """Add up the gradients of the mean loss of ``batch``, ``size`` cells at once; the loss terms of each portion.

    A portion counts by its cells.  The list is empty where no portion teaches anything (single cells of different modalities).
    """
    running.optimizer.zero_grad(set_to_none=True)
    found: Terms = []
    for portion in cut(batch, size):
        terms = running.model.loss(portion.to(device))
        if not terms:
            continue
        loss = torch.stack(list(terms.values())).sum()
        if len(portion) < len(batch):
            loss = loss * (len(portion) / len(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        found.append(({name: value.detach() for name, value in terms.items()}, len(portion)))
    ranks.settle()
    return found


def rewinding(model: nn.Module, device: torch.device) -> Callable[[], None]:
    """A function that sets back to where they are now: random numbers of CPU and GPU, and what normalisation has seen.

    The latter on devices only whose memory may not be enough: elsewhere the copies would be for nothing.
    """
    cpu = torch.get_rng_state()
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    seen = [(buffer, buffer.clone()) for buffer in statistics(model)] if device.type in MAY_FAIL else []

    def rewind() -> None:
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, device)
        for buffer, before in seen:
            buffer.copy_(before)

    return rewind


def statistics(model: nn.Module) -> list[Tensor]:
    """The buffers that the loss itself changes: running means and variances (and their count) of batch normalisation, and what
    the model says of itself.
    """
    modules = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    own = model.running() if isinstance(model, CrossModalModel) else []
    return [*own, *(buffer for module in modules for buffer in module.buffers(recurse=False))]
