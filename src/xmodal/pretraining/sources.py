"""RNA counts in files, read row by row: nothing is held but the names of the genes.

``.h5ad`` (X, a layer or ``.raw``; CSR or dense), ``.h5mu`` (its rna) and 10x ``.h5``, which all keep the counts of one cell
together, so that a block of cells is one stretch of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from xmodal import fields
from xmodal.data import contracts, features, io
from xmodal.data.intervals import split_peaks
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

Index = npt.NDArray[np.int64]
RAW = "raw"
TYPES = "feature_types"
GENES = next(kind for kind, name in io.FEATURE_TYPES.items() if name == fields.RNA)
SAMPLED = 256  # cells looked at in each of three places, so that a file of another kind is refused before hours of work
TRAIN, VALID, OTHER = range(3)  # what a file's own split says of a cell


@dataclass(frozen=True)
class Source:
    """One file.  ``place``: its matrix within the file; ``columns``: which of its ``width`` features are genes.

    ``names``: their symbols, ``ids``: their Ensembl ids (empty: unknown).  ``depth``: where total counts over all features of
    the original file stand, if it was prepared.  ``roles``: what the file's own split says of its cells, (cells,), one byte each.
    """

    path: Path
    place: str
    cells: int
    width: int
    columns: Index
    names: tuple[str, ...]
    ids: tuple[str, ...]
    depth: str | None = None
    roles: npt.NDArray[np.uint8] | None = None

    def read(self, start: int, stop: int) -> tuple[sp.csr_matrix, npt.NDArray[np.float32]]:
        """Counts of its genes, (stop - start, genes of the file), and total counts; refused where they are no counts."""
        with io.refusing(self.path), h5py.File(self.path, "r") as file:
            rows = read_rows(file[self.place], start, stop, self.width)
            if len(self.columns) < self.width:
                rows = rows[:, self.columns]
            if not contracts.is_counts(rows):
                raise InputRefused(f"cells {start} to {stop} are no counts", where=str(self.path), do=RAW_COUNTS)
            depth = file[self.depth][start:stop] if self.depth else contracts.totals(rows)
        return rows, np.asarray(depth, np.float32)


RAW_COUNTS = "give the file with the raw counts in X, or name the layer that holds them: --layer NAME"


def read_rows(matrix: Any, start: int, stop: int, width: int) -> sp.csr_matrix:
    """Rows of a matrix on disk, (stop - start, width); ``matrix``: a group with indptr, indices and data, or dense."""
    if isinstance(matrix, h5py.Dataset):
        return sp.csr_matrix(matrix[start:stop], dtype=np.float32)
    ends = matrix["indptr"][start : stop + 1].astype(np.int64)
    first, last = int(ends[0]), int(ends[-1])
    parts = (matrix["data"][first:last].astype(np.float32), matrix["indices"][first:last], ends - first)
    return sp.csr_matrix(parts, shape=(stop - start, width))


def find(path: Path, layer: str | None = None, table: pd.DataFrame | None = None) -> Source:
    """Where the counts of ``path`` are and what its genes are called; refuses what holds no raw RNA counts.

    ``layer``: counts are in that layer (``raw``: in ``.raw``) where a file has it.  ``table``: symbols of Ensembl ids.
    """
    kind = io.file_kind(path)
    with io.refusing(path), h5py.File(path, "r") as file:
        place, var = _ten_x(file, path) if kind == "10x h5" else _anndata(file, path, layer, kind == "h5mu")
        matrix = file[place]
        cells = (matrix.shape[0] if isinstance(matrix, h5py.Dataset) else len(matrix["indptr"]) - 1) if len(var) else 0
        columns = _gene_columns(var, path)
        if cells == 0:
            raise InputRefused("there are no cells or no features in it", where=str(path), do="leave this file out")
        names, ids, _ = features.gene_names(var.iloc[columns], str(path), table)
        of_cells = "mod/" + place.split("/")[1] + "/obs" if kind == "h5mu" else "obs"
        depth = f"{of_cells}/{fields.DEPTH}"
        found = Source(
            path,
            place,
            cells,
            len(var),
            columns,
            tuple(map(str, names)),
            () if ids is None else tuple(ids.fillna("")),
            depth if depth in file else None,
            _roles(file, of_cells, cells),
        )
        _require_counts(file, found, layer)
    return found


def _ten_x(file: h5py.File, path: Path) -> tuple[str, pd.DataFrame]:
    if "matrix" in file:
        about = file["matrix/features"] if "features" in file["matrix"] else file["matrix"]
        var = pd.DataFrame({fields.GENE_ID: _texts(about["id"])}, index=pd.Index(_texts(about["name"])))
        if "feature_type" in about:
            var[TYPES] = _texts(about["feature_type"])
        return "matrix", var
    genomes = [name for name, group in file.items() if isinstance(group, h5py.Group) and "barcodes" in group]
    if len(genomes) > 1:  # Cell Ranger before version 3
        raise InputRefused(f"it holds several genomes ({', '.join(genomes)})", where=str(path), do="write one of them")
    about = file[genomes[0]]
    return genomes[0], pd.DataFrame(
        {fields.GENE_ID: _texts(about["genes"])}, index=pd.Index(_texts(about["gene_names"]))
    )


def _texts(dataset: h5py.Dataset) -> npt.NDArray[np.object_]:
    return np.asarray(dataset.asstr()[:], object)


def _anndata(file: h5py.File, path: Path, layer: str | None, several: bool) -> tuple[str, pd.DataFrame]:
    base = ""
    if several:
        known = [name for name in file["mod"] if io.ALSO_CALLED.get(name.lower()) == fields.RNA]
        if not known:
            raise InputRefused(f"it has {', '.join(file['mod'])}, no rna", where=str(path), do="leave this file out")
        base = f"mod/{known[0]}/"
    place, var = f"{base}X", f"{base}var"
    if layer == RAW and f"{base}raw/X" in file:
        place, var = f"{base}raw/X", f"{base}raw/var"
    elif layer is not None and f"{base}layers/{layer}" in file:
        place = f"{base}layers/{layer}"
    if place not in file:
        raise InputRefused("it has no matrix X", where=str(path), do=RAW_COUNTS)
    if isinstance(file[place], h5py.Group) and "csc" in str(
        file[place].attrs.get("encoding-type", file[place].attrs.get("h5sparse_format", "csr"))
    ):
        raise InputRefused(
            "its matrix is stored by gene (CSC), so cells cannot be read one after the other",
            where=str(path),
            do="write it by cell: adata.X = adata.X.tocsr(); adata.write_h5ad(NAME)",
        )
    return place, read_elem(file[var])


def _gene_columns(var: pd.DataFrame, path: Path) -> Index:
    if TYPES in var:
        columns = np.flatnonzero((var[TYPES].astype(str) == GENES).to_numpy())
    else:
        columns = np.arange(len(var))
        names = pd.Series(var.index[:2_000].astype(str))
        if len(names) and split_peaks(names)["chrom"].notna().mean() > 0.5:
            columns = columns[:0]
    if not len(columns):
        raise InputRefused("no feature of it is a gene", where=str(path), do="give files of RNA counts")
    return columns


def _roles(file: h5py.File, of_cells: str, cells: int) -> npt.NDArray[np.uint8] | None:
    """What the file's own split says, (cells,); an .h5mu keeps it for all its cells, with the place of each in its rna."""
    own = f"{of_cells}/{fields.SPLIT}"
    shared = f"obs/{fields.SPLIT}"
    if own not in file and shared not in file:
        return None
    said = np.asarray(read_elem(file[own if own in file else shared])).astype(str)
    codes = np.full(len(said), OTHER, np.uint8)
    codes[said == fields.TRAIN], codes[said == fields.VALID] = TRAIN, VALID
    if own in file:
        return codes
    modality = of_cells.split("/")[1]
    place = np.asarray(file[f"obsmap/{modality}"][:], np.int64) - 1  # counted from 1; 0: not measured
    roles = np.full(cells, OTHER, np.uint8)
    roles[place[place >= 0]] = codes[place >= 0]
    return roles


def _require_counts(file: h5py.File, found: Source, layer: str | None) -> None:
    """Look at cells in the beginning, middle and end; a refusal names the layer that holds the counts, where one does."""
    for start, stop in sampled(found.cells):
        rows = read_rows(file[found.place], start, stop, found.width)[:, found.columns]
        findings = [
            f
            for f in contracts.check_modality(fields.RNA, _as_anndata(rows), fields.NB, where=str(found.path))
            if f.level == "error" and "not one cell" not in f.what
        ]
        if findings:
            other = _counts_elsewhere(file, found) if layer is None else ""
            raise InputRefused(findings[0].what, where=str(found.path), do=other or RAW_COUNTS)


def sampled(cells: int) -> list[tuple[int, int]]:
    """Three stretches of a file, fewer where they would overlap."""
    size = min(SAMPLED, cells)
    starts = sorted({0, (cells - size) // 2, cells - size} if cells >= 3 * size else {0})
    return [(start, start + size) for start in starts]


def _counts_elsewhere(file: h5py.File, found: Source) -> str:
    base = found.place.rpartition("X")[0]
    layers: Sequence[str] = list(file[f"{base}layers"]) if f"{base}layers" in file else []
    places = {name: f"{base}layers/{name}" for name in layers} | {RAW: f"{base}raw/X"}
    for name, place in places.items():
        if place not in file:
            continue
        matrix = file[place]
        width = len(read_elem(file[f"{base}raw/var"])) if name == RAW else found.width
        if contracts.is_counts(read_rows(matrix, 0, min(SAMPLED, found.cells), width)):
            return f"the raw counts are in {'.raw' if name == RAW else f'its layer {name!r}'}: give --layer {name}"
    return ""


def _as_anndata(rows: sp.csr_matrix) -> Any:
    import anndata

    return anndata.AnnData(rows)
