"""Container engines for tests: which one runs here, and whether our images have been built."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import yaml

from helpers_nextflow import ROOT

IMAGES: dict[str, str] = yaml.safe_load((ROOT / "containers/images.yml").read_text())


@dataclass(frozen=True)
class Engine:
    """``name``: podman or docker; ``env``: what a process needs to use it here."""

    name: str
    env: Mapping[str, str] = field(repr=False)

    def __call__(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``podman ARGUMENTS``; the caller looks at the exit code."""
        command = [self.name, *arguments]
        return subprocess.run(command, env=dict(self.env), capture_output=True, text=True, timeout=timeout)

    def run(self, image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """One command in a fresh container without network."""
        return self("run", "--rm", "--no-healthcheck", "--network", "none", *options, image, *command)


@functools.cache
def _found(wanted: str) -> Engine | str:
    """The engine, or why there is none; asked as scripts/containers asks."""
    script = """
        . scripts/engine.sh
        find_engine || { echo "$no_engine" >&2; exit 1; }
        printf '%s\n' "$engine" "${CONTAINERS_CONF:-}"
    """
    env = os.environ | ({"XMODAL_ENGINE": wanted} if wanted else {})
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    if done.returncode:
        return done.stderr.strip()
    name, settings = done.stdout.splitlines()
    return Engine(name, os.environ | ({"CONTAINERS_CONF": settings} if settings else {}))


def engine(wanted: str = "") -> Engine:
    """podman or docker, whichever runs here (``wanted``: only this one); skips the test, with the reason, where none does."""
    found = _found(wanted)
    if isinstance(found, str):
        pytest.skip(f"skipped, because {found}")
    return found


def image(kind: str, wanted: str = "") -> str:
    """Name of our image (``cpu`` or ``gpu``); skips the test where `make containers` has not built it."""
    if engine(wanted)("image", "inspect", IMAGES[kind]).returncode:
        pytest.skip(f"skipped, because {IMAGES[kind]} is not there: make containers")
    return IMAGES[kind]
