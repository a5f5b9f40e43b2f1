"""Options of ``xmodal annotate``, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

import math

from pydantic import Field

from xmodal.embedding.settings import StreamedSettings
from xmodal.errors import UsageRefused

AUTO, NONE = "auto", "none"
SEEN, ALL, GIVEN = "seen", "all", "given"  # kinds of candidates
LEAST = 0.5  # probability that a label must reach: more likely right than wrong, as far as probabilities are calibrated


class AnnotateSettings(StreamedSettings):
    """Options of ``xmodal annotate`` that are not files."""

    candidates: str = Field(
        SEEN,
        description="What cells may be called: seen (the types the model was trained on), all (every term of the Cell "
        "Ontology under --root), a file with an id in each line, or ids with commas between them.",
    )
    root: str | None = Field(
        None,
        description="With --candidates all: the term under which all are candidates [default: the lowest common ancestor "
        "of the types trained on].",
    )
    threshold: str = Field(
        AUTO,
        description="Probability that a label must reach; below it a more general term is given, then 'unknown'. 0: every "
        f"cell gets its best label, whatever it is; auto: {LEAST:g}.",
    )
    cluster_key: str = Field(
        AUTO,
        description="obs column of the clusters that vote; auto: small clusters of the model's embedding; none: no votes.",
    )

    def least(self) -> float:
        """The probability that a label must reach."""
        if self.threshold == AUTO:
            return LEAST
        try:
            value = float(self.threshold)
        except ValueError:
            value = math.nan
        if not 0 <= value < 1:
            raise UsageRefused(f"--threshold {self.threshold}: give {AUTO}, or a number from 0 to below 1")
        return value

    def require_fit(self) -> None:
        """Refuse options that do not fit together, before anything is read."""
        self.least()
        if self.root is not None and self.candidates != ALL:
            raise UsageRefused(f"--root goes with --candidates {ALL}")
