"""Settings of ``xmodal pretrain``."""

from __future__ import annotations

from pydantic import Field

from xmodal.models.parts.perceiver import PerceiverSettings


class PretrainSettings(PerceiverSettings):
    """Size of the cell encoder, and how it is pretrained."""

    epochs: int = Field(10, ge=1, description="Times that all cells are seen.")
    batch_size: int = Field(64, ge=2, description="Cells in a minibatch.")
    learning_rate: float = Field(
        0.002, gt=0, description="Highest learning rate of Adam; one cycle over all of training."
    )
    weight_decay: float = Field(0.01, ge=0, description="Weight decay (decoupled, as in AdamW).")
    mask: float = Field(0.3, gt=0, lt=1, description="Share of the genes that are hidden and predicted.")
    round_cells: int = Field(
        8192,
        ge=2,
        description="Cells in memory at once, drawn from all files and shuffled; progress is told and the state kept "
        "after each such round.",
    )
    valid_cells: int = Field(1024, ge=1, description="Most cells to judge on, which are not trained on.")
