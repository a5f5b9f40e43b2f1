"""The picture of what can be trusted: every feature with its uncertainty, and whether intervals hold in every type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.learning.uncertainty import CHANCE, MEDIUM, NONE, RELIABLE, UNKNOWN, WEAK
from xmodal.reporting.figures import INK, canvas
from xmodal.scores.intervals import MIN_CELLS, SLACK

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {RELIABLE: "#0072B2", WEAK: "#E69F00", NONE: "#5b6670", UNKNOWN: "#b8c0c8"}
BAND = "#009E73"
NAMES = {"pearson": "correlation with the measurement", "auroc": "AUROC"}
MOST = 18  # types shown


def reliability(target: dict[str, Any], table: pd.DataFrame) -> Figure:
    """Left: features from best to worst with their 95 % interval.  Right: coverage of each type, and the nominal band."""
    about = target["intervals"]
    bars = coverage_rows(about)
    columns = 2 if bars else 1
    ratios = {"width_ratios": [1.25, 1]} if bars else {}
    figure, axes = canvas(8.2, max(3.1, 1.1 + 0.19 * len(bars)), columns, gridspec_kw=ratios)
    _features(axes[0], table, str(about.get("measure", "pearson")))
    if bars:
        _types(axes[1], bars, float(about["level"]))
    return figure


def coverage_rows(about: dict[str, Any]) -> list[tuple[str, int, float]]:
    """(name, cells, coverage): all cells first, then the types with the most cells; none where nothing was measured."""
    if about.get("coverage") is None:
        return []
    labels = sorted(about.get("by_label", {}).items(), key=lambda item: (-item[1]["cells"], item[0]))
    rows = [(k, int(v["cells"]), float(v["coverage"])) for k, v in labels if v["cells"] >= MIN_CELLS]
    return [("all cells", 0, float(about["coverage"])), *rows[:MOST]]


def _features(axis: Axes, table: pd.DataFrame, measure: str) -> None:
    known = table[table["reliability"].notna()].sort_values(["low", "feature"], ascending=[False, True])
    rank = np.arange(1, len(known) + 1)
    for front, (word, colour) in zip(range(len(COLOURS), 0, -1), COLOURS.items(), strict=True):
        own = (known["trust"] == word).to_numpy()
        label = f"{word} ({int(own.sum()):,})"
        low, high = known["low"].to_numpy()[own], known["high"].to_numpy()[own]
        axis.vlines(rank[own], low, high, color=colour, lw=0.6, alpha=0.3, zorder=front)
        axis.plot(
            rank[own], known["reliability"].to_numpy()[own], ".", ms=3, color=colour, label=label, zorder=9 + front
        )
    axis.axhline(CHANCE[measure], color=INK, lw=0.9, ls=":", zorder=20)
    axis.axhline(MEDIUM[measure], color=INK, lw=0.7, ls="--", zorder=20)
    top = float(known["high"].max()) if len(known) else 1.0
    axis.set_ylim(top=top + 0.22 * (top - float(known["low"].min())) if len(known) else 1.0)  # room for the legend
    axis.set(
        xlabel="features, by the lower end of their interval",
        ylabel=NAMES[measure],
        title="How reliable is each feature?",
    )
    axis.legend(frameon=False, fontsize=7.5, loc="upper right", markerscale=2.5)


def _types(axis: Axes, rows: list[tuple[str, int, float]], level: float) -> None:
    rows = rows[::-1]
    names = [_short(n) + (f" ({c:,})" if c else "") for n, c, _ in rows]
    values = [100 * v for *_, v in rows]
    kept = [abs(v - 100 * level) <= 100 * SLACK for v in values]
    axis.axvspan(100 * (level - SLACK), 100 * (level + SLACK), color=BAND, alpha=0.18, lw=0)
    axis.axvline(100 * level, color=BAND, lw=1)
    axis.hlines(range(len(rows)), 100 * level, values, color="#c3cbd3", lw=1)
    for i, (value, inside) in enumerate(zip(values, kept, strict=True)):
        axis.plot(value, i, "o" if inside else "D", ms=5.5, color="#0072B2" if inside else "#D55E00")
    axis.set_yticks(range(len(rows)), names, fontsize=7.5)
    axis.tick_params(axis="y", length=0)
    reach = max(6.0, 1.2 * max(abs(v - 100 * level) for v in values))
    axis.set_xlim(100 * level - reach, min(100.5, 100 * level + reach))
    axis.set(xlabel=f"% of values inside the {100 * level:g} % interval", title="Do the intervals hold?")


def _short(name: str, most: int = 24) -> str:
    text = name.replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1] + "…"
