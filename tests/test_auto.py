"""auto: its parts against their definitions, and what its checkpoint may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from xmodal import registry
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.kernels.rows import Rows
from xmodal.learning import training
from xmodal.learning.training_state import Keeper
from xmodal.models.auto import Auto
from xmodal.models.parts import blending
from xmodal.models.parts.blending import Stacking
from xmodal.models.parts.depths import TargetDepth
from xmodal.models.parts.groups import MIN_CELLS, clustered, nearest
from xmodal.models.parts.nets import neighbours
from xmodal.models.parts.sparse import SparseLinear, group_sums, sparse_values


@pytest.fixture(scope="module")
def cells(prepared: Path) -> Cells:
    mdata = io.read_cells(prepared)
    return cells_of(mdata, Vocabulary.from_prepared(mdata, None))


@pytest.fixture(scope="module")
def halves(cells: Cells) -> tuple[Cells, Cells]:
    order = np.random.default_rng(0).permutation(len(cells))
    return cells.subset(np.sort(order[len(cells) // 4 :])), cells.subset(np.sort(order[: len(cells) // 4]))


@pytest.fixture(scope="module")
def fitted(halves: tuple[Cells, Cells]) -> Auto:
    model = registry.get("auto")
    found = model.build(model.Settings(epochs=3, refit_epochs=1, restarts=2), halves[0].vocabulary)  # type: ignore[call-arg]
    training.fit(found, *halves, torch.device("cpu"))
    assert isinstance(found, Auto)
    return found


def test_the_sparse_layer_is_a_linear_layer(cells: Cells) -> None:
    layer = SparseLinear(len(cells.vocabulary["atac"]), 4, 0.5).eval()
    x = cells.batch(slice(0, 50)).values["atac"]
    x[3] = 0  # a cell without any open peak
    for full in (slice(7, 8), slice(None)):  # all rows so full: the dense product is taken
        x[full] = 1
        rows = Rows.of(csr_matrix(x.numpy()))
        assert torch.allclose(layer(rows), x @ layer.weight + layer.bias, atol=1e-5)
        layer(rows).square().sum().backward()
        own = layer.weight.grad.clone()  # type: ignore[union-attr]
        layer.zero_grad()
        (x @ layer.weight + layer.bias).square().sum().backward()
        assert torch.allclose(own, layer.weight.grad, rtol=1e-5, atol=1e-4)  # type: ignore[arg-type]
        layer.zero_grad()


def test_input_dropout_keeps_the_mean(cells: Cells) -> None:
    torch.manual_seed(0)
    layer = SparseLinear(40, 1, 0.5, scale=1.0)
    x = torch.zeros(4000, 40)
    x[:, :4] = 1.0
    assert (layer(Rows.of(csr_matrix(x.numpy()))) - (x @ layer.weight + layer.bias)).mean().item() == pytest.approx(
        0, abs=0.1
    )


def test_group_sums_and_sparse_values(cells: Cells) -> None:
    groups = np.arange(len(cells)) % 3
    for m in ("rna", "atac"):
        sparse, dense = sparse_values(cells, m), cells.values(m)
        assert np.allclose(sparse.toarray(), dense, atol=1e-6)
        sums = group_sums(sparse, groups, 3)
        assert np.allclose(sums, [dense[groups == g].sum(0) for g in range(3)], rtol=1e-4)


def test_no_group_is_smaller_than_the_least(cells: Cells) -> None:
    states = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    states[:3] += 50  # three cells far from all others
    groups, centres = clustered(states, 8, 0)
    assert np.bincount(groups).min() >= MIN_CELLS and len(centres) == groups.max() + 1
    assert (nearest(states, centres) == groups).all()


def test_neighbours_are_of_the_same_group_and_never_the_cell_itself() -> None:
    torch.manual_seed(0)
    state = torch.nn.functional.normalize(torch.randn(12, 3), dim=1)
    group = torch.tensor([0] * 6 + [1] * 5 + [2])
    near = neighbours(state, group)
    for cell, found in enumerate(near.tolist()):
        assert all(other == -1 or (group[other] == group[cell] and other != cell) for other in found)
    assert near[-1].tolist() == [-1, -1, -1] and (near[:11] >= 0).all()


def test_stacking_finds_what_each_part_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "PRIOR_CELLS", 10.0)
    rng = np.random.default_rng(0)
    good, noise, bad = (rng.normal(size=(3000, 8)).astype(np.float32) for _ in range(3))
    true = 0.5 * good - 0.4 * bad + rng.normal(size=good.shape).astype(np.float32) + 3  # the whole batch is higher
    stack = Stacking(true.var(0).astype(np.float64), 3)
    for rows in np.array_split(np.arange(3000), 7):
        stack.add([good[rows], noise[rows], bad[rows]], true[rows])
    found = stack.weights(np.array([0.5, 0.25, 0.25]))
    assert found[0] == pytest.approx(0.5, abs=0.05) and abs(found[1]) < 0.05 and found[2] == 0
    assert stack.explained() > 0


def test_weights_are_those_before_where_no_cell_was_seen() -> None:
    before = np.array([0.5, 0.3, 0.2])
    assert np.allclose(Stacking(np.ones(4), 3).weights(before), before)


def test_depth_of_the_target_is_right_on_average(halves: tuple[Cells, Cells]) -> None:
    train, held = halves
    vocabulary = train.vocabulary
    depth = TargetDepth(vocabulary["rna"], vocabulary["atac"])
    depth.prepare(train)
    true = np.asarray((train.counts["atac"] > 0).sum(1)).ravel()
    found = torch.expm1(depth(train.batch(slice(None)))).numpy()
    assert found.mean() == pytest.approx(true.mean(), rel=0.05)
    # the simulated depths have nothing to do with each other, so nothing of the target's spread may be made up
    assert float(depth(held.batch(slice(None))).std()) < 0.5 * np.log1p(true).std()


def test_the_checkpoint_holds_no_state_and_no_cell(fitted: Auto, halves: tuple[Cells, Cells]) -> None:
    kept = fitted.state_dict()
    assert not [name for name in kept if name.startswith("states") or "smooth" in name or "centres" in name]
    assert fitted.train_cells is None
    cells = len(halves[0]) + len(halves[1])
    assert cells not in {size for tensor in kept.values() for size in tensor.shape}


def test_calibration_uses_predictions_made_before_the_validation_cells_were_fitted(
    fitted: Auto, halves: tuple[Cells, Cells]
) -> None:
    held, before = fitted.calibration(halves[1], "rna", "atac", torch.device("cpu"))
    after = fitted.predict(held.batch(slice(None)), "rna", "atac").detach().numpy()
    assert before.shape == after.shape and not np.allclose(before, after, atol=1e-6)


def test_predictions_stay_in_the_range_of_their_scale(fitted: Auto, cells: Cells) -> None:
    with torch.no_grad():
        batch = cells.batch(slice(None))
        peaks, genes = fitted.predict(batch, "rna", "atac"), fitted.predict(batch, "atac", "rna")
    assert float(peaks.min()) > 0 and float(peaks.max()) < 1 and float(genes.min()) >= 0


def test_a_stopped_run_ends_with_the_same_weights(halves: tuple[Cells, Cells], tmp_path: Path) -> None:
    kind = registry.get("auto")

    def run(keeper: Keeper | None) -> dict[str, bytes]:
        torch.manual_seed(0)
        model = kind.build(kind.Settings(epochs=3, refit_epochs=1, restarts=1), halves[0].vocabulary)  # type: ignore[call-arg]
        training.fit(model, *halves, torch.device("cpu"), keeper=keeper)
        return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}

    class Killed(Keeper):
        def epoch_done(self, running: training.Running) -> None:
            super().epoch_done(running)
            if running.epoch == 2:
                self.stopped()
                raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(Killed(state, "run"))
    assert state.exists()
    assert run(Keeper(state, "run")) == run(None)


def test_one_cycle_rises_falls_and_ends_near_nothing() -> None:
    rates = [training.one_cycle(epoch, 20) for epoch in range(20)]
    top = int(np.argmax(rates))
    assert 4 <= top <= 8 and rates[top] > 0.9 and rates[-1] < 0.05
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_few_cells_get_smaller_minibatches() -> None:
    settings = registry.get("auto").Settings()
    assert [settings.minibatch(n) for n in (100, 1200, 100_000)] == [16, 50, 128]  # type: ignore[attr-defined]
