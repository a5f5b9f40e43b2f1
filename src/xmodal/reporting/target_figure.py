"""The picture of cells whose state was told: how many of each class, and how surely."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.reporting.annotation_figure import FEWEST, short
from xmodal.reporting.figures import METHOD_COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = METHOD_COLOURS["prediction"]
MOST_CLASSES = 25  # bars; the classes with the most cells
BINS = 20


def told(about: dict[str, Any], sure: npt.NDArray[np.float32]) -> Figure:
    """``about``: the summary of :mod:`xmodal.predicting.telling`; ``sure``: probability of each cell's class, (cells,)."""
    rows = sorted(about["composition"], key=lambda r: -r["cells"])[:MOST_CLASSES]
    figure, (left, right) = canvas(8.6, max(3.0, 1.0 + 0.24 * len(rows)), 2)
    _composition(left, rows, about)
    right.hist(sure, bins=np.linspace(0, 1, BINS + 1), color=BLUE)
    chance = 1 / len(about["composition"])
    right.axvline(chance, color="#8C8C8C", linestyle=":", label=f"one of {len(about['composition'])} by chance")
    right.set_xlim(0, 1)
    right.set_xlabel("probability of the class")
    right.set_ylabel("cells")
    right.set_title("How surely", loc="left")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _composition(axis: Axes, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    many = np.array([r["cells"] for r in rows], float)
    most = max(float(many.max()), 1.0)
    axis.barh(range(len(rows)), many, height=0.74, color=BLUE)
    for i, n in enumerate(many):
        axis.text(n + 0.02 * most, i, f"{int(n):,}", va="center", fontsize=7.5)
    axis.set_yticks(range(len(rows)), [short(r["value"]) for r in rows], fontsize=8)
    axis.set_ylim(max(len(rows), FEWEST) - 0.4, -0.6)
    axis.set_xlim(0, 1.18 * most)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines["bottom"].set_visible(False)
    axis.set_title(f"{about['target']}, told from {about['source']}: {about['cells']:,} cells", loc="left")
