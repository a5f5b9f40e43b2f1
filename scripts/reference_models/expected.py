"""What a model must reach before anybody is offered it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reference_models.recipe import Bound
from xmodal.scores import score_texts


def missed(expected: Mapping[str, Mapping[str, Bound]], scores: dict[str, Any]) -> list[str]:
    """What was not reached, and by how much; ``scores``: the evaluation's metrics.json."""
    found = []
    for target, bounds in expected.items():
        methods = scores["targets"][target]["methods"]
        for score, bound in bounds.items():
            found += [f"{target} {score} {said}" for said in _of_one(score, bound, methods)]
    return found


def _of_one(score: str, bound: Bound, methods: dict[str, dict[str, float]]) -> list[str]:
    value = methods["prediction"].get(score)
    if value is None:
        return ["was not computed"]
    said = []
    if bound.at_least is not None and value < bound.at_least:
        said.append(f"is {value:.4f}, {bound.at_least - value:.4f} below the {bound.at_least} asked for")
    if bound.at_most is not None and value > bound.at_most:
        said.append(f"is {value:.4f}, {value - bound.at_most:.4f} above the {bound.at_most} allowed")
    for control in bound.beats:
        other = methods.get(control, {}).get(score)
        if other is None:
            said.append(f"cannot be compared: the control {control} has none")
        elif not score_texts.better(score, value, other):
            said.append(f"is {value:.4f}, not better than the control {control} ({other:.4f})")
    return said


def in_words(target: str, score: str, bound: Bound) -> str:
    """A bound as a line of the card."""
    parts = [f"at least {bound.at_least:g}"] if bound.at_least is not None else []
    parts += [f"at most {bound.at_most:g}"] if bound.at_most is not None else []
    parts += [f"better than {', '.join(bound.beats)}"] if bound.beats else []
    return f"{score_texts.shown(target)}, {score}: {' and '.join(parts)}"
