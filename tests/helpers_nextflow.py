"""Starting a real Nextflow from the tests, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTDATA = ROOT / "assets" / "testdata"
Run = subprocess.CompletedProcess[str]


def nextflow_command() -> str:
    """The Nextflow of the set-up, or the one on PATH; the test is skipped where there is none."""
    own = ROOT / ".venv" / "bin" / "nextflow"
    found = str(own) if own.exists() else shutil.which("nextflow")
    if not found:
        pytest.skip("nextflow is not there: run make setup")
    return found


def nextflow(folder: Path, *args: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run ``nextflow ARGS`` in ``folder``; colours and animation off."""
    environment = os.environ | {
        "NXF_ANSI_LOG": "false",
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    command = [nextflow_command(), *args]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def pipeline(folder: Path, *args: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run this repository's pipeline in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return nextflow(folder, "run", str(ROOT / "main.nf"), *args, timeout=timeout)


def succeeded(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, f"{run.stdout[-6000:]}\n{run.stderr[-3000:]}"


def count(run: subprocess.CompletedProcess[str], what: str) -> int:
    """Lines such as ``[ab/123456] Submitted process > ...``."""
    return sum(f"] {what} process > " in line for line in run.stdout.splitlines())


def tasks(folder: Path) -> list[Path]:
    """Everything that tasks were given to run in ``folder``."""
    return list(folder.glob("work/*/*/.command.sh"))


def example(name: str) -> str:
    """The pipeline in docs/usage.md that includes ``name``."""
    shown = re.findall(r"```nextflow\n(.*?)```", (ROOT / "docs/usage.md").read_text(), re.S)
    found: str = next(text for text in shown if f"include {{ {name}" in text)
    return found
