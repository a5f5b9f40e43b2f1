"""The set-up script, the launchers in bin/, the lock and the make targets; nothing is installed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from helpers_nextflow import ROOT
from xmodal import __version__

TOOLS = (
    "bash",
    "sed",
    "grep",
    "head",
    "awk",
    "df",
    "sort",
    "cat",
    "sha256sum",
    "dirname",
    "readlink",
    "rm",
    "env",
    "cut",
)


def run(command: list[str], path: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/")} | more
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of commands that holds neither Python, nor Java, nor Nextflow, nor Maven."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in TOOLS:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a fresh clone that the set-up reads."""
    folder = tmp_path / "clone"
    for name in ("scripts/setup", "requirements.lock", "pyproject.toml", "assets/nextflow/pom.xml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def tool(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\necho '{says}' >&2\necho '{says}'\n")
    (folder / name).chmod(0o755)


def test_all_that_is_missing_is_named_at_once(bare: Path, checkout: Path) -> None:
    ended = run([str(checkout / "scripts/setup")], str(bare))
    assert ended.returncode == 1
    wanted = ("Python 3.11", "Java 17 or newer", "Nextflow 24.10.0 or newer", "apt-get install maven", "10 GB")
    assert [needed for needed in wanted if needed not in ended.stderr] == []
    assert not (checkout / ".venv").exists()


def test_what_is_too_old_is_missing_too(bare: Path, checkout: Path) -> None:
    tool(bare, "java", 'openjdk version "11.0.2" 2019-01-15')
    tool(bare, "nextflow", "      version 23.10.1 build 5891")
    tool(bare, "python3", "a Python that is new enough")
    ended = run([str(checkout / "scripts/setup")], str(bare))
    assert ended.returncode == 1
    assert "found 11" in ended.stderr and "Nextflow 24.10.0 or newer" in ended.stderr
    assert "Python 3.11" not in ended.stderr


def test_a_full_disk_is_seen_before_anything_is_fetched(bare: Path, checkout: Path) -> None:
    (bare / "df").unlink()
    tool(bare, "df", "x")
    says = "Filesystem 1024-blocks Used Available\\n/dev/x 9 9 2097152\\n"
    (bare / "df").write_text(f"#!/bin/bash\nprintf '{says}'\n")
    ended = run([str(checkout / "scripts/setup")], str(bare))
    assert "10 GB of disk" in ended.stderr and "free: 2 GB" in ended.stderr


def test_a_second_set_up_does_nothing(checkout: Path) -> None:
    """The stamp holds the folder and the digest of what was installed."""
    (checkout / ".venv/bin").mkdir(parents=True)
    tool(checkout / ".venv/bin", "xmodal", "x")
    script = "echo $PWD; cat requirements.lock pyproject.toml assets/nextflow/pom.xml scripts/setup | sha256sum"
    state = subprocess.run(["bash", "-c", script], cwd=checkout, capture_output=True, text=True, check=True).stdout
    (checkout / ".venv/.setup-done").write_text(state)
    began = time.monotonic()
    ended = run([str(checkout / "scripts/setup")], os.environ["PATH"])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.monotonic() - began < 1


def test_the_lock_pins_every_dependency_with_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==\S+", lock, re.M)}
    wanted = re.findall(r'^    "([\w.-]+)>=', (ROOT / "pyproject.toml").read_text(), re.M)
    assert wanted and {name.lower() for name in wanted} <= pinned
    assert {"hatchling", "editables", "pytest", "multiqc", "mypy", "ruff"} <= pinned
    blocks = re.split(r"\n(?=\S)", lock.strip())
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize(("name", "sub"), [("xmodal", ""), ("xmodal-train", "train"), ("xmodal-predict", "predict")])
def test_a_launcher_hands_over_to_the_installed_command(tmp_path: Path, bare: Path, name: str, sub: str) -> None:
    copy = tmp_path / "clone/bin"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "bin" / name, copy / name)
    shutil.copy(ROOT / "bin/xmodal", copy / "xmodal")
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "xmodal").write_text('#!/bin/bash\necho "got:$*"\n')
    (installed / "xmodal").chmod(0o755)
    alone = run([str(copy / name), "a b"], f"{copy}:{bare}")  # itself first on PATH, nothing installed: must not loop
    assert alone.returncode == 127 and "make setup" in alone.stderr
    ended = run([str(copy / name), "a b"], f"{copy}:{installed}:{bare}")
    assert ended.stdout == f"got:{sub + ' ' if sub else ''}a b\n"


def test_the_demo_clears_results_of_other_cells_and_keeps_its_own(tmp_path: Path) -> None:
    prepared = tmp_path / "results/demo/prepared"
    for folder in (tmp_path / "scripts", tmp_path / ".venv/bin", prepared):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/demo", tmp_path / "scripts/demo")
    (prepared / "cortex.check.json").touch()
    for name in ("nextflow", "xmodal"):
        tool(tmp_path / ".venv/bin", name, "x")
    command, path = [str(tmp_path / "scripts/demo")], f"{tmp_path}/.venv/bin:{os.environ['PATH']}"
    assert "it is cleared first" in run(command, path, XMODAL_REAL_DATA="/nowhere").stdout
    assert not prepared.exists()
    prepared.mkdir(parents=True)
    (prepared / "simulated.check.json").touch()
    assert "cleared" not in run(command, path, XMODAL_REAL_DATA="/nowhere").stdout
    assert (prepared / "simulated.check.json").exists()


def test_one_version_everywhere() -> None:
    assert f"version         = '{__version__}'" in (ROOT / "nextflow.config").read_text()
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("called", ["absolute", "relative"])
def test_a_galaxy_that_runs_is_not_removed(tmp_path: Path, called: str) -> None:
    for name in ("scripts/setup-galaxy", "tests/galaxy.lock"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    program = tmp_path / ".galaxy/bin/python"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/sleep")
    command = [str(program) if called == "absolute" else ".galaxy/bin/python", "60"]
    process = subprocess.Popen(command, cwd=tmp_path)
    try:
        ended = run([str(tmp_path / "scripts/setup-galaxy")], os.environ["PATH"])
    finally:
        process.kill()
        process.wait()
    assert ended.returncode == 0, ended.stderr
    assert f"(process {process.pid})" in ended.stderr and "stop it first" in ended.stderr
    assert program.is_symlink()
    # With the process gone it goes on: the old one is removed, and there is no .venv to make the new one with.
    assert run([str(tmp_path / "scripts/setup-galaxy")], os.environ["PATH"]).returncode != 0
    assert not program.exists()
