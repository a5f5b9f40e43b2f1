"""Writing so that nothing is lost: a temporary name beside the target, then one rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xmodal.errors import InputRefused, UsageRefused

FULL = ("No space left", "Disk quota", "StorageFull", "code: 28", "code: 122")  # as Python and safetensors say it


def refuse_inputs(output: Path, *inputs: Path) -> None:
    """Raise :class:`UsageRefused` where ``output`` is one of the files that are read: it would be lost."""
    for given in inputs:
        if output.exists() and given.exists() and output.samefile(given):
            raise UsageRefused(f"{output} is an input and cannot be an output as well. What to do: give another name")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise :class:`InputRefused` where ``path`` exists (a folder: is not empty) and may not be replaced, or cannot be written.

    Asked before any work, so that nobody waits an hour for a folder that is read-only.
    """
    try:
        taken = any(path.iterdir()) if path.is_dir() else path.exists()
        _temporary(path, path.parent).exists()
    except OSError as error:  # the name is too long, or lies in a folder of others
        raise _unwritable(path, error.strerror) from None
    if taken and not (path.is_dir() or path.is_file()):
        raise InputRefused("this is no file but a device or pipe", where=str(path), do="give the name of a file")
    if taken and not overwrite:
        raise InputRefused("the output exists", where=str(path), do="give --overwrite or another name")
    near = path if path.is_dir() else path.parent
    while not (near.exists() or near.is_symlink()) and near != near.parent:
        near = near.parent
    if not near.is_dir():
        kind = "a file" if near.exists() else "a link to nothing"
        raise InputRefused(f"{near} is {kind}, not a folder", where=str(path), do="give an output in a folder")
    _require_writable(near, path)


def _require_writable(folder: Path, path: Path) -> None:
    """By making a file there that goes at once: rights alone say nothing of /proc, of root, or of a network's disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if any(sign in str(error) for sign in FULL):
            raise _full(path) from None
        raise _unwritable(path, f"nothing can be written into the folder {folder}") from None


def _unwritable(path: Path, why: str | None) -> InputRefused:
    return InputRefused(f"this output cannot be written: {why}", where=str(path), do="give a place of your own")


def _full(path: Path) -> InputRefused:
    return InputRefused("no space left on the disk", where=str(path), do="free space and run again")


def _temporary(path: Path, folder: Path) -> Path:
    """The name in ``folder`` under which ``path`` is written."""
    return folder / f".{path.stem}.{os.getpid()}.tmp{path.suffix}"


@contextmanager
def replacing(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; it gets the name ``path`` only when the block ends well."""
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, path.parent)
    try:
        yield temporary
        if temporary.is_file():
            temporary.chmod(
                0o666 & ~_umask()
            )  # safetensors writes 600, but colleagues and web servers read results too
        if temporary.is_dir() and path.is_dir():
            _replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
    except Exception as error:
        if not isinstance(error, InputRefused) and any(sign in str(error) for sign in FULL):
            raise _full(path) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _replace_folder(temporary: Path, path: Path) -> None:
    """A Zarr store in the place of an earlier one, which goes last; no folder of another kind is replaced."""
    from xmodal.data.stores import is_zarr

    if not is_zarr(path) and any(path.iterdir()):
        raise _unwritable(path, "it is a folder that holds other things than a Zarr store")
    old = path.with_name(f"{temporary.name}.old")
    os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old)


@contextmanager
def replacing_files(folder: Path, own: tuple[str, ...], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; its files go into ``folder`` only when the block ends well.

    It lies in ``folder`` where that is there (it may be all that can be written, as a container's mount is), else beside it.
    With ``overwrite`` earlier results, files named by the patterns ``own``, go first; what else is in the folder stays.
    """
    refuse_existing(folder, overwrite)
    near = folder if folder.is_dir() else folder.parent
    near.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(folder, near)
    temporary.mkdir()
    try:
        yield temporary
        folder.mkdir(exist_ok=True)
        for stale in {file for pattern in own for file in folder.glob(pattern)}:
            stale.unlink()
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str, overwrite: bool = False) -> None:
    with replacing(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, overwrite: bool = False) -> None:
    """JSON with sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n", overwrite)
