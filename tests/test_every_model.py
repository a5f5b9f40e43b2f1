"""Every registered model through the same steps: fit, save, load, predict, refuse.  A new model needs no test of its own."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from conftest import call_xmodal
from xmodal import registry
from xmodal.learning import checkpoint
from xmodal.models.base import GradientSettings

QUICK = {"epochs": "2"}  # for models trained by gradient
MODELS = registry.names()
PREDICTING = [name for name in MODELS if registry.get(name).only is None]  # the others learn from one modality
GOLDEN = Path(__file__).parent / "golden"


def quick(name: str, genes: Path) -> list[str]:
    """Options of a quick training with gene positions, so that peak-gene links are in the checkpoint too."""
    gradient = issubclass(registry.get(name).Settings, GradientSettings)
    return [f"--gene-table={genes}", *([f"--set={k}={v}" for k, v in QUICK.items()] if gradient else [])]


@pytest.fixture(scope="module", params=MODELS)
def trained(
    request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    done = call_xmodal(
        "train",
        prepared,
        "--model",
        request.param,
        "--output-dir",
        folder,
        "--quiet",
        "--threads",
        1,
        *quick(request.param, prepared.parent / "sim" / "genes.tsv"),
    )
    assert done.code == 0, done.err
    return request.param, folder


def predict(folder: Path, file: Path, to: str, output: Path, *more: str) -> ad.AnnData:
    done = call_xmodal(
        "predict",
        file,
        "--to",
        to,
        "--checkpoint",
        folder / "model.safetensors",
        "--output",
        output,
        "--quiet",
        "--threads",
        1,
        *more,
    )
    assert done.code == 0, done.err
    return ad.read_h5ad(output)


def golden(model: Path, output: Path) -> np.ndarray:
    """What a checkpoint makes of the golden cells: ATAC from RNA, or the embedding where it does not predict."""
    common = ("--checkpoint", model, "--output", output, "--quiet", "--threads", 1)
    if model.stem.split("-")[0] in PREDICTING:
        done = call_xmodal("predict", GOLDEN / "cells.h5mu", "--to", "atac", "--from", "rna", *common)
    else:
        done = call_xmodal("embed", GOLDEN / "cells.h5mu", *common)
    assert done.code == 0, done.err
    return np.asarray(ad.read_h5ad(output).X)


def test_leaves_its_three_files(trained: tuple[str, Path]) -> None:
    name, folder = trained
    assert sorted(p.name for p in folder.iterdir()) == ["history.tsv", "metrics.json", "model.safetensors"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model"] == name
    assert metrics["split"]["test"] > 0 and set(metrics["timing"]) >= {"train_s", "peak_mib"}


@pytest.mark.parametrize(("source", "target"), [("rna", "atac"), ("atac", "rna")])
def test_predicts_both_ways(
    trained: tuple[str, Path], simulated: Path, tmp_path: Path, source: str, target: str
) -> None:
    name, folder = trained
    if name not in PREDICTING:
        refused = tmp_path / "p.h5ad"
        asked = ("--to", target, "--checkpoint", folder / "model.safetensors", "--output", refused)
        done = call_xmodal("predict", simulated / f"{source}.h5ad", *asked)
        assert done.code == 99 and "does not predict" in done.err and not refused.exists()
        return
    out = predict(folder, simulated / f"{source}.h5ad", target, tmp_path / "p.h5ad")
    assert out.shape == (480, {"rna": 60, "atac": len(out.var)}[target])
    assert np.isfinite(out.X).all() and out.X.dtype == np.float32
    about = out.uns["xmodal"]
    assert (about["model"], about["source"], about["target"]) == (name, source, target)
    if target == "atac":
        assert out.X.min() >= 0 and out.X.max() <= 1
        assert about["units"] == "probability of an open peak"
    if name != "mean":
        assert out.X.std(0).max() > 0


def test_same_seed_same_bytes(trained: tuple[str, Path], prepared: Path, tmp_path: Path) -> None:
    name, folder = trained
    done = call_xmodal(
        "train",
        prepared,
        "--model",
        name,
        "--output-dir",
        tmp_path / "again",
        "--quiet",
        "--threads",
        1,
        *quick(name, prepared.parent / "sim" / "genes.tsv"),
    )
    assert done.code == 0, done.err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_load_gives_what_was_saved(trained: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = trained
    loaded = checkpoint.load(folder / "model.safetensors")
    known = (loaded.header["training"], loaded.novelty, loaded.uncertainty)
    checkpoint.save(tmp_path / "model.safetensors", loaded.model, *known)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert loaded.header["model"] == name
    assert "no single cell" in loaded.header["content"]


def test_shards_equal_the_whole(trained: tuple[str, Path], simulated: Path, tmp_path: Path) -> None:
    name, folder = trained
    if name not in PREDICTING:
        return
    whole = tmp_path / "whole.h5ad"
    predict(folder, simulated / "rna.h5ad", "atac", whole)
    parts = [tmp_path / f"{i}.h5ad" for i in (2, 1)]
    for i, part in zip((2, 1), parts, strict=True):
        predict(folder, simulated / "rna.h5ad", "atac", part, "--shard", f"{i}/2")
    assert call_xmodal("merge", *parts, "--output", tmp_path / "merged.h5ad").code == 0
    assert (tmp_path / "merged.h5ad").read_bytes() == whole.read_bytes()


def test_refuses_what_it_cannot_do(trained: tuple[str, Path], simulated: Path, tmp_path: Path) -> None:
    _, folder = trained
    done = call_xmodal(
        "predict",
        simulated / "rna.h5ad",
        "--to",
        "protein",
        "--checkpoint",
        folder / "model.safetensors",
        "--output",
        tmp_path / "p.h5ad",
    )
    assert done.code in (2, 99) and ("rna, atac" in done.err or "does not predict" in done.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda p: p.stem)
def test_golden_checkpoints_load_for_years(path: Path, tmp_path: Path) -> None:
    """A checkpoint written by an earlier version gives the predictions, or the embedding, that it gave then."""
    then = np.load(GOLDEN / "expected.npz")[path.stem]
    np.testing.assert_allclose(golden(path, tmp_path / "p.h5ad"), then, rtol=1e-3, atol=1e-5)


def test_every_model_has_a_golden_checkpoint() -> None:
    there = {p.stem.split("-")[0] for p in GOLDEN.glob("*.safetensors")}
    assert there == set(MODELS), "run `python tests/make_golden.py` for the new model"
