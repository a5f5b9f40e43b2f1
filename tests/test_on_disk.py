"""Counts that stay in their file: the same results, byte for byte, and a file that changes is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import mudata as mu
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conftest import call_xmodal
from helpers_data import GENES, PEAKS, cells, write
from xmodal.data import io, leaving, on_disk, shuffling
from xmodal.data.on_disk import OnDisk, csr, stacked
from xmodal.data.packed import Packed
from xmodal.embedding import beside

RNG = np.random.default_rng(0)


def untidy(cells: int = 57, features: int = 23) -> sp.csr_matrix:
    """Entries out of order, some twice, some zero."""
    entries = 400
    rows, columns = np.sort(RNG.integers(cells, size=entries)), RNG.integers(features, size=entries)
    starts = np.searchsorted(rows, np.arange(cells + 1))
    return sp.csr_matrix((RNG.integers(4, size=entries).astype(np.float64), columns, starts), (cells, features))


def left(folder: Path, matrix: Any, name: str = "x.h5ad") -> OnDisk:
    ad.AnnData(matrix).write_h5ad(folder / name)
    found = leaving.read(folder / name, ad.read_h5ad).X
    assert isinstance(found, OnDisk)
    return found


def same(found: sp.csr_matrix, wanted: sp.csr_matrix) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    assert (found.toarray() == wanted.toarray()).all()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("gap", [0, 5, 1000])
def test_rows_are_those_of_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: bool, gap: int) -> None:
    monkeypatch.setattr(on_disk, "GAP", gap)
    monkeypatch.setattr(on_disk, "BLOCK", 40)
    whole = untidy()
    matrix, wanted = left(tmp_path, whole.toarray() if dense else whole), csr(whole.copy())
    for rows in (slice(3, 9), slice(0, 0), np.array([7, 7, 2, 56]), RNG.permutation(57), np.arange(57) % 3 == 0):
        same(matrix[rows], wanted[rows])
    same(matrix.to_memory(), wanted)
    rows = RNG.permutation(57)[:20]
    same(matrix.take(rows)[4:11], wanted[rows][4:11])
    same(
        matrix.take(rows).take(np.array([3, -1, 0]))[:],
        sp.vstack([wanted[rows[[3]]], 0 * wanted[[0]], wanted[rows[[0]]]]),
    )
    doubled = matrix.then(lambda block: 2 * block[:, :5], 5)
    same(doubled[rows], 2 * wanted[rows][:, :5])
    parts = list(matrix.blocks())
    assert len(parts) > 5
    same(sp.vstack([block for _, block in parts], format="csr"), wanted)
    same(
        stacked([matrix, wanted, matrix.take(rows)])[50:120],
        sp.vstack([wanted, wanted, wanted[rows]], format="csr")[50:120],
    )


def few(largest: float) -> sp.csr_matrix:
    """Counts up to ``largest``."""
    found = csr(untidy())
    found.data[5] = largest
    return found


@pytest.mark.parametrize(
    "matrix, size",
    [
        (few(255), (1, 2)),
        (few(256), (2, 2)),
        (few(65_536), (4, 2)),
        (few(0.5), (4, 2)),
        (few(-1), (4, 2)),
        (sp.random(57, 65_536, 0.001, "csr", rng=np.random.default_rng(0)).ceil(), (1, 2)),
        (sp.random(57, 65_537, 0.001, "csr", rng=np.random.default_rng(0)).ceil(), (1, 4)),
        (sp.csr_matrix((57, 23)), (1, 2)),
    ],
)
def test_packed_counts_are_those_of_the_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: sp.csr_matrix, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 40)
    counts, wanted = left(tmp_path, matrix), csr(matrix)
    assert counts.known.finite  # seen once, of all cells
    for rows in (np.arange(57), RNG.permutation(57), RNG.permutation(57)[:20], np.array([7, 0, 56])):
        found = Packed.of(counts.take(rows))
        assert (found.value.itemsize, found.column.itemsize) == size
        assert found.shape == (len(rows), wanted.shape[1])
        for some in (slice(0, 0), slice(1, 3), RNG.permutation(len(rows)), np.array([2, 2, 0]), slice(None)):
            same(found[some], wanted[rows][some])
            assert found[some].has_canonical_format
    found = Packed.of(counts.take(np.array([3, -1, 0, -1])))
    same(found[[2, 1, 0]], sp.vstack([wanted[[0]], 0 * wanted[[0]], wanted[[3]]], format="csr"))


def test_a_file_is_read_as_often_whatever_the_epochs(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [0], on_disk.File.read

    def counted(self: on_disk.File, dataset: h5py.Dataset, first: int, last: int) -> Any:
        reads[0] += last - first
        return read(self, dataset, first, last)

    monkeypatch.setattr(on_disk.File, "read", counted)
    train(prepared, tmp_path / "first", "crossmp", "always", epochs=1)
    once, reads[0] = reads[0], 0
    train(prepared, tmp_path / "second", "crossmp", "always", epochs=5)
    assert reads[0] == once > 0


def test_sums_are_those_of_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 40)
    values = sp.random(57, 23, 0.4, "csr", np.float32, np.random.default_rng(1))
    matrix, wanted = left(tmp_path, values), csr(values)
    assert (np.asarray(matrix.sum(0)) == np.asarray(wanted.sum(0))).all()  # bit for bit
    assert (np.asarray(matrix.sum(1)) == np.asarray(wanted.sum(1))).all()
    assert (matrix.sum(1, np.float64) == np.asarray(wanted.sum(1, dtype=np.float64))).all()
    assert (matrix.sizes == np.diff(wanted.indptr)).all()
    assert (matrix.take(np.array([5, 2])).sizes == np.diff(wanted.indptr)[[5, 2]]).all()


def test_a_file_left_on_disk_is_what_was_read(prepared: Path) -> None:
    here, there = io.read_cells(prepared), io.read_cells(prepared, on_disk="always")
    assert list(here.mod) == list(there.mod)
    assert here.obs.equals(there.obs)
    assert here.uns.keys() == there.uns.keys()
    for m, adata in here.mod.items():
        other = there.mod[m]
        assert adata.obs.equals(other.obs)
        assert adata.var.equals(other.var)
        same(other.X[:], adata.X)
    kept = np.arange(here.n_obs) % 3 == 0
    few = leaving.kept_cells(there, kept)
    assert few.obs.equals(here[kept].obs)
    same(few.mod["rna"].X[:], here[kept].mod["rna"].X)
    same(there.mod["rna"].X[:], here.mod["rna"].X)  # the whole is as it was


def test_layers_and_raw_stay_on_disk_too(tmp_path: Path) -> None:
    counts = csr(untidy())
    adata = ad.AnnData(counts * 0.5, layers={"counts": counts, "dense": counts.toarray()})
    adata.raw = ad.AnnData(counts)
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = leaving.read(tmp_path / "a.h5ad", ad.read_h5ad)
    for matrix in (found.layers["counts"], found.layers["dense"], found.raw.X):
        assert isinstance(matrix, OnDisk)
        same(matrix[:], counts)
    some = leaving.kept(found, np.array([4, 9]), np.arange(23) < 7)
    assert some.shape == (2, 7)
    same(some.layers["counts"][:], counts[[4, 9]][:, :7])
    same(some.raw.X[:], counts[[4, 9]])


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    done = train(prepared, folder, "crossmp", "never")
    return Path(done)


def train(prepared: Path, folder: Path, model: str, choice: str, epochs: int = 2) -> Path:
    done = call_xmodal(
        *("train", prepared, "--model", model, "--output-dir", folder, "--on-disk", choice, "--threads", 1),
        *(() if model == "linear" else ("--set", f"epochs={epochs}")),
    )
    assert done.code == 0, done.err
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def foreign(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RNA in another order, some genes missing, some unknown: mapped as it is read."""
    rna = ad.read_h5ad(simulated / "rna.h5ad")
    rna = rna[:, RNG.permutation(rna.n_vars)[:55]].copy()
    rna.var_names = [*rna.var_names[:52], "OTHER1", "OTHER2", "OTHER3"]
    path = tmp_path_factory.mktemp("foreign") / "rna.h5ad"
    rna.write_h5ad(path, compression="gzip")
    return path


WAYS = {
    "values": (),
    "latent": ("--output-kind", "latent"),
    "top": ("--top", 5),
    "threshold": ("--threshold", 0.3),
    "shard": ("--shard", "2/2"),
}


@pytest.mark.parametrize("more", WAYS.values(), ids=WAYS)
def test_predictions_have_the_same_bytes(
    model: Path, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 500)
    written = []
    for choice in ("never", "always"):
        output = tmp_path / f"{choice}.h5ad"
        done = call_xmodal(
            *("predict", foreign, "--from", "rna", "--to", "atac", "--checkpoint", model, "--output", output),
            *("--on-disk", choice, "--threads", 1, "--force", *more),
        )
        assert done.code == 0, done.err
        written.append(output.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("command", ["embed", "impute"])
def test_embeddings_have_the_same_bytes(model: Path, prepared: Path, tmp_path: Path, command: str) -> None:
    more = ("--modality", "rna") if command == "impute" else ("--resolution", 1, "--by-modality")
    written = []
    for choice in ("never", "always"):
        output = tmp_path / f"{choice}.h5ad"
        done = call_xmodal(
            *(command, prepared, "--checkpoint", model, "--output", output, "--on-disk", choice, "--threads", 1),
            *("--split", "test", *more),
        )
        assert done.code == 0, done.err
        written.append(output.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["linear", "crossmp", "sailerx", "auto"])
def test_models_have_the_same_bytes(prepared: Path, tmp_path: Path, name: str) -> None:
    weights = [train(prepared, tmp_path / choice, name, choice).read_bytes() for choice in ("never", "always")]
    assert weights[0] == weights[1]


def test_many_cells_are_shuffled_in_blocks_wherever_they_lie(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(prepared, tmp_path / "whole", "crossmp", "never").read_bytes()
    monkeypatch.setattr(shuffling, "LARGE", 1_000)
    monkeypatch.setattr(shuffling, "WINDOW", 4_000)
    monkeypatch.setattr(shuffling, "BLOCK", 400)
    weights = [train(prepared, tmp_path / choice, "crossmp", choice).read_bytes() for choice in ("never", "always")]
    assert weights[0] == weights[1]
    assert weights[0] != whole  # it was another order


def test_an_epoch_has_every_cell_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "LARGE", 1_000)
    monkeypatch.setattr(shuffling, "WINDOW", 50_000)
    monkeypatch.setattr(shuffling, "BLOCK", 640)
    entries = np.full(10_007, 10)
    first, second = (shuffling.order(entries, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert (np.sort(first) == np.arange(10_007)).all()
    assert (first != second).any()
    window = first[:5_000]  # cells of one window: from all over the file, neighbours apart from each other
    assert len(np.unique(window // 64)) < 90
    assert np.ptp(window) > 9_000
    assert np.abs(np.diff(window)).min() >= 1
    assert (np.abs(np.diff(window)) < 64).mean() < 0.1
    few = shuffling.order(np.full(90, 10), torch.Generator().manual_seed(0))
    assert (few == torch.randperm(90, generator=torch.Generator().manual_seed(0)).numpy()).all()


@pytest.mark.parametrize("free, wanted", [(10**5, True), (10**12, False)])
def test_auto_goes_by_the_free_memory(prepared: Path, monkeypatch: pytest.MonkeyPatch, free: int, wanted: bool) -> None:
    monkeypatch.setattr(leaving, "free_memory", lambda: free)
    found = io.read_cells(prepared, on_disk="auto")
    assert all(isinstance(a.X, OnDisk) == wanted for a in found.mod.values())


def test_there_is_free_memory() -> None:
    assert 10**7 < leaving.free_memory() < 10**14


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


CHANGES = {
    "grown": grown,
    "touched": lambda path: os.utime(path, (1, 1)),
    "cut": cut,
    "gone": Path.unlink,
    "replaced": replaced,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_read_is_refused(
    model: Path, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 500)
    source, output = tmp_path / "in.h5ad", tmp_path / "out" / "p.h5ad"
    source.write_bytes(foreign.read_bytes())
    reads, read = [0], on_disk.File.read

    def counted(self: on_disk.File, dataset: h5py.Dataset, first: int, last: int) -> Any:
        reads[0] += 1
        if reads[0] == 40:  # in the middle of predicting: the pass before that takes 25
            change(source)
        return read(self, dataset, first, last)

    monkeypatch.setattr(on_disk.File, "read", counted)
    done = call_xmodal(
        *("predict", source, "--from", "rna", "--to", "atac", "--checkpoint", model, "--output", output),
        *("--on-disk", "always", "--threads", 1, "--force"),
    )
    assert reads[0] >= 40
    assert done.code == 3, done.err
    assert done.err.startswith(f"{source}: the file ")
    assert "while it is read" in done.err
    assert not list(output.parent.glob("*"))


def test_what_cannot_stream_is_said(prepared: Path, tmp_path: Path) -> None:
    given = ("--output-dir", tmp_path / "t", "--on-disk", "always", "--threads", 1)
    done = call_xmodal("train", prepared, "--model", "scmmgpt", *given)
    assert (done.code, "crossmp" in done.err) == (2, True)
    assert not list(tmp_path.glob("*"))


def test_a_matrix_stored_by_columns_is_read_whole(tmp_path: Path) -> None:
    counts = csr(untidy())
    ad.AnnData(sp.csc_matrix(counts)).write_h5ad(tmp_path / "a.h5ad")
    found = io.read_cells(tmp_path / "a.h5ad", "rna", on_disk="always").mod["rna"].X
    assert isinstance(found, sp.csr_matrix)
    same(found, counts)


def test_modalities_of_other_names_stay_on_disk(prepared: Path, tmp_path: Path) -> None:
    given = mu.read_h5mu(prepared)
    mu.MuData({"RNA": given.mod["rna"], "peaks": given.mod["atac"]}).write_h5mu(tmp_path / "m.h5mu")
    found = io.read_cells(tmp_path / "m.h5mu", on_disk="always")
    assert set(found.mod) == {"rna", "atac"}
    assert isinstance(found.mod["rna"].X, OnDisk)


def two_samples(folder: Path) -> Path:
    """Two samples with other genes and peaks: joined, filtered and renamed as they are read."""
    rows = ["sample,role,rna,atac"]
    for i, name in enumerate(("one", "two")):
        rna, atac = cells(GENES, 40, i, "c"), cells(PEAKS, 40, 10 + i, "c", 0.5)
        rna = rna[:, [*range(i, 12), 3]].copy()  # a symbol that stands twice
        rna.var_names = [*GENES[i:12], GENES[3]]
        atac = atac[:35, i * 2 :].copy()
        atac.uns["genome"] = "GRCh38"
        write(rna, folder / f"{name}_rna.h5ad")
        write(atac, folder / f"{name}_atac.h5ad")
        rows.append(f"{name},train,{name}_rna.h5ad,{name}_atac.h5ad")
    sheet = folder / "samples.csv"
    sheet.write_text("\n".join(rows) + "\n")
    return sheet


@pytest.mark.parametrize(
    "more", [(), ("--exclude", "donor=d1", "--min-peaks", 4, "--min-peak-fraction", 0.4)], ids=["all", "some"]
)
def test_prepared_files_have_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 50)
    sheet, written = two_samples(tmp_path), []
    for choice in ("never", "always"):
        output = tmp_path / f"{choice}.h5mu"
        done = call_xmodal(
            "prepare", "--samplesheet", sheet, "--output", output, "--on-disk", choice, "--threads", 1, *more
        )
        assert done.code == 0, done.err
        written.append(output.read_bytes())
    assert written[0] == written[1]
    found = mu.read_h5mu(output)
    assert found.n_obs > 20
    assert all(a.X.has_sorted_indices and a.X.nnz for a in found.mod.values())


def test_a_layer_is_prepared_from_disk(tmp_path: Path) -> None:
    adata, written = cells(GENES), []
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.5
    write(adata, tmp_path / "rna.h5ad")
    for choice in ("never", "always"):
        output = tmp_path / f"{choice}.h5mu"
        done = call_xmodal(
            "prepare", "--rna", tmp_path / "rna.h5ad", "--layer", "counts", "--output", output, "--on-disk", choice
        )
        assert done.code == 0, done.err
        written.append(output.read_bytes())
    assert written[0] == written[1]


def test_a_file_cut_short_while_it_is_prepared_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(cells(GENES), tmp_path / "rna.h5ad")
    reads, read = [0], on_disk.File.read

    def counted(self: on_disk.File, dataset: h5py.Dataset, first: int, last: int) -> Any:
        reads[0] += 1
        if reads[0] == 4:  # what was checked before is being written now
            cut(source)
        return read(self, dataset, first, last)

    monkeypatch.setattr(on_disk.File, "read", counted)
    done = call_xmodal("prepare", "--rna", source, "--output", tmp_path / "out" / "p.h5mu", "--on-disk", "always")
    assert done.code == 3, done.err
    assert "the file was changed" in done.err
    assert not list((tmp_path / "out").glob("*"))


def test_more_cells_than_the_graph_may_have_are_put_beside_it(model: Path, prepared: Path, tmp_path: Path) -> None:
    found = {}
    for most in (120, 480):
        output = tmp_path / f"{most}.h5ad"
        done = call_xmodal(
            *("embed", prepared, "--checkpoint", model, "--output", output, "--graph-cells", most, "--clusters", 3),
            *("--threads", 1, "--summary", tmp_path / f"{most}.json"),
        )
        assert done.code == 0, done.err
        found[most] = ad.read_h5ad(output)
    few, every = found[120], found[480]
    assert (few.X == every.X).all()
    assert json.loads((tmp_path / "120.json").read_text())["graph_cells"] == 120
    assert "graph_cells" not in json.loads((tmp_path / "480.json").read_text())
    drawn = np.isin(np.arange(480), beside.drawn(480, 120, 0))
    assert np.isfinite(few.obsm["X_umap"]).all()
    sizes = few.obs["xmodal_cluster"].value_counts(sort=False).to_numpy()
    assert sizes.sum() == 480
    assert (np.diff(sizes) <= 0).all()  # numbered by size
    nearest = ((few.X[~drawn][:, None] - few.X[drawn]) ** 2).sum(2).argmin(1)
    own, near = (few.obs["xmodal_cluster"].to_numpy()[rows] for rows in (~drawn, drawn))
    assert (own == near[nearest]).mean() > 0.75


@pytest.mark.parametrize("block", [7, 1000])
def test_the_others_join_those_they_are_nearest_to(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(beside, "BLOCK", block)
    rng = np.random.default_rng(3)
    centres = 20 * np.eye(3, dtype=np.float32)
    embedding = (centres.repeat(40, 0) + rng.normal(size=(120, 3))).astype(np.float32)
    rows = np.sort(rng.permutation(120)[:60])
    others = np.setdiff1d(np.arange(120), rows)
    parts = (embedding[others[first : first + 4]] for first in range(0, 60, 4))
    found = beside.joined(rows // 40, embedding[rows], parts, 0)
    assert found.tolist() == (others // 40).tolist()


def test_votes() -> None:
    clusters, places = np.array([[1, 0, 1], [2, 2, 0], [0, 1, 2]]), np.arange(18, dtype=np.float32).reshape(3, 3, 2)
    own, place = beside._voted(clusters, places)
    assert own.tolist() == [1, 2, 0]
    assert place.tolist() == [[2, 3], [7, 8], [12, 13]]


def test_the_graph_of_some_is_that_of_all_with_nothing_beside_them() -> None:
    graph = sp.csr_matrix(np.array([[0, 2, 3], [2, 0, 0], [3, 0, 0.0]]))
    wide = beside._wide(graph, np.array([1, 4, 5]), 7)
    assert (wide[[1, 4, 5]][:, [1, 4, 5]] != graph).nnz == 0
    assert wide.nnz == graph.nnz


@pytest.fixture(scope="module")
def predicted(model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predicted") / "p.h5ad"
    done = call_xmodal(
        *("predict", prepared, "--from", "atac", "--to", "rna", "--checkpoint", model, "--output", path),
        *("--split", "test", "--threads", 1),
    )
    assert done.code == 0, done.err
    return path


def scored(prepared: Path, predicted: Path, folder: Path, *more: Any) -> dict[str, Any]:
    given = ("--prediction", f"rna={predicted}", "--label-key", "type", "--output-dir", folder, "--umap-cells", 0)
    done = call_xmodal("evaluate", prepared, *given, "--threads", 1, *more)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    del found["timing"]
    return found


@pytest.mark.parametrize("features", ["all", "predicted"])
def test_scores_are_the_same(prepared: Path, predicted: Path, tmp_path: Path, features: str) -> None:
    found = [
        scored(prepared, predicted, tmp_path / choice, "--on-disk", choice, "--features", features)
        for choice in ("never", "always")
    ]
    assert found[0] == found[1]


def test_more_cells_than_may_be_scored_are_drawn(prepared: Path, predicted: Path, tmp_path: Path) -> None:
    every = scored(prepared, predicted, tmp_path / "every")["targets"]["rna"]
    few = scored(prepared, predicted, tmp_path / "few", "--most-cells", 60)["targets"]["rna"]
    assert few["cells"] == 60 < every["cells"]
    assert few["methods"].keys() == every["methods"].keys()
    assert abs(few["methods"]["prediction"]["gene_pearson"] - every["methods"]["prediction"]["gene_pearson"]) < 0.2
    assert any("60 of 160 cells are scored" in note for note in few["notes"])


def test_shards_have_the_bytes_of_the_whole(model: Path, prepared: Path, tmp_path: Path) -> None:
    def predict(output: Path, *more: Any) -> Path:
        done = call_xmodal(
            *("predict", prepared, "--from", "atac", "--to", "rna", "--checkpoint", model, "--output", output),
            *("--output-kind", "latent", "--on-disk", "always", "--threads", 1, *more),
        )
        assert done.code == 0, done.err
        return output

    whole = predict(tmp_path / "whole.h5ad")
    parts = [predict(tmp_path / f"{i}.h5ad", "--shard", f"{i}/16") for i in range(1, 17)]
    assert call_xmodal("merge", *parts, "--output", tmp_path / "merged.h5ad").code == 0
    assert whole.read_bytes() == (tmp_path / "merged.h5ad").read_bytes()


def test_check_says_the_same(
    model: Path, prepared: Path, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for free in (10**12, 10**4):
        monkeypatch.setattr(leaving, "free_memory", lambda free=free: free)
        for file in (prepared, foreign):
            done = call_xmodal("check", file, "--checkpoint", model, "--json", tmp_path / "c.json", "--overwrite")
            said.append((done.code, (tmp_path / "c.json").read_text()))
    assert said[:2] == said[2:]
