"""The memory that each Galaxy tool needs, measured, and a formula for it: GB = base + per_gb * GB of its input files.

    python benchmarks/galaxy_memory.py [--sets forty,middle,...] [--parts prediction,joint]

Runs the commands as the tools do, one thread, on simulated cells and on two real sets; trainings are short (``SHORT``), since
the peak is that of one pass over the cells.  Writes benchmarks/results/galaxy_memory.json after each set (sets and parts that
are not named stay as they were), galaxy_tools/portal/memory.yml, with which tests compare the rules that
ask a cluster for memory, and the table in benchmarks/RESULTS.md.  Sizes are those of files on the disk, as Galaxy counts them:
h5ad and h5mu are compressed inside.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import yaml
from common import HERE, REAL, XMODAL, between, xmodal
from peer_methods import CAP_S, Failed, Used, measured

log = logging.getLogger("benchmark")
GIB = 1024**3  # what schedulers and Galaxy call GB
MARGIN = 1.25  # over every measured run
TIMES = 25
LEAST = 10.0  # GB for each GB of cells: a count takes 2 to 3 bytes in a file and 8 in memory, where it is copied once
# A model is mapped, not read; reports are made of kilobytes, but for markers; prompts are a few lines
FLAT = ("xmodal_models", "xmodal_report", "xmodal_generate")
RESULTS = HERE / "results" / "galaxy_memory.json"
ADMIN = HERE.parent / "docs" / "galaxy_admin.md"
RULES = HERE.parent / "galaxy_tools" / "portal" / "memory.yml"
SETS = {
    "forty": (),  # real
    "cortex": (),
    "forty x 25": (),  # cells of all measured features, resampled
    "middle": ("--cells", 2000, "--genes", 1000, "--peaks", 3000),
    "many cells": ("--cells", 12000, "--genes", 2000, "--peaks", 8000),
}
REALS = {"cortex": "mouse_cortex_snareseq_dev", "forty": "human_pbmc_multiome_40cells"}
SHORT = {
    "linear": (),
    "crossmp": ("--set", "epochs=1"),
    "auto": ("--set", "epochs=2", "--set", "refit_epochs=1", "--set", "restarts=1"),
}
JOINT = {"sailerx": ("--set", "epochs=1")}  # the model of a joint analysis
TEXT = ("--set", "epochs=1", "--set", "members=2", "--set", "folds=0")  # names and descriptions of cells
LABELS = {"cortex": "cell_type", "middle": "type", "many cells": "type"}
PROMPTS, GENERATED = 10, 500  # prompts, and cells of each
PARTS = ("prediction", "joint", "latent", "text")
OPTIONS = ("--threads", 1, "--device", "cpu", "--quiet")


@dataclass(frozen=True)
class Run:
    """One process: inputs and peak in GiB."""

    tool: str
    what: str
    input_gb: float
    peak_gb: float
    seconds: float


class Cells:
    """One set of cells, through all commands; what each took is in ``runs``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.runs: list[Run] = []

    def run(self, tool: str, inputs: list[Path], *arguments: object, note: str = "") -> None:
        """Run one command on ``inputs``; they stand in ``arguments`` too."""
        size = sum(path.stat().st_size for path in inputs) / GIB
        used = Used()
        measured([XMODAL, tool, *map(str, (*arguments, *OPTIONS))], used, CAP_S, 1)
        what = f"{self.name}{note and ', '}{note}"
        self.runs.append(
            Run(f"xmodal_{tool}", what, round(size, 7), round(used.peak_mib / 1024, 3), round(used.wall_s, 1))
        )
        log.info("%s", self.runs[-1])

    def pair(self) -> tuple[Path, Path]:
        """The files of RNA and of ATAC."""
        if self.name in REALS:
            return REAL / REALS[self.name] / "rna.h5ad", REAL / REALS[self.name] / "atac.h5ad"
        if not SETS[self.name]:
            # A process of its own: what this one once held would count as the peak of all that it starts.
            made = get_context("spawn").Process(target=resampled, args=(REAL / REALS["forty"], self.folder))
            made.start()
            made.join()
            return self.folder / "rna.h5ad", self.folder / "atac.h5ad"
        xmodal("simulate", "--output-dir", self.folder / "made", *SETS[self.name], "--no-rates")
        return self.folder / "made" / "rna.h5ad", self.folder / "made" / "atac.h5ad"

    def prediction(self) -> list[Run]:
        """Every tool of a prediction once, train and predict with every model that takes so few cells."""
        rna, atac = self.pair()
        prepared, said = self.folder / "prepared.h5mu", self.folder / "prepare.json"
        self.run("check", [rna, atac], f"rna={rna}", f"atac={atac}", "--json", self.folder / "check.json")
        files = ["--rna", rna, "--atac", atac, "--output", prepared, "--summary", said]
        self.run("prepare", [rna, atac], *files)
        for model in SHORT:
            try:
                self.model(model, rna, prepared)
            except Failed as reason:
                log.info("%s, %s: left out, %s", self.name, model, reason)
        self.results(prepared, said)
        return self.runs

    def joint(self) -> list[Run]:
        """Every tool of a joint analysis once; without the preparation, which is the same as that of a prediction."""
        rna, atac = self.pair()
        prepared = self.folder / "prepared.h5mu"
        xmodal("prepare", "--rna", rna, "--atac", atac, "--output", prepared)
        ((model, short),) = JOINT.items()
        trained, seen, scores = self.folder / model, self.folder / "seen", self.folder / "scores"
        embedded, imputed = self.folder / "embedded.h5mu", self.folder / "imputed.h5mu"
        try:
            self.run("train", [prepared], prepared, "--output-dir", trained, "--model", model, *short, note=model)
        except Failed as reason:
            log.info("%s, joint: left out, %s", self.name, reason)
            return self.runs
        made = ["--checkpoint", trained / "model.safetensors", "--output"]
        self.run("embed", [prepared], prepared, *made, embedded, "--by-modality", "--overview", seen, note=model)
        self.run("impute", [embedded], embedded, *made, imputed, note=model)
        for cells, note in ((embedded, "counts"), (imputed, "imputed")):
            self.run("markers", [cells], cells, "--output-dir", self.folder / note, note=note)
        scored = ["--embedding", embedded, "--output-dir", scores, "--cells", "all"]
        self.run("evaluate", [prepared, embedded], prepared, *scored, note="embedding")
        shown = [trained / "metrics.json", *sorted(seen.iterdir()), *sorted((self.folder / "imputed").iterdir())]
        parts = ["--training", trained, "--embedding", seen, "--markers", self.folder / "imputed"]
        self.run("report", shown, *parts, "--output", self.folder / "report.html", note="joint")
        return self.runs

    def latent(self) -> list[Run]:
        """A prediction by way of its latent; without the training, which is that of a prediction."""
        rna, atac = self.pair()
        prepared, trained = self.folder / "prepared.h5mu", self.folder / "linear"
        xmodal("prepare", "--rna", rna, "--atac", atac, "--output", prepared)
        xmodal("train", prepared, "--model", "linear", "--output-dir", trained)
        latent, checkpoint = self.folder / "latent.h5ad", ["--checkpoint", trained / "model.safetensors", "--output"]
        files = [*checkpoint, latent, "--output-kind", "latent", "--force"]
        self.run("predict", [rna], rna, "--from", "rna", "--to", "atac", *files, note="latent")
        self.run("decode", [latent], latent, *checkpoint, self.folder / "decoded.h5ad", note="linear")
        return self.runs

    def text(self) -> list[Run]:
        """Every tool of cells and text once, where the cells have labels; no ontology: its terms are the same for all."""
        if self.name not in LABELS:
            return self.runs
        rna, _ = self.pair()
        prepared, trained, named = self.folder / "prepared.h5mu", self.folder / "types", self.folder / "named.h5ad"
        xmodal("prepare", "--rna", rna, "--output", prepared)
        short = ["--label-key", LABELS[self.name], *TEXT]
        self.run("train", [prepared], prepared, "--output-dir", trained, "--model", "scmmgpt", *short, note="scmmgpt")
        checkpoint = ["--checkpoint", trained / "model.safetensors"]
        self.run(
            "annotate", [prepared], prepared, *checkpoint, "--output", named, "--report-dir", self.folder / "names"
        )
        for per in ("cluster", "cell"):
            more = ["--per", per, "--output-dir", self.folder / per]
            self.run("describe", [named], named, *checkpoint, *more, note=f"per {per}")
        labels = ad.read_h5ad(rna, backed="r").obs[LABELS[self.name]].astype(str).unique()
        prompts = self.folder / "prompts.tsv"
        prompts.write_text("\n".join(["prompt", *sorted(labels)[:PROMPTS]]) + "\n")
        asked = ["--force", "--prompts", prompts, "--cells", GENERATED, "--output", self.folder / "generated.h5ad"]
        self.run("generate", [prompts], *checkpoint, *asked, "--overview", self.folder / "generated")
        return self.runs

    def model(self, model: str, rna: Path, prepared: Path) -> None:
        """Train ``model`` and predict peaks of all cells from ``rna``. No model counts as input: those of the table are none."""
        trained, how = self.folder / model, ["--model", model, *SHORT[model], "--overwrite"]
        self.run("train", [prepared], prepared, "--output-dir", trained, *how, note=model)
        files = ["--checkpoint", trained / "model.safetensors", "--output", self.folder / "predicted.h5ad"]
        files += ["--summary", self.folder / "predicted.json", "--overwrite", "--force"]
        self.run("predict", [rna], rna, "--from", "rna", "--to", "atac", *files, note=model)

    def results(self, prepared: Path, said: Path) -> None:
        """Score and report the last prediction, and describe its model."""
        trained, scores = self.folder / "auto", self.folder / "scores"
        out, summary = self.folder / "predicted.h5ad", self.folder / "predicted.json"
        self.run("models", [trained / "model.safetensors"], trained / "model.safetensors")
        self.run("evaluate", [prepared, out], prepared, "--prediction", f"atac={out}", "--output-dir", scores)
        shown = [trained / "metrics.json", scores / "metrics.json", said, summary]
        parts = ["--training", trained, "--evaluation", scores, "--prepare", said, "--prediction", f"s={summary}"]
        self.run("report", shown, *parts, "--output", self.folder / "report.html")


def resampled(real: Path, folder: Path) -> None:
    """Every real cell :data:`TIMES` times, each count of it kept with probability 0.8."""
    rng = np.random.default_rng(0)
    for name in ("rna", "atac"):
        cells = ad.read_h5ad(real / f"{name}.h5ad")
        more = ad.concat([cells] * TIMES, merge="same", uns_merge="same", index_unique="-")
        counts = sp.csr_matrix(more.X)
        counts.data = rng.binomial(counts.data.astype(int), 0.8).astype(np.int32)
        counts.eliminate_zeros()
        more.X = counts
        more.write_h5ad(folder / f"{name}.h5ad", compression="gzip")


def formula(runs: list[Run]) -> dict[str, float]:
    """``base`` (GB, in halves) and ``per_gb``: of all lines above every run times :data:`MARGIN`, the one that asks least.

    It goes through two of the points or has the least slope: :data:`LEAST` where the input is cells, however few were
    measured, else none.  What it asks is summed over the runs.
    """
    wanted = [(run.input_gb, run.peak_gb * MARGIN) for run in runs]
    least = 0.0 if runs[0].tool in FLAT else LEAST
    slopes = [(y - v) / (x - u) for x, y in wanted for u, v in wanted if x - u > 1e-3]  # a MB: no noise of small files
    bases = {slope: max(y - slope * x for x, y in wanted) for slope in (least, *slopes) if slope >= least}
    slope = min(bases, key=lambda slope: sum(bases[slope] + slope * x for x, _ in wanted))
    return {"base": math.ceil(2 * bases[slope]) / 2, "per_gb": math.ceil(slope)}


def formulas(found: dict[str, dict[str, float]]) -> str:
    """Markdown: what is asked for each tool, and how far it was measured."""
    lines = ["| tool | memory, GB | largest input measured, MB | its largest peak, GB |", "|---|---|---|---|"]
    for tool, line in found.items():
        asked = f"{line['base']} + {line['per_gb']} x GB"
        lines.append(f"| `{tool}` | {asked} | {line['largest_input_mb']} | {line['largest_peak_gb']} |")
    return "\n".join(lines)


def table(runs: list[Run], found: dict[str, dict[str, float]]) -> str:
    """Markdown: every run, and what its formula asks for."""
    lines = ["| tool | cells | input, MB | peak, GB | asked for, GB | seconds |", "|---|---|---|---|---|---|"]
    for run in sorted(runs, key=lambda run: (run.tool, run.input_gb)):
        asked = found[run.tool]["base"] + found[run.tool]["per_gb"] * run.input_gb
        numbers = f"{run.input_gb * 1024:.1f} | {run.peak_gb:.2f} | {asked:.1f} | {run.seconds:.0f}"
        lines.append(f"| {run.tool} | {run.what} | {numbers} |")
    return "\n".join(lines)


def fitted(runs: list[Run]) -> dict[str, dict[str, float]]:
    """For each tool its formula and what it was measured with."""
    found: dict[str, dict[str, float]] = {}
    for tool in sorted({run.tool for run in runs}):
        own = [run for run in runs if run.tool == tool]
        largest = {
            "runs": len(own),
            "largest_input_mb": round(max(run.input_gb for run in own) * 1024, 1),
            "largest_peak_gb": round(max(run.peak_gb for run in own), 2),
        }
        found[tool] = formula(own) | largest
    return found


def key(name: str, part: str) -> str:
    """What the runs of a part on a set of cells are kept under."""
    return name if part == "prediction" else f"{name}, {part}"


def measured_before() -> dict[str, list[dict[str, Any]]]:
    """Runs by set, as they were kept."""
    kept: dict[str, list[dict[str, Any]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return kept


def main() -> None:
    """Measure, fit, write."""
    for name in filter(None, ARGS.sets.split(",")):
        if not SETS[name] and not REAL.is_dir():
            log.warning("%s left out: %s is not there", name, REAL)
            continue
        for part in ARGS.parts.split(","):
            with tempfile.TemporaryDirectory() as folder:
                cells = Cells(name, Path(folder))
                found = [asdict(run) for run in getattr(cells, part)()]
            RESULTS.write_text(json.dumps(measured_before() | {key(name, part): found}, indent=1) + "\n")
    runs = measured_before()
    every = [Run(**run) for name in SETS for part in PARTS for run in runs.get(key(name, part), [])]
    lines = fitted(every)
    head = "# Written by benchmarks/galaxy_memory.py. Memory of a job in GB: base + per_gb * size of its input files in GB.\n"
    RULES.write_text(head + yaml.safe_dump(lines, sort_keys=False))
    between(HERE / "RESULTS.md", "galaxy_memory", table(every, lines))
    between(ADMIN, "memory", formulas(lines))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS), help="which cells; '' only writes the tables")
    parser.add_argument("--parts", default=",".join(PARTS), help="what is run with them")
    ARGS = parser.parse_args()
    main()
