"""Which cells vote together: a column of the file, or small clusters of the model's embedding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.annotating.settings import AUTO, NONE
from xmodal.data.splits import is_continuous, near
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
NEIGHBORS = 15  # of each cell in the graph, as in `xmodal embed`
# Small clusters, so that few of them hold two types: resolutions for so many cells at most, as CellTypist over-clusters
# before its majority vote (Dominguez Conde et al. 2022, celltypist.classifier.Classifier.over_cluster).
RESOLUTIONS = ((5_000, 5.0), (20_000, 10.0), (40_000, 15.0), (100_000, 20.0), (200_000, 25.0))
MOST_RESOLUTION = 30.0
MOST_CLUSTERS = 5_000  # more are no clusters but the cells themselves
GRAPH_CELLS = 200_000  # most cells in the graph, as `xmodal embed` has it
Index = npt.NDArray[np.int64]
Embed = Callable[[Index], Iterator[npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Clusters:
    """``codes``: (cells,), -1 for a cell without; ``names``: of the codes; ``key``: the column, or auto."""

    codes: Index
    names: tuple[str, ...]
    key: str


def of_column(obs: pd.DataFrame, key: str, option: str = "--cluster-key") -> Clusters | None:
    """The clusters of an obs column; None where clusters are found later, or none are wanted; ``option`` named it."""
    if key in (AUTO, NONE):
        return None
    if key not in obs:
        raise InputRefused(
            f"obs has no column '{key}'", where=option, do=f"{near(key, list(obs.columns))}; or {AUTO}, {NONE}"
        )
    column = obs[key]
    if is_continuous(column) or not column.notna().any():
        what = "numbers that are not whole" if column.notna().any() else "no values"
        raise InputRefused(
            f"obs['{key}'] holds {what}, and no clusters",
            where=option,
            do=f"name the column of the clusters; or {AUTO}, {NONE}",
        )
    text = column.astype(object).where(column.notna(), "").astype(str).to_numpy(str)
    names, codes = np.unique(text, return_inverse=True)
    if len(names) > MOST_CLUSTERS:
        raise InputRefused(
            f"obs['{key}'] has {len(names)} values; more than {MOST_CLUSTERS} are no clusters",
            where=option,
            do="name the column of the clusters",
        )
    kept = [name for name in names if name]
    place = np.array([kept.index(n) if n else -1 for n in names], np.int64)
    return Clusters(place[codes], tuple(map(str, kept)), key)


def found(embed: Embed, cells: int, seed: int) -> Clusters | None:
    """Leiden clusters of so many ``cells``, the largest first; None where there are too few for a graph.

    ``embed``: rows to their embedding, a part (cells, width) after the other.  Of more than ``GRAPH_CELLS`` so many are drawn,
    and each of the others joins those it is nearest to, as in ``xmodal embed``.
    """
    from xmodal.embedding import beside
    from xmodal.embedding.graph import Graph, by_size, neighbours

    if cells <= NEIGHBORS:
        log.info("%d cells are too few for clusters: none vote", cells)
        return None
    rows = np.arange(cells) if cells <= GRAPH_CELLS else beside.drawn(cells, GRAPH_CELLS, seed)
    log.info("clusters of %d cells", len(rows))
    embedding = np.concatenate(list(embed(rows)))
    graph = Graph.of(neighbours(embedding, NEIGHBORS, seed).obsp[fields.CONNECTIVITIES])
    codes = graph.leiden(resolution(len(rows)), seed)
    if len(rows) < cells:
        every = np.empty(cells, np.int64)
        every[rows] = codes
        others = np.setdiff1d(np.arange(cells), rows)
        every[others] = beside.joined(codes, embedding, embed(others), seed)
        codes = by_size(every)
    return Clusters(codes, tuple(str(i) for i in range(int(codes.max()) + 1)), AUTO)


def resolution(cells: int) -> float:
    return next((value for most, value in RESOLUTIONS if cells < most), MOST_RESOLUTION)
