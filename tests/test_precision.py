"""Training in bfloat16: gradients near those of float32, the same losses, and a record of it; float32 is not touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import call_xmodal
from xmodal import precision, registry
from xmodal.data import io
from xmodal.data.batches import cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.errors import InputRefused
from xmodal.kernels import count_losses, losses
from xmodal.kernels.rows import Rows
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.learning.training_state import Keeper

CELLS, FEATURES, WIDTH = 40, 5000, 64
NEAR = 0.01  # of the gradient's length; bfloat16 keeps 8 bits
QUICK = ("--model", "crossmp", "--set", "epochs=2", "--set", "hidden=128", "--threads", 1, "--device", "cpu")
CPU = torch.device("cpu")


def bernoulli(hidden: Tensor, weight: Tensor, bias: Tensor, target: Rows) -> Tensor:
    return losses.bernoulli(hidden, (weight, bias), target, torch.full((CELLS,), 1 / CELLS))


def counts(hidden: Tensor, weight: Tensor, bias: Tensor, target: Rows) -> Tensor:
    vectors = torch.full((CELLS,), 1 / CELLS), target.sums().clamp(min=1)
    return count_losses.negative_binomial(hidden, (weight, bias), torch.zeros(FEATURES), target, vectors)


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, target: Rows) -> Tensor:
    return (F.linear(hidden, weight, bias) - target.dense()).square().mean()


def gradients(loss: Callable[..., Tensor], kind: str, valued: bool) -> tuple[float, list[Tensor]]:
    torch.manual_seed(0)
    inputs = [torch.randn(CELLS, WIDTH), 0.1 * torch.randn(FEATURES, WIDTH), torch.zeros(FEATURES)]
    hidden, weight, bias = (x.requires_grad_() for x in inputs)
    target = Rows.of(sp.random(CELLS, FEATURES, 0.05, format="csr", dtype="float32", random_state=0).ceil())
    with precision.training_in(kind), precision.step(), losses.without_values(not valued):
        found = loss(hidden, weight, bias, target)
    found.backward()  # type: ignore[no-untyped-call]  # after the step, as it may be
    return float(found.detach()), [x.grad for x in (hidden, weight, bias) if x.grad is not None]


@pytest.mark.parametrize("valued", [True, False])
@pytest.mark.parametrize("loss", [bernoulli, counts, plain])
def test_gradients_are_near_those_of_float32(loss: Callable[..., Tensor], valued: bool) -> None:
    exact, true = gradients(loss, "fp32", valued)
    value, found = gradients(loss, "bf16", valued)
    if valued:
        assert value == pytest.approx(exact, rel=1e-3)
    for a, b in zip(found, true, strict=True):
        assert a.dtype == torch.float32 and 0 < float((a - b).norm() / b.norm()) < NEAR


def test_only_a_training_step_and_large_weights_are_rounded() -> None:
    torch.manual_seed(0)
    x, large, small = torch.randn(8, 300), torch.nn.Linear(300, 100), torch.nn.Linear(300, 10)
    exact = large(x), small(x)
    with precision.training_in("bf16"):
        assert torch.equal(large(x), exact[0]) and not precision.lowered()
        with precision.step():
            assert torch.equal(small(x), exact[1])
            found = large(x)
            assert found.dtype == torch.float32 and 0 < float((found - exact[0]).detach().abs().max()) < 0.05
    with precision.step():
        assert torch.equal(large(x), exact[0])


def test_auto_is_float32_on_processors_and_what_they_imitate_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert precision.resolved("auto", CPU) == "fp32"
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_tile\n")
    assert precision.flags(told) == {"fpu", "avx512_bf16", "amx_tile"} and not precision.flags(tmp_path / "none")
    monkeypatch.setattr(precision, "flags", lambda: {"fpu", "amx_bf16"})
    assert precision.resolved("bf16", CPU) == "bf16" and not caplog.messages
    monkeypatch.setattr(precision, "flags", lambda: {"fpu"})
    assert precision.resolved("bf16", CPU) == "bf16" and "it will be slower than fp32" in caplog.text
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert precision.resolved("auto", torch.device("cuda")) == "bf16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert precision.resolved("auto", torch.device("cuda")) == "fp32"


def test_a_training_is_near_that_of_float32_and_says_what_it_was(prepared: Path, tmp_path: Path) -> None:
    told, known = [], []
    for choice in ((), ("--precision", "bf16")):
        out = tmp_path / f"out{len(choice)}"
        done = call_xmodal("train", prepared, "--output-dir", out, *QUICK, *choice)
        assert done.code == 0, done.err
        told.append(json.loads((out / "metrics.json").read_text()))
        known.append(call_xmodal("models", out / "model.safetensors").out)
    assert [metrics["precision"] for metrics in told] == ["fp32", "bf16"]
    assert "trained in: fp32" in known[0] and "trained in: bf16" in known[1]
    exact, found = (metrics["losses"]["valid_loss"] for metrics in told)
    assert exact != found and found == pytest.approx(exact, rel=5e-3)


def test_a_state_of_another_precision_is_refused(prepared: Path, tmp_path: Path) -> None:
    mdata = io.read_cells(prepared)
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata))
    cls = registry.get("crossmp")

    def fit(kind: str) -> training.Fit:
        model = cls.build(parse_settings(cls, ("epochs=1",)), cells.vocabulary)
        with precision.training_in(kind):
            return training.fit(model, cells, cells, CPU, keeper=Keeper(tmp_path / "state", "run", 0.0))

    fit("bf16")
    with pytest.raises(InputRefused, match=r"in bf16 left this state, and this one is in fp32.*give --precision bf16"):
        fit("fp32")
    assert fit("bf16").resumed == 1


def test_a_precision_that_is_none_is_a_usage_error(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal("train", prepared, "--output-dir", tmp_path / "out", *QUICK, "--precision", "fp16")
    assert done.code == 2 and "'fp16' is not one of 'auto', 'fp32', 'bf16'" in done.err
