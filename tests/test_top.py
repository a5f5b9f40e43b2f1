"""The highest predicted values of each cell: the right ones, the same bytes from shards, refused where all are needed."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from conftest import Ran, call_xmodal

TOP = 7


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("top")
    done = call_xmodal("train", prepared, "--model", "linear", "--output-dir", folder, "--quiet", "--threads", 1)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


def predict(model: Path, cells: Path, output: Path, *more: object) -> Ran:
    return call_xmodal(
        "predict", cells, "--to", "atac", "--checkpoint", model, "--output", output, "--threads", 1, *more
    )


@pytest.fixture(scope="module")
def tops(model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "top.h5ad"
    done = predict(model, prepared, path, "--top", TOP)
    assert done.code == 0 and f"the {TOP} highest of each cell" in done.out, done.err
    return path


def test_the_highest_values_of_each_cell_are_kept(model: Path, prepared: Path, tops: Path, tmp_path: Path) -> None:
    assert predict(model, prepared, tmp_path / "all.h5ad").code == 0
    whole, part = ad.read_h5ad(tmp_path / "all.h5ad"), ad.read_h5ad(tops)
    kept = part.X
    assert isinstance(kept, sp.csr_matrix) and kept.dtype == np.float32 and kept.indices.dtype == np.int32
    assert (np.diff(kept.indptr) == TOP).all() and kept.has_sorted_indices
    for row, values in zip(kept, whole.X, strict=True):
        np.testing.assert_array_equal(values[row.indices], row.data)
        assert row.data.min() >= np.sort(values)[-TOP]
    assert list(whole.obs_names) == list(part.obs_names) and list(whole.var_names) == list(part.var_names)


def test_the_file_says_what_it_holds(tops: Path, tmp_path: Path, prepared: Path, model: Path) -> None:
    about = ad.read_h5ad(tops).uns["xmodal"]
    assert about["top"] == TOP and about["units"] == "probability of an open peak"
    assert json.loads(about["settings"])["interval"]["level"] == 0
    assert predict(model, prepared, tmp_path / "p.h5ad", "--top", TOP, "--summary", tmp_path / "s.json").code == 0
    assert json.loads((tmp_path / "s.json").read_text())["top"] == TOP
    assert (tmp_path / "p.h5ad").read_bytes() == tops.read_bytes()


def test_shards_merge_to_the_same_bytes(model: Path, prepared: Path, tops: Path, tmp_path: Path) -> None:
    for i in (1, 2, 3):  # more shards than batches: one is empty
        assert predict(model, prepared, tmp_path / f"{i}.h5ad", "--top", TOP, "--shard", f"{i}/3").code == 0
    parts = [tmp_path / f"{i}.h5ad" for i in (3, 1, 2)]
    done = call_xmodal("merge", *parts, "--output", tmp_path / "merged.h5ad")
    assert done.code == 0, done.err
    assert (tmp_path / "merged.h5ad").read_bytes() == tops.read_bytes()


def test_parts_with_other_numbers_of_values_are_not_merged(model: Path, prepared: Path, tmp_path: Path) -> None:
    for i, top in ((1, 3), (2, 4)):
        assert predict(model, prepared, tmp_path / f"{i}.h5ad", "--top", top, "--shard", f"{i}/2").code == 0
    done = call_xmodal("merge", tmp_path / "1.h5ad", tmp_path / "2.h5ad", "--output", tmp_path / "m.h5ad")
    assert done.code == 3 and "differ in 'settings'" in done.err


def test_more_than_there_are_features_keeps_all(model: Path, prepared: Path, tmp_path: Path) -> None:
    assert predict(model, prepared, tmp_path / "p.h5ad", "--top", 100_000).code == 0
    part = ad.read_h5ad(tmp_path / "p.h5ad")
    assert part.X.nnz == part.n_obs * part.n_vars == part.n_obs * part.uns["xmodal"]["top"]


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("p.h5mu", (), "--top writes a sparse .h5ad"),
        ("p.h5ad", ("--interval", "0.9"), "--top and --interval exclude each other"),
    ],
)
def test_what_does_not_go_together(
    model: Path, prepared: Path, tmp_path: Path, output: str, more: tuple[str, ...], said: str
) -> None:
    done = predict(model, prepared, tmp_path / output, "--top", 3, *more)
    assert done.code == 2 and said in done.err and not (tmp_path / output).exists()


def test_evaluate_needs_all_values(prepared: Path, tops: Path, tmp_path: Path) -> None:
    done = call_xmodal("evaluate", prepared, "--prediction", f"atac={tops}", "--output-dir", tmp_path / "e")
    assert done.code == 3 and "only the 7 highest values" in done.err and "without --top" in done.err
