"""A latent in place of values, decoded later: the same values as predicted at once, for the model that made it only."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from conftest import Ran, call_xmodal

MODELS = {"crossmp": ("--set", "epochs=2"), "linear": (), "sailerx": ("--set", "epochs=2")}
LAYERS = ("xmodal_lower", "xmodal_upper")


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(request.param, prepared, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def linear(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("linear", prepared, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def latent(linear: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "z.h5ad"
    done = predict(linear, prepared, path, *AS_LATENT)
    assert done.code == 0 and "50 dimensions of the latent" in done.out, done.err
    return path


AS_LATENT = ("--output-kind", "latent")


def trained(name: str, prepared: Path, folder: Path) -> Path:
    given = ("--model", name, *MODELS.get(name, ()), "--output-dir", folder, "--quiet", "--threads", 1)
    done = call_xmodal("train", prepared, *given)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


def predict(model: Path, cells: Path, output: Path, *more: object, to: str = "atac") -> Ran:
    return call_xmodal("predict", cells, "--to", to, "--checkpoint", model, "--output", output, "--threads", 1, *more)


def decode(model: Path, latent: Path, output: Path, *more: object) -> Ran:
    return call_xmodal("decode", latent, "--checkpoint", model, "--output", output, "--threads", 1, *more)


def same(one: Path, other: Path) -> None:
    """Values, intervals, cells and features, and all that is said but which command it was."""
    a, b = ad.read_h5ad(one), ad.read_h5ad(other)
    dense = [x.X.toarray() if hasattr(x.X, "toarray") else x.X for x in (a, b)]
    np.testing.assert_array_equal(*dense)
    assert set(a.layers) == set(b.layers)
    for layer in a.layers:
        np.testing.assert_array_equal(a.layers[layer], b.layers[layer])
    assert a.obs.equals(b.obs) and a.var.equals(b.var)
    about = [{k: v for k, v in x.uns["xmodal"].items() if k != "command"} for x in (a, b)]
    assert about[0] == about[1]


@pytest.mark.parametrize("to", ["atac", "rna"])
def test_decoded_values_are_those_predicted_at_once(model: Path, prepared: Path, tmp_path: Path, to: str) -> None:
    z, one, other = tmp_path / "z.h5ad", tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    given = ("--split", "test")
    assert predict(model, prepared, z, *AS_LATENT, *given, to=to).code == 0
    assert predict(model, prepared, one, *given, to=to).code == 0
    done = decode(model, z, other)
    assert done.code == 0, done.err
    same(one, other)
    assert set(LAYERS) <= set(ad.read_h5ad(other).layers) and ad.read_h5ad(other).uns["xmodal"]["command"] == "decode"


@pytest.mark.parametrize(
    "more", [("--top", 4), ("--threshold", 0.2), ("--interval", 0.5), ("--interval", 0, "--features", "chr1:0-400000")]
)
def test_the_same_options_choose_the_same(
    linear: Path, latent: Path, prepared: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    assert predict(linear, prepared, tmp_path / "a.h5ad", *more).code == 0
    done = decode(linear, latent, tmp_path / "b.h5ad", *more, "--summary", tmp_path / "s.json")
    assert done.code == 0, done.err
    same(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["target"] == "atac" and "latent" not in summary


def test_shards_of_latents_merge_and_decode_alone(linear: Path, latent: Path, prepared: Path, tmp_path: Path) -> None:
    for i in (1, 2, 3):  # more shards than batches: one is empty
        assert predict(linear, prepared, tmp_path / f"{i}.h5ad", *AS_LATENT, "--shard", f"{i}/3").code == 0
        done = decode(linear, tmp_path / f"{i}.h5ad", tmp_path / f"p{i}.h5ad")
        assert done.code == 0, done.err
    for kind, of in (("", latent), ("p", tmp_path / "whole.h5ad")):
        parts = [tmp_path / f"{kind}{i}.h5ad" for i in (2, 1, 3)]
        assert call_xmodal("merge", *parts, "--output", tmp_path / f"{kind}m.h5ad").code == 0
        if kind:
            assert decode(linear, latent, of).code == 0
        assert (tmp_path / f"{kind}m.h5ad").read_bytes() == of.read_bytes()


def test_a_latent_is_small_and_says_what_it_is(latent: Path, prepared: Path, linear: Path, tmp_path: Path) -> None:
    z = ad.read_h5ad(latent)
    about = z.uns["xmodal"]
    assert z.X.dtype == np.float32 and z.n_vars == 50 and not z.layers and "xmodal_novelty" in z.obs
    assert (about["schema"], about["source"], about["target"]) == ("xmodal-latent/1", "rna", "atac")
    done = call_xmodal("evaluate", prepared, "--prediction", f"atac={latent}", "--output-dir", tmp_path / "e")
    assert done.code == 3 and "xmodal decode" in done.err
    done = predict(linear, latent, tmp_path / "p.h5ad", "--from", "rna")
    assert done.code == 3 and not (tmp_path / "p.h5ad").exists()


def test_another_checkpoint_is_refused(latent: Path, prepared: Path, tmp_path: Path) -> None:
    other = trained("mean", prepared, tmp_path / "other")
    done = decode(other, latent, tmp_path / "p.h5ad")
    assert done.code == 3 and "another checkpoint" in done.err and not (tmp_path / "p.h5ad").exists()


def test_models_without_a_latent_say_which_have_one(prepared: Path, tmp_path: Path) -> None:
    other = trained("mean", prepared, tmp_path / "other")
    done = predict(other, prepared, tmp_path / "z.h5ad", *AS_LATENT)
    assert done.code == 99 and "crossmp, linear, sailerx" in done.err and not (tmp_path / "z.h5ad").exists()


def test_what_is_no_latent_is_refused(linear: Path, latent: Path, simulated: Path, tmp_path: Path) -> None:
    changed = ad.read_h5ad(latent)
    changed.X[3, 2] = np.nan
    changed.write_h5ad(tmp_path / "nan.h5ad")
    changed[:9].write_h5ad(tmp_path / "some.h5ad")
    for path, said in (
        (simulated / "rna.h5ad", "no latent of xmodal"),
        (tmp_path / "nan.h5ad", "not finite"),
        (tmp_path / "some.h5ad", "was changed"),
        (tmp_path / "none.h5ad", "none.h5ad"),
    ):
        done = decode(linear, path, tmp_path / "p.h5ad")
        assert done.code == 3 and said in done.err and not (tmp_path / "p.h5ad").exists(), done.err


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("z.h5mu", (), "writes an .h5ad"),
        ("z.h5ad", ("--features", "a"), "give --features to xmodal decode"),
        ("z.h5ad", ("--top", 3), "give --top to xmodal decode"),
        ("z.h5ad", ("--interval", 0.5), "give --interval to xmodal decode"),
        ("z.h5ad", ("--overview", "seen"), "give it to xmodal decode"),
    ],
)
def test_what_does_not_go_with_a_latent(
    linear: Path, prepared: Path, tmp_path: Path, output: str, more: tuple[object, ...], said: str
) -> None:
    done = predict(linear, prepared, tmp_path / output, *AS_LATENT, *more)
    assert done.code == 2 and said in done.err and not (tmp_path / output).exists()


def test_sizes_are_refused_and_the_latent_is_named(linear: Path, latent: Path, prepared: Path, tmp_path: Path) -> None:
    done = predict(linear, prepared, tmp_path / "p.h5ad", "--max-size", 1e-5)
    assert done.code == 3 and "--output-kind latent" in done.err
    done = decode(linear, latent, tmp_path / "p.h5ad", "--max-size", 1e-5)
    assert done.code == 3 and "--features" in done.err and "--output-kind" not in done.err
    done = predict(linear, prepared, tmp_path / "p.h5ad", *AS_LATENT, "--max-size", 1e-5)
    assert done.code == 3 and "fewer cells" in done.err and list(tmp_path.iterdir()) == []


def test_a_decoded_prediction_has_its_overview(linear: Path, latent: Path, tmp_path: Path) -> None:
    assert decode(linear, latent, tmp_path / "p.h5ad", "--overview", tmp_path / "seen").code == 0
    assert {p.name for p in (tmp_path / "seen").iterdir()} == {"prediction.png", "cells.tsv", "features.tsv"}
