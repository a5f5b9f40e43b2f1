"""Counts in memory in as few bytes as hold them exactly, three each instead of eight: a file is read once for many epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.data.on_disk import Index, Known, OnDisk

MOST = 8  # bytes of an entry, of values that are no small whole numbers


@dataclass(frozen=True)
class Packed:
    """Counts (cells, features); ``[rows]`` gives some of the cells as float32 CSR, as the matrix it was made of would.

    ``value``, ``column`` (entries,) as they were read; ``first`` and ``sizes`` say where each cell's are, (cells,).
    """

    value: npt.NDArray[Any]
    column: npt.NDArray[Any]
    first: Index
    sizes: Index
    width: int

    @classmethod
    def of(cls, matrix: OnDisk) -> Packed:
        """Read ``matrix`` once from front to end, in whatever order its cells are."""
        sizes, total = matrix.sizes, int(matrix.sizes.sum())
        value, column = np.empty(total, _of_values(matrix.known)), np.empty(total, _of_columns(matrix.shape[1]))
        first, done = np.zeros(len(sizes), np.int64), 0
        order = np.arange(len(sizes)) if matrix.rows is None else np.argsort(matrix.rows, kind="stable")
        for some, block in matrix.take(order).blocks():
            rows = order[some]
            block.sort_indices()
            value[done : done + block.nnz], column[done : done + block.nnz] = block.data, block.indices
            first[rows] = done + block.indptr[:-1]
            done += block.nnz
        return cls(value, column, first, sizes, matrix.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.first), self.width

    def __getitem__(self, rows: Any) -> sp.csr_matrix:
        first, sizes = self.first[rows], self.sizes[rows]
        pieces = [slice(a, b) for a, b in zip(first.tolist(), (first + sizes).tolist(), strict=True)]
        value, column = (np.concatenate([kept[:0], *(kept[p] for p in pieces)]) for kept in (self.value, self.column))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        shape = len(first), self.width
        return sp.csr_matrix((value.astype(np.float32), column.astype(np.int32), starts.astype(np.int32)), shape)


def _of_values(known: Known) -> Any:
    """The smallest type that holds all values exactly."""
    if not (known.finite and known.whole and known.least >= 0):
        return np.float32
    return next((kind for kind in (np.uint8, np.uint16) if known.largest <= np.iinfo(kind).max), np.float32)


def _of_columns(width: int) -> Any:
    return np.uint16 if width <= 1 << 16 else np.int32
