"""What made a file: flat scalars and one JSON string, without clock times, host names or paths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from xmodal import __version__


def record(command: str, settings: dict[str, Any], **scalars: str | int | float) -> dict[str, Any]:
    """Content of ``uns["xmodal"]``: ``command``, ``version``, the given scalars and ``settings`` as a JSON string.

    Flat on purpose: uns refuses tuples, paths and lists of dicts, and silently nests keys that hold a slash.
    """
    return {"command": command, "version": __version__, **scalars, "settings": json.dumps(settings, sort_keys=True)}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
