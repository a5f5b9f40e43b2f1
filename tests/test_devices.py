"""Where to compute: what is said where a GPU is asked for and there is none that works.  No GPU is needed for these."""

from __future__ import annotations

import logging
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.fx.experimental._config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conftest import run_xmodal
from xmodal import devices, gpu_seen, registry
from xmodal.data import io
from xmodal.data.batches import cells_of
from xmodal.errors import UsageRefused
from xmodal.learning import checkpoint
from xmodal.models.base import GradientSettings

GOLDEN = Path(__file__).parent / "golden"

# As torch 2.9.1 has them in libtorch_python.so and libc10_cuda.so.
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
    "http://www.nvidia.com/Download/index.aspx"
)
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading and "
    "installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)
NONE = "No CUDA GPUs are available"
MISMATCH = (
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might "
    "have already set an error? Error 803: system has unsupported display driver / cuda driver combination"
)
BUILT = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Make this machine look like another: what torch says, and what is seen of the driver."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")

    def look_like(
        says: str, driver: str | None = None, library: bool = False, nodes: bool = False, inside: str = ""
    ) -> None:
        def available() -> bool:
            warnings.warn(f"CUDA initialization: {says}", stacklevel=1)
            return False

        def init() -> None:
            raise RuntimeError(says)

        (tmp_path / "dev").mkdir()
        if nodes:
            (tmp_path / "dev/nvidia0").touch()
        if driver:
            (tmp_path / "version").write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Mon Jul 19\n")
        monkeypatch.setattr(torch.cuda, "is_available", available)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(nodes))
        monkeypatch.setattr(gpu_seen, "KERNEL", (tmp_path / "version",))
        monkeypatch.setattr(gpu_seen, "NODES", tmp_path / "dev")
        monkeypatch.setattr(gpu_seen, "has_library", lambda: library)
        monkeypatch.setattr(gpu_seen, "container", lambda: inside)

    return look_like


def refusal() -> str:
    """What ``--device cuda`` is told; no warning may stand beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageRefused) as refused:
            devices.choose("cuda", 1, 0)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_no_driver(machine: Callable[..., None]) -> None:
    machine(NO_DRIVER)
    text = refusal()
    assert text.startswith("--device cuda: there is no NVIDIA driver here. Seen: ")
    assert f"torch {torch.__version__} built for CUDA 12.8, 0 devices counted, no NVIDIA driver, no libcuda" in text
    assert "--device cpu" in text


def test_a_driver_too_old_names_both_versions(machine: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    machine(TOO_OLD, "470.57.02", True, True)
    text = refusal()
    assert (
        f"the NVIDIA driver 470.57.02 supports CUDA up to 11.4, this torch {torch.__version__} needs CUDA 12.8" in text
    )
    assert "updated to 525.60.13 (the oldest for CUDA 12) or later" in text
    assert devices.choose("auto", 1, 0).type == "cpu"
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "computing on the CPU: the NVIDIA driver 470.57.02 supports CUDA up to 11.4" in caplog.text


@pytest.mark.parametrize("options", ["--gpus all", "--device nvidia.com/gpu=all", "--nv"])
def test_a_container_without_the_gpu_option(machine: Callable[..., None], options: str) -> None:
    """As there: the kernel module of the host is seen, its library is not bound in."""
    machine(NO_DRIVER, "535.104.05", inside="docker")
    text = refusal()
    assert "libcuda is not there in this container (docker)" in text and "NVIDIA driver 535.104.05, no libcuda" in text
    assert options in text


def test_hidden_by_the_scheduler(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(NONE, "535.104.05", True, True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' hides all GPUs" in refusal()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert "No CUDA GPUs are available" in refusal() and "compare CUDA_VISIBLE_DEVICES" in refusal()


def test_anything_else_is_said_in_the_words_of_torch(machine: Callable[..., None]) -> None:
    machine(MISMATCH, "535.104.05", True, True)
    assert "Error 803: system has unsupported display driver / cuda driver combination. Seen: " in refusal()


def test_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert "this torch was built without CUDA" in refusal() and "CUDA (none)" in refusal()


def test_a_gpu_that_torch_was_not_built_for(machine: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    machine("", "535.104.05", True, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_arch_list", lambda: BUILT)
        patch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
        patch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GeForce GTX 1080")
        text = refusal()
        assert devices.choose("auto", 1, 0).type == "cpu"
    assert "NVIDIA GeForce GTX 1080 has compute capability 6.1, this torch was built for sm_70, sm_75" in text
    assert "has compute capability 6.1" in caplog.text


@pytest.mark.parametrize(
    ("capability", "known", "expected"),
    [
        ((8, 9), BUILT, True),  # code of 8.6 runs on 8.9
        ((12, 1), BUILT, True),
        ((6, 1), BUILT, False),
        ((7, 2), ["sm_75"], False),  # not of a later minor version
        ((9, 0), ["sm_90a"], True),
        ((13, 0), [*BUILT, "compute_120"], True),  # compiled when it is loaded
        ((13, 0), BUILT, False),
        ((9, 0), ["gfx90a", *BUILT], True),
        ((6, 1), ["gfx90a", *BUILT], False),
        ((9, 0), ["gfx90a"], True),  # nothing is known: it has to be tried
    ],
)
def test_which_gpu_code_runs_where(capability: tuple[int, int], known: list[str], expected: bool) -> None:
    assert devices.runs(capability, known) is expected


def test_rocm_has_other_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75"])
    assert devices._architectures() == []


def test_what_torch_put_off_until_cuda_starts(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error then is no RuntimeError."""

    def late() -> list[str]:
        raise torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: device >= 0")

    machine("", "535.104.05", True, True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", late)
    assert "torch cannot use the GPU: CUDA call failed lazily" in refusal()
    assert devices.choose("auto", 1, 0).type == "cpu" and "CUDA call failed lazily" in caplog.text


def test_a_machine_without_a_driver_takes_the_cpu_in_silence(
    machine: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    machine(NO_DRIVER)
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert devices.choose("auto", 1, 0).type == "cpu"
    assert not caplog.records


def test_the_command_refuses_before_it_reads(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("skipped, because this machine has a GPU")
    (tmp_path / "not_cells.h5mu").write_text("nothing")
    where = ("--device", "cuda", "--verbose", "--output-dir", tmp_path / "out")
    done = run_xmodal("train", tmp_path / "not_cells.h5mu", *where)
    assert done.code == 2 and done.err.startswith("xmodal: error: --device cuda: ") and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


STUB = """
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 11040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
"""


@pytest.fixture(scope="module")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which torch finds a libcuda that only says its version: of CUDA 11.4."""
    if shutil.which("cc") is None or torch.version.cuda is None or torch.cuda.is_available():
        pytest.skip("skipped, because it takes a C compiler and a torch with CUDA on a machine without a GPU")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "stub.c").write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "stub.c"], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


def test_the_real_torch_with_a_driver_too_old(old_driver: dict[str, str], prepared: Path, tmp_path: Path) -> None:
    given = ("train", prepared, "--model", "mean", "--output-dir", tmp_path / "out")
    done = run_xmodal(*given, "--device", "cuda", env=old_driver)
    assert done.code == 2 and done.err.count("\n") == 1 and "Traceback" not in done.err
    assert "the NVIDIA driver supports CUDA up to 11.4, this torch" in done.err
    done = run_xmodal(*given, "--quiet", env=old_driver)
    assert done.code == 0 and done.err.count("computing on the CPU: the NVIDIA driver supports CUDA up to 11.4") == 1
    assert "UserWarning" not in done.err


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as a GPU does, with torch's device without memory in its place.

    Indices may lie on the CPU, and so may what is copied; values that a device without memory cannot tell are one.
    """

    free = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1
        tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor) and t.dim()]
        places = {t.device.type for t in tensors}
        assert len(places) < 2 or func in self.free or "index_put" in str(func), f"{func}: {places}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", registry.names())
def test_every_model_keeps_to_its_device(name: str) -> None:
    """Buffers that are left on the CPU would only be found on a GPU."""
    model = checkpoint.load(GOLDEN / f"{name}-format1.safetensors").model
    device, cells = torch.device("meta"), cells_of(io.read_cells(GOLDEN / "cells.h5mu"), model.vocabulary)
    if name == "crossmp":  # sparse products are not there without memory
        for encoder in model.encoders.values():
            encoder.activity = None
    batch = cells.batch(slice(0, 16))
    if name == "auto":  # as `prepare` leaves it
        for way in model.ways.values():
            width = model.state(way.source.name)(model._raw(batch, way.source.name)).shape[1]
            way.space, way.centres, way.smooth = (
                (way.source.name,),
                torch.ones(3, width),
                torch.ones(3, len(way.target)),
            )
    model.to(device)
    with torch.fx.experimental._config.patch(meta_nonzero_assume_all_nonzero=True), OneDevice():
        for source, target in model.directions():
            with torch.no_grad():
                out = model.eval().predict(batch.only(source).to(device), source, target)
            assert out.is_meta and out.shape == (16, len(model.vocabulary[target]))
        terms = model.train().loss(batch.to(device))
        if terms:
            torch.stack(list(terms.values())).sum().backward()
    assert all(value.is_meta for value in terms.values())
    assert bool(terms) == isinstance(model.settings, GradientSettings)
