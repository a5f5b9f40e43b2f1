"""Where to compute, and why not on a GPU."""

from __future__ import annotations

import logging
import os
import re
import warnings

import torch

from xmodal.errors import UsageRefused
from xmodal.gpu_seen import Seen, look

log = logging.getLogger(__name__)
ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)[a-z]?")


def choose(device: str, threads: int, seed: int) -> torch.device:
    """The torch device for ``auto``, ``cpu`` or ``cuda``; sets threads, seeds and, on a GPU, deterministic kernels.

    ``cuda`` without a GPU that works is :class:`UsageRefused`, which says what was seen; ``auto`` takes the CPU then, with
    a warning where a GPU seems to be meant.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    if device == "cpu":
        return torch.device("cpu")
    why = unusable()
    if why is None:
        _deterministic()
        log.info("device: %s", torch.cuda.get_device_name())
        return torch.device("cuda")
    if device == "cuda":
        raise UsageRefused(f"--device cuda: {why.cause}. Seen: {why}. What to do: {why.remedy}, or use --device cpu")
    log.log(why.level, "computing on the CPU: %s. What to do: %s, or say --device cpu", why.cause, why.remedy)
    return torch.device("cpu")


def unusable() -> Seen | None:
    """Why no GPU can be used, found without a word of torch's own; None where one works."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            if not torch.cuda.is_available():
                torch.cuda.init()  # type: ignore[no-untyped-call]  # raises what is_available warns of once in a process
            elif (known := _architectures()) and not runs(torch.cuda.get_device_capability(), known):
                return look("", torch.cuda.get_device_name(), torch.cuda.get_device_capability(), known)
            else:
                torch.ones(1, device="cuda").add(1).item()
                return None
        except torch.cuda.OutOfMemoryError as error:
            return look(str(error), torch.cuda.get_device_name())
        # AssertionError: a torch without CUDA; the other, no RuntimeError: what was asked of CUDA before it could be
        except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
            return look(str(error))
        return look("; ".join(str(w.message) for w in said))


def runs(capability: tuple[int, int], known: list[str]) -> bool:
    """Is there code for a GPU of this compute capability among the ``known`` architectures (``sm_86``, ``compute_90``)?

    Machine code (sm) runs on the same major version from its minor version on; PTX (compute) on everything later.  Names of
    another kind say nothing; where there are no others, the GPU itself has to be tried, and the answer is yes.
    """
    readable = [found for name in known if (found := ARCHITECTURE.fullmatch(name))]
    for found in readable:
        kind, (major, minor) = found[1], divmod(int(found[2]), 10)
        if (kind == "compute" and (major, minor) <= capability) or (
            kind == "sm" and major == capability[0] and minor <= capability[1]
        ):
            return True
    return not readable


def _architectures() -> list[str]:
    """What torch has code for; nothing with ROCm, whose architectures (``gfx90a``) no compute capability tells of."""
    return [] if torch.version.hip else torch.cuda.get_arch_list()


def _deterministic() -> None:
    """Equal input and seed give equal results on one GPU, where torch has such kernels; others are used all the same."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS asks for it, before it is started
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # nothing here reads what it has not written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
