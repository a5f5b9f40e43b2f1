"""Loops over the entries of compressed sparse rows on a CPU, compiled by numba.

They let go of the interpreter's lock, so that threads of ours can share the work (numba's own take ten times as long to compile,
and must not meet a fork); every call owns what it writes, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmodal import compiled as images

images.provide()  # before numba is imported

import numba  # noqa: E402

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]


compiled = numba.njit(cache=True, fastmath=True, nogil=True)


@compiled
def times_dense(rows: tuple[Longs, Ints, Floats], weight: Floats, out: Floats, begin: int, end: int) -> None:
    """``out`` (cells, hidden) += rows (cells, features) @ ``weight`` (features, hidden), for the cells ``begin`` to ``end``."""
    first, column, value = rows
    for cell in range(begin, end):
        row = out[cell]
        for entry in range(first[cell], first[cell + 1]):
            by, scale = weight[column[entry]], value[entry]
            for k in range(row.shape[0]):
                row[k] += scale * by[k]


@compiled
def times_rows(
    rows: tuple[Longs, Ints, Floats], other: tuple[Longs, Ints, Floats], out: Floats, begin: int, end: int
) -> None:
    """``out`` (cells, n) += rows (cells, features) @ ``other`` (features, n), both sparse, for the cells ``begin`` to ``end``."""
    first, column, value = rows
    starts, columns, values = other
    for cell in range(begin, end):
        row = out[cell]
        for entry in range(first[cell], first[cell + 1]):
            scale, feature = value[entry], column[entry]
            for k in range(starts[feature], starts[feature + 1]):
                row[columns[k]] += scale * values[k]


@compiled
def transposed_times_dense(rows: tuple[Longs, Ints, Floats], grad: Floats, out: Floats, low: int, high: int) -> None:
    """``out`` (features, hidden) += rows' (cells, features) transpose @ ``grad`` (cells, hidden), features ``low`` to ``high``.

    Columns are sorted in a row, so that the range is found in each.
    """
    first, column, value = rows
    for cell in range(len(first) - 1):
        begin, end = first[cell], first[cell + 1]
        by = grad[cell]
        for entry in range(begin + np.searchsorted(column[begin:end], low), end):
            feature = column[entry]
            if feature >= high:
                break
            row, scale = out[feature], value[entry]
            for k in range(row.shape[0]):
                row[k] += scale * by[k]


@compiled
def window(rows: tuple[Longs, Ints], of: tuple[int, int], ends: tuple[Longs, Longs]) -> None:
    """Where the columns from ``of[0]`` to below ``of[1]`` begin and end in every row, into ``ends``, (cells,) each."""
    first, column = rows
    for cell in range(len(first) - 1):
        begin, end = first[cell], first[cell + 1]
        ends[0][cell] = begin + np.searchsorted(column[begin:end], of[0])
        ends[1][cell] = begin + np.searchsorted(column[begin:end], of[1])


@compiled
def gather(entries: tuple[Ints, Floats], ends: tuple[Longs, Longs], low: int, dense: Floats, share: Floats) -> float:
    """Sum of ``share`` (cells,) x value x ``dense`` (cells, features from ``low`` on) over the entries of a :func:`window`."""
    column, value = entries
    total = 0.0
    for cell in range(len(share)):
        row, own = dense[cell], 0.0
        for entry in range(ends[0][cell], ends[1][cell]):
            own += value[entry] * row[column[entry] - low]
        total += share[cell] * own
    return total


@compiled
def subtract(entries: tuple[Ints, Floats], ends: tuple[Longs, Longs], low: int, dense: Floats) -> None:
    """``dense`` (cells, features from ``low`` on) -= the ``entries`` of a :func:`window`."""
    column, value = entries
    for cell in range(len(dense)):
        row = dense[cell]
        for entry in range(ends[0][cell], ends[1][cell]):
            row[column[entry] - low] -= value[entry]
