"""Peaks to count over: those of a checkpoint, of a BED file, or of a file that holds a matrix of peaks."""

from __future__ import annotations

import gzip
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from xmodal.data import features, io
from xmodal.data.genome import genome_of, normal_genome
from xmodal.data.intervals import parse_peaks, peak_names
from xmodal.errors import InputRefused
from xmodal.fields import ATAC, CHROM, END, START

log = logging.getLogger(__name__)
GZIP = b"\x1f\x8b"
HDF5 = b"\x89HDF"
HEADS = ("#", "track", "browser")  # lines of a BED file that are no intervals
DIGITS = 12  # of a position, as in names of peaks
NOT_BED = "give a BED file (chrom, start, end, separated by tabs), or a file of peak counts (h5ad, h5mu, 10x h5)"


@dataclass(frozen=True)
class PeakSet:
    """``table``: chrom, start, end (0-based, half-open), named ``chrom:start-end``; the genome where it is known."""

    table: pd.DataFrame
    genome: str | None
    where: str


def checkpoint_peaks(path: Path) -> PeakSet:
    """All peaks of the modality ``atac`` of a checkpoint, in its order; refused where it has none."""
    from xmodal.learning import checkpoint

    known = {m["name"]: m for m in checkpoint.read_header(path)["vocabulary"]["modalities"]}
    if ATAC not in known:
        raise InputRefused(
            f"the checkpoint has no modality 'atac' (it has {', '.join(known)}), so no peaks to count over",
            where=str(path),
            do="give a checkpoint that knows ATAC, or --peaks FILE",
        )
    table = parse_peaks(known[ATAC]["features"])
    table.index = pd.Index(known[ATAC]["features"])  # as the checkpoint names them, whatever the form
    return PeakSet(table, normal_genome(known[ATAC]["genome"]), str(path))


def read_peaks(path: Path) -> PeakSet:
    """Peaks of a BED file (also gzipped), or of the modality ``atac`` of an h5ad, h5mu or 10x h5."""
    if not path.is_file():
        raise InputRefused("there is no such file", where=str(path), do="check the path given as --peaks")
    with path.open("rb") as file:
        start = file.read(4)
    if start == HDF5:
        mdata = io.read_cells(path, None)
        if ATAC not in mdata.mod:
            held = f"no peaks (it holds {', '.join(mdata.mod)})"
            raise InputRefused(f"there are {held} in it", where=str(path), do=NOT_BED)
        named = features.name_peaks(mdata.mod[ATAC], str(path))
        return PeakSet(_once(named.var[[CHROM, START, END]], path), genome_of(mdata, ATAC), str(path))
    return PeakSet(_once(_read_bed(path, start.startswith(GZIP)), path), None, str(path))


def _read_bed(path: Path, zipped: bool) -> pd.DataFrame:
    try:
        text = (gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputRefused(f"the peaks cannot be read ({error})", where=str(path), do=NOT_BED) from None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("\t")
        if not line.strip() or line.startswith(HEADS):
            continue
        if not _is_interval(parts):
            shown = line if len(line) <= 60 else f"{line[:60]}..."
            raise InputRefused(f"line {number} is no interval: '{shown}'", where=str(path), do=NOT_BED)
        rows.append((parts[0], int(parts[1]), int(parts[2])))
    if not rows:
        raise InputRefused("there are no peaks in it", where=str(path), do=NOT_BED)
    table = pd.DataFrame(rows, columns=[CHROM, START, END])
    table.index = peak_names(table)
    return table


def _is_interval(parts: list[str]) -> bool:
    """chrom, start, end with start < end; other columns do not matter."""
    if len(parts) < 3 or not all(p.isascii() and p.isdecimal() and len(p) <= DIGITS for p in parts[1:3]):
        return False
    return int(parts[1]) < int(parts[2])


def _once(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    again = table.index.duplicated()
    if again.any():
        log.warning("warning: %s: %d peaks stand there twice and are counted once", path, again.sum())
    return table[~again]
