"""The report about joint embeddings: their scores, the embedded cells, markers; with parts missing; MultiQC; refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from helpers_embedding import markers, overview
from test_report import Reader
from xmodal.cli.report import command
from xmodal.errors import InputRefused, UsageRefused
from xmodal.reporting import markers_words
from xmodal.reporting.embedding_scores_figure import scores as picture
from xmodal.reporting.multiqc_sections import sections
from xmodal.reporting.report_inputs import Evaluation, Given, Inputs, read

ROOT = Path(__file__).resolve().parents[1]
OWN = {
    "knn_accuracy": 0.81,
    "knn_accuracy_heldout": 0.925,
    "ari": 0.447,
    "silhouette": -0.05,
    "ilisi": 0.59,
    "depth_r2_rna": 0.2,
    "depth_r2_trees_rna": 0.3,
    "depth_r2_within_trees_rna": 0.12,
    "foscttm": 0.21,
    "foscttm_without_depth": 0.25,
    "label_match": 0.6,
}
PLAIN = {"knn_accuracy": 0.85, "knn_accuracy_heldout": 0.92, "ari": 0.3, "depth_r2_within_trees_rna": 0.87}


def scored(folder: Path, **more: Any) -> Path:
    """What evaluate --embedding leaves, as far as the report reads it."""
    folder.mkdir(parents=True)
    about = {
        "model": "toy",
        "cells": 100,
        "label_key": "cell_type",
        "labels": {"T": 60, "<i>B</i>": 40},
        "batch_key": "batch",
        "batches": {"one": 120, "two": 120},
        "methods": {"embedding": OWN, "rna_pca": PLAIN, "wnn": {"knn_accuracy_heldout": 0.91}},
        "method_cells": {"embedding": 100, "rna_pca": 100, "wnn": 70},
        "paired": {"atac_rna": 70},
        "provenance": {"checkpoint_sha256": "ef" * 32},
        "notes": ["the <b>comparators</b> were fitted to the scored cells"],
        **more,
    }
    (folder / "metrics.json").write_text(json.dumps({"embedding": about, "settings": {"cells": "test"}}))
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    scored(folder / "evaluation")
    overview(folder / "embedding" / "donor1")
    overview(folder / "embedding" / "donor10")
    markers(folder / "markers" / "donor1")
    return folder


def options(parts: Path) -> list[object]:
    two = [a for d in ("donor10", "donor1") for a in ("--embedding", parts / "embedding" / d)]
    return ["--evaluation", parts / "evaluation", *two, "--markers", parts / "markers" / "donor1"]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def page(parts: Path) -> str:
    out = parts / "out"
    done = run(*options(parts), "--output", out / "r.html", "--plots", out / "plots", "--multiqc-dir", out / "multiqc")
    assert done.exit_code == 0, done.exception
    return (out / "r.html").read_text()


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]).split())


def test_the_page_is_whole_and_safe(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids)) and {"joint-1", "embedded", "markers"} <= set(ids)
    assert all(a["href"][1:] in ids for t, a in reader.tags if t == "a" and a.get("href", "").startswith("#"))
    for sign in ("<script", "<i>B", "<b>T", "<b>x", "gene<1>", "<same>", "<b>comparators"):
        assert sign not in page, sign
    images = [a for t, a in reader.tags if t == "img"]
    assert len(images) == 4 and all(a["alt"] and a["src"].startswith("data:image/png") for a in images)


def test_the_answer_says_what_was_done_and_how_good_it_is(page: str) -> None:
    text = words(page).partition("Joint embedding (evaluation)")[2].partition("The columns")[0]
    assert "240 cells of donor1 were embedded together (RNA in 240 and ATAC in 210) and fall into 2 clusters." in text
    assert "The joint embedding of 100 held-out cells was compared with plain ones" in text
    assert (
        "tells the labels of cells as well as the best plain one (15-NN accuracy, held out 0.925; rna_pca 0.920)"
        in text
    )
    assert "12 % of the variance of the log RNA counts among cells of one label: some" in text
    assert "21 % of the cells by the other modality lie nearer" in text and "25 % with depth taken out" in text
    assert "cannot say" not in text


def test_verdicts_of_several_embeddings_are_named(parts: Path, page: str, tmp_path: Path) -> None:
    apart = {"embedding": {**OWN, "foscttm": 0.48, "foscttm_without_depth": 0.49}, "rna_pca": PLAIN}
    more = ["--evaluation", scored(tmp_path / "mapped", methods=apart), "--output", tmp_path / "r.html"]
    assert run(*options(parts), *more).exit_code == 0
    text = words((tmp_path / "r.html").read_text())
    assert "evaluation: Trust, within limits The embedding tells" in text and "mapped: Trust, within limits The" in text
    assert text.count("49 % with depth taken out: the modalities hardly meet in it") == 1
    assert "evaluation: Trust" not in words(page)  # of one alone


def test_scores_stand_beside_those_of_plain_embeddings(page: str) -> None:
    section = page.partition('<section id="joint-1">')[2].partition("</section>")[0]
    text = words("<body>" + section)
    assert "RNA depth, trees, in labels ↓ 0.120 ★ 0.870 -" in text
    assert "15-NN accuracy 0.810 0.850 ★ -" in text and "Silhouette -0.050 - -" in text
    assert "wnn : weighted nearest neighbours of them, a graph without coordinates; of 70 cells only" in text
    assert "RNA depth, ridge ↓ 0.200" in text.partition("Depth, by other measures")[2]
    meeting = text.partition("Do the modalities meet?")[2]
    assert "(70 cells with both)" in meeting and "depth taken out (lower is better)" in meeting and "0.250" in meeting
    assert "&lt;i&gt;B&lt;/i&gt; 40" in text


def test_clusters_and_markers_are_in_tables(page: str) -> None:
    text = words(page)
    cells = text.partition("Embedded cells donor1 ")[2] or text.partition("donor10 Each point")[2]
    assert "0 150 &lt;b&gt;T&lt;/b&gt; 90 % 80 % 0.70 0.30 1 % 1 90 - - 100 % 0.60 0.40 0 % Labels:" in cells
    assert "With ATAC" in cells and "With RNA" not in cells
    assert "Share of each batch in each cluster Cluster one two 0 50 % 50 % 1 40 % 60 %" in cells  # no room beside
    assert "0.5 (the most stable)" in cells and "RNA 0.65" in cells
    own = text.partition("RNA: genes that mark each group")[2].partition("All features")[0]
    five = ", ".join(f"gene&lt;{i}&gt;" for i in range(1, 6))
    assert f"0 150 7 {five} cells against cells (Wilcoxon)" in own and "1 90 - - not compared" in own


def test_what_was_missing_is_said(page: str) -> None:
    missing = words(page).partition("What was missing in the input")[2].partition("Settings and provenance")[0]
    assert "evaluation, joint embedding the &lt;b&gt;comparators" in missing
    assert "2 of 9 RNA features the model knows are not in the input" in missing
    assert "efef" in words(page) and "cdcd" in words(page)


def test_pictures_and_tables_as_files(parts: Path, page: str) -> None:
    plots = parts / "out" / "plots"
    names = {"joint-evaluation", "embedding-donor1", "embedding-donor10", "markers-donor1-rna"}
    assert {p.stem for p in plots.glob("*.png")} == names
    clusters = pd.read_csv(plots / "clusters.tsv", sep="\t", dtype={"cluster": str})
    assert clusters.shape == (4, 5) and clusters["label_share"].tolist()[0] == 0.9
    top = pd.read_csv(plots / "top_markers.tsv", sep="\t")
    assert len(top) == 5 and top["feature"].tolist()[0] == "gene<1>"
    table = pd.read_csv(plots / "scores.tsv", sep="\t", keep_default_na=False)
    assert len(table) == len(OWN) + len(PLAIN) + 1 and set(table["target"]) == {"embedding"}
    assert pd.read_csv(plots / "verdicts.tsv", sep="\t")["verdict"].tolist() == ["good"]


def test_multiqc_gets_scores_and_clusters(parts: Path, page: str) -> None:
    files = {p.name: json.loads(p.read_text()) for p in (parts / "out" / "multiqc").iterdir()}
    assert set(files) == {"xmodal_joint_mqc.json", "xmodal_clusters_mqc.json"}
    joint, clusters = files["xmodal_joint_mqc.json"], files["xmodal_clusters_mqc.json"]
    assert list(joint["data"]) == [f"evaluation | {m}" for m in ("embedding", "rna_pca", "wnn")]
    assert set(joint["headers"]) == set(OWN) - {"depth_r2_rna", "depth_r2_trees_rna"}
    assert joint["headers"]["foscttm"]["scale"] == "OrRd" and joint["headers"]["silhouette"]["min"] == -1
    assert list(clusters["data"]) == ["donor1", "donor10"]
    assert clusters["data"]["donor1"] == {"cluster 0": 150, "cluster 1": 90}
    listed = (ROOT / "docs" / "output.md").read_text().partition("## MultiQC")[2]
    assert all(f"| {s['section_name']} |" in listed for s in files.values())


@pytest.mark.parametrize("which", ["--evaluation", "--embedding", "--markers"])
def test_each_part_alone(parts: Path, tmp_path: Path, which: str) -> None:
    place = {"--evaluation": "evaluation", "--embedding": "embedding/donor1", "--markers": "markers/donor1"}[which]
    done = run(which, parts / place, "--output", tmp_path / "r.html")
    assert done.exit_code == 0, done.exception
    text = words((tmp_path / "r.html").read_text())
    assert ("cannot say how good the embedding is" in text) == (which != "--evaluation")
    assert "A group of cells that lie near each other" in text  # the glossary


def test_nothing_joint_no_words_about_it(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "check.json").write_text(json.dumps({"ok": True, "findings": [], "files": []}))
    assert run("--check", tmp_path / "check.json", "--output", tmp_path / "r.html").exit_code == 0
    text = words((tmp_path / "r.html").read_text())
    assert "embedding" not in text.lower() and "how far the predictions can be trusted" in text


def test_the_same_input_gives_the_same_page(parts: Path, page: str, tmp_path: Path) -> None:
    assert run(*options(parts), "--output", tmp_path / "r.html").exit_code == 0
    assert (tmp_path / "r.html").read_text() == page


def test_an_evaluation_without_labels_or_comparators(tmp_path: Path) -> None:
    bare = scored(
        tmp_path / "e", label_key=None, labels={}, batch_key=None, batches={}, methods={"embedding": {}}, notes=[]
    )
    done = run("--evaluation", bare, "--output", tmp_path / "r.html", "--multiqc-dir", tmp_path / "m")
    assert done.exit_code == 0, done.exception
    text = words((tmp_path / "r.html").read_text())
    assert "Nothing says how well this embedding tells cells apart" in text and "Do the modalities meet?" not in text


def test_panels_of_the_picture() -> None:
    figure = picture({"methods": {"embedding": OWN, "rna_pca": PLAIN}})
    titles = [a.get_title(loc="left") for a in figure.axes if a.axison]
    assert titles[0] == "15-NN accuracy" and titles[-1] == "RNA depth, trees, in labels ↓" and len(titles) == 6
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["embedding", "rna_pca"]
    assert "0.810" in {t.get_text() for t in figure.axes[0].texts}


def test_very_many_batches_have_no_columns(parts: Path, tmp_path: Path) -> None:
    folder = overview(tmp_path / "many")
    table = pd.read_csv(folder / "clusters.tsv", sep="\t")
    for i in range(9):
        table[f"batch_b{i}"] = 0.1
    table.to_csv(folder / "clusters.tsv", sep="\t", index=False)
    assert run("--embedding", folder, "--output", tmp_path / "r.html").exit_code == 0
    text = words((tmp_path / "r.html").read_text())
    assert "Share of each batch" not in text and "Shares of the batches: clusters.tsv." in text


def test_markers_of_a_group_come_by_rank() -> None:
    table = pd.DataFrame(
        {"group": ["0"] * 3, "feature": ["c", "a", "b"], "rank": [3, 1, 2], "is_marker": [True, True, False]}
    )
    assert markers_words.first(table, "0")["feature"].tolist() == ["a", "c"]


# ---- refusals


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def no_picture(folder: Path) -> None:
    (folder / "embedding.png").write_bytes(b"GIF")


def other_table(folder: Path) -> None:
    (folder / "markers.tsv").write_text("a\tb\n1\t2\n")


@pytest.mark.parametrize(
    ("option", "place", "spoil", "said"),
    [
        ("--embedding", "embedding/donor1", without("clusters.tsv"), "no clusters.tsv in it.*xmodal embed --overview"),
        ("--embedding", "embedding/donor1", without("embedding.json"), "no embedding.json in it"),
        ("--embedding", "embedding/donor1", no_picture, "this is no overview of an embedding"),
        ("--markers", "markers/donor1", without("markers.json"), "no markers.json in it.*xmodal markers"),
        ("--markers", "markers/donor1", other_table, "this is no folder of markers"),
    ],
)
def test_folders_that_are_refused(
    parts: Path, tmp_path: Path, option: str, place: str, spoil: Callable[[Path], None], said: str
) -> None:
    shutil.copytree(parts / place, tmp_path / "given")
    spoil(tmp_path / "given")
    done = run(option, tmp_path / "given", "--output", tmp_path / "r.html")
    assert isinstance(done.exception, InputRefused) and re.search(said, str(done.exception))
    assert not (tmp_path / "r.html").exists()


def test_folders_given_for_another_part(parts: Path, tmp_path: Path) -> None:
    done = run("--training", parts / "evaluation", "--output", tmp_path / "r.html")
    assert isinstance(done.exception, InputRefused) and "give it as --evaluation" in str(done.exception)
    with pytest.raises(UsageRefused, match="--embedding, --markers"):
        read(Given())


def test_a_sweep_does_not_take_a_scored_embedding(parts: Path) -> None:
    from xmodal.scores import selection_files

    with pytest.raises(InputRefused):
        selection_files._targets(parts / "evaluation")


def test_no_sections_without_content() -> None:
    empty = Inputs(evaluations=[Evaluation("e", {"targets": {}}, pd.DataFrame(), pd.DataFrame())])
    assert not {"xmodal_joint", "xmodal_clusters"} & {s["id"] for s in sections(empty)}
