"""Options of every command that brings new cells to a checkpoint, apart from the work so that ``--help`` stays fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_COVERAGE = 0.5  # below half of the features a model sees a different experiment, not a noisier one


class NewCellsSettings(BaseModel):
    """Which cells, and when they are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    split: Literal["train", "valid", "test"] | None = Field(
        None, description="Only these cells of the split [default: all]."
    )
    min_coverage: float = Field(
        MIN_COVERAGE, ge=0, le=1, description="Share of the checkpoint's features that the input must have."
    )
    force: bool = Field(False, description="Go on where cells or genome are unlike the training data.")
