"""The command itself: fast to start, honest about what is wrong."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from conftest import call_xmodal, run_xmodal
from xmodal import __version__
from xmodal.commands import COMMANDS


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_starts_without_torch_in_a_moment(option: str) -> None:
    code = (
        f"import sys; sys.argv = ['xmodal', '{option}']\nfrom xmodal.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'anndata', 'scanpy', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    best = 9.0
    for _ in range(5):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        best = min(best, time.monotonic() - start)
        assert done.returncode == 0, done.stderr
    assert best < 0.3
    assert __version__ in done.stdout or "Commands" in done.stdout


@pytest.mark.parametrize("name", [c.name for c in COMMANDS])
def test_every_command_has_help_without_torch(name: str) -> None:
    code = (
        f"import sys\nfrom click.testing import CliRunner\nfrom xmodal.cli import cli\n"
        f"done = CliRunner().invoke(cli, ['{name}', '--help'])\nassert done.exit_code == 0, done.output\n"
        "assert 'torch' not in sys.modules\nprint(done.output)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--threads", "--device", "--seed", "--overwrite", "--quiet", "--verbose"):
        assert option in done.stdout


def test_a_wrong_command_names_the_near_one() -> None:
    done = run_xmodal("predikt")
    assert done.code == 2 and "predict" in done.err


def test_refusals_end_with_their_code_and_one_line() -> None:
    done = run_xmodal("predict", "nothing.h5ad", "--to", "rna", "--checkpoint", __file__, "--output", "x.h5ad")
    assert done.code == 3
    assert done.err.startswith("xmodal: error: ") and "Traceback" not in done.err and done.out == ""


def test_no_gpu_is_said_plainly(prepared: object, tmp_path: object) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("skipped, because this machine has a GPU")
    done = call_xmodal("train", prepared, "--output-dir", tmp_path, "--device", "cuda", "--overwrite")
    assert done.code == 2 and "--device cpu" in done.err


def test_what_is_to_be_done_at_the_end_is_done() -> None:
    code = (
        "import atexit, sys, torch\nfrom xmodal.cli import main\natexit.register(print, 'last words')\n"
        "sys.argv = ['xmodal', '--version']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"xmodal, version {__version__}", "last words"])
