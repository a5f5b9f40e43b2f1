"""What can be seen of a GPU that does not work: torch, driver, container, in words that lead further."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

# Oldest driver for every minor version of a CUDA major version: docs.nvidia.com/deploy/cuda-compatibility, "Minor Version
# Compatibility"; three-part numbers from the CUDA Toolkit Release Notes.
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
TOO_OLD = re.compile(r"driver on your system is too old \(found version (\d+)\)")
NO_CODE = ("no kernel image", "not compatible with the current PyTorch", "minimum cuda capability")
KERNEL = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
NODES = Path("/dev")
SIGNS = {"docker": Path("/.dockerenv"), "podman": Path("/run/.containerenv"), "singularity": Path("/.singularity.d")}
GIVE = "`docker run --gpus all`, `podman run --device nvidia.com/gpu=all`, `apptainer exec --nv`"


@dataclass(frozen=True)
class Seen:
    """``cause`` and ``remedy`` are half sentences.  ``level`` (of logging): what it is to someone who asked for no device."""

    cause: str
    remedy: str
    level: int
    facts: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.facts)


def look(
    reason: str, name: str = "", capability: tuple[int, int] | None = None, known: list[str] | None = None
) -> Seen:
    """Find out why there is no GPU that works; ``reason``: what torch says.

    ``name``, ``capability`` (major, minor) and the architectures ``known`` to torch are those of a GPU that is there.
    """
    driver, library, nodes = driver_version(), has_library(), _nodes()
    facts = _facts(driver, library, nodes) + ((name,) if name else ())
    if torch.version.cuda is None:
        remedy = "install the CUDA build of torch, or use the GPU image"
        return Seen("this torch was built without CUDA", remedy, logging.DEBUG, facts)
    if found := TOO_OLD.search(reason):
        remedy = f"have the driver updated to {_needed()} or later"
        return Seen(_too_old(int(found[1]), driver), remedy, logging.WARNING, facts)
    if capability is not None or any(sign in reason for sign in NO_CODE):
        has = f" has compute capability {capability[0]}.{capability[1]}," if capability else ":"
        cause = f"{name or 'the GPU'}{has} this torch was built for {', '.join(known or ()) or 'others'}"
        remedy = "use another GPU (CUDA_VISIBLE_DEVICES=N), or install a torch that was built for it"
        return Seen(cause, remedy, logging.WARNING, facts)
    return Seen(*_of_machine(reason, driver, library, nodes), facts)


def _of_machine(reason: str, driver: str | None, library: bool, nodes: list[str]) -> tuple[str, str, int]:
    """Cause, remedy and level where torch itself is fine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles"):
        remedy = "ask the scheduler for a GPU, or unset CUDA_VISIBLE_DEVICES"
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs", remedy, logging.DEBUG
    if (driver or nodes) and not (library and nodes):
        inside = container()
        missing = "no /dev/nvidia* is" if library else "the driver's library libcuda is not"
        where = f"in this container ({inside})" if inside else "for this process"
        remedy = "start the container with the GPU:" if inside else "install the whole driver, or in a container"
        level = logging.INFO  # many a job on such a machine wants no GPU
        return f"the machine has an NVIDIA GPU or driver, but {missing} there {where}", f"{remedy} {GIVE}", level
    if driver is None and not library:
        return "there is no NVIDIA driver here", f"give the job a GPU (in a container also {GIVE})", logging.DEBUG
    listed = "compare CUDA_VISIBLE_DEVICES with `nvidia-smi -L`" if visible else "run `nvidia-smi`"
    return f"torch cannot use the GPU: {_first(reason)}", f"{listed}, and try another machine", logging.WARNING


def _facts(driver: str | None, library: bool, nodes: list[str]) -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if torch.version.cuda else 0
    return (
        f"torch {torch.__version__} built for CUDA {torch.version.cuda or '(none)'}",
        f"{count} devices counted",
        *([f"CUDA_VISIBLE_DEVICES={visible!r}"] if visible is not None else []),
        f"NVIDIA driver {driver or 'of unknown version'}" if driver or library else "no NVIDIA driver",
        "libcuda there" if library else "no libcuda",
        ", ".join(nodes) if nodes else "no /dev/nvidia*",
    )


def driver_version() -> str | None:
    """Version of the NVIDIA kernel module or of NVML, such as 535.104.05; a container sees that of its host."""
    for file in KERNEL:
        try:
            if found := re.search(r"\d{3,}\.\d+(\.\d+)?", file.read_text()):
                return found[0]
        except OSError:
            continue
    try:
        nvml, text = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.create_string_buffer(96)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode()
    except (OSError, AttributeError):
        pass
    return None


def has_library() -> bool:
    """Can the part of the driver that programs load be loaded?"""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _nodes() -> list[str]:
    return sorted(str(p) for p in NODES.glob("nvidia[0-9]*")) or [
        str(p) for p in NODES.glob("dxg")
    ]  # dxg: under Windows


def container() -> str:
    """The kind of container this runs in, as far as it says so; empty outside."""
    return next((name for name, sign in SIGNS.items() if sign.exists()), "")


def _too_old(found: int, driver: str | None) -> str:
    """``found``: as CUDA counts, 11040 is 11.4."""
    supports = f"{found // 1000}.{found % 1000 // 10}"
    own = f"the NVIDIA driver {driver}" if driver else "the NVIDIA driver"
    return f"{own} supports CUDA up to {supports}, this torch {torch.__version__} needs CUDA {torch.version.cuda}"


def _needed() -> str:
    major = int(str(torch.version.cuda).split(".")[0])
    oldest = OLDEST_DRIVER.get(major)
    return f"{oldest} (the oldest for CUDA {major})" if oldest else f"one for CUDA {torch.version.cuda}"


def _first(reason: str) -> str:
    lines = reason.strip().splitlines()
    return lines[0].rstrip(".") if lines else "it does not say why"
