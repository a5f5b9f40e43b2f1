"""scGPT and Geneformer from folders of weights: against the same models by hand, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import helpers_annotation as small
import helpers_foundation as made
from conftest import call_xmodal
from helpers_data import PEAKS, cells
from helpers_text import tiny_bert
from xmodal import fields, foundation
from xmodal.errors import InputRefused, UsageRefused
from xmodal.foundation import geneformer, scgpt
from xmodal.foundation.files import read_weights
from xmodal.learning import checkpoint

CPU = torch.device("cpu")
GENES = [f"TMEM{i}A" for i in range(1, 31)]
IDS = [f"ENSG{i:011d}" for i in range(30)]


@pytest.fixture
def counts() -> ad.AnnData:
    """Cells of 30 genes, of which the first cell has no counts; the order of genes is not that of the vocabulary."""
    adata = cells(GENES[::-1], 7, rate=0.8)
    dense = adata.X.toarray().astype(np.float32)
    dense[0] = 0
    adata.X = sp.csr_matrix(dense)
    adata.var[fields.GENE_ID] = [f"{i}.3" for i in IDS[::-1]]
    return adata


def test_scgpt_is_the_model_by_hand(counts: ad.AnnData, tmp_path: Path) -> None:
    weights = made.scgpt(tmp_path, GENES[:28])
    found = scgpt.embed(counts, tmp_path, CPU, 3)
    assert found.shape == (7, made.WIDTH) and found.dtype == np.float32
    place = {name: i for i, name in enumerate(GENES[:28])}
    for cell in range(7):
        row = counts.X[cell].toarray().ravel()
        known = [(name, value) for name, value in zip(counts.var_names, row, strict=True) if value and name in place]
        binned = scgpt.binned(np.array([value for _, value in known], np.float32), made.BINS)
        tokens = [29, *(place[name] for name, _ in known)]  # <pad>, <cls> come after the 28 genes
        expected = made.scgpt_by_hand(weights, tokens, [-2.0, *binned])
        assert np.allclose(found[cell], expected, atol=1e-4)


def test_scgpt_without_flash_attention_has_other_names(counts: ad.AnnData, tmp_path: Path) -> None:
    made.scgpt(tmp_path / "flash", GENES)
    made.scgpt(tmp_path / "plain", GENES, flash=False)
    one, two = (scgpt.embed(counts, tmp_path / name, CPU) for name in ("flash", "plain"))
    assert np.array_equal(one, two)


def test_scgpt_reads_the_highest_genes_of_a_full_cell(counts: ad.AnnData, tmp_path: Path) -> None:
    made.scgpt(tmp_path, GENES, most=5)
    model, vocabulary, config = scgpt.read(tmp_path)
    assert config.most == 5 and not model.training
    wide = sp.csr_matrix(np.array([[1, 9, 0, 7, 3, 8, 9.0]], np.float32))
    tokens, values = scgpt.tokens_of(wide, 0, config, vocabulary["<cls>"])
    assert tokens.tolist() == [31, 1, 6, 5, 3] and len(values) == 5
    assert values[1] == values[2] > values[3] > values[4]


def test_bins_are_equal_shares_of_the_expressed_genes() -> None:
    values = np.arange(1, 101, dtype=np.float32)
    found = scgpt.binned(values, 11)
    assert found.min() >= 1 and found.max() == 10 and (np.diff(found) >= 0).all()
    assert np.bincount(found.astype(int))[1:-1].tolist() == pytest.approx([11] * 9, abs=2)
    assert len(set(scgpt.binned(np.ones(5, np.float32), 11))) == 1


@pytest.mark.parametrize("ends", [True, False])
def test_geneformer_is_the_model_by_hand(counts: ad.AnnData, tmp_path: Path, ends: bool) -> None:
    """Rank values, special tokens of the second version, mean of the genes' states in the second-to-last layer."""
    from transformers import BertModel

    made.geneformer(tmp_path, IDS[:28], ends)
    found = geneformer.embed(counts, tmp_path, CPU, 3)
    assert found.shape == (7, made.WIDTH) and not found[0].any()
    model = BertModel.from_pretrained(tmp_path, local_files_only=True, add_pooling_layer=False).eval()
    first = 4 if ends else 2
    for cell in range(1, 7):
        row = counts.X[cell].toarray().ravel()[::-1]
        scaled = {g: row[g] / (1.0 + g % 4) for g in range(28) if row[g]}
        genes = [first + g for g in sorted(scaled, key=lambda g: (-scaled[g], g))]
        tokens = [2, *genes[:22], 3] if ends else genes[:24]
        with torch.no_grad():
            states = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-2][0]
        expected = (states[1:-1] if ends else states).mean(0).numpy()
        assert np.allclose(found[cell], expected, atol=1e-5)


def test_geneformer_from_a_bin_file(counts: ad.AnnData, tmp_path: Path) -> None:
    made.geneformer(tmp_path, IDS)
    one = geneformer.embed(counts, tmp_path, CPU)
    torch.save(read_weights(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert np.array_equal(one, geneformer.embed(counts, tmp_path, CPU))


def test_ensure_puts_the_embedding_beside_the_cells(counts: ad.AnnData, tmp_path: Path) -> None:
    made.scgpt(tmp_path, GENES)
    mdata = mu.MuData({"rna": counts, "atac": cells(PEAKS, 9)})
    found, setting = foundation.ensure(mdata, f"scgpt:{tmp_path}")
    assert setting == "obsm:X_scgpt"
    rows = found.obs_names.get_indexer(counts.obs_names)
    assert np.array_equal(found.obsm["X_scgpt"][rows], scgpt.embed(counts, tmp_path, CPU))
    assert np.isnan(np.delete(found.obsm["X_scgpt"], rows, 0)).all() and found.n_obs == 9
    about = json.loads(found.uns[fields.CELL_MODEL])
    assert about == {"model": "scgpt", "sha256": foundation.digest(f"scgpt:{tmp_path}")}
    assert str(tmp_path) not in str(found.uns)
    found.write_h5mu(tmp_path / "cells.h5mu")  # it can be written
    assert foundation.ensure(mdata, "builtin-mlp") == (mdata, "builtin-mlp")
    assert foundation.is_foundation("geneformer:x") and not foundation.is_foundation("obsm:X_scgpt")
    with pytest.raises(UsageRefused, match="scgpt:DIR"):
        foundation.ensure(mdata, "scgpt:")


@pytest.mark.parametrize("name", ["args.json", "vocab.json", "best_model.pt"])
def test_a_missing_file_of_scgpt_is_named(counts: ad.AnnData, tmp_path: Path, name: str) -> None:
    made.scgpt(tmp_path, GENES)
    (tmp_path / name).unlink()
    with pytest.raises(InputRefused, match=rf"{tmp_path}: cell_model=scgpt:DIR needs {name}, which is not there"):
        scgpt.embed(counts, tmp_path, CPU)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "token_dictionary.json", "gene_median.json"])
def test_a_missing_file_of_geneformer_is_named(counts: ad.AnnData, tmp_path: Path, name: str) -> None:
    made.geneformer(tmp_path, IDS)
    (tmp_path / name).unlink()
    with pytest.raises(InputRefused, match=rf"cell_model=geneformer:DIR needs {name}, which is not there"):
        geneformer.embed(counts, tmp_path, CPU)


def test_a_missing_folder_is_named(counts: ad.AnnData, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="there is no such folder"):
        scgpt.embed(counts, tmp_path / "none", CPU)


class Evil:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code of the pickle ran",))


def test_a_pickle_with_code_is_refused_and_not_run(
    counts: ad.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.scgpt(tmp_path, GENES)
    torch.save({"weights": Evil()}, tmp_path / "best_model.pt")
    with pytest.raises(InputRefused, match=r"holds more than weights.*state_dict"):
        scgpt.embed(counts, tmp_path, CPU)
    (tmp_path / "best_model.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputRefused, match="holds more than weights"):
        scgpt.embed(counts, tmp_path, CPU)
    assert "ran" not in capsys.readouterr().out


def test_a_pickled_table_is_refused_with_the_way_out(counts: ad.AnnData, tmp_path: Path) -> None:
    """The command in the message does what it says."""
    made.geneformer(tmp_path, IDS)
    table = json.loads((tmp_path / "token_dictionary.json").read_text())
    (tmp_path / "token_dictionary.json").unlink()
    (tmp_path / "token_dictionary_gc30M.pkl").write_bytes(pickle.dumps(table))
    with pytest.raises(InputRefused, match=r"is a pickle.*json.dump") as refused:
        geneformer.embed(counts, tmp_path, CPU)
    code = str(refused.value).partition('python -c "')[2].rpartition('"')[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(code, {})
    assert geneformer.embed(counts, tmp_path, CPU).shape == (7, made.WIDTH)
    (tmp_path / "token_dictionary_2.json").write_text("{}")
    with pytest.raises(InputRefused, match="which one"):
        geneformer.embed(counts, tmp_path, CPU)


def test_files_that_do_not_belong_together_are_refused(counts: ad.AnnData, tmp_path: Path) -> None:
    made.scgpt(tmp_path / "s", GENES)
    args = json.loads((tmp_path / "s" / "args.json").read_text())
    for change, words in (
        ({"nlayers": 3}, "12 tensors do not fit args.json"),
        ({"input_emb_style": "category"}, "input_emb_style is 'category'"),
        ({"embsize": None}, "does not say embsize"),
    ):
        (tmp_path / "s" / "args.json").write_text(json.dumps({**args, **change}))
        with pytest.raises(InputRefused, match=words):
            scgpt.embed(counts, tmp_path / "s", CPU)
    (tmp_path / "s" / "vocab.json").write_text("[1]")
    with pytest.raises(InputRefused, match=r"vocab.json: this is no JSON object"):
        (tmp_path / "s" / "args.json").write_text(json.dumps(args))
        scgpt.embed(counts, tmp_path / "s", CPU)
    made.geneformer(tmp_path / "g", IDS)
    (tmp_path / "g" / "token_dictionary.json").write_text(json.dumps({"<pad>": 0, IDS[0]: 99}))
    with pytest.raises(InputRefused, match="do not belong together"):
        geneformer.embed(counts, tmp_path / "g", CPU)


def test_cells_that_do_not_fit_are_refused(counts: ad.AnnData, tmp_path: Path) -> None:
    made.scgpt(tmp_path / "s", GENES)
    made.geneformer(tmp_path / "g", IDS)
    logged = counts.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(InputRefused, match="counts are needed"):
        scgpt.embed(logged, tmp_path / "s", CPU)
    mouse = counts.copy()
    mouse.var_names = [name.capitalize() for name in mouse.var_names]
    with pytest.raises(InputRefused, match=r"scgpt knows 0 of the 30 genes.*species"):
        scgpt.embed(mouse, tmp_path / "s", CPU)
    del mouse.var[fields.GENE_ID]
    with pytest.raises(InputRefused, match=r"needs Ensembl ids, and 0 of 30.*--gene-table"):
        geneformer.embed(mouse, tmp_path / "g", CPU)
    with pytest.raises(InputRefused, match="no rna"):
        scgpt.embed(mu.MuData({"atac": cells(PEAKS, 5)}), tmp_path / "s", CPU)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells of five types, a small scGPT, and what was trained on the embedding of the cells by it."""
    folder = tmp_path_factory.mktemp("trained")
    adata = small.cells(30, types=tuple(n for n, t in small.TYPES.items() if t in small.SEEN), seed=7)
    adata.write_h5ad(folder / "rna.h5ad")
    small.ontology_file(folder / "cl.tsv")
    made.scgpt(folder / "scgpt", list(adata.var_names))
    texts = ["--ontology", folder / "cl.tsv", "--text-model", tiny_bert(folder / "bert"), "--label-key", "cell_type"]
    quick = ("epochs=2", "members=1", "folds=0", "hidden=8", "components=4", "generator_passes=0", "genes=0")
    settings = [part for change in (*quick, f"cell_model=scgpt:{folder / 'scgpt'}") for part in ("--set", change)]
    prepared, quiet = folder / "prepared.h5mu", ("--quiet", "--threads", 1, "--device", "cpu")
    done = call_xmodal("prepare", "--rna", folder / "rna.h5ad", "--output", prepared, *quiet)
    assert done.code == 0, done.err
    done = call_xmodal("train", prepared, "--model", "scmmgpt", "--output-dir", folder / "m", *settings, *texts, *quiet)
    assert done.code == 0, done.err
    return folder


def test_training_and_annotation_read_the_foundation_model(trained: Path, tmp_path: Path) -> None:
    model = trained / "m" / "model.safetensors"
    header = checkpoint.read_header(model)
    assert header["settings"]["cell_model"] == "obsm:X_scgpt" and str(trained) not in json.dumps(header)
    assert header["training"]["cell_model"]["sha256"] == foundation.digest(f"scgpt:{trained / 'scgpt'}")
    metrics = json.loads((trained / "m" / "metrics.json").read_text())
    assert metrics["cell_model"] == header["training"]["cell_model"]
    asked = ("annotate", trained / "rna.h5ad", "--checkpoint", model, "--output")
    done = call_xmodal(*asked, tmp_path / "a.h5ad", "--cell-model", f"scgpt:{trained / 'scgpt'}", "--threads", 1)
    assert done.code == 0, done.err
    made.scgpt(tmp_path / "other", list(ad.read_h5ad(trained / "rna.h5ad").var_names), seed=1)
    done = call_xmodal(*asked, tmp_path / "b.h5ad", "--cell-model", f"scgpt:{tmp_path / 'other'}", "--threads", 1)
    assert done.code == 3 and "other weights of scgpt" in done.err
    done = call_xmodal(*asked, tmp_path / "b.h5ad", "--threads", 1)
    assert done.code == 3 and "X_scgpt" in done.err


def test_no_network_is_asked(counts: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    made.geneformer(tmp_path, IDS)

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert geneformer.embed(counts, tmp_path, CPU).shape == (7, made.WIDTH)
