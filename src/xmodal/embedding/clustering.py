"""Neighbours, UMAP and clusters of an embedding."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from xmodal import fields
from xmodal.embedding import beside, resolutions
from xmodal.embedding.graph import Array, Graph, Groups, neighbours
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from xmodal.embedding.settings import EmbedSettings

log = logging.getLogger(__name__)
PER_CLUSTER = 3  # cells below which nobody would call it a cluster
SPECTRAL = 10  # cells below which UMAP cannot begin with a spectral layout


@dataclass(frozen=True)
class Found:
    """``clusters``: (cells,), 0 the largest; ``umap``: (cells, 2); ``distances``, ``connectivities``: CSR (cells, cells).

    ``about``: ``uns["neighbors"]`` as scanpy writes it; ``facts``: resolution and clusters, and how they were chosen.
    """

    clusters: Groups
    umap: Array
    distances: sp.csr_matrix
    connectivities: sp.csr_matrix
    about: dict[str, Any]
    facts: dict[str, Any]


def require_cells(cells: int, settings: EmbedSettings) -> None:
    """Refuse too few cells for the graph, or for the clusters that are wanted."""
    cells = min(cells, settings.graph_cells)
    if cells <= settings.neighbors:
        raise InputRefused(
            f"{cells} {'cell' if cells == 1 else 'cells'} cannot have {settings.neighbors} neighbours each: --neighbors "
            f"{settings.neighbors} needs at least {settings.neighbors + 1}",
            do=f"give --neighbors {cells - 1} or less, or more cells" if cells > 2 else "give more cells",
        )
    if settings.clusters is not None and cells < PER_CLUSTER * settings.clusters:
        raise InputRefused(
            f"--clusters {settings.clusters}: there are {cells} cells, fewer than {PER_CLUSTER} for each cluster",
            do=f"give --clusters {max(cells // PER_CLUSTER, 2)} or less, or more cells",
        )


def clustered(embedding: Array, settings: EmbedSettings, seed: int) -> Found:
    """Graph, UMAP and clusters of ``embedding`` (cells, latent); of more cells than may be in the graph, by those drawn."""
    if len(embedding) <= settings.graph_cells:
        return _of_all(embedding, settings, seed)
    rows = beside.drawn(len(embedding), settings.graph_cells, seed)
    log.warning(
        "graph, UMAP and clusters are those of %d of %d cells, drawn (--graph-cells); the others are put beside them",
        *(len(rows), len(embedding)),
    )
    return beside.all_beside(_of_all(embedding[rows], settings, seed), embedding, rows, seed)


def _of_all(embedding: Array, settings: EmbedSettings, seed: int) -> Found:
    log.info("neighbours of %d cells", len(embedding))
    held = neighbours(embedding, settings.neighbors, seed)
    import scanpy as sc

    log.info("UMAP")
    sc.tl.umap(held, random_state=seed, init_pos="spectral" if len(embedding) >= SPECTRAL else "random")
    log.info("clusters")
    graph = Graph.of(held.obsp[fields.CONNECTIVITIES])
    resolution, facts = _resolution(graph, embedding, settings, seed)
    clusters = graph.leiden(resolution, seed)
    facts |= {"resolution": resolution, "clusters": int(clusters.max()) + 1, "neighbors": settings.neighbors}
    return Found(
        clusters,
        np.asarray(held.obsm[fields.UMAP], np.float32),
        sp.csr_matrix(held.obsp[fields.DISTANCES]),
        sp.csr_matrix(held.obsp[fields.CONNECTIVITIES]),
        dict(held.uns[fields.NEIGHBORS]),
        facts,
    )


def _resolution(graph: Graph, embedding: Array, settings: EmbedSettings, seed: int) -> tuple[float, dict[str, Any]]:
    """The resolution to use, and how it came about."""
    given = settings.given_resolution()
    if settings.clusters is not None:
        return resolutions.for_clusters(graph, settings.clusters, seed), {
            "resolution_by": "clusters",
            "clusters_wanted": settings.clusters,
        }
    if given is not None:
        return given, {"resolution_by": "given"}
    found, tried = resolutions.choose(graph, embedding, settings.neighbors, seed)
    return found, {"resolution_by": "stability", "stability": [asdict(t) for t in tried]}
