"""Sections for MultiQC: plots with clean names in a sensible order, nothing empty, whatever parts are given."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers_nextflow import ROOT
from xmodal.reporting.multiqc_rows import rows
from xmodal.reporting.multiqc_sections import sections, write
from xmodal.reporting.report_inputs import Evaluation, Inputs, Training

TOOL = Path(sys.executable).parent / "multiqc"
CONFIG = ROOT / "assets/multiqc_config.yml"
TRUST = {"reliable": 3, "weak": 4, "no better than the mean": 2, "too rare to tell": 1}
SCORES = {"rna": ("gene_pearson", "label_transfer"), "atac": ("peak_auroc", "label_transfer")}


def novelty() -> dict[str, Any]:
    histogram = {"edges": [0, 1, 2, 3, 8], "cells": [80, 15, 4, 1, 0]}
    return {"unlike": 0.05, "limit": 2.0, "level": "fine", "histogram": histogram}


def summary(source: str = "rna", target: str = "atac", **more: Any) -> dict[str, Any]:
    """What ``predict --summary`` writes."""
    alignment = {"features": 10, "coverage": 0.9, "missing": 1, "by_name": 7, "by_overlap": 2, "by_gene_id": 0}
    return {
        "source": source,
        "target": target,
        "cells": 100,
        "empty": 2,
        "model": "auto",
        "checkpoint_sha256": "ab" * 32,
        "alignment": alignment,
        "novelty": novelty(),
        "interval": {"trust": TRUST, "level": 0.9},
        **more,
    }


def scored(source: str, target: str, **more: Any) -> dict[str, Any]:
    """One target of an evaluation."""
    values = {"prediction": 0.7, "linear": 0.6, "depth": 0.1, "mean": 0.0}
    return {
        "source": source,
        "model": "auto",
        "cells": 50,
        "methods": {m: dict.fromkeys(SCORES[target], v) for m, v in values.items()},
        "intervals": {"level": 0.9, "coverage": 0.88, "coverage_of_detected": 0.8, "trust": TRUST},
        "novelty": novelty(),
        **more,
    }


def evaluation(name: str, **targets: dict[str, Any]) -> Evaluation:
    return Evaluation(name, {"targets": targets}, pd.DataFrame(), pd.DataFrame())


def training(name: str = "auto", epochs: int = 12) -> Training:
    numbers = range(1, epochs + 1)
    history = pd.DataFrame(
        {"epoch": numbers, "train_loss": [2 / e for e in numbers], "valid_loss": [3 / e for e in numbers]}
    )
    metrics = {
        "best_epoch": epochs,
        "split": {"train": 10, "valid": 5, "test": 5},
        "uncertainty": {"rna -> atac": {"trust": TRUST}},
    }
    return Training(name, metrics, history, "ab" * 32)


def prepared(**samples: dict[str, int]) -> dict[str, Any]:
    split = {p: sum(s.get(p, 0) for s in samples.values()) for p in ("train", "valid", "test")}
    cells = {"before": 25, "after": 20, "exclude kind=x": 2, "min_peaks": 3}
    return {
        "split": split,
        "counts": {"cells": cells, "features": {"rna": {"before": 9, "after": 9}}, "split_by_sample": samples},
    }


PART = {"before": 25, "train": 10, "valid": 5, "test": 5}


def whole(new: int = 1) -> Inputs:
    """A run of the pipeline: training, held-out cells both ways, and ``new`` samples of RNA to predict for."""
    given = [("heldout: atac from rna", summary()), ("heldout: rna from atac", summary("atac", "rna"))]
    given += [(f"s{i}: atac from rna", summary()) for i in range(new, 0, -1)]
    prepares = [("training.prepare.json", prepared(s9=PART, s10=PART))]
    prepares += [(f"s{i}.prepare.json", prepared()) for i in range(1, new + 1)]
    held = evaluation("heldout", atac=scored("rna", "atac"), rna=scored("atac", "rna"))
    return Inputs([training()], [held], [], prepares, given)


def by_id(inputs: Inputs) -> dict[str, dict[str, Any]]:
    return {s["id"].removeprefix("xmodal_"): s for s in sections(inputs)}


def test_rows_have_clean_names_in_the_order_people_count() -> None:
    names = list(rows(whole(11)))
    assert names[:4] == ["heldout: ATAC from RNA", "heldout: RNA from ATAC", "s1: ATAC from RNA", "s2: ATAC from RNA"]
    assert names[-1] == "s11: ATAC from RNA"


def test_one_name_is_one_row_and_two_models_are_two() -> None:
    """The evaluation of a sample's second source belongs to its prediction; a second model's prediction is not lost."""
    protein = summary("protein", "rna")
    given = [("s1: rna from atac", summary("atac", "rna")), ("s1: rna from protein", protein)]
    scores = [evaluation("s1", rna=scored("atac", "rna")), evaluation("s1.2", rna=scored("protein", "rna"))]
    found = rows(Inputs([], scores, [], [], given))
    assert list(found) == ["s1: RNA from ATAC", "s1: RNA from protein"]
    assert all(row.scored and row.summary for row in found.values())
    twice = rows(Inputs([], [], [], [], [("s", summary()), ("s", summary(model="linear")), ("s", summary())]))
    assert list(twice) == ["s: ATAC from RNA", "s: ATAC from RNA (auto)", "s: ATAC from RNA (linear)"]


def test_a_whole_run_has_every_plot() -> None:
    found = by_id(whole())
    plots = {"cells", "features", "learning", "bars_atac", "bars_rna", "trust", "coverage", "alignment", "unlike"}
    assert set(found) == plots | {"general", "scores_atac", "scores_rna"}
    for name in plots:
        config = found[name]["pconfig"]
        assert config["title"].startswith("xmodal: ") and config["ylab"] and found[name]["description"].endswith(".")
        assert found[name]["plot_type"] == "bargraph" or config["xlab"]


def test_every_column_of_the_general_statistics_is_described() -> None:
    columns = {k: v for column in by_id(whole())["general"]["pconfig"] for k, v in column.items()}
    assert list(columns) == ["model", "cells", "found", "unlike", "gene_pearson", "peak_auroc"]
    assert all(c["title"] and c["description"] for c in columns.values())
    assert (columns["found"]["suffix"], columns["unlike"]["suffix"]) == ("%", "%") and columns["model"]["hidden"]
    row = by_id(whole())["general"]["data"]["s1: ATAC from RNA"]
    assert row == {"model": "auto", "cells": 100, "found": 90.0, "unlike": 5.0}


def test_cells_are_those_learned_from_predicted_and_left_out() -> None:
    data = by_id(whole())["cells"]["data"]
    assert list(data) == ["s9", "s10", "s1"]  # test cells are not counted again as predicted
    assert data["s9"] == {"train": 10, "valid": 5, "test": 5, "left out": 5}
    assert data["s1"] == {"predicted": 98, "empty": 2}
    alone = by_id(Inputs(prepares=[("training.prepare.json", prepared(one=PART))]))["cells"]["data"]
    assert alone["one"] == {"train": 10, "valid": 5, "test": 5, "left out: kind=x": 2, "left out: min_peaks": 3}
    both = Inputs([], [], [], [("training.prepare.json", prepared(s1=PART))], [("s1: atac from rna", summary())])
    assert list(by_id(both)["cells"]["data"]) == ["s1", "s1 (predicted)"]


def test_scores_stand_beside_the_controls() -> None:
    found = by_id(whole())
    bars = found["bars_rna"]
    assert [b["name"] for b in bars["pconfig"]["data_labels"]] == ["Gene correlation", "Own type"]
    assert bars["pconfig"]["ylab"] == "Per-gene correlation (0 is chance)"
    assert list(bars["categories"][0]) == ["mean", "depth", "linear", "prediction"]
    assert bars["categories"][0]["prediction"]["name"] == "prediction (auto)"
    assert bars["data"][0]["heldout: RNA from ATAC"]["prediction"] == 0.7
    assert "heldout: ATAC from RNA | linear" in found["scores_atac"]["data"]


def test_learning_curves_are_in_the_order_of_epochs() -> None:
    both, train, valid = by_id(whole())["learning"]["data"]
    assert both["auto: validation cells"][9:11] == [[10, 0.3], [11, pytest.approx(3 / 11)]]
    assert set(both) == {*train, *valid} and len(train) == len(valid) == 1


def test_unlike_cells_fall_and_end_where_there_are_none() -> None:
    lines = by_id(whole())["unlike"]["data"]
    assert lines["s1: ATAC from RNA"] == [[0.0, 100.0], [1.0, 20.0], [2.0, 5.0], [3.0, 1.0]]
    assert lines["training cells"][:3] == [[0.0, 100.0], [1.0, 10.0], [2.0, 1.0]]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (Inputs([training(epochs=1)]), {"cells", "trust"}),  # a point is no curve
        (Inputs(predictions=[("s: atac from rna", summary())]), {"general", "cells", "alignment", "unlike", "trust"}),
        (Inputs(predictions=[("s", {"source": "rna", "target": "atac", "cells": 0})]), {"general", "cells"}),
        (Inputs(checks=[("s.check.json", {"ok": True})]), set()),
        (
            Inputs([], [evaluation("s", rna={"source": "atac", "cells": 3, "methods": {}})]),
            {"general", "cells"},
        ),
    ],
)
def test_what_there_is_nothing_for_is_left_out(inputs: Inputs, expected: set[str]) -> None:
    assert set(by_id(inputs)) == expected


def test_the_sections_are_the_ones_the_configuration_orders() -> None:
    import yaml

    config = yaml.safe_load(CONFIG.read_text())
    elsewhere = {"software_versions", "xmodal_sweep", "xmodal_joint", "xmodal_clusters"}  # seen in runs of the pipeline
    ordered = set(config["report_section_order"]) - elsewhere
    assert ordered <= {s["id"] for s in sections(whole())}
    assert config["no_ai"] and config["no_version_check"] and not config["show_analysis_paths"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(str(TOOL)) is None, reason="multiqc is not installed")
def test_multiqc_shows_the_sections(tmp_path: Path) -> None:
    write(tmp_path / "in", whole(50))
    options = ["--config", str(CONFIG), "--filename", "multiqc_report.html", "--strict", "in"]
    done = subprocess.run([str(TOOL), *options], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "multiqc_report.html").read_text()
    plots = json.loads((tmp_path / "multiqc_report_data/multiqc_data.json").read_text())["report_plot_data"]
    lines = plots["xmodal_learning_plot"]["datasets"][0]["lines"]
    assert [[x for x, _ in line["pairs"]] for line in lines] == [list(range(1, 13))] * 2
    order = re.findall(r'<h3 id="(xmodal_[a-z_]+)"', page)
    assert order == [s["id"] for s in sections(whole(50))][1:]  # the first are the general statistics
    for words in ("Scores of predicted ATAC", "Learning curves", "Unlike cells", "Intervals", "s50: ATAC from RNA"):
        assert words in page, words
    # Nothing is fetched when the page is opened: all scripts, styles and pictures are in it.
    assert re.findall(r'<(?:script|link|iframe)[^>]+(?:src|href)="https?://[^"]+"', page) == []
