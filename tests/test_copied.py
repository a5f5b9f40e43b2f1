"""Copies of cells whose counts stay in their file: the bytes that a copy from memory has, and all that stood in the file."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pytest
import scipy.sparse as sp

from conftest import call_xmodal
from xmodal.data import copied, filling, io, leaving, on_disk
from xmodal.data.on_disk import OnDisk

RNG = np.random.default_rng(0)
WIDE, TALL = (40, 2), (3, 1000)  # (cells, features)


def some(shape: tuple[int, int] = (57, 23), kind: Any = np.int64) -> sp.csr_matrix:
    return sp.random(*shape, 0.3, "csr", rng=RNG).astype(np.float32).ceil().astype(kind)


def untidy() -> sp.csr_matrix:
    """Entries out of order, some twice, some zero."""
    values = np.array([1, 0, 2, 5, 3], np.int16)
    return sp.csr_matrix((values, np.array([4, 1, 4, 22, 0], np.int32), [0, 3, *[3] * 55, 5]), (57, 23))


def rich() -> ad.AnnData:
    """Matrices of every kind beside the counts."""
    counts = some()
    adata = ad.AnnData(counts.astype(np.float32))
    adata.layers["whole"] = counts
    adata.layers["dense"] = counts.toarray() * 0.1
    adata.layers["flags"] = counts.toarray() > 1
    adata.layers["untidy"] = untidy()
    adata.layers["by_column"] = sp.csc_matrix(counts)
    adata.obs["type"] = [f"t{i % 3}" for i in range(57)]
    adata.obsm["X_pca"] = RNG.normal(size=(57, 3))
    adata.raw = ad.AnnData(some((57, 30)), varm={"loadings": np.ones((30, 2))})
    return adata


def same(found: ad.AnnData, wanted: ad.AnnData) -> None:
    """Every matrix with its kind of values and the order of its entries."""
    assert found.obs.equals(wanted.obs)
    assert (found.obsm["X_pca"] == wanted.obsm["X_pca"]).all()
    assert set(found.layers) == set(wanted.layers)
    assert (found.raw.varm["loadings"] == wanted.raw.varm["loadings"]).all()
    pairs = [
        (found.X, wanted.X),
        (found.raw.X, wanted.raw.X),
        *((found.layers[k], v) for k, v in wanted.layers.items()),
    ]
    for matrix, other in pairs:
        assert (matrix.dtype, type(matrix)) == (other.dtype, type(other))
        if not sp.issparse(other):
            assert (matrix == other).all()
            continue
        assert matrix.indptr.tolist() == other.indptr.tolist()
        assert matrix.indices.tolist() == other.indices.tolist()
        assert matrix.data.tolist() == other.data.tolist()


@pytest.mark.parametrize("kept", [None, np.arange(57) % 3 == 1], ids=["all", "some"])
@pytest.mark.parametrize("block", [30, 10**6])
def test_a_copy_from_the_file_is_that_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Any, block: int
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", block)
    monkeypatch.setattr(filling, "PIECE", 64)
    monkeypatch.setattr(filling, "AT_ONCE", 128)
    rich().write_h5ad(tmp_path / "in.h5ad")
    here, there = ad.read_h5ad(tmp_path / "in.h5ad"), leaving.read(tmp_path / "in.h5ad", ad.read_h5ad)
    if kept is not None:
        here, there = here[kept].copy(), leaving.kept(there, kept)
    assert isinstance(there.layers["whole"], OnDisk)
    for name, adata in (("here", here), ("there", there)):
        filling.write(adata, tmp_path / f"{name}.h5ad", False)
    assert (tmp_path / "here.h5ad").read_bytes() == (tmp_path / "there.h5ad").read_bytes()
    same(ad.read_h5ad(tmp_path / "here.h5ad"), here)
    assert isinstance(there.layers["whole"], OnDisk)  # as it was


def test_a_changed_matrix_is_copied_as_counts(tmp_path: Path) -> None:
    rich().write_h5ad(tmp_path / "in.h5ad")
    there = leaving.kept(leaving.read(tmp_path / "in.h5ad", ad.read_h5ad), None, np.arange(23) < 9)
    filling.write(there, tmp_path / "out.h5ad", False)
    found, wanted = ad.read_h5ad(tmp_path / "out.h5ad"), ad.read_h5ad(tmp_path / "in.h5ad")[:, :9]
    assert found.layers["whole"].dtype == np.float32
    assert (found.layers["whole"].toarray() == wanted.layers["whole"].toarray()).all()
    assert (found.layers["dense"].toarray() == wanted.layers["dense"].astype(np.float32)).all()


@pytest.mark.parametrize("shape", [WIDE, TALL, (0, 5), (5, 0), (1, 1)])
def test_dense_matrices_of_all_shapes_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    monkeypatch.setattr(filling, "PIECE", 16)
    monkeypatch.setattr(filling, "AT_ONCE", 64)
    values = RNG.normal(size=shape)
    filling.write(ad.AnnData(sp.csr_matrix(shape, dtype=np.float32), layers={"a": values}), tmp_path / "a.h5ad", False)
    assert (ad.read_h5ad(tmp_path / "a.h5ad").layers["a"] == values).all()


def test_a_copy_holds_no_whole_matrix(tmp_path: Path) -> None:
    adata = ad.AnnData(some((4000, 2000), np.float32))  # 2.4 million entries, 19 MB
    adata.layers["dense"] = adata.X.toarray()  # 32 MB
    adata.write_h5ad(tmp_path / "in.h5ad")
    del adata
    there = leaving.read(tmp_path / "in.h5ad", ad.read_h5ad)
    patch = pytest.MonkeyPatch()
    patch.setattr(on_disk, "BLOCK", 100_000)
    patch.setattr(filling, "AT_ONCE", filling.PIECE)
    tracemalloc.start()
    filling.write(there, tmp_path / "out.h5ad", False)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    patch.undo()
    assert most < 8e6


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    given = ("--model", "crossmp", "--output-dir", folder, "--set", "epochs=2", "--threads", 1)
    done = call_xmodal("train", prepared, *given)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def layered(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared cells with layers, some cells of either modality alone, and an earlier prediction."""
    mdata = mu.read_h5mu(prepared)
    rna, atac = mdata.mod["rna"][:-7].copy(), mdata.mod["atac"][5:].copy()
    rna.layers["whole"] = rna.X.astype(np.int32)
    atac.layers["xmodal_lower"] = np.ones(atac.shape, np.float32)
    rna.raw = rna.copy()
    given = mu.MuData({"rna": rna, "atac": atac})
    for column in ("type", "xmodal_split"):
        if column in mdata.obs:
            given.obs[column] = mdata.obs[column].reindex(given.obs_names)
    path = tmp_path_factory.mktemp("layered") / "in.h5mu"
    given.write_h5mu(path)
    return path


COPIES = {
    "beside": ("predict", "--from", "rna", "--to", "atac"),
    "without intervals": ("predict", "--from", "rna", "--to", "atac", "--interval", 0),
    "embed": ("embed", "--resolution", 1),
    "impute": ("impute",),
}


@pytest.mark.parametrize("more", COPIES.values(), ids=COPIES)
def test_copies_with_results_have_the_same_bytes(
    model: Path, layered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 500)
    written = []
    for choice in ("never", "always"):
        output = tmp_path / f"{choice}.h5mu"
        command, *options = more
        done = call_xmodal(
            *(command, layered, "--checkpoint", model, "--output", output, "--on-disk", choice, "--threads", 1),
            *options,
        )
        assert done.code == 0, done.err
        written.append(output.read_bytes())
    assert written[0] == written[1]
    before, after = mu.read_h5mu(layered), mu.read_h5mu(output)
    assert (after.mod["rna"].layers["whole"] != before.mod["rna"].layers["whole"]).nnz == 0
    assert after.mod["rna"].layers["whole"].dtype == np.int32
    assert (after.mod["rna"].raw.X != before.mod["rna"].raw.X).nnz == 0
    if command == "predict":
        assert ("xmodal_lower" in after.mod["atac"].layers) == ("--interval" not in more)
        found = after.mod["atac"].layers["xmodal_predicted"]
        paired = after.mod["atac"].obs_names.isin(after.mod["rna"].obs_names)
        assert 0 < paired.sum() < len(paired)
        assert (np.isfinite(found).all(1) == paired).all()
        alone = tmp_path / "alone.h5ad"
        done = call_xmodal(
            *(command, layered, "--checkpoint", model, "--output", alone, "--threads", 1, *options),
        )
        assert done.code == 0, done.err
        values = ad.read_h5ad(alone)
        place = values.obs_names.get_indexer(after.mod["atac"].obs_names[paired])
        assert (place >= 0).all()
        columns = values.var_names.get_indexer(after.mod["atac"].var_names)
        assert (found[paired] == values.X[place][:, columns]).all()


def test_a_new_modality_is_filled_as_it_is_predicted(model: Path, layered: Path, tmp_path: Path) -> None:
    rna = mu.read_h5mu(layered).mod["rna"]
    rna.write_h5ad(tmp_path / "rna.h5ad")
    given = ("--from", "rna", "--to", "atac", "--checkpoint", model, "--threads", 1)
    written = []
    for name in ("never.h5mu", "always.h5mu", "alone.h5ad"):
        choice = name.split(".")[0] if name.endswith("h5mu") else "auto"
        output = tmp_path / name
        done = call_xmodal("predict", tmp_path / "rna.h5ad", *given, "--output", output, "--on-disk", choice)
        assert done.code == 0, done.err
        written.append(output)
    assert written[0].read_bytes() == written[1].read_bytes()
    found, alone = mu.read_h5mu(written[0]).mod["atac"], ad.read_h5ad(written[2])
    assert (found.obs_names == alone.obs_names).all()
    assert (found.X == alone.X).all()
    for layer in alone.layers:
        assert (found.layers[layer] == alone.layers[layer]).all()


def test_a_prediction_of_nothing_that_was_measured_leaves_no_copy(model: Path, layered: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(layered)
    atac = mdata.mod["atac"]
    atac.var_names = [f"chr21:{10_000 * i + 1}-{10_000 * i + 500}" for i in range(atac.n_vars)]
    atac.var = atac.var[[]]
    mdata = mu.MuData({"rna": mdata.mod["rna"], "atac": atac})
    mdata.write_h5mu(tmp_path / "in.h5mu")
    given = ("--from", "rna", "--to", "atac", "--checkpoint", model, "--output", tmp_path / "out" / "p.h5mu")
    done = call_xmodal("predict", tmp_path / "in.h5mu", *given, "--threads", 1)
    assert done.code == 3, done.err
    assert "was measured in this file" in done.err
    assert not list((tmp_path / "out").glob("*"))


def test_what_is_copied_knows_its_kind(tmp_path: Path) -> None:
    rich().write_h5ad(tmp_path / "in.h5ad")
    there = leaving.read(tmp_path / "in.h5ad", ad.read_h5ad)
    assert copied.as_stored(there.layers["dense"]).kind == np.float64
    assert copied.as_stored(there.layers["flags"]).kind == np.bool_
    assert copied.as_stored(there.layers["untidy"]).kind == np.int16
    assert copied.counts(there.layers["untidy"]).kind == np.float32
    assert io.csr(untidy()).nnz == 3
