"""Sources of recipes: fetched once into a folder, resumed after a break, checked, and given their name only then."""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from reference_models.recipe import LOOPBACK, Source
from xmodal import __version__
from xmodal.errors import InputRefused, XmodalError

log = logging.getLogger(__name__)
AGENT = f"xmodal/{__version__}"  # servers of public data refuse Python's own name
WAIT = 30  # seconds without an answer or a byte
CHUNK = 1 << 20
SAY_EVERY = 10  # seconds between lines of progress where there is no terminal


class Unreachable(XmodalError):
    """A source cannot be had from here now; other recipes may do."""

    exit_code = 77


class _OnlyEncrypted(urllib.request.HTTPRedirectHandler):
    """What began encrypted does not go on without it."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it leads to an address without encryption ({newurl})")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def local_path(source: Source, recipe: Path) -> Path | None:
    """The file itself where the source is on this machine."""
    if source.path is not None:
        return (recipe.parent / source.path).resolve()
    parts = urlsplit(str(source.url))
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def fetch(source: Source, recipe: Path, folder: Path) -> Path:
    """The checked file of ``source``: a local one where it lies, another under ``folder``.

    Raises :class:`Unreachable` where there is no network, :class:`InputRefused` for a file that is not the stated one.
    """
    here = local_path(source, recipe)
    if here is not None:
        if not here.is_file():
            raise InputRefused("there is no such file", where=str(here), do=f"put it there, or mend {recipe.name}")
        _check(source, here, here, do="give the file that the recipe names")
        return here
    # Two addresses may end in one name.
    place = folder / hashlib.sha256(str(source.url).encode()).hexdigest()[:16] / source.name
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.part")
        _download(str(source.url), part)
        try:
            _check(source, part, Path(source.name), do="run again; if it stays, the file at the address has changed")
        except InputRefused:
            part.unlink()
            raise
        os.replace(part, place)
        part.with_name(f"{part.name}.tag").unlink(missing_ok=True)
    _check(source, place, place, do="remove it and run again")
    return place


def _check(source: Source, file: Path, shown: Path, do: str) -> None:
    for kind, stated in (("sha256", source.sha256), ("md5", source.md5)):
        if stated is None:
            continue
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, kind).hexdigest()
        if found != stated:
            raise InputRefused(f"its {kind} is {found}, the recipe states {stated}", where=str(shown), do=do)


def _download(url: str, part: Path) -> None:
    """Append to ``part`` what is still missing of ``url``."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    tag = part.with_name(f"{part.name}.tag")
    if start and tag.is_file():  # only of the very file that was begun; else the server sends all
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    own = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    opener = urllib.request.build_opener(_OnlyEncrypted, *own)
    try:
        with opener.open(request, timeout=WAIT) as answer:
            resumed = answer.status == 206
            log.info("fetching %s%s", url, f" from byte {start}" if resumed else "")
            expected = (start if resumed else 0) + int(answer.headers.get("Content-Length") or 0)
            _remember(tag, answer.headers.get("ETag"))
            with part.open("ab" if resumed else "wb") as handle:
                _copy(answer, handle, expected, part.name.removesuffix(".part"))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: all of it had come
            return
        raise Unreachable(f"{url}: the server says {error.code} ({error.reason}). What to do: {_HELP}") from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise InputRefused("no space left on the disk", where=str(part), do="free space and run again") from None
        reason = getattr(error, "reason", None) or error
        raise Unreachable(f"{url}: cannot be fetched ({reason}). What to do: {_HELP}") from None
    if expected and part.stat().st_size < expected:
        raise Unreachable(
            f"{url}: only {part.stat().st_size} of {expected} bytes came. What to do: run again, it goes on"
        )


def _remember(tag: Path, etag: str | None) -> None:
    """The server's name of this version of the file; a weak one (W/...) cannot be resumed by."""
    if etag and etag.startswith('"'):
        tag.write_text(etag, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


_HELP = "run again where there is a network (what came is kept), or fetch it by hand and write path: FILE into a recipe"


def _copy(answer: Any, handle: IO[bytes], expected: int, name: str) -> None:
    said = time.monotonic()
    every = 0.5 if sys.stderr.isatty() else SAY_EVERY
    while chunk := answer.read(CHUNK):
        handle.write(chunk)
        if time.monotonic() - said > every:
            said = time.monotonic()
            of = f" of {expected >> 20}" if expected else ""
            sys.stderr.write(f"  {name}: {handle.tell() >> 20}{of} MiB" + ("\r" if sys.stderr.isatty() else "\n"))


def hashes(file: Path) -> dict[str, str | int]:
    """What a card says of a file that was used."""
    with file.open("rb") as handle:
        return {"sha256": hashlib.file_digest(handle, "sha256").hexdigest(), "bytes": file.stat().st_size}
