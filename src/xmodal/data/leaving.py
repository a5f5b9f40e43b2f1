"""Reading a file without its matrices, which stay on disk; and the same cells and features of what was read so.

Everything else is read by anndata and mudata themselves, from a copy of the file in memory in which the matrices are empty.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from mudata import MuData

from xmodal.data import stores
from xmodal.data.on_disk import File, OnDisk, Part, StoredArray, StoredRows, taken
from xmodal.data.on_disk_settings import ALWAYS as ALWAYS
from xmodal.data.on_disk_settings import AUTO, SHARE
from xmodal.data.on_disk_settings import NEVER as NEVER
from xmodal.data.on_disk_settings import Choice as Choice

log = logging.getLogger(__name__)
ENTRY = 8  # bytes of an entry in memory: a float32 and an int32
SIGNATURE = b"MuData (format-version=0.1.0)"
USER_BLOCK = 512
Whole = TypeVar("Whole", ad.AnnData, MuData)


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the job's control group where that is less."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pass
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit, taken_now = (Path("/sys/fs/cgroup", name).read_text().strip() for name in (most, used))
            found += [max(int(limit) - int(taken_now), 0)] if limit != "max" else []
        except (OSError, ValueError):
            pass
    if not found and hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found)


def wanted(path: Path, choice: Choice) -> bool:
    """Do the matrices of ``path`` stay on disk?  ``auto``: where they would take more than a quarter of the free memory."""
    if choice != AUTO:
        return choice == ALWAYS
    with stores.reading(path) as handle:
        size = sum(_entries(node) for node in _matrices(handle).values()) * ENTRY
    free = free_memory()
    if size > SHARE * free:
        log.info(
            "%s: its counts take %.1f GB, %.1f GB of memory are free: they are read as they are needed",
            path.name,
            size / 1e9,
            free / 1e9,
        )
        return True
    return False


def read(path: Path, reader: Callable[[Any], Whole]) -> Whole:
    """What ``reader`` (of anndata or mudata) makes of ``path``, X, layers and ``.raw`` left on disk."""
    file = File(path)
    places = _matrices(file.handle)
    found = reader(_bare_zarr(path, places) if stores.is_zarr(path) else _bare_hdf5(file.handle, places))
    for place, node in places.items():
        source = StoredRows(file, node) if stores.is_group(node) else StoredArray(file, node)
        put(found, place, OnDisk([Part(source)], source.shape[1]))
    return found


def require_whole(path: Path) -> None:
    """Refuse a Zarr store whose sparse matrices have pieces that are not there."""
    with stores.reading(path) as store:
        for node in _matrices(store).values():
            if stores.is_group(node):
                stores.require_whole(node, path)


def _bare_hdf5(handle: h5py.File, places: dict[str, Any]) -> io.BytesIO:
    """The file in memory, with empty matrices."""
    copy = io.BytesIO()
    several = "mod" in handle
    with h5py.File(copy, "w", userblock_size=USER_BLOCK if several else 0) as target:
        _copy(handle, target, set(places))
    if several:
        copy.getbuffer()[: len(SIGNATURE)] = SIGNATURE
    copy.seek(0)
    return copy


def _bare_zarr(path: Path, places: dict[str, Any]) -> Any:
    """The Zarr store in memory, with empty matrices."""
    import zarr

    copy = stores.in_memory(path, set(places))
    root = zarr.open_group(copy, mode="r+")
    for place, node in places.items():
        _empty(node, root, place)
    return copy


def _matrices(handle: stores.Store) -> dict[str, Any]:
    """Matrices that can be read by rows, by their place in the file."""
    found: dict[str, Any] = {}
    roots = [f"mod/{m}/" for m in handle["mod"]] if "mod" in handle else [""]
    for root in roots:
        group = handle[root] if root else handle
        names = ["X", "raw/X", *(f"layers/{k}" for k in group.get("layers", ()))]
        found |= {f"{root}{name}": group[name] for name in names if name in group and _by_rows(group[name])}
    return found


def _by_rows(node: Any) -> bool:
    if stores.is_group(node):
        csr = stores.attributes(node).get("encoding-type") == "csr_matrix"
        return csr and {"data", "indices", "indptr"} <= set(node.keys())
    return bool(node.ndim == 2 and node.dtype.kind in "fiub")


def _entries(node: Any) -> int:
    return int(node["data"].shape[0]) if stores.is_group(node) else int(np.prod(node.shape))


def _copy(source: h5py.Group, target: h5py.Group, left: set[str]) -> None:
    """All of ``source`` but what lies in ``left``, in whose places there are empty matrices."""
    for key, value in source.attrs.items():
        target.attrs[key] = value
    for key in source:
        place = f"{source.name.rstrip('/')}/{key}".lstrip("/")
        if place in left:
            _empty(source[key], target, key)
        elif any(other.startswith(f"{place}/") for other in left):
            _copy(source[key], target.create_group(key), left)
        else:
            source.copy(key, target, key)


def _empty(node: Any, target: Any, key: str) -> None:
    shape = node.attrs["shape"] if stores.is_group(node) else node.shape
    ad.io.write_elem(target, key, sp.csr_matrix(tuple(int(n) for n in shape), dtype=np.float32))


def put(found: ad.AnnData | MuData, place: str, matrix: Any) -> None:
    """Another matrix where ``place`` is in a file of these cells: X, a layer or ``.raw``."""
    if isinstance(found, MuData):
        _, name, place = place.split("/", 2)
        found = found.mod[name]
    if place == "X":
        found.X = matrix
    elif place == "raw/X":
        found.raw = _as_raw(matrix, found, found.raw)
    else:
        found.layers[place.removeprefix("layers/")] = matrix


def _as_raw(matrix: Any, of: ad.AnnData, before: Any) -> ad.AnnData:
    """What to set as ``.raw`` of the cells ``of``: another matrix of the same features."""
    return ad.AnnData(matrix, obs=of.obs[[]], var=before.var, varm=dict(before.varm))


def on_disk(adata: ad.AnnData) -> bool:
    """Is any of its matrices on disk?"""
    return any(isinstance(x, OnDisk) for x in (adata.X, *adata.layers.values()))


def kept(adata: ad.AnnData, rows: Any = None, columns: Any = None) -> ad.AnnData:
    """``adata[rows, columns].copy()`` (masks or positions; None: all) of matrices that may be on disk, and stay there."""
    cells = np.arange(adata.n_obs) if rows is None else _positions(rows)
    features = np.arange(adata.n_vars) if columns is None else _positions(columns)
    if not on_disk(adata):
        return adata[cells, features].copy() if columns is not None else adata[cells].copy()
    bare = ad.AnnData(
        **{k: getattr(adata, k) for k in ("obs", "var", "uns")},
        **{k: dict(getattr(adata, k)) for k in ("obsm", "varm", "obsp", "varp")},
    )
    found = bare[cells, features].copy()

    def some(matrix: Any) -> Any:
        part = taken(matrix, cells)
        if columns is None:
            return part
        return (
            part.then(lambda block: block[:, features], len(features))
            if isinstance(part, OnDisk)
            else part[:, features]
        )

    found.X = some(adata.X)
    for name, layer in adata.layers.items():
        found.layers[name] = some(layer)
    if adata.raw is not None:
        found.raw = _as_raw(taken(adata.raw.X, cells), found, adata.raw)
    return found


def _positions(chosen: Any) -> Any:
    chosen = np.asarray(chosen)
    return np.flatnonzero(chosen) if chosen.dtype == bool else chosen


def kept_cells(mdata: MuData, rows: Any) -> MuData:
    """``mdata[rows].copy()`` (a mask) of matrices that may be on disk, and stay there."""
    if not any(on_disk(a) for a in mdata.mod.values()):
        return mdata[rows].copy()
    names = mdata.obs_names[rows]
    parts = {m: kept(a, a.obs_names.isin(names)) for m, a in mdata.mod.items()}
    held = {m: (a.X, dict(a.layers), a.raw) for m, a in mdata.mod.items()}
    try:
        for adata in mdata.mod.values():
            adata.X, adata.raw, adata.layers = None, None, {}
        found = mdata[rows].copy()
    finally:
        for m, (matrix, layers, raw) in held.items():
            mdata.mod[m].X, mdata.mod[m].layers = matrix, layers
            if raw is not None:
                mdata.mod[m].raw = _as_raw(raw.X, mdata.mod[m], raw)
    for m, part in found.mod.items():
        part.X = parts[m].X
        for name, layer in parts[m].layers.items():
            part.layers[name] = layer
        if parts[m].raw is not None:
            part.raw = _as_raw(parts[m].raw.X, part, parts[m].raw)
    return found
