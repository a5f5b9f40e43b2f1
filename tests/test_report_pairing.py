"""What the report says of cells that were measured together, and of those with one modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers_data import GENES, cells, pair, write
from xmodal.data.preparation import prepare
from xmodal.data.prepare_settings import PrepareSettings
from xmodal.data.samples import SampleFiles
from xmodal.reporting.report_inputs import Inputs, Training
from xmodal.reporting.report_words import answer

MODALITIES = {"rna": {"features": 20}, "atac": {"features": 15}}
TOGETHER = "RNA (20 features) and ATAC (15 features)"


def first(split: dict[str, Any], *summaries: dict[str, Any]) -> str:
    trained = Training("t", {"model": "auto", "split": split, "modalities": MODALITIES}, pd.DataFrame())
    return answer(Inputs([trained], prepares=[("new", {}), *(("p", s) for s in summaries)]), [])[0]


def summary(folder: Path, *single: int, left: int = 0) -> dict[str, Any]:
    """Of a sample with both modalities (``left`` cells lack ATAC), and samples of so many cells with RNA only."""
    rna, atac = pair(folder)
    if left:
        write(cells(GENES, 30 + left), rna)
    files = [SampleFiles("both", {"rna": rna, "atac": atac})]
    for i, n in enumerate(single):
        files.append(SampleFiles(f"one{i}", {"rna": write(cells(GENES, n, 3, f"s{i}_"), folder / f"{i}.h5ad")}))
    return prepare(files, PrepareSettings(), 0)[1]


def test_all_cells_have_both(tmp_path: Path) -> None:
    about = summary(tmp_path)
    n = about["split"]
    assert first(n, about) == (
        f"An auto model was trained on {n['train']} cells in which {TOGETHER} had been measured together; "
        f"{n['test']} other cells were held out to test it (drawn at random among all cells)."
    )


def test_samples_of_one_modality_are_counted_apart(tmp_path: Path) -> None:
    about = summary(tmp_path, 40)
    n, by_sample = about["split"], about["counts"]["split_by_sample"]
    both, one = by_sample["both"], by_sample["one0"]
    assert both["train"] and one["train"] and one["test"]
    assert first(n, about) == (
        f"An auto model was trained on {n['train']} cells, in {both['train']} of which {TOGETHER} had been measured "
        f"together ({one['train']} had RNA only); {n['test']} other cells, {both['test']} of them with both RNA and ATAC, "
        "were held out to test it (drawn at random among all cells)."
    )


@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_claimed_that_is_not_known(tmp_path: Path, known: bool) -> None:
    """A sample with cells of both kinds; the summary of other cells."""
    about = summary(tmp_path, left=10)
    n = about["split"]
    text = first(n if known else {**n, "train": 999}, about)
    assert f" cells and what they have of {TOGETHER}; " in text
    assert ("In 30 of all 40 prepared cells both RNA and ATAC had been measured." in text) == known
    assert "together" not in text
