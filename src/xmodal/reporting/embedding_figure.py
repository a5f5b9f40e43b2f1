"""The picture of an embedding: one UMAP, coloured by cluster, type, batch, what was measured, and what each modality weighs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.embedding import tables
from xmodal.reporting.figures import INK, LABEL_COLOURS, canvas
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xmodal.embedding.tables import Embedded

# Each next colour is the one farthest from all before it (CIELAB, as seen normally and, counted 1.6 times, with deuteranopia and
# protanopia after Machado 2009), of those neither pale nor glaring.  So many cannot all be told apart: numbers stand on the map.
MORE_COLOURS = (
    *("#8535d4", "#aed897", "#d4354d", "#9edd5f", "#59145d", "#462a2a", "#764e2d", "#2d6b76", "#5b5086", "#4ebc69"),
    *("#5f7fdd", "#b14f25", "#a6c9af", "#2c25b1", "#b2a6c9", "#2d764a"),
)
COLOURS = (*LABEL_COLOURS, *MORE_COLOURS)
OTHER, NOT_KNOWN = "#b8c0c8", "#d5dbe1"
MOST_POINTS = 40_000  # more only cover each other
COLUMNS = 3
SIDE, GAP, LEFT, TOP, TITLE, FOOT, LINE = 3.1, 0.45, 0.3, 0.35, 0.3, 0.3, 0.142  # inches; LINE: of a legend
BAR = 5  # lines of a legend that a colour bar takes
SMALL = 7.0
FLAT = 0.01  # weights that differ less are one number, not a map
WIDE = 8  # numbers of clusters in a line
CLUSTERS, MEASURED, BATCH = "Clusters", "Measured", "Batch: "
Strings = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Draw = Callable[["Axes"], None]


@dataclass(frozen=True)
class Seen:
    """What is drawn, of the drawn cells: ``places`` (cells, 2); ``groups``: title and values, ``weights`` by modality, (cells,).

    ``title``: over the whole picture.
    """

    title: str
    places: Floats
    clusters: Strings
    groups: dict[str, Strings]
    weights: dict[str, Floats]

    @classmethod
    def of(cls, all_of: Embedded, label: str | None, batch: str | None) -> Seen:
        """From an embedding; ``label`` and ``batch``: columns of ``obs``."""
        found, job, about = all_of.found, all_of.job, all_of.found.facts
        count = len(job.cells)
        rng = np.random.default_rng(0)
        drawn = rng.permutation(count)[:MOST_POINTS]  # in random order, so that no group lies on top
        groups = {}
        if label is not None:
            groups[f"Label: {short(label)}"] = _text(job.mdata.obs[label])[drawn]
        if batch is not None and batch != label:
            groups[f"{BATCH}{short(batch)}"] = _text(job.mdata.obs[batch])[drawn]
        kinds = tables.measured_of(job)
        if len(np.unique(kinds.astype(str))) > 1:
            groups[MEASURED] = kinds[drawn]
        several = all_of.several
        weights = {m: np.where(several, w, np.nan) for m, w in all_of.latents.weights.items()}
        weights = {m: w[drawn] for m, w in weights.items() if several.any() and np.nanstd(w) > FLAT}
        title = (
            f"{count:,} cells, {about['clusters']} {'clusters' if about['clusters'] > 1 else 'cluster'} "
            f"(resolution {about['resolution']:g}), model {job.loaded.model.name}"
        )
        return cls(title, found.umap[drawn], found.clusters[drawn].astype(str).astype(object), groups, weights)


def embedding(seen: Seen) -> Figure:
    """One panel for each thing that is known of the cells, on the same places."""
    panels: list[tuple[int, Draw]] = []  # lines below the map, and what draws it
    for title, values in {CLUSTERS: seen.clusters, **seen.groups}.items():
        entries = min(len(np.unique(values)), len(COLOURS) + 2)
        wide = WIDE if title == CLUSTERS else 2
        panels.append((-(-entries // wide), partial(_categories, seen=seen, values=values, title=title)))
    names = list(seen.weights)
    for m in names[:1] if len(names) == 2 else names:  # of two, what one has not the other has
        other = names[1] if len(names) == 2 else None
        panels.append((BAR, partial(_weight, seen=seen, modality=m, other=other)))
    columns = 2 if len(panels) == 4 else min(len(panels), COLUMNS)
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [TITLE + SIDE + FOOT + LINE * max(lines for lines, _ in row) for row in rows]
    width, height = max(LEFT + columns * (SIDE + GAP), 4.6), TOP + sum(heights)
    figure, _ = canvas(width, height, 0)
    figure.set_layout_engine("none")  # every map has the same size, and every row the height of its legends
    figure.suptitle(seen.title, fontsize=10, x=0.1 / width, y=1 - 0.1 / height, ha="left", va="top")
    letters = iter("abcdefghijklmnop")
    below = height - TOP
    for row, own in zip(rows, heights, strict=True):
        for i, (_, draw) in enumerate(row):
            left, bottom = LEFT + i * (SIDE + GAP), below - TITLE - SIDE
            axis = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            draw(axis)
            axis.set_title(f"{next(letters, '')}   {axis.get_title(loc='left')}", loc="left", fontsize=9)
        below -= own
    return figure


def size_of(cells: int) -> float:
    """Area of a point, in square points: 480 cells 15, 5,000 cells 3, 40,000 cells 0.8."""
    return float(np.clip(330 / max(cells, 1) ** 0.5, 0.8, 26))


def _frame(axis: Axes, title: str) -> None:
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel("UMAP 1", fontsize=SMALL, loc="left")
    axis.set_ylabel("UMAP 2", fontsize=SMALL, loc="bottom")
    axis.set_title(title, loc="left", fontsize=9)


def _points(axis: Axes, places: Floats, colours: Any, **looks: Any) -> Any:
    return axis.scatter(places[:, 0], places[:, 1], c=colours, lw=0, alpha=0.85, **looks)


def _categories(axis: Axes, seen: Seen, values: Strings, title: str) -> None:
    """Most frequent first; beyond the colours that there are the rarest are grey, as one."""
    places, numbered = seen.places, title == CLUSTERS
    names, sizes = np.unique(values[values != ""].astype(str), return_counts=True)
    order = [str(n) for n in names[np.lexsort([names, -sizes])]]
    if numbered or title.startswith(BATCH):  # batches have an order of their own, clusters are numbered by size
        order = sorted(order, key=_natural)
    if title == MEASURED:
        order = sorted(order, key=lambda n: (n.startswith("only"), n))
    colours = dict(zip(order, COLOURS, strict=False))
    _points(axis, places, [colours.get(v, OTHER if v else NOT_KNOWN) for v in values], s=size_of(len(places)))
    _frame(axis, title)
    if numbered:
        _numbers(axis, places, values, order)
    entries = [(short(n), colours[n]) for n in order if n in colours]
    if len(order) > len(colours):
        entries.append((f"{len(order) - len(colours)} others", OTHER))
    if (values == "").any():
        entries.append(("(none)", NOT_KNOWN))
    _legend(axis, entries, WIDE if numbered else 2)


def _natural(name: str) -> list[tuple[str, int]]:
    """P2 before P10."""
    return [(letters, int(digits or 0)) for letters, digits in re.findall(r"(\D*)(\d*)", name)]


def _numbers(axis: Axes, places: Floats, values: Strings, order: list[str]) -> None:
    """The number of each cluster at its middle cell, so that colours need not be told apart."""
    from matplotlib.patheffects import withStroke

    for name in order:
        own = places[values == name]
        middle = np.median(own, axis=0)
        x, y = own[np.square(own - middle).sum(axis=1).argmin()]
        halo = [withStroke(linewidth=2.2, foreground="white")]
        axis.text(x, y, name, ha="center", va="center", fontsize=8.5, fontweight="bold", color=INK, path_effects=halo)


def _legend(axis: Axes, entries: list[tuple[str, str]], columns: int) -> None:
    from matplotlib.lines import Line2D

    dots = [Line2D([], [], ls="", marker="o", ms=4.5, mew=0, color=colour, label=name) for name, colour in entries]
    axis.legend(
        handles=dots,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.065),
        ncols=min(columns, max(len(dots), 1)),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handletextpad=0.1,
        columnspacing=0.9,
        labelspacing=0.25,
        borderaxespad=0,
    )


def _weight(axis: Axes, seen: Seen, modality: str, other: str | None) -> None:
    """Share of the modality in each cell's embedding; grey: cells with one modality only."""
    values = seen.weights[modality]
    known = np.isfinite(values)
    size = size_of(len(values))
    _points(axis, seen.places[~known], NOT_KNOWN, s=size)
    middle = np.nanquantile(values, [0.02, 0.98])  # a few extreme cells would leave one colour to the rest
    points = _points(axis, seen.places[known], values[known], s=size, cmap="cividis", vmin=middle[0], vmax=middle[1])
    axis.set_xlim(*_range(seen.places[:, 0]))
    axis.set_ylim(*_range(seen.places[:, 1]))
    _frame(axis, f"Weight of {shown(modality)}")
    ends = {(True, True): "both", (True, False): "min", (False, True): "max"}
    beyond = ends.get((bool(np.nanmin(values) < middle[0]), bool(np.nanmax(values) > middle[1])), "neither")
    place = axis.inset_axes((0.14, -0.14, 0.72, 0.025))
    bar = axis.figure.colorbar(points, cax=place, orientation="horizontal", extend=beyond)
    rest = f" (the rest: {shown(other)})" if other else ""
    grey = "" if known.all() else "\ngrey: cells with one modality"
    bar.set_label(f"share of the embedding{rest}{grey}", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


def _range(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * max(high - low, 1e-3)
    return low - room, high + room


def _text(column: pd.Series) -> Strings:
    out: Strings = column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)
    return out


def short(label: str, most: int = 24) -> str:
    """At most so many signs; what is left out is of the middle, since the ends tell types apart."""
    text = "".join(sign if sign.isprintable() else " " for sign in label)
    if len(text) > most:
        text = f"{text[: most - 9]}…{text[-8:]}"
    text = text.replace("$", r"\$")  # matplotlib would read it as mathematics
    return text if not text.startswith("_") else " " + text
