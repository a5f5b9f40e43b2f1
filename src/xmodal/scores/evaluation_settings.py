"""Options of ``xmodal evaluate`` that are not files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from xmodal.errors import UsageRefused

CONTROLS = ("mean", "depth", "linear")


class EvaluationSettings(BaseModel):
    """Options of ``xmodal evaluate`` that are not files."""

    label_key: str | None = Field(None, description="obs column with the cell types, for label transfer and pictures.")
    controls: str = Field(",".join(CONTROLS), description="Controls to set beside the prediction; '' for none.")
    cells: Literal["asked", "test", "valid", "all"] = Field(
        "asked",
        description="Cells to score: test or valid (of the split), or all predicted; "
        "asked: valid where predict --split valid made the prediction, else test.",
    )
    features: Literal["all", "predicted"] = Field(
        "all",
        description="all: a feature without prediction is refused; "
        "predicted: the truth is brought to the prediction's features (a new sample).",
    )
    allow_missing: bool = Field(False, description="Fill features without prediction with their training mean.")
    clusters: bool = Field(False, description="Also cluster the predicted profiles (slow; proves little).")
    umap_cells: int = Field(3000, ge=0, description="Most cells to show in the UMAP; 0 leaves it out.")

    def control_names(self) -> tuple[str, ...]:
        names = tuple(n.strip() for n in self.controls.split(",") if n.strip())
        if unknown := [n for n in names if n not in CONTROLS]:
            raise UsageRefused(f"--controls: '{unknown[0]}' is none of {', '.join(CONTROLS)}")
        return names
