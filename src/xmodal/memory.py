"""What happens when memory is not enough: on a GPU fewer cells are computed at once; where even few do not fit, exit 137."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from xmodal.errors import XmodalError

if TYPE_CHECKING:
    from xmodal.data.batches import Batch

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Arrays = tuple[npt.NDArray[Any], ...]
# Other words for it than torch.OutOfMemoryError: a driver, or a library of it, that could not get what it needs itself.
ON_GPU = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
ON_CPU = "DefaultCPUAllocator: can't allocate memory"


class OutOfMemory(XmodalError):
    """The GPU's memory is not enough, however few cells are computed at once."""

    exit_code = 137


def exceeded(error: BaseException) -> bool:
    """Does ``error`` say that the memory of the GPU is not enough?"""
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ON_GPU)
    )


class Portions:
    """How many cells are computed at once: halved whenever the GPU's memory is not enough, and never raised again.

    ``least``: fewer make no sense.  ``what``: is computed.  ``remedy``: what to do instead, with ``{size}`` for the cells.
    """

    def __init__(self, size: int, least: int, what: str, remedy: str) -> None:
        self.asked = self.size = size
        self.least, self.what, self.remedy = least, what, remedy

    @property
    def halved(self) -> bool:
        return self.size < self.asked

    def run(self, work: Callable[[int], Result], cells: int, undo: Callable[[], None] | None = None) -> Result:
        """``work(most cells at once)`` on a batch of ``cells``, begun again (after ``undo``) with half as many while needed."""
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not exceeded(error):
                    raise
                reason = _first(error)
            # Outside the except block: the error holds the frames, and these the tensors, that did not fit.
            self._halve(min(self.size, cells), reason)
            if undo is not None:
                undo()

    def each(self, batch: Batch, rows: int, work: Callable[[Batch, int], Arrays]) -> Arrays:
        """What ``work(portion, its first cells that count)`` makes of ``batch``, joined; its first ``rows`` cells count.

        Every portion is padded as the batch is: shapes are the same for all batches, so results do not depend on the shard.
        """

        def all_of(size: int) -> Arrays:
            if size >= len(batch):
                return work(batch, rows)
            found = [work(batch.rows(slice(i, i + size)), min(size, rows - i)) for i in range(0, rows, size)]
            return found[0] if len(found) == 1 else tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

        return self.run(all_of, len(batch))

    def _halve(self, now: int, reason: str) -> None:
        release()
        if now <= self.least:
            raise OutOfMemory(_message(f"{self.what} does not fit, not even {now} cells at once", reason))
        self.size = max(self.least, (now + 1) // 2)
        log.warning(
            "%s: the memory of the GPU is not enough for %d cells at once; going on with %d. What to do: %s",
            *(self.what, now, self.size, self.remedy.format(size=self.size)),
        )


def of_prediction(cells: int) -> Portions:
    """Portions of batches of so many cells."""
    return Portions(cells, 1, "prediction", "nothing (the results agree up to rounding), or a GPU with more memory")


def release() -> None:
    """Give what is cached back to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gpu_peak_mib() -> int:
    """Most memory of the GPU that tensors of this process took at once, MiB."""
    return int(torch.cuda.max_memory_allocated() // 2**20)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Memory that is not enough for what cannot be halved becomes :class:`OutOfMemory`, or MemoryError on the CPU."""
    try:
        yield
    except RuntimeError as error:
        if exceeded(error):
            raise OutOfMemory(_message(f"{what} does not fit", _first(error))) from error
        if ON_CPU in str(error):
            raise MemoryError(_first(error)) from error
        raise


def _message(what: str, reason: str) -> str:
    do = "use a GPU with more memory (or one that nobody else uses), smaller settings of the model, or --device cpu"
    return (
        f"out of GPU memory: {what} ({reason}). What to do: {do}; another try, or more RAM for the job, does not help"
    )


def _first(error: BaseException) -> str:
    """torch's first two sentences: how much was asked for, and how much the GPU has."""
    return ". ".join(str(error).strip().splitlines()[0].split(". ")[:2]).rstrip(".")
