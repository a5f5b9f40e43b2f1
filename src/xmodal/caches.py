"""Folders where libraries keep what they compile: a private temporary one where theirs cannot be written.

In a container under an unknown user, with a read-only root or home, numba refuses to be imported (scanpy and umap need it),
matplotlib and fontconfig complain, and torch asks for the name of a user that has none.  Folders that other users can fill
are not used either: what numba finds there it unpickles, which runs it.  In our images these folders lie in /tmp, which
Apptainer shares with everybody on the host.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import stat
import sysconfig
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
EVERYBODY, OTHERS = 0o002, 0o022  # bits of a mode: who may write besides the owner
_private_folders: list[Path] = []  # that this process made
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks for the user's name before it asks the system


def provide() -> Path | None:
    """Point the variables of caches that cannot be used to a private temporary folder, removed at exit; returns it.

    None where all is well.  Called once at the start of a command, before any heavy import.
    """
    _name_the_user()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large pages, a third of the cost of new tensors
    moved: list[str] = []
    for variable, defaults in CACHES.items():
        given, shared = os.environ.get(variable), variable in SHARED
        folders = [Path(given)] if given else defaults()
        if all(usable(folder, shared, given=bool(given)) for folder in folders):
            continue
        if move(variable) is None:
            log.warning("no folder for temporary files can be written. What to do: set TMPDIR to one of your own")
            return None
        moved.append(variable)
    if not moved:
        return None
    log.debug("%s: caches that cannot be used elsewhere (%s)", _private_folders[-1], ", ".join(moved))
    return _private_folders[-1]


def move(variable: str) -> Path | None:
    """Point ``variable`` to an empty private folder, removed at exit; None, and unset, where none can be made."""
    private = _private()
    if private is None:
        os.environ.pop(variable, None)
        return None
    folder = private / variable.lower()
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ[variable] = str(folder)
    return folder


def usable(folder: Path, shared: bool = False, given: bool = False) -> bool:
    """Can ``folder`` be written, or be made, and by nobody else?  With ``shared`` the same is asked of its subfolders.

    Where it is ``given``, or others could be faster, it is made at once, mode 700.  Not used are:

    - folders of another user, and any that everybody may write, or in a folder of which everybody may rename everything;
    - below one that everybody may write, as /tmp: all that are not ours or root's alone.  Elsewhere a group may write, since
      with umask 002, as on many a cluster, a user's whole home is open to a group: that of the user, or one they trust.
    """
    path = folder.absolute()
    if str(folder).startswith("~"):  # no home is known
        return False
    if any(private in path.parents for private in _private_folders):
        return True
    try:
        near = next(place for place in (path, *path.parents) if os.path.lexists(place))
        if near != path:
            writers = {_writers(place / "new") for place in (near, near.resolve())}
            if None in writers or not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
                return False
            if not given and OTHERS not in writers:
                return True
            _make(path)
        return os.access(path, os.R_OK | os.W_OK | os.X_OK) and all(_ours(p, shared) for p in {path, path.resolve()})
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return False


def _make(path: Path) -> None:
    for place in (*reversed(path.parents), path):
        if not os.path.lexists(place):
            with contextlib.suppress(FileExistsError):  # another process was faster; whose, is looked at afterwards
                os.mkdir(place, 0o700)


def _ours(path: Path, shared: bool) -> bool:
    """Is ``path``, which is there, a folder (with ``shared``: one of folders) that nobody else can fill?"""
    forbidden = _writers(path)
    if forbidden is None:
        return False
    status = path.lstat() if forbidden == OTHERS else path.stat()
    if not (shared and _alone(status, forbidden)):
        return _alone(status, forbidden)
    if not status.st_mode & 0o011:  # nobody else comes in
        forbidden = 0
    with os.scandir(path) as entries:
        found = [entry.stat(follow_symlinks=False) for entry in entries if entry.is_dir()]
    return all(sub.st_uid == os.geteuid() and not sub.st_mode & forbidden for sub in found)


def _writers(path: Path) -> int | None:
    """Who must not be able to write ``path``, as bits of a mode; None where others can put another in its place."""
    forbidden = EVERYBODY
    for place in reversed(path.parents):
        mode = place.stat().st_mode
        if mode & EVERYBODY and not mode & stat.S_ISVTX:
            return None
        if forbidden == OTHERS and not _alone(place.lstat(), 0 if mode & stat.S_ISVTX else OTHERS):
            return None
        if mode & EVERYBODY:
            forbidden = OTHERS
        elif not mode & 0o077:  # nobody else comes in
            forbidden = EVERYBODY
    return forbidden


def _alone(status: os.stat_result, forbidden: int) -> bool:
    """A folder, ours or the system's, without ``forbidden`` bits in its mode."""
    mode = status.st_mode
    return stat.S_ISDIR(mode) and status.st_uid in (0, os.geteuid()) and not mode & forbidden


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
    """The folder, mode 700, in TMPDIR or where else temporary files can be, at last the working directory."""
    import tempfile

    if _private_folders and _private_folders[-1].is_dir():
        return _private_folders[-1]
    try:
        folder = Path(tempfile.mkdtemp(prefix="xmodal-caches-"))
    except OSError:
        return None
    _private_folders.append(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    """At exit, which SIGTERM leads to as well; not by a forked child."""
    import shutil

    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
