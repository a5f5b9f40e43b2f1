"""Writing predictions as they come: the matrix is filled batch by batch and never held whole."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data import stores
from xmodal.data.io import naming_full_disk
from xmodal.errors import InputRefused
from xmodal.outputs import replacing

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from xmodal.data.vocabulary import Modality

log = logging.getLogger(__name__)
Chunk = dict[str, npt.NDArray[np.float32]]  # by place in the file: X, layers/NAME; (cells of the batch, features) each
Chunks = Iterator[Chunk]
MATRIX = "X"
LAYERS = (f"layers/{fields.LOWER}", f"layers/{fields.UPPER}")


def write_h5ad(
    path: Path, obs: pd.DataFrame, var: pd.DataFrame, about: dict[str, Any], chunks: Chunks, overwrite: bool
) -> None:
    """An h5ad whose X, float32 (cells, features), is filled from ``chunks``; intervals, where there are any, are layers.

    The same as a Zarr store where the name of ``path`` ends so.
    """
    import anndata as ad

    places = (MATRIX, *LAYERS) if has_intervals(about) else (MATRIX,)
    require_room(path, len(obs) * len(var) * 4 * len(places))
    with replacing(path, overwrite) as temporary, naming_full_disk(path):
        # HDF5 keeps the order of writing, reading gives the alphabet's: one order, so that merged shards equal the whole
        bare = ad.AnnData(obs=obs, var=var, uns={fields.UNS: dict(sorted(about.items()))})
        with stores.new(temporary, bare) as handle:
            if MATRIX in handle:
                del handle[MATRIX]
            for place in places:
                new_matrix(handle, place, (len(obs), len(var)))
            first = 0
            for chunk in chunks:
                size = len(chunk[MATRIX])
                for place in places:
                    handle[place][first : first + size] = chunk[place]
                first += size


def new_matrix(handle: stores.Store, place: str, shape: tuple[int, int]) -> Any:
    """A float32 matrix (cells, features) that anndata reads, to be filled."""
    if not isinstance(handle, h5py.File):
        return stores.new_array(handle, place, shape)
    data = handle.create_dataset(place, shape, np.float32, track_times=False)
    data.attrs["encoding-type"], data.attrs["encoding-version"] = "array", "0.2.0"
    return data


def has_intervals(about: dict[str, Any]) -> bool:
    """Does a prediction with this ``uns["xmodal"]`` have layers with the ends of intervals?"""
    level = json.loads(about["settings"]).get("interval", {}).get("level", 0)
    return bool(level)


def write_h5mu(path: Path, mdata: MuData, modality: Modality, var: pd.DataFrame, parts: Any) -> None:
    """A copy of ``mdata`` with the prediction: ``parts`` = (cell names, about, chunks, overwrite, columns of obs).

    Beside a measurement it is the layer ``xmodal_predicted`` of the checkpoint's features that were measured (nan where a cell
    was not predicted); else a new modality.  Intervals are layers of the same modality, what is known of features its ``var``.
    """
    import anndata as ad
    import mudata as mu
    import pandas as pd

    names, about, chunks, overwrite, columns = parts
    target = modality.name
    places = (MATRIX, *LAYERS) if has_intervals(about) else (MATRIX,)
    require_room(path, len(names) * len(var) * 4 * len(places))
    parts = list(chunks)
    values = {place: np.concatenate([chunk.pop(place) for chunk in parts]) for place in places}
    frame = pd.DataFrame(columns, index=pd.Index(names, dtype=object))
    layers = {place.removeprefix("layers/"): values[place] for place in places[1:]}
    predicted = ad.AnnData(values[MATRIX], obs=frame, var=var, layers=layers)
    mods = {m: a.copy() for m, a in mdata.mod.items()}
    if target in mods:
        _put_beside(mods[target], predicted, modality)
    else:
        mods[target] = predicted
    mu.set_options(pull_on_update=False)
    out = mu.MuData(mods)
    for column in mdata.obs:
        out.obs[column] = mdata.obs[column].reindex(out.obs_names)
    rows = mdata.obs_names.get_indexer(out.obs_names)
    for key in [k for k in mdata.obsm if k not in mdata.mod]:
        out.obsm[key] = mdata.obsm[key][rows]
    for key in mdata.obsp:
        out.obsp[key] = mdata.obsp[key][rows][:, rows]
    out.uns.update(mdata.uns)
    mods[target].uns[fields.UNS] = about
    with replacing(path, overwrite) as temporary, naming_full_disk(path):
        out.write_h5mu(temporary)


def _put_beside(measured: Any, predicted: Any, modality: Modality) -> None:
    """The prediction in the cells and features of the measurement; features are matched as in every alignment."""
    from xmodal.data.alignment import matched

    pairs = matched(measured, modality)
    if not pairs:
        raise InputRefused(
            f"none of the {len(modality)} predicted features of {modality.name} was measured in this file",
            do="write the prediction alone, --output NAME.h5ad",
        )
    if len(pairs) < len(modality):
        log.warning("%d of %d predicted features stand beside a measured one", len(pairs), len(modality))
    own, of_model = np.array(pairs).T
    rows = measured.obs_names.get_indexer(predicted.obs_names)
    there = rows >= 0
    for name, values in {fields.PREDICTED: predicted.X, **predicted.layers}.items():
        layer = np.full(measured.shape, np.nan, np.float32)
        layer[np.ix_(rows[there], own)] = values[np.ix_(there, of_model)]
        measured.layers[name] = layer
    for column in predicted.obs:
        fill = False if predicted.obs[column].dtype == bool else np.nan
        measured.obs[column] = predicted.obs[column].reindex(measured.obs_names, fill_value=fill)
    place = np.full(measured.n_vars, -1)
    place[own] = of_model
    for column in [c for c in predicted.var if c in fields.OF_FEATURES]:
        measured.var[column] = predicted.var[column].reset_index(drop=True).reindex(place).to_numpy()


def require_room(path: Path, size: int, what: str = "the prediction", do: str = "predict fewer cells (--rows)") -> None:
    """Refuse ``size`` bytes where fewer are free; ``do``: how to need less."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputRefused(
            f"{what} takes {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free",
            where=str(path),
            do=f"free space, {do} or write elsewhere",
        )
