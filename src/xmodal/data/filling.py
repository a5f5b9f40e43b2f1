"""Writing a prepared file block by block, its counts never held whole.  Its bytes do not tell where they lay before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import outputs
from xmodal.data.io import naming_full_disk
from xmodal.data.on_disk import Counts, blocks

if TYPE_CHECKING:
    from mudata import MuData

PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}
Array = npt.NDArray[Any]
PIECE = 1 << 16  # entries that are packed together: what reading one cell unpacks
AT_ONCE = 32 * PIECE


def write_h5mu(mdata: MuData, path: Path, overwrite: bool) -> None:
    """``mdata``, whose X are CSR in memory or on disk, under a temporary name, renamed at the end.

    mudata writes everything with empty matrices; these are filled afterwards.
    """
    matrices = {m: adata.X for m, adata in mdata.mod.items()}
    try:
        for adata in mdata.mod.values():
            adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
        with outputs.replacing(path, overwrite) as temporary, naming_full_disk(path):
            mdata.write_h5mu(temporary, **PACKED)
            with h5py.File(temporary, "r+") as handle:
                for m, matrix in matrices.items():
                    fill(handle[f"mod/{m}/X"], matrix)
    finally:
        for m, matrix in matrices.items():
            mdata.mod[m].X = matrix


def fill(group: h5py.Group, matrix: Counts) -> None:
    """Put the entries of ``matrix`` into an empty CSR matrix of the same shape in a file."""
    for name in ("data", "indices", "indptr"):
        del group[name]
    parts = {
        name: group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(PIECE,), **PACKED)
        for name, kind in (("data", np.float32), ("indices", np.int32))
    }
    waiting: dict[str, Array] = {name: np.zeros(0, part.dtype) for name, part in parts.items()}
    starts, total = np.zeros(matrix.shape[0] + 1, np.int64), 0
    for rows, block in blocks(matrix):
        block.sort_indices()
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
