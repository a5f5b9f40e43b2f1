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
MODELS = {
    "crossmp": ("epochs=6", "batch_size=64"),
    "sailerx": ("epochs=4",),
    "auto": ("epochs=4", *SMALL),
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


def trained(prepared: Path, out: Path, model: str, processes: int, *changes: str) -> list[dict[str, Any]]:
    """What each process has in the end."""
    done = launched(WORKER, prepared, model, out, *changes, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("model", MODELS)
def test_two_processes_train_as_one(model: str, prepared: Path, tmp_path: Path) -> None:
    (alone,) = trained(prepared, tmp_path / "alone", model, 1, *MODELS[model])
    first, second = trained(prepared, tmp_path / "two", model, 2, *MODELS[model])
    assert first["weights"] == second["weights"]
    assert first["history"] == second["history"]
    for one, two in zip(alone["history"], first["history"], strict=True):
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    losses = [row["train_loss"] for row in alone["history"]]
    assert losses[-1] < losses[0]
