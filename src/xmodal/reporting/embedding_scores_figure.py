"""The picture of an evaluated embedding: small panels, one for each score, one row for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting.figures import COLUMNS, INK, canvas
from xmodal.scores.embedding_texts import METHODS, headline, short, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN, OTHER = "#0072B2", "#8C8C8C"


def scores(about: dict[str, Any]) -> Figure:
    """``about``: the entry ``embedding`` of metrics.json; the embedding in blue on top, the value of guessing as a line."""
    methods = {m: about["methods"][m] for m in METHODS if m in about["methods"]}
    panels = headline(methods.get("embedding", {}))
    rows = -(-max(len(panels), 1) // COLUMNS)
    figure, _ = canvas(8.2, (0.55 + 0.19 * len(methods)) * rows + 0.15, 0)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).ravel()
    for i, (axis, score) in enumerate(zip(grid, panels, strict=False)):
        _panel(axis, methods, score)
        lower = " ↓" if text_of(score).better == "lower" else ""
        axis.set_title(short(score) + lower, loc="left", fontsize=8)
        axis.tick_params(labelleft=i % COLUMNS == 0)
    for axis in grid[len(panels) :]:
        axis.set_axis_off()
    figure.supxlabel("higher is better, but where there is a ↓", fontsize=8)
    return figure


def _panel(axis: Axes, methods: dict[str, dict[str, float]], score: str) -> None:
    values = {i: v[score] for i, v in enumerate(methods.values()) if score in v}
    start = text_of(score).chance or 0.0
    low, high = min([start, *values.values()]), max([start + 1e-3, *values.values()])
    room = high - low
    axis.axvline(start, color=INK, lw=0.9)
    for i, value in values.items():
        colour = OWN if i == 0 else OTHER
        axis.plot([start, value], [i, i], color=colour, lw=1.6, alpha=0.6)
        axis.plot(value, i, "o", color=colour, ms=5)
        weight = "bold" if i == 0 else "normal"
        axis.text(max(value, start) + 0.06 * room, i, f"{value:.3f}", va="center", fontsize=7, fontweight=weight)
    axis.set_yticks(range(len(methods)), list(methods), fontsize=7.5)
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.set_xlim(low - 0.04 * room, high + 0.36 * room)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[["bottom", "left"]].set_visible(False)
