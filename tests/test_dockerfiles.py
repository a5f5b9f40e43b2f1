"""Two Dockerfiles, one truth: what the image for GPUs says more, and what both take over from elsewhere."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers_nextflow import ROOT


def instructions(kind: str) -> list[str]:
    text = (ROOT / f"containers/{kind}/Dockerfile").read_text()
    lines = [line.rstrip(" \\") for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def pins(lock: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)( ;[^\\\n]*)?", (ROOT / lock).read_text(), re.M)
    return {f"{name}{marker.strip()}": version for name, version, marker in found}


def test_the_image_for_gpus_only_adds_what_nvidias_runtime_reads() -> None:
    changes = [line for line in difflib.ndiff(instructions("cpu"), instructions("gpu")) if line[0] in "+-"]
    assert [line.split() for line in changes] == [
        ["+", "NVIDIA_VISIBLE_DEVICES=all"],
        ["+", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"],
    ]


def test_images_hold_the_versions_that_are_tested() -> None:
    tested, held = pins("requirements.lock"), pins("containers/requirements.lock")
    assert len(held) > 100
    assert {name: version for name, version in held.items() if tested.get(name) != version} == {}


def test_what_a_layer_is_made_by_is_laid_into_its_context() -> None:
    called = set(re.findall(r"/context/([\w-]+)", (ROOT / "containers/cpu/Dockerfile").read_text()))
    assert called == set(re.findall(r"cp containers/([\w-]+) ", (ROOT / "scripts/container-context").read_text()))


PIP = """#!/bin/bash
# What the script asks of pip: a wheel of the project, and torch's CPU build from the index that is there.
dest=$(sed -n 's/.*--dest \\([^ ]*\\).*/\\1/p;s/.*--wheel-dir \\([^ ]*\\).*/\\1/p' <<<"$*")
mkdir -p "$dest"
case "$*" in
    *' wheel '*) echo own >"$dest/xmodal-0.1.0-py3-none-any.whl" ;;
    *here*torch==2.0+cpu) echo small >"$dest/torch-2.0+cpu-cp311-linux.whl" ;;
    *) echo 'ERROR: No matching distribution found' >&2; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script with a lock of three wheels, which are there, and a pip of its own."""
    for name in ("scripts/container-context", "containers/install", "containers/write-sbom"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    wheels = tmp_path / "build/containers/wheels"
    wheels.mkdir(parents=True)
    locks: dict[str, str] = {"requirements": "", "tools": ""}
    sums = []
    for lock, name in (
        ("requirements", "torch-2.0"),
        ("requirements", "numpy-1.0"),
        ("requirements", "nvidia_x-1.0"),
        ("tools", "pip-1.0"),
    ):
        wheel = wheels / f"{name}-py3-none-any.whl"
        wheel.write_text(name)
        sums.append(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()} {wheel.name}")
        locks[lock] += f"{name.replace('-', '==').replace('_', '-')} \\\n    --hash=sha256:{sums[-1].split()[0]}\n"
    for lock, text in locks.items():
        (tmp_path / f"containers/{lock}.lock").write_text(text)
    together = hashlib.sha256("".join(locks.values()).encode()).hexdigest()
    (wheels.parent / "wheels.sums").write_text("\n".join([f"{together}  -", *sums, ""]))
    (tmp_path / "pyproject.toml").write_text('version = "0.1.0"\n')
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PIP)
    python.chmod(0o755)
    return tmp_path


def laid(checkout: Path, index: str = "") -> dict[str, list[str]]:
    env = {"PATH": os.environ["PATH"], "XMODAL_TORCH_CPU_INDEX": index}
    done = subprocess.run(
        ["scripts/container-context"], cwd=checkout, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for kind in ("cpu", "gpu"):
        for layer in ("nvidia", "torch", "packages", "xmodal"):
            folder = checkout / "build/containers" / kind / layer
            found[f"{kind}/{layer}"] = sorted(p.name.split("-py3")[0] for p in folder.glob("*.whl"))
    return found


def test_a_cpu_build_of_torch_is_in_the_cpu_image_alone_and_goes_with_its_index(checkout: Path) -> None:
    without = laid(checkout)
    assert without["cpu/torch"] == without["gpu/torch"] == ["pip-1.0", "torch-2.0"]
    assert without["cpu/nvidia"] == without["gpu/nvidia"] == ["nvidia_x-1.0", "pip-1.0"]
    assert without["cpu/packages"] == ["numpy-1.0", "pip-1.0"]
    assert without["cpu/xmodal"] == ["pip-1.0", "xmodal-0.1.0"]
    with_index = laid(checkout, "here")
    assert with_index["cpu/torch"] == ["pip-1.0", "torch-2.0+cpu-cp311-linux.whl"]
    assert with_index["cpu/nvidia"] == ["pip-1.0"]
    others = set(without) - {"cpu/torch", "cpu/nvidia"}
    assert {name: with_index[name] for name in others} == {name: without[name] for name in others}
    assert laid(checkout) == without


def test_an_index_without_it_is_refused(checkout: Path) -> None:
    env = {"PATH": os.environ["PATH"], "XMODAL_TORCH_CPU_INDEX": "absent"}
    done = subprocess.run(
        ["scripts/container-context"], cwd=checkout, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "XMODAL_TORCH_CPU_INDEX: torch 2.0+cpu cannot be had (ERROR: No matching" in done.stderr
    assert "What to do" in done.stderr and not list((checkout / "build/containers").glob("wheels-cpu/*"))


def test_an_engine_that_is_none_is_refused() -> None:
    env = os.environ | {"XMODAL_ENGINE": "ls"}
    done = subprocess.run(["scripts/containers"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "containers: XMODAL_ENGINE: 'ls' is neither podman nor docker\n")
