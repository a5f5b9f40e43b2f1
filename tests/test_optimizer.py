"""The optimizer's shortcuts change nothing: every step is, bit for bit, torch's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from xmodal.learning.optimizer import AdamW, clip, in_columns


@pytest.mark.parametrize("shape", [(3, 5), (257, 129), (7,), (1, 9)])
@pytest.mark.parametrize("columns", [True, False])
def test_steps_are_torchs(shape: tuple[int, ...], columns: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(shape, generator=generator), torch.randn(3, *shape, generator=generator)

    def laid(x: torch.Tensor) -> torch.Tensor:
        return x.T.contiguous().T if columns and x.ndim == 2 else x.clone()

    found = []
    for kind in (torch.optim.AdamW, AdamW):
        weight = torch.nn.Parameter(laid(start))
        optimizer = kind([weight], lr=0.1, weight_decay=0.1, fused=True)
        for gradient in gradients:
            weight.grad = laid(gradient)
            optimizer.step()
        found.append((weight.detach().contiguous(), optimizer.state[weight]["exp_avg"].contiguous()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_gradient_may_lie_otherwise_than_its_weight() -> None:
    found = []
    for turn in (True, False):
        weight = torch.nn.Parameter(torch.ones(4, 3).T.contiguous().T)
        assert in_columns(weight)
        gradient = torch.arange(12.0).reshape(4, 3)
        weight.grad = gradient.T.contiguous().T if turn else gradient
        AdamW([weight], lr=0.1, fused=True).step()
        found.append(weight.detach().contiguous())
    assert torch.equal(*found)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0, float("nan")])
def test_clipping_is_torchs(factor: float) -> None:
    found = []
    for way in (clip, torch.nn.utils.clip_grad_norm_):
        weights = [
            torch.nn.Parameter(torch.zeros(3)),
            torch.nn.Parameter(torch.zeros(2)),
            torch.nn.Parameter(torch.zeros(1)),
        ]
        for i, weight in enumerate(weights[:2]):
            weight.grad = factor * torch.arange(1.0, len(weight) + 1) + i
        way(weights, 5.0)
        found.append(torch.cat([w.grad for w in weights[:2]]))
        assert weights[2].grad is None
    assert torch.equal(*found) or (factor != factor and bool(found[0].isnan().all()))


def test_training_imports_no_compiler() -> None:
    """It takes .8 s and 110 MB."""
    code = """
import sys, torch
from xmodal.learning.optimizer import AdamW
weight = torch.nn.Parameter(torch.ones(2, 3))
optimizer = AdamW([weight], fused=True)
for _ in range(2):
    optimizer.zero_grad()
    weight.square().sum().backward()
    optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert float(weight.detach().sum()) < 6 and not weight.grad.requires_grad
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
