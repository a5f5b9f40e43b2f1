"""Settings of ``xmodal markers``, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xmodal.fields import CLUSTER


def _by_comma(values: Any) -> Any:
    return tuple(v.strip() for value in values for v in value.split(",") if v.strip())


Names = Annotated[tuple[str, ...], BeforeValidator(_by_comma)]


class MarkerSettings(BaseModel):
    """Options of ``xmodal markers`` that are not files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group_by: str = Field(CLUSTER, description="Column of obs whose groups are compared, each with all other cells.")
    modality: Names = Field((), description="Only this modality; repeatable, or comma-separated [default: all].")
    sample_key: str | None = Field(
        None,
        description="Column of obs with the sample (donor, animal, ...) of each cell: where samples allow, they are "
        "compared and not cells [default: xmodal_sample, where it is there and two samples or more are on both sides].",
    )
    method: Literal["auto", "wilcoxon", "pseudobulk"] = Field(
        "auto",
        description="wilcoxon: cells against cells; pseudobulk: counts summed by sample, DESeq2; auto: pseudobulk for "
        "the groups whose samples allow it.",
    )
    fdr: float = Field(0.05, gt=0, lt=1, description="Share of false discoveries among the markers of a group.")
    min_cells: int = Field(
        10, ge=2, description="Smaller groups, and samples with fewer cells on a side, are left out."
    )
    groups: Names = Field((), description="Only these groups, comma-separated; each is still compared with all others.")
    top: int = Field(5, ge=1, le=50, description="Features of each group in the picture.")
