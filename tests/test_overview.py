"""What is seen after a prediction: the right numbers from every kind of file, whole or not at all, never a nan."""

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

from conftest import Ran, call_xmodal
from xmodal.predicting import overview

mu.set_options(pull_on_update=False)
NAMES = {"prediction.png", "cells.tsv", "features.tsv"}


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overview")
    done = call_xmodal("train", prepared, "--model", "linear", "--output-dir", folder, "--quiet", "--threads", 1)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


def predict(model: Path, cells: Path, output: Path, *more: object) -> Ran:
    folder = output.parent / "seen"
    given = ["--to", "atac", "--checkpoint", model, "--output", output, "--overview", folder, "--threads", 1, *more]
    return call_xmodal("predict", cells, *given)


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    assert {p.name for p in folder.iterdir()} == NAMES
    assert (folder / "prediction.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    texts = [(folder / name).read_text() for name in ("cells.tsv", "features.tsv")]
    assert not any("nan" in text.lower().split() for text in texts)
    cells, features = (
        pd.read_csv(folder / name, sep="\t", keep_default_na=False, na_values={"unlikeness": [""], "reliability": [""]})
        for name in ("cells.tsv", "features.tsv")
    )
    return cells, features


@pytest.fixture(scope="module")
def whole(model: Path, simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = predict(model, simulated / "rna.h5ad", folder / "p.h5ad")
    assert done.code == 0, done.err
    return folder


def test_the_tables_are_the_prediction(whole: Path, simulated: Path) -> None:
    cells, features = tables(whole / "seen")
    p, source = ad.read_h5ad(whole / "p.h5ad"), ad.read_h5ad(simulated / "rna.h5ad")
    assert list(cells["cell"]) == list(p.obs_names) and list(features["feature"]) == list(p.var_names)
    np.testing.assert_allclose(features["mean"], p.X.mean(0), rtol=1e-4)
    np.testing.assert_allclose(features["sd"], p.X.std(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(cells["unlikeness"], p.obs["xmodal_novelty"], rtol=1e-4, atol=1e-6)
    assert list(cells["unlike"] == "yes") == list(p.obs["xmodal_unlike"])
    assert list(cells["source_counts"]) == list(np.asarray(source.X.sum(1)).ravel())
    assert list(cells["type"]) == list(p.obs["type"].astype(str))
    np.testing.assert_allclose(features["reliability"], p.var["xmodal_reliability"], rtol=1e-4)
    assert list(features["trust"]) == list(p.var["xmodal_trust"])


def test_equal_input_equal_bytes(whole: Path, model: Path, simulated: Path, tmp_path: Path) -> None:
    assert predict(model, simulated / "rna.h5ad", tmp_path / "p.h5ad").code == 0
    for name in NAMES:
        assert (tmp_path / "seen" / name).read_bytes() == (whole / "seen" / name).read_bytes(), name


def test_only_the_highest_values(whole: Path, model: Path, simulated: Path, tmp_path: Path) -> None:
    assert predict(model, simulated / "rna.h5ad", tmp_path / "p.h5ad", "--top", 7).code == 0
    _, features = tables(tmp_path / "seen")
    kept = ad.read_h5ad(tmp_path / "p.h5ad").X
    assert list(features["cells_kept"]) == list(kept.getnnz(axis=0)) and features["cells_kept"].sum() == 7 * 480
    np.testing.assert_allclose(features["mean"], kept.toarray().mean(0), rtol=1e-4)


def test_beside_a_measurement_only_what_was_predicted(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata.mod["atac"] = mdata.mod["atac"][:, 10:].copy()
    extra = mdata.mod["atac"][:, :1].copy()
    extra.var_names = ["chr9:5-50"]
    joined = ad.concat([extra, mdata.mod["atac"]], axis=1, merge="first")
    mods = {"rna": mdata.mod["rna"], "atac": joined}
    again = mu.MuData(mods)
    again.obs, again.uns = mdata.obs, mdata.uns
    again.write_h5mu(tmp_path / "in.h5mu")
    done = predict(model, tmp_path / "in.h5mu", tmp_path / "p.h5mu", "--from", "rna", "--split", "test")
    assert done.code == 0, done.err
    cells, features = tables(tmp_path / "seen")
    layer = mu.read_h5mu(tmp_path / "p.h5mu")["atac"].layers["xmodal_predicted"]
    assert "chr9:5-50" not in set(features["feature"]) and len(features) == joined.n_vars - 1
    assert set(cells["cell"]) == set(mdata.obs_names[mdata.obs["xmodal_split"] == "test"])
    np.testing.assert_allclose(features["mean"], np.nanmean(layer[:, 1:], 0), rtol=1e-4)
    assert (cells["type"] != "").all()


def test_a_new_modality_of_an_h5mu(model: Path, simulated: Path, tmp_path: Path) -> None:
    mu.MuData({"rna": ad.read_h5ad(simulated / "rna.h5ad")[:20].copy()}).write_h5mu(tmp_path / "in.h5mu")
    done = predict(model, tmp_path / "in.h5mu", tmp_path / "p.h5mu")
    assert done.code == 0, done.err
    cells, features = tables(tmp_path / "seen")
    assert (
        len(cells) == 20
        and len(features) == mu.read_h5mu(tmp_path / "p.h5mu")["atac"].n_vars
        and (cells["type"] != "").all()
    )


def made(path: Path, values: Any, obs: pd.DataFrame | None = None, **settings: Any) -> Path:
    about = {"source": "rna", "target": "atac", "model": "m", "units": "$u$", "settings": json.dumps(settings)}
    n, m = values.shape
    frame = pd.DataFrame(index=[f"c{i}" for i in range(n)]) if obs is None else obs
    var = pd.DataFrame(index=[f"_f{i}$" for i in range(m)])
    ad.AnnData(values, obs=frame, var=var, uns={"xmodal": about}).write_h5ad(path)
    return path


@pytest.mark.parametrize("shape", [(1, 5), (1, 1), (6, 1), (3, 40), (40, 3)])
@pytest.mark.parametrize("constant", [True, False])
def test_bare_predictions(shape: tuple[int, int], constant: bool, tmp_path: Path) -> None:
    """Without unlikeness, reliability and types; one cell; all the same."""
    values = np.random.default_rng(0).random(shape, np.float32) if not constant else np.full(shape, 0.1, np.float32)
    overview.write(tmp_path / "seen", made(tmp_path / "p.h5ad", values), "atac", 0)
    cells, features = tables(tmp_path / "seen")
    assert list(cells) == ["cell"] and list(features) == ["feature", "mean", "sd"]
    assert (features["sd"] == 0).all() == (constant or shape[0] == 1)


def test_cells_without_a_score_have_an_empty_field(tmp_path: Path) -> None:
    obs = pd.DataFrame({"xmodal_novelty": [np.nan, 2.5], "xmodal_unlike": [False, True]}, index=["a", "b"])
    obs["Cell.Type"] = pd.Categorical([None, "nan\t<b>"])
    path = made(tmp_path / "p.h5ad", np.eye(2, dtype=np.float32), obs)
    overview.write(tmp_path / "seen", path, "atac", 0, pd.Series([3e7, 2.0], ["a", "b"]))
    lines = (tmp_path / "seen" / "cells.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["cell", "unlikeness", "unlike", "source_counts", "Cell.Type"]
    assert lines[1] == "a\t\tno\t30000000\t" or lines[1] == 'a\t\tno\t30000000\t""'
    assert lines[2].startswith("b\t2.5\tyes\t2\t")


@pytest.mark.parametrize("sparse", [True, False])
def test_blocks_agree_with_the_whole(sparse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((23, 7), np.float32)
    values[:, 2] = 0.3
    path = made(tmp_path / "p.h5ad", sp.csr_matrix(values) if sparse else values, **({"top": 7} if sparse else {}))
    monkeypatch.setattr(overview, "VALUES", 7 * 5)
    monkeypatch.setattr(overview, "MOST_CELLS", 9)
    found = overview.of_file(path, "atac", 3)
    np.testing.assert_allclose(found.features["mean"], values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.features["sd"], values.std(0, dtype=float), rtol=1e-5, atol=1e-12)
    assert found.features["sd"][2] == 0 and len(found.drawn) == len(found.places) == 9
    assert list(found.drawn) == sorted(set(found.drawn)) and list(found.drawn) != list(range(9))


def test_places_are_principal_components() -> None:
    from sklearn.decomposition import PCA

    for shape in ((30, 8), (8, 30)):
        values = np.random.default_rng(2).random(shape).astype(np.float32)
        found, shares = overview.places(values)
        known = PCA(2, svd_solver="full").fit(values.astype(float))
        np.testing.assert_allclose(shares, known.explained_variance_ratio_, rtol=1e-6)
        np.testing.assert_allclose(np.abs(found), np.abs(known.transform(values.astype(float))), rtol=1e-5, atol=1e-8)


def test_types_beyond_the_colours_are_one(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((60, 4)).astype(np.float32)
    obs = pd.DataFrame({"celltype": [f"_t{i % 30}$^" for i in range(60)]}, index=[f"c{i}" for i in range(60)])
    overview.write(tmp_path / "seen", made(tmp_path / "p.h5ad", values, obs), "atac", 0)
    assert tables(tmp_path / "seen")[0]["celltype"].nunique() == 30


@pytest.mark.parametrize("more", [("--rows", "0:256"), ("--shard", "1/2")])
def test_a_shard_is_no_whole_prediction(model: Path, simulated: Path, tmp_path: Path, more: tuple[str, str]) -> None:
    done = predict(model, simulated / "rna.h5ad", tmp_path / "p.h5ad", *more)
    assert done.code == 2 and "--overview shows a whole prediction" in done.err and not list(tmp_path.iterdir())


def test_a_folder_with_files_is_refused_before_work(model: Path, simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "mine").write_text("x")
    done = predict(model, simulated / "rna.h5ad", tmp_path / "p.h5ad")
    assert done.code == 3 and "--overwrite" in done.err and not (tmp_path / "p.h5ad").exists()
    assert predict(model, simulated / "rna.h5ad", tmp_path / "p.h5ad", "--overwrite").code == 0
    assert {p.name for p in (tmp_path / "seen").iterdir()} == {*NAMES, "mine"}


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xmodal.reporting import prediction_figure

    def fails(_: object) -> None:
        raise OSError("No space left")

    monkeypatch.setattr(prediction_figure, "prediction", fails)
    with pytest.raises(OSError, match="No space"):
        overview.write(tmp_path / "seen", made(tmp_path / "p.h5ad", np.eye(3, dtype=np.float32)), "atac", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5ad"]


def test_the_prediction_may_lie_in_the_folder(model: Path, simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen" / "p.h5ad"
    given = ["--to", "atac", "--checkpoint", model, "--output", out, "--overview", out.parent, "--threads", 1]
    assert call_xmodal("predict", simulated / "rna.h5ad", *given).code == 0
    assert {p.name for p in out.parent.iterdir()} == {*NAMES, "p.h5ad"}
