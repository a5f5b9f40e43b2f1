"""Markers: are the right features found, and how often wrong ones?  `python benchmarks/markers.py [--write] [--only NAME]`

Known markers come from `xmodal simulate`.  For false discoveries labels are drawn that have nothing to do with the cells, and
then cells are made unlike in what is no marker: samples with effects of their own, or depth (counts thinned by a coin).  Every
marker is then a false one.  Real cells: mouse cortex and PBMC (XMODAL_REAL_DATA).  ``--write`` keeps the figures in
results/markers.json and puts the tables into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from common import HERE, REAL, between, xmodal
from sklearn.metrics import roc_auc_score

from xmodal import fields
from xmodal.data import io
from xmodal.markers import comparison, groups, measured, ranks
from xmodal.markers.settings import MarkerSettings
from xmodal.simulation.simulate import SimulateSettings, simulate

RESULTS = HERE / "results" / "markers.json"
FDR = 0.05
LABEL, SAMPLE = "label", "donor"
SHARES = (0.02, 0.05, 0.1, 0.13, 0.2, 0.5)  # of the groups that labels are drawn for
Random = np.random.Generator
Row = dict[str, float]


def compared(mdata: mu.MuData, strata: int | None = None, **options: Any) -> dict[str, pd.DataFrame]:
    """The table of every modality; ``strata``: cells of a stratum, other than the default."""
    settings = MarkerSettings(group_by=LABEL, **options)
    known = groups.find(mdata, settings)
    before = ranks.strata_of.__defaults__
    if strata:
        ranks.strata_of.__defaults__ = (strata,)
    try:
        kinds = measured.kinds(mdata, list(mdata.mod), Path("cells"))
        own = {m: measured.of_modality(mdata, m, kind, known) for m, kind in kinds.items()}
        return {m: comparison.compare(o, settings).table for m, o in own.items()}
    finally:
        ranks.strata_of.__defaults__ = before


def drawn(cells: int, rng: Random) -> npt.NDArray[np.str_]:
    """A label for each cell that says nothing about it."""
    return np.array([f"g{i}" for i in rng.choice(len(SHARES), cells, p=np.array(SHARES))])


def by_sample(samples: npt.NDArray[Any], rng: Random) -> npt.NDArray[np.str_]:
    """As :func:`drawn`, but each sample with shares of its own."""
    labels = np.empty(len(samples), object)
    for sample in np.unique(samples):
        share = np.array(SHARES) * np.exp(rng.normal(0, 0.7, len(SHARES)))
        own = samples == sample
        labels[own] = [f"g{i}" for i in rng.choice(len(SHARES), own.sum(), p=share / share.sum())]
    return labels.astype(str)


def thinned(part: ad.AnnData, chance: Any, rng: Random) -> None:
    """Keep each count with a chance: a number for each cell (cells, 1), or for each count; in place."""
    x = sp.csr_matrix(part.X, dtype=np.float64)
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    each = chance(rows, x.indices) if callable(chance) else np.asarray(chance)[rows]
    x.data = rng.binomial(x.data.astype(np.int64), each).astype(np.float64)
    x.eliminate_zeros()
    part.X = x.astype(np.float32)


def simulated(seed: int, **settings: Any) -> mu.MuData:
    """3,000 cells of one type in nine batches, of little depth, as the cortex has it."""
    given = {
        "cells": 3000,
        "genes": 500,
        "peaks": 1500,
        "tree": "1",
        "batches": 9,
        "depth": 600,
        "open": 0.03,
        "batch_sd": 0,
    }
    return simulate(SimulateSettings(**{**given, **settings}), seed).mdata


def like(mdata: mu.MuData, rng: Random) -> mu.MuData:
    mdata.obs[LABEL] = drawn(mdata.n_obs, rng)
    return mdata


def with_samples(mdata: mu.MuData, rng: Random, key: str = "batch", spread: float = 0.0) -> mu.MuData:
    """Labels drawn sample by sample; with ``spread`` each label also has an effect of its own in each sample."""
    mdata.obs[SAMPLE] = mdata.obs[key].astype(str).to_numpy()
    mdata.obs[LABEL] = by_sample(mdata.obs[SAMPLE].to_numpy(), rng)
    pairs = mdata.obs[SAMPLE] + mdata.obs[LABEL]
    for part in mdata.mod.values() if spread else ():
        code = pairs.reindex(part.obs_names).astype("category").cat.codes.to_numpy()
        keep = np.exp(-np.abs(rng.normal(0, spread, (code.max() + 1, part.n_vars))))
        thinned(part, lambda rows, columns, k=keep, c=code: k[c[rows], columns], rng)
    return mdata


def with_depth(mdata: mu.MuData, rng: Random, keep: float = 0.5) -> mu.MuData:
    """Labels drawn; of half of the groups every count is kept with a chance, so that they are of less depth."""
    mdata.obs[LABEL] = drawn(mdata.n_obs, rng)
    shallow = mdata.obs[LABEL].isin(["g0", "g2", "g4"])
    for part in mdata.mod.values():
        thinned(part, np.where(shallow.reindex(part.obs_names), keep, 1.0), rng)
    return mdata


def cortex(kind: str | None = None) -> mu.MuData:
    """The cortex; ``kind``: cells of one type only."""
    mdata = io.read_cells(REAL / "mouse_cortex_snareseq_dev" / "paired.h5mu")
    return mdata[mdata.obs["cell_type"] == kind].copy() if kind else mdata


def shuffled(mdata: mu.MuData, rng: Random, key: str = "cell_type") -> mu.MuData:
    mdata.obs[LABEL] = rng.permutation(mdata.obs[key].astype(str).to_numpy())
    return mdata


def blood() -> mu.MuData:
    return io.read_cells(REAL / "human_pbmc_citeseq_dev" / "paired.h5mu")


def cases() -> dict[str, tuple[Callable[[int, Random], mu.MuData], dict[str, Any], int]]:
    """Name: cells with labels that say nothing, how they are compared, and how many runs at most."""
    one = {"strata": 10**9}
    wilcoxon, bulk = {"method": "wilcoxon"}, {"sample_key": SAMPLE}
    many = 10**9
    return {
        "simulated, labels drawn; wilcoxon": (lambda s, r: like(simulated(s), r), {}, many),
        "simulated, half of the groups half as deep; wilcoxon": (lambda s, r: with_depth(simulated(s), r), {}, many),
        "the same; wilcoxon without strata": (lambda s, r: with_depth(simulated(s), r), one, many),
        "simulated, nine samples unlike each other, groups in other shares; pseudobulk": (
            lambda s, r: with_samples(simulated(s, batch_sd=0.4), r),
            bulk,
            many,
        ),
        "the same; wilcoxon": (lambda s, r: with_samples(simulated(s, batch_sd=0.4), r), wilcoxon, many),
        "simulated, groups with an effect of their own in each of nine samples; pseudobulk": (
            lambda s, r: with_samples(simulated(s, batch_sd=0.4), r, spread=0.4),
            bulk,
            many,
        ),
        "the same with wilcoxon": (
            lambda s, r: with_samples(simulated(s, batch_sd=0.4), r, spread=0.4),
            wilcoxon,
            many,
        ),
        "three samples, groups with an effect of their own in each; pseudobulk": (
            lambda s, r: with_samples(simulated(s, batch_sd=0.4, batches=3), r, spread=0.4),
            bulk,
            many,
        ),
        "cortex, labels shuffled; wilcoxon": (lambda s, r: shuffled(cortex(), r), {}, 5),
        "cortex, L4/5 cells, half of the groups half as deep; wilcoxon": (
            lambda s, r: with_depth(cortex("L4/5"), r),
            {},
            5,
        ),
        "the same (L4/5); wilcoxon without strata": (lambda s, r: with_depth(cortex("L4/5"), r), one, 5),
        "cortex, labels drawn by batch; pseudobulk": (lambda s, r: with_samples(cortex(), r), bulk, 3),
        "cortex, labels drawn by batch; wilcoxon": (lambda s, r: with_samples(cortex(), r), wilcoxon, 3),
        "PBMC, labels shuffled; wilcoxon": (lambda s, r: shuffled(blood(), r), {}, many),
        "PBMC, one type (CD4 T and CD8 T), half of the groups half as deep; wilcoxon": (
            lambda s, r: with_depth(_t_cells(), r),
            {},
            many,
        ),
    }


def _t_cells() -> mu.MuData:
    mdata = blood()
    return mdata[mdata.obs["cell_type"].astype(str).isin(["CD4 T"])].copy()


def false(name: str, runs: int) -> dict[str, Row]:
    """By modality: shares of groups with a marker, of features that are markers, that are called, that have p < 0.05."""
    make, options, most = cases()[name]
    found: dict[str, list[Row]] = {}
    for seed in range(min(runs, most)):
        rng = np.random.default_rng([seed, 7])
        for m, table in compared(make(seed, rng), **options).items():
            for _, own in table.groupby("group"):
                tested = own["pvalue"].notna()
                found.setdefault(m, []).append(
                    {
                        "runs": seed,
                        "any": float(own["is_marker"].any()),
                        "markers": float(own["is_marker"].sum() / max(tested.sum(), 1)),
                        "called": float((own["padj"] <= FDR).sum() / max(tested.sum(), 1)),
                        "p < .05": float((own.loc[tested, "pvalue"] < 0.05).mean()) if tested.any() else np.nan,
                        "bulk": float((own["method"] == comparison.PSEUDOBULK).all()),
                    }
                )
    return {m: _averaged(rows) for m, rows in found.items()}


def _averaged(rows: list[Row]) -> Row:
    frame = pd.DataFrame(rows)
    runs = frame.groupby("runs")["any"].max()
    mean = frame.drop(columns="runs").mean()
    return {"runs": len(runs), "groups": len(frame), **{k: round(float(v), 5) for k, v in mean.items()}}


def known(runs: int) -> dict[str, Row]:
    """AUROC of the order of genes for the type that each marks (features.tsv, marker_of), the median over types and runs."""
    found: dict[str, list[Row]] = {}
    for name, settings in (("default depth", {}), ("as deep as the cortex", {"depth": 272.0, "depth_sd": 0.63})):
        for seed in range(runs):
            cells = simulate(SimulateSettings(**settings, batches=6), seed)
            cells.mdata.obs[LABEL] = cells.mdata.obs["type"].astype(str).to_numpy()
            truth = cells.features[cells.features["modality"] == fields.RNA].set_index("feature")["marker_of"]
            for how, options in (("wilcoxon", {}), ("pseudobulk", {"sample_key": "batch"})):
                table = compared(cells.mdata, **options)[fields.RNA]
                for kind, own in table.groupby("group"):
                    if (mine := own["feature"].map(truth) == kind).any():
                        top = own["is_marker"] & mine
                        row = {"auroc": roc_auc_score(mine, -own["rank"]), "found": top.sum() / mine.sum()}
                        found.setdefault(f"{name}; {how}", []).append(row)
    return {name: _typical(rows) for name, rows in found.items()}


def _typical(rows: list[Row]) -> Row:
    frame = pd.DataFrame(rows)
    low, high = frame["auroc"].quantile([0.1, 0.5])
    return {
        "types": len(frame),
        "AUROC, median": round(float(high), 4),
        "AUROC, mean": round(float(frame["auroc"].mean()), 4),
        "AUROC, worst tenth": round(float(low), 4),
        "of the true markers called": round(float(frame["found"].mean()), 4),
    }


def large(path: Path, imputed: bool) -> None:
    """10,000 cells x 30,000 peaks in 15 groups and four samples; nothing of it stays in this process."""
    rng = np.random.default_rng(0)
    x = sp.random(10_000, 30_000, 0.05, format="csr", random_state=0, dtype=np.float32)
    x.data[:] = 1
    names = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(x.shape[1])]
    obs = pd.DataFrame({LABEL: rng.integers(15, size=x.shape[0]).astype(str), SAMPLE: rng.integers(4, size=x.shape[0])})
    index = pd.Index([f"c{i}" for i in range(len(obs))])
    cells = ad.AnnData(x, obs=obs.set_index(index), var=pd.DataFrame(index=names))
    if imputed:
        cells.layers[fields.IMPUTED] = rng.random(x.shape, dtype=np.float32)
    cells.write_h5ad(path)


def speed() -> dict[str, Row]:
    """CPU time of whole commands with one thread, and the most memory that they and those before them held."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "cells.h5ad"
        ways = (
            ("wilcoxon", ()),
            ("pseudobulk, 4 samples", ("--sample-key", SAMPLE)),
            ("wilcoxon, with imputed values", ()),
        )
        for what, options in ways:
            large(path, "imputed" in what)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            out = ("--output-dir", Path(name) / "out", "--overwrite", "--threads", 1)
            xmodal("markers", path, "--group-by", LABEL, *options, *out)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[what] = {"CPU seconds": round(used, 1), "GiB": round(after.ru_maxrss / 2**20, 2)}
    return found


def tables(found: dict[str, Any]) -> str:
    lines = ["**Known markers** (types of simulated cells; five genes or fewer mark a type)", ""]
    lines += _grid("cells; test", {n: {k: _shown(v) for k, v in row.items()} for n, row in found["known"].items()})
    lines += ["", "**False discoveries** (no label says anything about its cells)", ""]
    percent = ("any", "markers", "called", "p < .05")
    names = (
        "groups with a marker",
        "features that are markers",
        "features with FDR <= 5 %, up or down",
        "features with p < .05",
    )
    rows = {}
    for case, each in found["false"].items():
        for m, row in each.items():
            shown = {"groups": str(int(row["groups"]))}
            rows[f"{case}: {m}"] = {
                **shown,
                **{n: f"{100 * row[k]:.3g} %" for k, n in zip(percent, names, strict=True)},
            }
    lines += _grid("labels and cells; test: modality", rows)
    lines += [
        "",
        "**Time and memory** (10,000 cells x 30,000 peaks, 5 % open, 15 groups; one thread; memory: the most so far)",
        "",
    ]
    lines += _grid("test", {n: {k: _shown(v) for k, v in row.items()} for n, row in found["speed"].items()})
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:.4g}"


def _grid(first: str, rows: dict[str, dict[str, str]]) -> list[str]:
    columns = list(next(iter(rows.values())))
    lines = [f"| {first} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | " + " | ".join(row.get(c, "") for c in columns) + " |" for name, row in rows.items()]


def chosen(only: str) -> Iterator[str]:
    for name in ("known", "speed", *cases()):
        if only in name:
            yield name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    mu.set_options(pull_on_update=False)
    logging.disable(logging.INFO)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen(given.only):
        if name in ("known", "speed"):
            found[name] = known(max(1, given.runs // 4)) if name == "known" else speed()
        else:
            found.setdefault("false", {})[name] = false(name, given.runs)
        sys.stderr.write(f"{name}: {found.get(name) or found['false'][name]}\n")
        if given.write:
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if given.write:
        between(HERE / "RESULTS.md", "markers", tables(found))


if __name__ == "__main__":
    main()
