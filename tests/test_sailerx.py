"""What `sailerx` promises beside what every model does: modalities missing, depth and batch, references, trust."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mudata as mu
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conftest import call_xmodal
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Batches, Reference, Vocabulary
from xmodal.learning import checkpoint, training
from xmodal.models.parts.projections import PearsonResiduals, project, reliability
from xmodal.models.parts.similarity import cosines, dependence, mutual_information, unlikeness
from xmodal.models.sailerx import SailerX, SailerXSettings


@pytest.fixture(scope="module")
def cells(prepared: Path) -> Cells:
    mdata = io.read_cells(prepared)
    batches = Batches("batch", tuple(sorted(set(mdata.obs["batch"].astype(str)))))
    return cells_of(mdata, replace(Vocabulary.from_prepared(mdata), batches=batches))


@pytest.fixture(scope="module")
def model(cells: Cells) -> SailerX:
    built = SailerX.build(SailerXSettings(epochs=3, batch_size=64), cells.vocabulary)
    training.fit(built, cells, cells.subset(np.arange(100)), torch.device("cpu"))
    return built.eval()


def test_a_missing_modality_changes_nothing_else(model: SailerX, cells: Cells) -> None:
    """The embedding of a cell does not depend on who else is in the minibatch, nor on the counts of what is not present."""
    whole, alone = cells.batch(slice(0, 8)), cells.batch(slice(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(model.embed(whole)[:1], model.embed(alone), atol=1e-5, rtol=1e-4)
        only = whole.only("rna")
        emptied = cells.batch(slice(0, 8), only="rna")
        torch.testing.assert_close(model.embed(only), model.embed(emptied), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(model.embed(only), model.embed(whole.only("atac")), atol=1e-2)


def test_embeddings_have_length_one_and_weights_sum_to_one(model: SailerX, cells: Cells) -> None:
    batch = cells.batch(slice(0, 32))
    with torch.no_grad():
        assert torch.allclose(model.embed(batch).norm(dim=1), torch.ones(32), atol=1e-4)
        assert torch.allclose(model.weights(batch).sum(1), torch.ones(32), atol=1e-5)
        assert torch.equal(model.weights(batch.only("rna"))[:, 0], torch.ones(32))
        nothing = cells.batch(slice(0, 2), 4)  # two rows of padding
        assert not nothing.present["rna"][2:].any() and not model.embed(nothing)[2:].any()


def test_imputed_values_are_on_the_scale_and_hold_the_cell(model: SailerX, cells: Cells) -> None:
    batch = cells.batch(slice(0, 64))
    with torch.no_grad():
        rna, atac = model.impute(batch, "rna"), model.impute(batch, "atac")
    assert rna.min() >= 0 and atac.min() >= 0 and atac.max() <= 1
    measured = batch.counts["rna"] > 0
    assert rna[measured].mean() > rna[~measured].mean()


def test_what_is_worth_little_weighs_little(cells: Cells) -> None:
    """Genes shuffled over the cells have no structure: the data, not a setting, take them out of the embedding."""
    rng = np.random.default_rng(0)
    counts = cells.counts["rna"].toarray()
    shuffled = sp.csr_matrix(np.stack([rng.permutation(column) for column in counts.T], 1))
    noise = replace(cells, counts={**cells.counts, "rna": shuffled})
    assert reliability(noise, "rna", 15) < 0.05 < reliability(cells, "rna", 15) < 1
    shares = []
    for given in (noise, cells):
        built = SailerX.build(SailerXSettings(epochs=1, batch_size=64), cells.vocabulary)
        training.fit(built, given, given.subset(np.arange(100)), torch.device("cpu"))
        with torch.no_grad():
            shares.append(float(built.weights(given.batch(slice(0, 100)))[:, 0].mean()))
    assert shares[0] < 0.7 * shares[1]


def test_what_a_cell_lacks_does_not_make_it_unlike_others(model: SailerX, cells: Cells) -> None:
    """Pairs are compared by the modalities that both cells have; of paired cells that is the cosine of the reference."""
    whole = cells.batch(slice(0, 20))
    lacking = replace(whole, present={**whole.present, "rna": whole.present["rna"] & (torch.arange(20) >= 10)})
    with torch.no_grad():
        full, known = model._wanted(whole, model._places(whole))
        reference = model._reference(whole, model._places(whole))[0]
        torch.testing.assert_close(full, cosines(reference, reference), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(known, torch.ones(20, 20))
        wanted, shared = model._wanted(lacking, model._places(lacking))
        place = model._projection("atac")(whole)
        torch.testing.assert_close(wanted[:10], cosines(place, place)[:10], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(wanted[10:, 10:], full[10:, 10:])
        assert (shared[:10] < 1).all() and torch.equal(shared[10:, 10:], known[10:, 10:])


def test_residuals_are_those_of_the_paper(cells: Cells) -> None:
    import scanpy as sc

    projection = project(cells.vocabulary["rna"], 15)
    assert isinstance(projection, PearsonResiduals)
    projection.prepare(cells)
    counts = cells.counts["rna"].toarray()
    ours = projection.residuals(torch.from_numpy(counts)).numpy()
    adata = sc.AnnData(counts.copy())
    sc.experimental.pp.normalize_pearson_residuals(adata, theta=10, clip=float(np.sqrt(len(cells)) / 3))
    np.testing.assert_allclose(ours, adata.X, atol=1e-3)


def test_pairwise_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    a, depth = torch.randn(200, 5, generator=generator), torch.randn(200, generator=generator)
    ones = torch.ones(200, 200)
    assert unlikeness(cosines(a, a), cosines(3 * a, 3 * a), ones) < 1e-10
    assert unlikeness(cosines(a, a), cosines(a, -a), ones) > 0.1
    spread = a * torch.exp(depth)[:, None]  # its mean tells nothing of the depth, its spread everything
    told = torch.cat([a[:, :4], depth[:, None]], 1)
    assert dependence(a, depth).abs() < 0.05 < dependence(spread, depth) and dependence(told, depth) > 0.1
    same = torch.zeros(10, 3)
    assert mutual_information(same, same) == pytest.approx(-1.5)  # no divergence, less half the dimensions
    assert mutual_information(a, torch.full_like(a, -2.0)) > 5


def test_a_reference_of_the_file_leads(prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 4)).astype(np.float32)
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    options = ("--model", "sailerx", "--set", "epochs=1", "--threads", 1, "--quiet")
    done = call_xmodal(
        "train", tmp_path / "cells.h5mu", *options, "--set", "reference=obsm:X_mine", "--output-dir", tmp_path / "m"
    )
    assert done.code == 0, done.err
    loaded = checkpoint.load(tmp_path / "m" / "model.safetensors")
    assert loaded.model.vocabulary.reference == Reference("X_mine", 4)
    assert tuple(loaded.model.get_buffer("depths.groups").shape) == (15, 4)
    new = (
        "--checkpoint",
        tmp_path / "m" / "model.safetensors",
        "--output",
        tmp_path / "e.h5ad",
        "--quiet",
        "--threads",
        1,
    )
    done = call_xmodal("embed", prepared, *new)  # the reference teaches; new cells need none
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--set", "reference=obsm:X_none"), 3, "obsm['X_none']"),
        (("--set", "reference=proteins"), 2, "auto, one of rna, atac"),
        (("--batch-key", "bach"), 3, "did you mean 'batch'"),
        (("--set", "similarity=-1"), 2, "similarity"),
        (("--batch-key", "cell"), 3, "cell"),
    ],
)
def test_refusals(prepared: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str) -> None:
    done = call_xmodal("train", prepared, "--model", "sailerx", "--quiet", "--output-dir", tmp_path / "m", *options)
    assert done.code == code and said in done.err, done.err
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())


def test_one_batch_is_said(prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata.obs["one"] = "a"
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    done = call_xmodal(
        "train",
        tmp_path / "cells.h5mu",
        "--model",
        "sailerx",
        "--set",
        "epochs=1",
        "--threads",
        1,
        "--output-dir",
        tmp_path / "m",
        "--batch-key",
        "one",
    )
    assert done.code == 0, done.err
    assert "of one batch, so there is none to take out" in (tmp_path / "m/metrics.json").read_text()


def test_other_models_say_that_they_take_no_batch_out(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal(
        "train", prepared, "--model", "mean", "--batch-key", "batch", "--threads", 1, "--output-dir", tmp_path / "m"
    )
    assert done.code == 0 and "takes no batches out" in (tmp_path / "m/metrics.json").read_text()
