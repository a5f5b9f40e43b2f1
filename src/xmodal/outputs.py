"""Writing so that nothing is lost: a temporary name beside the target, then one rename."""

from __future__ import annotations

import json
import os
import shutil
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
            raise UsageRefused(f"--output {output}: this is an input. What to do: give another name")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise :class:`InputRefused` where ``path`` exists (a folder: is not empty) and may not be replaced, or cannot be written.

    Asked before any work, so that nobody waits an hour for a folder that is read-only.
    """
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not overwrite:
        raise InputRefused("the output exists", where=str(path), do="give --overwrite or another name")
    near = path if path.is_dir() else path.parent
    while not near.exists() and near != near.parent:
        near = near.parent
    if not near.is_dir():
        raise InputRefused(f"{near} is a file, not a folder", where=str(path), do="give an output in a folder")
    if not os.access(near, os.W_OK | os.X_OK):
        raise InputRefused(f"the folder {near} cannot be written", where=str(path), do="give a folder of your own")


@contextmanager
def replacing(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; it gets the name ``path`` only when the block ends well."""
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        if temporary.is_file():
            temporary.chmod(
                0o666 & ~_umask()
            )  # safetensors writes 600, but colleagues and web servers read results too
        os.replace(temporary, path)
    except Exception as error:
        if not isinstance(error, InputRefused) and any(sign in str(error) for sign in FULL):
            raise InputRefused("no space left on the disk", where=str(path), do="free space and run again") from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_files(folder: Path, own: tuple[str, ...], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; its files go into ``folder`` only when the block ends well.

    With ``overwrite`` earlier results, files named by the patterns ``own``, go first; what else is in the folder stays.
    """
    refuse_existing(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
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
