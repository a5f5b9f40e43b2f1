"""The picture of generated cells: each prompt's among the profiles of the types that were trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xmodal.reporting.figures import INK, canvas, label_styles, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xmodal.generating.writing import Points

MOST_NAMES = 12  # types whose names are written; more would cover each other
LONGEST = 28
LINE = 10  # points from one line of names to the next
NEAR = np.array([0.25, 0.035])  # shares of the picture that a name takes


def generated(points: Points) -> Figure:
    """Cells as points, by prompt; the mean profile of each training type as a cross with its name."""
    figure, axes = canvas(8.2, 5.2)
    axis = axes[0]
    prompt = np.array(points.prompt)
    for name, (colour, marker) in label_styles(points.prompt).items():
        own = points.cells[prompt == name]
        axis.scatter(*own.T, s=9, c=colour, marker=marker, lw=0, alpha=0.7, label=shortened(name, LONGEST))
    axis.scatter(*points.types.T, s=42, c=INK, marker="+", lw=1.3, label="training types, mean profile")
    named = [pair for pair in zip(points.names, points.types, strict=True) if pair[0]]
    rises = raised(
        np.array([place for _, place in named[:MOST_NAMES]]).reshape(-1, 2), np.vstack([points.cells, points.types])
    )
    for (name, place), rise in zip(named, rises, strict=False):
        offset = (4, 3 + LINE * rise)
        axis.annotate(
            shortened(name, LONGEST), place, xytext=offset, textcoords="offset points", fontsize=8, fontweight="bold"
        )
    shares = [f"PC{i + 1} ({100 * share:.0f} % of the variance)" for i, share in enumerate(points.shares)]
    axis.set(xticks=[], yticks=[], xlabel=shares[0], ylabel=shares[1])
    axis.set_title("generated cells, by prompt", loc="left")
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        markerscale=1.8,
        fontsize=8,
    )
    return figure


def raised(named: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> list[int]:
    """For each of the ``named`` places (names, 2) so many lines to lift its name that it covers none before; ``drawn``: all."""
    span = np.maximum(np.ptp(drawn, axis=0), 1e-12)
    line = np.array([0.0, NEAR[1]])
    taken: list[npt.NDArray[np.float64]] = []
    rises = []
    for place in named / span:
        rise = 0
        while any((np.abs(place + rise * line - other) < NEAR).all() for other in taken):
            rise += 1
        taken.append(place + rise * line)
        rises.append(rise)
    return rises
