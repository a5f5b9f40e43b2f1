"""totalVI (Gayoso et al. 2021) from scvi-tools, RNA to protein.

As its authors impute proteins: cells whose proteins are hidden are a batch of their own, and their RNA is seen in training
(no other method here sees it).  Trained with its defaults until its own early stopping on the validation cells.  Whether the
background part of a protein is included is chosen on validation cells with their proteins hidden.
"""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import scvi
import torch
from contract import Array, Job, agreement, clr, read_job

SAMPLES = 25  # of the latent, averaged in predicted proteins


def joined(job: Job, rows: np.ndarray, hidden: np.ndarray) -> md.MuData:
    """Cells as totalVI wants them; those that are ``hidden`` have no proteins."""
    rna, protein = job.rna[rows].copy(), job.other[rows].copy()
    counts = protein.X.toarray()
    counts[hidden] = 0
    protein = ad.AnnData(counts, obs=protein.obs, var=protein.var)
    rna.obs["panel"] = np.where(hidden, "hidden", "measured")
    rna.X = rna.X.toarray()
    mdata = md.MuData({"rna": rna, "protein": protein})
    names = {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"}
    scvi.model.TOTALVI.setup_mudata(mdata, batch_key="panel", modalities=names)
    return mdata


def train(job: Job) -> scvi.model.TOTALVI:
    fit, valid, test = job.rows("train"), job.rows("valid"), job.rows("test")
    rows = np.concatenate([fit, test, valid])
    model = scvi.model.TOTALVI(joined(job, rows, np.isin(rows, test)))
    seen = len(fit) + len(test)
    parts = [np.arange(seen), np.arange(seen, len(rows))]
    model.train(accelerator="cpu", enable_progress_bar=False, external_indexing=parts)
    job.chosen["epochs"] = len(model.history["elbo_train"])
    return model


def proteins(model: scvi.model.TOTALVI, job: Job, rows: np.ndarray, background: bool) -> Array:
    """Proteins of ``rows`` from their RNA alone, CLR."""
    hidden = joined(job, rows, np.ones(len(rows), bool))
    levels = model.get_normalized_expression(
        hidden,
        transform_batch="measured",
        n_samples=SAMPLES,
        include_protein_background=background,
        return_numpy=True,
    )[1]
    return clr(np.asarray(levels, np.float32))


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    scvi.settings.seed = job.seed
    valid = job.rows("valid")
    with job.timed("train"):
        model = train(job)
        true = job.values("protein")[valid]
        best = max((True, False), key=lambda b: agreement(proteins(model, job, valid, b), true))
        job.chosen["background"] = best
    with job.timed("predict"):
        predicted = proteins(model, job, job.rows("test"), best)
    job.write(protein=predicted)


if __name__ == "__main__":
    main()
