"""The picture of markers: the first ones of each group, in how many cells of every group they are seen, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.fields import BERNOULLI, GAUSSIAN, NB
from xmodal.reporting.figures import INK, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xmodal.markers.comparison import Compared

Float = npt.NDArray[np.float64]
MOST_ROWS = 90  # features: beyond it each group gets fewer, so that names stay legible
MOST_GROUPS = 60  # columns: the largest groups
ROW, COLUMN, DOT = 0.19, 0.27, 105.0  # inches, inches, and points squared of a dot for the largest share
LONGEST = 30
LEGEND = 2.4  # inches that sizes and colours take
BAND, FAINT = "#f3f5f7", "#5b6670"
SEEN = {NB: "cells in which it is seen", BERNOULLI: "cells with the peak open", GAUSSIAN: "cells above the mean of all"}
MEAN = {NB: "mean log CP10k", BERNOULLI: "share of all open peaks", GAUSSIAN: "mean"}


def markers(found: Compared, top: int) -> Figure:
    """Features down, groups across.  Size of a dot: share of cells; colour: the mean, from the group with least to most."""
    columns = shown_groups(found)
    blocks = shown_features(found, [found.groups[c] for c in columns], top)
    rows = [row for block in blocks.values() for row in block]
    if not rows:
        return _nothing()
    share = found.profiles.share_in[np.ix_(columns, rows)].T  # (features, groups)
    height, width = max(ROW * len(rows), LEGEND), COLUMN * len(columns)
    names = [_short(str(found.features[r])) for r in rows]
    labels = [_short(found.groups[c]) for c in columns]
    longest = max(map(len, labels))
    room = 0.085 * max(map(len, names)) + 0.075 * longest + 0.35
    figure, axes = canvas(room + width + 1.75, height + 0.75 + 0.075 * longest, 0)
    axes = figure.subplots(1, 2, width_ratios=[width, 1.3])
    largest = _rounded_up(float(np.nanmax(share)))
    dots = _dots(axes[0], share / largest, scaled(found, rows, columns), blocks)
    axes[0].set_yticks(range(len(rows)), names, fontsize=8)
    axes[0].set_xticks(range(len(columns)), labels, rotation=90, fontsize=8)
    axes[0].set_title(_title(found, len(columns)), loc="left", fontsize=9)
    _legend(figure, axes[1], dots, largest, str(found.about["likelihood"]))
    return figure


def shown_groups(found: Compared) -> list[int]:
    """Codes of the groups with cells; of very many the largest, in their order."""
    cells = {g: own["cells"] for g, own in found.about["groups"].items()}
    present = [i for i in range(len(found.groups)) if np.isfinite(found.profiles.share_in[i]).any()]
    largest = sorted(present, key=lambda i: (-cells.get(found.groups[i], 0), i))[:MOST_GROUPS]
    return sorted(largest)


def shown_features(found: Compared, groups: list[str], top: int) -> dict[str, list[int]]:
    """The first markers of each group as places in ``features``, each feature once; fewer each where groups are many."""
    marked = found.table[found.table["is_marker"].astype(bool)].sort_values("rank", kind="stable")
    mine = {g: marked.loc[marked["group"] == g, "feature"].tolist() for g in groups}
    each = max(1, min(top, MOST_ROWS // max(1, sum(bool(m) for m in mine.values()))))
    place = {name: i for i, name in enumerate(found.features)}
    taken: set[str] = set()
    chosen: dict[str, list[int]] = {}
    for group, names in mine.items():
        fresh = [name for name in names if name not in taken][:each]
        taken.update(fresh)
        if fresh:
            chosen[group] = [place[name] for name in fresh]
    return chosen


def scaled(found: Compared, rows: list[int], columns: list[int]) -> Float:
    """Means (features, groups) between 0, the group with the least, and 1, the group with the most."""
    mean = found.profiles.mean_in[np.ix_(columns, rows)].T
    mean = np.log1p(mean) if found.about["likelihood"] == NB else mean
    low, high = np.nanmin(mean, 1, keepdims=True), np.nanmax(mean, 1, keepdims=True)
    result: Float = (mean - low) / np.maximum(high - low, 1e-12)
    return result


def _dots(axis: Axes, size: Float, colour: Float, blocks: dict[str, list[int]]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    first = 0
    for i, (group, block) in enumerate(blocks.items()):
        if i % 2 == 0:
            axis.axhspan(first - 0.5, first + len(block) - 0.5, color=BAND, lw=0, zorder=0)
        middle = first + (len(block) - 1) / 2
        axis.text(size.shape[1] - 0.2, middle, _short(group), va="center", fontsize=7.5, color=FAINT)
        first += len(block)
    rows, columns = (a.ravel() for a in np.indices(size.shape))
    shades = LinearSegmentedColormap.from_list("", ["#e6e9ec", "#7fb3d5", "#0072B2", "#00304d"])
    dots = axis.scatter(
        columns,
        rows,
        s=DOT * np.nan_to_num(size.ravel()),
        c=colour.ravel(),
        cmap=shades,
        vmin=0,
        vmax=1,
        lw=0,
        zorder=2,
    )
    axis.set_xlim(-0.6, size.shape[1] - 0.4)
    axis.set_ylim(size.shape[0] - 0.4, -0.6)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    return dots


def _legend(figure: Figure, axis: Axes, dots: Any, largest: float, likelihood: str) -> None:
    """Sizes and colours, in a column of their own at the top right."""
    from matplotlib.lines import Line2D

    axis.set_axis_off()
    sizes = [largest * part for part in (0.25, 0.5, 1.0)]
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker="o",
            ms=float(np.sqrt(DOT * s / largest)),
            color="#7fb3d5",
            mew=0,
            label=f"{100 * s:.3g} %",
        )
        for s in sizes
    ]
    axis.legend(
        handles=handles,
        title=_broken(SEEN[likelihood]),
        loc="upper left",
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        borderaxespad=0,
        alignment="left",
        labelspacing=0.7,
    )
    inches = axis.get_position().height * figure.get_figheight()
    place = axis.inset_axes((0.05, max(0.0, 1 - 2.35 / inches), 0.12, min(0.8 / inches, 0.4)))
    bar = figure.colorbar(dots, cax=place, ticks=[0, 1])
    bar.outline.set_visible(False)
    bar.ax.set_yticklabels(["least", "most"], fontsize=8)
    bar.ax.tick_params(length=0)
    bar.ax.set_title(_broken(f"{MEAN[likelihood]}, from group to group"), loc="left", fontsize=8, fontweight="normal")


def _title(found: Compared, columns: int) -> str:
    more = f", the {columns} largest groups" if columns == MOST_GROUPS < len(found.groups) else ""
    return f"{found.name.upper() if len(found.name) <= 4 else found.name}: first markers of each group{more}"


def _nothing() -> Figure:
    figure, axes = canvas(6.0, 1.0)
    axes[0].text(0, 0.5, "No markers: no feature is significantly more in one group.", color=INK, va="center")
    axes[0].set_axis_off()
    return figure


def _rounded_up(share: float) -> float:
    """The next of 1, 2, 4, 10, 20, 40, ... %, at most all."""
    for power in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        for step in (1, 2, 4, 6, 8):
            if share <= step * power:
                return min(step * power, 1.0)
    return 1.0


def _broken(text: str, most: int = 18) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > most:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def _short(name: str) -> str:
    text = name.replace("$", r"\$")  # matplotlib would read it as mathematics
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
