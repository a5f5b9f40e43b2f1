"""What benchmarks/joint.py asks without labels: counts in two halves, cells without a modality, who is beside whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from common import xmodal
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

Array = npt.NDArray[Any]
NEIGHBORS, SMOOTHED = 15, 50
FEWEST = 5  # cells with a feature below which it is not scored


def split(whole: Path, first: Path, second: Path, seed: int) -> None:
    """Every count goes to one of two files by a fair coin; the halves of a cell share its state and nothing of the noise."""
    rng = np.random.default_rng(seed)
    a, b = mu.read_h5mu(whole), mu.read_h5mu(whole)
    for m in a.mod:
        counts = sp.csr_matrix(a.mod[m].X).astype(np.float32)
        half = counts.copy()
        half.data = rng.binomial(counts.data.round().astype(int), 0.5).astype(np.float32)
        rest = counts - half
        for part, x in ((a, half), (b, rest)):
            x.eliminate_zeros()
            part.mod[m].X = x
            part.mod[m].obs["xmodal_depth"] = np.asarray(x.sum(1), np.float32).ravel()
    a.write_h5mu(first)
    b.write_h5mu(second)


def scores(cells: Path, other: Path, checkpoint: Path, scratch: Path, threads: int) -> dict[str, dict[str, float]]:
    """Of the test cells: imputed from both modalities, from one alone, and smoothed over 50 neighbours."""
    truth = mu.read_h5mu(other)
    test = (truth.obs["xmodal_split"] == "test").to_numpy()
    seen = mu.read_h5mu(cells)
    rows: dict[str, dict[str, float]] = {}
    for given in (("rna", "atac"), ("rna",), ("atac",)):
        source = scratch / "given.h5mu"
        mu.MuData({m: seen.mod[m] for m in given}).write_h5mu(source)
        name = "both" if len(given) == 2 else f"{given[0]} alone"
        rows[name] = {}
        for m in given:
            out = scratch / "imputed.h5ad"
            xmodal(
                "impute",
                source,
                "--checkpoint",
                checkpoint,
                "--output",
                out,
                "--modality",
                m,
                "--threads",
                threads,
                "--overwrite",
            )
            rows[name] |= _scored(m, np.asarray(ad.read_h5ad(out).X)[test], seen.mod[m].X, truth.mod[m].X, test)
    rows[f"kNN-{SMOOTHED} of log-PCA"] = _scored(
        "rna", _smoothed(seen.mod["rna"].X, test), seen.mod["rna"].X, truth.mod["rna"].X, test
    )
    return rows


def _scored(m: str, values: Array, seen: Any, held: Any, test: Array) -> dict[str, float]:
    known, truth = sp.csr_matrix(seen)[~test], sp.csr_matrix(held)[test]
    if m == "atac":
        return {"peak_auroc": _auroc(values, (truth > 0).toarray())}
    total = np.asarray(known.sum(0), np.float64).ravel() + 0.5
    return {
        "deviance_explained": _deviance_explained(values, truth.toarray(), total / total.sum()),
        "gene_pearson": _gene_pearson(values, truth),
    }


def _deviance_explained(values: Array, truth: Array, mean: Array) -> float:
    """Poisson deviance against the mean profile; shares are read back from log1p CP10k, up to their sum."""
    share = np.expm1(values.astype(np.float64)) + 1e-6
    share /= share.sum(1, keepdims=True)
    depth = truth.sum(1, keepdims=True)

    def deviance(expected: Array) -> float:
        some = truth > 0
        logs = np.where(some, truth * np.log(np.where(some, truth, 1) / expected), 0)
        return float(2 * (logs - truth + expected).sum())

    return 1 - deviance(share * depth) / deviance(mean[None] * depth)


def _gene_pearson(values: Array, truth: Any) -> float:
    depth = np.maximum(np.asarray(truth.sum(1)), 1)
    measured = truth.multiply(1e4 / depth).log1p().toarray()
    a, b = values - values.mean(0), measured - measured.mean(0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    enough = (measured > 0).sum(0) >= FEWEST
    r = np.divide((a * b).sum(0), scale, out=np.zeros_like(scale), where=scale > 1e-12)
    return float(r[enough].mean())


def _auroc(values: Array, opened: Array) -> float:
    found = []
    for j in np.flatnonzero(opened.sum(0) >= FEWEST):
        n = int(opened[:, j].sum())
        ranks = rankdata(values[:, j])
        found.append((ranks[opened[:, j]].sum() - n * (n + 1) / 2) / (n * (len(opened) - n)))
    return float(np.mean(found))


def _smoothed(counts: Any, test: Array) -> Array:
    """log1p CP10k of the summed counts of the nearest training cells in log-PCA."""
    from sklearn.decomposition import PCA

    counts = sp.csr_matrix(counts)
    logged = counts.multiply(1e4 / np.maximum(np.asarray(counts.sum(1)), 1)).log1p().toarray()
    pca = PCA(30, random_state=0).fit(logged[~test])
    near = NearestNeighbors(n_neighbors=SMOOTHED).fit(pca.transform(logged[~test]))
    index = near.kneighbors(pca.transform(logged[test]), return_distance=False)
    known = counts[~test]
    total = np.stack([np.asarray(known[rows].sum(0), np.float64).ravel() for rows in index])
    return np.log1p(1e4 * total / total.sum(1, keepdims=True))


def without(cells: Path, gone: str, part: str, share: float, out: Path) -> Path:
    """The cells, a ``share`` of those in ``part`` of the split without modality ``gone``."""
    mdata = mu.read_h5mu(cells)
    names = mdata.obs_names[(mdata.obs["xmodal_split"] == part).to_numpy()]
    lacking = set(np.random.default_rng(0).permutation(names)[: round(share * len(names))])
    mods = {m: a[[n not in lacking for n in a.obs_names]].copy() if m == gone else a for m, a in mdata.mod.items()}
    mu.set_options(pull_on_update=False)
    new = mu.MuData(mods)
    new.obs = mdata.obs.reindex(new.obs_names)
    new.uns = dict(mdata.uns)
    new.write_h5mu(out)
    return out


def heldout(embedded: Path, label: str) -> float:
    """15-NN accuracy of the test cells, by the training and validation cells."""
    mdata = mu.read_h5mu(embedded)
    z, test = np.asarray(mdata.obsm["X_xmodal"]), (mdata.obs["xmodal_split"] == "test").to_numpy()
    labels = mdata.obs[label].astype(str).to_numpy()
    index = NearestNeighbors(n_neighbors=NEIGHBORS).fit(z[~test]).kneighbors(z[test], return_distance=False)
    names, codes = np.unique(labels, return_inverse=True)
    votes = np.stack([(codes[~test][index] == c).sum(1) for c in range(len(names))], 1).argmax(1)
    return float((votes == codes[test]).mean())


def mixing(embedded: Path) -> float:
    """How much more often than by chance a test cell's neighbours have the same modalities as itself; 1: well mixed."""
    mdata = mu.read_h5mu(embedded)
    test = (mdata.obs["xmodal_split"] == "test").to_numpy()
    z = np.asarray(mdata.obsm["X_xmodal"])[test]
    single = ~mdata.obs_names[test].isin(mdata.mod["atac"].obs_names)
    index = NearestNeighbors(n_neighbors=NEIGHBORS + 1).fit(z).kneighbors(z, return_distance=False)[:, 1:]
    same = (single[index] == single[:, None]).mean()
    chance = single.mean() ** 2 + (1 - single.mean()) ** 2
    return float(same / chance)
