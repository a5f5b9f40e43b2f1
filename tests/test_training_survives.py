"""A training that is killed three times within a pipeline goes on each time, and ends with the weights of the unbroken run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import XMODAL, Ran, run_xmodal, terminated
from helpers_nextflow import ROOT, nextflow, succeeded

SETTINGS = ("--model", "auto", "--set", "epochs=100", "--set", "patience=100", "--save-every", "0")
QUICK = ("--model", "crossmp", "--set", "epochs=30", "--set", "patience=30", "--save-every", "0")
ALONE = f"""
include {{ XMODAL_TRAIN }} from '{ROOT}/modules/crossmodal/xmodal/train/main'

workflow {{
    XMODAL_TRAIN(channel.of([[id: 'kept'], file(params.cells), [:]]), [], [], [], [], [], [])
    XMODAL_TRAIN.out.checkpoint.view {{ meta, model -> "MODEL ${{model}}" }}
}}
"""


def train(prepared: Path, out: Path, *more: object) -> Ran:
    return run_xmodal("train", prepared, "--output-dir", out, "--threads", 1, *more)


@pytest.fixture(scope="module")
def unbroken(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of a quick training that nobody stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    done = train(prepared, out, *QUICK)
    assert done.code == 0, done.err
    return (out / "model.safetensors").read_bytes()


def processes_of(task: Path) -> list[int]:
    """Every ``xmodal train`` that runs in the folder of a task."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == task and b"train" in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # it ended meanwhile
            continue
    return found


class Killer(threading.Thread):
    """Sends one signal to each attempt, when that has done ``epochs`` epochs of its own."""

    def __init__(self, work: Path, signals: list[signal.Signals], epochs: int) -> None:
        super().__init__(daemon=True)
        self.work, self.signals, self.epochs = work, list(signals), epochs
        self.killed: list[Path] = []
        self.over = threading.Event()

    def run(self) -> None:
        while self.signals and not self.over.wait(0.02):
            for log in self.work.glob("*/*/.command.err"):
                task = log.parent.resolve()
                if task in self.killed or log.read_text(errors="replace").count("xmodal: epoch ") < self.epochs:
                    continue
                for process in processes_of(task):
                    os.kill(process, self.signals[0])
                    self.killed.append(task)
                    self.signals.pop(0)
                    break


@pytest.mark.nextflow
def test_three_kills_in_a_pipeline_leave_the_same_weights(prepared: Path, tmp_path: Path) -> None:
    """By SIGTERM (the scheduler's time limit), SIGKILL (no memory, no warning) and SIGTERM again."""
    (tmp_path / "main.nf").write_text(ALONE)
    (tmp_path / "nextflow.config").write_text(
        f"includeConfig '{ROOT}/conf/base.config'\n"
        f'process {{ resourceLimits = [cpus: 1, memory: 4.GB]; ext.args = "{" ".join(SETTINGS)}" }}\n'
    )
    killer = Killer(tmp_path / "work", [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM], 12)
    killer.start()
    run = nextflow(tmp_path, "run", "main.nf", "--cells", str(prepared), "-with-trace", "trace.txt")
    killer.over.set()
    succeeded(run)
    assert len(killer.killed) == 3, run.stdout
    model = Path(next(line.split()[1] for line in run.stdout.splitlines() if line.startswith("MODEL ")))
    assert train(prepared, tmp_path / "unbroken", *SETTINGS).code == 0
    assert model.read_bytes() == (tmp_path / "unbroken/model.safetensors").read_bytes()
    timing = json.loads((model.parent / "metrics.json").read_text())["timing"]
    assert timing["went_on_from_epoch"] >= 3 * 12 - 3  # each attempt added its own
    assert not (model.parent / "state.safetensors").exists()
    trace = [line.split("\t") for line in (tmp_path / "trace.txt").read_text().splitlines()]
    exits = sorted(row[trace[0].index("exit")] for row in trace[1:])
    assert exits == ["0", "137", "143", "143"]
    again = nextflow(tmp_path, "run", "main.nf", "--cells", str(prepared), "-resume")
    assert "Cached process > XMODAL_TRAIN" in again.stdout


def stopped(prepared: Path, out: Path, *more: object) -> Path:
    """A training stopped by SIGTERM after its third epoch."""
    terminated("train", prepared, "--output-dir", out, "--threads", 1, *QUICK, *more)
    return out


def test_another_folder_goes_on_from_the_state_of_an_earlier_attempt(
    prepared: Path, unbroken: bytes, tmp_path: Path
) -> None:
    first = stopped(prepared, tmp_path / "first")
    done = train(prepared, tmp_path / "second", *QUICK, "--resume-from", first)
    assert done.code == 0 and "going on from epoch" in done.err, done.err
    model = (tmp_path / "second/model.safetensors").read_bytes()
    assert model == unbroken
    assert (first / "state.safetensors").exists()  # the earlier attempt is left as it was


def test_a_state_folder_outlives_the_output(prepared: Path, unbroken: bytes, tmp_path: Path) -> None:
    """As when the whole pipeline is killed: the next one has another work folder, and no attempt before."""
    states = tmp_path / "states"
    stopped(prepared, tmp_path / "first", "--state-dir", states)
    assert len(list(states.iterdir())) == 1 and not (tmp_path / "first/state.safetensors").exists()
    done = train(prepared, tmp_path / "second", *QUICK, "--state-dir", states)
    assert done.code == 0 and "going on from epoch" in done.err, done.err
    assert (tmp_path / "second/model.safetensors").read_bytes() == unbroken
    assert not list(states.iterdir())


@pytest.mark.parametrize("earlier", ["nothing", "another", "broken"])
def test_no_usable_state_means_from_the_start(prepared: Path, tmp_path: Path, earlier: str) -> None:
    folder = tmp_path / "earlier"
    if earlier == "another":
        stopped(prepared, folder, "--seed", 1)
    elif earlier == "broken":
        folder.mkdir()
        (folder / "state.safetensors").write_bytes(b"half of it")
    done = train(prepared, tmp_path / "out", *QUICK, "--resume-from", folder)
    assert done.code == 0 and "training from the start" in done.err, done.err
    assert "went_on_from_epoch" not in json.loads((tmp_path / "out/metrics.json").read_text())["timing"]


def test_an_attempt_killed_while_it_starts_hands_the_state_on(prepared: Path, unbroken: bytes, tmp_path: Path) -> None:
    """SIGKILL as soon as the second attempt has a folder: long before it has read a cell."""
    first, second = stopped(prepared, tmp_path / "first"), tmp_path / "second"
    args = [XMODAL, "train", prepared, "--output-dir", second, "--threads", 1, *QUICK, "--resume-from", first]
    process = subprocess.Popen([str(a) for a in args], stderr=subprocess.DEVNULL)
    while not (second / "state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert (second / "state.safetensors").read_bytes() == (first / "state.safetensors").read_bytes()
    done = train(prepared, tmp_path / "third", *QUICK, "--resume-from", second)
    assert done.code == 0 and "going on from epoch" in done.err, done.err
    assert (tmp_path / "third/model.safetensors").read_bytes() == unbroken


def test_what_a_killed_save_left_goes_after_a_while(tmp_path: Path) -> None:
    from xmodal.learning.training_state import FORGOTTEN, Keeper

    state = tmp_path / "abc.state.safetensors"
    old, young, other = (
        tmp_path / f".{n}.safetensors" for n in ("abc.state.1.tmp", "abc.state.2.tmp", "xyz.state.3.tmp")
    )
    for file in (old, young, other):
        file.write_bytes(b"half")
    for file in (old, other):
        os.utime(file, (time.time() - FORGOTTEN - 9,) * 2)
    Keeper(state)
    assert [f.exists() for f in (old, young, other)] == [False, True, True]
