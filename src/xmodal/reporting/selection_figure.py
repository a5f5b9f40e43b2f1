"""The picture of a sweep: every trial's score, and what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting.figures import INK, canvas
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 40  # trials in the picture; the table holds all
BEST, OTHER, LINEAR = "#0072B2", "#8C8C8C", "#D55E00"
LONGEST = 34


def selection(about: dict[str, Any]) -> Figure:
    """One row for each trial, the best on top: a panel for the score, one for each direction; the linear control dashed."""
    trials = about["trials"][:MOST]
    directions = list(about["measures"])
    panels = ["", *directions] if len(directions) > 1 else [""]
    figure, axes = canvas(8.2, 0.9 + 0.27 * max(len(trials), 3), len(panels), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, trials, panel, about["linear"].get(panel or "score"))
        axis.set_title(_title(panel), loc="left", fontsize=9)
    first = axes[0]
    first.set_yticks(range(len(trials)), [_name(t) for t in trials], fontsize=8)
    first.set_ylim(len(trials) - 0.4, -0.6)
    figure.supxlabel("score on validation cells: 0 is guessing, 1 is perfect", fontsize=8.5)
    return figure


def _panel(axis: Axes, trials: list[dict[str, Any]], panel: str, linear: float | None) -> None:
    points = [(i, _score(t, panel), BEST if t["rank"] == 1 else OTHER) for i, t in enumerate(trials) if t["rank"]]
    axis.axvline(0, color=INK, lw=0.9)
    low, high = min([0.0, *(x for _, x, _ in points)]), max([1e-3, *(x for _, x, _ in points), linear or 0])
    room = high - low
    for i, x, colour in points:
        axis.plot([0, x], [i, i], color=colour, lw=1.6, alpha=0.6)
        axis.plot(x, i, "o", color=colour, ms=6)
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axis.text(max(x, 0) + 0.05 * room, i, f"{x:.3f}", va="center", fontsize=7.5, bbox=behind)
    if not panel:
        for i, t in enumerate(trials):
            if not t["rank"]:
                axis.text(0.02 * room, i, "failed", va="center", fontsize=8, color="#b00020")
    if linear is not None:
        axis.axvline(linear, color=LINEAR, lw=1.1, ls="--")
        axis.text(linear, -0.62, "linear", color=LINEAR, fontsize=7.5, ha="center", va="bottom")
    axis.set_xlim(low - 0.03 * room, high + 0.3 * room)
    axis.tick_params(length=0, labelsize=8)
    axis.spines["left"].set_visible(False)


def _score(trial: dict[str, Any], panel: str) -> float:
    return float(trial["directions"][panel]["score"] if panel else trial["score"])


def _title(panel: str) -> str:
    if not panel:
        return "all directions" + "\n"
    source, _, target = panel.partition(" -> ")
    return f"{shown(target)} from {shown(source)}" + "\n"


def _name(trial: dict[str, Any]) -> str:
    text = str(trial["name"])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
