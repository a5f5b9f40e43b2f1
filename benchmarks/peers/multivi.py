"""MultiVI (Ashuach et al. 2023) from scvi-tools, trained until its own early stopping on the validation cells.

--setting lr=1e-3 (default: its own), --setting max_seconds=1800.  Work-arounds for version 1.4.2: cells of one modality are
given zero counts in the other and their own `modality`, and `_indices` is written by hand (new cells raise KeyError without).
"""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import scipy.sparse as sp
import scvi
import torch
from contract import Array, Job, read_job

SAMPLES = 10  # of the latent, averaged in predicted expression


def joined(rna: ad.AnnData, atac: ad.AnnData, kind: str) -> md.MuData:
    """Cells as MultiVI wants them; ``kind``: paired, rna or atac."""
    mdata = md.MuData({"rna": rna.copy(), "atac": atac.copy()})
    mdata.obs["modality"] = kind
    mdata.update()
    for obs in (mdata.obs, mdata.mod["rna"].obs, mdata.mod["atac"].obs):
        obs["_indices"] = np.arange(mdata.n_obs)
    return mdata


def emptied(adata: ad.AnnData) -> ad.AnnData:
    out = adata.copy()
    out.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    return out


def train(job: Job) -> scvi.model.MULTIVI:
    fit, valid = job.rows("train"), job.rows("valid")
    cells = np.concatenate([fit, valid])
    mdata = joined(job.rna[cells], job.other[cells], "paired")
    scvi.model.MULTIVI.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = scvi.model.MULTIVI(mdata, n_genes=job.rna.n_vars, n_regions=job.other.n_vars)
    own = {"lr": float(job.settings["lr"])} if "lr" in job.settings else {}
    parts = [np.arange(len(fit)), np.arange(len(fit), len(cells))]
    model.train(
        accelerator="cpu",
        enable_progress_bar=False,
        early_stopping=True,
        max_time={"seconds": float(job.settings.get("max_seconds", 1800))},
        datasplitter_kwargs={"external_indexing": parts},
        **own,
    )
    job.chosen["epochs"] = len(model.history["elbo_train"])
    return model


def dense(values: object) -> Array:
    if hasattr(values, "sparse"):
        values = values.sparse.to_dense()
    return np.asarray(values.toarray() if sp.issparse(values) else values, np.float32)


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    scvi.settings.seed = job.seed
    with job.timed("train"):
        model = train(job)
    rna, atac = (a[job.rows("test")] for a in (job.rna, job.other))
    with job.timed("predict"):
        share = model.get_normalized_expression(joined(emptied(rna), atac, "atac"), n_samples=SAMPLES)
        reader = getattr(model, "get_accessibility_estimates", None) or model.get_normalized_accessibility
        opened = dense(reader(joined(rna, emptied(atac), "rna")))
    job.write(rna=np.log1p(dense(share) * 1e4), atac=opened)


if __name__ == "__main__":
    main()
