"""The plain answer about an embedding: does it tell cells apart as well as the best plain one, and what else is in it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xmodal.scores.embedding_texts import DEPTH, headline, short
from xmodal.scores.score_texts import shown

OWN = "embedding"
ACCURACY = ("knn_accuracy_heldout", "knn_accuracy")  # the first that there is decides
EQUAL, CLOSE = 0.01, 0.05  # of an accuracy: another draw of a few hundred cells moves it by the first
# Of the variance of depth, told by trees: Pearson residuals of RNA tell up to a quarter, log counts nearly all.
LITTLE, LEAK = 0.10, 0.25
CHANCE = 0.4  # FOSCTTM from which the halves of a cell hardly know of each other; 0.5 is guessing
ADVICE = {
    "good": "Clusters and neighbours of it can be used as those of any good embedding.",
    "fair": "Look at the table before you use it: a plain embedding is as good or better in part.",
    "poor": "Use the better plain embedding, or train again with more cells or epochs.",
    "open": "To have it judged, evaluate with --label-key and at least one comparator.",
}
PARTIAL = " Where the labels came from clusters of RNA, they favour embeddings of RNA."


@dataclass(frozen=True)
class JointVerdict:
    """``level``: good, fair, poor or open; ``headline`` in one sentence; ``against``: what else was seen; ``advice``."""

    level: str
    headline: str
    against: list[str]
    advice: str


def judge(about: dict[str, Any]) -> JointVerdict:
    """``about``: the entry ``embedding`` of metrics.json."""
    methods = about.get("methods") or {}
    own = methods.get(OWN) or {}
    seen = [*_leaks(own), *_meets(own)]
    score = next((s for s in ACCURACY if s in own), None)
    plain = {m: v[score] for m, v in methods.items() if m != OWN and score in v} if score else {}
    if score is None or not plain:
        return JointVerdict("open", "Nothing says how well this embedding tells cells apart.", seen, ADVICE["open"])
    best = max(sorted(plain), key=lambda m: plain[m])
    gap = plain[best] - own[score]
    level = "good" if gap <= EQUAL else "fair" if gap <= CLOSE else "poor"
    if level == "good" and _leak(own) > LEAK:
        level = "fair"
    words = "better than" if gap < -EQUAL else "as well as" if gap <= EQUAL else "less well than"
    figures = f"{short(score)} {own[score]:.3f}; {best} {plain[best]:.3f}"
    return JointVerdict(
        level,
        f"The embedding tells the labels of cells {words} the best plain one ({figures}).",
        seen,
        ADVICE[level] + PARTIAL,
    )


def _leak(own: dict[str, float]) -> float:
    return max((own[s] for s in headline(own) if s.startswith(DEPTH)), default=0.0)


def _leaks(own: dict[str, float]) -> list[str]:
    lines = []
    for score in (s for s in headline(own) if s.startswith(DEPTH)):
        modality = shown(score.rsplit("_", 1)[1])
        inside = " among cells of one label" if "within" in score else ""
        much = "more than a good one does" if own[score] > LEAK else "little" if own[score] <= LITTLE else "some"
        lines.append(f"it tells {100 * own[score]:.0f} % of the variance of the log {modality} counts{inside}: {much}")
    return lines


def _meets(own: dict[str, float]) -> list[str]:
    if "foscttm" not in own:
        return []
    free = own.get("foscttm_without_depth")
    more = f"; {100 * free:.0f} % with depth taken out" if free is not None else ""
    share = f"{100 * own['foscttm']:.0f} %"
    apart = ": the modalities hardly meet in it" if (own["foscttm"] if free is None else free) >= CHANCE else ""
    return [
        f"{share} of the cells by the other modality lie nearer than a cell's own half (by chance 50 %){more}{apart}"
    ]
