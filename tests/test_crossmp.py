"""crossmp: its likelihoods against the definitions, its parts, and cells that lack a modality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from conftest import call_xmodal
from xmodal import registry
from xmodal.data import genes, io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.intervals import parse_peaks
from xmodal.data.vocabulary import Vocabulary
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.models.crossmp import CrossMP, to_positive
from xmodal.models.layers import Hide
from xmodal.models.likelihoods import ExpectedLog, Head, expected_log


@pytest.fixture(scope="module")
def cells(prepared: Path, simulated: Path) -> Cells:
    torch.set_num_threads(1)
    mdata = io.read_cells(prepared)
    peaks, names = parse_peaks(mdata["atac"].var_names), list(mdata["rna"].var_names)
    links = genes.links_from_distance(peaks, names, genes.read_gene_table(simulated / "genes.tsv"))
    return cells_of(mdata, Vocabulary.from_prepared(mdata, links.tocsr()))


def built(cells: Cells, *changes: str) -> CrossMP:
    torch.manual_seed(0)
    cls = registry.get("crossmp")
    model = cls.build(parse_settings(cls, changes), cells.vocabulary)
    model.prepare(cells)
    assert isinstance(model, CrossMP)
    return model


@pytest.mark.parametrize("counts", ["nb", "zinb"])
def test_count_likelihood_is_the_definition(cells: Cells, counts: str) -> None:
    """Against scipy's negative binomial, entry by entry, zero inflation included."""
    head = Head(cells.vocabulary["rna"], counts)
    head.prepare(cells)
    with torch.no_grad():
        head.log_dispersion.normal_()
        outputs = torch.randn(5, 60)
        batch = cells.batch(slice(0, 5))
        ours = head.loss(outputs, batch).double().numpy()
        share = torch.softmax(outputs + head.bias, 1).double().numpy()
        theta = head.log_dispersion.exp().double().numpy()
    x = batch.counts["rna"].numpy()
    mean = share * x.sum(1, keepdims=True)
    p = scipy.stats.nbinom.pmf(x, theta, theta / (theta + mean))
    if counts == "zinb":
        zero = 1 / (1 + np.exp(2.0))
        p = zero * (x == 0) + (1 - zero) * p
    np.testing.assert_allclose(ours, -np.log(p).mean(1), rtol=2e-4)


@pytest.mark.parametrize("depth", [50.0, 245.0, 3000.0, 40000.0])
def test_expected_log_is_what_sampling_gives(depth: float) -> None:
    shares = np.array([1e-6, 1e-4, 3e-3, 0.02, 0.3])
    rng = np.random.default_rng(0)
    sampled = np.log1p(1e4 * rng.poisson(depth * shares, (400_000, 5)) / depth)
    spread = sampled.std(0) / np.sqrt(len(sampled))
    assert (np.abs(expected_log(shares, depth) - sampled.mean(0)) < 5 * spread + 1e-3).all()
    curve = ExpectedLog()
    curve.prepare(np.full(30, depth, np.float32))
    np.testing.assert_allclose(
        curve(torch.from_numpy(np.log(shares))).numpy(), expected_log(shares, depth), rtol=5e-3, atol=1e-4
    )


def test_hiding_keeps_the_mean_and_only_acts_in_training() -> None:
    torch.manual_seed(0)
    hide, x = Hide(0.75), torch.ones(300, 401)
    hidden = hide(x)
    assert abs(float((hidden == 0).float().mean()) - 0.75) < 0.01
    assert abs(float(hidden.mean()) - 1) < 0.02
    assert not torch.equal(hide(x), hidden)
    assert hide.eval()(x) is x and Hide(0.0)(x) is x


def test_four_paths_each_with_its_loss(cells: Cells) -> None:
    losses = built(cells).loss(cells.batch(slice(0, 64)))
    assert set(losses) == {"rna_to_rna", "rna_to_atac", "atac_to_rna", "atac_to_atac"}
    sum(losses.values()).backward()  # type: ignore[union-attr]


def test_cells_without_a_modality_take_only_their_own_path(cells: Cells) -> None:
    batch = cells.batch(slice(0, 64)).only("rna")
    assert set(built(cells).loss(batch)) == {"rna_to_rna"}


def test_gene_activity_is_used_where_links_are_known(cells: Cells) -> None:
    assert built(cells).encoders["atac"].activity is not None
    assert built(cells, "gene_activity=false").encoders["atac"].activity is None


@pytest.mark.parametrize("change", ["split_chromosomes=true", "split_chromosomes=false", "rna_likelihood=zinb"])
def test_every_form_learns(cells: Cells, change: str) -> None:
    model = built(cells, change, "epochs=8", "batch_size=64")
    result = training.fit(model, cells, cells, torch.device("cpu"))
    assert result.best_loss < result.history[0]["valid_loss"]


def test_chromosomes_go_back_into_the_order_of_the_features(cells: Cells) -> None:
    """Decoding block by block must give each peak its own output, whatever order the peaks stand in."""
    decoder = built(cells, "split_chromosomes=true").decoders["atac"]
    blocks = cells.vocabulary["atac"].blocks()
    assert len(blocks) > 1
    assert torch.equal(
        torch.cat([torch.from_numpy(b) for b in blocks])[decoder.order], torch.arange(len(decoder.order))
    )


def test_latent_of_all_modalities_and_of_one(cells: Cells) -> None:
    model, batch = built(cells).eval(), cells.batch(slice(0, 32))
    both, rna, atac = model.embed(batch), model.embed(batch.only("rna")), model.embed(batch.only("atac"))
    torch.testing.assert_close(both, (rna + atac) / 2)


def test_prediction_is_on_the_measured_scale(cells: Cells) -> None:
    model = built(cells, "epochs=10", "batch_size=64")
    training.fit(model, cells, cells, torch.device("cpu"))
    with torch.no_grad():
        predicted = model.predict(cells.batch(slice(0, 480)).only("atac"), "atac", "rna").numpy()
    true = cells.values("rna")
    assert abs(predicted.mean() - true.mean()) < 0.05
    assert np.corrcoef(predicted.mean(0), true.mean(0))[0, 1] > 0.99


def test_trains_on_paired_and_single_cells(tmp_path: Path) -> None:
    sim = tmp_path / "sim"
    size = ["--cells", 360, "--genes", 40, "--peaks", 60, "--third", 10, "--unpaired-fraction", 0.4]
    assert call_xmodal("simulate", "--output-dir", sim, *size, "--no-rates").code == 0
    third = ["--likelihood", "protein=gaussian"]
    ran = call_xmodal("prepare", "--h5mu", sim / "paired.h5mu", "--output", tmp_path / "p.h5mu", *third)
    assert ran.code == 0, ran.err
    options = ["--model", "crossmp", "--set", "epochs=2", "--threads", 1]
    ran = call_xmodal("train", tmp_path / "p.h5mu", "--output-dir", tmp_path / "m", *options)
    assert ran.code == 0, ran.err
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert len(metrics["directions"]) == 6 and "valid_protein_to_rna" in metrics["losses"]


def test_low_predictions_bend_towards_zero_in_their_order() -> None:
    x = torch.tensor([[-2.0, -0.1, 0.0, 0.05, 0.1, 3.0]])
    out = to_positive(x, torch.full((6,), 0.1))
    assert (out > 0).all() and (out.diff() > 0).all()
    assert torch.equal(out[0, 4:], x[0, 4:])


def test_a_batch_that_teaches_nothing_is_passed_over(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(cells, "epochs=1", "batch_size=64")
    real, count = model.loss, 0

    def sometimes(batch: object) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        return {} if count % 2 else real(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "loss", sometimes)
    assert np.isfinite(training.fit(model, cells, cells, torch.device("cpu")).best_loss)
