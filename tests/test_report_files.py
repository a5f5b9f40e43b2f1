"""The report on servers that drop styles and pictures (old Galaxy), its pictures and tables as files, and overviews."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from helpers_evaluation import files, training_folder
from test_overview import made
from xmodal.cli.evaluate import command as evaluate_command
from xmodal.cli.report import command
from xmodal.errors import InputRefused, UsageRefused
from xmodal.predicting import overview
from xmodal.reporting.report_files import pictures

GALAXY = Path(__file__).resolve().parents[1] / ".galaxy" / "bin" / "python"
CLEAN = "import sys; from galaxy.util.sanitize_html import sanitize_html as s; sys.stdout.write(s(sys.stdin.read()))"
# What bleach keeps of a page: tags go, attributes with styles or addresses that are no page go, text stays.
TAG = re.compile(r"<[^>]*>")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    truth, predictions = files(folder, ("atac", "rna"))
    given = [truth, "--prediction", f"atac={predictions['atac']}", "--output-dir", folder / "s<1>", "--threads", 1]
    assert CliRunner().invoke(evaluate_command, [*map(str, given), "--umap-cells", "0"]).exit_code == 0
    rows = [f"atac\tcell{i}\t{kind}\t{i}\t{i % 3}\tT\n" for kind in ("true", "predicted") for i in range(9)]
    (folder / "s<1>" / "umap.tsv").write_text("target\tcell\tkind\tumap1\tumap2\tlabel\n" + "".join(rows))
    training_folder(folder / "training")
    values = np.random.default_rng(0).random((30, 25)).astype(np.float32)
    obs = pd.DataFrame({"cell_type": [f"<b>k{i % 3}</b>" for i in range(30)]}, index=[f"c{i}" for i in range(30)])
    obs["xmodal_novelty"], obs["xmodal_unlike"] = np.linspace(0, 3, 30), np.linspace(0, 3, 30) > 2
    overview.write(folder / "seen", made(folder / "p.h5ad", values, obs), "atac", 0)
    return folder


def given(parts: Path) -> list[object]:
    seen = f"<i>a b</i>={parts / 'seen'}"
    return ["--training", parts / "training", "--evaluation", parts / "s<1>", "--overview", seen]


@pytest.fixture(scope="module")
def page(parts: Path) -> str:
    done = run(*given(parts), "--output", parts / "r.html", "--plots", parts / "plots")
    assert done.exit_code == 0, done.exception
    return (parts / "r.html").read_text()


def said(page: str) -> list[str]:
    """Headings, verdicts and the numbers of all tables, as they stand in the page."""
    found = re.findall(r"<(h[123]|th|td|dt|figcaption)\b[^>]*>(.*?)</\1>", page, re.S)
    found += re.findall(r'<(p) class="(?:say|word)">(.*?)</p>', page, re.S)
    texts = [" ".join(TAG.sub(" ", text).split()) for _, text in found]
    assert len(texts) > 100 and any("beats" in t or "better" in t for t in texts)
    return texts


def style(page: str) -> str:
    found = re.search(r'<link rel="stylesheet" href="data:text/css;base64,([^"]+)">', page)
    assert found is not None
    return base64.b64decode(found[1]).decode()


def require_readable(cleaned: str, page: str) -> None:
    text = " ".join(TAG.sub(" ", cleaned).split())
    assert [t for t in said(page) if t not in text] == []
    rules = [line.strip() for line in style(page).splitlines() if "{" in line]
    assert len(rules) > 30 and [r for r in rules if r in text] == [] and "{" not in text and "base64" not in text
    assert "<script" not in cleaned and "<style" not in cleaned


def test_the_page_has_nothing_that_a_sanitiser_takes_offence_at(page: str) -> None:
    """The same check everywhere: what is left where all tags are dropped and only text stays."""
    assert not re.search(r"<(script|style|iframe|object|embed|form|base)\b", page, re.I)
    for tag in TAG.findall(page.partition("<html")[2]):
        assert not re.search(r"\s(on\w+|style)\s*=", tag, re.I), tag[:80]
        for address in re.findall(r'\b(?:src|href)="([^"]*)"', tag):
            assert address.startswith(("#", "data:image/png;base64,", "data:text/css;base64,")), address[:60]
    body = re.sub(r'(<img src=")data:[^"]*"', r'\1"', page.partition("<body>")[2])
    require_readable(body, page)


@pytest.mark.skipif(not GALAXY.is_file(), reason="skipped, because Galaxy is not there: scripts/setup-galaxy")
def test_the_page_after_galaxys_sanitiser(page: str) -> None:
    done = subprocess.run([GALAXY, "-c", CLEAN], input=page, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    require_readable(done.stdout, page)
    assert "<table" in done.stdout and 'alt="Map of 30 cells' in done.stdout


def test_the_overview_is_shown(page: str, parts: Path) -> None:
    assert base64.b64encode((parts / "seen" / "prediction.png").read_bytes()).decode() in page
    assert "<i>a b</i>" not in page and "&lt;i&gt;a b&lt;/i&gt;" in page
    alt = re.search(r'alt="(Map of[^"]*)"', page)
    assert (
        alt
        and "coloured by cell_type: most are &lt;b&gt;k0&lt;/b&gt; (10)" in alt[1]
        and "10 of them are unlike" in alt[1]
    )
    table = pd.read_csv(parts / "seen" / "features.tsv", sep="\t").sort_values("sd", ascending=False, kind="stable")
    part = page.partition("Most variable predicted features")[2]
    shown = re.findall(r'<td class="id">(_f\d+\$)</td>', part)
    assert shown == list(table["feature"][:20])


def test_pictures_and_tables_are_files(page: str, parts: Path) -> None:
    found = {p.name for p in (parts / "plots").iterdir()}
    assert found == {
        *(f"{kind}-s_1-atac.png" for kind in ("scores", "features", "umap")),
        *("learning-training.png", "prediction-i_a_b_i.png"),
        *("scores.tsv", "verdicts.tsv", "variable_features.tsv", "findings.tsv"),
    }
    for name in (n for n in found if n.endswith(".png")):
        assert base64.b64encode((parts / "plots" / name).read_bytes()).decode() in page, name
    scores = pd.read_csv(parts / "plots" / "scores.tsv", sep="\t")
    assert list(scores) == ["sample", "target", "source", "method", "score", "value"]
    known = json.loads((parts / "s<1>" / "metrics.json").read_text())["targets"]["atac"]["methods"]
    rows = scores.itertuples()
    assert all(row.sample == "s<1>" and known[row.method][row.score] == pytest.approx(row.value) for row in rows)
    assert len(scores) == sum(map(len, known.values()))
    assert len(pd.read_csv(parts / "plots" / "variable_features.tsv", sep="\t")) == 20


def test_pictures_of_like_names_do_not_meet() -> None:
    empty: dict[str, Any] = {"results": [], "trainings": [], "unlikeness": b"", "sweep": None}
    seen = [{"name": n, "picture": n.encode()} for n in ("a b", "a/b", "../a", "$(x)", "-")]
    found = pictures({**empty, "overviews": seen})
    assert list(found) == [f"prediction-{n}.png" for n in ("a_b", "a_b-2", "a", "x", "x-2")]


def test_files_may_lie_beside_the_page(parts: Path, tmp_path: Path) -> None:
    more = ["--output", tmp_path / "o" / "r.html", "--plots", tmp_path / "o", "--multiqc-dir", tmp_path / "o"]
    assert run(*given(parts), *more).exit_code == 0
    first = {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()}
    assert isinstance(run(*given(parts), *more).exception, InputRefused)
    assert run("--training", parts / "training", *more, "--overwrite").exit_code == 0
    second = {p.name for p in (tmp_path / "o").iterdir()}
    assert {"learning-training.png", "r.html"} <= second < set(first) and "scores.tsv" not in second


def test_refusals(parts: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> Any:
        done = run(*arguments, "--output", tmp_path / "r.html", "--plots", tmp_path / "plots")
        assert not (tmp_path / "r.html").exists() and not (tmp_path / "plots").exists()
        return done.exception

    assert isinstance(refused("--overview", parts / "seen"), UsageRefused)
    assert "no folder" in str(refused("--overview", "a=absent"))
    (tmp_path / "empty").mkdir()
    assert "predict --overview" in str(refused("--overview", f"a={tmp_path / 'empty'}"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("prediction.png", "cells.tsv", "features.tsv"):
        (broken / name).write_bytes((parts / "seen" / name).read_bytes())
    (broken / "prediction.png").write_text("<svg onload=alert(1)>")
    assert "no overview" in str(refused("--overview", f"a={broken}"))
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "mine").write_text("x")
    done = run("--training", parts / "training", "--output", tmp_path / "r.html", "--plots", tmp_path / "plots")
    assert isinstance(done.exception, InputRefused) and not (tmp_path / "r.html").exists()
