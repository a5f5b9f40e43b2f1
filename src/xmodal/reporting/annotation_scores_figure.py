"""The picture of scored labels: do probabilities mean what they say, and how many labels are wrong among the surest?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.reporting.figures import INK, canvas
from xmodal.scores.annotation_texts import CLUSTERS, LOGISTIC, MAJORITY, NEIGHBORS, OWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {OWN: "#0072B2", CLUSTERS: "#56B4E9", LOGISTIC: "#D55E00", NEIGHBORS: "#009E73", MAJORITY: "#8C8C8C"}
LEAST, MOST = 8.0, 150.0  # areas of points, in square points
FEW = 0.05  # of the cells, below which one wrong label makes a peak


def scores(about: dict[str, Any]) -> Figure:
    """``about``: the entry ``annotation`` of metrics.json."""
    figure, (left, right) = canvas(8.4, 3.7, 2)
    _reliability(left, about.get("calibration") or {})
    _risk(right, about.get("risk_coverage") or {})
    return figure


def _reliability(axis: Axes, calibration: dict[str, list[dict[str, float]]]) -> None:
    axis.plot([0, 1], [0, 1], color=INK, lw=0.9, ls=":")
    drawn = [m for m in COLOURS if calibration.get(m)]
    for method in drawn[::-1]:  # the labels that are judged on top
        bins = calibration[method]
        share = np.array([b["cells"] for b in bins], float)
        size = LEAST + (MOST - LEAST) * share / share.max()
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axis.plot(x, y, color=COLOURS[method], lw=1.1, alpha=0.6)
        axis.scatter(x, y, s=size, color=COLOURS[method], lw=0, alpha=0.8, label=method)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="probability of the label", ylabel="share that is right")
    axis.set_title("Do probabilities hold?", loc="left")
    if drawn:
        handles, names = axis.get_legend_handles_labels()
        legend = axis.legend(handles[::-1], names[::-1], frameon=False, fontsize=8, loc="upper left")
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_sizes([28.0])  # type: ignore[attr-defined]


def _risk(axis: Axes, curves: dict[str, list[list[float]]]) -> None:
    top = 0.0
    for method, colour in COLOURS.items():
        coverage, risk = np.array(curves.get(method) or [[1.0, 0.0]]).T
        enough = coverage >= FEW
        if curves.get(method):
            line = 1.8 if method == OWN else 1.2
            axis.plot(100 * coverage[enough], 100 * risk[enough], color=colour, lw=line, label=method)
            top = max(top, 100 * float(risk[enough].max()))
    axis.set(xlim=(0, 100), xlabel="% of the cells that are labelled, the surest first", ylabel="% wrong labels")
    axis.set_ylim(0, max(1.35 * top, 1.0))  # room for the legend
    axis.set_title("Wrong among the surest", loc="left")
    if any(curves.values()):
        axis.legend(frameon=False, fontsize=8, loc="upper left")
