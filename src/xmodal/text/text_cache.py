"""Vectors of texts on disk, one file for each encoder.  Trouble with it never stops the work: what is not there is computed.

The file's name is the encoder's digest; it holds the sha256 of each text with the digest, and its vector: no text.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmodal import caches
from xmodal.errors import XmodalError
from xmodal.outputs import replacing

log = logging.getLogger(__name__)
VARIABLE = "XMODAL_TEXT_CACHE"  # a folder, or "none"
NONE = "none"
MOST = 100_000  # vectors in a file; beyond, it begins anew with the newest
FORMAT = "1"  # of the file, and of how a vector comes about
KEYS, ROWS = "keys", "rows"
UNIT = 1e-3  # how far a row's length may be from 1

Row = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cache:
    """Vectors (width,) by the key of their text, in ``path``; None: there is no folder for it."""

    path: Path | None
    width: int

    def read(self) -> dict[bytes, Row]:
        """All of it; nothing where the file is not there or not whole."""
        if self.path is None or not self.path.is_file():
            return {}
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            found = load_file(self.path)
            keys, rows = found[KEYS], found[ROWS]
            whole = keys.dtype == np.uint8 and rows.dtype == np.float32
            whole &= keys.shape == (len(rows), 32) and rows.shape == (len(keys), self.width)
            if whole and (np.abs(np.linalg.norm(rows, axis=1) - 1) < UNIT).all():  # nan is not
                return dict(zip((k.tobytes() for k in keys), rows, strict=True))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.debug("%s: %s", self.path, error)
        log.warning("%s: this cache of text vectors is broken and made anew", self.path)
        return {}

    def add(self, new: Mapping[bytes, Row]) -> None:
        """Put vectors beside those that are there; of two processes at once the later one's stay."""
        if self.path is None:
            return
        from safetensors.numpy import save_file

        try:
            known = self.read()  # again: another process may have been here
            every = {**known, **new} if len(known) + len(new) <= MOST else dict(new)
            keys = sorted(every)
            tensors = {
                KEYS: np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32).copy(),
                ROWS: np.stack([every[k] for k in keys]),
            }
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(self.path, overwrite=True) as temporary:
                save_file(tensors, temporary)
        except (OSError, XmodalError) as error:
            log.debug("vectors of texts are not kept: %s", error)


def of(digest: str, width: int) -> Cache:
    """The cache of an encoder, in the folder that XMODAL_TEXT_CACHE names, else in the user's."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() == NONE:
        return Cache(None, width)
    folder = Path(given).expanduser() if given else _users()
    return Cache(folder and folder / f"{digest[:32]}-{FORMAT}.safetensors", width)


def key(text: str, digest: str) -> bytes:
    return hashlib.sha256(f"{digest}\n{text}".encode("utf-8", "surrogatepass")).digest()


def _users() -> Path | None:
    """The user's own; None where it cannot be written, or others could fill it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "xmodal", "text")
    return folder if caches.usable(folder) else None
