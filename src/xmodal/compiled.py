"""Functions that numba compiled when an image was built, so that no task in a container compiles them again.

numba keeps what it compiles in NUMBA_CACHE_DIR and takes no folder that it cannot write; so the image's folder is copied.
What it finds is only used for the same processor, which is therefore named: the image's builder had another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from xmodal import caches

log = logging.getLogger(__name__)
READY = Path(sys.prefix, "share", "xmodal", "numba")  # made by xmodal.warm
# As servers have been since 2013.  The same words stand in the Dockerfiles.
PROCESSOR = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}
CPUINFO = Path("/proc/cpuinfo")
# What x86-64-v3 asks for beyond what every x86-64 has (System V psABI, 3.1.1), as Linux names it: abm is LZCNT, pni SSE3.
V2 = ("cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2")
# Only the one that runs on one thread, as it does with a seed: numba would take one's code for the other's.
EPOCH = "_nb_optimize_layout_euclidean_single_epoch"
FLAGS = frozenset((*V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"))


def provide() -> bool:
    """Before the first import of numba: begin its cache with the image's.  False where there is none, or it does not fit.

    numba unpickles what it finds, so a folder that others could fill gives way to a private one, as at the start.
    """
    target = os.environ.get("NUMBA_CACHE_DIR")
    if not target or not READY.is_dir() or "numba" in sys.modules or not _fits():
        return False
    folder: Path | None = Path(target)
    if not caches.usable(Path(target), shared=True, given=True):
        folder = caches.move("NUMBA_CACHE_DIR")
    if folder is None:
        return False
    os.environ.update({name: value for name, value in PROCESSOR.items() if name not in os.environ})
    if not any(folder.iterdir()):
        _copy(folder)
    return True


def umap() -> ModuleType:
    """The package umap, whose functions numba compiles once for all processes, where it would in each (5 s of a CPU)."""
    provide()
    import umap
    from umap import layouts, umap_

    for module, name in ((umap_, "smooth_knn_dist"), (umap_, "compute_membership_strengths"), (layouts, EPOCH)):
        with contextlib.suppress(AttributeError, RuntimeError):  # of another version; no folder that can be written
            getattr(module, name).enable_caching()
    return umap


def _copy(folder: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            made = shutil.copytree(READY, Path(part, "numba"))
            os.chmod(made, 0o700)  # not the mode that it has in the image: whatever the umask, only we add to it
            os.rename(made, folder)  # over an empty folder
    except OSError as error:  # no room, or another process of ours was faster
        log.debug("%s: numba compiles anew what it does not find (%s)", folder, error)


def _fits() -> bool:
    """Is this processor an x86-64-v3?"""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags: str = next((line for line in lines if line.startswith("flags")), "")
    return set(flags.split()) >= FLAGS
