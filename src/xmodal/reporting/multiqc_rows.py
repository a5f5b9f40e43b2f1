"""The predictions as MultiQC shows them: one row for each, with a clean name and in a sensible order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from xmodal.reporting.report_inputs import Inputs
from xmodal.scores.score_texts import shown

HELDOUT = "heldout"  # the test cells of the training set, as the pipeline calls them
SECOND = re.compile(r"\.\d+$")  # SAMPLE.2: the evaluation of the second source of a target
PARENT = {
    "parent_id": "xmodal",
    "parent_name": "xmodal",
    "parent_description": "predicts the single-cell modality that was not measured.",
}


@dataclass(frozen=True)
class Row:
    """One prediction: what ``evaluate`` says of it (``scored``), what ``predict`` says of it (``summary``), or both."""

    name: str
    sample: str
    source: str
    target: str
    scored: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return str(self.summary.get("model") or self.scored.get("model") or "")

    @property
    def cells(self) -> int | None:
        found = self.summary.get("cells", self.scored.get("cells"))
        return int(found) if isinstance(found, int) else None

    def about(self, key: str) -> dict[str, Any]:
        """``alignment``, ``novelty`` or ``interval``, from whichever command said it."""
        other = {"alignment": "missing", "interval": "intervals"}.get(key, key)
        return self.summary.get(key) or self.scored.get(other) or {}

    def methods(self) -> dict[str, dict[str, float]]:
        """Scores of the prediction and of each control."""
        return self.scored.get("methods") or {}


def rows(inputs: Inputs) -> dict[str, Row]:
    """Name in MultiQC -> row; held-out cells first, then samples as people count (s2 before s10)."""
    found: dict[str, Row] = {}
    for given, summary in inputs.predictions:
        source, target = str(summary.get("source") or ""), str(summary.get("target") or "")
        sample = given.removesuffix(f": {target} from {source}")
        name = _free(name_of(sample, source, target), str(summary.get("model") or ""), found)
        found[name] = Row(name, sample, source, target, {}, summary)
    for part in inputs.evaluations:
        for target, scored in part.targets.items():
            source = str(scored.get("source") or "")
            samples = (part.name, SECOND.sub("", part.name))
            sample = next((s for s in samples if name_of(s, source, target) in found), part.name)
            name = name_of(sample, source, target)
            before = found.get(name)
            if before is not None and before.scored:  # another evaluation of a sample of the same name
                name, before = _free(name, str(scored.get("model") or ""), found), None
            found[name] = Row(name, sample, source, target, scored, before.summary if before else {})
    ordered = sorted(found.values(), key=lambda r: (order(r.sample), r.target, r.source, r.name))
    return {row.name: row for row in ordered}


def name_of(sample: str, source: str, target: str) -> str:
    """Such as ``donor2: ATAC from RNA``."""
    return f"{sample}: {shown(target)} from {shown(source)}" if source else f"{sample}: {shown(target)}"


def order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Key to sort samples by: numbers count as numbers."""
    pieces = re.split(r"(\d+)", name)
    return name != HELDOUT, [(int(p), "") if p.isdigit() else (-1, p.lower()) for p in pieces]


def _free(name: str, model: str, taken: dict[str, Row]) -> str:
    if name not in taken:
        return name
    base, number = f"{name} ({model})" if model else name, 2
    if base not in taken:
        return base
    while f"{base} #{number}" in taken:
        number += 1
    return f"{base} #{number}"
