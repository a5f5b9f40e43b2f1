"""What a biologist sees after a prediction: one picture, a table of the cells and a table of the features.

Everything is read back from the written prediction in blocks of rows, so that memory does not grow with the cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.data import stores
from xmodal.outputs import replacing_files
from xmodal.predicting.threshold import threshold_of
from xmodal.predicting.top import top_of

if TYPE_CHECKING:
    import pandas as pd

PICTURE, CELLS, FEATURES = OWN = ("prediction.png", "cells.tsv", "features.tsv")
MOST_CELLS = 3_000  # points in the map: more only cover each other
MOST_FEATURES = 1_000  # the most variable ones decide where a cell lies; the rest is close to constant
VALUES = 4_000_000  # of a block: 32 MB as float64, whatever the number of features
DIGITS = 6  # significant ones in the tables: a float32 has seven
# Columns that hold types, the likeliest first, in small letters without signs between them ("Cell.Type" is "celltype").
TYPES = (
    *("celltype", "celltypes", "celltypename", "celltypeclname", "celllabel", "celltypelabel", "annotation", "type"),
    *("label", "cluster", "clusters", "leiden", "louvain", "seuratclusters", "celltypeontologytermid"),
)
Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Written:
    """A prediction in its file.  ``matrix``: (cells, features), dense or CSR on disk; nan where nothing was predicted."""

    matrix: Any
    obs: pd.DataFrame
    var: pd.DataFrame
    about: dict[str, Any]
    starts: Index | None = None  # CSR: where each row begins, held since HDF5 is slow at single numbers

    def rows(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Cells ``first`` to ``last`` as a dense array; what ``--top`` or ``--threshold`` did not keep is zero."""
        if self.starts is None:
            return np.asarray(self.matrix[first:last], np.float32)
        own = self.starts[first : last + 1]
        piece = slice(own[0], own[-1])
        parts = (self.matrix["data"][piece], self.matrix["indices"][piece], own - own[0])
        return np.asarray(sp.csr_matrix(parts, (len(own) - 1, len(self.var))).toarray(), np.float32)


@dataclass(frozen=True)
class Overview:
    """What is drawn.  ``places``: (drawn cells, 2), ``shares``: (2,) of the variance; ``drawn``: their rows in ``cells``."""

    about: dict[str, Any]
    cells: pd.DataFrame
    features: pd.DataFrame
    label: str | None
    drawn: Index
    places: Float
    shares: Float


def write(folder: Path, prediction: Path, target: str, seed: int, counts: pd.Series | None = None) -> None:
    """Picture and tables of ``prediction`` (.h5ad, .zarr, or .h5mu with modality ``target``) into ``folder``, all or nothing.

    ``counts``: total counts that were measured, by cell name.  Whether the folder may be used is asked before predicting
    (:func:`xmodal.outputs.refuse_existing`): other outputs of the same command may lie in it by now.
    """
    from xmodal.reporting import figures, prediction_figure

    found = of_file(prediction, target, seed, counts)
    with replacing_files(folder, OWN, overwrite=True) as temporary:
        for name, table in ((CELLS, found.cells), (FEATURES, found.features)):
            path = temporary / name
            table.to_csv(path, sep="\t", index=False, lineterminator="\n", float_format=f"%.{DIGITS}g")
        (temporary / PICTURE).write_bytes(figures.png(prediction_figure.prediction(found)))


def of_file(prediction: Path, target: str, seed: int, counts: pd.Series | None = None) -> Overview:
    """Two passes over the file: mean and spread of every feature, then the profiles of the drawn cells."""
    with _opened(prediction, target) as written:
        there, mean, spread = moments(written)
        columns = np.flatnonzero(np.isfinite(mean))  # beside a measurement others have no prediction
        kept = _kept(written, len(columns))
        drawn = _drawn(int(there.sum()), seed)
        variable = columns[np.argsort(-spread[columns], kind="stable")[:MOST_FEATURES]]
        profiles = _profiles(written, np.flatnonzero(there)[drawn], variable)
        label = type_column(written.obs)
        cells = _cells(written.obs[there], label, counts)
        features = _features(written.var.iloc[columns], mean[columns], spread[columns], kept)
        return Overview(written.about, cells, features, label, drawn, *places(profiles))


@contextmanager
def _opened(path: Path, target: str) -> Iterator[Written]:
    from anndata.io import read_elem

    with stores.reading(path) as handle:
        obs = read_elem(handle["obs"])
        group = handle["mod"][target] if "mod" in handle else handle
        if group is not handle:
            own = read_elem(group["obs"])
            obs = own.join(obs.reindex(own.index)[[c for c in obs if c not in own]])
        place = f"layers/{fields.PREDICTED}"
        matrix = group[place if place in group else "X"]
        starts = matrix["indptr"][:].astype(np.int64) if stores.is_group(matrix) else None
        yield Written(matrix, obs, read_elem(group["var"]), dict(read_elem(group[f"uns/{fields.UNS}"])), starts)


def moments(written: Written) -> tuple[npt.NDArray[np.bool_], Float, Float]:
    """Which cells were predicted, (cells,), and mean and standard deviation of each feature between them, (features,).

    Block by block (Chan, Golub and LeVeque 1983), which keeps a constant feature at exactly zero.
    """
    cells, features = len(written.obs), len(written.var)
    there, count = np.zeros(cells, bool), 0
    mean, squares = np.zeros(features), np.zeros(features)
    step = max(1, VALUES // max(features, 1))
    for first in range(0, cells, step):
        block = written.rows(first, first + step)
        inside = ~np.isnan(block).all(axis=1)
        there[first : first + step] = inside
        block = block[inside].astype(np.float64)
        new = len(block)
        if not new:
            continue
        own = block.mean(axis=0)
        away = own - mean
        squares += np.square(block - own).sum(axis=0) + np.square(away) * (count * new / (count + new))
        mean += away * (new / (count + new))
        count += new
    return there, mean, np.sqrt(squares / max(count, 1))


def _kept(written: Written, features: int) -> Index | None:
    """With ``--top`` or ``--threshold``: in how many cells the value of each feature was kept, (features,)."""
    if not top_of(written.about) and threshold_of(written.about) is None:
        return None
    kept = np.zeros(features, np.int64)
    indices = written.matrix["indices"]
    for first in range(0, len(indices), VALUES):
        kept += np.bincount(indices[first : first + VALUES], minlength=features)
    return kept


def _drawn(cells: int, seed: int) -> Index:
    if cells <= MOST_CELLS:
        return np.arange(cells)
    return np.sort(np.random.default_rng(seed).choice(cells, MOST_CELLS, replace=False))


def _profiles(written: Written, rows: Index, columns: Index) -> npt.NDArray[np.float32]:
    """Row by row: neither all cells nor all features of the drawn ones are held."""
    out = np.empty((len(rows), len(columns)), np.float32)
    for i, row in enumerate(rows):
        out[i] = written.rows(row, row + 1)[0, columns]
    return out


def places(values: npt.NDArray[np.float32]) -> tuple[Float, Float]:
    """The first two principal components of ``values`` (cells, features): (cells, 2), and their shares of the variance.

    All zero where the cells do not differ.  The sign, which is arbitrary, makes the outermost cell positive.
    """
    from scipy.linalg import eigh

    x = values.astype(np.float64)
    x -= x.mean(axis=0) if len(x) else 0
    total, points, shares = float(np.square(x).sum()), np.zeros((len(x), 2)), np.zeros(2)
    if not total:
        return points, shares
    wide = len(x) <= x.shape[1]
    gram = x @ x.T if wide else x.T @ x
    size = len(gram)
    found, vectors = eigh(gram, subset_by_index=[max(size - 2, 0), size - 1])
    found = np.maximum(found[::-1], 0)
    axes = vectors[:, ::-1] * np.sqrt(found) if wide else x @ vectors[:, ::-1]
    outermost = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    points[:, : axes.shape[1]] = axes * np.where(outermost < 0, -1, 1)
    shares[: len(found)] = found / total
    return points, shares


def type_column(obs: pd.DataFrame) -> str | None:
    """The column of ``obs`` that holds the cells' types, by its name; None where there is none."""
    plain = {re.sub(r"[^a-z0-9]", "", str(c).lower()): str(c) for c in reversed(list(obs))}
    return next((plain[t] for t in TYPES if t in plain and (_text(obs[plain[t]]) != "").any()), None)


def _text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str)


def _cells(obs: pd.DataFrame, label: str | None, counts: pd.Series | None) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({"cell": obs.index.astype(str)})
    if fields.NOVELTY in obs:
        score = obs[fields.NOVELTY].to_numpy(np.float64)
        table["unlikeness"] = score  # empty where a cell has no counts
        table["unlike"] = np.where(obs[fields.UNLIKE].to_numpy(bool), "yes", "no")
    if counts is not None:
        table["source_counts"] = counts.reindex(obs.index).round().astype("Int64").to_numpy()
    if label is not None:
        table[label] = _text(obs[label]).to_numpy()
    return table


def _rounded(values: Float) -> Float:
    """As they stand in the table, so that picture and table have one order."""
    return np.array([float(f"{v:.{DIGITS}g}") for v in values])


def _features(var: pd.DataFrame, mean: Float, spread: Float, kept: Index | None) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({"feature": var.index.astype(str), "mean": _rounded(mean), "sd": _rounded(spread)})
    if kept is not None:
        table["cells_kept"] = kept
    for column in (fields.RELIABILITY, fields.RELIABILITY_LOW, fields.RELIABILITY_HIGH, fields.TRUST):
        if column in var:
            values = var[column]
            own = _text(values) if column == fields.TRUST else values
            table[column.removeprefix("xmodal_")] = own.to_numpy()
    return table
