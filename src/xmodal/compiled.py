"""Functions that numba compiled when an image was built, so that no task in a container compiles them again.

numba keeps what it compiles in NUMBA_CACHE_DIR and takes no folder that it cannot write; so the image's folder is copied.
What it finds is only used for the same processor, which is therefore named: the image's builder had another one.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)
READY = Path(sys.prefix, "share", "xmodal", "numba")  # made by containers/warm-numba
# With AVX2, as servers have since 2013.  The same words stand in containers/warm-numba.
PROCESSOR = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}


def provide() -> bool:
    """Before the first import of numba: begin its cache with the image's.  False where there is none, or it does not fit."""
    target = os.environ.get("NUMBA_CACHE_DIR")
    if not target or not READY.is_dir() or "numba" in sys.modules or not _has_avx2():
        return False
    os.environ.update({name: value for name, value in PROCESSOR.items() if name not in os.environ})
    folder = Path(target)
    if folder.is_dir() and any(folder.iterdir()):
        return True
    _copy(folder)
    return True


def _copy(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            os.rename(shutil.copytree(READY, Path(part, "numba")), folder)  # over nothing, or an empty folder
    except OSError as error:  # no room, or somebody else was faster
        log.debug("%s: numba compiles anew what it does not find (%s)", folder, error)


def _has_avx2() -> bool:
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
