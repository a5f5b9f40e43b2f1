"""``xmodal evaluate``: what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from helpers_evaluation import files, paired, prediction
from xmodal.cli.evaluate import command
from xmodal.errors import InputRefused, UsageRefused
from xmodal.scores.evaluation import evaluate
from xmodal.scores.evaluation_settings import EvaluationSettings

QUICK = EvaluationSettings(controls="mean", umap_cells=0)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(a) for a in (*arguments, "--threads", 1)], catch_exceptions=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    truth, predictions = files(folder, ("rna", "atac"), ("atac", "rna"))
    given = [a for t, p in predictions.items() for a in ("--prediction", f"{t}={p}")]
    result = run(truth, *given, "--output-dir", folder / "out", "--label-key", "cell_type")
    assert result.exit_code == 0, result.output
    assert "gene_pearson" in result.output
    return folder / "out"


def test_metrics_hold_what_the_contract_says(done: Path) -> None:
    content = json.loads((done / "metrics.json").read_text())
    rna = content["targets"]["rna"]
    assert (rna["source"], rna["model"], rna["label_key"], rna["features"]) == ("atac", "toy", "cell_type", 40)
    assert set(rna["methods"]) == {"prediction", "mean", "depth", "linear"}
    assert rna["methods"]["prediction"]["gene_pearson"] > rna["methods"]["mean"]["gene_pearson"] + 0.1
    assert rna["missing"]["missing"] == 2
    assert content["split"]["test"] == rna["cells"] == 100
    assert {"peak_auroc", "peak_auroc_all", "label_transfer", "flat_auprc"} <= set(
        content["targets"]["atac"]["methods"]["linear"]
    )


def test_tables(done: Path) -> None:
    scores = pd.read_csv(done / "scores.tsv", sep="\t")
    assert list(scores.columns) == ["target", "source", "method", "score", "value"]
    features = pd.read_csv(done / "features.tsv", sep="\t")
    assert list(features.columns) == [
        "target",
        "feature",
        "score",
        "prediction",
        "mean",
        "depth",
        "linear",
        "mean_level",
        "n_nonzero",
    ]
    assert len(features) == 40 + 2 * 90
    umap = pd.read_csv(done / "umap.tsv", sep="\t")
    assert umap.groupby(["target", "kind"]).size().tolist() == [100] * 4
    assert {p.name for p in done.glob("*.png")} == {
        "scores.png",
        "features_rna.png",
        "features_atac.png",
        "umap_rna.png",
        "umap_atac.png",
    }


def test_same_input_same_bytes(done: Path, tmp_path: Path) -> None:
    given = ["--prediction", f"rna={done.parent / 'predicted_rna.h5ad'}", "--no-controls", "--label-key", "cell_type"]
    for name in ("a", "b"):
        assert run(done.parent / "truth.h5mu", *given, "--output-dir", tmp_path / name).exit_code == 0
    for path in sorted((tmp_path / "a").iterdir()):
        if path.name != "metrics.json":  # holds the timing
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert set(json.loads((tmp_path / "a" / "metrics.json").read_text())["targets"]["rna"]["methods"]) == {"prediction"}


def test_existing_output_needs_overwrite(done: Path) -> None:
    given = [done.parent / "truth.h5mu", "--prediction", f"rna={done.parent / 'predicted_rna.h5ad'}", "--output-dir"]
    result = run(*given, done)
    assert isinstance(result.exception, InputRefused) and "--overwrite" in str(result.exception)
    other = done.parent / "again"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    (other / "features_gone.png").write_text("a result of an earlier evaluation")
    assert run(*given, other, "--overwrite", "--controls", "mean", "--umap-cells", 0).exit_code == 0
    assert (other / "notes.txt").read_text() == "mine" and (other / "metrics.json").exists()
    assert not (other / "features_gone.png").exists()


def test_protein_through_the_same_code() -> None:
    mdata = paired()
    found = evaluate(
        mdata,
        {"protein": ("p", prediction(mdata, "protein", "rna"))},
        EvaluationSettings(label_key="cell_type", controls="mean,depth,linear"),
        0,
    )[0]
    assert found.methods["prediction"].overall["gene_pearson"] > 0.2
    assert "rmse_clr" in found.methods["linear"].overall


def refused(mdata: Any, adata: ad.AnnData, settings: EvaluationSettings = QUICK, name: str = "rna") -> str:
    with pytest.raises(InputRefused) as error:
        evaluate(mdata, {name: ("P.h5ad", adata)}, settings, 0)
    return str(error.value)


def test_refusals() -> None:
    mdata = paired()
    good = prediction(mdata, "rna", "atac")
    strange = good.copy()
    strange.obs_names = ["x" + n for n in strange.obs_names]
    assert "not in the truth, first xcell" in refused(mdata, strange)
    assert "have no prediction" in refused(mdata, good[:50].copy())
    infinite = good.copy()
    infinite.X[3, 3] = np.inf
    assert "not finite" in refused(mdata, infinite)
    assert "prediction of rna, not of atac" in refused(mdata, good, name="atac")
    assert "no modality 'adt'" in refused(mdata, good, name="adt")
    assert "cell_type" in refused(mdata, good, EvaluationSettings(label_key="cell_tpye", controls=""))
    assert "--allow-missing" in refused(mdata, good[:, :30].copy())
    renamed = good.copy()
    renamed.var_names = ["other" + n for n in renamed.var_names]
    assert "not in the truth" in refused(mdata, renamed)
    with pytest.raises(UsageRefused, match="median"):
        EvaluationSettings(controls="median").control_names()


@pytest.mark.parametrize(("tests", "what"), [(0, "0 cells"), (1, "1 cells")])
def test_too_few_test_cells(tests: int, what: str) -> None:
    mdata = paired()
    good = prediction(mdata, "rna", "atac")
    mdata.obs["xmodal_split"] = ["test"] * tests + ["train"] * (mdata.n_obs - tests)
    good.obs_names = list(mdata.obs_names[: good.n_obs])
    assert what in refused(mdata, good)


def test_missing_features_are_filled_or_left_out() -> None:
    mdata = paired()
    part = prediction(mdata, "rna", "atac")[:, 5:].copy()
    filled = evaluate(mdata, {"rna": ("P", part)}, QUICK.model_copy(update={"allow_missing": True}), 0)[0]
    assert filled.filled == 5 and len(filled.truth.features) == 40
    assert (filled.methods["prediction"].by_feature["gene_pearson"][:5] == 0).all()
    only = evaluate(mdata, {"rna": ("P", part)}, QUICK.model_copy(update={"features": "predicted"}), 0)[0]
    assert len(only.truth.features) == 35 and "35 features" in only.notes[0]
    shared = np.nanmean(filled.methods["prediction"].by_feature["gene_pearson"][5:])
    assert only.methods["prediction"].overall["gene_pearson"] == pytest.approx(shared, abs=1e-6)


def test_cells_without_label_and_cells_all() -> None:
    mdata = paired()
    mdata.obs["cell_type"] = mdata.obs["cell_type"].astype(object)
    mdata.obs.loc[mdata.obs_names[::7], "cell_type"] = None
    good = prediction(mdata, "rna", "atac")
    mdata.obs["xmodal_split"] = "test"
    found = evaluate(
        mdata, {"rna": ("P", good)}, EvaluationSettings(label_key="cell_type", cells="all", umap_cells=0), 0
    )[0]
    assert len(found.truth.cells) == good.n_obs
    assert set(found.methods) == {"prediction", "mean"}  # there are no training cells for the others
    assert any("no training cells" in n for n in found.notes)
    assert found.methods["prediction"].overall["label_transfer"] > 0.5


def test_checkpoint_of_another_model_is_refused(done: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"other")
    result = run(
        done.parent / "truth.h5mu",
        "--prediction",
        f"rna={done.parent / 'predicted_rna.h5ad'}",
        "--checkpoint",
        model,
        "--output-dir",
        tmp_path / "out",
    )
    assert isinstance(result.exception, InputRefused) and "another checkpoint" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["rna", "=x", "rna=/no/such/file"])
def test_wrong_prediction_option(done: Path, tmp_path: Path, text: str) -> None:
    result = run(done.parent / "truth.h5mu", "--prediction", text, "--output-dir", tmp_path / "out")
    assert result.exit_code == 2


def test_measured_cells_are_no_prediction(done: Path, tmp_path: Path) -> None:
    measured = ad.read_h5ad(done.parent / "predicted_rna.h5ad")
    about = measured.uns.pop("xmodal", None)
    measured.X = np.rint(np.asarray(measured.X) + 2)
    measured.write_h5ad(tmp_path / "rna.h5ad")
    given = (done.parent / "truth.h5mu", "--prediction", f"rna={tmp_path / 'rna.h5ad'}", "--umap-cells", 0)
    result = run(*given, "--output-dir", tmp_path / "out")
    assert isinstance(result.exception, InputRefused) and "measured, not predicted" in str(result.exception)
    assert about, "a prediction says what made it"
    measured.X = np.asarray(measured.X) + 0.5  # of another method, which says nothing of itself
    measured.write_h5ad(tmp_path / "rna.h5ad")
    assert run(*given, "--controls", "", "--output-dir", tmp_path / "out").exit_code == 0
