"""Too few cells to train: refused with the minimum and the way out, or another model where that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Ran, call_xmodal
from helpers_data import pair


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty cells, prepared: fewer to train on than crossmp needs, enough for linear."""
    folder = tmp_path_factory.mktemp("few")
    rna, atac = pair(folder, n=40)
    done = call_xmodal("prepare", "--rna", rna, "--atac", atac, "--output", folder / "few.h5mu", "--quiet")
    assert done.code == 0, done.err
    return folder / "few.h5mu"


def train(few: Path, folder: Path, *more: str) -> Ran:
    return call_xmodal("train", few, "--model", "crossmp", "--output-dir", folder, "--threads", 1, "--quiet", *more)


def test_too_few_cells_are_refused_with_the_minimum_and_the_way_out(few: Path, tmp_path: Path) -> None:
    done = train(few, tmp_path / "m")
    assert done.code == 3 and not (tmp_path / "m").exists()
    assert "paired training cells; model 'crossmp' needs 50" in done.err and "--fallback linear (20)" in done.err


def test_the_model_asked_for_is_trained_instead(few: Path, tmp_path: Path) -> None:
    done = train(few, tmp_path / "m", "--fallback", "linear")
    assert done.code == 0 and done.out.startswith("linear: trained")
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert metrics["model"] == "linear"
    assert "crossmp' needs 50: 'linear' was trained instead (--fallback)" in metrics["warnings"][0]
    page = tmp_path / "page.html"
    assert call_xmodal("report", "--training", tmp_path / "m", "--output", page).code == 0
    assert "was trained instead" in page.read_text()


@pytest.mark.parametrize(
    ("fallback", "said"),
    [("crossmp", "--fallback crossmp: this is --model itself"), ("linaer", "--fallback: there is no model 'linaer'")],
)
def test_a_wrong_fallback_is_named(few: Path, tmp_path: Path, fallback: str, said: str) -> None:
    done = train(few, tmp_path / "m", "--fallback", fallback)
    assert done.code == 2 and said in done.err


def test_enough_cells_need_no_fallback(prepared: Path, tmp_path: Path) -> None:
    done = train(prepared, tmp_path / "m", "--fallback", "linear", "--set", "epochs=1")
    assert done.code == 0 and json.loads((tmp_path / "m" / "metrics.json").read_text())["model"] == "crossmp"
