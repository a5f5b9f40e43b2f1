"""Reading and writing cells: h5ad, h5mu, Zarr stores and 10x h5, with a refusal for everything that is not what it should be."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import mudata as mu
import pandas as pd

from xmodal import outputs
from xmodal.data import leaving, stores, tables
from xmodal.data.broken import Stamp
from xmodal.data.broken import refusing as refusing
from xmodal.data.intervals import split_peaks
from xmodal.data.on_disk import OnDisk
from xmodal.data.on_disk import csr as csr
from xmodal.errors import InputRefused
from xmodal.fields import ATAC, DEPTH, FLAG_EMPTY, GENOME, NOVELTY, PROTEIN, RNA, UNLIKE, UNS

log = logging.getLogger(__name__)
FEATURE_TYPES = {"Gene Expression": RNA, "Peaks": ATAC, "Antibody Capture": PROTEIN}
ALSO_CALLED = {
    "rna": RNA,
    "gex": RNA,
    "gene expression": RNA,
    "expression": RNA,
    "atac": ATAC,
    "peaks": ATAC,
    "protein": PROTEIN,
    "prot": PROTEIN,
    "adt": PROTEIN,
    "antibody capture": PROTEIN,
}
FRAGMENTS = (".tsv", ".bed")
FRAGMENTS_HINT = "; fragments (chrom, start, end, barcode) are counted by xmodal prepare --fragments"
ZARR = "zarr"
TABLE = "table"
ENDINGS = {"h5ad": (".h5ad",), "h5mu": (".h5mu",), "10x h5": (".h5", ".hdf5")}
# Families of gene names that no antibody panel uses; three of them make a list of features a list of genes.
GENES = (
    r"^(?:ENS[A-Z]*G\d{6,}.*|LINC\d+|TMEM\d+[A-Z]?|SLC\d+[A-Z]\d+|ZNF\d+|FAM\d+[A-Z]\d?|RP[LS]\d+[A-Z]?|COL\d+A\d+"
    r"|MT-[A-Z].*|KRT\d+|A[CL]\d{6}\.\d+|GM\d{3,}|\d+[A-Z]\d+RIK|HIST\d.*|ATP\d+[A-Z]\d?|NDUF[A-Z]\d+|CCN[A-Z]\d?"
    r"|IGH[AGM]\d?|IGKC|IGLC\d|S100A\d+|TUB[AB]\d?[A-Z]?|ACTB|GAPDH|MALAT1|B2M|PPBP|PF4|LYZ)$"
)
ANTIBODIES = r"(?:TotalSeq[-_]?[A-D]?|[-_]prot(?:ein)?|[-_]ADT|^ADT[-_].*|_TSA|_TSB|_TSC)$"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, ulimit
FULL_SIGNS = (*(f"errno = {n}," for n in FULL), "No space left", "quota exceeded")
TELL = "say which modality it is (--from NAME; in prepare --rna, --atac, --protein or --modality NAME=FILE)"


class ModalityUnknown(InputRefused):
    """An h5ad that leaves open which modality it holds."""


def read_cells(
    path: Path | str,
    modality: str | None = None,
    otherwise: str | None = None,
    on_disk: leaving.Choice = leaving.NEVER,
) -> mu.MuData:
    """All modalities of an h5mu, an h5ad, a Zarr store of either, a 10x h5 or a table as MuData.

    X is float32 CSR, ``obs`` holds the labels un-prefixed.

    ``modality`` names what an h5ad or a table holds; without it the name comes from what the file says (``uns["xmodal"]``,
    ``var["feature_types"]``) or from its feature names, and a file that leaves it open is ``otherwise``, or refused.
    ``on_disk``: whether matrices stay in the file (:class:`xmodal.data.on_disk.OnDisk`); those of a 10x h5 or a table never do.
    Raises :class:`InputRefused` for anything that cannot be read, and for files without cells or features.
    """
    mu.set_options(pull_on_update=False)
    path = Path(path)
    kind = TABLE if tables.is_table(path) else file_kind(path)
    with refusing(path):
        stamp = Stamp.of(path)
        left = kind not in ("10x h5", TABLE) and leaving.wanted(path, on_disk)
        read = leaving.read(path, READERS[kind]) if left else READERS[kind](path)
        if isinstance(read, mu.MuData):
            parts, shared = _by_usual_name(read)
        else:
            parts, shared = _by_feature_type(read, modality), None
            if not parts:
                parts = {modality or guess_modality(read, path, otherwise): read}
        stamp.require_same()
    if not parts:
        raise InputRefused("the file holds no modality", where=str(path), do="give a file with rna, atac or protein")
    for name, part in parts.items():
        with refusing(path):
            _as_csr(part, f"{path} (modality {name})" if len(parts) > 1 else str(path))
    return joined(parts, shared)


def _by_usual_name(mdata: mu.MuData) -> tuple[dict[str, ad.AnnData], mu.MuData]:
    """Other programs' names of modalities (``prot``, ``gex``, ``RNA``) become rna, atac and protein."""
    names = {n: ALSO_CALLED.get(n.lower(), n) for n in mdata.mod}
    if list(names) == list(names.values()) or len(set(names.values())) < len(names):
        return dict(mdata.mod), mdata
    log.info("modalities are taken as %s", ", ".join(f"{old} = {new}" for old, new in names.items()))
    parts = {names[n]: part for n, part in mdata.mod.items()}
    renamed = mu.MuData(parts)
    renamed.obs = mdata.obs.reindex(renamed.obs_names).rename(
        columns=lambda c: next((f"{new}:{c[len(n) + 1 :]}" for n, new in names.items() if c.startswith(f"{n}:")), c)
    )
    rows = mdata.obs_names.get_indexer(renamed.obs_names)
    for key in [k for k in mdata.obsm if k not in mdata.mod]:
        renamed.obsm[key] = mdata.obsm[key][rows]
    for key in mdata.obsp:
        renamed.obsp[key] = mdata.obsp[key][rows][:, rows]
    renamed.uns = dict(mdata.uns)
    return parts, renamed


def joined(parts: dict[str, ad.AnnData], shared: mu.MuData | None = None) -> mu.MuData:
    """One MuData of modalities, with labels merged into ``obs``; ``shared`` is given back, checked and completed."""
    mu.set_options(pull_on_update=False)
    mdata = shared if shared is not None else mu.MuData(parts)
    _merge_labels(mdata)
    return mdata


def file_kind(path: Path) -> str:
    """``h5ad``, ``h5mu``, ``10x h5`` or ``zarr``, by content; refused where content and ending contradict each other."""
    if stores.is_zarr(path):
        with refusing(path), stores.reading(path) as store:
            found = stores.kind(store)
        if found is None:
            do = "write it with anndata or mudata (write_zarr); of a SpatialData store give the folder of a table"
            raise InputRefused("a Zarr store, but neither of AnnData nor of MuData", where=str(path), do=do)
        return ZARR
    if path.is_dir():
        do = "give an h5ad, h5mu or 10x h5 file, or a Zarr store"
        raise InputRefused("this is a folder, not a file", where=str(path), do=do)
    if not path.exists():
        raise InputRefused("there is no such file", where=str(path), do="check the path")
    if path.stat().st_size == 0:
        raise InputRefused("the file is empty (0 bytes)", where=str(path), do="copy or download it again")
    with refusing(path):
        if not h5py.is_hdf5(path):
            zipped = path.name.removesuffix(".gz").endswith(FRAGMENTS)
            do = "give an h5ad, h5mu or 10x h5 file" + FRAGMENTS_HINT * zipped
            raise InputRefused("this is not an HDF5 file", where=str(path), do=do)
        with h5py.File(path, "r") as file:
            kind = _kind_of(file)
    if kind is None:
        raise InputRefused(
            "an HDF5 file, but neither h5ad nor h5mu nor 10x h5",
            where=str(path),
            do="write it with anndata or mudata, or give Cell Ranger's filtered_feature_bc_matrix.h5",
        )
    for other, endings in ENDINGS.items():
        if path.suffix.lower() in endings and other != kind:
            raise InputRefused(
                f"the name says {other}, the content is {kind}",
                where=str(path),
                do=f"rename it to {path.stem}{ENDINGS[kind][0]}; in Galaxy set its type to {ENDINGS[kind][0][1:]}",
            )
    return kind


def _kind_of(file: h5py.File) -> str | None:
    if found := stores.kind(file):
        return found
    if "matrix" in file and "barcodes" in file["matrix"]:
        return "10x h5"
    if any(isinstance(g, h5py.Group) and "barcodes" in g and "genes" in g for g in file.values()):
        return "10x h5"  # Cell Ranger before version 3
    return None


def _read_10x(path: Path) -> ad.AnnData:
    import scanpy

    adata = scanpy.read_10x_h5(path, gex_only=False)
    if "feature_types" not in adata.var:  # Cell Ranger before version 3: genes only
        adata.var["feature_types"] = "Gene Expression"
    return adata


def _read_zarr(store: Any) -> ad.AnnData | mu.MuData:
    """Of a folder, or of a store in memory."""
    if isinstance(store, Path):
        leaving.require_whole(store)
    read: ad.AnnData | mu.MuData = mu.read_zarr(store)
    return read


READERS: dict[str, Callable[[Any], Any]] = {
    "h5mu": mu.read_h5mu,
    "h5ad": ad.read_h5ad,
    "10x h5": _read_10x,
    ZARR: _read_zarr,
    TABLE: tables.read_values,
}


def _by_feature_type(adata: ad.AnnData, modality: str | None) -> dict[str, ad.AnnData]:
    """The modalities of a matrix with 10x feature types; empty where it has none (or ``modality`` says all is one)."""
    if "feature_types" not in adata.var or (modality and adata.var["feature_types"].nunique() < 2):
        return {}
    kinds = adata.var["feature_types"].astype(str).to_numpy()
    known = {t: m for t, m in FEATURE_TYPES.items() if (kinds == t).any()}
    for left in sorted(set(kinds) - set(known)):
        log.warning("%d features of type '%s' are left out", (kinds == left).sum(), left)
    parts = {}
    for kind, name in known.items():
        part = leaving.kept(adata, columns=kinds == kind)
        for key in [c for c in ("feature_types", "pattern", "read", "sequence") if c in part.var]:
            del part.var[key]
        genomes = [g for g in part.var[GENOME].astype(str).unique() if g] if GENOME in part.var else []
        if len(genomes) == 1:
            part.uns[GENOME] = genomes[0]
        parts[name] = part
    return parts


def guess_modality(adata: ad.AnnData, path: Path, otherwise: str | None = None) -> str:
    """The modality of an h5ad by what it says about itself, then by its feature names; refused where that is open."""
    said = adata.uns.get(UNS, {})
    for key in ("modality", "target"):
        if hasattr(said, "get") and isinstance(said.get(key), str):
            return str(said[key])
    names = pd.Series(adata.var_names[:20_000].astype(str))
    if len(names) and split_peaks(names)["chrom"].notna().mean() > 0.9:
        return ATAC
    if len(names) and names.str.contains(ANTIBODIES, regex=True).mean() > 0.5:
        return PROTEIN
    # Proteins are also called by gene symbols, so a list without such families stays open.
    if names.str.upper().str.match(GENES).sum() >= 3:
        return RNA
    if otherwise is not None:
        return otherwise
    shown = ", ".join(names[:3])
    raise ModalityUnknown(f"it does not say which modality it holds (features: {shown}, ...)", where=str(path), do=TELL)


def _as_csr(adata: ad.AnnData, where: str) -> None:
    """X as float32 CSR with sorted, summed entries, in place; refused where there is nothing."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        missing = "cells" if adata.n_obs == 0 else "features"
        raise InputRefused(f"there are no {missing} in it", where=where, do="give a file that holds cells and features")
    if adata.X is None:
        raise InputRefused("it has no matrix X", where=where, do="put the counts into X")
    if not isinstance(adata.X, OnDisk):
        adata.X = csr(adata.X)


def _merge_labels(mdata: mu.MuData) -> None:
    """Columns such as ``rna:cell_type`` or ``mod["rna"].obs["cell_type"]`` go into ``obs["cell_type"]``, where absent.

    Where modalities disagree the first one (rna) wins, with a warning for labels.
    """
    own = {DEPTH, FLAG_EMPTY, NOVELTY, UNLIKE}  # of one modality's cells, so no labels
    before = set(mdata.obs.columns)
    order = sorted(mdata.mod, key=lambda m: (m != RNA, m))
    for name in order:
        for column in [c for c in mdata.obs.columns if str(c).startswith(f"{name}:")]:
            plain = str(column).removeprefix(f"{name}:")
            if plain not in own:
                _fill(mdata, plain, mdata.obs[column], before)
    for name in order:
        obs = mdata.mod[name].obs
        if not obs.index.is_unique:
            continue  # found and named by the contracts
        for column in [c for c in obs.columns if c not in own]:
            _fill(mdata, str(column), obs[column].reindex(mdata.obs_names), before)


def _fill(mdata: mu.MuData, column: str, values: pd.Series, before: set[str]) -> None:
    if column in before:
        return
    if column not in mdata.obs:
        mdata.obs[column] = values.to_numpy() if not isinstance(values.dtype, pd.CategoricalDtype) else values.array
        return
    present = mdata.obs[column]
    both = present.notna() & values.notna()
    text = not pd.api.types.is_numeric_dtype(values.dtype)
    if text and (present[both].astype(object).to_numpy() != values[both].astype(object).to_numpy()).any():
        log.warning("modalities disagree about the label '%s': those of the first modality are used", column)
    if present.isna().any():
        filled = present.astype(object).where(present.notna(), values.astype(object))
        mdata.obs[column] = filled.astype("category") if text else filled.infer_objects()


def write_h5ad(adata: ad.AnnData, path: Path | str, overwrite: bool = False) -> None:
    """Write, compressed, under a temporary name and rename; equal content gives equal bytes."""
    with outputs.replacing(Path(path), overwrite) as temporary, naming_full_disk(Path(path)):
        adata.write_h5ad(temporary, compression="gzip", compression_opts=1)


def write_h5mu(mdata: mu.MuData, path: Path | str, overwrite: bool = False) -> None:
    """As :func:`write_h5ad`, for a MuData."""
    with outputs.replacing(Path(path), overwrite) as temporary, naming_full_disk(Path(path)):
        mdata.write_h5mu(temporary, compression="gzip", compression_opts=1)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """HDF5 reports a full disk as OSError or RuntimeError, mostly without an errno; the user gets one plain message."""
    hooks = sys.unraisablehook, sys.excepthook
    sys.unraisablehook = lambda _: None  # HDF5 complains at every handle it cannot flush, through both hooks
    sys.excepthook = lambda *_: None
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = f"{error} {error.__cause__ or ''} {error.__context__ or ''}"
        if getattr(error, "errno", None) not in FULL and not any(sign in text for sign in FULL_SIGNS):
            raise
        hooks = sys.unraisablehook, sys.excepthook
        atexit.register(_exit_at_once)
        raise InputRefused("no space left on the disk", where=str(path), do="free space and run again") from error
    finally:
        sys.unraisablehook, sys.excepthook = hooks


def _exit_at_once() -> None:
    """HDF5 keeps a file that it could not write and crashes at exit (seen: signal 11): leave before it does."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(InputRefused.exit_code)
