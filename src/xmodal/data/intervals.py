"""Peak names and overlap of intervals.  All coordinates are 0-based and half-open."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from xmodal.errors import InputRefused
from xmodal.fields import CHROM, END, START

Ints = npt.NDArray[np.int64]
# chrom may hold '-' and '_' (chrUn_KI270302v1), so the two numbers are taken from the right
PEAK = r"^([^:\s]+)[:_-](\d{1,12})[_-](\d{1,12})$"


def split_peaks(names: Iterable[str]) -> pd.DataFrame:
    """``chrom, start, end`` (nullable) of each name; NA where the name is not a peak's."""
    series = pd.Series(list(names), dtype=str)
    table = series.str.extract(PEAK)
    table.columns = pd.Index([CHROM, START, END])
    for column in (START, END):
        table[column] = pd.to_numeric(table[column]).astype("Int64")
    table.loc[~(table[START] < table[END]).fillna(False).to_numpy(bool), :] = pd.NA
    return table


def parse_peaks(names: Iterable[str]) -> pd.DataFrame:
    """Peak names -> DataFrame(chrom str, start int64, end int64), one row per name, in order.

    Accepts ``chr1:10-20``, ``chr1-10-20`` and ``chr1_10_20``; the numbers are taken as they are (0-based, half-open).
    Raises :class:`InputRefused` that names the first five which do not parse or do not have start < end.
    """
    names = list(names)
    table = split_peaks(names)
    bad = np.flatnonzero(table[CHROM].isna().to_numpy())
    if len(bad):
        shown = ", ".join(f"'{names[i]}'" for i in bad[:5])
        raise InputRefused(
            f"{len(bad)} of {len(names)} peak names do not parse: {shown}",
            where="atac",
            do="name peaks chrom:start-end with start < end (chr1:9999-10500)",
        )
    return table.astype({CHROM: str, START: np.int64, END: np.int64})


def peak_names(peaks: pd.DataFrame) -> pd.Index:
    """The one way a peak is written: ``chrom:start-end``."""
    return pd.Index(peaks[CHROM].astype(str) + ":" + peaks[START].astype(str) + "-" + peaks[END].astype(str))


def chrom_keys(chroms: pd.Series) -> pd.Series:
    """Names by which chromosomes are compared: ``chr1`` and ``1``, ``chrM`` and ``MT`` are the same."""
    bare = chroms.astype(str).str.replace(r"^chr", "", regex=True, case=False)
    return bare.replace({"MT": "M"})


def on_one_line(*tables: pd.DataFrame) -> list[tuple[Ints, Ints]]:
    """Start and end of each table's intervals with the chromosomes laid one after another, far enough apart."""
    codes, _ = pd.factorize(pd.concat([chrom_keys(t[CHROM]) for t in tables], ignore_index=True))
    longest = max((int(t[END].max()) for t in tables if len(t)), default=0)
    step = 2 * longest + 10_000_000  # wider than any window laid around an interval
    lines, at = [], 0
    for table in tables:
        offset = codes[at : at + len(table)].astype(np.int64) * step
        lines.append((table[START].to_numpy(np.int64) + offset, table[END].to_numpy(np.int64) + offset))
        at += len(table)
    return lines


def overlap_pairs(query: tuple[Ints, Ints], target: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Indices (query, target) of all pairs of intervals that share at least one base; target may be nested."""
    q_start, q_end = query
    order = np.argsort(target[0], kind="stable")
    t_start, t_end = target[0][order], target[1][order]
    # Sorted by start, all targets before `low` end before the query starts, all from `high` on start after its end.
    low = np.searchsorted(np.maximum.accumulate(t_end), q_start, side="right")
    high = np.searchsorted(t_start, q_end, side="left")
    counts = np.maximum(high - low, 0)
    rows = np.repeat(np.arange(len(q_start)), counts)
    first = np.cumsum(counts) - counts
    columns = np.arange(len(rows)) - np.repeat(first - low, counts)
    keep = t_end[columns] > q_start[rows]
    return rows[keep], order[columns[keep]]


def overlap_map(query: pd.DataFrame, target: pd.DataFrame) -> sp.csr_matrix:
    """Which peaks overlap: bool CSR (query, target), from tables with chrom, start, end."""
    q, t = on_one_line(query, target)
    rows, columns = overlap_pairs(q, t)
    ones = np.ones(len(rows), dtype=bool)
    return sp.csr_matrix((ones, (rows, columns)), shape=(len(query), len(target)), dtype=bool)
