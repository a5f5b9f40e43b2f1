"""What the ways for modalities to meet promise beside what every model does: nothing of a missing modality gets through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from xmodal import registry
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Labels, Vocabulary
from xmodal.errors import InputRefused
from xmodal.fields import LABEL_CODE
from xmodal.fusion.attention import CrossModal, Shape
from xmodal.fusion.blending import Blend
from xmodal.fusion.coders import Stacked, Widths, body
from xmodal.fusion.contrast import info_nce, near_as
from xmodal.fusion.fused import Fused
from xmodal.fusion.groups import Clusters, kin_of_labels, kinship
from xmodal.fusion.hiding import mean_of, one_only
from xmodal.fusion.interaction import Interaction
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.learning.training_labels import LabelRequest, of_training
from xmodal.models.interact import Interact
from xmodal.models.mfm import MFM

NAMES = [n for n in registry.names() if issubclass(registry.get(n), Fused)]


@pytest.fixture(scope="module")
def cells(prepared: Path) -> Cells:
    mdata = io.read_cells(prepared)
    return cells_of(mdata, Vocabulary.from_prepared(mdata))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, cells: Cells) -> Fused:
    model_class = registry.get(request.param)
    torch.manual_seed(0)
    built = model_class.build(parse_settings(model_class, ("epochs=3", "batch_size=64")), cells.vocabulary)
    half = np.arange(len(cells)) % 3 == 0  # a third lacks ATAC
    lacking = replace(cells, present={**cells.present, "atac": cells.present["atac"] & ~half})
    training.fit(built, lacking, cells.subset(np.arange(100)), torch.device("cpu"))
    assert isinstance(built, Fused)
    return built.eval()


def test_a_missing_modality_changes_nothing(model: Fused, cells: Cells) -> None:
    """Neither the counts of what is not present nor the other cells of the minibatch are in an embedding or a prediction."""
    whole = cells.batch(slice(0, 8))
    with torch.no_grad():
        only, emptied = whole.only("rna"), cells.batch(slice(0, 8), only="rna")
        torch.testing.assert_close(model.embed(only), model.embed(emptied), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            model.predict(whole, "rna", "atac"), model.predict(emptied, "rna", "atac"), atol=1e-5, rtol=1e-4
        )
        alone = cells.batch(slice(0, 1))
        torch.testing.assert_close(model.embed(whole)[:1], model.embed(alone), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(model.embed(only), model.embed(whole), atol=1e-3)
        nothing = cells.batch(slice(0, 2), 4)  # two rows of padding
        assert not model.embed(nothing)[2:].any()


def test_values_are_on_their_scale(model: Fused, cells: Cells) -> None:
    batch = cells.batch(slice(0, 64))
    with torch.no_grad():
        rna, atac = model.impute(batch, "rna"), model.impute(batch, "atac")
        assert rna.min() >= 0 and atac.min() >= 0 and atac.max() <= 1
        assert model.predict(batch, "atac", "rna").min() >= 0


@pytest.mark.parametrize("name", NAMES)
def test_three_modalities_and_a_table_of_values(name: str) -> None:
    """Any number of modalities, and values that are no counts; a pair that no cell has is not asked for."""
    from xmodal.data.vocabulary import Modality
    from xmodal.simulation.simulate import SimulateSettings, simulate

    simulated = simulate(SimulateSettings(cells=300, genes=30, peaks=40, third=10), 0)
    kinds = {"rna": ("nb", "log1p_cp10k"), "atac": ("bernoulli", "binary"), "protein": ("gaussian", "identity")}
    parts = simulated.mdata.mod
    vocabulary = Vocabulary({m: Modality(m, *kinds[m], tuple(parts[m].var_names)) for m in parts})
    import scipy.sparse as sp

    counts = {m: sp.csr_matrix(part.X, dtype=np.float32) for m, part in parts.items()}
    depth = {m: np.asarray(x.sum(1), np.float32).ravel() for m, x in counts.items()}
    has = {m: np.ones(300, bool) for m in parts}
    has["protein"][:100], has["atac"][100:] = False, False
    some = Cells(vocabulary, simulated.obs.index.to_numpy(str), counts, depth, has)
    model_class = registry.get(name)
    built = model_class.build(parse_settings(model_class, ("epochs=2", "batch_size=64")), vocabulary)
    training.fit(built, some.subset(np.arange(50, 300)), some.subset(np.arange(50)), torch.device("cpu"))
    with torch.no_grad():
        batch = some.batch(slice(0, 120))
        found = [built.embed(batch), built.predict(batch, "protein", "rna"), built.predict(batch, "rna", "protein")]
    assert all(bool(x.isfinite().all()) for x in found) and found[2].std(0).max() > 0


def test_the_linear_part_is_taken_alone_where_the_network_tells_nothing(cells: Cells) -> None:
    blend, generator = Blend(cells.vocabulary), torch.Generator().manual_seed(0)
    train, held = cells.subset(np.arange(300)), cells.subset(np.arange(300, len(cells)))
    blend.prepare(train)

    def noise(batch: object) -> Tensor:
        return torch.rand(len(batch), len(cells.vocabulary["rna"]), generator=generator)  # type: ignore[arg-type]

    blend.centre(train, "atac", "rna", noise)
    blend.weigh(held, "atac", "rna", noise)
    assert blend.get_buffer("weights_atac_rna")[0] < 0.1
    batch = held.batch(slice(0, 30))
    blend.weigh(held, "rna", "atac", lambda b: b.values["atac"] * 0.5)  # who knows the truth is believed
    assert blend.get_buffer("weights_rna_atac")[0] > 1
    assert blend(batch.values["atac"] * 0.5, batch, "rna", "atac").max() <= 1


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_last_layer_of_an_encoder_reads_all_hidden_ones(layers: int) -> None:
    torch.manual_seed(0)
    made, x = body(Widths(8, 4, 0.0, 0.0, layers), 5), torch.randn(6, 8)
    assert made(x).shape == (6, 5)
    assert [w.shape for n, w in made.named_parameters() if w.shape[0] == 5 and w.ndim > 1] == [(5, 8 * layers)]
    if isinstance(made, Stacked):
        with torch.no_grad():
            made.last.weight[:, 8:] = 0  # the first hidden layer alone
            torch.testing.assert_close(made(x), made.first(x) @ made.last.weight[:, :8].T + made.last.bias)


def test_hiding_keeps_one_modality_of_a_share_of_the_cells() -> None:
    torch.manual_seed(0)
    present = {"a": torch.ones(1000, dtype=torch.bool), "b": torch.arange(1000) >= 100}
    shown = one_only(present, 0.5)
    kept = shown["a"].int() + shown["b"].int()
    assert kept.min() == 1 and 0.4 < (kept[100:] == 1).float().mean() < 0.6
    assert shown["a"][:100].all() and not shown["b"][:100].any()
    z = {"a": torch.ones(3, 2), "b": 3 * torch.ones(3, 2)}
    there = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, False, False])}
    assert mean_of(z, there).tolist() == [[2, 2], [1, 1], [0, 0]]


def test_contrast_is_least_where_cells_find_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 8, generator=generator)
    assert info_nce(a, a, 0.05) < 0.1 < info_nce(a, torch.randn(40, 8, generator=generator), 0.05)
    twins = torch.cat([a, a])
    apart = ~(torch.arange(80)[:, None] % 40 == torch.arange(80)[None] % 40)
    assert info_nce(twins, twins, 0.1, apart) < info_nce(twins, twins, 0.1)  # a twin is no negative


def test_states_interact_and_what_is_missing_says_nothing() -> None:
    torch.manual_seed(0)
    layers, states = Interaction(["a", "b", "c"], 6, 2, 0.0).eval(), {m: torch.randn(4, 6) for m in "abc"}
    there = {
        "a": torch.tensor([1, 1, 1, 0]) > 0,
        "b": torch.tensor([1, 1, 0, 0]) > 0,
        "c": torch.tensor([1, 0, 0, 0]) > 0,
    }
    with torch.no_grad():
        found = layers(states, there)
        other = layers({**states, "b": states["b"] + 1, "c": states["c"] + 1}, there)
        assert not torch.allclose(found["a"][:2], other["a"][:2]) and not torch.allclose(found["c"][1], other["c"][1])
        for m in "abc":  # only `a` is there in the third cell, nothing in the fourth
            assert torch.equal(found[m][2:], other[m][2:])
        assert not torch.allclose(found["b"][2], found["b"][3])  # a state that is missing is told by one that is there


def test_interact_first_shows_one_modality_of_every_cell(cells: Cells) -> None:
    """Then of a share of them, as the other models do."""
    model_class = registry.get("interact")
    settings = parse_settings(model_class, ("epochs=4", "pretraining=0.5", "hide=0.3"))
    model = model_class.build(settings, cells.vocabulary)
    assert isinstance(model, Interact)
    model.get_buffer("cells").fill_(len(cells))
    model.train()
    assert model.pretrains() and model.hidden() == 1
    shown = one_only(cells.batch(slice(0, 50)).present, model.hidden())
    assert (shown["rna"].int() + shown["atac"].int() == 1).all()
    model.get_buffer("seen").fill_(2 * len(cells))  # half of the epochs
    assert not model.pretrains() and model.hidden() == 0.3


@pytest.mark.parametrize(("cross", "layers"), [(1, 0), (0, 1)])
def test_attention_sees_what_is_there_and_nothing_else(cross: int, layers: int) -> None:
    """Either kind of attention alone carries what one modality tells to the tokens of the other, unless it is missing."""
    torch.manual_seed(0)
    mechanism = CrossModal(["a", "b"], Shape(3, 4, 2, cross, layers, 0.5)).eval()
    states = {m: torch.randn(2, 12) for m in "ab"}
    changed = {**states, "b": states["b"] + torch.randn(2, 12)}
    present = {"a": torch.ones(2, dtype=torch.bool), "b": torch.tensor([True, False])}
    with torch.no_grad():
        before, after = mechanism(states, present), mechanism(changed, present)
        assert before.shape == (2, 6, 4)
        assert not torch.allclose(before[0, :3], after[0, :3], atol=1e-4)  # tokens of a, which b changed
        assert torch.equal(before[1], after[1])  # b is missing: neither its keys nor its own tokens are read
        nothing = mechanism(states, {m: torch.zeros(2, dtype=torch.bool) for m in "ab"})
    assert bool(nothing.isfinite().all()) and torch.equal(nothing[0], nothing[1])


@pytest.mark.parametrize("name", ["values", "type"])
def test_a_modality_called_as_a_part_of_a_model_is_refused(cells: Cells, name: str) -> None:
    vocabulary = Vocabulary({name: replace(next(iter(cells.vocabulary.modalities.values())), name=name)})
    for model in ("contrastive", "crossmp"):
        chosen = registry.get(model)
        with pytest.raises(InputRefused, match=f"cannot be called '{name}'"):
            chosen.build(parse_settings(chosen, ()), vocabulary)


def test_kinds_by_label_and_by_cluster(cells: Cells) -> None:
    """Near terms are alike by distance, those without a term only to themselves; a cell without a label to none."""
    steps = ((0, 2, -1), (2, 0, -1), (-1, -1, 0))
    labels = Labels("type", ("a", "b", "c"), ("CL:1", "CL:2", "label:c"), steps)
    assert kinship(labels, 0.5).tolist() == [[1, 0.25, 0], [0.25, 1, 0], [0, 0, 1]]
    assert torch.equal(kinship(labels, 0.0), torch.eye(3)) and torch.equal(
        kinship(replace(labels, distances=()), 0.5), torch.eye(3)
    )
    batch = replace(cells.batch(slice(0, 4)), extra={LABEL_CODE: torch.tensor([0, 1, -1, -1])})
    assert kin_of_labels(batch, kinship(labels, 0.5))[0].tolist() == [1, 0.25, 0, 0]
    assert kin_of_labels(batch, kinship(labels, 0.5))[2].tolist() == [0, 0, 1, 0]
    found = Clusters(cells.subset(np.arange(100)), 3).kin(cells.batch(slice(0, 50)))
    assert torch.equal(found, found.T) and 50 < found.sum() < 2500
    a, wanted = torch.eye(4), torch.tensor([[1.0, 1, 0, 0]] * 2 + [[0.0, 0, 1, 1]] * 2)
    apart = near_as(a, a, wanted - torch.eye(4), 0.1, own=False)
    assert near_as(wanted, wanted, wanted - torch.eye(4), 0.1, own=False) < 0.1 < apart


@pytest.mark.parametrize(("name", "setting"), [("contrastive", "positives=ontology"), ("mfm", "told=labels")])
def test_labels_teach_and_are_not_read(name: str, setting: str, cells: Cells) -> None:
    """Labels of training cells change the loss; an embedding is the same whatever new cells are called, or nothing."""
    labels = Labels("type", ("a", "b"), ("label:a", "label:b"), ((-1, -1), (-1, -1)))
    few, model_class = cells.subset(np.arange(60)), registry.get(name)
    vocabulary = replace(cells.vocabulary, labels=labels)
    few = replace(few, vocabulary=vocabulary, extra={LABEL_CODE: np.arange(60) % 2})
    torch.manual_seed(0)
    built = model_class.build(parse_settings(model_class, ("epochs=1", setting)), vocabulary)
    training.fit(built, few, few.subset(np.arange(20)), torch.device("cpu"))
    batch = few.batch(slice(0, 20))
    other, none = replace(batch, extra={LABEL_CODE: torch.arange(20) // 10}), replace(batch, extra={})
    with torch.no_grad():
        lost = [sum(float(x) for x in built.loss(b).values()) for b in (batch, other)]
        assert abs(lost[0] - lost[1]) > 1e-6
        assert torch.equal(built.embed(batch), built.embed(other)) and torch.equal(
            built.embed(batch), built.embed(none)
        )


def test_mfm_generates_one_factor_while_it_holds_the_other(cells: Cells) -> None:
    torch.manual_seed(0)
    mfm = registry.get("mfm")
    model = mfm.build(parse_settings(mfm, ("epochs=1",)), cells.vocabulary)
    training.fit(model, cells.subset(np.arange(100)), cells.subset(np.arange(100, 130)), torch.device("cpu"))
    assert isinstance(model, MFM)
    batch = cells.batch(slice(0, 10))
    with torch.no_grad():
        shared, own = model.factors(batch)
        torch.testing.assert_close(model.generate(shared, own["rna"], "rna"), model.from_network(batch, "rna"))
        atac, _ = model.factors(batch.only("atac"))
        torch.testing.assert_close(model.generate(atac, None, "rna"), model.from_network(batch.only("atac"), "rna"))
        assert not torch.equal(
            model.generate(shared, own["rna"], "rna"), model.generate(shared, own["rna"].flip(0), "rna")
        )
        assert not torch.equal(
            model.generate(shared, own["rna"], "rna"), model.generate(shared.flip(0), own["rna"], "rna")
        )


def test_a_file_without_labels_is_no_obstacle(prepared: Path) -> None:
    mdata = io.read_cells(prepared)
    model_class = registry.get("mfm")
    chosen = (model_class, parse_settings(model_class, ("told=labels",)))
    warnings: list[str] = []
    found, texts = of_training(mdata, chosen, LabelRequest(), warnings)
    assert found is not None and len(found.distances) == len(found.classes) and texts is None and not warnings
    mdata.obs = mdata.obs.drop(columns=[found.key])
    assert of_training(mdata, chosen, LabelRequest(), warnings) == (None, None) and len(warnings) == 1
    assert of_training(mdata, (model_class, model_class.Settings()), LabelRequest(), []) == (None, None)
