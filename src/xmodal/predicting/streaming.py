"""Writing predictions as they come: the matrix is filled batch by batch and never held whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data.io import naming_full_disk
from xmodal.errors import InputRefused
from xmodal.outputs import replacing

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

Chunks = Iterator[npt.NDArray[np.float32]]


def write_h5ad(
    path: Path, obs: pd.DataFrame, var: pd.DataFrame, about: dict[str, Any], chunks: Chunks, overwrite: bool
) -> None:
    """An h5ad whose X, float32 (cells, features), is filled from ``chunks``."""
    import anndata as ad

    _require_room(path, len(obs) * len(var) * 4)
    with replacing(path, overwrite) as temporary, naming_full_disk(path):
        # HDF5 keeps the order of writing, reading gives the alphabet's: one order, so that merged shards equal the whole
        ad.AnnData(obs=obs, var=var, uns={fields.UNS: dict(sorted(about.items()))}).write_h5ad(temporary)
        with h5py.File(temporary, "r+") as handle:
            if "X" in handle:
                del handle["X"]
            data = handle.create_dataset("X", (len(obs), len(var)), np.float32, track_times=False)
            data.attrs["encoding-type"], data.attrs["encoding-version"] = "array", "0.2.0"
            first = 0
            for chunk in chunks:
                data[first : first + len(chunk)] = chunk
                first += len(chunk)


def write_h5mu(path: Path, mdata: MuData, target: str, var: pd.DataFrame, parts: Any) -> None:
    """A copy of ``mdata`` with the prediction: ``parts`` = (cell names, about, chunks, overwrite).

    Beside a measurement it is the layer ``xmodal_predicted`` of the checkpoint's features that were measured (nan where a cell
    was not predicted); else a new modality.
    """
    import anndata as ad
    import mudata as mu
    import pandas as pd

    names, about, chunks, overwrite = parts
    values = np.concatenate(list(chunks))
    _require_room(path, values.nbytes)
    frame = pd.DataFrame(index=pd.Index(names, dtype=object))
    predicted = ad.AnnData(values, obs=frame, var=var)
    mods = {m: a.copy() for m, a in mdata.mod.items()}
    if target in mods:
        mods[target].layers[fields.PREDICTED] = _beside(mods[target], predicted)
    else:
        mods[target] = predicted
    mu.set_options(pull_on_update=False)
    out = mu.MuData(mods)
    for column in mdata.obs:
        out.obs[column] = mdata.obs[column].reindex(out.obs_names)
    out.uns.update({k: v for k, v in mdata.uns.items() if k != fields.UNS})
    out.uns[fields.UNS] = dict(mdata.uns.get(fields.UNS, {}))
    mods[target].uns[fields.UNS] = about
    with replacing(path, overwrite) as temporary, naming_full_disk(path):
        out.write_h5mu(temporary)


def _beside(measured: Any, predicted: Any) -> npt.NDArray[np.float32]:
    rows, cols = (
        measured.obs_names.get_indexer(predicted.obs_names),
        measured.var_names.get_indexer(predicted.var_names),
    )
    layer = np.full(measured.shape, np.nan, np.float32)
    r, c = rows >= 0, cols >= 0
    layer[np.ix_(rows[r], cols[c])] = predicted.X[np.ix_(r, c)]
    return layer


def _require_room(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputRefused(
            f"the prediction takes {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free",
            where=str(path),
            do="free space, predict fewer cells (--rows) or write elsewhere",
        )
