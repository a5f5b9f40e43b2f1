"""The report about cells that were predicted but never measured, and about simulated cells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from xmodal.cli.report import command
from xmodal.errors import InputRefused, UsageRefused


def summary(**other: Any) -> dict[str, Any]:
    return {
        "model": "crossmp",
        "source": "rna",
        "target": "atac",
        "units": "probability",
        "cells": 1200,
        "features": 900,
        "empty": 3,
        "checkpoint_sha256": "cd" * 32,
        "alignment": {
            "modality": "rna",
            "features": 100,
            "by_name": 90,
            "by_gene_id": 5,
            "by_overlap": 0,
            "missing": 5,
            "unused": 7,
            "first_missing": ["<b>Gad1</b>"],
            "coverage": 0.95,
            "hint": "",
        },
        "novelty": {"unlike": 0.02, "median": 1.0, "limit": -1.0, "level": "fine"},
        **other,
    }


def page(folder: Path, content: dict[str, Any], option: str = "--prediction", *more: object) -> str:
    path = folder / "given.json"
    path.write_text(json.dumps(content))
    value = f"s<1>={path}" if option == "--prediction" else str(path)
    output = folder / "report.html"
    done = CliRunner().invoke(command, [option, value, "--output", str(output), "--overwrite", *map(str, more)])
    assert done.exit_code == 0, done.exception
    return output.read_text()


def test_a_prediction_alone_makes_a_page(tmp_path: Path) -> None:
    text = page(tmp_path, summary())
    assert "<b>Gad1</b>" not in text and "s<1>" not in text
    text = re.sub(r"<[^>]+>", " ", text)
    for words in (
        "Predicted cells",
        "ATAC was predicted from RNA in 1,200 cells of s&lt;1&gt;, 2.0 % of them unlike the training cells",
        "95.0 % (5 of 100 missing)",
        "1,200 (3 without any counts)",
        "900 (probability)",
        "5 of 100 RNA features the model knows are not in the input",
        "cdcdcd",
        "they look like the cells the model was trained on",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("level", "words"), [("warning", "many look unlike"), ("refused", "do not trust this prediction")]
)
def test_cells_unlike_the_training_cells(tmp_path: Path, level: str, words: str) -> None:
    assert words in page(tmp_path, summary(novelty={"unlike": 0.6, "level": level}))


def test_a_summary_with_little_in_it(tmp_path: Path) -> None:
    least = {"source": "rna", "target": "atac", "cells": 2, "features": 3, "alignment": {}, "novelty": {}}
    assert "ATAC was predicted from RNA in 2 cells" in page(tmp_path, least)


def test_simulated_cells_are_said_up_front(tmp_path: Path) -> None:
    cells = {"modalities": {"rna": {"genome": "simulated"}, "atac": {"genome": None}}}
    assert "The cells are simulated, not measured" in page(tmp_path, cells, "--prepare")
    assert "The cells are simulated, not measured" in page(tmp_path, {"files": [cells]}, "--check")
    assert "simulated, not measured" not in page(tmp_path, {"modalities": {"rna": {"genome": "hg38"}}}, "--prepare")


def test_the_direction_is_said_once(tmp_path: Path) -> None:
    path, output = tmp_path / "p.json", tmp_path / "r.html"
    path.write_text(json.dumps(summary()))
    given = ["--prediction", f"S4: atac from rna={path}", "--output", str(output)]
    assert CliRunner().invoke(command, given).exit_code == 0
    assert "ATAC was predicted from RNA in 1,200 cells of S4, 2.0 % of them unlike" in output.read_text()


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("{}")

    def refused(given: str, output: str = "r.html") -> Any:
        return CliRunner().invoke(command, ["--prediction", given, "--output", str(tmp_path / output)]).exception

    assert isinstance(refused(f"a={path}"), InputRefused)
    assert isinstance(refused(str(path)), UsageRefused) and isinstance(refused("a=absent.json"), UsageRefused)
    path.write_text(json.dumps(summary()))
    assert isinstance(refused(f"a={path}", "o.pdf"), UsageRefused) and not (tmp_path / "o.pdf").exists()
    assert refused(f"a={path}", "o.htm") is None
