"""Which of the predicted values are written, what is known of their errors, and how many bytes they take."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from xmodal import fields
from xmodal.errors import UsageRefused
from xmodal.learning import checkpoint, uncertainty
from xmodal.predicting import size, top
from xmodal.predicting.choosing import Chosen

if TYPE_CHECKING:
    from xmodal.predicting.prediction import Job, Request

log = logging.getLogger(__name__)


def kept_facts(loaded: checkpoint.Checkpoint, source: str, request: Request, own: Chosen | None) -> dict[str, Any]:
    """Which values will be written, and what is known of their errors."""
    pair = (source, request.target)
    facts: dict[str, Any] = {"interval": interval_facts(loaded, pair, 0 if request.sparse else request.interval)}
    if own is not None:
        facts["chosen"] = own.to_json()
        if pair in loaded.uncertainty:
            words = loaded.uncertainty[pair].trust()[own.positions]
            facts["interval"]["trust"] = {w: int((words == w).sum()) for w in uncertainty.TRUST}
    if request.top:
        facts["top"] = min(request.top, len(own.positions if own else loaded.model.vocabulary[request.target]))
    if request.threshold is not None:
        facts["threshold"] = request.threshold
    return facts


def expected_size(job: Job) -> int:
    """Bytes of the matrices that will be written; 0 where only a threshold says how many values there will be."""
    cells, features = job.rows[1] - job.rows[0], len(job.modality)
    if fields.LATENT in job.facts:
        return size.dense(cells, int(job.facts[fields.LATENT]), 1)
    if "threshold" in job.facts:
        return 0
    if "top" in job.facts:
        return cells * int(job.facts["top"]) * top.ENTRY
    return size.dense(cells, features, 3 if job.interval else 1)


def require_size(job: Job, request: Request, where: str) -> None:
    """Refuse an output above the limit of the request, naming what would need less."""
    instead = []
    if fields.LATENT not in job.facts:
        instead += [] if job.chosen else ["--features (some genes, peaks or regions)"]
        instead += ["a lower --top"] if request.top else ["--top or --threshold (a sparse matrix)"]
        instead += ["--interval 0 (a third of it)"] if job.interval else []
        small = job.loaded.model.decodes and fields.LATENT not in job.cells.extra
        instead += ["--output-kind latent (for xmodal decode)"] if small else []
    size.require_size(expected_size(job), request.max_size * size.GB, where, instead)


def interval_facts(loaded: checkpoint.Checkpoint, pair: tuple[str, str], level: float) -> dict[str, Any]:
    """What is known of the errors of this direction; ``level`` 0, and ``why``, where there will be no intervals."""
    if level and level not in uncertainty.LEVELS:
        known = ", ".join(map(str, uncertainty.LEVELS))
        raise UsageRefused(f"--interval {level:g}: it can be {known}, or 0 for none")
    errors = loaded.uncertainty.get(pair)
    if errors is None:
        held = "uncertainty" in loaded.header["training"]
        why = "too few validation cells in training" if held else "the checkpoint is from before they existed"
        if level:
            log.warning("no intervals and no reliability of features: %s", why)
        return {"level": 0.0, "why": why}
    return {**errors.summary(level or uncertainty.DEFAULT), "level": level}
