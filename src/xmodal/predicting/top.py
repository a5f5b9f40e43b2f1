"""The highest predicted values of each cell, as a sparse matrix that is written batch by batch.

Exactly ``top`` values are kept of every cell (all, where there are fewer features), stored by feature in CSR: float32 data,
int32 indices.  A value that is not stored is lower than the stored ones of its cell; it is not zero.
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
from xmodal.predicting import streaming

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Chunk = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]  # features and values, (cells, top) each
MATRIX = "X"
ENTRY = 8  # bytes: a float32 and an int32
FLUSH = 16  # batches written at once: HDF5 costs as much for a small piece as for a large one


def highest(values: Tensor, top: int) -> Chunk:
    """The ``top`` highest of each row of ``values`` (cells, features): their features, ascending, and themselves."""
    import torch

    found = torch.topk(values, min(top, values.shape[1]), dim=1, sorted=False).indices
    features = torch.sort(found, dim=1).values
    kept = torch.gather(values, 1, features).float()
    return features.to(torch.int32).cpu().numpy(), kept.cpu().numpy()


def top_of(about: dict[str, Any]) -> int | None:
    """How many values of each cell the prediction with this ``uns["xmodal"]`` holds; None where it holds all."""
    found = json.loads(about["settings"]).get("top")
    return int(found) if found else None


def write_h5ad(
    path: Path, obs: pd.DataFrame, var: pd.DataFrame, about: dict[str, Any], chunks: Iterator[Chunk], overwrite: bool
) -> None:
    """An h5ad whose X, CSR float32 (cells, features), is filled from ``chunks``; ``about`` says how many values a cell has."""
    import anndata as ad

    width = min(top_of(about) or len(var), len(var))
    entries = len(obs) * width
    streaming.require_room(path, entries * ENTRY)
    with replacing(path, overwrite) as temporary, naming_full_disk(path):
        ad.AnnData(obs=obs, var=var, uns={fields.UNS: dict(sorted(about.items()))}).write_h5ad(temporary)
        with h5py.File(temporary, "r+") as handle:
            if MATRIX in handle:
                del handle[MATRIX]
            group = handle.create_group(MATRIX)
            group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
            group.attrs["shape"] = np.array([len(obs), len(var)], np.int64)
            data = group.create_dataset("data", (entries,), np.float32, track_times=False)
            indices = group.create_dataset("indices", (entries,), np.int32, track_times=False)
            wide = np.int32 if entries <= np.iinfo(np.int32).max else np.int64
            rows = np.arange(len(obs) + 1, dtype=np.int64) * width
            group.create_dataset("indptr", data=rows.astype(wide), track_times=False)
            first = 0
            for features, values in together(chunks):
                last = first + values.size
                indices[first:last], data[first:last] = features.ravel(), values.ravel()
                first = last


def read(handle: h5py.File, batch: int) -> Iterator[Chunk]:
    """What :func:`write_h5ad` wrote, ``batch`` cells at a time."""
    group = handle[MATRIX]
    cells, features = (int(n) for n in group.attrs["shape"])
    width = len(group["data"]) // cells if cells else features
    for first in range(0, cells, batch):
        rows = slice(first * width, min(first + batch, cells) * width)
        yield group["indices"][rows].reshape(-1, width), group["data"][rows].reshape(-1, width)


def together(chunks: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Arrays of several batches joined, as many as are written at once."""
    held = []
    for chunk in chunks:
        held.append(chunk)
        if len(held) == FLUSH:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(chunks: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(np.concatenate(part) for part in zip(*chunks, strict=True))
