"""Kernels over sparse rows against the dense form in float64, over random shapes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.kernels import count_losses, loops, losses, products
from xmodal.kernels.rows import Rows

CLOSE = 1e-6  # of the largest entry, in float32
SHAPES = [(1, 1, 1), (7, 5, 3), (40, 4097, 8), (33, 9001, 16), (5, 300, 64)]


def matrix(cells: int, features: int, seed: int, density: float = 0.05) -> sp.csr_matrix:
    """Counts with empty rows and columns, and a zero that is stored."""
    found = sp.random(cells, features, density, format="lil", dtype=np.float32, random_state=seed)
    found[:: max(2, cells // 3)] = 0
    found[:, features // 2] = 0
    out = found.tocsr()
    out.data = np.ceil(out.data * 3).astype(np.float32)
    if out.nnz:
        out.data[0] = 0
    return out


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def off(found: Tensor | None, true: Tensor | None) -> float:
    """Largest difference, of the largest entry."""
    assert found is not None and true is not None and found.dtype == torch.float32
    return float((found.double() - true).abs().max() / true.abs().max().clamp(min=1e-30))


def test_the_sigmoid_is_true_to_the_last_digits_wherever_it_is() -> None:
    logits = np.concatenate([np.linspace(-86, 86, 1_000_003), np.linspace(-1, 1, 10_007)]).astype(np.float32)
    found, none = logits[None].copy(), (np.zeros(2, np.int64), np.zeros(0, np.int32))
    sums = np.zeros(1, np.float32)
    loops.sigmoid_less(none, found, (np.full(1, 0.25, np.float32), np.ones(logits.size, np.float32), sums), 0, 1)
    true = 1 / (1 + np.exp(-(logits + np.float32(0.25)).astype(np.float64)))
    assert (np.abs(found[0] - true) / true).max() < 4e-7
    assert np.abs(found[0] - true).max() < 1.2e-7
    assert sums[0] == pytest.approx(true.sum(), rel=1e-5)


def allowed(dense: Tensor | None, true: Tensor | None) -> float:
    """What a gradient may be off: a product of 4,000 terms alone is off by more than CLOSE on processors without AVX-512."""
    return max(CLOSE, 1.2 * off(dense, true))


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_what_the_matrix_is(shape: tuple[int, int, int]) -> None:
    counts = matrix(*shape[:2], seed=0)
    rows, dense = Rows.of(counts), torch.from_numpy(counts.toarray())
    assert torch.equal(rows.dense(), dense) and len(rows) == len(dense)
    assert torch.equal(rows.sums(), dense.sum(1))
    assert torch.equal(rows.positive().dense(), (dense > 0).float())
    factor = torch.arange(len(dense)).float()
    assert torch.equal(rows.times(factor).dense(), dense * factor[:, None])
    some = torch.randint(len(dense), (9,), generator=torch.Generator().manual_seed(0))
    for index in (some, some[:0], slice(0, len(dense) // 2), torch.arange(len(dense)) % 2 == 0):
        assert torch.equal(rows.take(index).dense(), dense[index])
    padded = Rows.of(counts, len(dense) + 3)
    assert torch.equal(padded.dense()[: len(dense)], dense) and not padded.dense()[len(dense) :].any()


def test_unsorted_columns_are_sorted_and_a_modality_that_is_missing_takes_one_row() -> None:
    counts = sp.csr_matrix((np.float32([1, 2, 3]), [4, 0, 2], [0, 2, 3]), (2, 6))
    assert Rows.of(counts).column.tolist() == [0, 4, 2]
    empty = Rows.empty(5, 100)
    assert empty.dense().shape == (5, 100) and empty.dense().stride(0) == 0 and not empty.sums().any()
    assert len(empty.take(slice(0, 2))) == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_and_its_gradient(shape: tuple[int, int, int], threads: int) -> None:
    cells, features, hidden = shape
    counts = matrix(cells, features, seed=1)
    torch.manual_seed(0)
    weight, towards = torch.randn(features, hidden, requires_grad=True), torch.randn(cells, hidden)
    true = weight.detach().double().requires_grad_()
    out = products.times(Rows.of(counts), weight)
    expected = torch.from_numpy(counts.toarray()).double() @ true
    (out * towards).sum().backward()
    (expected * towards).sum().backward()
    assert off(out.detach(), expected.detach()) <= CLOSE and off(weight.grad, true.grad) <= CLOSE


def test_a_product_without_a_gradient_needs_no_numba() -> None:
    """Which takes 100 MB of every prediction."""
    code = (
        "import sys, numpy, scipy.sparse, torch; from xmodal.kernels import products; from xmodal.kernels.rows import Rows; "
        "rows = Rows.of(scipy.sparse.csr_matrix(numpy.eye(4, dtype='f4'))); weight = torch.ones(4, 2, requires_grad=True)\n"
        "with torch.no_grad(): print(products.times(rows, weight).sum().item(), 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8.0", "False"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("valued", [True, False])
def test_binary_cross_entropy_and_its_gradients(shape: tuple[int, int, int], valued: bool) -> None:
    cells, features, width = shape
    target = matrix(cells, features, seed=2)
    torch.manual_seed(1)
    inputs = [torch.randn(cells, width), 0.3 * torch.randn(features, width), torch.randn(features) - 2]
    share = torch.rand(cells)
    share[0] = 0
    hidden, weight, bias = (x.clone().requires_grad_() for x in inputs)
    with losses.without_values(not valued):
        found = losses.bernoulli(hidden, (weight, bias), Rows.of(target), share)
    (2 * found).backward()

    def dense(kind: torch.dtype) -> tuple[float, list[Tensor]]:
        given = [x.to(kind, copy=True).requires_grad_() for x in inputs]
        opened = torch.from_numpy(target.toarray() > 0).to(kind)
        each = F.binary_cross_entropy_with_logits(given[0] @ given[1].T + given[2], opened, reduction="none")
        total = each.sum(1) @ share.to(kind)
        (2 * total).backward()
        return float(total), given

    true, exact = dense(torch.float64)
    assert bool(found.isnan()) != valued
    if valued:
        assert float(found) == pytest.approx(true, rel=1e-6)
    for a, b, c in zip((hidden, weight, bias), exact, dense(torch.float32)[1], strict=True):
        assert off(a.grad, b.grad) <= allowed(c.grad, b.grad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("valued", [True, False])
@pytest.mark.parametrize("kind", ["poisson", "nb"])
@pytest.mark.parametrize("cells_at_once", [4, 10**6])  # of one alone the products themselves are not as exact
def test_losses_of_counts_and_their_gradients(
    shape: tuple[int, int, int], valued: bool, kind: str, cells_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts up to hundreds, depths that are not the sums of the counts, cells and features without any."""
    cells, features, width = shape
    monkeypatch.setattr(losses, "CHUNK", cells_at_once * features)
    target = matrix(cells, features, seed=5)
    target.data = np.ceil(target.data ** np.float32(4))
    torch.manual_seed(3)
    inputs = [
        torch.randn(cells, width),
        0.3 * torch.randn(features, width),
        torch.randn(features),
        torch.randn(features),
    ]
    share, depth = torch.rand(cells), 1 + 300 * torch.rand(cells)
    share[0] = 0
    hidden, weight, bias, log_theta = (x.clone().requires_grad_() for x in inputs)
    with losses.without_values(not valued):
        about = Rows.of(target), (share, depth)
        if kind == "nb":
            found = count_losses.negative_binomial(hidden, (weight, bias), log_theta, *about)
        else:
            found = count_losses.poisson(hidden, (weight, bias), *about)
    (2 * found).backward()

    def dense(dtype: torch.dtype) -> tuple[float, list[Tensor]]:
        given = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
        mean = depth.to(dtype)[:, None] * (given[0] @ given[1].T + given[2]).softmax(1)
        law: torch.distributions.Distribution = torch.distributions.Poisson(mean)
        if kind == "nb":
            logits = mean.log() - given[3]
            law = torch.distributions.NegativeBinomial(given[3].exp(), logits=logits, validate_args=False)
        total = -law.log_prob(torch.from_numpy(target.toarray()).to(dtype)).sum(1) @ share.to(dtype)
        (2 * total).backward()
        return float(total), given

    true, exact = dense(torch.float64)
    assert bool(found.isnan()) != valued
    if valued:
        assert float(found.detach()) == pytest.approx(true, rel=1e-6)
    own = zip((hidden, weight, bias, log_theta), exact, dense(torch.float32)[1], strict=True)
    for a, b, c in list(own)[: 4 if kind == "nb" else 3]:
        if features > 1 or b is exact[3]:
            assert off(a.grad, b.grad) <= allowed(c.grad, b.grad)
        else:
            assert a.grad is not None and b.grad is not None and float((a.grad - b.grad).abs().max()) < 1e-4


@pytest.mark.parametrize("valued", [True, False])
def test_no_cells_cost_nothing(valued: bool) -> None:
    """A process that shares a minibatch may have none of it."""
    layer = torch.randn(7, 4, requires_grad=True), torch.randn(7, requires_grad=True)
    hidden, none, rows = torch.randn(0, 4, requires_grad=True), torch.zeros(0), Rows.empty(0, 7)
    for find in (
        lambda: losses.bernoulli(hidden, layer, rows, none),
        lambda: count_losses.poisson(hidden, layer, rows, (none, none)),
        lambda: count_losses.negative_binomial(hidden, layer, torch.zeros(7), rows, (none, none)),
    ):
        with losses.without_values(not valued):
            found = find()
            found.backward()
        assert (float(found.detach()) == 0) == valued
        assert layer[0].grad is not None and not layer[0].grad.any()


def test_the_value_is_there_where_nothing_is_taught() -> None:
    """Validation losses are never left out."""
    target, share = Rows.of(matrix(6, 50, seed=3)), torch.ones(6)
    layer = torch.randn(50, 4), torch.randn(50)
    with losses.without_values():
        found = losses.bernoulli(torch.randn(6, 4), layer, target, share)
    assert found.isfinite() and not found.requires_grad


def test_extreme_logits_stay_finite() -> None:
    target = Rows.of(matrix(4, 20, seed=4, density=0.3))
    hidden, weight = torch.full((4, 1), 100.0, requires_grad=True), torch.linspace(-5, 5, 20)[:, None].requires_grad_()
    found = losses.bernoulli(hidden, (weight, torch.zeros(20)), target, torch.ones(4))
    found.backward()
    assert found.isfinite() and weight.grad is not None and weight.grad.isfinite().all()
