"""Validation cells that a model learned from are never called held-out; those that judge a trial are honest."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import call_xmodal
from helpers_nextflow import ROOT

CELLS = ROOT / "tests/golden/cells.h5mu"
QUIET = ("--threads", 1, "--quiet")
WARNS = "from which the model may have learned"


def scored(folder: Path, split: str, *options: object) -> tuple[dict[str, Any], str, str]:
    """Train, predict ``split``, evaluate, report: (metrics.json of evaluate, what evaluate warned, the page as text)."""
    model, file = folder / "model/model.safetensors", folder / "rna.h5ad"
    small = ("--controls", "mean", "--umap-cells", 0)
    given = ("--evaluation", folder / "scores", "--output", folder / "report.html")
    steps = (
        ("train", CELLS, "--model", "linear", *options, "--output-dir", model.parent, *QUIET),
        ("predict", CELLS, "--to", "rna", "--split", split, "--checkpoint", model, "--output", file, *QUIET),
        ("evaluate", CELLS, "--prediction", f"rna={file}", *small, "--output-dir", folder / "scores", "--threads", 1),
        ("report", *given),
    )
    warned = ""
    for step in steps:
        done = call_xmodal(*step)
        assert done.code == 0, done.err
        warned += done.err if step[0] == "evaluate" else ""
    page = html.unescape(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text()))
    return json.loads((folder / "scores/metrics.json").read_text()), warned, page


def test_scores_of_validation_cells_that_a_model_learned_from_are_told_apart(tmp_path: Path) -> None:
    metrics, warned, page = scored(tmp_path, "valid")
    assert metrics["settings"]["cells"] == "valid"
    assert any(WARNS in note for note in metrics["targets"]["rna"]["notes"]) and WARNS in warned
    assert f"validation cells, {WARNS}," in page and "held-out" not in page.partition("Glossary")[0]
    assert "scores of new cells are lower" in page


@pytest.mark.parametrize(
    ("split", "options", "called"),
    [("valid", ("--trial",), "validation cells, which the model never saw,"), ("test", (), "held-out cells")],
)
def test_cells_that_the_model_never_saw_need_no_warning(
    tmp_path: Path, split: str, options: tuple[str, ...], called: str
) -> None:
    metrics, warned, page = scored(tmp_path, split, *options)
    assert metrics["targets"]["rna"]["notes"] == [] and WARNS not in warned
    assert metrics["targets"]["rna"].get("trial", False) == ("--trial" in options)
    assert called in page and WARNS not in page
