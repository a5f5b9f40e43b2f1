"""The plain answer: is a prediction better than its controls, and how far can it be trusted?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xmodal.scores.score_texts import HEADLINE, better, shown, text_for

EQUAL = 0.002  # scores closer than this differ by less than another draw of cells would change them
CONTROL_NAMES = ("mean", "depth", "linear")
CONTROL_TEXT = {
    "mean": "the mean (the same average profile for every cell)",
    "depth": "the depth control (which sees only how many counts a cell has)",
    "linear": "the linear control (a linear regression fitted in seconds)",
}
# Correlations: small, medium, large of Cohen 1988; AUROC: acceptable, excellent of Hosmer and Lemeshow 2000.
STRENGTH = {"gene_pearson": (0.1, 0.3, 0.5), "peak_auroc": (0.6, 0.7, 0.8)}
STRENGTH_TEXT = (
    ("very weak", "rely on averages over many cells or types only, never on single cells"),
    ("weak to moderate at best", "read differences between types and trends over many cells, not single cells"),
    ("moderate", "good for types and trends, uncertain for single cells"),
    ("strong", "single cells can be compared, with the usual care"),
)


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
    step, strength = _strength(name, methods.get("prediction", {}))
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
            f"{what} beats the mean and depth controls, but not a simple linear model{_counted(against)}.",
            against,
            f"It carries real signal, and --model linear does as well or better here. {strength}",
        )
    level = "fair" if step == 0 else "good"
    return Verdict(level, f"{what} is {_better(against)}.", against, strength)


def _better(against: list[Against]) -> str:
    """On how many scores it is better than which controls."""
    always = [a.control for a in against if a.better == a.total]
    parts = []
    if always:
        parts.append(f"better than the {listed(always)} control{'s' if len(always) > 1 else ''}")
    parts += [f"better on {a.better} of {a.total} scores than {a.control}" for a in against if a.control not in always]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _counted(against: list[Against]) -> str:
    linear = next(a for a in against if a.control == "linear")
    return f" (better on {linear.better} of {linear.total} scores)"


def listed(names: list[str]) -> str:
    """Names with commas and a last 'and'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def _strength(name: str, scores: dict[str, float]) -> tuple[int | None, str]:
    """The step of ``STRENGTH_TEXT`` that the absolute size of the scores reaches, in words; None where none tells."""
    for score, limits in STRENGTH.items():
        if score in scores:
            text, step = text_for(score, name), sum(scores[score] >= limit for limit in limits)
            word, advice = STRENGTH_TEXT[step]
            found = f"{text.name} {scores[score]:.2f}, where {text.chance:g} is guessing and 1 is perfect"
            return step, f"In absolute terms it is {word} ({found}): {advice}."
    return None, "Look at the scores of the features you care about before relying on it."
