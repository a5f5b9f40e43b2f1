"""Writing predictions as they come: the matrix is filled batch by batch and never held whole."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data import filling, leaving, stores
from xmodal.data.io import naming_full_disk
from xmodal.errors import InputRefused
from xmodal.outputs import replacing

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from xmodal.data.vocabulary import Modality

log = logging.getLogger(__name__)
Chunk = dict[str, npt.NDArray[np.float32]]  # by place in the file: X, layers/NAME; (cells of the batch, features) each
Chunks = Iterator[Chunk]
MATRIX = "X"
LAYERS = (f"layers/{fields.LOWER}", f"layers/{fields.UPPER}")
BESIDE = f"layers/{fields.PREDICTED}"  # where X goes when the modality was measured
Index = npt.NDArray[np.int64]


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


def new_matrix(handle: stores.Store, place: str, shape: tuple[int, int], fill: float = 0.0) -> Any:
    """A float32 matrix (cells, features) that anndata reads, to be filled; ``fill``: what stands where nothing is written."""
    if not isinstance(handle, h5py.File):
        return stores.new_array(handle, place, shape)
    data = handle.create_dataset(place, shape, np.float32, track_times=False, fillvalue=fill)
    data.attrs["encoding-type"], data.attrs["encoding-version"] = "array", "0.2.0"
    return data


def has_intervals(about: dict[str, Any]) -> bool:
    """Does a prediction with this ``uns["xmodal"]`` have layers with the ends of intervals?"""
    level = json.loads(about["settings"]).get("interval", {}).get("level", 0)
    return bool(level)


@dataclass(frozen=True)
class Beside:
    """Where a prediction goes in a measured modality.  ``rows``: (predicted cells,), -1 for a cell that was not measured.

    ``own``, ``of_model``: features of the file and of the model that are the same, (matched features,) each.
    """

    shape: tuple[int, int]
    rows: Index
    own: Index
    of_model: Index

    def put(self, data: Any, first: int, values: npt.NDArray[np.float32]) -> None:
        """What was predicted for the cells from ``first`` on, into a matrix of ``shape``."""
        rows = self.rows[first : first + len(values)]
        order = np.argsort(rows, kind="stable")
        order = order[rows[order] >= 0]  # HDF5 takes rows that ascend
        if len(order):
            block = np.full((len(order), self.shape[1]), np.nan, np.float32)
            block[:, self.own] = values[np.ix_(order, self.of_model)]
            data[rows[order]] = block


def write_h5mu(path: Path, mdata: MuData, modality: Modality, var: pd.DataFrame, parts: Any) -> None:
    """A copy of ``mdata`` with the prediction: ``parts`` = (cell names, about, chunks, overwrite, columns of obs).

    Beside a measurement it is the layer ``xmodal_predicted`` of the checkpoint's features that were measured (nan where a cell
    was not predicted); else a new modality.  Intervals are layers of the same modality, what is known of features its ``var``.
    """
    import anndata as ad
    import pandas as pd

    names, about, chunks, overwrite, columns = parts
    target = modality.name
    places = (MATRIX, *LAYERS) if has_intervals(about) else (MATRIX,)
    obs = pd.DataFrame(columns, index=pd.Index(names, dtype=object))
    mods = {m: leaving.kept(a) for m, a in mdata.mod.items()}
    measured = target in mods
    if measured:
        beside = _put_beside(mods[target], obs, var, modality)
    else:
        every = np.arange(len(var))
        beside = Beside((len(obs), len(var)), np.arange(len(obs)), every, every)
        mods[target] = ad.AnnData(obs=obs, var=var)
    require_room(path, beside.shape[0] * beside.shape[1] * 4 * len(places))
    mods[target].uns[fields.UNS] = about
    with filling.writing(_with_all_of(mdata, mods), path, overwrite) as handle:
        stands = {place: f"mod/{target}/{BESIDE if measured and place == MATRIX else place}" for place in places}
        for stand in stands.values():
            if stand in handle:  # anndata may write that there is no X
                del handle[stand]
            new_matrix(handle, stand, beside.shape, np.nan)
        first = 0
        for chunk in chunks:
            for place, stand in stands.items():
                beside.put(handle[stand], first, chunk[place])
            first += len(chunk[MATRIX])


def _with_all_of(mdata: MuData, mods: dict[str, Any]) -> MuData:
    """Modalities that have all cells of ``mdata``, and what stands there beside the modalities."""
    import mudata as mu

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
    return out


def _put_beside(measured: AnnData, obs: pd.DataFrame, var: pd.DataFrame, modality: Modality) -> Beside:
    """What is known of predicted cells and features into ``measured``; features are matched as in every alignment."""
    from xmodal.data.alignment import matched

    pairs = matched(measured, modality)
    if not pairs:
        raise InputRefused(
            f"none of the {len(modality)} predicted features of {modality.name} was measured in this file",
            do="write the prediction alone, --output NAME.h5ad",
        )
    if len(pairs) < len(modality):
        log.warning("%d of %d predicted features stand beside a measured one", len(pairs), len(modality))
    for layer in [k for k in (fields.PREDICTED, fields.LOWER, fields.UPPER) if k in measured.layers]:
        del measured.layers[layer]  # of an earlier run
    own, of_model = np.array(pairs).T
    for column in obs:
        fill = False if obs[column].dtype == bool else np.nan
        measured.obs[column] = obs[column].reindex(measured.obs_names, fill_value=fill)
    place = np.full(measured.n_vars, -1)
    place[own] = of_model
    for column in [c for c in var if c in fields.OF_FEATURES]:
        measured.var[column] = var[column].reset_index(drop=True).reindex(place).to_numpy()
    return Beside(measured.shape, measured.obs_names.get_indexer(obs.index), own, of_model)


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
