"""A matrix as it goes into a copy of its file: by blocks of rows, wherever it lies, with its own kind of values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.data.on_disk import Held, OnDisk, Part, StoredArray, parts_of

Index = npt.NDArray[np.int64]
Block = tuple[slice, Any]


@dataclass(frozen=True)
class Copied:
    """``kind``: of the values; ``dense``: no entries but all values; ``sizes``: entries of each row, (cells,)."""

    shape: tuple[int, int]
    kind: np.dtype[Any]
    dense: bool
    sizes: Index
    read: Callable[[slice], Any]

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """All rows in turn, so many at once or as many as have some million entries: which they are, and they."""
        for part in parts_of(self.sizes, rows):
            yield part, self.read(part)


def counts(matrix: Any) -> Copied:
    """Entries in order, float32, as X is read."""
    whole = matrix if isinstance(matrix, OnDisk) else OnDisk([Part(Held(matrix))], matrix.shape[1])

    def read(rows: slice) -> sp.csr_matrix:
        block = whole[rows]
        block.sort_indices()
        return block

    return Copied(whole.shape, np.dtype(np.float32), False, whole.stored, read)


def as_stored(matrix: Any) -> Copied:
    """What is beside X (layers, ``.raw``) as it was given; counts where a matrix on disk has been changed."""
    if isinstance(matrix, np.ndarray):
        sizes = np.full(matrix.shape[0], matrix.shape[1], np.int64)
        return Copied(matrix.shape, matrix.dtype, True, sizes, lambda rows: matrix[rows])
    if not isinstance(matrix, OnDisk):
        held = sp.csr_matrix(matrix)
        return Copied(held.shape, held.dtype, False, Held(held).sizes, lambda rows: held[rows])
    source = matrix.alone
    if source is None:
        return counts(matrix)
    own = np.arange(matrix.shape[0]) if matrix.rows is None else matrix.rows
    dense = isinstance(source, StoredArray)
    return Copied(matrix.shape, source.kind, dense, matrix.stored, lambda rows: source.read(own[rows]))
