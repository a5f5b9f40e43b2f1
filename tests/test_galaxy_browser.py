"""The portal as a person sees it: every tool's form, and one way through from the upload to the report, in Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers_galaxy import HERE, ROOT, TEST_DATA, TOOLS, Galaxy

pytestmark = pytest.mark.galaxy
PLAYWRIGHT = ROOT / ".planemo" / "bin" / "python"
CHROMIUM = "/usr/bin/chromium"


def browse(galaxy: Galaxy, job: str, out: Path, *more: str | Path) -> dict[str, Any]:
    """What tests/galaxy/browser.py saw; it has loaded everything, and the console says no error."""
    if not PLAYWRIGHT.exists():
        pytest.skip("skipped, because Playwright is not there: scripts/setup-planemo")
    if not shutil.which(CHROMIUM):
        pytest.skip(f"skipped, because there is no {CHROMIUM}: apt-get install chromium")
    command: list[str | Path] = [PLAYWRIGHT, HERE / "browser.py", job, galaxy.url, out, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    assert answer["errors"] == []
    seen: dict[str, Any] = answer["seen"]
    return seen


def test_every_form_opens(galaxy_server: Galaxy, tmp_path: Path) -> None:
    names = [tool.stem for tool in TOOLS]
    seen = browse(galaxy_server, "forms", tmp_path, *names)
    assert list(seen) == names
    for name, form in seen.items():
        assert form["alerts"] == [], name
        assert f"{name.replace('_', ' ')}" in form["text"] and "Run Tool" in form["text"]
        assert "What you get" in form["text"], name  # the help
        assert all(form["pictures"]), name


def test_from_the_upload_to_the_report(galaxy_server: Galaxy, tmp_path: Path) -> None:
    seen = browse(galaxy_server, "predict", tmp_path, TEST_DATA / "rna.h5ad")
    sys.stdout.write(f"270 cells in the browser: {seen['run_s']} s from Run to green\n")
    assert seen["failed"] == 0 and len(seen["datasets"]) == 7
    assert "ATAC was predicted from RNA in 270 cells of rna.h5ad" in seen["report"]
    assert "system-ui" in seen["font"]  # the page has its style
    assert seen["plot"] > 600 and min(seen["pictures"]) > 300
    for picture in ("welcome", "form", "done", "report", "plot"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 10_000
