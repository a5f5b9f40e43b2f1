"""Options of ``xmodal evaluate`` that are not files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from xmodal.data.on_disk_settings import AUTO, OPTION, Choice
from xmodal.errors import UsageRefused

CONTROLS = ("mean", "depth", "linear")  # stand beside a prediction
COMPARATORS = (  # stand beside an embedding
    "rna_pca",
    "rna_pearson",
    "atac_lsi",
    "protein_pca",
    "concatenated",
    "wnn",
    "wnn_pearson",
)
OF_PREDICTIONS = ("controls", "features", "allow_missing", "clusters", "most_cells", "on_disk")
OF_EMBEDDINGS = ("batch_key", "comparators")


class EvaluationSettings(BaseModel):
    """Options of ``xmodal evaluate`` that are not files."""

    label_key: str | None = Field(
        None, description="obs column with the cell types, for label transfer, the scores of an embedding and pictures."
    )
    batch_key: str | None = Field(
        None, description="With --embedding: obs column of the technical batch, to score how well batches are mixed."
    )
    controls: str = Field(",".join(CONTROLS), description="With --prediction: controls to set beside it; '' for none.")
    comparators: str = Field(
        ",".join(COMPARATORS),
        description="With --embedding: plain embeddings of the same counts to set beside it, as far as the modalities "
        "are there; '' for none.",
    )
    cells: Literal["asked", "test", "valid", "all"] = Field(
        "asked",
        description="Cells to score: test or valid (of the split), or all predicted or embedded; "
        "asked: valid where predict --split valid made the prediction, else test; of an embedding test where the cells "
        "have a split, else all.",
    )
    features: Literal["all", "predicted"] = Field(
        "all",
        description="all: a feature without prediction is refused; "
        "predicted: the truth is brought to the prediction's features (a new sample).",
    )
    allow_missing: bool = Field(False, description="Fill features without prediction with their training mean.")
    clusters: bool = Field(False, description="Also cluster the predicted profiles (slow; proves little).")
    most_cells: int | None = Field(
        None,
        ge=2,
        exclude=True,  # the notes say it, where it made a difference
        description="With --prediction: most cells to score; of more, so many are drawn [default: those of 500 million values].",
    )
    on_disk: Choice = Field(AUTO, exclude=True, description=f"With --prediction: {OPTION[0].lower()}{OPTION[1:]}")
    umap_cells: int = Field(3000, ge=0, description="Most cells to show in the UMAP; 0 leaves it out.")

    def control_names(self) -> tuple[str, ...]:
        return _names("--controls", self.controls, CONTROLS)

    def comparator_names(self) -> tuple[str, ...]:
        return _names("--comparators", self.comparators, COMPARATORS)

    def refuse_those_of(self, other: str, fields: tuple[str, ...]) -> None:
        """Raise :class:`UsageRefused` where one of ``fields`` was changed that only ``--other`` heeds."""
        for name in fields:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise UsageRefused(f"--{name.replace('_', '-')}: this goes with --{other}, which is not given")


def _names(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))
    if unknown := [n for n in names if n not in known]:
        raise UsageRefused(f"{option}: '{unknown[0]}' is none of {', '.join(known)}")
    return names
