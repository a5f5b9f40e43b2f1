"""Fragments files (10x Genomics: chrom, start, end, barcode, read count), in blocks of whole lines; nothing else is held.

Plain, gzip or bgzip; an index beside it is not needed.  Format: 10x Genomics, Cell Ranger ARC, Fragments File.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from xmodal.data.genome import ALIASES, normal_genome
from xmodal.errors import InputRefused
from xmodal.fields import CHROM, END, START

GZIP = b"\x1f\x8b"
BGZIP = b"\x1f\x8b\x08\x04"
# The empty block that ends every bgzip file (SAM specification, 4.1.2)
BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
BARCODE = "barcode"
COLUMNS = [CHROM, START, END, BARCODE]
BLOCK = 1 << 25  # 32 MiB of text, 700,000 fragments
LONGEST = 1 << 20  # a line longer than this is no line
FURTHEST = 10**12  # no position has more digits
HEAD_LINES = 1000
WANTED = "give a fragments file: chrom, start, end, barcode and a count, separated by tabs (as Cell Ranger ARC writes)"


@dataclass(frozen=True)
class Head:
    """What the beginning of a file says: its genome, where a comment names it, and its first fragments."""

    genome: str | None
    table: pd.DataFrame


@dataclass(frozen=True)
class Block:
    """``table``: chrom and barcode as categories, start and end int64; ``share``: how far the file is read, 0 to 1."""

    table: pd.DataFrame
    share: float


def read_head(path: Path) -> Head:
    """The first lines, checked; refused where this is no fragments file."""
    _require_file(path)
    comments: list[bytes] = []
    lines: list[bytes] = []
    with _refusing(path), _opened(path) as (stream, _):
        while len(lines) < HEAD_LINES and (line := stream.readline(LONGEST)):
            (comments if line.startswith(b"#") else lines).append(line)
    if not any(line.strip() for line in lines):
        raise InputRefused("there are no fragments in it", where=str(path), do="copy or download it again")
    text = b"".join(lines)
    return Head(_genome(comments), _parse(text if text.endswith(b"\n") else text + b"\n", path, len(comments) + 1))


def read(path: Path) -> Iterator[Block]:
    """All fragments, block by block; refused at the first line that is none, and where the file is cut."""
    _require_file(path)
    line = 1
    with _refusing(path):
        for text, share in _texts(path):
            table = _parse(text, path, line)
            line += text.count(b"\n")
            if len(table):
                yield Block(table, share)


def is_fragments(path: Path) -> bool:
    """Whether the name, or being gzip, makes it look like a fragments file rather than one of cells."""
    if path.name.endswith((".tsv.gz", ".tsv", ".bed.gz", ".bed")):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == GZIP


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputRefused("there is no such file", where=str(path), do="check the path of the fragments file")
    size = path.stat().st_size
    if size == 0:
        raise InputRefused("the file is empty (0 bytes)", where=str(path), do="copy or download it again")
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(max(0, size - len(BGZIP_END)))
        end = file.read()
    if start == BGZIP and end != BGZIP_END:
        raise InputRefused(
            "the file is truncated (its closing bgzip block is missing)",
            where=str(path),
            do="copy or download it again; if it is whole, write it anew: zcat FILE | bgzip > NEW",
        )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """(the text, the file below it)."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
        yield stream, raw


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise InputRefused(
            "the file is truncated (its gzip stream ends early)", where=str(path), do="copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputRefused(
            f"its gzip stream is broken ({error})", where=str(path), do="copy or download it again"
        ) from None


def _texts(path: Path) -> Iterator[tuple[bytes, float]]:
    size, rest = path.stat().st_size, b""
    with _opened(path) as (stream, raw):
        while data := stream.read(BLOCK):
            cut = data.rfind(b"\n") + 1
            if not cut and len(rest) + len(data) > LONGEST:
                raise InputRefused("it has no lines", where=str(path), do=WANTED)
            if cut:
                yield rest + data[:cut], raw.tell() / size
            rest = data[cut:] if cut else rest + data
        if rest:
            yield rest + b"\n", 1.0


def _parse(text: bytes, path: Path, first: int) -> pd.DataFrame:
    """The fragments of ``text``, whose first line has the number ``first``."""
    whole = text
    if text.startswith(b"#") or b"\n#" in text:  # comments also where files were put one after another
        text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))
    if not text.strip():
        return pd.DataFrame({c: [] for c in COLUMNS})
    try:
        table = pd.read_csv(
            io.BytesIO(text),
            sep="\t",
            header=None,
            names=COLUMNS,
            usecols=[0, 1, 2, 3],
            dtype={CHROM: "category", START: np.int64, END: np.int64, BARCODE: "category"},
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            low_memory=False,
        )
    except (ValueError, OverflowError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise _wrong(whole, path, first) or InputRefused(str(error), where=str(path), do=WANTED) from None
    start, end = table[START].to_numpy(), table[END].to_numpy()
    odd = (start < 0) | (end <= start) | (end > FURTHEST)
    if odd.any() or "" in table[BARCODE].cat.categories or "" in table[CHROM].cat.categories:
        raise _wrong(whole, path, first) or InputRefused("a line is no fragment", where=str(path), do=WANTED)
    return table


def _wrong(text: bytes, path: Path, first: int) -> InputRefused | None:
    """The refusal of the first line that is no fragment."""
    for number, line in enumerate(text.decode(errors="replace").splitlines(), first):
        if not line.strip() or line.startswith("#"):
            continue
        if reason := _reason(line.split("\t")):
            shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.replace("\t", " "))
            shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
            return InputRefused(f"line {number} is no fragment: {reason} ('{shown}')", where=str(path), do=WANTED)
    return None


def _reason(parts: list[str]) -> str:
    if len(parts) < len(COLUMNS):
        return f"it has {len(parts)} of {len(COLUMNS)} columns"
    for name, value in zip((START, END), parts[1:3], strict=True):
        if not value.strip().isdecimal():
            return f"its {name} is '{value[:20]}'"
    if int(parts[1]) >= int(parts[2]) or int(parts[2]) > FURTHEST:
        return "its start is not before its end" if int(parts[1]) >= int(parts[2]) else "its end is too large"
    return "" if parts[0] and parts[3] else "its chromosome or barcode is empty"


def _genome(comments: list[bytes]) -> str | None:
    """The genome that Cell Ranger's ``# reference_path=.../refdata-cellranger-arc-GRCh38-2020-A`` names."""
    for line in comments:
        name, _, value = line.decode(errors="replace").lstrip("# ").partition("=")
        if name.strip() in ("reference_path", "genome"):
            found = normal_genome(value.strip().rstrip("/").rsplit("/", 1)[-1])
            if found in ALIASES.values():
                return found
    return None
