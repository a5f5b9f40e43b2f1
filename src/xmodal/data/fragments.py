"""Fragments counted over given peaks, read block by block: ATAC over the very peaks that a checkpoint knows.

What is counted in a peak: cut sites, the first and the last base of each fragment, as Cell Ranger ARC does ("each element is
the number of cut sites": 10x Genomics, Cell Ranger ARC, Feature-Barcode Matrices); or every fragment that shares a base
with the peak once, as Signac's FeatureMatrix does (stuart-lab/signac, issues 965 and 1119).  A line of the file is one
fragment, however often it was read (fifth column).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from xmodal import progress
from xmodal.data import fragment_file
from xmodal.data.contracts import find_affix
from xmodal.data.intervals import Ints, chrom_keys, overlap_pairs
from xmodal.data.io import csr
from xmodal.data.peak_sets import PeakSet, checkpoint_peaks, read_peaks
from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import ATAC, CHROM, END, START

if TYPE_CHECKING:
    from xmodal.data.prepare_settings import PrepareSettings
    from xmodal.data.samples import Sample

log = logging.getLogger(__name__)
CUTS = "cuts"
LANE = 1 << 40  # room of a chromosome when all are laid on one line: more than any position of 12 digits
MERGE = 1 << 24  # counts that wait until they are added up: 200 MiB
EARLY = 20_000_000  # fragments after which a file in which nothing fits is given up
EVERY = 10_000_000  # fragments between two lines of progress
FEW_IN_PEAKS = 0.05  # libraries of poor quality have 0.1 and more; less is mostly another genome
SHOWN = 5


@dataclass(frozen=True)
class Counting:
    """Over which peaks, and how.  ``genome``: as the user says it.  ``least``: fragments that make a barcode a cell."""

    peaks: PeakSet
    count: Literal["cuts", "fragments"] = "cuts"
    least: int = 1000
    genome: str | None = None


def counting(settings: PrepareSettings) -> Counting:
    """What the options ask for; refused without peaks, or with two sets of them."""
    if settings.peaks and settings.checkpoint:
        raise UsageRefused("--peaks and --checkpoint: give one of them")
    if not settings.peaks and not settings.checkpoint:
        raise InputRefused(
            "nothing says over which peaks the fragments are to be counted",
            where="--fragments",
            do="give --checkpoint model.safetensors (the peaks it knows), or --peaks FILE (BED, or a file of peak counts)",
        )
    peaks = read_peaks(Path(settings.peaks)) if settings.peaks else checkpoint_peaks(Path(settings.checkpoint or ""))
    return Counting(peaks, settings.count, settings.min_fragments, settings.genome)


def count_into(sample: Sample, path: Path, how: Counting) -> None:
    """Count ``path`` as modality atac of ``sample``, over the cells that its other files name, where there are any.

    An atac matrix of the sample tells cells and labels only; its counts give way to the new ones.
    """
    cells = sample.labels.index.unique() if len(sample.labels.index) else None
    part, genome, facts = count(path, how, cells)
    if ATAC in sample.parts:
        log.info("%s: the counts of %s give way to those of the fragments", sample.name, sample.where[ATAC])
    sample.parts[ATAC], sample.where[ATAC], sample.genomes[ATAC] = part, f"{path} (atac)", genome
    sample.likelihoods.pop(ATAC, None)
    sample.fragments = facts
    if cells is None:
        sample.labels = pd.DataFrame(index=part.obs_names)
    else:  # a cell of which nothing is left is none
        left = [sample.labels.index.isin(p.obs_names) for p in sample.parts.values()]
        sample.labels = sample.labels[np.any(left, axis=0)]


def _followed(path: Path) -> Iterator[fragment_file.Block]:
    with progress.bar(100, path.name, "%") as bar:
        told = 0.0
        for block in fragment_file.read(path):
            yield block
            bar.add(round(100 * block.share) - round(100 * told))
            told = block.share


def count(path: Path, how: Counting, cells: pd.Index | None = None) -> tuple[ad.AnnData, str | None, dict[str, Any]]:
    """(cells, peaks) counts of a fragments file, its genome where known, and what was found.

    ``cells``: the barcodes to count; those without any fragment are left out.  Without them every barcode with at least
    ``how.least`` fragments is a cell, sorted by name.  Raises :class:`InputRefused` for what is no fragments file, another
    genome, or where no chromosome or no barcode fits.
    """
    head = fragment_file.read_head(path)
    genome = _one_genome(head.genome, how, path)
    tally = _Tally(how, cells)
    told = EVERY
    for block in _followed(path):
        tally.add(block.table)
        if tally.fragments > told:
            progress.line(
                log, "%s: %d million fragments, %.0f %%", path.name, tally.fragments // 1_000_000, 100 * block.share
            )
            told = tally.fragments + EVERY
        if tally.fragments > EARLY:
            _require_fit(tally, path, how, cells)
    _require_fit(tally, path, how, cells)
    names, matrix = tally.cells(how.least)
    if not len(names):
        raise InputRefused(
            f"no barcode has {how.least} fragments (the most: {tally.per_barcode.max():,})",
            where=str(path),
            do="lower --min-fragments, or give the cells with --rna FILE or --atac FILE",
        )
    facts = _facts(tally, how, matrix, names)
    _tell(path, facts, how, cells)
    if cells is not None and len(names) < len(cells) / 2:
        others = pd.Index(tally.names()[tally.given :])
        log.warning("warning: %s: %s", path, find_affix(cells, others, len(names)) or "are these the same cells?")
    return ad.AnnData(csr(matrix), obs=pd.DataFrame(index=names), var=how.peaks.table.copy()), genome, facts


class _Tally:
    """Counts so far, as sorted keys (row of the barcode x number of peaks + peak) with how often each came."""

    def __init__(self, how: Counting, cells: pd.Index | None) -> None:
        keys = chrom_keys(how.peaks.table[CHROM])
        self.lanes = {name: i for i, name in enumerate(dict.fromkeys(keys))}
        offset = keys.map(self.lanes).to_numpy(np.int64) * LANE
        table = how.peaks.table
        self.targets = (table[START].to_numpy(np.int64) + offset, table[END].to_numpy(np.int64) + offset)
        self.by_cuts = how.count == CUTS
        self.rows = {} if cells is None else {str(c): i for i, c in enumerate(cells)}
        self.given = None if cells is None else len(self.rows)
        self.per_barcode = np.zeros(len(self.rows), dtype=np.int64)
        self.in_peaks = np.zeros(len(self.rows), dtype=np.int64)  # cuts or fragments of each barcode that lie in a peak
        self.fragments = 0
        self.chroms: dict[str, bool] = {}  # of the file, in order: are there peaks on it?
        self.keys, self.times = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.waiting: list[tuple[Ints, Ints]] = []

    def add(self, table: pd.DataFrame) -> None:
        """One block of the file: chrom and barcode as categories, start, end."""
        self.fragments += len(table)
        barcodes = table[fragment_file.BARCODE].cat
        known = np.array([self.rows.setdefault(b, len(self.rows)) for b in barcodes.categories], dtype=np.int64)
        row = known[barcodes.codes.to_numpy()]
        self.per_barcode = _added(self.per_barcode, row, len(self.rows))
        chroms = pd.Series(table[CHROM].cat.categories.astype(str))
        lane = chrom_keys(chroms).map(self.lanes).fillna(-1).to_numpy(np.int64)
        self.chroms |= {c: bool(n >= 0) for c, n in zip(chroms, lane, strict=True)}
        lane = lane[table[CHROM].cat.codes.to_numpy()]
        use = lane >= 0
        if self.given is not None:
            use &= row < self.given
        at = lane[use] * LANE
        self._count(row[use], at + table[START].to_numpy()[use], at + table[END].to_numpy()[use])

    def _count(self, row: Ints, start: Ints, end: Ints) -> None:
        if self.by_cuts:
            row, start = np.concatenate([row, row]), np.concatenate([start, end - 1])
            end = start + 1
        hit, peak = overlap_pairs((start, end), self.targets)
        once = hit[np.diff(hit, prepend=-1) > 0]  # in two peaks that overlap it is still one
        self.in_peaks = _added(self.in_peaks, row[once], len(self.rows))
        keys, times = np.unique(row[hit] * len(self.targets[0]) + peak, return_counts=True)
        self.waiting.append((keys, times))
        if sum(len(k) for k, _ in self.waiting) > max(MERGE, len(self.keys)):
            self._merge()

    def _merge(self) -> None:
        keys = np.concatenate([self.keys, *(k for k, _ in self.waiting)])
        times = np.concatenate([self.times, *(t for _, t in self.waiting)])
        self.waiting = []
        order = np.argsort(keys, kind="stable")
        keys, times = keys[order], times[order]
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
        self.keys, self.times = keys[first], np.add.reduceat(times, first) if len(first) else times

    def cells(self, least: int) -> tuple[pd.Index, sp.csr_matrix]:
        """The cells and their counts, int32 CSR (cells, peaks)."""
        self._merge()
        width, height = len(self.targets[0]), len(self.rows)
        start = np.searchsorted(self.keys, np.arange(height + 1, dtype=np.int64) * width)
        matrix = sp.csr_matrix((self.times.astype(np.int32), self.keys % width, start), shape=(height, width))
        names = self.names()
        if self.given is not None:
            rows = np.flatnonzero(self.per_barcode[: self.given] > 0)
        else:
            rows = np.flatnonzero(self.per_barcode >= least)
            rows = rows[np.argsort(names[rows])]
        return pd.Index(names[rows], dtype=object), matrix[rows]

    def names(self) -> np.ndarray:
        """All barcodes, by row: the given ones first, then those that came up in the file besides."""
        return np.array(list(self.rows), dtype=object)

    def matched(self) -> bool:
        return self.given is None or bool(self.per_barcode[: self.given].any())


def _added(before: Ints, rows: Ints, height: int) -> Ints:
    """``before``, made longer, with how often each row comes up in ``rows`` added."""
    total = np.bincount(rows, minlength=height)
    total[: len(before)] += before
    return total


def _one_genome(said: str | None, how: Counting, path: Path) -> str | None:
    """The genome of file, peaks and user; refused before anything is counted where two are named."""
    from xmodal.data.genome import normal_genome

    named = {str(path): said, how.peaks.where: how.peaks.genome, "--genome": normal_genome(how.genome)}
    known = {who: g for who, g in named.items() if g}
    if len(set(known.values())) > 1:
        raise InputRefused(
            f"the genomes differ ({', '.join(f'{who}: {g}' for who, g in known.items())})",
            where=str(path),
            do="give peaks of the genome that the fragments were aligned to",
        )
    return next(iter(known.values()), None)


def _require_fit(tally: _Tally, path: Path, how: Counting, cells: pd.Index | None) -> None:
    """Refuse where no chromosome has peaks, or no barcode is a cell."""
    if not any(tally.chroms.values()):
        own = ", ".join(list(tally.chroms)[:SHOWN])
        peaks = ", ".join(how.peaks.table[CHROM].astype(str).unique()[:SHOWN])
        raise InputRefused(
            f"no chromosome of the fragments has a peak (fragments: {own}; peaks: {peaks})",
            where=str(path),
            do="give peaks and fragments of one genome whose chromosomes are named alike",
        )
    if cells is not None and not tally.matched():
        found = pd.Index(tally.names()[tally.given :])
        shown = [", ".join(map(str, names[:SHOWN])) for names in (found, cells)]
        raise InputRefused(
            f"none of its barcodes is a cell (fragments: {shown[0]}; cells: {shown[1]})",
            where=str(path),
            do=find_affix(cells, found, 0) or "give the fragments of the same cells",
        )


def _facts(tally: _Tally, how: Counting, matrix: sp.csr_matrix, names: pd.Index) -> dict[str, Any]:
    """Numbers for the summary; ``in_peaks``: share of the cells' cut sites (or fragments) that lie in peaks."""
    rows = [tally.rows[str(n)] for n in names]
    own = int(tally.per_barcode[rows].sum())
    return {
        "fragments": tally.fragments,
        "barcodes": int((tally.per_barcode > 0).sum()),
        "cells": len(names),
        "fragments_of_cells": own,
        "in_peaks": round(int(tally.in_peaks[rows].sum()) / max(1, own * (2 if tally.by_cuts else 1)), 4),
        "peaks": matrix.shape[1],
        "peaks_from": Path(how.peaks.where).name,
        "count": how.count,
        "cells_from": "the other files" if tally.given is not None else f"at least {how.least} fragments",
        "renamed_chromosomes": _renamed(tally, how),
    }


def _renamed(tally: _Tally, how: Counting) -> bool:
    """Whether chromosomes are called otherwise in the peaks (1 and chr1) and were matched all the same."""
    own = set(how.peaks.table[CHROM].astype(str))
    return any(fits and name not in own for name, fits in tally.chroms.items())


def _tell(path: Path, facts: dict[str, Any], how: Counting, cells: pd.Index | None) -> None:
    log.info(
        "%s: %d fragments, %d of them of %d cells (%s); %.1f %% of the %s of the cells lie in %d peaks of %s",
        path.name,
        facts["fragments"],
        facts["fragments_of_cells"],
        facts["cells"],
        facts["cells_from"],
        100 * facts["in_peaks"],
        "cut sites" if how.count == CUTS else "fragments",
        facts["peaks"],
        facts["peaks_from"],
    )
    if facts["renamed_chromosomes"]:
        log.info(
            "%s: its chromosomes are called otherwise than those of the peaks: chr1 and 1 are taken as one", path.name
        )
    if cells is not None and facts["cells"] < len(cells):
        log.warning("warning: %s: %d of %d cells have no fragment", path.name, len(cells) - facts["cells"], len(cells))
    if facts["in_peaks"] < FEW_IN_PEAKS:
        log.warning("warning: %s: hardly anything lies in the peaks. Are they of the same genome?", path.name)
