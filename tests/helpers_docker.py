"""A Docker daemon of the tests' own, holding our CPU image as podman built it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers_containers import IMAGES, Engine, engine, image

# What `docker run --gpus` looks for on the daemon's PATH. It does nothing: it proves that the option arrives, never CUDA.
HOOK = "nvidia-container-runtime-hook"
NEED_GB = 22  # the image once more, and its largest layer on the way


def _start(folder: Path) -> subprocess.Popen[bytes]:
    hook = folder / "bin" / HOOK
    hook.parent.mkdir(parents=True)
    hook.write_text(f'#!/bin/sh\necho "$@" >> {folder}/hook.log\n')
    hook.chmod(0o755)
    options = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    command = [
        "dockerd",
        *(f"--{name}={folder / place}" for name, place in options.items()),
        f"--host=unix://{folder}/socket",
    ]
    env = os.environ | {"PATH": f"{hook.parent}:{os.environ['PATH']}"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)


def _why_not(folder: Path) -> str:
    if os.environ.get("XMODAL_TEST_DOCKER") == "0":
        return "XMODAL_TEST_DOCKER=0: copying the image into a Docker of its own takes 5 minutes"
    if os.geteuid() != 0:
        return "a Docker daemon is started by root only"
    if not (shutil.which("dockerd") and shutil.which("docker")):
        return "there is no dockerd (apt-get install docker.io)"
    free = shutil.disk_usage(folder).free // 10**9
    return f"a second copy of the image needs {NEED_GB} GB of disk, {free} GB are free" if free < NEED_GB else ""


@contextlib.contextmanager
def docker(folder: Path) -> Iterator[Engine]:
    """Docker with our image ``cpu``; the daemon and all it holds are gone afterwards.  Skips with the reason."""
    builder = engine()
    name = image("cpu")
    if builder.name == "docker":
        yield builder
        return
    if reason := _why_not(folder):
        pytest.skip(f"skipped, because {reason}")
    daemon = _start(folder)
    found = Engine("docker", os.environ | {"DOCKER_HOST": f"unix://{folder}/socket"})
    try:
        for _ in range(60):
            if found("info").returncode == 0:
                break
            time.sleep(0.5)
        else:
            pytest.skip(f"skipped, because dockerd does not start: {(folder / 'log').read_text()[-300:]}")
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"podman save {name} | docker load"],
            env=dict(builder.env) | dict(found.env),
            check=True,
            capture_output=True,
        )
        assert found("image", "inspect", IMAGES["cpu"]).returncode == 0
        yield found
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(folder / "data", ignore_errors=True)
