"""Prediction of cells from elsewhere: other order, missing features, other names; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pytest
import scipy.sparse as sp

from conftest import Ran, call_xmodal

mu.set_options(pull_on_update=False)


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    done = call_xmodal(
        "train",
        prepared,
        "--output-dir",
        folder,
        "--quiet",
        "--threads",
        1,
        "--set",
        "epochs=3",
        "--set",
        "batch_size=64",
    )
    assert done.code == 0, done.err
    return folder / "model.safetensors"


@pytest.fixture
def rna(simulated: Path) -> ad.AnnData:
    return ad.read_h5ad(simulated / "rna.h5ad")


@pytest.fixture
def atac(simulated: Path) -> ad.AnnData:
    return ad.read_h5ad(simulated / "atac.h5ad")


def predict(model: Path, file: Path, output: Path, to: str = "atac", *more: object) -> Ran:
    return call_xmodal("predict", file, "--to", to, "--checkpoint", model, "--output", output, "--threads", 1, *more)


def predicted(model: Path, cells: ad.AnnData, folder: Path, to: str = "atac", *more: object) -> ad.AnnData:
    folder.mkdir(exist_ok=True)
    cells.write_h5ad(folder / "in.h5ad")
    done = predict(model, folder / "in.h5ad", folder / "out.h5ad", to, *more)
    assert done.code == 0, done.err
    return ad.read_h5ad(folder / "out.h5ad")


def facts(prediction: ad.AnnData) -> dict[str, object]:
    found: dict[str, object] = json.loads(prediction.uns["xmodal"]["settings"])
    return found


def test_order_of_features_does_not_matter(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    mixed = rna[:, np.random.default_rng(0).permutation(rna.n_vars)].copy()
    np.testing.assert_array_equal(predicted(model, rna, tmp_path / "a").X, predicted(model, mixed, tmp_path / "b").X)


def test_order_of_cells_only_moves_rows(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    turned = predicted(model, rna[::-1].copy(), tmp_path / "a")
    straight = predicted(model, rna, tmp_path / "b")
    np.testing.assert_allclose(turned[straight.obs_names].X, straight.X, rtol=1e-4, atol=1e-6)


def test_missing_features_are_counted(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    out = predicted(model, rna[:, :45].copy(), tmp_path)
    found = facts(out)["alignment"]
    assert (found["missing"], found["by_name"]) == (15, 45) and found["first_missing"] == list(rna.var_names[45:50])  # type: ignore[index]


def test_peaks_are_mapped_by_overlap(model: Path, atac: ad.AnnData, tmp_path: Path) -> None:
    same = predicted(model, atac, tmp_path / "a", "rna")
    atac.var_names = [
        f"{c}_{int(s) + 20}_{int(e) + 20}" for c, s, e in zip(atac.var.chrom, atac.var.start, atac.var.end, strict=True)
    ]
    moved = predicted(model, atac, tmp_path / "b", "rna")
    assert facts(moved)["alignment"]["by_overlap"] > 80  # type: ignore[index]
    assert np.corrcoef(same.X.ravel(), moved.X.ravel())[0, 1] > 0.99


def test_prediction_beside_a_measurement(model: Path, prepared: Path, tmp_path: Path) -> None:
    assert predict(model, prepared, tmp_path / "p.h5mu").code == 0
    before, after = mu.read_h5mu(prepared), mu.read_h5mu(tmp_path / "p.h5mu")
    assert (before["atac"].X != after["atac"].X).nnz == 0
    layer = after["atac"].layers["xmodal_predicted"]
    assert layer.shape == before["atac"].shape and np.isfinite(layer).all()
    assert list(before.obs["type"]) == list(after.obs["type"])


def test_the_layer_finds_peaks_that_are_written_differently(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata["atac"].var_names = mdata["atac"].var_names.str.replace(":", "-")
    mdata.update_var()
    mdata.obsm["X_umap"] = np.ones((mdata.n_obs, 2))
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = predict(model, tmp_path / "in.h5mu", tmp_path / "out.h5mu", "atac", "--from", "rna")
    assert done.code == 0, done.err
    after = mu.read_h5mu(tmp_path / "out.h5mu")
    assert np.isfinite(after["atac"].layers["xmodal_predicted"]).all() and "X_umap" in after.obsm


def test_a_layer_without_one_measured_feature_is_refused(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata["rna"].var_names = [f"other{i}" for i in range(60)]
    mdata["rna"].var.drop(columns="gene_id", errors="ignore", inplace=True)
    mdata.update_var()
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = predict(model, tmp_path / "in.h5mu", tmp_path / "out.h5mu", "rna", "--from", "atac")
    assert done.code == 3 and ".h5ad" in done.err
    assert not (tmp_path / "out.h5mu").exists()


def test_only_the_cells_predicted_are_judged(model: Path, prepared: Path, tmp_path: Path) -> None:
    """Strange test cells are refused even where most cells of the file are like the training cells."""
    mdata = mu.read_h5mu(prepared)
    test = (mdata.obs["xmodal_split"] == "test").to_numpy()
    x = mdata["rna"].X.toarray()
    x[test] = other_tissue(mdata["rna"].copy()).X.toarray()[test]
    mdata["rna"].X = sp.csr_matrix(x)
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = predict(model, tmp_path / "in.h5mu", tmp_path / "out.h5ad", "atac", "--split", "test")
    assert done.code == 3 and "unlike the training cells" in done.err


def test_symbols_that_stand_twice_for_two_ids_are_summed(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    """As in every raw 10x file."""
    rna.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(rna.n_vars)]
    twice = ad.concat([rna, rna[:, :1]], axis=1, merge="first")
    twice.var["gene_ids"] = [*rna.var["gene_ids"], "ENSG00000999999"]
    twice.uns = rna.uns
    assert facts(predicted(model, twice, tmp_path))["alignment"]["by_name"] == 60  # type: ignore[index]


def test_the_summary_says_what_was_found(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    rna[:, :45].write_h5ad(tmp_path / "in.h5ad")
    summary = tmp_path / "s.json"
    done = predict(model, tmp_path / "in.h5ad", tmp_path / "p.h5ad", "atac", "--summary", summary)
    assert done.code == 0, done.err
    found = json.loads(summary.read_text())
    assert (found["cells"], found["source"], found["alignment"]["missing"]) == (480, "rna", 15)
    done = call_xmodal("merge", tmp_path / "p.h5ad", "--output", tmp_path / "m.h5ad", "--summary", tmp_path / "m.json")
    assert done.code == 0 and (tmp_path / "m.json").read_bytes() == summary.read_bytes()


def test_the_input_is_never_the_output(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    rna.write_h5ad(tmp_path / "in.h5ad")
    before = (tmp_path / "in.h5ad").read_bytes()
    done = predict(model, tmp_path / "in.h5ad", tmp_path / "in.h5ad", "atac", "--overwrite")
    assert done.code == 2 and "input" in done.err
    assert (tmp_path / "in.h5ad").read_bytes() == before


def test_refusals_name_the_file(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    logged(rna).write_h5ad(tmp_path / "logged.h5ad")
    assert "logged.h5ad" in predict(model, tmp_path / "logged.h5ad", tmp_path / "p.h5ad").err


def test_a_prediction_is_not_a_measurement(model: Path, simulated: Path, tmp_path: Path) -> None:
    assert predict(model, simulated / "rna.h5ad", tmp_path / "atac.h5ad").code == 0
    done = predict(model, tmp_path / "atac.h5ad", tmp_path / "back.h5ad", "rna")
    assert done.code == 3 and "is a prediction" in done.err


def test_to_what_the_file_holds_is_told_plainly(model: Path, simulated: Path, tmp_path: Path) -> None:
    done = predict(model, simulated / "rna.h5ad", tmp_path / "p.h5ad", "rna")
    assert done.code == 3 and "the input has rna" in done.err


def test_an_output_below_a_file_is_told(model: Path, simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("x")
    done = predict(model, simulated / "rna.h5ad", tmp_path / "afile" / "p.h5ad")
    assert done.code == 3 and "not a folder" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="skipped, because root may write anywhere")
def test_a_folder_that_is_read_only_is_told(model: Path, simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    done = predict(model, simulated / "rna.h5ad", tmp_path / "ro" / "p.h5ad")
    assert done.code == 3 and "cannot be written" in done.err


def test_only_the_split_asked_for(model: Path, prepared: Path, tmp_path: Path) -> None:
    assert predict(model, prepared, tmp_path / "p.h5ad", "rna", "--split", "test").code == 0
    out = ad.read_h5ad(tmp_path / "p.h5ad")
    assert set(out.obs["xmodal_split"]) == {"test"}


def test_equal_runs_give_equal_bytes(model: Path, simulated: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert predict(model, simulated / "rna.h5ad", tmp_path / f"{name}.h5ad").code == 0
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def logged(cells: ad.AnnData) -> ad.AnnData:
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray() / 3.7))
    return cells


def negative(cells: ad.AnnData) -> ad.AnnData:
    cells.X = sp.csr_matrix(cells.X.toarray().astype(np.float32) - 1)
    return cells


def with_nan(cells: ad.AnnData) -> ad.AnnData:
    x = cells.X.astype(np.float32).tocsr()
    x.data[3] = np.nan
    cells.X = x
    return cells


def twice_a_gene(cells: ad.AnnData) -> ad.AnnData:
    cells.var_names = [cells.var_names[1], *cells.var_names[1:]]
    return cells


def twice_a_cell(cells: ad.AnnData) -> ad.AnnData:
    cells.obs_names = [cells.obs_names[1], *cells.obs_names[1:]]
    return cells


def renamed(cells: ad.AnnData) -> ad.AnnData:
    cells.var_names = [f"X{i}" for i in range(cells.n_vars)]
    return cells


def lower_case(cells: ad.AnnData) -> ad.AnnData:
    cells.var_names = cells.var_names.str.lower()
    return cells


def mouse(cells: ad.AnnData) -> ad.AnnData:
    cells.uns["genome"] = "mm10"
    return cells


def other_tissue(cells: ad.AnnData) -> ad.AnnData:
    """The same genes, but the counts of the commonest go to the rarest."""
    order = np.argsort(np.asarray(cells.X.sum(0)).ravel())
    x = np.zeros(cells.shape, np.float32)
    x[:, order] = cells.X.toarray()[:, order[::-1]]
    cells.X = sp.csr_matrix(x)
    return cells


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (logged, "log"),
        (negative, "negative"),
        (with_nan, "NaN"),
        (twice_a_gene, "duplicate"),
        (twice_a_cell, "duplicate"),
        (renamed, "missing: "),
        (lower_case, "another species"),
        (mouse, "mm10"),
        (other_tissue, "unlike the training cells"),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_bad_cells_are_refused_and_leave_nothing(
    model: Path, rna: ad.AnnData, tmp_path: Path, spoil: Callable[[ad.AnnData], ad.AnnData], words: str
) -> None:
    spoil(rna).write_h5ad(tmp_path / "in.h5ad")
    done = predict(model, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert done.code == 3 and words.lower() in done.err.lower(), done.err
    assert "What to do" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


def test_force_goes_on_with_unlike_cells(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    out = predicted(model, other_tissue(rna), tmp_path, "atac", "--force")
    assert facts(out)["novelty"]["level"] == "refused"  # type: ignore[index]


def test_cells_of_the_same_experiment_are_fine(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    assert facts(predicted(model, rna, tmp_path))["novelty"]["level"] == "fine"  # type: ignore[index]


def test_empty_cells_are_kept(model: Path, rna: ad.AnnData, tmp_path: Path) -> None:
    x = rna.X.tolil()
    x[5] = 0
    rna.X = x.tocsr()
    out = predicted(model, rna, tmp_path)
    assert out.n_obs == rna.n_obs and facts(out)["empty"] == 1
    assert np.isfinite(out.X).all()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("not HDF5")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, text, empty])
@pytest.mark.parametrize("which", ["cells", "checkpoint"])
def test_broken_files_are_refused(
    model: Path, simulated: Path, tmp_path: Path, spoil: Callable[[Path], None], which: str
) -> None:
    cells, checkpoint = tmp_path / "in.h5ad", tmp_path / "m.safetensors"
    shutil.copy(simulated / "rna.h5ad", cells)
    shutil.copy(model, checkpoint)
    spoil(cells if which == "cells" else checkpoint)
    done = predict(checkpoint, cells, tmp_path / "out.h5ad")
    assert done.code == 3 and "What to do" in done.err, done.err
    assert not (tmp_path / "out.h5ad").exists()


def test_a_checkpoint_of_another_format_is_refused(model: Path, simulated: Path, tmp_path: Path) -> None:
    raw = model.read_bytes()
    changed = raw.replace(b'\\"format\\": 1', b'\\"format\\": 9')
    assert changed != raw
    (tmp_path / "m.safetensors").write_bytes(changed)
    done = predict(tmp_path / "m.safetensors", simulated / "rna.h5ad", tmp_path / "out.h5ad")
    assert done.code == 3 and "format 9" in done.err


@pytest.mark.parametrize(
    ("old", "new"), [(b'{\\"content', b'[\\"content'), (b"vocabulary", b"vocabulery"), (b"bottleneck", b"bottlenecj")]
)
def test_a_corrupt_header_is_refused(model: Path, simulated: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    raw = model.read_bytes()
    assert old in raw
    (tmp_path / "m.safetensors").write_bytes(raw.replace(old, new))
    done = predict(tmp_path / "m.safetensors", simulated / "rna.h5ad", tmp_path / "out.h5ad")
    assert done.code == 3 and "corrupt" in done.err, done.err


def test_an_output_that_exists_is_kept(model: Path, simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "out.h5ad").write_text("mine")
    done = predict(model, simulated / "rna.h5ad", tmp_path / "out.h5ad")
    assert done.code == 3 and "--overwrite" in done.err
    assert (tmp_path / "out.h5ad").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--rows", "0:100"], "256"),
        (["--rows", "0:9999"], "480 cells"),
        (["--shard", "3/2"], "between 1 and N"),
        (["--shard", "1of2"], "I/N"),
        (["--rows", "0:256", "--shard", "1/2"], "exclude"),
    ],
)
def test_wrong_rows_are_usage_errors(model: Path, simulated: Path, tmp_path: Path, more: list[str], words: str) -> None:
    done = predict(model, simulated / "rna.h5ad", tmp_path / "out.h5ad", "atac", *more)
    assert done.code == 2 and words in done.err


def test_merge_refuses_gaps_doubles_and_strangers(model: Path, simulated: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.h5ad", tmp_path / "2.h5ad"
    for i, path in ((1, first), (2, second)):
        assert predict(model, simulated / "rna.h5ad", path, "atac", "--shard", f"{i}/2").code == 0
    cases = {"missing": [first], "twice": [first, first, second], "not a prediction": [simulated / "rna.h5ad", first]}
    for words, parts in cases.items():
        done = call_xmodal("merge", *parts, "--output", tmp_path / "m.h5ad")
        assert done.code == 3 and words in done.err, done.err
    assert not (tmp_path / "m.h5ad").exists()


def test_merge_takes_parts_in_any_order_and_empty_ones(model: Path, simulated: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"{i}.h5ad" for i in (2, 1, 4, 3)]
    for part in parts:
        done = predict(model, simulated / "rna.h5ad", part, "atac", "--shard", f"{part.stem}/4")
        assert done.code == 0, done.err
    assert call_xmodal("merge", *parts, "--output", tmp_path / "m.h5ad").code == 0
    assert predict(model, simulated / "rna.h5ad", tmp_path / "whole.h5ad").code == 0
    assert (tmp_path / "m.h5ad").read_bytes() == (tmp_path / "whole.h5ad").read_bytes()


def test_a_direction_without_pairs_is_not_promised(simulated: Path, tmp_path: Path) -> None:
    """RNA with ATAC in some cells, RNA with protein in others: ATAC to protein was never seen."""
    sim = tmp_path / "sim"
    size = ["--cells", 300, "--genes", 40, "--peaks", 60, "--third", 10, "--no-rates"]
    assert call_xmodal("simulate", "--output-dir", sim, *size).code == 0
    whole = mu.read_h5mu(sim / "paired.h5mu")
    half = np.arange(whole.n_obs) % 2 == 0
    mdata = mu.MuData(
        {"rna": whole["rna"], "atac": whole["atac"][half].copy(), "protein": whole["protein"][~half].copy()}
    )
    mdata.obs["xmodal_split"] = whole.obs["xmodal_split"].astype(str).reindex(mdata.obs_names)
    mdata.write_h5mu(sim / "mosaic.h5mu")
    prepared = tmp_path / "p.h5mu"
    gaussian = ["--likelihood", "protein=gaussian"]
    done = call_xmodal("prepare", "--h5mu", sim / "mosaic.h5mu", "--output", prepared, *gaussian)
    assert done.code == 0, done.err
    done = call_xmodal("train", prepared, "--model", "linear", "--output-dir", tmp_path / "m")
    assert (
        done.code == 0
        and "atac -> protein is not learned" in json.loads((tmp_path / "m/metrics.json").read_text())["warnings"][0]
    )
    done = predict(tmp_path / "m" / "model.safetensors", sim / "atac.h5ad", tmp_path / "x.h5ad", "protein")
    assert done.code in (2, 3) and "rna" in done.err, done.err


def test_models_says_what_a_checkpoint_is(model: Path) -> None:
    done = call_xmodal("models", model)
    assert done.code == 0
    for words in ("model: auto", "rna: 60 features", "simulated", "train 240", "no single cell"):
        assert words in done.out, done.out
    found = json.loads(call_xmodal("models", model, "--json").out)
    assert found["modalities"]["rna"]["features"] == 60
    assert len(call_xmodal("models", model, "--features", "rna").out.split()) == 60
