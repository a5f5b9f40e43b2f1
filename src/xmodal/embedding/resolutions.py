"""At which resolution the clusters stay the same when cells are left out: the automatic choice; and a wanted number of them.

The rule (after the stability of clusterings: Ben-Hur, Elisseeff and Guyon 2002; Lange et al. 2004).  For every resolution of a
fixed grid, Leiden runs on five random 80 % of the cells, each with its own seed.  Its stability is the mean adjusted Rand index
over all pairs of these runs, on the cells that both have.  Resolutions that give at least two clusters, of on average two
neighbourhoods of cells or more, are compared: those whose stability is within 0.05 of the best are taken as equally stable, and
among them the one with the most clusters is chosen (of equal numbers the most stable, then the lowest resolution).  Where even
the best is below 0.5, as in cells without types, clusters mean little: the fewest are taken, and it is said.

With more than 20,000 cells all this is done on so many drawn at random, with a graph of their own.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

from xmodal.embedding.graph import Array, Graph, Groups, neighbours

log = logging.getLogger(__name__)
GRID = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.0)
RUNS, PART = 5, 0.8  # ten pairs that share two thirds of the cells
EQUAL = 0.05  # a difference in the adjusted Rand index that five runs do not tell from none
STABLE = 0.5  # cells drawn from one Gaussian reach 0.45 in 5 dimensions, 0.33 in 16; ten types that barely overlap 0.67
PER_NEIGHBOUR = (
    2  # cells of a cluster for each neighbour: smaller ones come back since the graph is the same in all runs
)
MOST_CELLS = 20_000
STEPS = 24  # halvings of the range of resolutions; each number of clusters that there is has been met long before
LOWEST, HIGHEST = 1e-3, 100.0
DIGITS = 4  # of the resolution: what is written is what was used


@dataclass(frozen=True)
class Tried:
    """A resolution, its number of clusters, and the mean adjusted Rand index between runs on parts of the cells."""

    resolution: float
    clusters: int
    stability: float


def choose(graph: Graph, embedding: Array, neighbors: int, seed: int) -> tuple[float, list[Tried]]:
    """The resolution by the rule above, and all that were tried; ``graph``: that of ``embedding`` (cells, latent)."""
    if len(graph) > MOST_CELLS:
        rows = np.sort(np.random.default_rng([seed, 1]).choice(len(graph), MOST_CELLS, replace=False))
        log.info("the resolution is chosen on %d cells drawn at random", MOST_CELLS)
        graph = Graph.of(neighbours(embedding[rows], neighbors, seed).obsp["connectivities"])
    tried = stabilities(graph, seed)
    return best_of(tried, len(graph) / (PER_NEIGHBOUR * neighbors)).resolution, tried


def stabilities(graph: Graph, seed: int) -> list[Tried]:
    """What becomes of the clusters at every resolution of the grid."""
    rng = np.random.default_rng([seed, 2])
    size = max(2, round(PART * len(graph)))
    parts = [np.sort(rng.choice(len(graph), size, replace=False)) for _ in range(RUNS)]
    graphs = [graph.part(rows) for rows in parts]
    found = []
    for resolution in GRID:
        runs = []
        for turn, (rows, part) in enumerate(zip(parts, graphs, strict=True), 1):
            groups = np.full(len(graph), -1)
            groups[rows] = part.leiden(resolution, seed + turn)
            runs.append(groups)
        clusters = int(graph.leiden(resolution, seed).max()) + 1
        found.append(Tried(resolution, clusters, round(_agreement(runs), DIGITS)))
        log.debug("resolution %g: %d clusters, stability %.3f", *asdict(found[-1]).values())
    return found


def _agreement(runs: list[Groups]) -> float:
    from sklearn.metrics import adjusted_rand_score

    shared = [(a[both], b[both]) for a, b in combinations(runs, 2) if (both := (a >= 0) & (b >= 0)).any()]
    return float(np.mean([adjusted_rand_score(*pair) for pair in shared])) if shared else 0.0


def best_of(tried: list[Tried], most_clusters: float = np.inf) -> Tried:
    """The resolution that the rule chooses; the highest where none gives two clusters."""
    several = [t for t in tried if t.clusters > 1]
    if not several:
        log.warning("at no resolution from %g to %g there are two clusters: all cells are one", GRID[0], GRID[-1])
        return tried[-1]
    fewest = min(several, key=lambda t: (t.clusters, t.resolution))
    several = [t for t in several if t.clusters <= most_clusters] or [fewest]
    most = max(t.stability for t in several)
    if most < STABLE:
        log.warning(
            "no clusters are stable (at best %.2f of 1), so the fewest are taken: the cells may differ by degrees rather than "
            "by types. What to do: choose by what is known of them, --resolution or --clusters",
            most,
        )
        return fewest
    equal = [t for t in several if t.stability >= most - EQUAL]
    return max(equal, key=lambda t: (t.clusters, t.stability, -t.resolution))


def for_clusters(graph: Graph, wanted: int, seed: int) -> float:
    """The resolution whose number of clusters is closest to ``wanted`` (of two the lower), by bisection of its logarithm."""
    low, high = np.log(LOWEST), np.log(HIGHEST)
    closest = (len(graph) + 1, HIGHEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        resolution = float(f"{np.exp(middle):.{DIGITS}g}")
        count = int(graph.leiden(resolution, seed).max()) + 1
        closest = min(closest, (abs(count - wanted), resolution))
        if count == wanted:
            break
        low, high = (middle, high) if count < wanted else (low, middle)
    if closest[0]:
        log.warning("there is no resolution with %d clusters; the closest is taken", wanted)
    return closest[1]
