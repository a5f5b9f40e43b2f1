"""scButterfly (Cao et al. 2024), its basic form (B: no augmentation), with its default settings, on CPU.

All genes and peaks are kept (its own selection would drop features that the others predict).  Its validation cells are ours.
RNA comes out as log1p of counts scaled to the median depth and is brought to CP10k; peaks as TF-IDF scaled to 0..1.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np
import scipy.sparse as sp
import torch
from contract import Array, Job, read_job
from scButterfly.butterfly import Butterfly


def build(job: Job, order: np.ndarray) -> Butterfly:
    """The model, its cells loaded and its peaks sorted by chromosome."""
    rna, atac = job.rna.copy(), job.other[:, order].copy()
    for adata in (rna, atac):
        adata.obs["cell_type"] = "unknown"
    butterfly = Butterfly()
    parts = (list(map(int, job.rows(p))) for p in ("train", "test", "valid"))
    butterfly.load_data(rna, atac, *parts)
    butterfly.data_preprocessing(use_hvg=False, n_top_genes=None, filter_features=False, fpeaks=None)
    for adata in (butterfly.RNA_data_p, butterfly.ATAC_data_p):  # it converts on GPUs only
        adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    sizes = atac.var.groupby("chrom", sort=False).size()
    butterfly.construct_model(chrom_list=[int(n) for n in sizes])
    return butterfly


def to_cp10k(job: Job, predicted: Array) -> Array:
    """From log1p of counts at the median depth of all cells (scanpy's default target)."""
    totals = np.asarray(job.rna.X.sum(1)).ravel()
    return np.log1p(np.expm1(np.clip(predicted, 0, None)) * 1e4 / np.median(totals[totals > 0]))


def dense(values: Array | sp.csr_matrix) -> Array:
    return np.asarray(values.toarray() if sp.issparse(values) else values, np.float32)


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # its discriminator's loss asks for a GPU in any case
    order = np.argsort(job.other.var["chrom"].astype(str).to_numpy(), kind="stable")
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes where it stands
        with job.timed("train"):
            butterfly = build(job, order)
            butterfly.augmentation(aug_type=None)
            butterfly.train_model(output_path=folder, seed=19193 + job.seed)
        with job.timed("predict"):
            rna, peaks = butterfly.test_model(test_cluster=False, test_figure=False, output_data=False)
        os.chdir(before)
    atac = np.empty(peaks.shape, np.float32)
    atac[:, order] = dense(peaks.X)
    job.write(rna=to_cp10k(job, dense(rna.X)), atac=atac)


if __name__ == "__main__":
    main()
