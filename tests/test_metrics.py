"""Scores against slow definitions, against scikit-learn, and against the outside scorer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr
from sklearn.metrics import average_precision_score, roc_auc_score

from helpers_evaluation import paired, prediction
from xmodal.scores import metrics
from xmodal.scores.evaluation import make_truth
from xmodal.scores.evaluation_settings import EvaluationSettings
from xmodal.scores.metrics import Matrix
from xmodal.scores.scoring import score

ROOT = Path(__file__).resolve().parents[1]


def _scorer() -> Path | None:
    given = os.environ.get("XMODAL_SCORER")
    path = Path(given) if given else ROOT.parent / "shared" / "tools" / "score_predictions.py"
    return path if path.is_file() else None


@pytest.mark.parametrize("sparse", [True, False])
def test_pearson_of_features_and_cells(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    true = rng.poisson(1.0, (30, 700)).astype(np.float32)
    predicted = (true + rng.normal(0, 2, true.shape)).astype(np.float32)
    predicted[4] = 7.7
    predicted[:, 3] = 0.1
    true[4, 3] = 0
    matrix = Matrix(sp.csr_matrix(true) if sparse else true)
    columns = metrics.feature_pearson(predicted, matrix)
    rows = metrics.cell_pearson(predicted, matrix, true.mean(0))
    assert columns[5] == pytest.approx(pearsonr(predicted[:, 5], true[:, 5])[0], abs=1e-6)
    assert rows[2] == pytest.approx(pearsonr(predicted[2] - true.mean(0), true[2] - true.mean(0))[0], abs=1e-5)
    assert columns[3] == 0  # a constant says nothing
    constant = np.full((30, 700), 7.7, np.float32)
    assert (metrics.cell_pearson(constant, matrix) == 0).all()
    assert metrics.rmse(predicted, matrix) == pytest.approx(np.sqrt(((predicted - true) ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_ranking_equals_scikit_learn_with_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    scores = (rng.integers(0, levels, 400) / levels).astype(np.float32)
    truth = rng.random(400) < 0.1 + 0.3 * scores
    auroc, precision = metrics.ranking(scores, np.flatnonzero(truth))
    assert auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert precision == pytest.approx(average_precision_score(truth, scores), abs=1e-9)


def test_ranking_without_positives_or_negatives() -> None:
    scores = np.arange(4, dtype=np.float32)
    assert np.isnan(metrics.ranking(scores, np.array([], dtype=int))).all()
    auroc, precision = metrics.ranking(scores, np.arange(4))
    assert np.isnan(auroc) and precision == 1


def test_label_transfer_knows_swapped_types() -> None:
    """Predicting wrong types in place of right ones leaves clusters as they are, but not label transfer."""
    mdata = paired()
    truth = make_truth(mdata, "rna", _test_cells(mdata), EvaluationSettings(label_key="cell_type"), [])
    good = prediction(mdata, "rna", "atac", noise=0.05).X
    order = np.argsort(truth.labels, kind="stable")
    wrong = np.empty_like(good)
    wrong[order] = good[np.roll(order, len(order) // 3)]
    assert score(good, truth).overall["label_transfer"] > 0.95
    assert score(wrong, truth).overall["label_transfer"] < 0.2


def test_mean_has_nothing_to_say() -> None:
    mdata = paired(cells=400)
    truth = make_truth(mdata, "atac", _test_cells(mdata), EvaluationSettings(label_key="cell_type"), [])
    flat = score(np.tile(truth.mean.astype(np.float32), (len(truth.cells), 1)), truth).overall
    assert flat["peak_auroc"] == 0.5
    assert flat["peak_auprc_over_prevalence"] == pytest.approx(1, abs=1e-6)
    assert flat["peak_pearson_within_type"] == 0
    assert flat["label_transfer_macro"] == pytest.approx(1 / 3)
    assert flat["label_transfer"] == pytest.approx((truth.labels == truth.types.names[truth.types.most]).mean())


def test_variance_ratio_and_within_type() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(size=(400, 6)).astype(np.float32)
    labels = np.repeat(["a", "b"], 200)
    true[labels == "b"] += 5
    types_only = np.where(labels == "b", 5.0, 0.0)[:, None] + np.zeros((1, 6))
    assert metrics.within_type(types_only.astype(np.float32), Matrix(true), labels) == 0
    assert metrics.within_type(true, Matrix(true), labels) == pytest.approx(1)
    assert metrics.variance_ratio(true / 2, Matrix(true)) == pytest.approx(0.25, rel=1e-4)


def _test_cells(mdata: Any) -> Any:
    return mdata.obs_names[(mdata.obs["xmodal_split"] == "test").to_numpy()].to_numpy(str)


@pytest.mark.skipif(_scorer() is None, reason="the outside scorer is not here (XMODAL_SCORER)")
def test_agrees_with_the_outside_scorer(tmp_path: Path) -> None:
    # More than 500 test cells and 4,000 peaks, so that its draws are drawn.
    mdata = paired(cells=1300, genes=260, peaks=4400)
    paths: dict[str, Path] = {}
    for m in ("rna", "atac"):
        adata = ad.AnnData(mdata.mod[m].X, obs=mdata.obs[["cell_type", "xmodal_split"]].copy(), var=mdata.mod[m].var)
        paths[m], paths[f"p_{m}"] = tmp_path / f"{m}.h5ad", tmp_path / f"p_{m}.h5ad"
        adata.write_h5ad(paths[m])
        prediction(mdata, m, "atac" if m == "rna" else "rna").write_h5ad(paths[f"p_{m}"])
    done = subprocess.run(
        [
            sys.executable,
            str(_scorer()),
            "--truth-rna",
            paths["rna"],
            "--truth-atac",
            paths["atac"],
            "--pred-rna",
            paths["p_rna"],
            "--pred-atac",
            paths["p_atac"],
            "--label-key",
            "cell_type",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    theirs = json.loads(done.stdout)
    settings = EvaluationSettings(label_key="cell_type")
    compared = 0
    for m in ("rna", "atac"):
        truth = make_truth(mdata, m, _test_cells(mdata), settings, [])
        predicted = ad.read_h5ad(paths[f"p_{m}"]).X
        flat = np.tile(truth.mean.astype(np.float32), (len(predicted), 1))
        for block, own in (
            (theirs[m], score(predicted, truth)),
            (theirs[f"{m}_baseline_train_mean"], score(flat, truth)),
        ):
            for name, value in block.items():
                if name != "features_filled":
                    value = value["mean"] if isinstance(value, dict) else value
                    assert own.overall[name] == pytest.approx(value, abs=1e-4), f"{m} {name}"
                    compared += 1
        transfer, mine = theirs[f"{m}_label_transfer"], score(predicted, truth).overall
        assert mine["label_transfer"] == pytest.approx(transfer["accuracy"], abs=1e-4)
        assert mine["label_transfer_macro"] == pytest.approx(transfer["macro_accuracy"], abs=1e-4)
    assert compared >= 28
