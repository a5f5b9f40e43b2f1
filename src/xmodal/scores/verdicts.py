"""The plain answer: is a prediction better than its controls, and how far can it be trusted?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xmodal.scores.score_texts import HEADLINE, better, shown, text_of

EQUAL = 0.002  # scores closer than this differ by less than another draw of cells would change them
CONTROL_NAMES = ("mean", "depth", "linear")
CONTROL_TEXT = {
    "mean": "the mean (the same average profile for every cell)",
    "depth": "the depth control (which sees only how many counts a cell has)",
    "linear": "the linear control (a linear regression fitted in seconds)",
}
# Above the second number single cells can be told apart; below the first only averages over many cells mean something.
STRENGTH = {"gene_pearson": (0.1, 0.3), "peak_auroc": (0.6, 0.75)}


@dataclass(frozen=True)
class Against:
    """Headline scores on which the prediction is better, equal or worse than one control."""

    control: str
    better: int
    equal: int
    worse: int

    @property
    def total(self) -> int:
        return self.better + self.equal + self.worse

    @property
    def wins(self) -> bool:
        return self.better > self.total / 2

    def __str__(self) -> str:
        text = f"better than {CONTROL_TEXT[self.control]} on {self.better} of {self.total} scores"
        more = [f"{n} {word}" for n, word in ((self.equal, "equal"), (self.worse, "worse")) if n]
        return f"{text} ({', '.join(more)})" if more else text


@dataclass(frozen=True)
class Verdict:
    """``level``: good, fair, poor or open; ``headline``: the answer in one sentence; ``advice``: what to do with it."""

    level: str
    headline: str
    against: list[Against]
    advice: str


def compare(methods: dict[str, dict[str, float]], control: str) -> Against:
    """Count the headline scores of the prediction against one control."""
    own, other = methods.get("prediction", {}), methods.get(control, {})
    counts = {"better": 0, "equal": 0, "worse": 0}
    for score in HEADLINE:
        if score in own and score in other:
            close = abs(own[score] - other[score]) < EQUAL
            counts["equal" if close else "better" if better(score, own[score], other[score]) else "worse"] += 1
    return Against(control, **counts)


def judge(name: str, target: dict[str, Any]) -> Verdict:
    """The verdict on one target of an evaluation's metrics.json."""
    methods = target.get("methods", {})
    model = str(target.get("model") or "")
    others = [c for c in CONTROL_NAMES if c in methods and c != model]  # a control is not compared with itself
    against = [a for a in (compare(methods, c) for c in others) if a.total]
    source = shown(str(target.get("source") or "the other modality"))
    what = f"The prediction of {shown(name)} from {source}"
    if not against:
        return Verdict(
            "open",
            f"{what} was not compared with any control, so it cannot be judged.",
            [],
            "Evaluate again with controls before using it.",
        )
    if model in ("mean", "depth"):
        return Verdict(
            "poor", f"{what} is the control '{model}' itself.", against, "Use it to compare with, for nothing else."
        )
    wins = {a.control: a.wins for a in against}
    strength = _strength(methods.get("prediction", {}))
    if not wins.get("mean", True):
        return Verdict(
            "poor",
            f"{what} is no better than the mean of the training cells.",
            against,
            "Do not use it: it says nothing about single cells or types that their average does not say.",
        )
    if not wins.get("depth", True):
        return Verdict(
            "poor",
            f"{what} beats the mean, but not what sequencing depth alone would give.",
            against,
            "Do not read biology into it: what it gets right follows from how deeply each cell was sequenced.",
        )
    if not wins.get("linear", True):
        return Verdict(
            "fair",
            f"{what} beats the mean and depth controls, but not a simple linear model.",
            against,
            f"It carries real signal, and --model linear does as well or better here. {strength}",
        )
    named = " and ".join(
        filter(None, [", ".join(c for c in wins if c != "linear"), "linear" if "linear" in wins else ""])
    )
    return Verdict(
        "good", f"{what} is better than the {named} control{'s' if len(wins) > 1 else ''}.", against, strength
    )


def _strength(scores: dict[str, float]) -> str:
    for score, (weak, strong) in STRENGTH.items():
        if score not in scores:
            continue
        value, text = scores[score], text_of(score)
        found = f"({text.name} {value:.2f}, where {text.chance:g} is guessing and 1 is perfect)"
        if value < weak:
            return (
                f"In absolute terms it is weak {found}: rely on averages over many cells or types, not on single cells."
            )
        if value < strong:
            return f"In absolute terms it is moderate {found}: good for types and trends, uncertain for single cells."
        return f"In absolute terms it is strong {found}."
    return "Look at the scores of the features you care about before relying on it."
