"""Trials of `crossmp` settings on a fold of the training batches; the batches of the final test are not in it.

    python benchmarks/trials.py "" split_chromosomes=true dropout=0.4,latent=32 ...

One fold: four batches train, 09A stops the training, 09G is scored; one seed.  Each argument is one trial, its settings
separated by commas; "" is the default.  Adds a row for each to the table between the markers of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path

from common import HERE, REAL, between, grid, xmodal

RESULTS = HERE / "results" / "trials.json"
FOLD = ["--test-groups", "09G", "--valid-groups", "09A", *[f"--exclude=batch={b}" for b in ("09C", "09E", "09F")]]
SHOWN = {
    "rna": (
        "gene_pearson",
        "gene_pearson_top_hvg",
        "cell_pearson_centred",
        "label_transfer_macro",
        "gene_pearson_within_type",
    ),
    "atac": ("peak_auroc", "label_transfer_macro", "peak_pearson_within_type"),
}


def trial(prepared: Path, folder: Path, settings: str) -> dict[str, float]:
    """Train with ``settings``, predict and score the held-out batch."""
    sets = [f"--set={s}" for s in settings.split(",") if s]
    genes = REAL / "tables" / "genes_mm10.tsv.gz"
    model = folder / "model"
    xmodal("train", prepared, "--output-dir", model, "--gene-table", genes, "--threads", 1, "--overwrite", *sets)
    scored = []
    for source, target in (("atac", "rna"), ("rna", "atac")):
        out = folder / f"{target}.h5ad"
        which = ["--from", source, "--to", target, "--split", "test", "--checkpoint", model / "model.safetensors"]
        xmodal("predict", prepared, *which, "--output", out, "--overwrite")
        scored += ["--prediction", f"{target}={out}"]
    label = ["--label-key", "cell_type", "--no-controls", "--umap-cells", 0, "--overwrite"]
    xmodal("evaluate", prepared, *scored, "--output-dir", folder / "scores", *label)
    targets = json.loads((folder / "scores" / "metrics.json").read_text())["targets"]
    metrics = json.loads((model / "metrics.json").read_text())
    row = {f"{t} {s}": targets[t]["methods"]["prediction"][s] for t, names in SHOWN.items() for s in names}
    return {**row, "best epoch": metrics["best_epoch"], "s": metrics["timing"]["train_s"]}


def main(trials: list[str]) -> None:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    source = REAL / "mouse_cortex_snareseq_dev"
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "fold.h5mu"
        filters = [
            "--exclude",
            "cell_type=Mis",
            "--min-peak-fraction",
            0.005,
            "--min-rna-counts",
            50,
            "--min-peaks",
            15,
        ]
        pair = ["--rna", source / "rna.h5ad", "--atac", source / "atac.h5ad"]
        xmodal("prepare", *pair, "--output", prepared, "--split-by", "batch", *FOLD, *filters)
        for settings in trials:
            found[settings or "default"] = trial(prepared, Path(name), settings)
            logging.info("%s: %s", settings or "default", found[settings or "default"])
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            columns = tuple(next(iter(found.values())))
            between(HERE / "RESULTS.md", "trials", "\n".join(grid("settings", columns, found)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1:])
