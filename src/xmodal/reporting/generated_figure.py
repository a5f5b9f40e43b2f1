"""The picture of generated cells: each prompt's among the profiles of the types that were trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xmodal.reporting.figures import INK, canvas, label_styles, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xmodal.generating.writing import Points

MOST_NAMES = 12  # types whose names are written; more would cover each other
LONGEST = 28


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
    for name, (x, y) in named[:MOST_NAMES]:
        axis.annotate(
            shortened(name, LONGEST), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8, fontweight="bold"
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
