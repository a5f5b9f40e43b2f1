"""Memory of a GPU that is not enough: fewer cells at once, said and recorded, and the same results.  No GPU is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from conftest import call_xmodal, stopping
from xmodal import memory, registry
from xmodal.data.batches import Batch
from xmodal.learning import portions, training
from xmodal.learning.optimizer import AdamW
from xmodal.models.auto import Auto
from xmodal.models.crossmp import CrossMP

GOLDEN = Path(__file__).parent / "golden"
PREDICTING = [name for name in registry.names() if registry.get(name).only is None]
# As torch 2.9.1 says it.
WORDS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3.94 GiB of which 1.21 GiB is free. "
    "Including non-PyTorch memory, this process has 2.70 GiB memory in use."
)
QUICK = ("--set", "epochs=3", "--threads", 1, "--quiet")
Limit = Callable[..., list[int]]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Let a method of a model that takes a batch fail above so many cells; returns the sizes that were tried."""

    def limited(
        model: type, method: str, most: int, error: type[RuntimeError] = torch.cuda.OutOfMemoryError
    ) -> list[int]:
        real, tried = getattr(model, method), []

        def wrapped(self: Any, batch: Batch, *more: Any) -> Any:
            tried.append(len(batch))
            if len(batch) > most:
                torch.rand(7)  # a GPU fails late, when random numbers are used up
                raise error(WORDS)
            return real(self, batch, *more)

        monkeypatch.setattr(model, method, wrapped)
        return tried

    return limited


def command(prepared: Path, out: Path, *more: object) -> tuple[object, ...]:
    return "train", prepared, "--model", "crossmp", "--output-dir", out, *QUICK, *more


def train(prepared: Path, out: Path, *more: object) -> dict[str, Any]:
    done = call_xmodal(*command(prepared, out, *more))
    assert done.code == 0, done.err
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics | {"said": halvings(done.err)}


def halvings(text: str) -> list[str]:
    return [line for line in text.splitlines() if "memory of the GPU is not enough" in line]


@pytest.mark.parametrize(("model", "most", "first", "last"), [(CrossMP, 50, 128, 32), (Auto, 10, 16, 8)])
def test_training_goes_on_in_portions(
    limit: Limit, prepared: Path, tmp_path: Path, model: type, most: int, first: int, last: int
) -> None:
    tried = limit(model, "loss", most)
    metrics = train(prepared, tmp_path / "out", "--model", model.name, "--set", "batch_size=128")
    failed, said = [t for t in tried if t > most], metrics["said"]
    assert failed[0] == first and failed == sorted(failed, reverse=True)  # (auto takes fewer cells where there are few)
    assert len(said) == len(failed)
    assert f"for {first} cells at once; going on with {first // 2}. What to do: " in said[0]
    assert f"--set batch_size={first // 2}" in said[0]
    assert metrics["cells_at_once"] == last and metrics["settings"]["batch_size"] == 128
    assert "not for whole minibatches" in " ".join(metrics["warnings"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let trainings begin with so many cells at once, as if a GPU had failed before."""

    def begin(size: int) -> None:
        made = portions.of_training

        def of_training(cells: int) -> memory.Portions:
            found = made(cells)
            found.size = size
            return found

        monkeypatch.setattr(portions, "of_training", of_training)

    return begin


def test_a_minibatch_that_failed_leaves_no_trace(
    limit: Limit, small: Callable[[int], None], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done anew with the random numbers it had: the weights are those of portions from the start."""
    with monkeypatch.context():
        limit(CrossMP, "loss", 64)
        train(prepared, tmp_path / "failed", "--set", "batch_size=128")
    small(64)
    train(prepared, tmp_path / "small", "--set", "batch_size=128")
    failed, begun = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("failed", "small"))
    assert failed == begun


def test_a_portion_that_failed_leaves_no_trace(
    small: Callable[[int], None], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither do those before it: what batch normalisation has seen is forgotten too."""
    monkeypatch.setattr(portions, "MAY_FAIL", {"cpu"})
    real, sizes = CrossMP.loss, []

    def failing(self: CrossMP, batch: Batch) -> Any:
        terms = real(self, batch)
        sizes.append(len(batch))
        if len(sizes) == 2:
            raise torch.cuda.OutOfMemoryError(WORDS)
        return terms

    small(64)
    with monkeypatch.context() as patch:
        patch.setattr(CrossMP, "loss", failing)
        train(prepared, tmp_path / "failed", "--set", "batch_size=128")
    assert len(set(sizes[:2])) == 1 and sizes[2] <= 32 < sizes[1]
    small(32)
    train(prepared, tmp_path / "small", "--set", "batch_size=128")
    failed, begun = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("failed", "small"))
    assert failed == begun


@pytest.mark.parametrize("name", registry.names())
def test_nothing_else_changes_in_a_model_that_computes_its_loss(name: str) -> None:
    """Or it had to be set back as well."""
    from xmodal.data import io
    from xmodal.data.batches import cells_of
    from xmodal.learning import checkpoint

    model = checkpoint.load(GOLDEN / f"{name}-format1.safetensors").model
    cells = cells_of(io.read_cells(GOLDEN / "cells.h5mu"), model.vocabulary)
    if name == "auto":
        model.prepare(cells)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rewind = {id(buffer) for buffer in portions.statistics(model)}
    terms = model.train().loss(cells.batch(slice(0, 16)))
    if terms:
        torch.stack(list(terms.values())).sum().backward()
    after = model.state_dict(keep_vars=True)
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed == {key for key, value in after.items() if id(value) in rewind}
    assert bool(changed) == (name in ("contrastive", "crossmp", "husformer", "interact", "mfm", "sailerx", "scmmgpt"))


def test_a_training_that_was_stopped_goes_on_in_portions(
    limit: Limit, small: Callable[[int], None], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the GPU could not hold is in the state: stopped and unbroken have the same weights, also with more memory."""
    small(64)
    train(prepared, tmp_path / "unbroken", "--set", "batch_size=128")
    monkeypatch.undo()
    tried = limit(CrossMP, "loss", 64)
    monkeypatch.setattr(training, "one_pass", stopping(training.one_pass, 3))
    ended = call_xmodal(*command(prepared, tmp_path / "out", "--set", "batch_size=128"))
    assert ended.code == 143
    monkeypatch.undo()
    assert max(tried) == 128
    metrics = train(prepared, tmp_path / "out", "--set", "batch_size=128")
    assert metrics["timing"]["went_on_from_epoch"] == 2 and metrics["cells_at_once"] == 64
    unbroken, stopped = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("unbroken", "out"))
    assert unbroken == stopped


def test_gradients_of_portions_add_up(prepared: Path) -> None:
    """Where cells do nothing to each other (batch normalisation is off), exactly to those of the whole minibatch."""
    from xmodal.data import io
    from xmodal.data.batches import cells_of
    from xmodal.data.vocabulary import Vocabulary

    mdata = io.read_cells(prepared)
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata, None))
    torch.manual_seed(0)
    model = registry.get("crossmp").build(registry.get("crossmp").Settings(), cells.vocabulary)
    model.prepare(cells)
    running = training.start(model.eval(), 0)
    batch, found = cells.batch(slice(0, 65)), []
    for size in (65, 64, 16):
        terms = portions.gradients(running, batch, torch.device("cpu"), size)
        assert sum(n for _, n in terms) == 65 and max(n for _, n in terms) - min(n for _, n in terms) <= 1
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for some in found[1:]:
        assert len(some) == len(found[0])
        for one, other in zip(found[0], some, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_at_all_ends_with_137(limit: Limit, prepared: Path, tmp_path: Path) -> None:
    tried = limit(CrossMP, "loss", 0)
    done = call_xmodal(*command(prepared, tmp_path / "out"))
    assert done.code == 137 and tried == [240, 120, 60, 30, 15, 8]  # 240 cells are trained on
    assert done.err.startswith(
        "out of GPU memory: training does not fit, not even 8 cells at once (CUDA out of memory. "
    )
    assert "Tried to allocate 2.00 GiB). What to do: use a GPU with more memory" in done.err
    assert "more RAM for the job, does not help" in done.err
    assert not (tmp_path / "out/model.safetensors").exists()


def test_an_optimiser_that_does_not_fit_is_not_halved(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two numbers for each weight need the same memory however few cells are computed."""

    steps = []

    def step(*_: Any, **__: Any) -> None:
        steps.append(1)
        raise torch.cuda.OutOfMemoryError(WORDS)

    monkeypatch.setattr(AdamW, "step", step)
    done = call_xmodal(*command(prepared, tmp_path / "out"))
    assert done.code == 137 and "the model with its optimiser does not fit" in done.err
    assert len(steps) == 1


def test_other_errors_are_not_taken_for_it(limit: Limit, prepared: Path, tmp_path: Path) -> None:
    def other(words: str) -> RuntimeError:
        return RuntimeError("CUDA error: device-side assert triggered")

    tried = limit(CrossMP, "loss", 0, other)
    with pytest.raises(RuntimeError, match="device-side"):
        call_xmodal(*command(prepared, tmp_path / "out"))
    assert len(tried) == 1


def predict(model: str, output: Path, *more: object) -> list[str]:
    given = ("--to", "atac", "--from", "rna", "--checkpoint", GOLDEN / f"{model}-format1.safetensors")
    done = call_xmodal("predict", GOLDEN / "cells.h5mu", *given, "--output", output, "--quiet", "--threads", 1, *more)
    assert done.code == 0, done.err
    return halvings(done.err)


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize("more", [(), ("--top", 5)], ids=["all", "top"])
def test_prediction_goes_on_in_halves(limit: Limit, tmp_path: Path, name: str, more: tuple[object, ...]) -> None:
    predict(name, tmp_path / "whole.h5ad", *more)
    tried = limit(registry.get(name), "predict", 70)
    said = predict(name, tmp_path / "halves.h5ad", *more)
    assert tried[:3] == [256, 128, 64] and set(tried[3:]) <= {64}
    assert len(said) == 2 and "prediction: " in said[0] and "for 256 cells at once; going on with 128" in said[0]
    whole, halves = ad.read_h5ad(tmp_path / "whole.h5ad"), ad.read_h5ad(tmp_path / "halves.h5ad")
    pairs = [(whole.X, halves.X)] if not more else [(whole.X.data, halves.X.data)]
    pairs += [(whole.layers[key], halves.layers[key]) for key in whole.layers]
    for one, other in pairs:
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_shards_equal_the_whole_where_all_are_halved(
    limit: Limit, prepared: Path, simulated: Path, tmp_path: Path
) -> None:
    train(prepared, tmp_path / "model")
    limit(CrossMP, "predict", 100)

    def run(output: Path, *more: object) -> Path:
        given = ("--to", "atac", "--checkpoint", tmp_path / "model/model.safetensors", "--output", output)
        done = call_xmodal("predict", simulated / "rna.h5ad", *given, "--quiet", "--threads", 1, *more)
        assert done.code == 0, done.err
        return output

    whole = run(tmp_path / "whole.h5ad")
    parts = [run(tmp_path / f"{i}.h5ad", "--shard", f"{i}/2") for i in (1, 2)]
    assert call_xmodal("merge", *parts, "--output", tmp_path / "merged.h5ad").code == 0
    assert (tmp_path / "merged.h5ad").read_bytes() == whole.read_bytes()


def test_a_prediction_that_does_not_fit_at_all_leaves_nothing(limit: Limit, tmp_path: Path) -> None:
    tried = limit(CrossMP, "predict", 0)
    given = ("--to", "atac", "--from", "rna", "--checkpoint", GOLDEN / "crossmp-format1.safetensors")
    done = call_xmodal("predict", GOLDEN / "cells.h5mu", *given, "--output", tmp_path / "p.h5ad", "--quiet")
    assert done.code == 137 and tried == [256, 128, 64, 32, 16, 8, 4, 2, 1]
    assert "prediction does not fit, not even 1 cells at once" in done.err
    assert not list(tmp_path.iterdir())


def test_the_last_step_of_training_goes_to_the_cpu(prepared: Path, tmp_path: Path) -> None:
    train(prepared, tmp_path / "fine")
    real, calls = CrossMP.finish, []

    def finish(self: CrossMP, cells: Any) -> None:
        calls.append(len(cells))
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError(WORDS)
        real(self, cells)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrossMP, "finish", finish)
        metrics = train(prepared, tmp_path / "out")
    assert len(calls) == 2 and "it is done on the CPU" in metrics["said"][0]
    assert "cells_at_once" not in metrics
    fine, moved = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("fine", "out"))
    assert fine == moved


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError(WORDS), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), False),
        (MemoryError(), False),
    ],
)
def test_which_errors_are_of_the_gpus_memory(error: BaseException, expected: bool) -> None:
    assert memory.exceeded(error) is expected


def test_memory_of_the_cpu_is_another_matter() -> None:
    with pytest.raises(MemoryError, match="DefaultCPUAllocator"), memory.refusing("the model"):
        torch.empty(2**60, dtype=torch.uint8)


def test_a_modality_that_was_not_measured_takes_no_memory_elsewhere(prepared: Path) -> None:
    from xmodal.data import io
    from xmodal.data.batches import cells_of
    from xmodal.data.vocabulary import Vocabulary

    mdata = io.read_cells(prepared)
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata, None))
    moved = cells.batch(slice(0, 8), 16, "rna").rows(slice(0, 8)).to(torch.device("meta"))
    assert moved.values["atac"].stride(0) == 0 and moved.values["atac"].shape == (8, cells.counts["atac"].shape[1])
    assert moved.values["rna"].is_contiguous()


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2097152 bytes."),
            ": 2 MiB more",
        ),
        (MemoryError("Unable to allocate 1.25 GiB for an array with shape (9, 9)"), ": 1.25 GiB more"),
        (ImportError("libx.so: failed to map segment from shared object"), ". What to do"),
    ],
)
def test_too_little_memory_of_the_cpu_is_one_line(
    error: Exception, size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from xmodal import cli

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 137 and f"out of memory{size}" in said and "batch_size" in said


def test_another_error_of_torch_is_not_called_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from xmodal import cli

    def fail(**_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        cli.main()
