"""`xmodal pretrain`: many files as a stream, goes on where it was stopped, refuses what holds no counts; `load_into`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file

import helpers_annotation as small
from conftest import Ran, call_xmodal, stopping, terminated
from helpers_data import PEAKS, cells, write, write_10x
from helpers_text import tiny_bert
from xmodal import fields
from xmodal.data.vocabulary import Modality, Vocabulary
from xmodal.errors import InputRefused, UsageRefused
from xmodal.learning import checkpoint
from xmodal.models.base import CrossModalModel, ModelSettings
from xmodal.models.parts.perceiver import Perceiver, PerceiverSettings
from xmodal.pretraining import pretrained, run_pretraining, sources, stream
from xmodal.pretraining.initial import load_into

NAMES = [f"TMEM{i}A" for i in range(1, 31)]
SIZE = {"tokens": 16, "latents": 4, "width": 16, "layers": 1, "heads": 2}
SMALL = tuple(f"--set {k}={v}" for k, v in {**SIZE, "epochs": 2, "batch_size": 16, "round_cells": 300}.items())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files with 800 cells, whose genes overlap."""
    folder = tmp_path_factory.mktemp("files")
    parts = [(NAMES[:20], 300), (NAMES[10:], 300), (NAMES[5:25], 200)]
    return [write(cells(names, n, i, f"f{i}-"), folder / f"{i}.h5ad") for i, (names, n) in enumerate(parts)]


def pretrain(given: list[Path], out: Path, *more: object) -> Ran:
    settings = [part for pair in SMALL for part in pair.split()]
    return call_xmodal("pretrain", *given, "--output-dir", out, "--threads", 1, "--device", "cpu", *settings, *more)


@pytest.fixture(scope="module")
def made(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    out = tmp_path_factory.mktemp("made") / "out"
    done = pretrain(files, out)
    assert done.code == 0, done.err
    assert "720 cells" in done.out and "3 files" in done.out
    return out


def streamed(given: list[Path], **more: Any) -> stream.Stream:
    found = [sources.find(path) for path in given]
    return stream.open_stream(found, more.get("genes"), more.get("round_cells", 300), more.get("valid", 80), 0)


def test_what_is_written(made: Path) -> None:
    assert {p.name for p in made.iterdir()} == {"pretrained.safetensors", "history.tsv", "metrics.json"}
    header = pretrained.read_header(made / "pretrained.safetensors")
    assert header["format"] == "xmodal-pretrained/1" and header["settings"]["width"] == 16
    found = pretrained.load(made / "pretrained.safetensors")
    assert sorted(found.vocabulary[fields.RNA].features) == sorted(NAMES)  # the union
    assert found.weights["gene"].shape == (30, 16)
    table = pd.read_csv(made / "history.tsv", sep="\t")
    metrics = json.loads((made / "metrics.json").read_text())
    assert list(table.columns) == ["round", "cells", "train_loss", "valid_loss", "valid_floor", "learning_rate"]
    assert metrics["cells"] == {"train": 720, "valid": 80} and metrics["rounds"] == len(table)
    assert table["cells"].sum() == 2 * 720
    assert metrics["losses"]["last"] == pytest.approx(table["valid_loss"].iloc[-1], rel=1e-4)


def test_equal_input_gives_equal_bytes(made: Path, files: list[Path], tmp_path: Path) -> None:
    assert pretrain(files, tmp_path / "again").code == 0
    other = (tmp_path / "again" / "pretrained.safetensors").read_bytes()
    assert other == (made / "pretrained.safetensors").read_bytes()
    assert pretrain(files, tmp_path / "seed", "--seed", 1).code == 0
    assert other != (tmp_path / "seed" / "pretrained.safetensors").read_bytes()


@pytest.mark.parametrize("turn", [1, 2, 4])
def test_a_stopped_run_goes_on_to_the_same_weights(
    made: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """Before the first state, within an epoch and within the second."""
    with monkeypatch.context() as patch:
        patch.setattr(run_pretraining, "_round", stopping(run_pretraining._round, turn))
        assert pretrain(files, tmp_path / "out").code == 143
    assert (tmp_path / "out" / "state.safetensors").exists() == (turn > 1)
    done = pretrain(files, tmp_path / "out")
    assert done.code == 0, done.err
    for name in ("pretrained.safetensors", "history.tsv"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes()
    assert not (tmp_path / "out" / "state.safetensors").exists()


def test_sigterm_keeps_the_state(made: Path, files: list[Path], tmp_path: Path) -> None:
    settings = [part for pair in SMALL for part in pair.split()]
    more = ("--threads", 1, "--device", "cpu", *settings)
    terminated("pretrain", *files, "--output-dir", tmp_path / "out", *more, after="round 2/")
    assert (tmp_path / "out" / "state.safetensors").exists()
    assert pretrain(files, tmp_path / "out").code == 0
    assert (tmp_path / "out" / "pretrained.safetensors").read_bytes() == (made / "pretrained.safetensors").read_bytes()


def test_the_state_of_other_cells_is_refused(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_pretraining, "_round", stopping(run_pretraining._round, 2))
        assert pretrain(files, tmp_path / "out").code == 143
    done = pretrain(files[:2], tmp_path / "out")
    assert done.code == 3 and "left this state" in done.err
    assert pretrain(files[:2], tmp_path / "out", "--overwrite").code == 0


def test_an_epoch_has_every_training_cell_once(tmp_path: Path) -> None:
    """Each cell has one count of its own gene, so that it can be told apart."""
    names = [f"TMEM{i}A" for i in range(700)]
    one = ad.AnnData(sp.identity(700, np.float32, "csr")[:400], var=pd.DataFrame(index=names))
    two = ad.AnnData(sp.identity(700, np.float32, "csr")[400:], var=pd.DataFrame(index=names))
    found = streamed([write(one, tmp_path / "1.h5ad"), write(two, tmp_path / "2.h5ad")])
    held = np.asarray(found.valid().counts[fields.RNA].sum(0)).ravel()
    assert held.sum() == 70 and found.training == 630
    for epoch in (1, 2):
        rounds = [c.counts[fields.RNA] for c in found.epoch(epoch)]
        assert len(rounds) == found.rounds and max(r.shape[0] for r in rounds) <= 2 * 300
        assert (np.asarray(sp.vstack(rounds).sum(0)).ravel() + held == 1).all()
    orders = [json.dumps(found.order(epoch)) for epoch in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    rest = [c.counts[fields.RNA].indices.tolist() for c in found.epoch(1, 1)]
    assert rest == [c.counts[fields.RNA].indices.tolist() for c in found.epoch(1)][1:]


def test_a_files_own_split_is_kept(tmp_path: Path) -> None:
    """Cells for testing have a count of a gene that no other has; here in an .h5mu whose rna lacks some cells."""
    part = cells(NAMES[:20], 90)
    split = np.array(["train", "valid", "test"])[np.arange(90) % 3]
    counts = part.X.toarray()
    counts[:, 0] = np.where(split == "test", 9, 0)
    part.X = sp.csr_matrix(counts)
    mdata = mu.MuData({"gex": part[5:].copy(), "atac": cells(PEAKS, 90)})
    mdata.obs[fields.SPLIT] = pd.Series(split, index=part.obs_names).reindex(mdata.obs_names).to_numpy()
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    found = streamed([tmp_path / "cells.h5mu"])
    assert found.training == int((split[5:] == "train").sum())
    assert len(found.valid()) == int((split[5:] == "valid").sum())
    for got in [found.valid(), *found.epoch(1)]:
        assert got.counts[fields.RNA][:, 0].sum() == 0
    mdata.obs[fields.SPLIT] = mdata.obs[fields.SPLIT].replace("valid", "train")  # as many do that keep no third part
    mdata.write_h5mu(tmp_path / "two.h5mu")
    found = streamed([tmp_path / "two.h5mu"])
    assert len(found.valid()) == 5 and found.training == int((split[5:] != "test").sum()) - 5
    assert sum(len(c) for c in found.epoch(1)) == found.training
    for got in [found.valid(), *found.epoch(1)]:
        assert got.counts[fields.RNA][:, 0].sum() == 0


def test_files_of_every_kind_are_one_stream(tmp_path: Path) -> None:
    dense = cells(NAMES[:20], 40, 1)
    dense.X = dense.X.toarray()
    layered = cells(NAMES[:20], 40, 2)
    layered.raw = layered.copy()
    layered.X = layered.X.astype(np.float32).log1p()
    given = [write(dense, tmp_path / "dense.h5ad"), write_10x(tmp_path / "ten.h5")]
    found = streamed([*given])
    tenx = found.sources[1]
    assert tenx.names == ("TMEM1", "TMEM2", "TMEM1", "LINC5") and tenx.cells == 6
    assert len(found.vocabulary[fields.RNA]) == 23  # a symbol that stands twice is one gene
    rows, _ = found._rows(1, 0, 6)
    assert rows.sum() == tenx.read(0, 6)[0].sum()
    raw = sources.find(write(layered, tmp_path / "raw.h5ad"), "raw")
    assert raw.place == "raw/X" and raw.read(3, 5)[0].toarray().tolist() == layered.raw.X[3:5].toarray().tolist()


def before_version_3(path: Path, genomes: tuple[str, ...]) -> Path:
    """A matrix of Cell Ranger before version 3: 5 cells, 3 genes, a group for each genome."""
    matrix = sp.csc_matrix(np.arange(15).reshape(3, 5) % 4)
    with h5py.File(path, "w") as file:
        for genome in genomes:
            group = file.create_group(genome)
            for key in ("data", "indices", "indptr"):
                group[key] = getattr(matrix, key)
            group["barcodes"] = np.array([f"ACGT{i}-1" for i in range(5)], "S")
            group["gene_names"] = np.array(["TMEM1", "TMEM2", "TMEM3"], "S")
            group["genes"] = np.array([f"ENSG0000000000{i}" for i in range(3)], "S")
    return path


def test_old_10x_files(tmp_path: Path) -> None:
    found = sources.find(before_version_3(tmp_path / "old.h5", ("hg19",)))
    assert (found.cells, found.names) == (5, ("TMEM1", "TMEM2", "TMEM3"))
    assert found.ids[1] == "ENSG00000000001"
    assert found.read(1, 4)[0].toarray().tolist() == (np.arange(15).reshape(3, 5) % 4).T[1:4].tolist()
    with pytest.raises(InputRefused, match=r"several genomes \(hg19, mm10\)"):
        sources.find(before_version_3(tmp_path / "two.h5", ("hg19", "mm10")))


def test_depth_is_that_of_the_whole_file(tmp_path: Path) -> None:
    part = cells(NAMES[:20], 40)
    plain = streamed([write(part, tmp_path / "plain.h5ad")], genes=NAMES[:5]).valid()
    assert plain.depth[fields.RNA] > plain.counts[fields.RNA].sum(1).A1 if hasattr(plain, "A1") else True
    part.obs[fields.DEPTH] = np.arange(40.0) + 1000
    found = streamed([write(part, tmp_path / "prepared.h5ad")])
    assert set(found.valid().depth[fields.RNA]) <= set(np.arange(40.0) + 1000)


def test_the_genes_asked_for_are_the_vocabulary(files: list[Path], tmp_path: Path) -> None:
    genes = tmp_path / "genes.txt"
    genes.write_text("\n".join([*NAMES[8:14], "TMEM999", NAMES[8]]) + "\n")
    done = pretrain(files, tmp_path / "out", "--genes", genes)
    assert done.code == 0, done.err
    found = pretrained.load(tmp_path / "out" / "pretrained.safetensors")
    assert found.vocabulary[fields.RNA].features == (*NAMES[8:14], "TMEM999")


def spoiled(kind: str, folder: Path) -> Path:
    """A file that holds no raw counts of RNA by cell."""
    part = cells(PEAKS if kind == "peaks" else NAMES[:20], 60)
    if kind in ("logged", "layer"):
        part.layers["counts" if kind == "layer" else "other"] = part.X.copy() if kind == "layer" else part.X * 0.5
        part.X = sp.csr_matrix(np.log1p(part.X.toarray() * 0.7))
    if kind == "scaled":
        part.X = np.asarray(part.X.toarray(), np.float32) - 1.5
    if kind == "by gene":
        part.X = part.X.tocsc()
    if kind == "later":  # where nobody looks before training
        part = cells(NAMES[:20], 2000)
        part.X = part.X.astype(np.float32)
        part.X.data[part.X.indptr[500] : part.X.indptr[510]] = 0.5
    return write(part, folder / "spoiled.h5ad")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("logged", ("not whole numbers", "--layer NAME")),
        ("layer", ("not whole numbers", "give --layer counts")),
        ("scaled", ("negative values", "raw counts")),
        ("by gene", ("stored by gene", "tocsr()")),
        ("peaks", ("no feature of it is a gene",)),
        ("later", ("are no counts", "cells 256 to 512")),
    ],
)
def test_what_holds_no_counts_is_refused(files: list[Path], tmp_path: Path, kind: str, words: tuple[str, ...]) -> None:
    path = spoiled(kind, tmp_path)
    done = pretrain([files[0], path], tmp_path / "out", "--set", "batch_size=64")
    assert done.code == 3 and str(path) in done.err and all(word in done.err for word in words), done.err
    assert not (tmp_path / "out" / "pretrained.safetensors").exists()


def test_other_refusals(files: list[Path], made: Path, tmp_path: Path) -> None:
    few, genes, table = write(cells(NAMES[:20], 12), tmp_path / "few.h5ad"), tmp_path / "genes.txt", tmp_path / "t.txt"
    genes.write_text("Pvalb\nSst\n")
    table.write_text("a\tb\nc\td\n")
    out, alone, nothing = tmp_path / "out", tmp_path / "atac.h5mu", cells(NAMES[:20], 60)
    nothing.X = nothing.X * 0
    mu.MuData({"atac": cells(PEAKS, 30), "protein": cells(NAMES[:5], 30)}).write_h5mu(alone)
    for done, code, words in (
        (pretrain([write(nothing, tmp_path / "zero.h5ad")], out), 3, "no cell has a count"),
        (pretrain([alone], out), 3, "it has atac, protein, no rna"),
        (pretrain([tmp_path / "none.h5ad"], out), 3, "no such file"),
        (pretrain([few], out), 3, "20 are needed"),
        (pretrain([files[0], files[0]], out), 2, "given twice"),
        (pretrain(files, out, "--genes", genes), 3, "none of its genes is asked for"),
        (pretrain(files, out, "--genes", table), 3, "more than one value"),
        (pretrain(files, out, "--layer", "counts"), 3, "no file has a layer 'counts'"),
        (pretrain(files, out, "--set", "heads=3"), 2, "must divide"),
        (pretrain(files, out, "--set", "mask=1"), 2, "--set mask"),
        (pretrain(files, out, "--set", "masc=1"), 2, "did you mean 'mask'"),
        (pretrain(files, made), 3, "the output exists"),
    ):
        assert done.code == code and words in done.err, (words, done)


class Reader(CrossModalModel):
    """A model with the encoder in it, as scmmgpt has."""

    def __init__(self, names: list[str], with_encoder: bool = True, ids: tuple[str, ...] | None = None, **size: int):
        modality = Modality(fields.RNA, fields.NB, fields.LOG_CP10K, tuple(names), ids)
        super().__init__(ModelSettings(), Vocabulary({fields.RNA: modality}))
        if with_encoder:
            self.inner = Perceiver(len(names), PerceiverSettings(**{**SIZE, **size}))


def test_a_training_begins_with_the_shared_genes(made: Path) -> None:
    path = made / "pretrained.safetensors"
    model = Reader([NAMES[3], "TMEM500A", NAMES[29]])
    before = model.inner.gene.detach().clone()
    found = load_into(model, path)
    assert (found["genes"], found["shared"]) == (3, 2)
    given = pretrained.load(path)
    place = given.vocabulary[fields.RNA].features.index
    for mine, name in ((0, NAMES[3]), (2, NAMES[29])):
        assert torch.equal(model.inner.gene[mine], given.weights["gene"][place(name)])
    assert torch.equal(model.inner.gene[1], before[1])
    assert torch.equal(model.inner.latents, given.weights["latents"])


def test_genes_are_also_found_by_their_ids() -> None:
    from xmodal.pretraining.initial import shared_rows

    one = Modality(fields.RNA, fields.NB, fields.LOG_CP10K, ("new", "B", "C"), ("ENSG1", "ENSG9", ""))
    two = Modality(fields.RNA, fields.NB, fields.LOG_CP10K, ("B", "old"), ("ENSG2", "ENSG1"))
    assert shared_rows(one, two).tolist() == [1, 0, -1]


def test_what_does_not_fit_is_refused(made: Path, tmp_path: Path) -> None:
    path = made / "pretrained.safetensors"
    with pytest.raises(InputRefused, match=r"width=16, this model asks for width=32.*--set width=32"):
        load_into(Reader(NAMES, width=32), path)
    with pytest.raises(InputRefused, match=r"knows 1 of the 4 genes.*same species"):
        load_into(Reader([NAMES[0], "Pvalb", "Sst", "Vip"]), path)
    with pytest.raises(UsageRefused, match="no cell encoder 'builtin'"):
        load_into(Reader(NAMES, with_encoder=False), path)
    with pytest.raises(InputRefused, match="no such file"):
        load_into(Reader(NAMES), tmp_path / "none")
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputRefused, match="not a readable safetensors file"):
        load_into(Reader(NAMES), tmp_path / "cut")
    with pytest.raises(InputRefused, match="nothing pretrained"):
        load_into(Reader(NAMES), Path(__file__).parent / "golden" / golden())
    assert "encoder.gene" in load_file(path)
    with pytest.raises(InputRefused, match=r"pretrained weights, no trained model.*--init"):
        checkpoint.read_header(path)


def golden() -> str:
    return next(p.name for p in sorted((Path(__file__).parent / "golden").glob("*.safetensors")))


def test_train_begins_with_it(tmp_path: Path) -> None:
    """`xmodal train --init`: scmmgpt reads genes as tokens, from the first step with what was pretrained."""
    adata = small.cells(30, types=tuple(n for n, t in small.TYPES.items() if t in small.SEEN), seed=7)
    rna, prepared, out = tmp_path / "rna.h5ad", tmp_path / "prepared.h5mu", tmp_path / "out"
    adata.write_h5ad(rna)
    small.ontology_file(tmp_path / "cl.tsv")
    assert pretrain([rna], out).code == 0
    assert call_xmodal("prepare", "--rna", rna, "--output", prepared, "--quiet").code == 0
    sizes = [part for k, v in SIZE.items() for part in ("--set", f"{k}={v}")]
    quick = ("epochs=2", "members=1", "folds=0", "hidden=8", "components=4", "generator_passes=0", "cell_model=builtin")
    texts = ["--ontology", tmp_path / "cl.tsv", "--text-model", tiny_bert(tmp_path / "bert")]
    asked = ("train", prepared, "--model", "scmmgpt", "--label-key", "cell_type", *texts, "--threads", 1, "--quiet")
    asked = (*asked, *(part for change in quick for part in ("--set", change)), "--device", "cpu")
    done = call_xmodal(*asked, "--output-dir", tmp_path / "m", *sizes, "--init", out / "pretrained.safetensors")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert metrics["initial"]["shared"] == metrics["initial"]["genes"] == small.GENES
    done = call_xmodal(*asked, "--output-dir", tmp_path / "n", "--init", out / "pretrained.safetensors")
    assert done.code == 3 and "train with --set latents=4 --set width=16" in done.err
    assert not (tmp_path / "n").exists()
