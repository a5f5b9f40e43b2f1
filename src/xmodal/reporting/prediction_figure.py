"""The picture of a prediction: where the cells lie, how unlike the training cells they are, what varies between them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.reporting import novelty_figure
from xmodal.reporting.figures import INK, LABEL_COLOURS, canvas
from xmodal.reporting.reliability_figure import COLOURS
from xmodal.scores.score_texts import WORDS, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xmodal.predicting.overview import Overview

MOST_TYPES = len(LABEL_COLOURS)  # beyond that the rarest are grey, as one
FEATURES = 12
OTHER, NOT_KNOWN, PLAIN = "#b8c0c8", "#d5dbe1", "#0072B2"
SMALL = 7.5


def prediction(found: Overview) -> Figure:
    """Cells by their predicted profiles; unlikeness, where the model has it; the features that vary most."""
    inner = json.loads(found.about["settings"])
    unlike = inner.get("novelty") or {}
    has = bool(unlike.get("histogram"))
    figure, axes = canvas(9.4, 4.5, 3 if has else 2, gridspec_kw={"width_ratios": [1.2, 0.8, 1] if has else [1, 1]})
    word, target = WORDS.get(str(found.about["target"]), "feature"), shown(str(found.about["target"]))
    figure.suptitle(
        f"{target} predicted from {shown(str(found.about['source']))}: "
        f"{len(found.cells):,} {_many('cell', len(found.cells))}, "
        f"{len(found.features):,} {_many(word, len(found.features))}, model {found.about['model']}",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    _map(axes[0], found)
    axes[0].set_title(f"a   Cells by predicted {target} profile", loc="left", fontsize=9)
    if has:
        novelty_figure.panel(axes[1], "", unlike)
        seen = [
            edge
            for edge, cells in zip(unlike["histogram"]["edges"], unlike["histogram"]["cells"], strict=True)
            if cells
        ]
        axes[1].set_xlim(-0.2, max([4.0, *(edge + 1.5 for edge in seen)]))  # the bins beyond are empty
        axes[1].set_title("b   How unlike training cells?", loc="left", fontsize=9)
    sparse = next((f"--{k}" for k in ("top", "threshold") if inner.get(k) is not None), "")
    _features(axes[-1], found, sparse)
    axes[-1].set_title(f"{'c' if has else 'b'}   Most variable predicted {word}s", loc="left", fontsize=9)
    return figure


def _many(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _map(axis: Axes, found: Overview) -> None:
    cells = found.cells.iloc[found.drawn]
    size = float(np.clip(900 / max(len(cells), 1), 5, 34))
    if found.label is not None:
        _by_type(axis, found, size)
    elif "unlikeness" in cells:
        _by_unlikeness(axis, found, size)
    else:
        _points(axis, found.places, s=size, c=PLAIN)
    names = [f"PC {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(found.shares)]
    axis.set(xticks=[], yticks=[], xlabel=names[0], ylabel=names[1])
    if not found.shares.any():
        text = "only one cell" if len(cells) == 1 else "all cells have the same profile" if len(cells) else "no cells"
        axis.set(xlabel="", ylabel="")
        axis.text(0.5, 0.6, text, ha="center", transform=axis.transAxes, fontsize=8.5)


def _points(axis: Axes, places: npt.NDArray[np.float64], **looks: Any) -> Any:
    return axis.scatter(places[:, 0], places[:, 1], **{"lw": 0, "alpha": 0.8, **looks})


def _by_type(axis: Axes, found: Overview, size: float) -> None:
    """The most frequent types of all cells have colours; which column they are from stands over the legend."""
    every = found.cells[found.label]
    named = every[every != ""].value_counts()
    names = sorted(named.index, key=lambda n: (-named[n], n))
    labels = every.iloc[found.drawn].to_numpy()
    rest = len(names) - (MOST_TYPES - 1) if len(names) > MOST_TYPES else 0
    names, others = names[: len(names) - rest], names[len(names) - rest :]
    layers: list[tuple[str, str, Any]] = [("(no type)", NOT_KNOWN, labels == "")]
    layers.append((f"{rest} other types", OTHER, np.isin(labels, others)))
    layers = [layer for layer in layers if layer[2].any()]
    behind = len(layers)
    layers += [(n, LABEL_COLOURS[i], labels == n) for i, n in enumerate(names)]
    handles = [_points(axis, found.places[own], s=size, c=colour, label=_short(name)) for name, colour, own in layers]
    _legend(axis, handles[behind:] + handles[:behind], f"colour: {_short(str(found.label))}", "outside lower left", 3)


def _by_unlikeness(axis: Axes, found: Overview, size: float) -> None:
    score = found.cells["unlikeness"].iloc[found.drawn].to_numpy(float)
    known = np.isfinite(score)
    _points(axis, found.places[~known], s=size, c=NOT_KNOWN)
    if not known.any():
        return
    order = np.argsort(score[known], kind="stable")  # the unlike ones on top
    looks = {"c": score[known][order], "vmin": 0, "vmax": max(3, score[known].max()), "cmap": "cividis", "alpha": 0.9}
    points = _points(axis, found.places[known][order], s=size, **looks)
    bar = axis.figure.colorbar(points, ax=axis, location="bottom", shrink=0.7, aspect=28, pad=0.02)
    bar.set_label("score of unlikeness (above 2: unlike)", fontsize=SMALL + 0.5)
    bar.ax.tick_params(labelsize=SMALL)


def _features(axis: Axes, found: Overview, sparse: str) -> None:
    """The mean of each feature as a dot, one standard deviation to either side as a line."""
    table = found.features.sort_values("sd", ascending=False, kind="stable").head(FEATURES).iloc[::-1]
    mean, spread = table["mean"].to_numpy(float), table["sd"].to_numpy(float)
    low, high = mean - spread, mean + spread
    if (found.features["mean"] >= 0).all():  # such values are never negative, and their ranges are not symmetric
        low = np.maximum(low, 0)
    words = table["trust"].to_numpy(str) if "trust" in table else np.full(len(table), "")
    rows = np.arange(len(table))
    handles = []
    for word, colour in COLOURS.items() if words.any() else [("", PLAIN)]:
        own = words == word
        if own.any():
            axis.hlines(rows[own], low[own], high[own], color=colour, lw=2.4, alpha=0.55)
            handles += axis.plot(mean[own], rows[own], "o", ms=5, color=colour, label=word)
    axis.set_yticks(rows, [_short(str(n)) for n in table["feature"]], fontsize=SMALL)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.7, max(len(table), 1) - 0.3)
    kept = f"\n(what {sparse} did not keep counts as 0)" if sparse else ""
    axis.set_xlabel(f"{found.about['units']}\nmean ± sd between cells{kept}", fontsize=8.5)
    axis.grid(axis="x", color="#e1e6eb", lw=0.7)
    axis.set_axisbelow(True)
    if words.any():
        _legend(axis, handles, "expected reliability", "outside lower right", 1 if len(handles) < 3 else 2)


def _legend(axis: Axes, handles: list[Any], title: str, place: Any, columns: int) -> None:
    legend = axis.figure.legend(
        handles=handles,
        title=title,
        loc=place,
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        title_fontsize=SMALL + 0.5,
        alignment="left",
        labelcolor=INK,
        handletextpad=0.2,
        columnspacing=1.0,
    )
    for handle in legend.legend_handles:
        if (
            resize := getattr(handle, "set_sizes", None)
        ) is not None:  # points of the map are too small to tell colours
            resize([26])


def _short(label: str, most: int = 28) -> str:
    text = "".join(sign if sign.isprintable() else " " for sign in label)
    text = text if len(text) <= most else text[: most - 1] + "…"
    text = text.replace("$", r"\$")  # matplotlib would read it as mathematics
    return text if not text.startswith("_") else " " + text
