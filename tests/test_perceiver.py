"""The cell encoder `builtin` and its objective: what it reads, what it must not see, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import nbinom
from torch import Tensor

from xmodal.models.parts.perceiver import MaskedGenes, Perceiver, PerceiverSettings, hide, masked_loss

SMALL = PerceiverSettings(tokens=16, latents=4, width=16, layers=1, heads=2)


def cells(n: int = 12, genes: int = 40, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, log1p CP10k and depth of cells of two kinds, which differ in which half of the genes they express."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    rate = np.where((np.arange(genes) < genes // 2)[None] == (kind == 0)[:, None], 4.0, 0.2)
    counts = torch.from_numpy(rng.poisson(rate).astype(np.float32))
    depth = counts.sum(1)
    return counts, torch.log1p(1e4 * counts / depth[:, None]), depth


def encoder(genes: int = 40, settings: PerceiverSettings = SMALL) -> Perceiver:
    torch.manual_seed(0)
    return Perceiver(genes, settings).eval()


def test_latents_of_a_cell_do_not_depend_on_the_others() -> None:
    _, values, depth = cells()
    found = encoder()(values, depth)
    assert found.shape == (12, 4, 16)
    alone = torch.cat([encoder()(values[i : i + 1], depth[i : i + 1]) for i in range(12)])
    assert torch.allclose(found, alone, atol=1e-5)
    assert Perceiver.pooled(found).shape == (12, 16)


def test_cells_differ_from_the_start() -> None:
    _, values, depth = cells()
    pooled = Perceiver.pooled(encoder()(values, depth))
    assert float(pooled.std(0).mean()) > 0.01 * float(pooled.std())


def test_a_cell_without_counts_has_finite_latents_and_gradients() -> None:
    model = encoder()
    found = model(torch.zeros(3, 40), torch.zeros(3))
    found.square().sum().backward()
    assert torch.isfinite(found).all()
    assert model.gene.grad is not None and torch.isfinite(model.gene.grad).all()


def test_only_the_highest_values_are_read() -> None:
    values = torch.arange(1.0, 41.0)[None]
    other = values.clone()
    other[0, :24] *= 0.5  # the 16 highest are the last
    changed = values.clone()
    changed[0, 30] += 0.5
    model, depth = encoder(), torch.ones(1)
    assert torch.allclose(model(values, depth), model(other, depth), atol=1e-6)
    assert not torch.allclose(model(values, depth), model(changed, depth), atol=1e-6)


def test_the_order_of_genes_does_not_matter() -> None:
    _, values, depth = cells()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    every = SMALL.model_copy(update={"tokens": 40})  # of equal values beyond the limit any may be read
    model, other = encoder(settings=every), encoder(settings=every)
    other.gene.data = other.gene.data[order]
    assert torch.allclose(model(values, depth), other(values[:, order], depth), atol=1e-5)


def test_the_loss_is_the_negative_binomial_of_the_hidden_genes() -> None:
    counts, _, _ = cells()
    torch.manual_seed(1)
    task = MaskedGenes(40, SMALL)
    task.log_dispersion.data.normal_()
    log_share = torch.randn(12, 40).log_softmax(1)
    hidden = hide(counts, 0.3, torch.Generator().manual_seed(0))
    mean = (log_share.exp() * counts.sum(1, keepdim=True)).double().numpy()
    theta = task.log_dispersion.detach().exp().double().numpy()[None]
    expected = -nbinom.logpmf(counts.numpy(), theta, theta / (theta + mean))[hidden.numpy() > 0].mean()
    assert float(task.loss(counts, log_share, hidden).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_share_of_hidden_genes_is_the_one_asked_for() -> None:
    hidden = hide(torch.zeros(200, 100), 0.3, torch.Generator().manual_seed(0))
    assert float(hidden.mean()) == pytest.approx(0.3, abs=0.01)
    assert set(hidden.unique().tolist()) == {0.0, 1.0}


def test_the_encoder_sees_no_hidden_gene() -> None:
    counts, values, depth = cells()
    model, task = encoder(), MaskedGenes(40, SMALL)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hidden = hide(counts, 0.3, torch.Generator().manual_seed(0))
    masked_loss(model, task, (counts, values, depth), hidden)
    assert float((seen[0] * hidden).abs().max()) == 0
    assert torch.equal(seen[0][hidden == 0], values[hidden == 0])


def test_it_learns_more_than_the_mean_profile() -> None:
    counts, values, depth = cells(64)
    torch.manual_seed(0)
    model, task = Perceiver(40, SMALL), MaskedGenes(40, SMALL)
    task.prepare(counts.sum(0))
    optimizer = torch.optim.Adam([*model.parameters(), *task.parameters()], lr=0.01)
    for _ in range(60):
        loss, _ = masked_loss(model, task, (counts, values, depth), hide(counts, 0.3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new = cells(64, seed=1)
    with torch.no_grad():
        loss, floor = masked_loss(model.eval(), task, new, hide(new[0], 0.3, torch.Generator().manual_seed(0)))
    assert float(loss) < 0.9 * float(floor)


def test_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="tokens"):
        PerceiverSettings(tokens=0)
