"""On a GPU: the results of the CPU within a tolerance, the same twice, going on after a stop, and memory that really ends.

The same tests run on the CPU with the device "cpu", so that what they do is known to work where no GPU can be had.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from conftest import call_xmodal, stopping
from xmodal import devices, registry
from xmodal.learning import training
from xmodal.memory import OutOfMemory, release
from xmodal.models.base import GradientSettings

WHY_NOT = devices.unusable()
ABSENT = pytest.mark.skipif(WHY_NOT is not None, reason=f"skipped, because {WHY_NOT.cause if WHY_NOT else ''}")
DEVICES = ["cpu", pytest.param("cuda", marks=(pytest.mark.gpu, ABSENT))]
MODELS = [name for name in registry.names() if registry.get(name).only is None]  # those that predict
LEARNING = [name for name in MODELS if issubclass(registry.get(name).Settings, GradientSettings)]
# float32 sums of some hundred terms in another order (TF32, which has 10 bits, is off by default for matrix products).
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Other tests find torch as it was."""
    strict = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(strict)


def train(cells: Path, out: Path, name: str, device: str, *more: object) -> Any:
    """A quick training by the command; returns what it left, or its exit code where that is not 0."""
    quick = ("--set", "epochs=3") if name in LEARNING else ()
    given = ("--model", name, "--output-dir", out, "--device", device, "--threads", 1, "--quiet")
    done = call_xmodal("train", cells, *given, *quick, *more)
    return done.code or json.loads((out / "metrics.json").read_text())


def command(cells: Path, folder: Path, output: Path, device: str) -> tuple[object, ...]:
    given = ("--to", "atac", "--from", "rna", "--checkpoint", folder / "model.safetensors", "--output", output)
    return "predict", cells, *given, "--device", device, "--threads", 1, "--quiet"


def predict(cells: Path, folder: Path, output: Path, device: str, *more: object) -> ad.AnnData:
    done = call_xmodal(*command(cells, folder, output, device), *more)
    assert done.code == 0, done.err
    return ad.read_h5ad(output)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_cpu_and_device_predict_the_same(prepared: Path, tmp_path: Path, name: str, device: str) -> None:
    """From one checkpoint, trained on the device: all values, the intervals, and the highest of each cell."""
    metrics = train(prepared, tmp_path / "model", name, device)
    assert metrics["timing"]["device"] == device and "cells_at_once" not in metrics
    found = predict(prepared, tmp_path / "model", tmp_path / "d.h5ad", device)
    cpu = predict(prepared, tmp_path / "model", tmp_path / "c.h5ad", "cpu")
    assert found.uns["xmodal"]["device"] == device and np.isfinite(found.X).all()
    np.testing.assert_allclose(found.X, cpu.X, **TOLERANCE)
    for key in cpu.layers:  # their ends have steps, and a prediction beside one falls on either side
        assert np.isclose(found.layers[key], cpu.layers[key], **TOLERANCE).mean() > 0.99
    top = predict(prepared, tmp_path / "model", tmp_path / "t.h5ad", device, "--top", 5)
    assert top.X.nnz == 5 * top.n_obs
    # which feature comes first may differ where two are alike, their values may not
    best = -np.sort(-cpu.X, 1)[:, :5]
    np.testing.assert_allclose(-np.sort(-top.X.data.reshape(-1, 5), 1), best, **TOLERANCE)


@pytest.mark.parametrize("device", DEVICES)
def test_shards_equal_the_whole(prepared: Path, tmp_path: Path, device: str) -> None:
    train(prepared, tmp_path / "model", "auto", device)
    predict(prepared, tmp_path / "model", tmp_path / "whole.h5ad", device)
    for i in (1, 2):
        predict(prepared, tmp_path / "model", tmp_path / f"{i}.h5ad", device, "--shard", f"{i}/2")
    done = call_xmodal("merge", tmp_path / "1.h5ad", tmp_path / "2.h5ad", "--output", tmp_path / "merged.h5ad")
    assert done.code == 0 and (tmp_path / "merged.h5ad").read_bytes() == (tmp_path / "whole.h5ad").read_bytes()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LEARNING)
def test_twice_and_stopped_between_give_the_same_weights(
    prepared: Path, tmp_path: Path, name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: on a GPU with the deterministic kernels that `devices.choose` asks torch for."""
    for out in ("first", "second"):
        train(prepared, tmp_path / out, name, device)
    with monkeypatch.context() as patch:
        patch.setattr(training, "one_pass", stopping(training.one_pass, 3))
        assert train(prepared, tmp_path / "stopped", name, device) == 143
    metrics = train(prepared, tmp_path / "stopped", name, device)
    assert metrics["timing"]["went_on_from_epoch"] == 2
    first, second, stopped = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("first", "second", "stopped"))
    assert first == second, "two trainings with one seed differ"
    assert first == stopped, "a training that went on differs from an unbroken one"


@pytest.mark.parametrize("device", DEVICES)
def test_training_learns_alike(prepared: Path, tmp_path: Path, device: str) -> None:
    """Random numbers of a GPU are others, so the weights differ; what was learned does not: 5 % in the loss."""
    losses = []
    for i, where in enumerate(("cpu", device)):
        metrics = train(prepared, tmp_path / f"{i}", "crossmp", where, "--set", "epochs=12", "--seed", i)
        losses.append(sum(v for k, v in metrics["losses"].items() if k == "valid_loss"))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of so many features that a minibatch of them counts against the allocator's blocks."""
    folder = tmp_path_factory.mktemp("wide")
    size = ("--cells", 700, "--genes", 4000, "--peaks", 20_000, "--no-rates", "--quiet")
    assert call_xmodal("simulate", "--output-dir", folder / "sim", *size).code == 0
    done = call_xmodal("prepare", "--h5mu", folder / "sim/paired.h5mu", "--output", folder / "cells.h5mu", "--quiet")
    assert done.code == 0, done.err
    return folder / "cells.h5mu"


@pytest.fixture
def at_most() -> Iterator[Callable[[float], None]]:
    """Let this process have only so many bytes of the GPU."""

    def limit(size: float) -> None:
        release()
        torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(0).total_memory)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def reserved(work: Callable[[], object]) -> int:
    """Most bytes that torch held of the GPU while ``work`` ran."""
    release()
    torch.cuda.reset_peak_memory_stats()
    work()
    return int(torch.cuda.max_memory_reserved())


@ABSENT
@pytest.mark.gpu
def test_memory_that_ends_halves_the_minibatch(wide: Path, tmp_path: Path, at_most: Callable[[float], None]) -> None:
    """Between what whole minibatches need and what the smallest portions need, training goes on in portions."""
    big = ("--set", "batch_size=512", "--set", "hidden=64")
    full = reserved(lambda: train(wide, tmp_path / "full", "crossmp", "cuda", *big))
    least = reserved(lambda: train(wide, tmp_path / "small", "crossmp", "cuda", "--set", "batch_size=32"))
    assert full > 1.5 * least, "the test's cells are too few for this GPU's blocks"
    at_most((full + least) / 2)
    metrics = train(wide, tmp_path / "halved", "crossmp", "cuda", *big)
    assert isinstance(metrics, dict), f"exit {metrics}"
    assert 8 <= metrics["cells_at_once"] < 512 and metrics["settings"]["batch_size"] == 512
    assert np.isfinite(list(metrics["losses"].values())).all()
    release()
    at_most(torch.cuda.memory_reserved() + 8 * 2**20)  # less than the weights
    assert train(wide, tmp_path / "none", "crossmp", "cuda", *big) == OutOfMemory.exit_code
    assert not (tmp_path / "none/model.safetensors").exists()


@ABSENT
@pytest.mark.gpu
def test_memory_that_ends_halves_the_batches_of_a_prediction(
    wide: Path, tmp_path: Path, at_most: Callable[[float], None]
) -> None:
    train(wide, tmp_path / "model", "crossmp", "cuda")
    full = reserved(lambda: predict(wide, tmp_path / "model", tmp_path / "full.h5ad", "cuda"))
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        at_most(share * full)
        done = call_xmodal(*command(wide, tmp_path / "model", tmp_path / f"{share}.h5ad", "cuda"))
        assert done.code == 0, done.err
        if "going on with" in done.err:
            break
    else:
        pytest.fail("memory never ended")
    halved, whole = ad.read_h5ad(tmp_path / f"{share}.h5ad").X, ad.read_h5ad(tmp_path / "full.h5ad").X
    np.testing.assert_allclose(halved, whole, **TOLERANCE)


@ABSENT
@pytest.mark.gpu
def test_auto_takes_the_gpu_and_says_which(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xmodal")
    assert devices.choose("auto", 1, 0).type == "cuda"
    assert torch.cuda.get_device_name() in caplog.text
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import gpu

    yield gpu
    for name in set(sys.modules) - before:
        if "benchmarks" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("device", DEVICES)
def test_the_benchmark_measures(
    benchmark: ModuleType, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(benchmark, "MODELS", {"crossmp": ("--set", "epochs=1")})
    rows = benchmark.measured(prepared, tmp_path, (device,))
    assert [(r.model, r.step, r.device) for r in rows] == [("crossmp", s, device) for s in ("train", "predict")]
    assert all(r.seconds > 0 and r.cells == 480 for r in rows)
    lines = benchmark.table(rows).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1


def test_the_benchmark_reads_what_nvidia_smi_says(benchmark: ModuleType, tmp_path: Path) -> None:
    fake, count = tmp_path / "nvidia-smi", tmp_path / "count"
    says = "case $n in 1) echo 10, 500 ;; 2) echo 90, 2500 ;; *) echo '[N/A], 2500' ;; esac"
    fake.write_text(f"#!/bin/sh\necho >> {count}\nn=$(wc -l < {count})\n{says}\n")
    fake.chmod(0o755)
    with benchmark.Sampling((str(fake),)) as samples:
        samples.wait_for(3)
    assert samples.busy() == (50.0, 90.0) and samples.most_mib() == 2500
    for absent in ((str(tmp_path / "absent"),), ()):
        with benchmark.Sampling(absent) as none:
            pass
        assert none.busy() is None and none.most_mib() is None


@pytest.mark.skipif(WHY_NOT is None, reason="skipped, because there is a GPU")
def test_the_benchmark_says_why_it_is_skipped(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([]) == 0
    assert capsys.readouterr().out.startswith("skipped, because ")
