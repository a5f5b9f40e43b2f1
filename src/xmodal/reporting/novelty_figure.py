"""The picture of how unlike the training cells predicted cells are, beside what training cells would show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.reporting.figures import INK, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BELOW, ABOVE, EXPECTED = "#0072B2", "#D55E00", INK
MOST = 3  # predictions shown


def unlikeness(predictions: list[tuple[str, dict[str, Any]]]) -> Figure | None:
    """Histograms of the score, one panel for each (sample, summary of predict) that has one; None where none has."""
    found = [(name, c["novelty"]) for name, c in predictions if (c.get("novelty") or {}).get("histogram")][:MOST]
    if not found:
        return None
    figure, axes = canvas((4.4, 7.0, 8.6)[len(found) - 1], 2.6, len(found))
    for axis, (name, about) in zip(axes, found, strict=True):
        panel(axis, name, about)
    return figure


def panel(axis: Axes, name: str, about: dict[str, Any]) -> None:
    """One histogram of ``about``, the verdict of :mod:`xmodal.learning.novelty`, in colours by its limit."""
    edges, cells = np.array(about["histogram"]["edges"], float), np.array(about["histogram"]["cells"], float)
    share = cells / max(cells.sum(), 1)
    upper = np.append(edges[1:], edges[-1] + 1)  # the last bin is open
    # By definition of the score a share of 10 ** -s of the training cells reaches s.
    usual = 10.0**-edges - np.append(10.0 ** -edges[1:], 0)
    colours = [ABOVE if low >= float(about["limit"]) else BELOW for low in edges]
    axis.bar(edges, share, upper - edges, align="edge", color=colours, edgecolor="white", lw=0.5, label="these cells")
    axis.stairs(usual, np.append(edges, upper[-1]), color=EXPECTED, lw=1.2, label="training cells")
    axis.axvline(float(about["limit"]), color=INK, lw=0.9, ls=":")
    axis.set(xlabel="score of unlikeness", ylabel="share of the cells", title=name)
    axis.legend(frameon=False, fontsize=8, loc="upper right")
