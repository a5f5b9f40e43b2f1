"""The table of methods (peers/methods.toml), and one run of one of them, measured."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import HERE, REAL, XMODAL

log = logging.getLogger("benchmark")
SCRIPTS = HERE / "peers"
ENVIRONMENTS = HERE / ".peers"
CAP_S = 3600.0  # no run may take longer


class Failed(Exception):
    """A run that gave no result; the text is the reason its row shows."""


@dataclass(frozen=True)
class Cells:
    """One data set, ready: the prepared file, the two plain files and what is known of them."""

    name: str
    folder: Path
    second: str
    genes: Path | None
    label: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One row: a model of the project (``model``), a peer (``script``, ``env``), or why there is none (``unavailable``)."""

    name: str
    sets: dict[str, int]
    title: str = ""
    model: str = ""
    script: str = ""
    env: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    cap_s: float = CAP_S
    note: str = ""
    unavailable: str = ""

    @property
    def shown(self) -> str:
        return self.title or self.name

    def python(self) -> Path:
        return ENVIRONMENTS / self.env / "bin" / "python"


@dataclass
class Used:
    """Wall seconds of all processes of a run, and the most memory one of them held."""

    wall_s: float = 0.0
    peak_mib: int = 0


def read() -> tuple[dict[str, dict[str, Any]], dict[str, Method]]:
    """Data sets and methods by name."""
    table = tomllib.loads((SCRIPTS / "methods.toml").read_text())
    return table["sets"], {name: Method(name, **about) for name, about in table["methods"].items()}


def measured(command: list[str], used: Used, cap_s: float, threads: int) -> float:
    """Run ``command``, add what it took to ``used``, and give its seconds; raises :class:`Failed` with its last words."""
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(counts, str(threads))}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words, env=env)
        timer = threading.Timer(cap_s, process.kill)
        timer.start()
        _, status, resources = os.wait4(process.pid, 0)
        ended_by_us = not timer.is_alive()
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        used.wall_s += seconds
        used.peak_mib = max(used.peak_mib, resources.ru_maxrss // 1024)
        if process.returncode:
            words.seek(0)
            lines = [line.strip() for line in words.read().splitlines() if line.strip()]
            reason = f"not finished after {cap_s:.0f} s" if ended_by_us else (lines or ["no message"])[-1][:300]
            raise Failed(f"{reason} (exit {process.returncode})")
    return seconds


def run(method: Method, cells: Cells, seed: int, threads: int, scratch: Path) -> dict[str, Any]:
    """Train, predict and score once: ``{"targets": {target: {score: value}}, "train_s", "predict_s", ...}``."""
    if method.unavailable:
        raise Failed(method.unavailable)
    used = Used()
    found = (_ours if method.model else _peer)(method, cells, (seed, threads), scratch, used)
    targets = method.targets or ("rna", cells.second)
    scored = [f"--prediction={t}={scratch}/out_{t}.h5ad" for t in targets]
    options = ["--controls", "", "--umap-cells", "0", "--label-key", cells.label, "--quiet"]
    prepared = str(cells.folder / "prepared.h5mu")
    folder = ["--output-dir", str(scratch / "scores")]
    measured([XMODAL, "evaluate", prepared, *scored, *folder, *options], Used(), CAP_S, threads)
    scores = json.loads((scratch / "scores" / "metrics.json").read_text())["targets"]
    kept = {t: {k: round(v, 5) for k, v in scores[t]["methods"]["prediction"].items()} for t in targets}
    return {
        "targets": kept,
        **found,
        "wall_s": round(used.wall_s, 1),
        "peak_mib": used.peak_mib,
        "threads": threads,
        "settings": method.settings,
    }


def _ours(method: Method, cells: Cells, how: tuple[int, int], scratch: Path, used: Used) -> dict[str, Any]:
    """Through the commands a user has."""
    prepared, model = str(cells.folder / "prepared.h5mu"), scratch / "model"
    same = ["--seed", str(how[0]), "--threads", str(how[1]), "--quiet"]
    genes = ["--gene-table", str(cells.genes)] if cells.genes else []
    train = [XMODAL, "train", prepared, "--model", method.model, "--output-dir", str(model), *genes, *same]
    measured([*train, *[f"--set={k}={v}" for k, v in method.settings.items()]], used, method.cap_s, how[1])
    predict_s = 0.0
    for source, target in ((cells.second, "rna"), ("rna", cells.second)):
        which = ["--from", source, "--to", target, "--split", "test", "--checkpoint", str(model / "model.safetensors")]
        out = ["--output", f"{scratch}/out_{target}.h5ad"]
        predict_s += measured([XMODAL, "predict", prepared, *which, *out, *same], used, method.cap_s, how[1])
    metrics = json.loads((model / "metrics.json").read_text())
    return {"train_s": metrics["timing"]["train_s"], "predict_s": round(predict_s, 2), "chosen": {}}


def _peer(method: Method, cells: Cells, how: tuple[int, int], scratch: Path, used: Used) -> dict[str, Any]:
    """Through its script, in its own environment."""
    if not method.python().exists():
        raise Failed(f"its environment .peers/{method.env} is not there (python benchmarks/peers.py --install)")
    files = [str(cells.folder / f"{m}.h5ad") for m in ("rna", cells.second)]
    options = ["--second", cells.second, "--seed", str(how[0]), "--threads", str(how[1])]
    options += ["--genes", str(cells.genes)] if cells.genes else []
    options += [f"--setting={k}={v}" for k, v in method.settings.items()]
    script = str(SCRIPTS / f"{method.script}.py")
    measured([str(method.python()), script, *files, f"{scratch}/out", *options], used, method.cap_s, how[1])
    extra: dict[str, Any] = json.loads((scratch / "out_extra.json").read_text())
    return extra


def prepare(name: str, about: dict[str, Any], folder: Path) -> Cells:
    """The data set ``name``, prepared in ``folder`` by `xmodal prepare`; raises :class:`Failed` where it is absent."""
    source = REAL / about["folder"]
    if not source.is_dir():
        raise Failed(f"there is no {about['folder']} in the folder of real data (XMODAL_REAL_DATA)")
    second, prepared = about["second"], folder / "prepared.h5mu"
    pair = ["--rna", str(source / "rna.h5ad"), f"--{second}", str(source / f"{second}.h5ad")]
    measured([XMODAL, "prepare", *pair, "--output", str(prepared), *about["prepare"], "--quiet"], Used(), CAP_S, 1)
    measured([sys.executable, str(HERE / "peer_cells.py"), str(prepared), second, str(folder)], Used(), CAP_S, 1)
    genes = REAL / "tables" / about["genes"] if "genes" in about else None
    return Cells(name, folder, second, genes, about["label"], json.loads((folder / "about.json").read_text()))


def install(environment: str) -> None:
    """Make .peers/ENVIRONMENT from peers/ENVIRONMENT.txt where it is not there; a failure is logged, not raised."""
    folder, wanted = ENVIRONMENTS / environment, SCRIPTS / f"{environment}.txt"
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return
    log.info("installing %s (once; up to some GB)", environment)
    python = str(folder / "bin" / "python")
    try:
        measured([sys.executable, "-m", "venv", "--clear", str(folder)], Used(), CAP_S, 1)
        measured([python, "-m", "pip", "install", "--quiet", "-r", str(wanted)], Used(), CAP_S, 1)
    except Failed as why:
        log.warning("%s: not installed, because %s", environment, why)
        shutil.rmtree(folder, ignore_errors=True)
        return
    stamp.write_text(wanted.read_text())
