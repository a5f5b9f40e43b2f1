"""Two Dockerfiles, one truth: what the image for GPUs says more, and what both take over from elsewhere."""

from __future__ import annotations

import difflib
import re

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
    script = (ROOT / "scripts/containers").read_text()
    laid = set(re.findall(r"containers/([\w-]+)", re.search(r"^    cp containers/.*", script, re.M)[0]))  # type: ignore[index]
    summed = re.search(r'^of_layer.*cat "\$1" (.*?) \|', script, re.M)[1].split()  # type: ignore[index]
    assert called <= laid
    assert called <= set(summed)
