"""Files of cells as stores: an HDF5 file (h5ad, h5mu), or a Zarr folder as anndata and mudata write it (format 2 or 3).

Both are groups of groups and arrays with attributes; what reads them by names and slices need not know which it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import h5py

from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from anndata import AnnData

Store: TypeAlias = Any  # h5py.File or zarr.Group
ROOTS = ("zarr.json", ".zgroup")  # what makes a folder a Zarr store: of format 3, of format 2
ABOUT = (*ROOTS, ".zattrs", ".zmetadata")
ENDING = ".zarr"
PIECE = (256, 4096)  # of a matrix that is written, cells and features: 4 MB before compression


def is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in ROOTS)


def open_store(path: Path, **how: Any) -> Store:
    """The store at ``path``, to be read; ``how`` is for HDF5."""
    if not is_zarr(path):
        return h5py.File(path, "r", **how)
    import zarr

    # Not by the summary of all metadata that may lie in the root: it may be of an earlier time.
    return zarr.open_group(str(path), mode="r", use_consolidated=False)


@contextmanager
def reading(path: Path) -> Iterator[Store]:
    """As :func:`open_store`, closed at the end."""
    store = open_store(path)
    try:
        yield store
    finally:
        if isinstance(store, h5py.File):
            store.close()


def is_group(node: Any) -> bool:
    return hasattr(node, "keys")


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node; with text as str."""
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in dict(node.attrs).items()}


def kind(store: Store) -> str | None:
    """``h5mu`` (several modalities), ``h5ad`` (one matrix) or None, by content."""
    if "mod" in store or attributes(store).get("encoding-type") == "MuData":
        return "h5mu"
    return "h5ad" if "obs" in store and "var" in store else None


def in_memory(path: Path, without: set[str]) -> Any:
    """A copy of the Zarr store at ``path`` in memory, as a store of zarr's; the nodes ``without`` are left out."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    make = default_buffer_prototype().buffer.from_bytes
    held = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        place = file.relative_to(path).as_posix()
        if place == ".zmetadata" or any(place.startswith(f"{left}/") for left in without):
            continue
        held[place] = make(_alone(file) if place == "zarr.json" else file.read_bytes())
    return MemoryStore(held)


def _alone(root: Path) -> bytes:
    """The root's metadata without the summary of all others."""
    content = json.loads(root.read_text())
    content.pop("consolidated_metadata", None)
    return json.dumps(content).encode()


@contextmanager
def new(path: Path, bare: AnnData) -> Iterator[Store]:
    """Write ``bare`` (an AnnData without matrices) as the ending of ``path`` says, and open it to add matrices."""
    if path.suffix != ENDING:
        bare.write_h5ad(path)
        with h5py.File(path, "r+") as file:
            yield file
        return
    import zarr

    bare.write_zarr(path)
    (path / ".zmetadata").unlink(missing_ok=True)  # the summary, which will be another
    yield zarr.open_group(str(path), mode="r+", use_consolidated=False)
    zarr.consolidate_metadata(str(path))


def new_array(store: Store, place: str, shape: tuple[int, int]) -> Any:
    """A float32 matrix in a Zarr store that anndata reads, to be filled some rows after others."""
    pieces = max(1, min(PIECE[0], shape[0])), max(1, min(PIECE[1], shape[1]))
    about = {"encoding-type": "array", "encoding-version": "0.2.0"}
    return store.create_array(place, shape=shape, chunks=pieces, dtype="float32", attributes=about)


def require_whole(group: Any, path: Path) -> None:
    """Refuse a sparse matrix of a Zarr store with pieces that are not there: they would be read as zeros.

    zarr leaves out pieces that hold zeros only, which entries of a sparse matrix are not.
    """
    data = group["data"]
    if hasattr(data, "nchunks_initialized") and data.nchunks_initialized < data.nchunks:
        raise InputRefused(
            f"the store is incomplete: {data.nchunks - data.nchunks_initialized} of {data.nchunks} pieces of"
            f" {data.path} are not there",
            where=str(path),
            do="copy it again with all its files, or write it anew",
        )
