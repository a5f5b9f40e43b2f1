"""Cells in words, measured: `xmodal describe` beside label and definition alone, and floors; is what it says true?

    python benchmarks/cell_text_description.py [--part template|scratch|all] [--sets pbmc3k,cortex] [--seeds 5] [--threads 1]
                                               [--steps 200] [--fresh] [--write]

Everything goes through the commands a user has; scores are those of `xmodal evaluate --description`.  A fifth of the cells of
each type are test cells and a tenth validation cells, 5 splits.  `scmmgpt` learns from the others (without its generator,
which plays no part), `xmodal annotate` names the test cells, and these are described, by groups of one label and cell by
cell: genes are chosen in one half of the test cells of a group and tested in the other.  Nothing is chosen on test cells.
``scratch``: the small decoder, taught for ``--steps`` on the texts of the checkpoint of the first split.  A decoder on top of
a language model has no figures: no such model may be fetched.  Results are kept in
benchmarks/results/cell_text_description.json as soon as a split is done, which is not measured again without ``--fresh``;
``--write`` also rewrites the tables of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
from common import HERE, REAL, between, xmodal

warnings.simplefilter("ignore")
mu.set_options(pull_on_update=False)
log = logging.getLogger("benchmark")
RESULTS = HERE / "results" / "cell_text_description.json"
ONTOLOGY = REAL / "tables" / "cell_ontology_terms.tsv.gz"
# Folder, column of labels, genome, cells that are left out, and ids by hand; others (claustrum) have no term.
SETS: dict[str, tuple[str, str, str, tuple[str, ...], dict[str, str]]] = {
    "pbmc3k": (
        *("text_human_pbmc3k", "cell_type", "GRCh38", ()),
        {
            "B": "CL:0000236",
            "CD14+ Mono": "CL:0001054",
            "CD8 T": "CL:0000625",
            "DC": "CL:0000451",
            "FCGR3A+ Mono": "CL:0002396",
            "Memory CD4 T": "CL:0000897",
            "NK": "CL:0000623",
            "Naive CD4 T": "CL:0000895",
            "Platelet": "CL:0000233",
        },
    ),
    "cortex": (
        *("mouse_cortex_snareseq_dev", "cell_type", "mm10", ("Mis",)),
        {
            "Astro": "CL:0000127",
            "L2/3": "CL:4030059",
            "L4/5": "CL:4030062",
            "L6": "CL:4023042",
            "Endo": "CL:0000115",
            "Npy": "CL:4023011",
            "Pvalb": "CL:4023018",
            "Sst": "CL:4023017",
            "CGE": "CL:4023016",
            "MGC": "CL:0000129",
            "OPC": "CL:0002453",
            "Oligo": "CL:0000128",
            "Peri": "CL:0000669",
        },
    ),
}
MODEL = ("--set", "generator_passes=0")
TEST, VALID = 0.2, 0.1
HEADLINE = (
    "label_f1",
    "ontology_distance",
    "bleu2",
    "bleu4",
    "rouge_l",
    "rouge_l_macro",
    "meteor",
    "cosine",
    "textual_discrepancy",
    "textual_discrepancy_with_genes",
)
WHOLE = ("rouge_l_whole", "cosine_whole", "textual_discrepancy_whole")
FAITH = ("traceable", "evidence_true", "gene_claims_true", "genes_chosen_true")
BAR_CLAIMS = 0.95


def prepared(name: str, seed: int, scratch: Path) -> Path | None:
    """The cells with a split, and the table of terms beside them; None, said, where they are not there."""
    folder, key, genome, without, terms = SETS[name]
    path, out = REAL / folder / "rna.h5ad", scratch / f"{name}{seed}.h5mu"
    if not path.is_file():
        log.warning("%s: skipped, because there is no %s (XMODAL_REAL_DATA)", name, path)
        return None
    adata = ad.read_h5ad(path)
    adata = adata[~adata.obs[key].isin(without).to_numpy()].copy()
    label = adata.obs[key].astype(str).to_numpy()
    adata.obs = adata.obs[[key]].rename(columns={key: "label"})
    adata.obs["xmodal_split"] = split(label, seed)
    adata.uns["genome"] = genome
    adata.write_h5ad(out.with_suffix(".raw.h5ad"))
    more = ("--genome", genome, "--overwrite", "--min-rna-counts", 0)
    xmodal("prepare", "--rna", out.with_suffix(".raw.h5ad"), "--output", out, *more)
    rows = "".join(f"{k}\t{v}\n" for k, v in terms.items())
    out.with_suffix(".tsv").write_text("label\tcell_type_ontology_term_id\n" + rows)
    return out


def split(label: np.ndarray, seed: int) -> np.ndarray:
    """Shares of each type."""
    draw, part = np.random.default_rng(seed), np.full(len(label), "train", object)
    for one in np.unique(label):
        rows = draw.permutation(np.flatnonzero(label == one))
        test, valid = (max(1, round(share * len(rows))) for share in (TEST, VALID))
        part[rows[:test]], part[rows[test : test + valid]] = "test", "valid"
    return part


def annotated(name: str, seed: int, scratch: Path) -> tuple[Path, Path, Path, float] | None:
    """Prepared cells, checkpoint, named test cells, seconds of training."""
    cells = prepared(name, seed, scratch)
    if cells is None:
        return None
    folder, out = scratch / f"{name}{seed}", scratch / f"{name}{seed}.h5ad"
    texts = ("--label-key", "label", "--label-terms", cells.with_suffix(".tsv"), "--ontology", ONTOLOGY)
    common = ("--seed", seed, "--threads", ARGS.threads, "--overwrite")
    if not (folder / "model.safetensors").exists():  # of another part
        xmodal("train", cells, "--model", "scmmgpt", "--output-dir", folder, *common, *texts, *MODEL)
    seconds = float(json.loads((folder / "metrics.json").read_text())["timing"]["train_s"])
    model = folder / "model.safetensors"
    xmodal("annotate", cells, "--checkpoint", model, "--output", out, "--split", "test", *common)
    return cells, model, out, seconds


def described(made: tuple[Path, Path, Path, float], folder: Path, seed: int, *more: object) -> dict[str, Any]:
    """What evaluate says of the descriptions of the test cells, and how long describing took."""
    cells, model, named, _ = made
    common = ("--seed", seed, "--threads", ARGS.threads, "--overwrite")
    start = time.monotonic()
    xmodal("describe", named, "--checkpoint", model, "--output-dir", folder, *common, *more)
    seconds = time.monotonic() - start
    scores = folder / "scores"
    xmodal(
        *("evaluate", cells, "--description", folder / "descriptions.json", "--ontology", ONTOLOGY),
        *("--output-dir", scores, *common),
    )
    about = json.loads((scores / "metrics.json").read_text())["description"]
    kept = {k: about[k] for k in ("methods", "counts", "wrong", "cells", "descriptions")}
    return {**kept, "decoder": about["provenance"]["decoder"], "describe_s": round(seconds, 1)}


def label_f1(made: tuple[Path, Path, Path, float], column: str) -> float:
    """Of annotate's own labels, read from the file that it wrote."""
    from xmodal.scores.annotation_measures import macro_f1
    from xmodal.text import ontology

    cells, _, named, _ = made
    terms = dict(line.split("\t") for line in cells.with_suffix(".tsv").read_text().splitlines()[1:])
    known = ontology.read(ONTOLOGY)
    obs = ad.read_h5ad(named).obs
    truth = np.array([terms.get(v, f"label:{v}") for v in obs["label"].astype(str)], object)
    told = [str(v) for v in obs[column]]
    names = {v: known.find(v) or (v if v == "unknown" else f"label:{v}") for v in sorted(set(told))}
    return macro_f1(truth, np.array([names[v] for v in told], object))


def template(name: str, scratch: Path, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Groups and cells in each split that was not measured before, and the F1 of annotate's labels."""
    runs: dict[str, Any] = {} if ARGS.fresh else dict(before.get("runs", {}))
    for seed in range(ARGS.seeds):
        if str(seed) in runs or (made := annotated(name, seed, scratch)) is None:
            continue
        run: dict[str, Any] = {"train_s": made[3]}
        for per, column in (("cluster", "ct_cluster_label"), ("cell", "ct_label")):
            run[per] = described(made, scratch / f"{name}{seed}_{per}", seed, "--per", per)
            run[per]["annotate_f1"] = round(label_f1(made, column), 5)
            own = run[per]["methods"]["description"]
            log.info("%s, split %d, %s: %s", name, seed, per, {k: own.get(k) for k in (*HEADLINE, *FAITH)})
        runs[str(seed)] = run
        yield {"runs": runs, **{per: summed([r[per] for r in runs.values()]) for per in ("cluster", "cell")}}


def scratch_decoder(name: str, scratch: Path, _: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The small decoder taught on the texts of the first split's checkpoint."""
    made = annotated(name, 0, scratch)
    if made is None:
        return
    folder, common = scratch / f"{name}_decoder", ("--seed", 0, "--threads", ARGS.threads, "--overwrite")
    start = time.monotonic()
    xmodal(
        *("describe", "--checkpoint", made[1], "--decoder", "scratch", "--train-decoder", folder),
        *("--steps", ARGS.steps, *common),
    )
    seconds = round(time.monotonic() - start, 1)
    more = ("--decoder", "scratch", "--decoder-dir", folder)
    run = described(made, scratch / f"{name}_scratch", 0, *more)
    yield {"teach_s": seconds, "steps": ARGS.steps, **run}


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and 95 % interval (t) of each score of each method over the splits, and which bars are reached."""
    from scipy.stats import t

    methods: dict[str, dict[str, list[float]]] = {}
    for method in runs[0]["methods"]:
        for score in (*HEADLINE, *WHOLE, *FAITH):
            values = np.array([r["methods"][method][score] for r in runs if score in r["methods"][method]])
            if len(values):
                spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
                half = t.ppf(0.975, max(len(values) - 1, 1)) * spread
                methods.setdefault(method, {})[score] = [float(values.mean()), float(half)]
    own, lookup = methods["description"], methods["lookup"]
    between_f1 = [abs(r["methods"]["description"]["label_f1"] - r["annotate_f1"]) for r in runs if "annotate_f1" in r]
    bars = {
        "label F1 is annotate's": max(between_f1, default=0.0) < 1e-4,
        "every sentence is traceable": own["traceable"][0] == 1,
        "gene claims are true": own.get("gene_claims_true", [0.0])[0] >= BAR_CLAIMS,
        "genes chosen are true": own.get("genes_chosen_true", [0.0])[0] >= BAR_CLAIMS,
        **{
            f"{s} not above the look-up's": own[s][0] <= lookup[s][0] + 1e-9
            for s in HEADLINE
            if s.startswith("textual") and s in own
        },
    }
    claims = {k: int(sum(r["counts"][k] for r in runs)) for k in runs[0]["counts"]}
    return {"means": methods, "bars": {k: bool(v) for k, v in bars.items()}, "counts": claims}


def tables(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = []
    for per, what in (("cluster", "Groups of one label"), ("cell", "Cell by cell")):
        counted = ", ".join(f"{name} {len(a['runs'])} splits" for name, a in found.get("template", {}).items())
        lines += [f"{what}: mean over splits ({counted}), ± 95 % interval.", ""]
        lines += ["| set | method | " + " | ".join(HEADLINE) + " |", "|---|---|" + "---|" * len(HEADLINE)]
        for name, about in found.get("template", {}).items():
            lines += [_row(name, m, own, HEADLINE) for m, own in about[per]["means"].items()]
        lines += ["", "| set | " + " | ".join((*WHOLE, *FAITH, "genes named", "genes chosen")) + " |"]
        lines.append("|---|" + "---|" * (len(WHOLE) + len(FAITH) + 2))
        for name, about in found.get("template", {}).items():
            own, counts = about[per]["means"]["description"], about[per]["counts"]
            cells = [_cell(own, s) for s in (*WHOLE, *FAITH)]
            lines.append(
                f"| {name} | " + " | ".join([*cells, str(counts["gene_claims"]), str(counts["genes_chosen"])]) + " |"
            )
            missed = [bar for bar, fine in about[per]["bars"].items() if not fine]
            lines.append(
                f"| *bars of {name}* | " + ("all reached" if not missed else f"missed: {'; '.join(missed)}") + " |"
            )
        lines.append("")
    for name, about in found.get("scratch", {}).items():
        worded = about["decoder"]
        own = about["methods"]["description"]
        figures = ", ".join(f"{s} {own[s]:.3f}" for s in (*HEADLINE, *FAITH) if s in own)
        lines.append(
            f"- `--decoder scratch`, {name}, first split: taught for {about['steps']} steps in {about['teach_s']:.0f} s; "
            f"{worded['fallen_back']} of {worded['sentences']} sentences are the template's instead; {figures}."
        )
    return "\n".join(lines)


def _row(name: str, method: str, own: dict[str, list[float]], scores: tuple[str, ...]) -> str:
    return f"| {name} | {method} | " + " | ".join(_cell(own, s) for s in scores) + " |"


def _cell(own: dict[str, list[float]], score: str) -> str:
    return f"{own[score][0]:.3f} ± {own[score][1]:.3f}" if score in own else "-"


def main() -> None:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    parts = {"template": template, "scratch": scratch_decoder}
    with tempfile.TemporaryDirectory() as scratch:
        for part, measure in parts.items():
            for name in ARGS.sets.split(",") if ARGS.part in (part, "all") else ():
                for about in measure(name, Path(scratch), found.get(part, {}).get(name, {})):
                    found.setdefault(part, {})[name] = about
                    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    text = tables(found)
    print(text)
    if ARGS.write:
        between(HERE / "RESULTS.md", "cell_text_description", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("template", "scratch", "all"), default="all")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--fresh", action="store_true", help="measure every split again")
    parser.add_argument("--write", action="store_true")
    ARGS = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
