"""Joint embeddings, measured: `sailerx` beside plain embeddings and MultiVI, on halves of the counts, with modalities missing.

    python benchmarks/joint.py [--part cortex|a549|citeseq|halves|hybrid|simulated|ablations|all] [--seeds 3] [--threads 2]
                               [--multivi PYTHON] [--write]

Everything goes through the commands a user has; scores of embeddings are those of `xmodal evaluate --embedding`.  ``--multivi``:
the Python of an environment with benchmarks/peers/scvi.txt.  Results are kept in benchmarks/results/joint.json (a part measured
anew replaces its own); ``--write`` also rewrites the tables of benchmarks/RESULTS.md.  Settings were chosen on validation cells.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import joint_halves
import joint_shared
import mudata as mu
import numpy as np
from common import HERE, REAL, between, xmodal

warnings.simplefilter("ignore")
log = logging.getLogger("benchmark")
RESULTS = HERE / "results" / "joint.json"
SETS = {
    "cortex": (
        "mouse_cortex_snareseq_dev",
        "cell_type",
        "batch",
        ["--split-by", "batch", "--exclude", "cell_type=Mis", "--min-rna-counts", "50", "--min-peaks", "15"],
    ),
    "a549": ("human_a549_scicar_dev", "treatment_time", "plate", ["--split-by", "plate"]),
    "citeseq": ("human_pbmc_citeseq_dev", "cell_type", None, ["--split", "random"]),
}
SHOWN = (
    "knn_accuracy",
    "knn_accuracy_heldout",
    "ari",
    "ilisi",
    "depth_r2_within_rna",
    "depth_r2_within_trees_rna",
    "depth_r2_within_atac",
    "depth_r2_within_trees_atac",
    "foscttm",
    "foscttm_without_depth",
)
SHARED = "one encoder of both (hard shared latent)"
ABLATIONS = {
    "as it is": [],
    "without similarity": ["similarity=0"],
    "without invariance": ["invariance=0"],
    "with the paper's bound (1)": ["mutual_information=1"],
    "bound in place of invariance": ["invariance=0", "mutual_information=1"],
    "modalities weigh as they claim": ["trust=0"],
    "modalities weigh as they are reliable": ["trust=1"],
    "no modality hidden": ["hide=0"],
    "ATAC leads": ["reference=atac"],
    SHARED: [],
}


def prepared(name: str, scratch: Path) -> Path | None:
    """The prepared cells of one set; None, said, where they are not there."""
    folder, _, _, options = SETS[name]
    out = scratch / f"{name}.h5mu"
    if not (REAL / folder).is_dir():
        log.warning("%s: skipped, because there is no %s (XMODAL_REAL_DATA)", name, REAL / folder)
        return None
    if not out.exists():
        xmodal("prepare", "--h5mu", REAL / folder / "paired.h5mu", "--output", out, *options)
    return out


def train(
    cells: Path, folder: Path, batch: str | None, seed: int, settings: list[str], model: str = "sailerx"
) -> dict[str, Any]:
    """Train, unless it was before in this scratch folder; the training's metrics."""
    if (folder / "model.safetensors").exists():
        return dict(json.loads((folder / "metrics.json").read_text()))
    more = ["--batch-key", batch] if batch else []
    more += [f"--set={s}" for s in settings]
    xmodal("train", cells, "--model", model, "--output-dir", folder, "--seed", seed, "--threads", ARGS.threads, *more)
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def embed(cells: Path, model: Path, out: Path, *more: object) -> Path:
    xmodal(
        "embed",
        cells,
        "--checkpoint",
        model / "model.safetensors",
        "--output",
        out,
        "--threads",
        ARGS.threads,
        "--resolution",
        1,
        *more,
    )
    return out


def evaluated(cells: Path, embedding: Path, name: str, folder: Path, *more: object) -> dict[str, dict[str, float]]:
    """Scores of the embedding, and of what stands beside it, on the test cells."""
    _, label, batch, _ = SETS[name]
    keys = ["--label-key", label, *(["--batch-key", batch] if batch else [])]
    xmodal(
        "evaluate",
        cells,
        "--embedding",
        embedding,
        "--output-dir",
        folder,
        *keys,
        "--threads",
        ARGS.threads,
        "--overwrite",
        *more,
    )
    methods: dict[str, dict[str, float]] = json.loads((folder / "metrics.json").read_text())["embedding"]["methods"]
    return methods


def real(name: str, scratch: Path) -> dict[str, Any] | None:
    """`sailerx`, three seeds, beside the plain embeddings, and MultiVI where it is installed."""
    cells = prepared(name, scratch)
    if cells is None:
        return None
    runs, beside, seconds = [], {}, []
    for seed in range(ARGS.seeds):
        model = scratch / f"{name}{seed}"
        seconds.append(train(cells, model, SETS[name][2], seed, [])["timing"]["train_s"])
        out = embed(cells, model, scratch / f"{name}{seed}.h5mu", "--by-modality")
        methods = evaluated(
            cells, out, name, scratch / f"{name}{seed}_scores", *([] if seed == 0 else ["--no-controls"])
        )
        runs.append(methods.pop("embedding"))
        beside |= methods
    rows = {"sailerx": {k: median(r[k] for r in runs) for k in runs[0]}, **beside}
    if ARGS.multivi and name == "cortex":
        rows["MultiVI"] = multivi(cells, name, scratch)
    mean = mu.read_h5mu(scratch / f"{name}0.h5mu").obs.filter(like="xmodal_weight").mean()
    return {
        "methods": rows,
        "runs": runs,
        "train_s": seconds,
        "weights": {k: round(float(v), 3) for k, v in mean.items()},
    }


def multivi(cells: Path, name: str, scratch: Path) -> dict[str, float]:
    out = scratch / "multivi.h5mu"
    if not out.exists():
        script = HERE / "peers" / "multivi_latent.py"
        subprocess.run([ARGS.multivi, script, cells, out, "--threads", str(ARGS.threads)], check=True)
    return evaluated(cells, out, name, scratch / "multivi_scores", "--no-controls")["embedding"]


def halves(scratch: Path) -> dict[str, Any] | None:
    """Imputed from one random half of the counts, judged on the other half, test cells; the second modality added or not."""
    whole = prepared("cortex", scratch)
    if whole is None:
        return None
    runs = []
    for seed in range(ARGS.seeds):
        cells, other = scratch / f"half{seed}.h5mu", scratch / f"other{seed}.h5mu"
        joint_halves.split(whole, cells, other, seed)
        model = scratch / f"half{seed}"
        train(cells, model, "batch", seed, [])
        runs.append(joint_halves.scores(cells, other, model / "model.safetensors", scratch, ARGS.threads))
    return {"methods": {m: {k: median(r[m][k] for r in runs) for k in runs[0][m]} for m in runs[0]}, "runs": runs}


def hybrid(scratch: Path) -> dict[str, Any] | None:
    """Test cells that lack a modality, against training cells that have both; and mixed among themselves."""
    cells = prepared("cortex", scratch)
    if cells is None:
        return None
    runs = [one_hybrid(cells, seed, scratch) for seed in range(ARGS.seeds)]
    rows = {k: {"15-NN or ratio": median(r[k] for r in runs)} for k in runs[0]}
    return {"methods": rows, "runs": runs}


def one_hybrid(cells: Path, seed: int, scratch: Path) -> dict[str, float]:
    model = scratch / f"cortex{seed}"
    train(cells, model, "batch", seed, [])
    whole = embed(cells, model, scratch / f"hybrid_all{seed}.h5mu", "--by-modality")
    found = {"paired": joint_halves.heldout(whole, "cell_type")}
    for gone in ("atac", "rna"):
        lacking = joint_halves.without(cells, gone, "test", 1.0, scratch / f"no_{gone}.h5mu")
        embedded = embed(lacking, model, scratch / f"e_{gone}{seed}.h5mu")
        found[f"{gone} missing"] = joint_halves.heldout(embedded, "cell_type")
    lsi = evaluated(cells, whole, "cortex", scratch / f"hybrid_scores{seed}", "--comparators", "atac_lsi")["atac_lsi"]
    found["ATAC-only latent (LSI)"] = lsi["knn_accuracy_heldout"]
    mixed = joint_halves.without(cells, "atac", "test", 0.5, scratch / "mixed.h5mu")
    found["neighbour ratio, half of the cells without ATAC"] = joint_halves.mixing(
        embed(mixed, model, scratch / f"e_mixed{seed}.h5mu")
    )
    return found


def simulated(scratch: Path) -> dict[str, Any]:
    """Simulated cells so shallow in RNA that RNA alone recovers the types only in part.

    Types of even size are all that both modalities share (no bits): with bits, states are clusters as well, and a matched number
    of clusters has to choose between them and the types, by whatever method.
    """
    runs = []
    for seed in range(ARGS.seeds):
        folder = scratch / f"sim{seed}"
        types = ("--tree", "3,2", "--type-weight", 0.5, "--type-concentration", 100, "--gain-rna", 0, "--gain-atac", 0)
        shape = ("--cells", 3000, "--depth", ARGS.sim_depth, "--open", 0.16, "--seed", 20 + seed, "--no-rates", *types)
        xmodal("simulate", "--output-dir", folder, *shape)
        cells = folder / "prepared.h5mu"
        xmodal("prepare", "--h5mu", folder / "paired.h5mu", "--output", cells)
        train(cells, folder / "model", "batch", seed, [])
        out = embed(cells, folder / "model", folder / "embedded.h5mu", "--by-modality")
        keys = ["--label-key", "type", "--batch-key", "batch", "--cells", "all", "--threads", ARGS.threads]
        xmodal("evaluate", cells, "--embedding", out, "--output-dir", folder / "scores", *keys)
        runs.append(json.loads((folder / "scores/metrics.json").read_text())["embedding"]["methods"])
    return {"methods": {m: {k: median(r[m][k] for r in runs) for k in runs[0][m]} for m in runs[0]}, "runs": runs}


def ablations(scratch: Path) -> dict[str, Any] | None:
    """One part changed at a time, one seed, judged on the validation batch: the test cells choose nothing."""
    cells = prepared("cortex", scratch)
    if cells is None:
        return None
    rows = {}
    os.environ["PYTHONPATH"] = joint_shared.registered(scratch / "registered")
    for i, (title, settings) in enumerate(ABLATIONS.items()):
        model = scratch / f"ablation{i}"
        train(cells, model, "batch", 0, settings, joint_shared.NAME if title == SHARED else "sailerx")
        out = embed(cells, model, scratch / f"ablation{i}.h5mu", "--by-modality")
        rows[title] = evaluated(
            cells, out, "cortex", scratch / f"ablation{i}_scores", "--no-controls", "--cells", "valid"
        )["embedding"]
        log.info("%s: %s", title, {k: round(v, 3) for k, v in rows[title].items() if k in SHOWN})
    return {"methods": rows}


def table(rows: dict[str, dict[str, float]], columns: tuple[str, ...]) -> str:
    kept = [c for c in columns if any(np.isfinite(r.get(c, np.nan)) for r in rows.values())]
    lines = ["| | " + " | ".join(kept) + " |", "|---|" + "---|" * len(kept)]
    for name, row in rows.items():
        cells = (f"{row[c]:.3f}" if c in row and np.isfinite(row[c]) else "-" for c in kept)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    **{name: lambda scratch, name=name: real(name, scratch) for name in SETS},  # type: ignore[misc]
    "halves": halves,
    "hybrid": hybrid,
    "simulated": simulated,
    "ablations": ablations,
}


def write(known: dict[str, Any]) -> None:
    page = HERE / "RESULTS.md"
    for name, found in known.items():
        if f"<!-- joint_{name} -->" not in page.read_text():
            continue
        rows = found["methods"]
        columns = (
            SHOWN
            if name in SETS or name in ("simulated", "ablations")
            else tuple(dict.fromkeys(k for r in rows.values() for k in r))
        )
        between(page, f"joint_{name}", table(rows, columns))


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        scratch = ARGS.scratch or Path(temporary)
        for name in PARTS if ARGS.part == "all" else ARGS.part.split(","):
            found = PARTS[name](scratch)
            if found is not None:
                known = {**read(), name: found}  # read anew: parts may be measured side by side
                RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
                log.info("%s\n%s", name, json.dumps(found.get("methods", found), indent=1))
    if ARGS.write:
        write(read())


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", help=", ".join([*PARTS, "all"]) + "; several with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--multivi", help="the Python of an environment with benchmarks/peers/scvi.txt")
    parser.add_argument("--sim-depth", type=int, default=50, help="median RNA counts of the simulated cells")
    parser.add_argument("--scratch", type=Path, help="keep what is made here, and use what is there")
    parser.add_argument("--write", action="store_true")
    ARGS = parser.parse_args()
    main()
