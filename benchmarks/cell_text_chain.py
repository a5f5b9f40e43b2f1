"""What the chain of cells and text costs: prepare, train, annotate, describe and generate on so many cells.

    python benchmarks/cell_text_chain.py [--cells 10000] [--threads 1 2] [--write]

The cells: real ones of pbmc3k drawn with replacement, each with counts that are Poisson around MIX of itself and the rest of its
type's mean at its depth, so that no two are alike.  All options are the defaults; all cells are named and described, and
GENERATED cells are written for each of three prompts.  Wall seconds depend on what else the machine does, so the processor's
are beside them.  The bar: 5 minutes and 4 GiB on 2 cores, without a network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from common import HERE, REAL, XMODAL, between

SOURCE = REAL / "text_human_pbmc3k" / "rna.h5ad"
KEY = "cell_type"
MIX = 0.8
GENERATED = 300
PROMPTS = ("CL:0000236", "natural killer cell", "T cell")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
BAR_S, BAR_GIB = 300, 4.0


def cells(path: Path, number: int, seed: int = 0) -> None:
    """``number`` cells like those of pbmc3k, as a file of counts with their labels."""
    real, rng = ad.read_h5ad(SOURCE), np.random.default_rng(seed)
    rows = rng.integers(0, real.n_obs, number)
    label = real.obs[KEY].astype(str).to_numpy()
    counts = sp.csr_matrix(real.X, dtype=np.float64)
    shares = {t: np.asarray(counts[label == t].sum(0)).ravel() for t in np.unique(label)}
    parts = []
    for some in np.array_split(rows, max(1, number // 1000)):
        own = counts[some].toarray()
        typical = np.stack([shares[t] / shares[t].sum() for t in label[some]]) * own.sum(1, keepdims=True)
        parts.append(sp.csr_matrix(rng.poisson(MIX * own + (1 - MIX) * typical).astype(np.int32)))
    obs = real.obs.iloc[rows].copy()
    obs.index = [f"c{i:06d}" for i in range(number)]
    ad.AnnData(sp.vstack(parts, format="csr"), obs=obs, var=real.var).write_h5ad(path)


def steps(folder: Path) -> dict[str, list[str]]:
    """The commands, as a user gives them."""
    model, prompts = f"{folder}/model/model.safetensors", [part for p in PROMPTS for part in ("--prompt", p)]
    named = ("--output", f"{folder}/named.h5ad", "--report-dir", f"{folder}/named")
    generated = ("--output", f"{folder}/generated.h5ad", "--overview", f"{folder}/generated")

    def out(name: str) -> tuple[str, str]:
        return "--output-dir", f"{folder}/{name}"

    return {
        "prepare": ["prepare", "--rna", f"{folder}/rna.h5ad", "--output", f"{folder}/prepared.h5mu"],
        "train": [*("train", f"{folder}/prepared.h5mu", "--model", "scmmgpt"), *("--label-key", KEY), *out("model")],
        "annotate": [*("annotate", f"{folder}/prepared.h5mu", "--checkpoint", model), *named],
        "describe": ["describe", f"{folder}/named.h5ad", "--checkpoint", model, *out("described")],
        "generate": ["generate", "--checkpoint", model, *prompts, "--cells", str(GENERATED), *generated],
    }


def measured(arguments: list[str], threads: int) -> dict[str, float]:
    """Wall and processor seconds and peak resident GiB of one command; CalledProcessError where it fails."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    command = [XMODAL, *arguments, "--threads", str(threads), "--device", "cpu", "--overwrite", "--quiet"]
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **OFFLINE, **limits}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    spent = usage.ru_utime + usage.ru_stime
    return {"wall": time.monotonic() - began, "cpu": spent, "gib": usage.ru_maxrss / 2**20}


def table(runs: dict[int, dict[str, dict[str, float]]], number: int) -> str:
    """Markdown: a row for each step, and their sum beside the bar."""
    head = [f"{n} thread{'s' if n > 1 else ''}: {what}" for n in runs for what in ("wall s", "CPU s", "GiB")]
    lines = [f"| {number:,} cells | " + " | ".join(head) + " |", "|---" * (1 + len(head)) + "|"]
    for step in next(iter(runs.values())):
        lines.append(f"| {step} | " + " | ".join(_row(run[step]) for run in runs.values()) + " |")
    whole = {n: _whole(run) for n, run in runs.items()}
    lines.append("| **whole chain** | " + " | ".join(_row(w) for w in whole.values()) + " |")
    load = f"{os.getloadavg()[2]:.1f}"
    lines += ["", f"The machine has {os.cpu_count()} cores and was shared: a mean of {load} processes wanted one."]
    for n, w in whole.items():
        said = "met" if w["wall"] < BAR_S and w["gib"] < BAR_GIB else "missed"
        lines.append(f"- {n} thread{'s' if n > 1 else ''}: bar ({BAR_S} s of wall time, {BAR_GIB:.0f} GiB) {said}")
    return "\n".join(lines)


def _row(found: dict[str, float]) -> str:
    return f"{found['wall']:.0f} | {found['cpu']:.0f} | {found['gib']:.2f}"


def _whole(run: dict[str, dict[str, float]]) -> dict[str, float]:
    added = {k: sum(step[k] for step in run.values()) for k in ("wall", "cpu")}
    return {**added, "gib": max(step["gib"] for step in run.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    given: Any = parser.parse_args()
    runs: dict[int, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cells(folder / "rna.h5ad", given.cells)
        for threads in given.threads:
            runs[threads] = {}
            for name, arguments in steps(folder).items():
                runs[threads][name] = measured(arguments, threads)
                print(threads, name, _row(runs[threads][name]), file=sys.stderr, flush=True)
    text = table(runs, given.cells)
    print(text)
    if given.write:
        between(HERE / "RESULTS.md", "cell_text_chain", text)


if __name__ == "__main__":
    main()
