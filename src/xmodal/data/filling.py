"""Writing cells block by block, their counts never held whole.  The bytes of a file do not tell where these lay before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import outputs
from xmodal.data.copied import Copied, as_stored, counts
from xmodal.data.io import naming_full_disk
from xmodal.data.leaving import put

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}
Array = npt.NDArray[Any]
Whole: TypeAlias = "AnnData | MuData"
PIECE = 1 << 16  # entries that are packed together: what reading one cell unpacks
AT_ONCE = 32 * PIECE


def write(cells: Whole, path: Path, overwrite: bool) -> None:
    """Write AnnData (.h5ad) or MuData (.h5mu), whose matrices are in memory or on disk."""
    with writing(cells, path, overwrite):
        pass


@contextmanager
def writing(cells: Whole, path: Path, overwrite: bool) -> Iterator[h5py.File]:
    """As :func:`write`, for a file to which more is added: it gets its name only when the block ends well.

    anndata and mudata write everything with empty matrices; these are filled afterwards.
    """
    with outputs.replacing(path, overwrite) as temporary, naming_full_disk(path):
        with _without_matrices(cells) as matrices:
            write_bare = cells.write_h5mu if hasattr(cells, "mod") else cells.write_h5ad
            write_bare(temporary, **PACKED)
        with h5py.File(temporary, "r+") as handle:
            for place, matrix in matrices.items():
                _fill(handle, place, matrix)
            yield handle


@contextmanager
def _without_matrices(cells: Whole) -> Iterator[dict[str, Copied]]:
    """X, layers and ``.raw`` by their places in the file, empty ones in their stead until the block ends."""
    mods = {f"mod/{m}/": adata for m, adata in cells.mod.items()} if hasattr(cells, "mod") else {"": cells}
    taken = [(root, place, matrix) for root, adata in mods.items() for place, matrix in _matrices(adata).items()]
    try:
        for root, place, matrix in taken:
            put(cells, f"{root}{place}", sp.csr_matrix(matrix.shape, dtype=np.float32))
        yield {f"{root}{place}": _copied(place, matrix) for root, place, matrix in taken}
    finally:
        for root, place, matrix in taken:
            put(cells, f"{root}{place}", matrix)


def _matrices(adata: AnnData) -> dict[str, Any]:
    """Those that go by rows, by their places in the file of ``adata`` alone."""
    found = {"X": adata.X, **{f"layers/{name}": layer for name, layer in adata.layers.items()}}
    if adata.raw is not None:
        found["raw/X"] = adata.raw.X
    return {place: matrix for place, matrix in found.items() if _by_rows(matrix)}


def _copied(place: str, matrix: Any) -> Copied:
    return counts(matrix) if place == "X" and not isinstance(matrix, np.ndarray) else as_stored(matrix)


def _by_rows(matrix: Any) -> bool:
    dense = isinstance(matrix, np.ndarray) and matrix.ndim == 2 and matrix.dtype.kind in "fiub"
    return dense or getattr(matrix, "format", "") == "csr"


def _fill(handle: h5py.File, place: str, matrix: Copied) -> None:
    """Put the values of ``matrix`` into the empty CSR matrix at ``place``, or a dense one in its place."""
    if not matrix.dense:
        _fill_rows(handle[place], matrix)
        return
    del handle[place]
    width = max(matrix.shape[1], 1)
    pieces = min(max(PIECE // width, 1), max(matrix.shape[0], 1)), width
    whole = matrix.shape[0] and matrix.shape[1]
    more: dict[str, Any] = {"chunks": pieces, **PACKED} if whole else {}
    data = handle.create_dataset(place, matrix.shape, matrix.kind, track_times=False, **more)
    data.attrs["encoding-type"], data.attrs["encoding-version"] = "array", "0.2.0"
    for rows, block in matrix.blocks(pieces[0] * max(1, AT_ONCE // (pieces[0] * width))):
        data[rows] = block


def _fill_rows(group: h5py.Group, matrix: Copied) -> None:
    for name in ("data", "indices", "indptr"):
        del group[name]
    parts = {
        name: group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(PIECE,), **PACKED)
        for name, kind in (("data", matrix.kind), ("indices", np.int32))
    }
    waiting: dict[str, Array] = {name: np.zeros(0, part.dtype) for name, part in parts.items()}
    starts, total = np.zeros(matrix.shape[0] + 1, np.int64), 0
    for rows, block in matrix.blocks():
        starts[rows.start + 1 : rows.stop + 1] = total + block.indptr[1:]
        total += block.nnz
        waiting = {name: np.concatenate([waiting[name], getattr(block, name)]) for name in parts}
        while len(waiting["data"]) >= AT_ONCE:
            waiting = _written(parts, waiting)
    _written(parts, waiting)
    kind = np.int32 if total <= np.iinfo(np.int32).max else np.int64
    group.create_dataset("indptr", data=starts.astype(kind), maxshape=(None,), **PACKED)


def _written(parts: dict[str, h5py.Dataset], waiting: dict[str, Array]) -> dict[str, Array]:
    """Write the first of what is waiting; what is left.  Always as many: HDF5 gives out space in the order of writing."""
    for name, part in parts.items():
        first = len(part)
        piece = waiting[name][:AT_ONCE]
        part.resize((first + len(piece),))
        part[first:] = piece
    return {name: values[AT_ONCE:] for name, values in waiting.items()}
