"""At which resolution the clusters come back when cells are left out: the automatic choice; and a wanted number of them.

The rule (cluster-wise stability: Hennig 2007, Comput. Stat. Data Anal. 52:258).  For every resolution of a fixed grid, all cells
are clustered, and eight times a random 80 % of them, each time with another seed.  A cluster is stable if, on average over the
eight, its best match overlaps it by 0.75 (Jaccard: cells of both over cells of either, among those drawn), and if it has as many
cells as a neighbourhood: a cell alone always comes back.  The stability of a resolution is the share of the cells that lie in
stable clusters.  Of the resolutions that give at least two clusters, on average of a neighbourhood or more, those within 0.1 of
the best are taken as equally stable, and among them the one with the most clusters is chosen (of equal numbers the most stable,
then the lowest resolution).  Where even the best is below 0.5, as in cells without types, clusters mean little: the fewest are
taken, and it is said.

An index of the whole clustering (adjusted Rand) would not do: two groups far apart are stable to the last cell, and hide all
types inside them; and a type cut in two in vain costs it little.

With more than 10,000 cells the number of clusters is chosen in this way on so many drawn at random, with a graph of their own,
and looked for among all cells.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.embedding.graph import Array, Graph, Groups, neighbours

log = logging.getLogger(__name__)
GRID = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.0)
RUNS, PART = 8, 0.8
ALIKE = 0.75  # Hennig's bound of a valid, stable cluster
EQUAL = 0.1  # of the cells: in simulated types that overlap eight runs do not tell such a difference from none
STABLE = 0.5  # cells drawn from one Gaussian have none in stable clusters; ten types that overlap badly three quarters
MOST_CELLS = 10_000
STEPS = 24  # halvings of the range of resolutions; each number of clusters that there is has been met long before
LOWEST, HIGHEST = 1e-3, 100.0
DIGITS = 4  # of the resolution: what is written is what was used


@dataclass(frozen=True)
class Tried:
    """A resolution, its number of clusters, and the share of the cells that lie in stable ones."""

    resolution: float
    clusters: int
    stability: float


def choose(graph: Graph, embedding: Array, neighbors: int, seed: int) -> tuple[float, list[Tried]]:
    """The resolution by the rule above, and all that were tried; ``graph``: that of ``embedding`` (cells, latent)."""
    if len(graph) <= MOST_CELLS:
        tried = stabilities(graph, neighbors, seed)
        return best_of(tried, len(graph) / neighbors).resolution, tried
    rows = np.sort(np.random.default_rng([seed, 1]).choice(len(graph), MOST_CELLS, replace=False))
    log.info("the number of clusters is chosen on %d cells drawn at random", MOST_CELLS)
    tried = stabilities(
        Graph.of(neighbours(embedding[rows], neighbors, seed).obsp[fields.CONNECTIVITIES]), neighbors, seed
    )
    best = best_of(tried, MOST_CELLS / neighbors)
    if clusters_at(graph, best.resolution, seed) == best.clusters:
        return best.resolution, tried
    return for_clusters(graph, best.clusters, seed), tried  # a resolution means another number in a denser graph


def stabilities(graph: Graph, least: int, seed: int) -> list[Tried]:
    """What becomes of the clusters at every resolution of the grid; ``least``: cells of a cluster that may count as stable."""
    rng = np.random.default_rng([seed, 2])
    size = max(2, round(PART * len(graph)))
    parts = [np.sort(rng.choice(len(graph), size, replace=False)) for _ in range(RUNS)]
    graphs = [graph.part(rows) for rows in parts]
    found = []
    for resolution in GRID:
        whole = graph.leiden(resolution, seed)
        overlap = np.zeros(int(whole.max()) + 1)
        for turn, (rows, part) in enumerate(zip(parts, graphs, strict=True), 1):
            overlap += overlaps(whole[rows], part.leiden(resolution, seed + turn), len(overlap)) / RUNS
        sizes = np.bincount(whole)
        share = float(((overlap >= ALIKE) & (sizes >= least))[whole].mean())
        found.append(Tried(resolution, len(overlap), round(share, DIGITS)))
        log.debug("resolution %g: %d clusters, %.3f of the cells in stable ones", *asdict(found[-1]).values())
    return found


def overlaps(groups: Groups, again: Groups, count: int) -> npt.NDArray[np.float64]:
    """Jaccard index of each of ``count`` ``groups`` (cells,) with the one of ``again`` (cells,) that fits it best, (count,)."""
    shared = np.zeros((count, int(again.max()) + 1))
    np.add.at(shared, (groups, again), 1)
    either = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    best: npt.NDArray[np.float64] = (shared / np.maximum(either, 1)).max(axis=1)
    return best


def best_of(tried: list[Tried], most_clusters: float = np.inf) -> Tried:
    """The resolution that the rule chooses; the lowest where none gives two clusters and at most ``most_clusters``."""
    several = [t for t in tried if 1 < t.clusters <= most_clusters]
    if not several:
        log.warning("at no resolution from %g to %g there are two clusters: all cells are one", GRID[0], GRID[-1])
        return min(tried, key=lambda t: (t.clusters, t.resolution))
    most = max(t.stability for t in several)
    if most < STABLE:
        log.warning(
            "at every resolution most cells lie in clusters that do not come back when cells are left out, so the fewest are "
            "taken: the cells may differ by degrees rather than by types. What to do: choose by what is known of them, "
            "--resolution or --clusters"
        )
        return min(several, key=lambda t: (t.clusters, t.resolution))
    equal = [t for t in several if t.stability >= most - EQUAL - 1e-9]
    return max(equal, key=lambda t: (t.clusters, t.stability, -t.resolution))


def clusters_at(graph: Graph, resolution: float, seed: int) -> int:
    return int(graph.leiden(resolution, seed).max()) + 1


def for_clusters(graph: Graph, wanted: int, seed: int) -> float:
    """The resolution whose number of clusters is closest to ``wanted`` (of two the lower), by bisection of its logarithm."""
    low, high = np.log(LOWEST), np.log(HIGHEST)
    closest = (len(graph) + 1, HIGHEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        resolution = float(f"{np.exp(middle):.{DIGITS}g}")
        count = clusters_at(graph, resolution, seed)
        closest = min(closest, (abs(count - wanted), resolution))
        if count == wanted:
            break
        low, high = (middle, high) if count < wanted else (low, middle)
    if closest[0]:
        log.warning("there is no resolution with %d clusters; the closest is taken", wanted)
    return closest[1]
