"""Words of the report about what can be trusted: features, and intervals of single values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.learning.uncertainty import NONE, RELIABLE, UNKNOWN, WEAK
from xmodal.reporting.reliability_figure import coverage_rows
from xmodal.reporting.report_words import number
from xmodal.scores.intervals import SLACK
from xmodal.scores.score_texts import WORDS, shown

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 8  # features in a table
MEASURES = {"pearson": "correlation", "auroc": "AUROC"}
MEANING = {
    "pearson": "Reliable: a correlation of at least 0.3 with the measurement, surely more than 0.1; weak: surely more than 0.",
    "auroc": "Reliable: an AUROC of at least 0.7, surely more than 0.6; weak: surely more than 0.5.",
}


def section(name: str, about: dict[str, Any], table: pd.DataFrame) -> dict[str, Any] | None:
    """What the template shows of one target: sentences and the best and worst features; None where nothing is known."""
    if not about.get("trust"):
        return None
    known = table[table["reliability"].notna()] if "reliability" in table else table
    best, worst = known, known
    if len(known):  # by the end of the interval that is surest, so that chance in few cells does not lead the tables
        best = known.sort_values(["low", "feature"], ascending=[False, True]).head(SHOWN)
        worst = known.sort_values(["high", "feature"]).head(min(SHOWN, len(known) - len(best)))
    measure = str(about.get("measure", "pearson"))
    return {
        "lines": [features(name, about), *intervals(about)],
        "meaning": f"{MEANING[measure]} 'Surely' means with 97.5 % confidence, feature by feature.",
        "measure": MEASURES[measure],
        "cells": about.get("cells"),
        "best": best.to_dict("records"),
        "worst": worst.to_dict("records"),
    }


def features(name: str, about: dict[str, Any]) -> str:
    """How many features can be trusted, in one sentence; plainly where nothing was learned."""
    trust = about["trust"]
    total, word = sum(trust.values()), WORDS.get(name, "feature") + "s"
    if not about.get("signal", True):
        judged = f" on the {number(about['cells'])} cells held out in training" if about.get("cells") else ""
        return (
            f"{shown(name)} is predicted no better than the mean{judged}: of {number(total)} {word} no more are above guessing "
            f"than luck alone would put there. Rely on no prediction of a single {word[:-1]}."
        )
    parts = [f"{number(trust.get(RELIABLE, 0))} can be trusted", f"{number(trust.get(WEAK, 0))} carry a weak signal"]
    if trust.get(NONE):
        parts.append(f"{number(trust[NONE])} are predicted no better than by their mean")
    rare = f"; {number(trust[UNKNOWN])} were seen in too few cells to tell" if trust.get(UNKNOWN) else ""
    return f"Of {number(total)} {word}, {', '.join(parts[:-1])} and {parts[-1]}{rare}."


def intervals(about: dict[str, Any]) -> list[str]:
    """Whether the intervals hold what they promise, for all cells and for each type."""
    if not about.get("level"):
        return [f"There are no intervals: {about['why']}." if about.get("why") else "Intervals were not asked for."]
    nominal, rows = 100 * float(about["level"]), coverage_rows(about)
    if not rows:
        return [
            f"The intervals are meant to hold {nominal:g} % of the measured values (layers xmodal_lower and xmodal_upper)."
        ]
    lines = [f"The intervals meant to hold {nominal:g} % of the measured values hold {100 * rows[0][2]:.1f} %."]
    types = rows[1:]
    if types:
        low, high = min(types, key=lambda r: r[2]), max(types, key=lambda r: r[2])
        kept = sum(abs(r[2] - about["level"]) <= SLACK for r in types)
        lines[0] += (
            f" They keep within {100 * SLACK:g} points of that in {kept} of {len(types)} types of cells "
            f"(lowest {100 * low[2]:.1f} % in {low[0]}, highest {100 * high[2]:.1f} % in {high[0]})."
        )
    seen = about.get("coverage_of_detected")
    if seen is not None and seen < about["level"] - 0.05:
        lines.append(
            f"Most values are zero, and most of what the intervals hold are zeros: of the values that are not zero they hold "
            f"{100 * seen:.0f} %. An interval that ends low does not say that nothing will be seen there."
        )
    return lines


def of_training(metrics: dict[str, Any]) -> dict[str, str]:
    """The same for each direction of a trained model, by what it is called in the table of facts."""
    rows = {}
    for direction, about in (metrics.get("uncertainty") or {}).items():
        source, _, target = str(direction).partition(" -> ")
        rows[f"{shown(source)} → {shown(target)}, on {number(about.get('cells'))} held-out cells"] = features(
            target, about
        )
    return rows


def of_summary(content: dict[str, Any]) -> str:
    """The same for a prediction that was not compared with anything; nothing where the model does not know."""
    about = content.get("interval") or {}
    if about.get("trust"):
        told = features(str(content.get("target")), about)
        return told + (f" Intervals hold {100 * about['level']:g} %." if about.get("level") else "")
    return f"not known: {about['why']}" if about.get("why") else "-"
