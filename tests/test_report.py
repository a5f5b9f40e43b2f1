"""``xmodal report``: complete, safe, without scripts, with parts missing; verdicts; MultiQC."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helpers_evaluation import files, training_folder
from xmodal.cli.evaluate import command as evaluate_command
from xmodal.cli.report import command
from xmodal.errors import InputRefused, UsageRefused
from xmodal.scores.score_texts import short_for, text_for, text_of
from xmodal.scores.verdicts import judge

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """Collects tags and attributes, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    truth, predictions = files(folder, ("rna", "atac"), ("atac", "rna"))
    given = [a for t, p in predictions.items() for a in ("--prediction", f"{t}={p}")]
    arguments = [truth, *given, "--output-dir", folder / "heldout", "--label-key", "cell_type", "--threads", 1]
    assert CliRunner().invoke(evaluate_command, [str(a) for a in arguments]).exit_code == 0
    training_folder(folder / "training")
    check = {
        "ok": True,
        "findings": [{"level": "warning", "where": "in.h5mu", "what": "3 cells have <no> counts", "do": "drop them"}],
        "files": [
            {"file": "in.h5mu", "modalities": {"rna": {"cells": 5, "features": 7, "sparsity": 0.9, "genome": None}}}
        ],
    }
    (folder / "check.json").write_text(json.dumps(check))
    prepare = {
        "counts": {"cells": {"before": 10, "after": 8, "exclude cell_type=Mis": 2}},
        "options": {"min_peaks": 3},
        "split": {"train": 4, "valid": 2, "test": 2},
    }
    (folder / "prepare.json").write_text(json.dumps(prepare))
    return folder


@pytest.fixture(scope="module")
def page(parts: Path) -> str:
    result = run(
        "--training",
        parts / "training",
        "--evaluation",
        parts / "heldout",
        "--check",
        parts / "check.json",
        "--prepare",
        parts / "prepare.json",
        "--output",
        parts / "report.html",
        "--multiqc-dir",
        parts / "multiqc",
    )
    assert result.exit_code == 0, result.output
    return (parts / "report.html").read_text()


def test_page_is_whole_and_needs_nothing(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not [t for t, _ in reader.tags if t in ("script", "style", "iframe", "object")]
    for tag, attributes in reader.tags:
        assert "style" not in attributes and not [a for a in attributes if a.startswith("on")]
        for name in ("src", "href"):
            if name in attributes:
                kind = "text/css" if tag == "link" else "image/png"
                assert attributes[name].startswith((f"data:{kind};base64,", "#")), attributes[name][:60]
        if tag == "img":
            assert attributes["alt"]
    targets = {a["href"][1:] for t, a in reader.tags if t == "a"}
    assert targets <= {a.get("id") for _, a in reader.tags}
    assert sum(t == "img" for t, _ in reader.tags) == 1 + 2 * 3


def test_page_says_what_was_done(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    for words in (
        "A crossmp model was trained on 120 cells",
        "whole groups of &#39;donor&#39;",
        "RNA was predicted from ATAC in 100 held-out",
        "is better than the mean",
        "Glossary",
        "8 of 10 cells were kept",
        "2 of 9 ATAC features the model knows are not in the input",
        "heldout, RNA from ATAC",
        "Best predicted",
        "Worst predicted",
        "abababab",
        "3 cells have",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("plateau", "the epoch with the lowest validation loss (2) is the one that was kept."),
        ("onecycle", "the last epoch is the one that was kept, for the learning rate falls until then."),
    ],
)
def test_which_epoch_was_kept_is_said_as_it_was(tmp_path: Path, schedule: str, words: str) -> None:
    folder = training_folder(tmp_path / "training")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["settings"]["schedule"] = schedule
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert run("--training", folder, "--output", tmp_path / "r.html").exit_code == 0
    page = (tmp_path / "r.html").read_text()
    assert words in page
    assert "3 s on cpu, 1 thread<" in page


def test_hostile_names_are_escaped(page: str) -> None:
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "<b>x</b>" not in page and "<i>given</i>" not in page and "c &amp; &lt;d&gt;" in page


def test_same_input_same_page(parts: Path, page: str) -> None:
    given = [
        "--training",
        parts / "training",
        "--evaluation",
        parts / "heldout",
        "--check",
        parts / "check.json",
        "--prepare",
    ]
    run(*given, parts / "prepare.json", "--output", parts / "again.html")
    assert (parts / "again.html").read_text() == page


@pytest.mark.parametrize("option", ["--training", "--evaluation", "--check", "--prepare"])
def test_every_part_alone(parts: Path, tmp_path: Path, option: str) -> None:
    path = {"--training": "training", "--evaluation": "heldout", "--check": "check.json", "--prepare": "prepare.json"}[
        option
    ]
    assert run(option, parts / path, "--output", tmp_path / "r.html", "--multiqc-dir", tmp_path / "m").exit_code == 0
    Reader().feed((tmp_path / "r.html").read_text())


def test_empty_objects_make_a_page(tmp_path: Path) -> None:
    for name in ("t", "e"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
    (tmp_path / "c.json").write_text("{}")
    result = run(
        "--training",
        tmp_path / "t",
        "--evaluation",
        tmp_path / "e",
        "--check",
        tmp_path / "c.json",
        "--output",
        tmp_path / "r.html",
    )
    assert result.exit_code == 0, result.exception


def test_refusals(parts: Path, tmp_path: Path) -> None:
    out = ["--output", tmp_path / "r.html"]
    assert isinstance(run(*out).exception, UsageRefused)
    (tmp_path / "empty").mkdir()
    assert "metrics.json" in str(run("--training", tmp_path / "empty", *out).exception)
    assert "--evaluation" in str(run("--training", parts / "heldout", *out).exception)
    assert "--training" in str(run("--evaluation", parts / "training", *out).exception)
    (tmp_path / "broken.json").write_text("{")
    assert isinstance(run("--check", tmp_path / "broken.json", *out).exception, InputRefused)
    assert not (tmp_path / "r.html").exists()
    (tmp_path / "r.html").write_text("mine")
    assert isinstance(run("--check", parts / "check.json", *out).exception, InputRefused)
    assert (tmp_path / "r.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("own", "mean", "depth", "linear", "level", "words"),
    [
        (0.0, 0.0, 0.0, 0.0, "poor", "no better than the mean"),
        (0.2, 0.0, 0.3, 0.4, "poor", "sequencing depth alone"),
        (0.2, 0.0, 0.1, 0.3, "fair", "not a simple linear model"),
        (0.2, 0.0, 0.1, 0.1, "good", "better than the mean, depth and linear controls"),
    ],
)
def test_verdicts(own: float, mean: float, depth: float, linear: float, level: str, words: str) -> None:
    values = {"prediction": own, "mean": mean, "depth": depth, "linear": linear}
    methods = {m: {"gene_pearson": v, "cell_pearson_centred": v} for m, v in values.items()}
    found = judge("rna", {"source": "atac", "methods": methods})
    assert found.level == level and words in found.headline


def test_wins_are_counted_where_not_all_scores_are_better() -> None:
    scores = ("gene_pearson", "cell_pearson_centred", "gene_pearson_top_hvg")
    methods = {m: dict.fromkeys(scores, v) for m, v in (("prediction", 0.2), ("mean", 0.0), ("linear", 0.1))}
    methods["linear"]["gene_pearson_top_hvg"] = 0.3
    found = judge("rna", {"source": "atac", "methods": methods})
    assert found.level == "good"
    assert "is better than the mean control, and better on 2 of 3 scores than linear." in found.headline


@pytest.mark.parametrize(
    ("value", "level", "words"),
    [
        (0.05, "fair", "very weak"),
        (0.1, "good", "weak to moderate at best"),
        (0.3, "good", "is moderate"),
        (0.5, "good", "strong"),
    ],
)
def test_words_for_the_absolute_size(value: float, level: str, words: str) -> None:
    methods = {"prediction": {"gene_pearson": value}, "mean": {"gene_pearson": 0.0}}
    found = judge("protein", {"source": "rna", "methods": methods})
    assert found.level == level and words in found.advice and "Per-protein correlation" in found.advice


def test_a_modality_has_its_own_words() -> None:
    assert text_for("gene_pearson", "protein").name == "Per-protein correlation"
    assert short_for("gene_pearson_top_hvg", "") == "feature correlation, top 200"
    assert text_for("gene_pearson", "rna").says == text_of("gene_pearson").says


def test_a_control_is_not_compared_with_itself() -> None:
    methods = {m: {"gene_pearson": v} for m, v in (("prediction", 0.2), ("mean", 0.0), ("depth", 0.1), ("linear", 0.2))}
    assert judge("rna", {"model": "linear", "methods": methods}).level == "good"
    assert "itself" in judge("rna", {"model": "depth", "methods": methods}).headline


def test_no_verdict_without_controls() -> None:
    assert judge("rna", {"methods": {"prediction": {"gene_pearson": 0.9}}}).level == "open"


def test_sections_for_multiqc_are_written_beside_the_page(parts: Path, page: str) -> None:
    """What is in them: test_multiqc.py."""
    found = {p.name for p in (parts / "multiqc").iterdir()}
    assert {"xmodal_general_mqc.json", "xmodal_bars_rna_mqc.json", "xmodal_cells_mqc.json"} <= found
