"""What all tests share: small simulated cells, prepared once for the session, and the command as a user calls it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xmodal import caches

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault(
    "XMODAL_ONTOLOGY", str(Path(__file__).parent / "golden" / "terms.tsv")
)  # the whole takes a minute
caches.provide()  # as each command does: where the home cannot be written, umap could not be imported
XMODAL = str(Path(sys.executable).with_name("xmodal"))


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str


def run_xmodal(*args: object, env: dict[str, str] | None = None) -> Ran:
    """Run the installed command; never raises."""
    done = subprocess.run(
        [XMODAL, *map(str, args)], capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def call_xmodal(*args: object) -> Ran:
    """The command in this process: no second import of torch.  Same arguments, same exit codes."""
    from click.testing import CliRunner

    from xmodal.cli import cli
    from xmodal.errors import XmodalError

    done = CliRunner().invoke(cli, [str(a) for a in args])
    if isinstance(done.exception, XmodalError):
        return Ran(done.exception.exit_code, done.output, str(done.exception))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of simulated raw files: 480 cells, 60 genes, 90 peaks, 6 batches."""
    folder = tmp_path_factory.mktemp("simulated") / "sim"
    done = call_xmodal(
        "simulate", "--output-dir", folder, "--cells", 480, "--genes", 60, "--peaks", 90, "--no-rates", "--quiet"
    )
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="session")
def prepared(simulated: Path) -> Path:
    """The simulated cells as `xmodal prepare` writes them."""
    path = simulated.parent / "prepared.h5mu"
    done = call_xmodal("prepare", "--h5mu", simulated / "paired.h5mu", "--output", path, "--quiet")
    assert done.code == 0, done.err
    return path


def stopping(work: Callable[..., Any], *turns: int) -> Callable[..., Any]:
    """``work``, but the calls ``turns``, counted from 1, end the program as SIGTERM does."""
    count = itertools.count(1)

    def stopped(*args: Any) -> Any:
        if next(count) in turns:
            raise SystemExit(143)
        return work(*args)

    return stopped


def terminated(*args: object, after: str = "epoch 3/") -> None:
    """Run the installed command and stop it by SIGTERM once it has said ``after``; it must end with 143."""
    process = subprocess.Popen([XMODAL, *map(str, args)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if after in line:
            process.terminate()
            break
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.fixture(scope="session")
def galaxy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Galaxy with all tools, the portal's settings and the demonstration model; a helpers_galaxy.Galaxy."""
    from helpers_galaxy import need_galaxy, whole_galaxy

    need_galaxy()
    with whole_galaxy(tmp_path_factory.mktemp("galaxy")) as server:
        yield server
