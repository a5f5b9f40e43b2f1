"""Zarr stores in the place of .h5ad and .h5mu: the same cells, the same predictions, and refusals that name what is wrong."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pytest

from conftest import Ran, call_xmodal
from xmodal.data import io
from xmodal.errors import InputRefused

TEST_DATA = Path(__file__).parents[1] / "galaxy_tools" / "test-data"
PREPARED = TEST_DATA / "prepared.h5mu"
MODEL = TEST_DATA / "model.safetensors"


def written(folder: Path, form: int = 2) -> tuple[Path, Path]:
    """The prepared cells as a store, and their RNA as one of its own, of Zarr format 2 or 3."""
    cells, rna = folder / "cells.zarr", folder / "rna.zarr"
    with warnings.catch_warnings(), ad.settings.override(zarr_write_format=form):
        warnings.simplefilter("ignore")
        mdata = mu.read_h5mu(PREPARED)
        mdata.write_zarr(cells)
        mdata.mod["rna"].write_zarr(rna)
    return cells, rna


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("on_disk", ["never", "always"])
def test_a_store_holds_what_the_file_holds(tmp_path: Path, form: int, on_disk: str) -> None:
    cells, rna = written(tmp_path, form)
    wanted, found = io.read_cells(PREPARED), io.read_cells(cells, on_disk=on_disk)
    assert found.obs.equals(wanted.obs)
    for name, part in wanted.mod.items():
        matrix = found.mod[name].X
        assert hasattr(matrix, "to_memory") == (on_disk == "always")
        assert (matrix[:] != part.X).nnz == 0
        assert found.mod[name].var.equals(part.var)
    alone = io.read_cells(rna, "rna", on_disk=on_disk).mod["rna"]
    assert (alone.X[:] != wanted.mod["rna"].X).nnz == 0


def predict(cells: Path, output: Path, *more: str) -> Ran:
    given = ("--from", "rna", "--to", "atac", "--checkpoint", MODEL, "--output", output)
    return call_xmodal("predict", cells, *given, *more)


def test_a_prediction_as_a_store_holds_the_same(tmp_path: Path) -> None:
    cells, _ = written(tmp_path)
    store, file = tmp_path / "p.zarr", tmp_path / "p.h5ad"
    predict(PREPARED, file)
    predict(cells, store, "--on-disk", "always", "--overview", str(tmp_path / "seen"))
    wanted, found = ad.read_h5ad(file), ad.read_zarr(store)
    assert (found.X == wanted.X).all()
    assert found.obs.equals(wanted.obs)
    assert {k: v.sum() for k, v in found.layers.items()} == {k: v.sum() for k, v in wanted.layers.items()}
    assert (tmp_path / "seen" / "prediction.png").stat().st_size > 1000
    given = ("--prediction", f"atac={store}", "--no-controls", "--umap-cells", 0, "--output-dir", tmp_path / "e")
    assert call_xmodal("evaluate", cells, *given).code == 0


def test_what_is_there_is_replaced_only_where_it_is_a_store(tmp_path: Path) -> None:
    store = tmp_path / "p.zarr"
    predict(PREPARED, store)
    assert "the output exists" in predict(PREPARED, store).err
    before = ad.read_zarr(store).X
    predict(PREPARED, store, "--overwrite", "--interval", "0")
    assert np.array_equal(ad.read_zarr(store).X, before)
    assert not ad.read_zarr(store).layers
    assert [p.name for p in tmp_path.iterdir()] == ["p.zarr"]
    folder = tmp_path / "mine.zarr"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    assert "is a folder, and no Zarr store" in predict(PREPARED, folder, "--overwrite").err
    assert (folder / "thesis.txt").read_text() == "years"


def test_pieces_that_are_not_there_are_no_zeros(tmp_path: Path) -> None:
    cells, rna = written(tmp_path)
    next((cells / "mod" / "rna" / "X" / "data").glob("[0-9]*")).unlink()
    for on_disk in ("never", "always"):
        with pytest.raises(InputRefused, match="1 of 1 pieces of mod/rna/X/data are not there"):
            io.read_cells(cells, on_disk=on_disk)
    whole = io.read_cells(rna, "rna", on_disk="always")
    shutil.rmtree(rna)
    with pytest.raises(InputRefused, match="no longer there"):
        whole.mod["rna"].X[:]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    import zarr

    zarr.open_group(str(tmp_path / "image.zarr"), mode="w").create_group("images")
    with pytest.raises(InputRefused, match="neither of AnnData nor of MuData"):
        io.read_cells(tmp_path / "image.zarr")
    with pytest.raises(InputRefused, match="a folder, not a file"):
        io.read_cells(tmp_path)
