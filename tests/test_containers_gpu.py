"""A GPU's options reach the engine, shown with a device that is none: the plumbing, never CUDA."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers_containers import IMAGES, engine, image
from helpers_nextflow import ROOT, nextflow, pipeline, succeeded

pytestmark = pytest.mark.containers
DEVICE = "/dev/xmodal-no-gpu"
# All GPUs of a machine, as NVIDIA's toolkit describes them to podman; this one is /dev/null under another name.
SPECIFICATION = {
    "cdiVersion": "0.3.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "all", "containerEdits": {"deviceNodes": [{"path": DEVICE, "type": "c", "major": 1, "minor": 3}]}}
    ],
}
STEPS = f"""
process ON_GPU {{
    label 'process_gpu'
    container "${{task.accelerator ? '{IMAGES["gpu"]}' : '{IMAGES["cpu"]}'}}"
    output: stdout
    script: "ls {DEVICE}; xmodal --version"
}}
process ON_CPU {{
    container '{IMAGES["cpu"]}'
    output: stdout
    script: "test ! -e {DEVICE} && echo none"
}}
workflow {{
    ON_GPU().mix(ON_CPU()).view()
}}
"""


@pytest.fixture(scope="module")
def no_gpu() -> Iterator[None]:
    """The specification where podman looks for it; this folder belongs to the whole machine, so it is taken away again."""
    file = Path("/etc/cdi/xmodal-no-gpu.json")
    if os.geteuid() != 0:
        pytest.skip("skipped, because only root may write to /etc/cdi")
    for place in ("/etc/cdi", "/var/run/cdi"):
        for other in (path for kind in ("*.json", "*.yaml") for path in Path(place).glob(kind)):
            if "nvidia.com/gpu" in other.read_text():
                pytest.skip(f"skipped, because this machine has real GPUs: {other}")
    made = not file.parent.exists()
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(SPECIFICATION))
    yield
    file.unlink()
    if made:
        file.parent.rmdir()


@pytest.fixture
def podman(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(engine("podman").env))
    for kind in IMAGES:
        image(kind, "podman")


@pytest.mark.usefixtures("no_gpu", "podman")
def test_podman_gives_the_device_to_gpu_steps_only(tmp_path: Path) -> None:
    (tmp_path / "main.nf").write_text(STEPS)
    (tmp_path / "nextflow.config").write_text(f"includeConfig '{ROOT}/nextflow.config'\n")
    run = nextflow(tmp_path, "run", "main.nf", "-profile", "podman,gpu,offline")
    succeeded(run)
    lines = run.stdout.splitlines()
    assert DEVICE in lines
    assert "none" in lines
    asked = {
        IMAGES["gpu"] in text: "nvidia.com/gpu=all" in text
        for text in (p.read_text() for p in tmp_path.glob("work/*/*/.command.run"))
    }
    assert asked == {True: True, False: False}


@pytest.mark.usefixtures("no_gpu", "podman")
def test_a_gpu_that_is_none_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "site.config").write_text("process.resourceLimits = [cpus: 2, memory: 6.GB, time: 1.h]\n")
    options = ("-c", "site.config", "-profile", "test,podman,gpu,offline", "--outdir", "out", "--skip_multiqc")
    run = pipeline(tmp_path, *options)
    assert run.returncode != 0
    assert "--device cuda: " in run.stdout + run.stderr
    assert not (tmp_path / "out/models").exists()
    failed = next(p for p in tmp_path.glob("work/*/*/.command.run") if "nvidia.com/gpu=all" in p.read_text())
    assert (failed.parent / ".exitcode").read_text() == "2"
    assert IMAGES["gpu"] in failed.read_text()
