"""Validation cells are no test cells: what is learned from where they are scored, and the word that models learn from them."""

from __future__ import annotations

import logging
from typing import Any

from xmodal import fields

log = logging.getLogger(__name__)
TRIAL = (
    "trial"  # in what a prediction and a target of an evaluation say: the model learned nothing from validation cells
)
FLATTERED = (
    "validation cells are scored, from which the model may have learned: scores of new cells are lower. "
    "Those of test cells are honest (predict --split test), or train with --trial"
)


def learned_parts(scored: str) -> tuple[str, ...]:
    """The parts of the split that means, types and controls are learned from: never the one that is scored."""
    return (fields.TRAIN,) if scored == fields.VALID else (fields.TRAIN, fields.VALID)


def notes(about: dict[str, Any], scored: str) -> list[str]:
    """The warning, logged as well, where ``scored`` are validation cells and the prediction is not that of a trial.

    ``about``: what the prediction says of itself, its ``settings`` decoded.
    """
    if scored != fields.VALID or of_trial(about):
        return []
    log.warning(FLATTERED)
    return [FLATTERED]


def of_trial(about: dict[str, Any]) -> bool:
    """Whether a trial of a sweep made the prediction: it learned nothing from validation cells."""
    return bool(about.get("settings", {}).get(TRIAL))
