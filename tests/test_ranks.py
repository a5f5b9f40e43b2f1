"""Several processes that torchrun starts train as one does: the same loss curve, the same weights everywhere, one that writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("helpers_ranks.py")
SMALL = ("restarts=1", "coarse=3", "fine=4", "refit_epochs=2")
CASES = {  # model, processes, what of the cells, settings
    "crossmp": ("crossmp", 2, "stops", ("epochs=5", "batch_size=64")),
    "sailerx": ("sailerx", 2, "all", ("epochs=4",)),
    "auto": ("auto", 2, "all", ("epochs=4", "restarts=1", "coarse=3", "fine=4", "refit_epochs=2")),
    # the last minibatch has two cells, so that one of the three processes has none
    "uneven": ("crossmp", 3, "gaps", ("epochs=2", "batch_size=179")),
}


def launched(*args: object, processes: int = 2, limit: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    """``args`` to Python, under torchrun where there are several processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    command = [sys.executable, *torchrun, *args]
    return subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        timeout=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        check=False,
    )


def trained(prepared: Path, out: Path, case: str, processes: int) -> list[dict[str, Any]]:
    """What each process has in the end."""
    model, _, what, changes = CASES[case]
    done = launched(WORKER, prepared, model, out, what, *changes, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_as_one(case: str, prepared: Path, tmp_path: Path) -> None:
    (alone,) = trained(prepared, tmp_path / "alone", case, 1)
    first, *others = trained(prepared, tmp_path / "several", case, CASES[case][1])
    assert all(other == first for other in others), "weights and history are the same everywhere, bit by bit"
    for one, two in zip(alone["history"], first["history"], strict=True):
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    losses = [row["train_loss"] for row in alone["history"]]
    assert losses[-1] < losses[0]


def test_one_that_dies_ends_all(prepared: Path, tmp_path: Path) -> None:
    done = launched(WORKER, prepared, "crossmp", tmp_path / "x", "dies", "epochs=2000", "patience=2000", limit=120)
    assert done.returncode != 0 and not list(tmp_path.iterdir())


def command(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    return launched("-m", "xmodal", *args, processes=1, **env)


def test_the_command_starts_processes_of_which_one_writes(prepared: Path, tmp_path: Path) -> None:
    train = ("train", prepared, "--model", "crossmp", "--set", "batch_size=64", "--threads", "2", "--processes", "2")
    done = command(*train, "--output-dir", tmp_path / "m", "--set", "epochs=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("crossmp: trained in") and len(done.stdout.splitlines()) == 1
    assert [line for line in done.stderr.splitlines() if "epoch 3/3" in line and "cells/s" in line] != []
    assert done.stderr.count("epoch 3/3") == 1 and done.stderr.count("have no counts at all") <= 1, done.stderr
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["history.tsv", "metrics.json", "model.safetensors"]
    timing = json.loads((tmp_path / "m" / "metrics.json").read_text())["timing"]
    assert timing["processes"] == 2 and timing["threads"] == 1  # the CPUs are shared

    wild = command(*train, "--output-dir", tmp_path / "w", "--set", "epochs=3", "--set", "learning_rate=1e30")
    assert wild.returncode == 3 and wild.stderr.count("the loss is not finite") == 1, wild.stderr
    assert "Traceback" not in wild.stderr and not list((tmp_path / "w").iterdir())


def test_a_model_without_anything_to_share_says_so(prepared: Path, tmp_path: Path) -> None:
    two = ("--threads", "2", "--processes", "2")
    done = command("train", prepared, "--model", "linear", *two, "--output-dir", tmp_path / "m")
    assert done.returncode == 0 and done.stderr.count("nothing that processes can share") == 1, done.stderr


def test_each_process_needs_a_cpu(prepared: Path, tmp_path: Path) -> None:
    done = command("train", prepared, "--threads", "2", "--processes", "3", "--output-dir", tmp_path / "m")
    assert done.returncode == 2 and "--threads is 2" in done.stderr, done.stderr


def test_other_commands_run_in_one_process() -> None:
    done = command("models", TORCHELASTIC_RUN_ID="x", WORLD_SIZE="2", RANK="0")
    assert done.returncode == 2 and "without torchrun" in done.stderr, done.stderr
