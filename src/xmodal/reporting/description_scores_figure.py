"""The picture of scored descriptions: headline scores side by side, look-up and floors in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.reporting.figures import canvas
from xmodal.scores.description_texts import HEADLINE, LOOKUP, MAJORITY, OWN, WITH_GENES, WRONG, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {OWN: "description", LOOKUP: "label and definition", MAJORITY: "majority", WRONG: "always wrong"}
COLOURS = {OWN: "#0072B2", LOOKUP: "#009E73"}
FLOOR = "#8C8C8C"
SHORT = {
    "label_f1": "F1 of the type",
    "rouge_l": "ROUGE-L",
    "cosine": "cosine",
    "textual_discrepancy": "discrepancy",
    f"textual_discrepancy{WITH_GENES}": "... with genes",
}


def scores(about: dict[str, Any]) -> Figure:
    """``about``: the entry ``description`` of metrics.json."""
    methods = {m: about["methods"][m] for m in NAMES if m in about["methods"]}
    panels = [s for s in HEADLINE if s in methods[OWN]]
    figure, axes = canvas(8.6, 0.6 + 0.27 * len(methods), max(len(panels), 1), sharey=True)
    for axis, score in zip(axes, panels, strict=False):
        _panel(axis, methods, score)
        axis.set_title(SHORT[score] + (" ↓" if text_of(score).better == "lower" else ""), loc="left", fontsize=8.5)
    axes[0].set_yticks(range(len(methods)), [NAMES[m] for m in methods], fontsize=8)
    axes[0].set_ylim(len(methods) - 0.4, -0.6)
    figure.supxlabel("↓: lower is better", fontsize=8)
    return figure


def _panel(axis: Axes, methods: dict[str, dict[str, float]], score: str) -> None:
    values = {i: (m, own[score]) for i, (m, own) in enumerate(methods.items()) if score in own}
    low, high = min(0.0, *(v for _, v in values.values())), max(1e-3, *(v for _, v in values.values()))
    for i, (method, value) in values.items():
        colour = COLOURS.get(method, FLOOR)
        axis.plot([low, value], [i, i], color=colour, lw=1.6, alpha=0.6)
        axis.plot(value, i, "o", color=colour, ms=5)
        axis.text(value + 0.06 * (high - low), i, f"{value:.3f}", va="center", fontsize=7.5)
    axis.set_xlim(low - 0.04 * (high - low), high + 0.45 * (high - low))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[["bottom", "left"]].set_visible(False)
