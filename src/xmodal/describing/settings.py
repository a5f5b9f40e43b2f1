"""Options of ``xmodal describe``, apart from the work so that ``--help`` needs no heavy import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from xmodal.data.new_cells_settings import NewCellsSettings
from xmodal.errors import UsageRefused

AUTO = "auto"
TEMPLATE, SCRATCH, HF = "template", "scratch", "hf:"
DECODERS = f"give {TEMPLATE}, {SCRATCH}, or {HF}DIR with the directory of a causal language model"


class DescribeSettings(NewCellsSettings):
    """Options of ``xmodal describe`` that are not files."""

    per: Literal["cluster", "cell"] = Field(
        "cluster", description="A description for each group of cells, or each cell."
    )
    group_by: str = Field(
        AUTO,
        description="obs column whose groups are described, and against whose others genes are tested; auto: the clusters "
        "of `xmodal embed` where the file has them, else the cells of one label together.",
    )
    cells: int | None = Field(
        None, ge=1, description="With --per cell: so many cells, drawn evenly from the groups [default: all]."
    )
    genes: int = Field(5, ge=0, le=20, description="Most genes in a description.")
    fdr: float = Field(0.05, gt=0, lt=1, description="Share of false discoveries among the genes that are named.")
    min_cells: int = Field(20, ge=4, description="Groups with fewer cells, or fewer others, get no sentence on genes.")
    decoder: str = Field(
        TEMPLATE,
        description="Who words the facts: template; scratch (a small model trained with --train-decoder); hf:DIR (a causal "
        "language model from that directory, adapted with --train-decoder).",
    )

    def require_fit(self) -> None:
        """Refuse options that do not fit together, before anything is read."""
        DecoderChoice.of(self.decoder)
        if self.cells is not None and self.per != "cell":
            raise UsageRefused("--cells goes with --per cell")


@dataclass(frozen=True)
class DecoderChoice:
    """``kind``: template, scratch or hf; ``base``: the directory of the language model, for hf."""

    kind: str
    base: Path | None = None

    @classmethod
    def of(cls, text: str) -> DecoderChoice:
        if text in (TEMPLATE, SCRATCH):
            return cls(text)
        if text.startswith(HF) and text != HF:
            return cls(HF.rstrip(":"), Path(text.removeprefix(HF)))
        raise UsageRefused(f"--decoder {text}: {DECODERS}")

    @property
    def neural(self) -> bool:
        return self.kind != TEMPLATE
