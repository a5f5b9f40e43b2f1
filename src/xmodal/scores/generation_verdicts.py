"""The plain answer about generated cells: all four questions at once, since each alone is answered by a bad generator too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xmodal.scores.generation_texts import HEADLINE, HEADLINE_NEIGHBOURS, KNN, OWN, REAL, short

NAMED = f"{KNN}{HEADLINE_NEIGHBOURS}"
CLOSE, TIMES, SPREAD, APART = 0.02, 1.5, (0.8, 1.25), 0.03  # what a generator may be worse by than real cells


@dataclass(frozen=True)
class GenerationVerdict:
    """``level``: good (all four), fair (three), poor or open; ``passed``: each of the four; ``headline`` in one sentence."""

    level: str
    headline: str
    passed: dict[str, bool]
    advice: str

    @property
    def against(self) -> list[str]:
        """Each of the four in a line, for the report."""
        words = {True: "near enough to that of real cells", False: "too far from that of real cells"}
        return [f"{short(score)}: {words[fine]}" for score, fine in self.passed.items()]


ADVICE = {
    "good": "Generated cells can stand in for cells of these types in tests and power calculations; they bring no new biology.",
    "fair": "Look at which of the four fell short before you use these cells.",
    "poor": "Do not use these cells in place of real ones; train with more cells or epochs.",
    "open": "To have them judged, evaluate against a file with training and test cells of the same types.",
}


def judge(about: dict[str, Any]) -> GenerationVerdict:
    """``about``: the entry ``generation`` of metrics.json."""
    methods = about.get("methods") or {}
    own, real = methods.get(OWN) or {}, methods.get(REAL) or {}
    passed = passes(own, real)
    if len(passed) < len(HEADLINE):
        return GenerationVerdict("open", "Nothing says how real these cells are.", passed, ADVICE["open"])
    right = sum(passed.values())
    level = "good" if right == len(HEADLINE) else "fair" if right == len(HEADLINE) - 1 else "poor"
    if level == "good":
        return GenerationVerdict(
            level, "The generated cells pass for test cells by all four measures.", passed, ADVICE[level]
        )
    short_of = ", ".join(
        f"{short(s)} {own[s]:.3f} (real cells {real[s]:.3f})" for s, fine in passed.items() if not fine
    )
    return GenerationVerdict(level, f"The generated cells fall short in {short_of}.", passed, ADVICE[level])


def passes(own: dict[str, float], real: dict[str, float]) -> dict[str, bool]:
    """Each headline score that both have, and whether it is near enough to that of real cells."""
    found = {}
    for score in HEADLINE:
        if score not in own or score not in real:
            continue
        value, ceiling = own[score], real[score]
        found[score] = {
            NAMED: value >= ceiling - CLOSE,
            "mmd2": value <= TIMES * ceiling,
            "variance_ratio": SPREAD[0] <= value <= SPREAD[1],
            "c2st": value <= ceiling + APART,
        }[score]
    return found
