"""The plain answer about labels of cells: as good as what takes a minute without this tool, and do they say how sure they are?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xmodal.scores.annotation_texts import LOGISTIC, NEIGHBORS, OWN

EQUAL, CLOSE = 0.01, 0.05  # of accuracy and F1: another draw of a few hundred cells moves them by the first
CALIBRATED = 0.05  # error of the probabilities that nobody notices in use
HALF = 0.5  # of the cells: where the types of fewer are candidates, whether a label is exactly right says nothing
USEFUL = 0.5  # accuracy below which most labels are wrong
ADVICE = {
    "good": "Use the labels, and treat those below a probability you can live with as open.",
    "fair": "Look at the types one by one before you use them: a plain method is as good or better in part.",
    "poor": "Do not use these labels; train on more or other cells, or take the plain method.",
    "open": "To have them judged against plain methods, evaluate on a file that holds training cells (xmodal prepare).",
}


@dataclass(frozen=True)
class LabelVerdict:
    """``level``: good, fair, poor or open; ``headline`` in one sentence; ``against``: what else was seen; ``advice``."""

    level: str
    headline: str
    against: list[str]
    advice: str


def judge(about: dict[str, Any]) -> LabelVerdict:
    """``about``: the entry ``annotation`` of metrics.json."""
    methods = about.get("methods") or {}
    own = methods.get(OWN) or {}
    seen = _seen(own)
    if "accuracy" not in own:
        return LabelVerdict("open", "Nothing says how many of the labels are right.", seen, ADVICE["open"])
    if about.get("possible", 1.0) < HALF and "on_path" in own:
        level = "open" if own["on_path"] >= USEFUL else "poor"
        said = f"{100 * own['on_path']:.0f} % of the labels are right up to how finely types were told apart"
        return LabelVerdict(level, f"Most known types are not among the candidates; {said}.", seen, ADVICE[level])
    plain = {m: methods[m] for m in (LOGISTIC, NEIGHBORS) if "accuracy" in methods.get(m, {})}
    said = f"{100 * own['accuracy']:.0f} % of the cells are named rightly (F1, mean over types: {own['macro_f1']:.2f})"
    if not plain:
        level = "open" if own["accuracy"] >= USEFUL else "poor"
        return LabelVerdict(level, f"{said}.", seen, ADVICE[level])
    gaps = {s: max(v[s] for v in plain.values()) - own[s] for s in ("accuracy", "macro_f1")}
    worst = max(gaps.values())
    level = "good" if worst <= EQUAL else "fair" if worst <= CLOSE else "poor"
    if own["accuracy"] < USEFUL:
        level = "poor"
    if level == "good" and own.get("ece", 0.0) > CALIBRATED:
        level = "fair"
    best = max(sorted(plain), key=lambda m: plain[m]["accuracy"])
    figures = f"{best}: {100 * plain[best]['accuracy']:.0f} %, {plain[best]['macro_f1']:.2f}"
    return LabelVerdict(level, f"{said}; the better plain method on the same cells, {figures}.", seen, ADVICE[level])


def _seen(own: dict[str, float]) -> list[str]:
    lines = []
    if "ece" in own:
        word = "their probabilities mean what they say" if own["ece"] <= CALIBRATED else "their probabilities mislead"
        lines.append(f"{word} (off by {100 * own['ece']:.0f} points on average)")
    if own.get("share_unknown"):
        lines.append(f"{100 * own['share_unknown']:.0f} % of the cells were left unknown")
    if "auroc_unseen" in own:
        lines.append(
            f"a cell of a type never seen is thought less familiar than another in {100 * own['auroc_unseen']:.0f} % of "
            "the pairs (by chance 50 %)"
        )
    if "h" in own:
        lines.append(
            f"types never seen: {100 * own['accuracy_unseen']:.0f} % named rightly, types trained on "
            f"{100 * own['accuracy_seen']:.0f} %"
        )
    return lines
