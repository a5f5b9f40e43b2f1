"""Options of ``xmodal generate``, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from xmodal.errors import UsageRefused

TRAINING = "training"
MOST_DEPTH = 1_000_000  # counts of a cell: beyond it the option is a slip


class GenerateSettings(BaseModel):
    """Options of ``xmodal generate`` that are not files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: int = Field(100, ge=1, description="Cells for each prompt.")
    depth: str = Field(
        TRAINING,
        description="Counts of each cell: a number, or training: as many as the training cells of its type have.",
    )
    force: bool = Field(False, description="Go on where a prompt is far from all that the model was trained on.")

    def counts(self) -> int | None:
        """The counts of each cell that were asked for; None for those of the training cells."""
        if self.depth == TRAINING:
            return None
        if not self.depth.isdecimal() or not 1 <= int(self.depth) <= MOST_DEPTH:
            raise UsageRefused(
                f"--depth {self.depth}: give {TRAINING}, or a number of counts from 1 to {MOST_DEPTH:,} without commas"
            )
        return int(self.depth)
