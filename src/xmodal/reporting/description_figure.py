"""The small picture beside a description: its genes inside and outside of the group, and where the cells are on the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.reporting.figures import INK, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xmodal.describing.evidence import Evidence

INSIDE, OUTSIDE = "#0072B2", "#8C8C8C"
MOST_POINTS = 8_000  # of the small map
ROW, LEAST = 0.2, 1.5  # inches of a gene, and of the picture
Floats = npt.NDArray[np.float64]


def described(genes: Sequence[Evidence], umap: Floats | None, rows: npt.NDArray[np.int64]) -> Figure | None:
    """``genes``: facts of the kind gene; ``umap``: of all cells (cells, 2), where there is one; ``rows``: those described.

    None where there is nothing to draw.
    """
    panels: list[Any] = [_cell if genes and "counts" in genes[0].values else _group] if genes else []
    if umap is not None:
        panels.append(None)
    if not panels:
        return None
    figure, axes = canvas(2.9 * len(panels), max(LEAST, 0.55 + ROW * len(genes)), len(panels))
    for axis, draw in zip(axes, panels, strict=True):
        if draw is None:
            assert umap is not None
            _map(axis, umap, rows)
        else:
            draw(axis, genes)
    return figure


def _group(axis: Axes, genes: Sequence[Evidence]) -> None:
    """Share of cells that show each gene, inside and outside."""
    places = np.arange(len(genes))[::-1]
    inside, outside = ([100 * one.values[key] for one in genes] for key in ("share_in", "share_out"))
    axis.hlines(places, outside, inside, color="#d5dbe1", lw=3)
    axis.scatter(outside, places, s=22, color=OUTSIDE, label="others", zorder=3)
    axis.scatter(inside, places, s=30, color=INSIDE, label="these cells", zorder=3)
    axis.set_xlim(-4, 104)
    axis.set_xlabel("cells that show it (%)", fontsize=7.5)
    _named(axis, genes, places)
    axis.legend(frameon=False, fontsize=6.5, ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 0.98), borderpad=0)


def _cell(axis: Axes, genes: Sequence[Evidence]) -> None:
    """Counts of the cell."""
    places = np.arange(len(genes))[::-1]
    counts = [one.values["counts"] for one in genes]
    axis.barh(places, counts, color=INSIDE, height=0.7)
    axis.set_xlim(0, max([*counts, 1]) * 1.15)
    axis.set_xlabel("counts in this cell", fontsize=7.5)
    _named(axis, genes, places)


def _named(axis: Axes, genes: Sequence[Evidence], places: Any) -> None:
    axis.set_yticks(places, [one.values["gene"] for one in genes], fontsize=7.5, color=INK)
    axis.set_ylim(-0.7, len(genes) - 0.3)
    axis.tick_params(axis="x", labelsize=7)
    axis.tick_params(axis="y", length=0)


def _map(axis: Axes, umap: Floats, rows: npt.NDArray[np.int64]) -> None:
    every = np.arange(0, len(umap), max(1, len(umap) // MOST_POINTS))
    own = rows[:: max(1, len(rows) // MOST_POINTS)]
    axis.scatter(umap[every, 0], umap[every, 1], s=1.2, color="#d5dbe1", linewidths=0, rasterized=True)
    axis.scatter(
        umap[own, 0], umap[own, 1], s=2.5 if len(rows) > 1 else 40, color=INSIDE, linewidths=0, rasterized=True
    )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_title("on the map", fontsize=7.5, loc="left", fontweight="normal")
