"""GLUE (Cao & Gao 2022) from scglue: its model for paired cells, and its own decoding of one modality from the other.

As its tutorial: PCA-100 and LSI-100 as encoder inputs, NB likelihoods, peaks linked to genes whose body or 2 kb promoter they
overlap, a pretraining and a second fit (--setting max_epochs=N --setting align_burnin=N in place of its own choice of
epochs).  Its weights that balance modalities of unlike composition are left out: the cells are the same.  It draws its own
validation cells from training and validation cells (its fit takes a share, not a list).  Peaks are decoded as expected
counts and given as the chance of at least one.
"""

from __future__ import annotations

import tempfile

import anndata as ad
import networkx as nx
import numpy as np
import scglue
import torch
from contract import Job, read_job
from genes import overlaps
from low_rank import tfidf
from sklearn.decomposition import PCA, TruncatedSVD

RANK = 100


def guidance(job: Job) -> nx.MultiDiGraph:
    """Genes and peaks as vertices; an edge both ways where they overlap, a loop on each."""
    links = overlaps(job, upstream=2000).tocoo()
    peaks, genes = job.other.var_names, job.rna.var_names
    graph = nx.MultiDiGraph()
    for name in [*genes, *peaks]:
        graph.add_edge(name, name, weight=1.0, sign=1, type="loop")
    for p, g in zip(links.row, links.col, strict=True):
        graph.add_edge(genes[g], peaks[p], weight=1.0, sign=1, type="fwd")
        graph.add_edge(peaks[p], genes[g], weight=1.0, sign=1, type="rev")
    return graph


def prepared(job: Job, rows: np.ndarray) -> tuple[ad.AnnData, ad.AnnData]:
    """Both modalities of all cells with the low-rank inputs, fitted to ``rows``."""
    rna, atac = job.rna.copy(), job.other.copy()
    levels = job.values("rna")
    spread = np.maximum(levels[rows].std(0), 1e-6)
    scaled = np.clip((levels - levels[rows].mean(0)) / spread, None, 10)
    rna.obsm["X_pca"] = PCA(RANK, svd_solver="randomized", random_state=job.seed).fit(scaled[rows]).transform(scaled)
    weighted = tfidf((atac.X > 0).astype(np.float32).tocsr(), rows)
    lsi = TruncatedSVD(RANK, random_state=job.seed).fit(weighted[rows]).transform(weighted)
    lsi = lsi - lsi.mean(1, keepdims=True)
    atac.obsm["X_lsi"] = (lsi / np.maximum(lsi.std(1, ddof=1, keepdims=True), 1e-9)).astype(np.float32)
    for adata, rep in ((rna, "X_pca"), (atac, "X_lsi")):
        adata.layers["counts"] = adata.X.copy()
        scglue.models.configure_dataset(
            adata, "NB", use_highly_variable=False, use_layer="counts", use_rep=rep, use_obs_names=True
        )
    return rna, atac


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    scglue.config.CPU_ONLY = True
    scglue.config.DATALOADER_NUM_WORKERS = 0
    scglue.config.ARRAY_SHUFFLE_NUM_WORKERS = scglue.config.GRAPH_SHUFFLE_NUM_WORKERS = 1
    both, test = job.rows("train", "valid"), job.rows("test")
    limits = {k: int(job.settings[k]) for k in ("max_epochs", "align_burnin") if k in job.settings}
    with job.timed("train"), tempfile.TemporaryDirectory() as folder:
        graph = guidance(job)
        rna, atac = prepared(job, both)
        model = scglue.models.fit_SCGLUE(
            {"rna": rna[both].copy(), "atac": atac[both].copy()},
            graph,
            model=scglue.models.PairedSCGLUEModel,
            skip_balance=True,
            init_kws={"random_seed": job.seed},
            fit_kws={"directory": folder, "val_split": round(len(job.rows("valid")) / len(both), 3), **limits},
        )
    with job.timed("predict"):
        share = model.decode_data("atac", "rna", atac[test].copy(), graph)
        share = share / share.sum(1, keepdims=True)
        depth = float(np.median(np.asarray(atac.X[both].sum(1))))
        counts = model.decode_data("rna", "atac", rna[test].copy(), graph, target_libsize=depth)
    job.write(rna=np.log1p(share * 1e4), atac=1 - np.exp(-counts))


if __name__ == "__main__":
    main()
