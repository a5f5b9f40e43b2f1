"""The main job, measured: `crossmp` beside mean, depth and linear on mouse cortex, and beside the oracle on simulations.

    python benchmarks/main_job.py [--part cortex|simulation|all] [--seeds 3] [--threads 2] [--set NAME=VALUE ...]

Everything goes through the commands a user has; scores come from `xmodal evaluate`.  Writes benchmarks/results/main_job.json
and rewrites the tables between the markers of benchmarks/RESULTS.md.  Settings were chosen on validation batches of the
cortex and on simulation seed 11, never on the test cells and seeds reported here.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import HERE, REAL, SHOWN, between, grid, xmodal

log = logging.getLogger("benchmark")
BEATS = {"rna": SHOWN["rna"][:1] + SHOWN["rna"][2:4], "atac": ("peak_auroc", "label_transfer_macro")}
METHODS = ("mean", "depth", "linear", "crossmp")


def one(prepared: Path, folder: Path, more: list[str], label: str | None, seed: int) -> dict[str, Any]:
    """Train, predict both ways and evaluate once; the evaluation's and the training's metrics."""
    threads = ["--threads", ARGS.threads]
    xmodal(
        "train",
        prepared,
        "--model",
        "crossmp",
        "--output-dir",
        folder / "model",
        "--seed",
        seed,
        *threads,
        *more,
        *[f"--set={s}" for s in ARGS.set],
    )
    scored = []
    for source, target in (("atac", "rna"), ("rna", "atac")):
        out = folder / f"{target}.h5ad"
        xmodal(
            "predict",
            prepared,
            "--from",
            source,
            "--to",
            target,
            "--split",
            "test",
            "--checkpoint",
            folder / "model/model.safetensors",
            "--output",
            out,
            *threads,
        )
        scored += ["--prediction", f"{target}={out}"]
    labels = ["--label-key", label] if label else []
    xmodal("evaluate", prepared, *scored, "--output-dir", folder / "scores", "--umap-cells", 0, *labels, *threads)
    read = {k: json.loads((folder / k / "metrics.json").read_text()) for k in ("model", "scores")}
    return {
        "targets": {t: v["methods"] for t, v in read["scores"]["targets"].items()},
        "timing": read["model"]["timing"],
        "epochs": read["model"]["best_epoch"],
        "split": read["model"]["split"],
    }


def cortex(scratch: Path) -> dict[str, Any] | None:
    """Mouse cortex, whole batches held out; median over training seeds."""
    source = REAL / "mouse_cortex_snareseq_dev"
    if not source.is_dir():
        log.warning("cortex: skipped, because there is no %s (XMODAL_REAL_DATA)", source)
        return None
    prepared = scratch / "cortex.h5mu"
    xmodal(
        "prepare",
        "--rna",
        source / "rna.h5ad",
        "--atac",
        source / "atac.h5ad",
        "--output",
        prepared,
        "--split-by",
        "batch",
        "--exclude",
        "cell_type=Mis",
        "--min-peak-fraction",
        0.005,
        "--min-rna-counts",
        50,
        "--min-peaks",
        15,
    )
    more = ["--gene-table", str(REAL / "tables" / "genes_mm10.tsv.gz")]
    runs = [one(prepared, scratch / f"cortex{seed}", more, "cell_type", seed) for seed in range(ARGS.seeds)]
    return {"runs": runs, "table": {t: table_of(runs, t) for t in SHOWN}}


def table_of(runs: list[dict[str, Any]], target: str) -> dict[str, dict[str, float]]:
    def value(run: dict[str, Any], method: str, name: str) -> float:
        return float(run["targets"][target]["prediction" if method == "crossmp" else method][name])

    return {m: {s: round(median(value(r, m, s) for r in runs), 4) for s in SHOWN[target]} for m in METHODS}


def simulation(scratch: Path) -> dict[str, Any]:
    """Linear coupling against the oracle, nonlinear coupling against linear; 4,500 cells, batches held out."""
    found: dict[str, Any] = {}
    for coupling in ("linear", "nonlinear"):
        for seed in range(ARGS.seeds):
            folder = scratch / f"{coupling}{seed}"
            xmodal(
                "simulate",
                "--output-dir",
                folder,
                "--cells",
                4500,
                "--coupling",
                coupling,
                "--block",
                3,
                "--seed",
                seed,
                "--oracle",
                "--no-rates",
            )
            xmodal("prepare", "--h5mu", folder / "paired.h5mu", "--output", folder / "p.h5mu")
            run = one(folder / "p.h5mu", folder / "run", ["--gene-table", str(folder / "genes.tsv")], None, seed)
            oracle = folder / "oracle"
            xmodal(
                "evaluate",
                folder / "p.h5mu",
                "--prediction",
                f"rna={folder}/oracle_rna.h5ad",
                "--output-dir",
                oracle,
                "--umap-cells",
                0,
                "--no-controls",
            )
            best = json.loads((oracle / "metrics.json").read_text())["targets"]["rna"]["methods"]["prediction"][
                "gene_pearson"
            ]
            rna = run["targets"]["rna"]
            ours, line = rna["prediction"]["gene_pearson"], rna["linear"]["gene_pearson"]
            found[f"{coupling} {seed}"] = {
                "oracle": round(best, 4),
                "linear": round(line, 4),
                "crossmp": round(ours, 4),
                "of_oracle": round(ours / best, 3),
                "over_linear": round(ours / line, 3),
                "oracle_over_linear": round(best / line, 3),
                "train_s": run["timing"]["train_s"],
            }
            log.info("%s %d: %s", coupling, seed, found[f"{coupling} {seed}"])
    return found


def markdown(found: dict[str, Any]) -> str:
    """The section of RESULTS.md."""
    parts = []
    if found.get("cortex"):
        parts.append(cortex_section(found["cortex"]))
    if found.get("simulation"):
        parts.append(simulation_section(found["simulation"]))
    return "\n\n".join(parts)


def cortex_section(found: dict[str, Any]) -> str:
    runs = found["runs"]
    counts = "{train} training, {valid} validation, {test} test cells".format(**runs[0]["split"])
    lines = [f"### Mouse cortex, whole batches held out ({counts}; median of {len(runs)} training seeds)", ""]
    for target, methods in found["table"].items():
        lines += [
            f"**{'ATAC -> RNA' if target == 'rna' else 'RNA -> ATAC'}**",
            "",
            *grid("method", SHOWN[target], methods),
            "",
        ]
        for score in BEATS[target]:
            ours, line = methods["crossmp"][score], methods["linear"][score]
            above = ours > max(methods["mean"][score], methods["depth"][score])
            verdict = "above mean and depth" if above else "NOT above mean and depth"
            lines.append(f"- {score}: {verdict}; crossmp / linear {ours / line:.2f}")
        lines.append("")
    timing = [r["timing"] for r in runs]
    each = ", ".join(f"{t['train_s']} s and {t['peak_mib']} MiB" for t in timing)
    return "\n".join([*lines, f"Training, both directions in one model, {timing[0]['threads']} threads: {each}."])


def simulation_section(found: dict[str, Any]) -> str:
    title = "### Simulations: mean per-gene Pearson, ATAC -> RNA (4,500 cells, 400 genes, 800 peaks, unseen batches)"
    columns = ("oracle", "linear", "crossmp", "of_oracle", "over_linear", "oracle_over_linear", "train_s")
    return "\n".join([title, "", *grid("coupling, seed", columns, found)])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = {"cortex": cortex, "simulation": simulation}
        results = HERE / "results" / "main_job.json"
        found = json.loads(results.read_text()) if results.exists() else {}
        for name in parts if ARGS.part == "all" else (ARGS.part,):
            found[name] = parts[name](Path(folder)) or found.get(name)
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    between(HERE / "RESULTS.md", "main_job", markdown(found))
    log.info("%s", markdown(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["cortex", "simulation", "all"], default="all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    ARGS = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
