"""The picture of how a model bears what is missing or noisy: a panel for each change, a line for each score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting.figures import LABEL_COLOURS, MARKERS, canvas
from xmodal.scores.robustness_files import series
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {"drop": "share of the cells without {}", "noise": "share of the {} signal that is noise"}


def curves(about: dict[str, Any]) -> Figure:
    """``about``: the entry ``robustness`` of metrics.json.  Pearson correlations, AUROC and shares of cells have one axis."""
    found = series(about)
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    figure, axes = canvas(3.6 * max(len(found), 2) + 0.4, 3.6, len(found), sharey=True)
    for axis, ((kind, modality), own) in zip(axes, found.items(), strict=True):
        for name, values in own.items():
            i = names.index(name)
            points = sorted(values.items())
            colour, marker = LABEL_COLOURS[i % len(LABEL_COLOURS)], MARKERS[i % len(MARKERS)]
            axis.plot(*zip(*points, strict=True), color=colour, marker=marker, ms=4.5, lw=1.6, label=name)
        axis.set_xlabel(AXES[kind].format(shown(modality)), fontsize=8.5)
        axis.set_xlim(-0.03, 1.03)
        axis.grid(axis="y", color="#e4e7eb", lw=0.7)
    axes[0].set_ylabel("score")
    handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper left",
        fontsize=8,
        frameon=False,
        ncols=min(3, len(handles)),
    )
    return figure
