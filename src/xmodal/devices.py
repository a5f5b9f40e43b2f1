"""Where to compute."""

from __future__ import annotations

import logging

import torch

from xmodal.errors import UsageRefused

log = logging.getLogger(__name__)


def choose(device: str, threads: int, seed: int) -> torch.device:
    """The torch device for ``auto``, ``cpu`` or ``cuda``; sets threads, seeds and deterministic kernels."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageRefused(
            f"--device cuda: no GPU can be used here (torch {torch.__version__} sees {torch.cuda.device_count()} devices, "
            f"built for CUDA {torch.version.cuda}). What to do: run `nvidia-smi`, give the job a GPU, or use --device cpu"
        )
    found = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if found.type == "cuda":
        log.info("device: %s", torch.cuda.get_device_name(found))
    return found
