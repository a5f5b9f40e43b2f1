"""Settings of ``xmodal simulate``, apart from the code that needs numpy and anndata, so that ``--help`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.fields import SPLIT


class SimulateSettings(BaseModel):
    """What is simulated; the seed is given beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cells: int = Field(2000, ge=30, description="Cells.")
    genes: int = Field(400, ge=10, description="Genes.")
    peaks: int = Field(800, ge=10, description="Peaks.")
    third: int = Field(0, ge=0, description="Proteins, a third modality of gaussian values; 0 for none.")
    coupling: Literal["linear", "nonlinear"] = Field("nonlinear", description="How genes follow peaks.")
    block: Literal["2", "3"] = Field("2", description="Bits multiplied with each other (nonlinear coupling).")
    bits: int = Field(6, ge=3, le=60, description="Shared bits of a cell, a multiple of --block.")
    leak: float = Field(0.0, ge=0, le=1, description="How far a cell's type gives its bits away.")
    type_weight: float = Field(0.2, ge=0, le=2, description="Strength of the cell types in every feature.")
    tree: str = Field(
        "3,2,2", pattern=r"^[1-9]\d?(,[1-9]\d?){0,2}$", description="Children per level of the tree of cell types."
    )
    type_concentration: float = Field(3.0, gt=0, le=1e6, description="Evenness of the types' sizes (Dirichlet).")
    depth: float = Field(1500.0, gt=0, le=1e6, description="Median RNA counts of a cell before dropout.")
    depth_sd: float = Field(0.4, ge=0, le=2, description="Spread of log depth between cells, each modality its own.")
    gene_spread: float = Field(0.5, ge=0, le=4, description="Spread of the log levels of genes.")
    open: float = Field(0.08, gt=0, lt=1, description="Typical chance of a peak to be open.")
    drop: float = Field(0.1, ge=0, lt=1, description="Chance of a count to be lost.")
    gain_rna: float = Field(0.6, ge=0, le=5, description="Strength of bits in genes.")
    gain_atac: float = Field(0.9, ge=0, le=5, description="Strength of bits in peaks.")
    gain_third: float = Field(0.7, ge=0, le=5, description="Strength of bits in proteins.")
    batches: int = Field(6, ge=3, description="Batches; the last two (of three: the last) are for the test.")
    batch_sd: float = Field(0.15, ge=0, le=5, description="Spread of batch effects.")
    unpaired_fraction: float = Field(0.0, ge=0, lt=1, description="Share of training cells without one modality.")
    chromosomes: int = Field(5, ge=1, le=50, description="Chromosomes that genes and peaks lie on.")
    label_key: str = Field("type", min_length=1, pattern=r"^[A-Za-z]\w*$", description="Column of the cell types.")

    @model_validator(mode="after")
    def _fits(self) -> SimulateSettings:
        if self.cells < 10 * self.batches:
            raise ValueError(f"--cells must be at least 10 per batch ({10 * self.batches}), not {self.cells}")
        if 0 < self.third < 10:
            raise ValueError(f"--third must be 0 or at least 10, not {self.third}")
        if self.bits % int(self.block):
            raise ValueError(f"--bits must be a multiple of --block {self.block}, not {self.bits}")
        if self.label_key in {"batch", "state", "joint", SPLIT}:
            raise ValueError(f"--label-key {self.label_key} is the name of another column")
        return self


# Shape and depth of mouse cortex SNARE-seq (GSE126074): median 245 counts and 81 open peaks, 14 types, 9 batches.
CORTEX: dict[str, Any] = {
    "cells": 2600,
    "genes": 1677,
    "peaks": 5500,
    "coupling": "linear",
    "tree": "7,2",
    "type_concentration": 1.0,
    "type_weight": 0.3,
    "depth": 272.0,
    "depth_sd": 0.63,
    "gene_spread": 1.5,
    "open": 0.0115,
    "gain_atac": 0.6,
    "batches": 9,
    "chromosomes": 19,
    "label_key": "cell_type",
}
PRESETS: dict[str, dict[str, Any]] = {"none": {}, "cortex": CORTEX}
