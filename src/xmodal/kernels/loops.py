"""Loops over the entries of compressed sparse rows on a CPU, compiled by numba.

They let go of the interpreter's lock, so that threads of ours can share the work (numba's own take ten times as long to compile,
and must not meet a fork); every call owns what it writes, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal import compiled as images

images.provide()  # before numba is imported

import numba  # noqa: E402
from numba import types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]


compiled = numba.njit(cache=True, fastmath=True, nogil=True)
# In the order that is written, and a division by zero is no exception: else the loop is not done 8 entries at a time.
exactly = numba.njit(cache=True, fastmath={"contract"}, nogil=True, error_model="numpy")


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
def window(rows: tuple[Longs, Ints], of: tuple[int, int], place: Longs, found: tuple[Longs, Ints]) -> None:
    """Where the columns ``of[0]`` to below ``of[1]`` of ``rows`` (cells, features) have entries, into ``found``.

    ``found``: cells by column, sorted: where those of each column begin (and the last end), and the cells.

    ``place`` (cells,): the first entry of each row from ``of[0]`` on; then that from ``of[1]`` on.  Of few columns at a time,
    so that all of ``found`` lies in a near cache: of all at once it takes three times as long.
    """
    first, column = rows
    starts, cells = found
    low, high = of
    starts[:] = 0
    for cell in range(len(place)):
        for entry in range(place[cell], first[cell + 1]):
            if column[entry] >= high:
                break
            starts[column[entry] - low + 1] += 1
    for k in range(high - low):
        starts[k + 1] += starts[k]
    for cell in range(len(place)):
        entry = place[cell]
        while entry < first[cell + 1] and column[entry] < high:
            k = column[entry] - low
            cells[starts[k]] = cell
            starts[k] += 1
            entry += 1
        place[cell] = entry
    for k in range(high - low, 0, -1):  # each start had become the next one's
        starts[k] = starts[k - 1]
    starts[0] = 0


@compiled
def gather(found: tuple[Longs, Ints], dense: Floats, share: Floats) -> float:
    """Sum of ``share`` (cells,) x ``dense`` (columns, cells) over the entries of a :func:`window`."""
    starts, cells = found
    total = 0.0
    for k in range(len(dense)):
        row, own = dense[k], 0.0
        for entry in range(starts[k], starts[k + 1]):
            own += share[cells[entry]] * row[cells[entry]]
        total += own
    return total


# exp(x) = 2^n exp(y), y = x - n ln 2 (in two parts, so that no digit is lost), exp(y) by the polynomial of least greatest error:
# 9e-8 of exp(y) where |y| <= ln 2 / 2
LOG2E, HIGH, LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
C1, C2, C3 = np.float32(0.999999707), np.float32(0.499991495), np.float32(0.166676362)
C4, C5 = np.float32(0.0418979293), np.float32(0.00829031467)
ONE, CAP = np.float32(1), np.float32(87)
ROUND = np.float32(1.5 * 2**23 + 127)  # what this is added to has its nearest integer, plus 127, in its last bits


@intrinsic
def two_to(typing_context: Any, rounded: Any) -> Any:
    """2^n of n + ROUND: n + 127 moved to where a float has its exponent."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole, real = (context.get_value_type(t) for t in (types.int32, types.float32))
        return builder.bitcast(builder.shl(builder.bitcast(arguments[0], whole), whole(23)), real)

    return types.float32(types.float32), code


@exactly
def exp(x: Any) -> Any:
    """In float32, to 2e-7 of itself, between exp(-87) and exp(87); no call, so that loops over it are done 8 at a time."""
    x = max(min(x, CAP), -CAP)
    rounded = x * LOG2E + ROUND
    n = rounded - ROUND
    y = x - n * HIGH - n * LOW
    return (((((C5 * y + C4) * y + C3) * y + C2) * y + C1) * y + ONE) * two_to(rounded)  # type: ignore[call-arg]


@exactly
def _sigmoid(row: Floats, bias: float) -> None:
    for k in range(row.shape[0]):
        row[k] = ONE / (ONE + exp(-(row[k] + bias)))


@compiled
def _dot(row: Floats, share: Floats) -> Any:
    total = np.float32(0)
    for k in range(row.shape[0]):
        total += row[k] * share[k]
    return total


@compiled
def sigmoid_less(
    found: tuple[Longs, Ints], dense: Floats, vectors: tuple[Floats, Floats, Floats], low: int, high: int
) -> None:
    """``dense`` (columns, cells) becomes sigmoid(``dense`` + bias), less 1 at a :func:`window`'s entries, columns low to high.

    ``vectors``: bias (columns,), share (cells,), and (columns,), which becomes the sums of share x that.  All while a row is in
    the nearest cache: one thing after the other over all rows takes twice as long.
    """
    starts, cells = found
    bias, share, sums = vectors
    for k in range(low, high):
        row = dense[k]
        _sigmoid(row, bias[k])
        for entry in range(starts[k], starts[k + 1]):
            row[cells[entry]] -= ONE
        sums[k] = _dot(row, share)
