"""Another lab's ATAC: its fragments recounted over the model's peaks, beside its own peaks mapped to them by overlap.

    python benchmarks/fragments.py [--models linear,auto] [--threads 1]

There are no fragments of the real sets here, so they are **simulated from the counts** of mouse cortex: each count is a
fragment with one end at a random place of its peak, 60 % of them 30 to 120 and the others 150 to 350 bases long; BACKGROUND
of all fragments lie anywhere on the chromosomes.  The other lab's peaks are made from the real ones (:func:`labs`).  A model
is trained on training batches of the cortex and predicts RNA from the ATAC of two further training batches (the cells of the
final test are in none of it): from their true counts, from the fragments recounted by `xmodal prepare --fragments
--checkpoint`, and from the fragments counted over the lab's own peaks, which `xmodal predict` maps by overlap.
Rewrites the table between the markers of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import HERE, REAL, SHOWN, between, grid, xmodal
from trials import FINAL, FOLDS

SOURCE = REAL / "mouse_cortex_snareseq_dev"
BACKGROUND = 0.4  # of all fragments
JITTER = 75  # bases by which the centre of a peak moves (standard deviation)
Row = dict[str, float]


def prepared(folder: Path) -> Path:
    """The training batches of the cortex; `test` are two batches of them."""
    out = folder / "cortex.h5mu"
    scored, valid = FOLDS["0"]
    groups = ["--test-groups", ",".join(scored), "--valid-groups", valid, *[f"--exclude=batch={b}" for b in FINAL]]
    filters = ["--exclude", "cell_type=Mis", "--min-peak-fraction", 0.005, "--min-rna-counts", 50, "--min-peaks", 15]
    pair = ["--rna", SOURCE / "rna.h5ad", "--atac", SOURCE / "atac.h5ad"]
    xmodal("prepare", *pair, "--output", out, "--split-by", "batch", *groups, *filters)
    return out


def fragments(cells: ad.AnnData, path: Path) -> None:
    """Write simulated fragments of (cells, peaks) counts, sorted by place, as Cell Ranger ARC does."""
    rng = np.random.default_rng(0)
    counts = sp.coo_matrix(cells.X)
    times = counts.data.astype(int)
    cell, peak = np.repeat(counts.row, times), np.repeat(counts.col, times)
    first, last = (cells.var[c].to_numpy(np.int64)[peak] for c in ("start", "end"))
    chrom = cells.var["chrom"].astype(str).to_numpy()[peak]
    cut = rng.integers(first, last)
    lost = round(len(cut) * BACKGROUND / (1 - BACKGROUND))  # of cells by their depth, of chromosomes by their peaks
    reach = cells.var.groupby("chrom", observed=True)["end"].max()
    where, whose = rng.choice(chrom, lost), rng.choice(cell, lost)
    chrom, cell = np.r_[chrom, where], np.r_[cell, whose]
    cut = np.r_[cut, rng.integers(0, reach[where].to_numpy())]
    short = rng.random(len(cut)) < 0.6
    length = np.where(short, rng.integers(30, 121, len(cut)), rng.integers(150, 351, len(cut)))
    start = np.maximum(np.where(rng.random(len(cut)) < 0.5, cut, cut - length + 1), 0)
    table = pd.DataFrame(
        {"chrom": chrom, "start": start, "end": start + length, "barcode": cells.obs_names.to_numpy()[cell], "n": 1}
    )
    table.sort_values(["chrom", "start", "end"]).to_csv(path, sep="\t", header=False, index=False)


def labs(var: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """BED files of peak sets as other labs would have them, by name."""
    rng = np.random.default_rng(1)
    start, end = var["start"].to_numpy(np.int64), var["end"].to_numpy(np.int64)
    centre = (start + end) // 2 + np.rint(rng.normal(0, JITTER, len(var))).astype(int)
    moved = rng.integers(-50, 51, (2, len(var)))
    sets = {
        "edges moved by up to 50 b, 10 % missing": (start + moved[0], np.maximum(end + moved[1], start + 60), 0.1),
        "500 b wide, centres moved, merged, 25 % missing": (centre - 250, centre + 250, 0.25),
        "merged over gaps of 2 kb, 25 % missing": (start - 1000, end + 1000, 0.25),
    }
    files = {}
    for name, (first, last, missing) in sets.items():
        table = pd.DataFrame({"chrom": var["chrom"].astype(str), "start": first.clip(0), "end": last})
        table = merged(table[rng.random(len(table)) >= missing])
        if "gaps" in name:
            table = table.assign(start=table["start"] + 1000, end=table["end"] - 1000)
        files[name] = folder / f"lab{len(files)}.bed"
        table.to_csv(files[name], sep="\t", header=False, index=False)
    return files


def merged(table: pd.DataFrame) -> pd.DataFrame:
    """Intervals that overlap become one."""
    table = table.sort_values(["chrom", "start"])
    reach = table.groupby("chrom")["end"].cummax().groupby(table["chrom"]).shift(fill_value=-1)
    group = (table["start"] >= reach).cumsum()
    return table.groupby(group).agg({"chrom": "first", "start": "min", "end": "max"})


def scored(name: str, cells: Path, source: Path, folder: Path, *split: object) -> Row:
    """Predict RNA from the ATAC of ``source`` and score it against the measured RNA of ``cells``."""
    out, said = folder / "rna.h5ad", folder / "said.json"
    which = ["--from", "atac", "--to", "rna", *split, "--checkpoint", folder / "model" / "model.safetensors"]
    more = ["--interval", 0, "--min-coverage", 0, "--force", "--threads", ARGS.threads, "--overwrite"]
    xmodal("predict", source, *which, "--output", out, "--summary", said, *more)
    label = ["--label-key", "cell_type", "--no-controls", "--umap-cells", 0, "--overwrite"]
    xmodal("evaluate", cells, "--prediction", f"rna={out}", "--output-dir", folder / "scores", *label)
    about = json.loads(said.read_text())
    target = json.loads((folder / "scores" / "metrics.json").read_text())["targets"]["rna"]
    row = {"peaks found": about["alignment"]["coverage"], "cells unlike": about["novelty"].get("unlike", np.nan)}
    row |= {s: target["methods"]["prediction"][s] for s in SHOWN["rna"]}
    logging.info("%s: %s", name, row)
    return row


def inputs(cells: Path, model: Path, folder: Path) -> dict[str, Path]:
    """The fragments counted in every way: prepared files by name."""
    truth = mu.read_h5mu(cells)
    asked = truth.obs_names[(truth.obs["xmodal_split"] == "test").to_numpy()]
    for name in ("rna", "atac"):
        part = ad.read_h5ad(SOURCE / f"{name}.h5ad")[asked].copy()
        part.write_h5ad(folder / f"{name}.h5ad")
    file = folder / "fragments.tsv.gz"
    fragments(part, file)
    common = ["--rna", folder / "rna.h5ad", "--fragments", file, "--min-peak-fraction", 0, "--overwrite"]
    ways: dict[str, list[object]] = {
        "recounted over the model's peaks": ["--checkpoint", model, "--count", "fragments"],
        "the same, cut sites": ["--checkpoint", model, "--count", "cuts"],
    }
    for name, peaks in labs(part.var, folder).items():
        ways[f"by overlap: {name}"] = ["--peaks", peaks, "--count", "fragments"]
    files = {"true counts, a random 25 % of the peaks missing": folder / "fewer.h5mu"}
    fewer = part[:, np.random.default_rng(2).random(part.n_vars) >= 0.25].copy()
    fewer.write_h5ad(folder / "fewer.h5ad")
    pair = ["--rna", folder / "rna.h5ad", "--atac", folder / "fewer.h5ad", "--min-peak-fraction", 0, "--overwrite"]
    xmodal("prepare", *pair, "--output", folder / "fewer.h5mu")
    for name, options in ways.items():
        files[name] = folder / f"in{len(files)}.h5mu"
        xmodal("prepare", *common, *options, "--output", files[name])
    return files


def main() -> None:
    mu.set_options(pull_on_update=False)
    rows: dict[str, dict[str, Row]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = prepared(folder)
        for model in ARGS.models.split(","):
            genes = ["--gene-table", REAL / "tables" / "genes_mm10.tsv.gz", "--threads", ARGS.threads, "--overwrite"]
            xmodal("train", cells, "--model", model, "--output-dir", folder / "model", *genes)
            files = inputs(cells, folder / "model" / "model.safetensors", folder)
            own = rows[model] = {"true counts": scored("true", cells, cells, folder, "--split", "test")}
            own |= {way: scored(way, cells, file, folder) for way, file in files.items()}
    text = [line for m, r in rows.items() for line in (f"**{m}**", "", *grid("ATAC", tuple(r["true counts"]), r), "")]
    between(HERE / "RESULTS.md", "fragments", "\n".join(text).rstrip())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="linear,auto")
    parser.add_argument("--threads", type=int, default=1)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    ARGS = parser.parse_args()
    main()
