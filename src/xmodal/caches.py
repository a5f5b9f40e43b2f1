"""Folders where libraries keep what they compile: a private temporary one where theirs cannot be written.

In a container under an unknown user, with a read-only root or home, numba refuses to be imported (scanpy and umap need it),
matplotlib and fontconfig complain, and torch asks for the name of a user that has none.  Folders that other users can fill
are not used either: what numba finds there it unpickles, which runs it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks for the user's name before it asks the system


def provide() -> Path | None:
    """Point the variables of caches that cannot be used to a private temporary folder, removed at exit; returns it.

    None where all is well.  Called once at the start of a command, before any heavy import.
    """
    _name_the_user()
    private: Path | None = None
    moved = []
    for variable, defaults in CACHES.items():
        given = os.environ.get(variable)
        if all(usable(folder, variable in SHARED) for folder in ([Path(given)] if given else defaults())):
            continue
        private = private or _private()
        if private is None:
            log.warning("no folder for temporary files can be written. What to do: set TMPDIR to one of your own")
            return None
        folder = private / variable.lower()
        folder.mkdir(mode=0o700)
        os.environ[variable] = str(folder)
        moved.append(variable)
    if private is not None:
        log.debug("%s: caches that cannot be used elsewhere (%s)", private, ", ".join(moved))
    return private


def usable(folder: Path, shared: bool = False) -> bool:
    """Can ``folder`` be written, or be made, and is it ours (or the system's)?  With ``shared`` its subfolders must be too."""
    if str(folder).startswith("~"):  # no home is known
        return False
    near = folder.absolute()
    if not os.path.exists(near):
        if os.path.islink(near):  # to nothing: it cannot be made
            return False
        while not os.path.exists(near):
            near = near.parent
        return near.is_dir() and os.access(near, os.W_OK | os.X_OK)
    if not (near.is_dir() and os.access(near, os.R_OK | os.W_OK | os.X_OK) and near.stat().st_uid in (0, os.geteuid())):
        return False
    if not shared:
        return True
    with os.scandir(near) as entries:
        return all(e.stat(follow_symlinks=False).st_uid == os.geteuid() for e in entries if e.is_dir())


def _home(*parts: str) -> Path:
    return Path(os.path.expanduser("~"), *parts)


def _cache(name: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _home(".cache"), name)


def _matplotlib() -> list[Path]:
    return [Path(os.environ.get("XDG_CONFIG_HOME") or _home(".config"), "matplotlib"), _cache("matplotlib")]


def _numba() -> list[Path]:
    """None where it can write beside the packages, which it tries before the home."""
    return [] if os.access(sysconfig.get_path("purelib"), os.W_OK) else [_cache("numba")]


def _triton() -> list[Path]:
    return [Path(os.environ.get("TRITON_HOME") or _home(), ".triton", "cache")]


# In this order: the defaults of later ones lie in the first.  Fontconfig, which matplotlib asks for fonts, has no other.
CACHES: dict[str, Callable[[], list[Path]]] = {
    "XDG_CACHE_HOME": lambda: [_home(".cache")],
    "MPLCONFIGDIR": _matplotlib,
    "NUMBA_CACHE_DIR": _numba,
    "TRITON_CACHE_DIR": _triton,
    "TORCHINDUCTOR_CACHE_DIR": list,  # by default in TMPDIR, under the user's name
}
SHARED = ("NUMBA_CACHE_DIR",)  # one folder for each package in it, made by whoever came first


def _name_the_user() -> None:
    """torch asks for the user's name when it is imported by an optimizer; a user id of a container has none."""
    if any(os.environ.get(name) for name in NAMES):
        return
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ["USER"] = f"uid{os.getuid()}"


def _private() -> Path | None:
    """A new folder, mode 700, in TMPDIR or where else temporary files can be, at last the working directory."""
    import tempfile

    try:
        folder = Path(tempfile.mkdtemp(prefix="xmodal-caches-"))
    except OSError:
        return None
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    """At exit, which SIGTERM leads to as well; not by a forked child."""
    import shutil

    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
