"""Are cells of another tissue or species told apart?  `python benchmarks/novelty.py`: AUROC of the score, cell by cell.

For each modality the score is fitted to training cells, and held-out cells of whole batches or wells are compared with
foreign cells.  RNA: features shared by gene symbol (upper case).  ATAC: no two sets share a genome and peaks, so tissues and
species are compared on promoters (a peak within 1 kb of the start of a gene, by gene symbol), as they are and with cells of
one group pooled to the depth that all peaks would give; and cell types held out whole stand for foreign cells.  Protein:
cell types held out whole.  Depth alone: deep or shallow cells of the same tissue, which must not be told apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from common import REAL, between
from sklearn.metrics import roc_auc_score

from xmodal import fields
from xmodal.learning import novelty

SETS = {
    "cortex": "mouse_cortex_snareseq_dev",
    "A549": "human_a549_scicar_dev",
    "PBMC-40": "human_pbmc_multiome_40cells",
    "CITE": "human_pbmc_citeseq_dev",
    "PBMC-3k": "text_human_pbmc3k",
}
BLOOD = {"PBMC-40", "CITE", "PBMC-3k"}
GENOMES = {"cortex": "mm10", "A549": "hg19", "PBMC-40": "hg38"}
HELD_BY = {"cortex": "batch", "A549": "well"}  # else a quarter of the cells
GLIA, EXCITATORY = ("Astro", "Oligo", "OPC", "MGC", "Endo", "Peri"), ("L2/3", "L4/5", "L6", "Clau")
KINDS = {
    "rna": (fields.NB, fields.LOG_CP10K),
    "atac": (fields.BERNOULLI, fields.BINARY),
    "protein": (fields.GAUSSIAN, fields.CLR),
}
DEPTHS = ((1, 10), (10, 30), (30, 100), (100, np.inf))
POOL = 6
REACH = 1_000  # bases around the start of a gene
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """What is compared: CSR counts (cells, features) of training, held-out and foreign cells."""

    name: str
    kind: str
    train: sp.csr_matrix
    held: sp.csr_matrix
    foreign: sp.csr_matrix


def load(name: str, modality: str) -> ad.AnnData:
    """Counts of a set; genes by upper-case symbol, the first where one stands twice."""
    cells = ad.read_h5ad(REAL / SETS[name] / f"{modality}.h5ad")
    if modality == "rna":
        symbols = cells.var_names.str.upper()
        cells = cells[:, ~symbols.duplicated()].copy()
        cells.var_names = symbols[~symbols.duplicated()]
    cells.X = sp.csr_matrix(cells.X, dtype=np.float32)
    return cells


def held_out(name: str, obs: pd.DataFrame) -> Mask:
    """Whole batches or wells, a quarter to a third of them; a quarter of the cells where there is one batch only."""
    rng = np.random.default_rng(0)
    if name not in HELD_BY:
        return rng.random(len(obs)) < 0.25
    labels = obs[HELD_BY[name]].astype(str)
    groups = rng.permutation(sorted(labels.unique()))
    return labels.isin(groups[: max(1, round(0.3 * len(groups)))]).to_numpy()


def promoters(name: str) -> ad.AnnData:
    """Is a peak open within REACH of the start of a gene?  (cells, genes), by upper-case symbol."""
    cells, genes = load(name, "atac"), pd.read_csv(REAL / "tables" / f"genes_{GENOMES[name]}.tsv.gz", sep="\t")
    start = np.where(genes["strand"] == "-", genes["end"], genes["start"])
    symbols, column = np.unique(genes["symbol"].astype(str).str.upper(), return_inverse=True)
    rows, cols = [], []
    chromosomes = cells.var["chrom"].astype(str).to_numpy()
    first, last = cells.var["start"].to_numpy() - REACH, cells.var["end"].to_numpy() + REACH
    for chromosome, own in genes.groupby("chrom").indices.items():
        own = own[np.argsort(start[own])]
        for peak in np.flatnonzero(chromosomes == chromosome):
            hit = own[np.searchsorted(start[own], first[peak]) : np.searchsorted(start[own], last[peak], "right")]
            rows += [peak] * len(hit)
            cols += list(column[hit])
    near = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), (cells.n_vars, len(symbols)))
    used = np.asarray(near.sum(0)).ravel() > 0
    opened = sp.csr_matrix(((cells.X > 0).astype(np.float32) @ near)[:, used] > 0, dtype=np.float32)
    return ad.AnnData(opened, obs=cells.obs, var=pd.DataFrame(index=symbols[used]))


def pooled(x: sp.csr_matrix, groups: pd.Series, size: int = POOL) -> sp.csr_matrix:
    """Sums of ``size`` cells of one group each."""
    each = groups.reset_index(drop=True).groupby(groups.to_numpy()).indices.values()
    rows = np.concatenate([g[: len(g) // size * size] for g in each])
    member = sp.csr_matrix((np.ones(len(rows)), (np.arange(len(rows)) // size, rows)), (len(rows) // size, x.shape[0]))
    return sp.csr_matrix(member @ x, dtype=np.float32)


def across(
    kind: str, label: str, known: dict[str, ad.AnnData], trained: tuple[str, ...], pool: bool = False
) -> Iterator[Case]:
    """Each set in ``trained`` against every other of another tissue, over the features both have."""
    for name in trained:
        for other in known:
            if other == name or {name, other} <= BLOOD:
                continue
            shared = sorted(set(known[name].var_names) & set(known[other].var_names))
            own, foreign = known[name][:, shared], known[other][:, shared]
            held = held_out(name, own.obs)
            parts = [own.X[~held], own.X[held], foreign.X]
            if pool:
                parts = [
                    pooled(own.X[~held], _groups(own.obs[~held])),
                    pooled(own.X[held], _groups(own.obs[held])),
                    pooled(foreign.X, _groups(foreign.obs)) if foreign.n_obs > 100 else foreign.X,
                ]
            yield Case(
                f"{label}: {name} trained, {other} foreign, {len(shared):,} shared", kind, *map(sp.csr_matrix, parts)
            )


def _groups(obs: pd.DataFrame) -> pd.Series:
    return obs["cell_type" if "cell_type" in obs else "treatment_time"].astype(str)


def types(name: str, modality: str, groups: dict[str, tuple[str, ...]]) -> Iterator[Case]:
    """Cell types held out whole against the held-out cells of the others."""
    cells = load(name, modality)
    labels = _groups(cells.obs)
    for label, members in groups.items():
        foreign = labels.isin(members).to_numpy()
        rest = ~foreign & (labels != "Mis").to_numpy()
        held = held_out(name, cells.obs)
        yield Case(
            f"{modality} {name}: trained without {label}",
            modality,
            cells.X[rest & ~held],
            cells.X[rest & held],
            cells.X[foreign],
        )


def depths(name: str, modality: str) -> Iterator[Case]:
    """Trained on one half of the depths, asked about the other end of them."""
    cells = load(name, modality)
    x = sp.csr_matrix(cells.X > 0, dtype=np.float32) if modality == "atac" else cells.X
    total, half = np.asarray(x.sum(1)).ravel(), np.random.default_rng(1).random(cells.n_obs) < 0.5
    low, high = total < np.quantile(total, 0.6), total > np.quantile(total, 0.8)
    label = f"{modality} {name}: trained on"
    yield Case(f"{label} the shallow, asked the deepest fifth", modality, x[low & half], x[low & ~half], x[high])
    low = total < np.quantile(total, 0.2)
    deep = total > np.quantile(total, 0.4)
    yield Case(f"{label} the deep, asked the shallowest fifth", modality, x[deep & half], x[deep & ~half], x[low])


def measured(case: Case) -> dict[str, object]:
    """A row: median counts, AUROC (also by depth of the foreign cell), shares above the limit, seconds."""
    likelihood, scale = KINDS[case.kind]
    started = time.perf_counter()
    known = novelty.fit(case.train, likelihood, scale)
    took = time.perf_counter() - started
    assert known is not None
    own, foreign = (novelty.scores(known, x, likelihood) for x in (case.held, case.foreign))
    depth = [np.asarray((x > 0 if case.kind == "atac" else x).sum(1)).ravel() for x in (case.held, case.foreign)]
    by_depth = []
    for low, high in DEPTHS:
        rows = [(d >= low) & (d < high) for d in depth]
        enough = all(r.sum() >= 20 for r in rows) and case.kind != "protein"
        by_depth.append(f"{auroc(own[rows[0]], foreign[rows[1]]):.3f}" if enough else "")
    return {
        "compared": case.name,
        "cells": f"{case.train.shape[0]}/{case.held.shape[0]}/{case.foreign.shape[0]}",
        "median counts": f"{np.median(depth[0]):.0f}/{np.median(depth[1]):.0f}",
        "AUROC": f"{auroc(own, foreign):.3f}",
        **dict(zip((f"{lo:g}-{hi:g}" if hi < np.inf else f">= {lo:g}" for lo, hi in DEPTHS), by_depth, strict=True)),
        "held-out unlike": f"{np.nanmean(own > novelty.LIMIT):.1%}",
        "foreign unlike": f"{np.nanmean(foreign > novelty.LIMIT):.1%}",
        "fit s": f"{took:.1f}",
    }


def auroc(own: npt.NDArray[np.float32], foreign: npt.NDArray[np.float32]) -> float:
    """Foreign above held-out cells; cells without counts are left out."""
    own, foreign = own[np.isfinite(own)], foreign[np.isfinite(foreign)]
    return float(roc_auc_score(np.repeat([0, 1], [len(own), len(foreign)]), np.concatenate([own, foreign])))


def cases() -> dict[str, Iterator[Case]]:
    """By heading."""
    rna = {name: load(name, "rna") for name in SETS}
    near = {name: promoters(name) for name in GENOMES}
    types_of_blood = {t: (t,) for t in ("Mono", "B", "NK", "CD8 T", "CD4 T")}
    brain = {"glia and vessels": GLIA, "excitatory neurons": EXCITATORY}

    def chain(*parts: Iterator[Case]) -> Iterator[Case]:
        for part in parts:
            yield from part

    return {
        "RNA: another tissue or species": across("rna", "rna", rna, ("cortex", "A549", "CITE", "PBMC-3k")),
        "ATAC: another tissue or species, promoters only": chain(
            across("atac", "promoters", near, ("cortex", "A549")),
            across("atac", f"promoters, {POOL} cells pooled", near, ("cortex", "A549"), pool=True),
        ),
        "Cell types held out whole (nearer than another tissue)": chain(
            types("cortex", "rna", brain),
            types("cortex", "atac", brain),
            types("CITE", "rna", types_of_blood),
            types("CITE", "protein", types_of_blood),
        ),
        "Depth alone (.5 is right, and few unlike)": chain(
            *(depths(n, m) for n in ("cortex", "A549") for m in ("rna", "atac"))
        ),
    }


def main() -> None:
    """Measure all, and put the tables between the markers of RESULTS.md."""
    text: list[str] = []
    for heading, each in cases().items():
        rows = []
        for case in each:
            rows.append(measured(case))
            sys.stderr.write(f"{rows[-1]}\n")
        columns = list(rows[0])
        lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        text += [
            f"**{heading}**",
            "",
            *lines,
            *("| " + " | ".join(str(r[c]) for c in columns) + " |" for r in rows),
            "",
        ]
    between(Path(__file__).with_name("RESULTS.md"), "novelty", "\n".join(text).rstrip())


if __name__ == "__main__":
    main()
