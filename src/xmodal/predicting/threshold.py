"""The predicted values of at least a threshold, as a sparse matrix that is written batch by batch.

CSR by feature: float32 data, int32 indices.  A cell has as many values as reach the threshold, perhaps none; a value that is
not stored is below it, not zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data.io import naming_full_disk
from xmodal.outputs import replacing
from xmodal.predicting.size import require_size
from xmodal.predicting.top import ENTRY, MATRIX, together

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

# Values of each cell, (cells,); features and values of all of them, one cell after another, (kept,) each.
Chunk = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]
PIECE = 65_536  # entries that HDF5 keeps together: how many there will be is not known when it begins


def above(values: Tensor, least: float) -> Chunk:
    """What of ``values`` (cells, features) is at least ``least``."""
    import torch

    values = values.float()
    kept = values >= least
    features = kept.nonzero(as_tuple=True)[1].to(torch.int32)
    return kept.sum(1).cpu().numpy(), features.cpu().numpy(), values[kept].cpu().numpy()


def threshold_of(about: dict[str, Any]) -> float | None:
    """The threshold of the prediction with this ``uns["xmodal"]``; None where it has none."""
    found = json.loads(about["settings"]).get("threshold")
    return None if found is None else float(found)


def write_h5ad(
    path: Path,
    frames: tuple[pd.DataFrame, pd.DataFrame],
    about: dict[str, Any],
    chunks: Iterator[Chunk],
    overwrite: bool,
    most: float,
) -> None:
    """An h5ad whose X, CSR float32, is filled from ``chunks``; ``frames``: obs and var; ``most``: bytes, else refused."""
    import anndata as ad

    obs, var = frames
    starts = np.zeros(len(obs) + 1, np.int64)
    with replacing(path, overwrite) as temporary, naming_full_disk(path):
        ad.AnnData(obs=obs, var=var, uns={fields.UNS: dict(sorted(about.items()))}).write_h5ad(temporary)
        with h5py.File(temporary, "r+") as handle:
            group = _group(handle, (len(obs), len(var)))
            row = entries = 0
            for each, features, values in together(chunks):
                last = entries + len(values)
                require_size(last * ENTRY, most, str(path), ["a higher --threshold", "--top"])
                for name, content in (("indices", features), ("data", values)):
                    group[name].resize((last,))
                    group[name][entries:last] = content
                starts[row + 1 : row + 1 + len(each)] = entries + np.cumsum(each)
                row, entries = row + len(each), last
            wide = np.int32 if entries <= np.iinfo(np.int32).max else np.int64
            group.create_dataset("indptr", data=starts.astype(wide), track_times=False)


def read(handle: h5py.File, batch: int) -> Iterator[Chunk]:
    """What :func:`write_h5ad` wrote, ``batch`` cells at a time."""
    group = handle[MATRIX]
    starts = group["indptr"][:].astype(np.int64)
    for first in range(0, len(starts) - 1, batch):
        own = starts[first : first + batch + 1]
        piece = slice(own[0], own[-1])
        yield np.diff(own), group["indices"][piece], group["data"][piece]


def _group(handle: h5py.File, shape: tuple[int, int]) -> h5py.Group:
    if MATRIX in handle:
        del handle[MATRIX]
    group = handle.create_group(MATRIX)
    group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    group.attrs["shape"] = np.array(shape, np.int64)
    for name, kind in (("data", np.float32), ("indices", np.int32)):
        group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(PIECE,), track_times=False)
    return group
