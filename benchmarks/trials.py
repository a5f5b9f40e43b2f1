"""Trials of a model's settings on folds of the training batches; the batches of the final test are in none of them.

    python benchmarks/trials.py [--model auto] [--folds 0,1,2] "" members=0 coarse=15,fine=40 ...

Three folds: two batches are scored, a third ends or weighs the training, the other three train; one seed.  (`--folds old`: the
one fold on which `crossmp` was set.)  Each argument is one trial, its settings separated by commas; "" is the default.
Rewrites the table of the model between the markers of benchmarks/RESULTS.md with the mean over the folds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from statistics import mean

from common import HERE, REAL, between, grid, xmodal

RESULTS = HERE / "results" / "trials.json"
FINAL = ("09C", "09E", "09F")  # the batches of the final test
FOLDS = {  # scored batches, and the one that is held out of training for validation
    "0": (("09A", "09G"), "09I"),
    "1": (("09B", "09H"), "09I"),
    "2": (("09D", "09I"), "09H"),
    "old": (("09G",), "09A"),
}
SHOWN = {
    "rna": (
        "gene_pearson",
        "gene_pearson_top_hvg",
        "cell_pearson_centred",
        "label_transfer_macro",
        "gene_pearson_within_type",
    ),
    "atac": ("peak_auroc", "peak_auprc_over_prevalence", "label_transfer_macro", "peak_pearson_within_type"),
}
Row = dict[str, float]


def prepared(folder: Path, fold: str) -> Path:
    """The training batches of the cortex, split as the fold says."""
    source, out = REAL / "mouse_cortex_snareseq_dev", folder / f"fold{fold}.h5mu"
    scored, valid = FOLDS[fold]
    groups = ["--test-groups", ",".join(scored), "--valid-groups", valid, *[f"--exclude=batch={b}" for b in FINAL]]
    filters = ["--exclude", "cell_type=Mis", "--min-peak-fraction", 0.005, "--min-rna-counts", 50, "--min-peaks", 15]
    pair = ["--rna", source / "rna.h5ad", "--atac", source / "atac.h5ad"]
    xmodal("prepare", *pair, "--output", out, "--split-by", "batch", *groups, *filters)
    return out


def trial(cells: Path, folder: Path, name: str, settings: str) -> Row:
    """Train model ``name`` with ``settings``, predict and score the held-out batches."""
    sets = [f"--set={s}" for s in settings.split(",") if s]
    genes = REAL / "tables" / "genes_mm10.tsv.gz"
    model = folder / "model"
    options = ["--model", name, "--gene-table", genes, "--threads", ARGS.threads, "--overwrite", *sets]
    xmodal("train", cells, "--output-dir", model, *options)
    scored = []
    for source, target in (("atac", "rna"), ("rna", "atac")):
        out = folder / f"{target}.h5ad"
        which = ["--from", source, "--to", target, "--split", "test", "--checkpoint", model / "model.safetensors"]
        xmodal("predict", cells, *which, "--output", out, "--overwrite", "--interval", 0)
        scored += ["--prediction", f"{target}={out}"]
    label = ["--label-key", "cell_type", "--no-controls", "--umap-cells", 0, "--overwrite"]
    xmodal("evaluate", cells, *scored, "--output-dir", folder / "scores", *label)
    targets = json.loads((folder / "scores" / "metrics.json").read_text())["targets"]
    metrics = json.loads((model / "metrics.json").read_text())
    row = {f"{t} {s}": targets[t]["methods"]["prediction"][s] for t, names in SHOWN.items() for s in names}
    return {**row, "best epoch": metrics["best_epoch"], "s": metrics["timing"]["train_s"]}


def averaged(folds: dict[str, Row]) -> Row:
    """Mean over the folds."""
    rows = list(folds.values())
    return {key: mean(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    own = found.setdefault(ARGS.model, {})
    with tempfile.TemporaryDirectory() as name:
        for fold in ARGS.folds.split(","):
            cells = prepared(Path(name), fold)
            for settings in ARGS.trials:
                row = trial(cells, Path(name), ARGS.model, settings)
                own.setdefault(settings or "default", {})[fold] = row
                logging.info("fold %s, %s: %s", fold, settings or "default", row)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    rows = {f"{k} ({len(v)} folds)" if ARGS.folds != "old" else k: averaged(v) for k, v in own.items()}
    between(
        HERE / "RESULTS.md", f"trials_{ARGS.model}", "\n".join(grid("settings", tuple(next(iter(rows.values()))), rows))
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", default=[""])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--folds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=1)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    ARGS = parser.parse_args()
    main()
