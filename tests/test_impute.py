"""Denoised values: the model's, in their places, streamed, nothing else of the file changed; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pytest
import torch

from conftest import Ran, call_xmodal
from test_embed import hybrid as hybrid
from test_embed import model as model
from test_embed import trained
from xmodal.learning import checkpoint
from xmodal.predicting import streaming

mu.set_options(pull_on_update=False)


def impute(model: Path, file: Path, output: Path, *more: object) -> Ran:
    return call_xmodal("impute", file, "--checkpoint", model, "--output", output, "--threads", 1, *more)


def test_each_layer_is_the_models_from_all_that_is_measured(model: Path, prepared: Path, tmp_path: Path) -> None:
    from xmodal.data.batches import cells_of

    done = impute(model, prepared, tmp_path / "i.h5mu", "--summary", tmp_path / "s.json")
    assert done.code == 0, done.err
    before, after, loaded = mu.read_h5mu(prepared), mu.read_h5mu(tmp_path / "i.h5mu"), checkpoint.load(model).model
    batch = cells_of(before, loaded.vocabulary).batch(slice(None))
    for m in ("rna", "atac"):
        with torch.no_grad():
            expected = loaded.impute(batch, m).numpy()
        layer = after[m].layers["xmodal_imputed"]
        assert layer.dtype == np.float32
        np.testing.assert_allclose(layer, expected, rtol=1e-4, atol=1e-5)
        assert (before[m].X != after[m].X).nnz == 0
        about = after[m].uns["xmodal_imputation"]
        assert (about["schema"], about["modality"]) == ("xmodal-imputed/1", m)
    assert after["atac"].uns["xmodal_imputation"]["units"] == "probability of an open peak"
    assert after["atac"].layers["xmodal_imputed"].min() >= 0 and after["atac"].layers["xmodal_imputed"].max() <= 1
    assert dict(after.uns["xmodal"]) == dict(before.uns["xmodal"]) and list(after.obs["type"]) == list(
        before.obs["type"]
    )
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["imputed"] == {
        "rna": {"cells": 480, "features": 60},
        "atac": {"cells": 480, "features": before["atac"].n_vars},
    }


def test_cells_that_lack_a_modality_are_not_in_its_layer(model: Path, hybrid: Path, tmp_path: Path) -> None:
    """Rows of a modality stand in their own order, not in that of the file: each is the value of its cell."""
    mdata = mu.read_h5mu(hybrid)
    turned = mu.MuData({"rna": mdata["rna"][::-1].copy(), "atac": mdata["atac"].copy()})
    turned.write_h5mu(tmp_path / "in.h5mu")
    for name, file in (("a", hybrid), ("b", tmp_path / "in.h5mu")):
        done = impute(model, file, tmp_path / f"{name}.h5mu", "--modality", "rna", "--force")
        assert done.code == 0, done.err
    straight, back = (mu.read_h5mu(tmp_path / f"{n}.h5mu") for n in "ab")
    assert straight["rna"].n_obs == mdata["rna"].n_obs < mdata.n_obs
    assert "xmodal_imputed" not in straight["atac"].layers
    rows = back["rna"].obs_names.get_indexer(straight["rna"].obs_names)
    layer = straight["rna"].layers["xmodal_imputed"]
    np.testing.assert_allclose(back["rna"].layers["xmodal_imputed"][rows], layer, rtol=1e-4, atol=1e-5)
    assert np.isfinite(layer).all() and layer.std(0).max() > 0


def test_an_h5ad_holds_the_values_alone(model: Path, prepared: Path, tmp_path: Path) -> None:
    more = ["--modality", "atac", "--split", "test"]
    assert impute(model, prepared, tmp_path / "i.h5ad", *more).code == 0
    assert impute(model, prepared, tmp_path / "i.h5mu", *more).code == 0
    alone, beside = ad.read_h5ad(tmp_path / "i.h5ad"), mu.read_h5mu(tmp_path / "i.h5mu")
    np.testing.assert_array_equal(alone.X, beside["atac"].layers["xmodal_imputed"])
    assert set(alone.obs["xmodal_split"]) == {"test"} and list(alone.obs_names) == list(beside["atac"].obs_names)
    assert alone.uns["xmodal"]["modality"] == "atac" and list(alone.var["chrom"]) == list(beside["atac"].var["chrom"])
    again = call_xmodal(
        "predict", tmp_path / "i.h5ad", "--to", "rna", "--checkpoint", model, "--output", tmp_path / "p.h5ad"
    )
    assert again.code == 3 and "imputed, not a measurement" in again.err


def test_features_that_were_not_trained_on_are_nan(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    rna = mdata["rna"][:, ::-1].copy()
    rna.var_names = ["new", *rna.var_names[1:]]
    mu.MuData({"rna": rna}).write_h5mu(tmp_path / "in.h5mu")
    done = impute(model, tmp_path / "in.h5mu", tmp_path / "i.h5mu")
    assert done.code == 0, done.err
    after = mu.read_h5mu(tmp_path / "i.h5mu")["rna"]
    nan = np.isnan(after.layers["xmodal_imputed"])
    assert nan[:, 0].all() and not nan[:, 1:].any() and "59 of 60" in done.err
    assert impute(model, tmp_path / "in.h5mu", tmp_path / "i.h5ad", "--modality", "rna").code == 0
    alone = ad.read_h5ad(tmp_path / "i.h5ad")
    assert list(alone.var_names) == list(mdata["rna"].var_names)
    np.testing.assert_array_equal(alone[:, after.var_names[1:]].X, after.layers["xmodal_imputed"][:, 1:])


def test_equal_input_equal_bytes_and_after_embed(model: Path, prepared: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert impute(model, prepared, tmp_path / f"{name}.h5mu").code == 0
    assert (tmp_path / "a.h5mu").read_bytes() == (tmp_path / "b.h5mu").read_bytes()
    more = ["--checkpoint", model, "--resolution", 1, "--output", tmp_path / "e.h5mu"]
    assert call_xmodal("embed", tmp_path / "a.h5mu", *more).code == 0
    assert impute(model, tmp_path / "e.h5mu", tmp_path / "c.h5mu", "--modality", "rna").code == 0
    last = mu.read_h5mu(tmp_path / "c.h5mu")
    assert {"X_xmodal", "X_umap"} <= set(last.obsm) and "xmodal_cluster" in last.obs and "neighbors" in last.uns
    assert (
        "xmodal_imputed" in last["rna"].layers and "xmodal_imputed" not in last["atac"].layers
    )  # not of an earlier run
    first = mu.read_h5mu(tmp_path / "a.h5mu")
    np.testing.assert_array_equal(last["rna"].layers["xmodal_imputed"], first["rna"].layers["xmodal_imputed"])


def test_too_little_room_is_told_before_writing(
    model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(streaming.shutil, "disk_usage", lambda _: real._replace(free=480 * 149 * 4 - 1))
    done = impute(model, prepared, tmp_path / "i.h5mu")
    assert done.code == 3 and "imputed values takes" in done.err and "--modality" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "more", "code", "words"),
    [
        ("prepared", ["--modality", "nix"], 2, "rna, atac"),
        ("rna", ["--modality", "atac"], 3, "xmodal predict --to atac"),
        ("prepared", ["--min-coverage", "-1"], 2, "--min-coverage"),
        ("rna", ["--modality", "rna", "--split", "valid", "--neighbors", "3"], 2, "--neighbors"),
    ],
)
def test_wrong_wishes_are_refused(
    model: Path, prepared: Path, simulated: Path, tmp_path: Path, file: str, more: list[str], code: int, words: str
) -> None:
    given = prepared if file == "prepared" else simulated / "rna.h5ad"
    done = impute(model, given, tmp_path / "i.h5mu", *more)
    assert done.code == code and words in done.err, done.err
    assert not list(tmp_path.iterdir())


def test_an_h5ad_of_several_modalities_is_refused(model: Path, prepared: Path, tmp_path: Path) -> None:
    for more in ([], ["--modality", "rna", "--modality", "atac"]):
        done = impute(model, prepared, tmp_path / "i.h5ad", *more)
        assert done.code == 2 and "one --modality" in done.err


def test_a_layer_without_one_known_name_is_refused(model: Path, prepared: Path, tmp_path: Path) -> None:
    """Peaks that only overlap the checkpoint's can be imputed, but not beside themselves."""
    atac = mu.read_h5mu(prepared)["atac"]
    at = atac.var
    atac.var_names = [f"{c}:{s + 7}-{e + 7}" for c, s, e in zip(at["chrom"], at["start"], at["end"], strict=True)]
    mu.MuData({"atac": atac}).write_h5mu(tmp_path / "in.h5mu")
    done = impute(model, tmp_path / "in.h5mu", tmp_path / "i.h5mu")
    assert done.code == 3 and ".h5ad" in done.err, done.err
    assert impute(model, tmp_path / "in.h5mu", tmp_path / "i.h5ad", "--modality", "atac").code == 0


def test_a_model_that_does_not_impute_does_not_apply(prepared: Path, tmp_path: Path) -> None:
    mean = trained(prepared, tmp_path / "mean", "mean")
    done = impute(mean, prepared, tmp_path / "i.h5mu")
    assert done.code == 99 and "crossmp" in done.err and not (tmp_path / "i.h5mu").exists()
