"""Files that cannot be read, or are no longer what they were: one refusal, whatever the libraries raise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xmodal.data import stores
from xmodal.errors import InputRefused

log = logging.getLogger(__name__)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What the libraries raise on broken content becomes one refusal that keeps their reason."""
    try:
        yield
    except (InputRefused, MemoryError):
        raise
    except PermissionError:
        raise InputRefused("the file may not be read", where=str(path), do="check its permissions") from None
    except Exception as error:  # h5py, anndata, mudata and scanpy raise a dozen types here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        log.debug("reading %s failed", path, exc_info=True)
        what = "the file is truncated" if "truncated" in reason else f"the file is broken or incomplete ({reason})"
        raise InputRefused(what, where=str(path), do="copy or download it again, or write it anew") from error


@dataclass(frozen=True)
class Stamp:
    """What a file was when it was opened: which file, how large and when written."""

    path: Path
    about: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path) -> Stamp:
        return cls(path, _about(path))

    def require_same(self) -> None:
        """Refuse a file that was written to, replaced or removed since."""
        try:
            now = _about(self.path)
        except OSError:
            self._refuse("the file is no longer there")
        if now != self.about:
            self._refuse("the file was changed")

    def _refuse(self, what: str) -> None:
        raise InputRefused(
            f"{what}: it has to stay as it is while it is read",
            where=str(self.path),
            do="run again when nothing writes to it any more; nothing was written",
        )


def _about(path: Path) -> tuple[int, int, int]:
    """Of a folder (a Zarr store) the file that describes it: its pieces are too many to be looked at each time."""
    root = next((path / name for name in stores.ROOTS if path.is_dir() and (path / name).exists()), path)
    found = root.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
