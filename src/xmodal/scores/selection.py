"""Which trial of a sweep is best: scores of validation cells put on one scale, averaged, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from xmodal.errors import InputRefused, UsageRefused
from xmodal.scores.score_texts import text_of
from xmodal.scores.verdicts import EQUAL

# Scores that tell a right prediction from a wrong one and have an end: 1, or 0 for an error.
MEASURES = (
    "gene_pearson",
    "gene_pearson_top_hvg",
    "cell_pearson_centred",
    "gene_pearson_within_type",
    "rmse_log1p",
    "rmse_clr",
    "rmse",
    "peak_auroc",
    "peak_auprc",
    "cell_auroc",
    "peak_pearson_within_type",
    "label_transfer",
    "label_transfer_macro",
)
# By feature, by cell with the average taken out, by type: the three ways to be right.
DEFAULT = ("gene_pearson", "cell_pearson_centred", "peak_auroc", "cell_auroc", "label_transfer_macro")
DIGITS = 5  # as in metrics.json; trials that differ by less are equal, and the name decides
GUESSING = 0.0


@dataclass(frozen=True)
class Trial:
    """One trial.  ``directions``: "atac -> rna" to what evaluate says of this target; ``why``: what kept it from one."""

    name: str
    model: str = ""
    settings: tuple[str, ...] = ()
    seed: int = 0
    directions: dict[str, dict[str, Any]] = field(default_factory=dict)
    why: str = ""

    @property
    def judged(self) -> bool:
        return bool(self.directions)


@dataclass(frozen=True)
class Ranked:
    """A trial with its place (0: none), its ``score`` and those of each direction, 0 for guessing and 1 for perfect."""

    trial: Trial
    rank: int
    score: float
    directions: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """All trials, the best first and those that failed last.

    ``measures``: those that count, by direction; ``linear``: the score of the linear control, overall ("") and by
    direction; ``close``: trials that differ from the best by less than another draw of cells would change them.
    """

    trials: list[Ranked]
    measures: dict[str, tuple[str, ...]]
    linear: dict[str, float]
    close: tuple[str, ...]

    @property
    def best(self) -> Ranked:
        return self.trials[0]


def parse_measures(text: str | None) -> tuple[str, ...]:
    """Names of scores from ``a,b``; the default without one; an unknown one gets its near names."""
    if text is None:
        return DEFAULT
    names = tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))
    for name in names:
        if name not in MEASURES:
            near = get_close_matches(name, MEASURES, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(MEASURES)}"
            raise UsageRefused(f"--metric {name}: trials cannot be ranked by it; {hint}")
    if not names:
        raise UsageRefused("--metric: name at least one score")
    return names


def select(trials: Sequence[Trial], measures: tuple[str, ...] = DEFAULT) -> Selection:
    """Rank ``trials`` by the mean over directions of the mean over ``measures``; ties go by name.

    Raises :class:`InputRefused` where no trial could be judged, or trials were judged on different cells.
    """
    judged = [t for t in trials if t.judged]
    if not judged:
        whys = "; ".join(f"{t.name}: {t.why}" for t in trials[:5])
        raise InputRefused(
            f"not one of {len(trials)} trials could be judged: {whys}",
            do="mend the trials or the cells they learn from",
        )
    known = _require_same(judged)
    counted = {d: tuple(m for m in measures if any(m in _own(t, d) for t in judged)) for d in known}
    counted = {d: names for d, names in counted.items() if names}
    if not counted:
        there = sorted({m for t in judged for d in known for m in _own(t, d) if m in MEASURES})
        raise UsageRefused(f"--metric {','.join(measures)}: no trial has it; there are {', '.join(there)}")
    scored = sorted((_ranked(t, counted, known) for t in judged), key=lambda r: (-r.score, r.trial.name))
    placed = [Ranked(r.trial, i + 1, r.score, r.directions, r.notes) for i, r in enumerate(scored)]
    failed = [Ranked(t, 0, GUESSING, {}) for t in sorted(trials, key=lambda t: t.name) if not t.judged]
    close = tuple(r.trial.name for r in placed[1:] if placed[0].score - r.score < EQUAL)
    return Selection(placed + failed, counted, _linear(counted, known), close)


def skill(measure: str, value: float, methods: dict[str, dict[str, float]]) -> float:
    """``value`` on a scale from 0 (guessing: the score's chance, else what the control ``mean`` reaches) to 1 (perfect)."""
    text = text_of(measure)
    perfect = 0.0 if text.better == "lower" else 1.0
    floor = text.chance if text.chance is not None else methods.get("mean", {}).get(measure)
    if floor is None:
        raise InputRefused(
            f"'{measure}' says something beside the control 'mean' only, which is not there",
            where="--evaluation",
            do="evaluate with --controls mean,linear",
        )
    return (value - floor) / (perfect - floor) if abs(perfect - floor) > 1e-9 else 0.0


def _own(trial: Trial, direction: str) -> dict[str, float]:
    found: dict[str, float] = trial.directions.get(direction, {}).get("methods", {}).get("prediction", {})
    return found


def _ranked(trial: Trial, counted: dict[str, tuple[str, ...]], known: dict[str, dict[str, Any]]) -> Ranked:
    scores, notes = {}, []
    for direction, measures in counted.items():
        if direction not in trial.directions:
            notes.append(f"does not predict {direction}, which counts as guessing")
        scores[direction] = _mean(measures, _own(trial, direction), known[direction]["methods"])
    return Ranked(trial, 0, round(sum(scores.values()) / len(scores), DIGITS), scores, tuple(notes))


def _mean(measures: tuple[str, ...], own: dict[str, float], methods: dict[str, dict[str, float]]) -> float:
    """Mean skill; what could not be computed (a flat prediction has no correlation) counts as guessing."""
    values = [skill(m, own[m], methods) if m in own else GUESSING for m in measures]
    return round(sum(values) / len(values), DIGITS)


def _linear(counted: dict[str, tuple[str, ...]], known: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Scores of the linear control, which are the same whichever trial it stood beside; {} where it is not there."""
    found = {d: known[d]["methods"].get("linear") for d in counted}
    if not all(found.values()):
        return {}
    scores = {d: _mean(m, found[d] or {}, known[d]["methods"]) for d, m in counted.items()}
    return {"": round(sum(scores.values()) / len(scores), DIGITS), **scores}


def _require_same(judged: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """What evaluate says of each direction in the first trial that has it; refused where another was judged on other cells."""
    known: dict[str, dict[str, Any]] = {}
    first: dict[str, str] = {}
    for trial in sorted(judged, key=lambda t: t.name):
        for direction, about in sorted(trial.directions.items()):
            other = known.setdefault(direction, about)
            said = first.setdefault(direction, trial.name)
            if _differs(about, other):
                raise InputRefused(
                    f"{direction} was scored on other cells or features than in the trial '{said}'",
                    where=trial.name,
                    do="train, predict and evaluate all trials on the same prepared file, with the same options",
                )
    return dict(sorted(known.items()))


def _differs(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Different cells: by their number, or since the control ``mean`` scores otherwise on them."""
    if any(a.get(k) != b.get(k) for k in ("cells", "features", "label_key")):
        return True
    one, two = (x.get("methods", {}).get("mean", {}) for x in (a, b))
    return any(abs(one[m] - two[m]) > 1e-3 for m in one.keys() & two.keys())
