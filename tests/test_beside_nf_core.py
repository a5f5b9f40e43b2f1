"""Steps that nf-core has are nf-core's: its modules as they are, before and after ours, in a pipeline of somebody else.

nf-core/modules is read from a git repository on this machine: the one that ``XMODAL_NFCORE_MODULES`` names, or the one that
nf-core's tools keep.  Without either these tests are skipped.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from helpers_nextflow import ROOT, TESTDATA, example, nextflow, succeeded

pytestmark = pytest.mark.nfcore
KEPT = Path.home() / ".config/nfcore/nf-core/modules"
USED = ("modules/nf-core/multiqc", "modules/nf-core/scanpy/filter")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nf-core's modules and ours beside each other."""
    repository = Path(os.environ.get("XMODAL_NFCORE_MODULES") or KEPT)
    if not repository.exists():
        pytest.skip("nf-core/modules is not there: name a clone of it in XMODAL_NFCORE_MODULES")
    folder = tmp_path_factory.mktemp("theirs")
    done = subprocess.run(["git", "-C", str(repository), "archive", "master", *USED], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nf-core/modules cannot be read: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(ROOT / "modules/crossmodal", folder / "modules/crossmodal")
    return folder


def interface(text: str) -> tuple[list[str], list[str]]:
    """Names of the inputs and of the outputs of a process."""
    inputs, outputs = text.partition("\n    input:\n")[2].partition("\n    output:\n")[::2]
    return re.findall(r"(?:val|path)\((\w+)", inputs), re.findall(r"emit: (\w+)", outputs.partition("\n    when:")[0])


def test_our_multiqc_can_be_exchanged_for_theirs(theirs: Path) -> None:
    own, other = (f / "multiqc/main.nf" for f in (ROOT / "modules/local", theirs / "modules/nf-core"))
    assert interface(own.read_text()) == interface(other.read_text())


def test_the_pipeline_in_the_manual_runs(theirs: Path) -> None:
    (theirs / "main.nf").write_text(example("SCANPY_FILTER"))
    files = [word for name in ("rna", "atac") for word in (f"--{name}", str(TESTDATA / f"{name}.h5ad"))]
    succeeded(nextflow(theirs, "run", "main.nf", *files))
    (page,) = theirs.glob("work/*/*/multiqc_report.html")
    assert "xmodal_cells" in page.read_text()
