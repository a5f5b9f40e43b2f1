"""Pictures: matplotlib figures as PNG, with colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal.scores.score_texts import HEADLINE, short_for, text_for, text_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with every common form of colour blindness.
METHOD_COLOURS = {"prediction": "#0072B2", "linear": "#D55E00", "depth": "#009E73", "mean": "#8C8C8C"}
# Label colours: Okabe-Ito first, then Tol's muted set; beyond that marker shapes change as well.
LABEL_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#882255",
    "#999933",
    "#332288",
    "#44AA99",
    "#661100",
    "#6699CC",
)
MARKERS = ("o", "^", "s", "D", "v")
MOST_LABELS = 24
DPI = 130
COLUMNS = 3
INK = "#22303c"


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes without a clock time or library version, so equal content gives equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def canvas(width: float, height: float, columns: int = 1, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure outside pyplot's global state, and its axes (columns,); none where ``columns`` is 0."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#9aa5b1",
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "font.family": "DejaVu Sans",
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
        }
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **kwargs)[0] if columns else None


def write_all(folder: Path, content: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    """All pictures of an evaluation; ``tables``: features, umap and, where known, reliability."""
    from xmodal.reporting.reliability_figure import reliability

    features, umap = tables["features"], tables["umap"]
    (folder / "scores.png").write_bytes(png(scores(content["targets"])))
    for name in content["targets"]:
        (folder / f"features_{name}.png").write_bytes(png(feature_scores(features[features["target"] == name])))
        points = umap[umap["target"] == name]
        if len(points):
            (folder / f"umap_{name}.png").write_bytes(png(profiles(points)))
        if content["targets"][name].get("intervals") and "reliability" in tables:
            known = tables["reliability"][tables["reliability"]["target"] == name]
            (folder / f"reliability_{name}.png").write_bytes(png(reliability(content["targets"][name], known)))


def scores(targets: dict[str, Any]) -> Figure:
    """Small multiples: one panel for each headline score of each target, one bar for each method."""
    panels = [(n, s) for n in sorted(targets) for s in HEADLINE if s in targets[n]["methods"].get("prediction", {})]
    rows = -(-max(len(panels), 1) // COLUMNS)
    figure, _ = canvas(8.2, 1.45 * rows + 0.2, 0)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, (name, score) in zip(grid, panels, strict=False):
        _bars(axis, targets[name]["methods"], score)
        title = short_for(score, name)
        axis.set_title(f"{name}: {title}" if len(targets) > 1 else title, loc="left", fontsize=8.5)
    for axis in grid[len(panels) :]:
        axis.set_axis_off()
    return figure


def _bars(axis: Axes, methods: dict[str, dict[str, float]], score: str) -> None:
    order = [m for m in METHOD_COLOURS if score in methods.get(m, {})][::-1]
    start = text_of(score).chance or 0.0
    values = [methods[m][score] for m in order]
    axis.barh(order, [v - start for v in values], left=start, height=0.72, color=[METHOD_COLOURS[m] for m in order])
    low, high = min([start, *values]), max([start, *values])
    room = max(high - low, 1e-6)
    for i, value in enumerate(values):
        axis.text(max(value, start) + 0.03 * room, i, f"{value:.3f}", va="center", fontsize=7.5)
    axis.set_xlim(low - 0.02 * room, high + 0.28 * room)
    axis.axvline(start, color=INK, lw=0.9)
    axis.tick_params(length=0, labelsize=8)
    axis.set_xticks([])
    axis.spines[["bottom", "left"]].set_visible(False)


def feature_scores(features: pd.DataFrame) -> Figure:
    """How the scores of single features are distributed: the prediction against each control."""
    names = list(dict.fromkeys(features["score"]))
    figure, axes = canvas(8.2, 3.0, len(names))
    for axis, name in zip(axes, names, strict=True):
        part = features[features["score"] == name]
        methods = [m for m in METHOD_COLOURS if m in part and m != "mean"]
        _curves(axis, {m: part[m].dropna().to_numpy() for m in methods}, text_of(name).chance)
        axis.set_xlabel(text_for(name, str(part["target"].iloc[0])).name)
        axis.set_ylabel("features" if axis is axes[0] else "")
    axes[0].legend(frameon=False)
    return figure


def _curves(axis: Axes, values: dict[str, Any], chance: float | None) -> None:
    every = np.concatenate([v for v in values.values() if len(v)] or [np.zeros(1)])
    low, high = np.quantile(every, [0.002, 0.995])
    edges = np.linspace(low, max(high, low + 1e-3), 60)
    for method, own in values.items():
        width = 1.8 if method == "prediction" else 1.2
        counts = np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0]
        axis.stairs(
            counts,
            edges,
            color=METHOD_COLOURS[method],
            label=method,
            fill=method == "prediction",
            alpha=0.55 if method == "prediction" else 1,
            lw=width,
        )
    if chance is not None and edges[0] <= chance <= edges[-1]:
        axis.axvline(chance, color=INK, lw=0.9, ls=":", label="chance")


def profiles(points: pd.DataFrame) -> Figure:
    """Two panels in one space: true profiles and predicted profiles of the same cells, coloured by label."""
    figure, axes = canvas(8.2, 4.1, 2, sharex=True, sharey=True)
    styles = label_styles(points["label"].astype(str))
    for axis, kind in zip(axes, ("true", "predicted"), strict=True):
        part = points[points["kind"] == kind]
        for label, (colour, marker) in styles.items():
            own = part[part["label"].astype(str) == label]
            axis.scatter(
                own["umap1"], own["umap2"], s=7, c=colour, marker=marker, lw=0, alpha=0.8, label=shortened(label)
            )
        axis.set_title("measured profiles" if kind == "true" else "predicted profiles, same cells")
        axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2" if kind == "true" else "")
    if list(styles) != [""]:
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=5,
            frameon=False,
            markerscale=2.2,
            fontsize=8,
        )
    return figure


def label_styles(labels: Any) -> dict[str, tuple[str, str]]:
    """Colour and marker of each label, most frequent first; beyond ``MOST_LABELS`` all are grey."""
    import pandas as pd

    counts = pd.Series(labels).value_counts()
    names = sorted(counts.index, key=lambda n: (-counts[n], str(n)))
    grey = ("#b8c0c8", "o")
    n = len(LABEL_COLOURS)
    return {
        str(name): grey if i >= MOST_LABELS or name == "" else (LABEL_COLOURS[i % n], MARKERS[i // n])
        for i, name in enumerate(names)
    }


def learning(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Training and validation loss by epoch; the kept epoch is marked."""
    figure, axes = canvas(8.2, 2.9)
    axis = axes[0]
    for column, colour, name in (
        ("train_loss", "#8C8C8C", "training cells"),
        ("valid_loss", "#0072B2", "validation cells"),
    ):
        if column in history:
            axis.plot(history["epoch"], history[column], color=colour, lw=1.7, label=name)
    if best_epoch:
        axis.axvline(best_epoch, color="#D55E00", lw=1, ls="--", label=f"kept: epoch {best_epoch}")
    finite = history[[c for c in ("train_loss", "valid_loss") if c in history]].to_numpy(float)
    if len(finite) > 10:  # the first epochs would flatten all that follows
        late = finite[np.isfinite(finite).all(1)][2:]
        low, high = float(late.min()), float(np.quantile(late, 0.98))
        axis.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low) + 1e-9)
    axis.set(xlabel="epoch", ylabel="loss (lower is better)")
    axis.legend(frameon=False)
    return figure


def shortened(label: str, most: int = 22) -> str:
    """A label that fits a legend."""
    text = (label or "(no label)").replace("$", r"\$")  # matplotlib would read it as mathematics
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text if not text.startswith("_") else " " + text
