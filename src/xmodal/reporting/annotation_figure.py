"""The picture of annotated cells: how many of each label, how sure, how like the types trained on, and where on the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.reporting.figures import INK, LABEL_COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

COLOURS = {fields.ASSIGNED: "#0072B2", fields.COARSE: "#E69F00", fields.UNKNOWN: "#8C8C8C"}  # of a status
OTHERS = "#b8c0c8"
MOST_LABELS = 25  # bars; the rest is one
MOST_POINTS = 40_000  # more only cover each other
FEWEST = 8  # bars that there is room for
NAME = 34  # signs of a label
Floats = npt.NDArray[np.float64]


def places(mdata: MuData) -> Floats | None:
    """The map that the file brings, (cells, 2); None without one."""
    from xmodal.data.batches import reference_of

    found = reference_of(mdata, fields.UMAP)
    usable = found is not None and found.ndim == 2 and found.shape[1] >= 2
    return np.asarray(found[:, :2], np.float64) if found is not None and usable else None


def annotation(about: dict[str, Any], columns: dict[str, Any], umap: Floats | None) -> Figure:
    """``about``: annotation.json; ``columns``: of ``obs``, (cells,) each; ``umap``: (cells, 2), where the file has one."""
    rows = bars(about)
    height = max(3.6, 1.0 + 0.21 * len(rows))
    figure, _ = canvas(8.6, height + (3.9 if umap is not None else 0), 0)
    heights = [height, 3.9] if umap is not None else [height]
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    left, right = parts[0].subfigures(1, 2, width_ratios=[1.25, 1])
    _composition(left.subplots(), rows)
    top, bottom = right.subplots(2, 1)
    _scores(top, about)
    _known(bottom, about)
    if umap is not None:
        _map(parts[1].subplots(), np.asarray(columns[fields.CT_LABEL], object), umap, [r["label"] for r in rows])
    return figure


def bars(about: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the composition that are drawn: the labels with the most cells, the others as one, then the unknown."""
    every = about["composition"]
    known = [r for r in every if r["label"] != fields.UNKNOWN]
    rest = known[MOST_LABELS:]
    rows = known[:MOST_LABELS]
    if rest:
        sums = {k: sum(r[k] for r in rest) for k in ("cells", *COLOURS)}
        rows = [*rows, {"label": f"{len(rest)} other labels", **sums}]
    return rows + [r for r in every if r["label"] == fields.UNKNOWN]


def _composition(axis: Axes, rows: list[dict[str, Any]]) -> None:
    start = np.zeros(len(rows))
    order = range(len(rows))
    for status, colour in COLOURS.items():
        values = np.array([r[status] for r in rows], float)
        axis.barh(order, values, left=start, height=0.74, color=colour, label=status if values.any() else None)
        start += values
    most = max(float(start.max()), 1.0)
    for i, total in enumerate(start):
        axis.text(total + 0.02 * most, i, f"{int(total):,}", va="center", fontsize=7.5)
    axis.set_yticks(order, [short(r["label"]) for r in rows], fontsize=8)
    axis.set_ylim(max(len(rows), FEWEST) - 0.4, -0.6)  # few labels are no reason for thick bars
    axis.set_xlim(0, 1.18 * most)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines["bottom"].set_visible(False)
    axis.set_title("Cells of each label", loc="left")
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3)


def _scores(axis: Axes, about: dict[str, Any]) -> None:
    edges = np.array(about["histogram"]["edges"])
    below = np.zeros(len(edges) - 1)
    for status, colour in COLOURS.items():
        values = np.array(about["histogram"]["cells"][status], float)
        axis.bar(
            edges[:-1], values, np.diff(edges), bottom=below, align="edge", color=colour, edgecolor="white", lw=0.4
        )
        below += values
    _limit(axis, float(about["thresholds"]["least"]))
    axis.set(xlim=(0, 1), xlabel="calibrated probability of the label", ylabel="cells")
    axis.set_title("How sure?", loc="left")


def _known(axis: Axes, about: dict[str, Any]) -> None:
    edges = np.array(about["histogram"]["edges"])
    axis.bar(
        edges[:-1],
        about["histogram"]["known"],
        np.diff(edges),
        align="edge",
        color="#009E73",
        edgecolor="white",
        lw=0.4,
    )
    if about["thresholds"]["least"]:  # else nothing is rejected
        _limit(axis, float(about["thresholds"]["reject"]))
    axis.set(xlim=(0, 1), xlabel="likeness to the types trained on", ylabel="cells")
    axis.set_title("Of a known type?", loc="left")


def _limit(axis: Axes, value: float) -> None:
    axis.axvline(value, color=INK, lw=1, ls=":")


def _map(axis: Axes, labels: npt.NDArray[Any], umap: Floats, order: list[str]) -> None:
    from matplotlib.lines import Line2D

    drawn = np.random.default_rng(0).permutation(len(umap))[:MOST_POINTS]  # so that no label lies on top
    named = [label for label in order if label != fields.UNKNOWN]
    colours = dict(zip(named, LABEL_COLOURS, strict=False)) | {fields.UNKNOWN: COLOURS[fields.UNKNOWN]}
    size = float(np.clip(330 / max(len(umap), 1) ** 0.5, 0.8, 26))
    points = [colours.get(str(label), OTHERS) for label in labels[drawn]]
    axis.scatter(umap[drawn, 0], umap[drawn, 1], s=size, c=points, lw=0, alpha=0.85)
    axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    axis.set_title("On the map of the file", loc="left")
    there = set(map(str, labels))
    dots = [
        Line2D([], [], ls="", marker="o", ms=5, mew=0, color=colour, label=short(name))
        for name, colour in colours.items()
        if name in there
    ]
    if there - set(colours):
        dots.append(Line2D([], [], ls="", marker="o", ms=5, mew=0, color=OTHERS, label="others"))
    axis.legend(handles=dots, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))


def short(label: str, most: int = NAME) -> str:
    """At most so many signs; what is left out is of the middle, since the ends tell types apart."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(label))
    if len(text) > most:
        text = f"{text[: most - 13]}…{text[-12:]}"
    return text.replace("$", r"\$")  # matplotlib would read it as mathematics
