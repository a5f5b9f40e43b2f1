"""Settings of ``xmodal prepare``, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xmodal.data.on_disk_settings import AUTO, OPTION, Choice
from xmodal.errors import UsageRefused
from xmodal.fields import LIKELIHOODS


def _by_comma(values: Any) -> Any:
    return tuple(v.strip() for value in values for v in value.split(",") if v.strip())


# Options that say how fragments are counted; without fragments they are no part of what was asked for.
OF_FRAGMENTS = {"checkpoint", "peaks", "count", "min_fragments"}
Names = Annotated[tuple[str, ...], BeforeValidator(_by_comma)]


def _asked_for(name: str, by: str) -> Any:
    """A column that a later command will need.  It is only asked for: nothing that is written changes."""
    return Field(
        None,
        exclude=True,
        json_schema_extra={"envvar": f"XMODAL_{name.upper()}"},
        description=f"Refuse cells whose obs lacks this column, which {by} will need.",
    )


class PrepareSettings(BaseModel):
    """Options of ``xmodal prepare``; each becomes an option of the command."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    genome: str | None = Field(None, description="Genome (hg38, hg19, mm10, ...) [default: as the files say].")
    gene_table: str | None = Field(None, description="GTF, BED or TSV of genes, to name Ensembl ids.")
    likelihood: tuple[str, ...] = Field((), description="NAME=nb|bernoulli|gaussian: how a modality is modelled.")
    checkpoint: str | None = Field(None, description="Count fragments over the peaks of this model; all of them stay.")
    peaks: str | None = Field(None, description="Count fragments over these peaks (BED, or a file of peak counts).")
    count: Literal["cuts", "fragments"] = Field(
        "cuts", description="What of fragments is counted: cut sites (as Cell Ranger ARC) or fragments (as Signac)."
    )
    min_fragments: int = Field(
        1000, ge=1, description="Fragments that make a barcode a cell, where no other file names the cells."
    )
    layer: str | None = Field(None, description="Layer that holds the raw counts ('raw': .raw), where X does not.")
    split: Literal["random", "file"] | None = Field(
        None, description="Draw cells at random, or use the file's own split [default: the file's, else random]."
    )
    split_by: str | None = Field(None, description="Column of obs whose groups stay together (donor, batch, ...).")
    test_groups: Names = Field((), description="Groups of --split-by to test on, comma-separated [default: drawn].")
    valid_groups: Names = Field((), description="Groups of --split-by to choose the model on [default: drawn].")
    test_fraction: float = Field(0.25, gt=0, lt=1, description="Share of cells to test on, which training never sees.")
    valid_fraction: float = Field(0.1, gt=0, lt=1, description="Share of cells to choose the model on.")
    min_peak_fraction: float = Field(0.005, ge=0, lt=1, description="Keep peaks open in this share of training cells.")
    min_rna_counts: int = Field(0, ge=0, description="Drop cells with fewer RNA counts.")
    min_peaks: int = Field(0, ge=0, description="Drop cells with fewer open peaks.")
    obs: str | None = Field(
        None, description="Table of labels (CSV or TSV), joined by its first column, the names of the cells."
    )
    label_key: str | None = _asked_for("label_key", "evaluate --label-key")
    batch_key: str | None = _asked_for("batch_key", "train --batch-key")
    sample_key: str | None = _asked_for("sample_key", "markers --sample-key")
    on_disk: Choice = Field(AUTO, exclude=True, description=OPTION)
    exclude: tuple[str, ...] = Field((), description="COLUMN=VALUE: drop these cells (COLUMN=: those without one).")


def parse_likelihoods(pairs: tuple[str, ...]) -> dict[str, str]:
    """``NAME=KIND`` texts as likelihoods by modality; refused where one is not known."""
    chosen = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if value not in LIKELIHOODS or not name:
            raise UsageRefused(f"--likelihood {pair}: give NAME=" + "|".join(LIKELIHOODS))
        chosen[name] = value
    return chosen
