"""``xmodal evaluate --generated``: no bad generator passes all four measures; ceilings, floors, what is left out and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import helpers_generation as small
from conftest import Ran, call_xmodal
from helpers_annotation import CD4, MONOCYTE, ODD, B, as_mudata, cells
from test_generate import model as model
from xmodal import fields
from xmodal.scores import generation_measures as measures
from xmodal.scores.generation_texts import HEADLINE, METHODS, of_methods, text_of
from xmodal.scores.generation_verdicts import judge, passes

ASKED = ("CL:0000236", "monocyte", CD4, "odd ones")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.truth(tmp_path_factory.mktemp("truth") / "t.h5mu")


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "g.h5ad"
    prompts = [x for p in ASKED for x in ("--prompt", p)]
    done = call_xmodal("generate", "--checkpoint", model, "--output", path, "--cells", 60, "--threads", 1, *prompts)
    assert done.code == 0, done.err
    return path


def evaluate(truth: Path, made: Path, out: Path, *more: object) -> Ran:
    return call_xmodal("evaluate", truth, "--generated", made, "--output-dir", out, "--threads", 1, *more)


def results(out: Path) -> Any:
    return json.loads((out / "metrics.json").read_text())["generation"]


def test_generated_cells_stand_beside_real_ones_and_floors(truth: Path, made: Path, tmp_path: Path) -> None:
    done = evaluate(truth, made, tmp_path / "o", "--label-key", "cell_type")
    assert done.code == 0, done.err
    about = results(tmp_path / "o")
    methods = about["methods"]
    assert set(methods) == set(METHODS) and about["test_cells"] == 160 and about["training_cells"] == 320
    own, real = methods["generated"], methods["real"]
    assert own["knn_accuracy_10"] > 0.9 and abs(own["mmd2"]) < 0.05 and 0.75 < own["variance_ratio"] < 1.3
    assert own["c2st"] < 0.75 and own["r_delta"] > 0.9 and real["r_delta"] > 0.9
    # the bare mean is named as rightly, and is nothing like cells
    assert methods["type_mean"]["knn_accuracy_10"] >= real["knn_accuracy_10"] - 0.02
    assert methods["type_mean"]["variance_ratio"] == 0 and methods["type_mean"]["c2st"] > 0.95
    assert methods["poisson_all"]["knn_accuracy_10"] < 0.5 and methods["shuffled"]["knn_accuracy_10"] < 0.1
    assert methods["shuffled"]["mmd2"] > 0.1 > abs(methods["poisson_type"]["mmd2"])  # these cells are Poisson
    assert {row["type"] for row in about["types"]} == {B, MONOCYTE, CD4, ODD}
    assert all(row["generated"] == 60 and row["test"] == 40 and "mmd2_real" in row for row in about["types"])
    assert set(about["passed"]) == set(HEADLINE)
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"metrics.json", "scores.tsv", "types.tsv", "scores.png"}
    table = pd.read_csv(tmp_path / "o" / "scores.tsv", sep="\t")
    assert set(table["method"]) == set(METHODS) and set(table["target"]) == {"generation"}
    assert "10-NN accuracy" in done.out and "generated cells" in done.out
    assert all(text_of(s).says for s in of_methods(own)) and len(of_methods(own)) == len(own)


def test_equal_cells_give_equal_scores(truth: Path, made: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert evaluate(truth, made, tmp_path / name, "--no-controls").code == 0
    a, b = (results(tmp_path / n) for n in "ab")
    assert a == b and set(a["methods"]) == {"generated", "real"}
    assert (tmp_path / "a" / "scores.png").read_bytes() == (tmp_path / "b" / "scores.png").read_bytes()


def test_cells_without_variance_do_not_pass(truth: Path, made: Path, tmp_path: Path) -> None:
    """A model that gives the mean of each type: named better than real cells, and refused by the other three."""
    adata = ad.read_h5ad(made)
    x = adata.X.toarray()
    for prompt in ASKED:
        own = (adata.obs["prompt"] == prompt).to_numpy()
        x[own] = np.round(20 * x[own].mean(0))
    adata.X = sp.csr_matrix(x)
    adata.write_h5ad(tmp_path / "mean.h5ad")
    assert evaluate(truth, tmp_path / "mean.h5ad", tmp_path / "o", "--no-controls").code == 0
    about = results(tmp_path / "o")
    assert about["passed"] == {"knn_accuracy_10": True, "mmd2": False, "variance_ratio": False, "c2st": False}
    assert judge(about).level == "poor" and "variance ratio" in judge(about).headline


def test_what_cannot_be_scored_is_said(truth: Path, made: Path, tmp_path: Path) -> None:
    adata = ad.read_h5ad(made)
    adata.obs["prompt"] = adata.obs["prompt"].astype(str).replace({"odd ones": "a poem"})
    adata.obs["cell_type_ontology_term_id"] = adata.obs["cell_type_ontology_term_id"].astype(str)
    rows = np.flatnonzero((adata.obs["prompt"] != CD4).to_numpy() | (np.arange(len(adata)) % 10 == 0))
    adata[rows].copy().write_h5ad(tmp_path / "g.h5ad")
    assert evaluate(truth, tmp_path / "g.h5ad", tmp_path / "o", "--no-controls").code == 0
    about = results(tmp_path / "o")
    assert {row["type"] for row in about["types"]} == {B, MONOCYTE}
    assert any("a poem" in n for n in about["notes"]) and any(CD4 in n for n in about["notes"])


def test_what_does_not_belong_together_is_refused(truth: Path, made: Path, model: Path, tmp_path: Path) -> None:
    done = evaluate(truth, truth, tmp_path / "o")
    assert done.code == 3 and "h5ad" in done.err
    cells(20).write_h5ad(tmp_path / "real.h5ad")
    done = evaluate(truth, tmp_path / "real.h5ad", tmp_path / "o")
    assert done.code == 3 and "xmodal generate" in done.err
    other = small.truth(tmp_path / "other.h5mu", ("neuron", "astrocyte"))
    done = evaluate(other, made, tmp_path / "o")
    assert done.code == 3 and "no type has" in done.err
    mdata = mu.read_h5mu(truth)
    mdata["rna"].var_names = [f"X{i}" for i in range(mdata["rna"].n_vars)]
    mdata.write_h5mu(tmp_path / "genes.h5mu")
    done = evaluate(tmp_path / "genes.h5mu", made, tmp_path / "o")
    assert done.code == 3 and "0 of the 48 generated genes" in done.err
    whole = as_mudata(cells(40, small.KNOWN))
    for frame in (whole.obs, whole["rna"].obs):
        del frame[fields.SPLIT]
    whole.write_h5mu(tmp_path / "whole.h5mu")
    done = evaluate(tmp_path / "whole.h5mu", made, tmp_path / "o")
    assert done.code == 3 and fields.SPLIT in done.err
    done = evaluate(truth, made, tmp_path / "o", "--label-key", "celltype")
    assert done.code == 3 and "cell_type" in done.err
    (tmp_path / "another").write_bytes(b"x")
    done = evaluate(truth, made, tmp_path / "o", "--checkpoint", tmp_path / "another")
    assert done.code == 3 and "another checkpoint" in done.err
    assert evaluate(truth, made, tmp_path / "o", "--annotation", made).code == 2
    assert evaluate(truth, made, tmp_path / "o", "--clusters").code == 2
    assert not (tmp_path / "o").exists()


# Measures


def test_distances_are_zero_between_draws_of_one_distribution_only() -> None:
    rng = np.random.default_rng(0)
    same = [[rng.normal(size=(150, 8)).astype(np.float32) for _ in range(2)] for _ in range(12)]
    for measure in (measures.mmd2, measures.energy):
        found = [measure(a, b) for a, b in same]
        assert abs(np.mean(found)) < 0.004 and min(found) < 0 < max(found)  # unbiased
        moved = [measure(a, b + 0.5) for a, b in same]
        wider = [measure(a, 1.5 * b) for a, b in same]
        assert min(moved) > max(found) and min(wider) > max(found)
    a, b = same[0]
    shift = np.zeros(8, np.float32)
    shift[0] = 2.0
    assert measures.wasserstein(a, a + shift) == pytest.approx(0.25)
    assert measures.sliced_wasserstein(a, a + shift) == pytest.approx(2 / np.sqrt(8), rel=0.15)
    assert measures.sliced_wasserstein(a, b) < 0.3


def test_variance_and_correlation() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(4000, 21)).astype(np.float32)
    real[:, 0] = 3.0  # a gene that does not vary counts for nothing
    assert measures.variance_ratio(2 * real, real) == pytest.approx(4.0)
    assert measures.variance_ratio(0 * real, real) == 0
    assert measures.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert np.isnan(measures.pearson([1, 1, 1], [1, 2, 3]))


def test_a_classifier_tells_only_what_differs() -> None:
    rng = np.random.default_rng(0)
    real, same = (rng.normal(size=(300, 5)).astype(np.float32) for _ in range(2))
    real, same = (x[np.argsort(x[:, 0])] for x in (real, same))  # in an order, as cells are in that of their types
    assert abs(measures.told_apart(same, real, 0) - 0.5) < 0.1
    assert measures.told_apart(same + 3, real, 0) > 0.95
    assert np.isnan(measures.told_apart(same[:2], real, 0))


def test_neighbours_vote() -> None:
    real = np.concatenate([np.zeros((30, 2)), np.ones((30, 2))]).astype(np.float32)
    said = measures.neighbours_say(real, np.repeat([0, 1], 30), np.float32([[0.1, 0], [0.9, 1]]), 5)
    assert list(said) == [0, 1]


def test_the_bars_are_those_beside_real_cells() -> None:
    real = {"knn_accuracy_10": 0.8, "mmd2": 0.01, "variance_ratio": 1.05, "c2st": 0.6}
    good = {"knn_accuracy_10": 0.781, "mmd2": 0.0149, "variance_ratio": 0.81, "c2st": 0.629}
    assert all(passes(good, real).values()) and judge({"methods": {"generated": good, "real": real}}).level == "good"
    for score, bad in {"knn_accuracy_10": 0.77, "mmd2": 0.016, "variance_ratio": 1.3, "c2st": 0.64}.items():
        worse = {**good, score: bad}
        assert passes(worse, real) == {s: s != score for s in HEADLINE}
        verdict = judge({"methods": {"generated": worse, "real": real}})
        assert verdict.level == "fair" and verdict.advice
    assert judge({"methods": {"generated": good}}).level == "open"
