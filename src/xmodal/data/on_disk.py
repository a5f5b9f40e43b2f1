"""Count matrices that stay in their file: rows are read as they are asked for, so that memory does not grow with the cells.

anndata's backed matrices read one row after another; here rows that lie close together are read in one piece, which a
shuffled minibatch needs.  What a file may be (entries out of order, counted twice, zeros that are stored) and what is done to
features (reordered, mapped to a checkpoint's) is put right block by block, as it is for a matrix in memory: results are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from anndata.abc import CSRDataset

from xmodal.data import stores
from xmodal.data.broken import Stamp, refusing

Index = npt.NDArray[np.int64]
Step = Callable[[sp.csr_matrix], sp.csr_matrix]  # what is done to the rows of a block, each by itself
BLOCK = 2_000_000  # entries of a block: 16 MB
GAP = 16_384  # entries between two rows that are read and thrown away: cheaper than another call (128 kB, 0.1 ms)
CACHE = 8 << 20  # bytes of unpacked pieces that HDF5 keeps: neighbouring blocks share one


def csr(matrix: Any) -> sp.csr_matrix:
    """Any (cells, features) matrix as canonical float32 CSR."""
    result = sp.csr_matrix(matrix if sp.issparse(matrix) else np.asarray(matrix), dtype=np.float32)
    result.sum_duplicates()
    if not result.data.all():  # a stored zero is no count
        result = result.copy()  # its arrays may be those of the matrix that was given
        result.eliminate_zeros()
    return result


class Source(Protocol):
    """Where rows come from.  ``sizes``: stored entries of each row, (cells,); ``kind``: of the values."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def kind(self) -> np.dtype[Any]: ...

    @property
    def sizes(self) -> Index: ...

    def read(self, rows: Index) -> Any:
        """The rows, which ascend and are all different, as they are stored: CSR or dense."""


@dataclass(frozen=True)
class Held:
    """A matrix in memory among those on disk: samples of one study may lie in files of all sizes."""

    matrix: sp.csr_matrix

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.matrix.shape)

    @property
    def kind(self) -> np.dtype[Any]:
        return np.dtype(self.matrix.dtype)

    @cached_property
    def sizes(self) -> Index:
        return np.diff(self.matrix.indptr).astype(np.int64)

    def read(self, rows: Index) -> sp.csr_matrix:
        return self.matrix[rows]


class File:
    """An HDF5 file that stays open, or a Zarr store, and must stay what it was."""

    def __init__(self, path: Path) -> None:
        self.path, self.stamp = path, Stamp.of(path)
        self.handle = stores.open_store(path, rdcc_nbytes=CACHE)

    def read(self, dataset: Any, first: int, last: int) -> npt.NDArray[Any]:
        """A piece of a dataset, as it was when the file was opened."""
        with refusing(self.path):
            try:
                found: npt.NDArray[Any] = np.asarray(dataset[first:last])
            except OSError:
                self.stamp.require_same()  # the reason, where a file was cut short under us
                raise
            self.stamp.require_same()
            return found


class StoredRows:
    """CSR in a file: a group with ``data``, ``indices`` and ``indptr``, which alone is held (8 bytes a cell)."""

    def __init__(self, file: File, group: Any) -> None:
        self.file, self.data, self.indices = file, group["data"], group["indices"]
        self.starts = group["indptr"][:].astype(np.int64)
        stores.require_whole(group, file.path)
        rows, width = (int(n) for n in group.attrs["shape"])
        self.shape, self.kind = (rows, width), np.dtype(self.data.dtype)

    @cached_property
    def sizes(self) -> Index:
        return np.diff(self.starts)

    def read(self, rows: Index) -> sp.csr_matrix:
        low, high = self.starts[rows], self.starts[rows + 1]
        data, column = [], []
        for run in _runs(low, high):
            first, last = int(low[run.start]), int(high[run.stop - 1])
            pieces = [self.file.read(part, first, last) for part in (self.data, self.indices)]
            sizes = high[run] - low[run]
            if int(sizes.sum()) < last - first:
                kept = _ranges(low[run] - first, sizes)
                pieces = [piece[kept] for piece in pieces]
            data.append(pieces[0])
            column.append(pieces[1])
        starts = np.concatenate([[0], np.cumsum(high - low)])
        # scipy takes the smallest whole numbers that will do; with those of the file a block would differ from the whole
        return sp.csr_matrix((_joined(data, self.kind), _joined(column, np.int32), starts), (len(rows), self.shape[1]))


class StoredArray:
    """A dense matrix in a file."""

    def __init__(self, file: File, dataset: Any) -> None:
        self.file, self.dataset, self.kind = file, dataset, np.dtype(dataset.dtype)
        self.shape = int(dataset.shape[0]), int(dataset.shape[1])

    @cached_property
    def sizes(self) -> Index:
        return np.full(self.shape[0], self.shape[1], np.int64)

    def read(self, rows: Index) -> npt.NDArray[Any]:
        width = self.shape[1]
        parts = [np.zeros((0, width), self.kind)]
        for run in _runs(rows * width, (rows + 1) * width):
            first, last = int(rows[run.start]), int(rows[run.stop - 1]) + 1
            parts.append(self.file.read(self.dataset, first, last)[rows[run] - first])
        return np.concatenate(parts) if len(parts) != 2 else parts[1]


def _runs(low: Index, high: Index) -> Iterator[slice]:
    """Rows that are read in one piece: those between which there is little."""
    if len(low):
        edges = [0, *(np.flatnonzero(low[1:] - high[:-1] > GAP) + 1), len(low)]
        for first, last in pairwise(edges):
            yield slice(int(first), int(last))


def _ranges(first: Index, sizes: Index) -> Index:
    """``first[0], first[0] + 1, ...`` (``sizes[0]`` of them), then those of the next."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) + np.repeat(first - (ends - sizes), sizes)


def _joined(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, dtype)


@dataclass(frozen=True)
class Part:
    """Rows of one source and what is done to them in turn."""

    source: Source
    steps: tuple[Step, ...] = ()

    def read(self, rows: Index) -> sp.csr_matrix:
        found = csr(self.source.read(rows))
        for step in self.steps:
            found = step(found)
        return found


@dataclass(frozen=True)
class Known:
    """What one look at all values says: as :func:`xmodal.data.contracts.survey`, and of each row its sum and entries."""

    finite: bool
    least: float
    largest: float
    whole: bool
    totals: npt.NDArray[np.float64]
    sums: npt.NDArray[np.float32]
    sizes: Index


class OnDisk(CSRDataset):
    """Counts (cells, features) on disk, in the place of a CSR matrix: ``[rows]`` reads them, float32.

    ``rows``: which of the sources' rows these are, one source after the other, -1 for a cell without any; None: all.
    """

    format = "csr"
    backend = "hdf5"
    dtype = np.dtype(np.float32)

    def __init__(self, parts: Sequence[Part], width: int, rows: Index | None = None) -> None:
        self.parts, self.rows = tuple(parts), rows
        self.first = np.concatenate([[0], np.cumsum([p.source.shape[0] for p in self.parts])]).astype(np.int64)
        self.shape = (int(self.first[-1]) if rows is None else len(rows)), width
        self._known: Known | None = None

    def __getitem__(self, index: Any) -> sp.csr_matrix:
        """Cells (a slice, positions in any order, or a mask) in memory."""
        rows = _positions(index, self.shape[0])
        rows = rows if self.rows is None else self.rows[rows]
        order = rows if len(rows) < 2 or (np.diff(rows) > 0).all() else np.unique(rows)
        found = self._read(order)
        if order is rows:
            return found
        return found[np.searchsorted(order, rows)]

    def _read(self, rows: Index) -> sp.csr_matrix:
        """Rows of the sources, which ascend; -1 is an empty one."""
        found = [sp.csr_matrix((int((rows < 0).sum()), self.shape[1]), dtype=np.float32)]
        for part, first, last in zip(self.parts, self.first[:-1], self.first[1:], strict=True):
            own = rows[(rows >= first) & (rows < last)] - first
            if len(own):
                found.append(part.read(own))
        found = [x for x in found if x.shape[0]] or found
        return found[0] if len(found) == 1 else sp.vstack(found, format="csr")

    def to_memory(self) -> sp.csr_matrix:
        return self[:]

    def copy(self) -> OnDisk:
        return self

    def take(self, rows: Any) -> OnDisk:
        """Cells (positions or a mask; -1: an empty one) that stay on disk."""
        rows = _positions(rows, self.shape[0])
        own = rows if self.rows is None else np.where(rows < 0, -1, self.rows[rows])
        found = OnDisk(self.parts, self.shape[1], own)
        if self._known is not None:
            found._known = _of_rows(self._known, rows)
        return found

    def then(self, step: Step, width: int) -> OnDisk:
        """The same cells with something done to each row, which leaves ``width`` features."""
        return OnDisk([Part(p.source, (*p.steps, step)) for p in self.parts], width, self.rows)

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """All cells in turn, so many at once or as many as have ``BLOCK`` entries: which they are, and they."""
        for part in parts_of(self.stored, rows):
            yield part, self[part]

    @property
    def alone(self) -> Source | None:
        """Where the cells come from, if it is one place, and they are in its order and nothing is done to them."""
        plain = len(self.parts) == 1 and not self.parts[0].steps
        inside = self.rows is None or (
            len(self.rows) > 0 and self.rows[0] >= 0 and bool((np.diff(self.rows) > 0).all())
        )
        return self.parts[0].source if plain and inside else None

    @property
    def stored(self) -> Index:
        """Entries of each cell as they are stored, before anything is done to them, (cells,)."""
        sizes = np.concatenate([p.source.sizes for p in self.parts])
        return sizes if self.rows is None else np.where(self.rows < 0, 0, sizes[self.rows])

    @property
    def known(self) -> Known:
        """Found in one pass over all blocks, and kept."""
        if self._known is None:
            self._known = _looked_at(self)
        return self._known

    @property
    def sizes(self) -> Index:
        """Entries of each cell, (cells,)."""
        return self.known.sizes

    def sum(self, axis: int, dtype: Any = None) -> npt.NDArray[Any]:
        """As that of a CSR matrix, bit for bit: (1, features) or (cells, 1)."""
        if axis == 1:
            return (self.known.totals if dtype == np.float64 else self.known.sums)[:, None]
        total = sp.csr_matrix((1, self.shape[1]), dtype=np.float32)
        for _, block in self.blocks():
            total = sp.csr_matrix(sp.vstack([total, block], format="csr").sum(0))
        return total.toarray()


def parts_of(entries: Index, rows: int | None) -> Iterator[slice]:
    """Cells with so many ``entries`` each, so many ``rows`` at once or as many as have ``BLOCK`` entries."""
    cells = len(entries)
    if rows is not None:
        edges = [*range(0, cells, rows), cells]
    else:
        turn = np.cumsum(entries) // BLOCK
        edges = [0, *(np.flatnonzero(np.diff(turn)) + 1), cells]
    for first, last in pairwise(edges):
        if last > first:
            yield slice(int(first), int(last))


def _positions(index: Any, length: int) -> Index:
    if isinstance(index, slice):
        return np.arange(*index.indices(length))
    index = np.asarray(index)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64, copy=False)


def stacked(matrices: Sequence[Any]) -> Any:
    """The cells of all matrices, one after the other; in memory where all of them are."""
    if not any(isinstance(x, OnDisk) for x in matrices):
        return sp.vstack(matrices, format="csr")
    whole = [x if isinstance(x, OnDisk) else OnDisk([Part(Held(x))], x.shape[1]) for x in matrices]
    first = np.cumsum([0, *(int(x.first[-1]) for x in whole)])
    rows = []
    for x, start in zip(whole, first[:-1], strict=True):
        own = np.arange(x.shape[0]) if x.rows is None else x.rows
        rows.append(np.where(own < 0, -1, own + start))
    return OnDisk([p for x in whole for p in x.parts], whole[0].shape[1], np.concatenate(rows))


def _looked_at(matrix: OnDisk) -> Known:
    from xmodal.data.contracts import survey

    cells = matrix.shape[0]
    totals, sums, sizes = np.zeros(cells), np.zeros(cells, np.float32), np.zeros(cells, np.int64)
    finite, least, largest, whole = True, 0.0, 0.0, True
    for rows, block in matrix.blocks():
        fine, low, high, integer = survey(block)
        finite, least, largest = finite and fine, min(least, low), max(largest, high)
        whole = whole and integer
        totals[rows] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        sums[rows] = np.asarray(block.sum(axis=1)).ravel()
        sizes[rows] = np.diff(block.indptr)
    return Known(finite, least, largest, whole, totals, sums, sizes)


def _of_rows(known: Known, rows: Index) -> Known:
    """The same for some of the cells; what holds for all values holds for theirs."""
    there = rows >= 0
    totals, sums = known.totals[rows] * there, known.sums[rows] * there.astype(np.float32)
    return Known(known.finite, known.least, known.largest, known.whole, totals, sums, known.sizes[rows] * there)


Counts: TypeAlias = sp.csr_matrix | OnDisk


def entries(matrix: Any) -> Index:
    """Entries of each cell of a matrix in memory, packed or on disk, (cells,)."""
    return np.diff(matrix.indptr) if sp.issparse(matrix) else matrix.sizes


def blocks(matrix: Counts) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """The cells of a matrix in memory or on disk in turn, as :meth:`OnDisk.blocks`."""
    yield from (matrix if isinstance(matrix, OnDisk) else OnDisk([Part(Held(matrix))], matrix.shape[1])).blocks()


def taken(matrix: Any, rows: Any) -> Any:
    """Cells of a matrix, which stay where they are: in memory or on disk."""
    return matrix.take(rows) if isinstance(matrix, OnDisk) else matrix[rows]


def held(matrix: Any) -> sp.csr_matrix:
    """The matrix in memory."""
    return matrix.to_memory() if isinstance(matrix, OnDisk) else matrix
