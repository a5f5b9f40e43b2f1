"""MultiVI's latents of paired cells, jointly and of one modality alone, as an embedding file that `xmodal evaluate` scores.

    python benchmarks/peers/multivi_latent.py PREPARED.h5mu OUT.h5mu [--lr 1e-3] [--max-seconds 1800] [--seed 0] [--threads 2]

Trained on the training cells, stopped early on the validation cells, in an environment of its own (scvi.txt).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import scipy.sparse as sp
import scvi
import torch

warnings.simplefilter("ignore")
KEY, SPLIT = "X_xmodal", "xmodal_split"


def joined(parts: dict[str, ad.AnnData], kind: str) -> md.MuData:
    """Cells as MultiVI wants them; ``kind``: paired, rna or atac, the other being emptied."""
    both = {m: a.copy() for m, a in parts.items()}
    for m, a in both.items():
        if kind not in ("paired", m):
            a.X = sp.csr_matrix(a.shape, dtype=np.float32)
    mdata = md.MuData(both)
    mdata.obs["modality"] = kind
    mdata.update()
    for obs in (mdata.obs, *(a.obs for a in mdata.mod.values())):
        obs["_indices"] = np.arange(mdata.n_obs)  # else KeyError on new cells
    return mdata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--max-seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    scvi.settings.seed = asked.seed
    mdata = md.read_h5mu(asked.prepared)
    parts = {
        m: ad.AnnData(sp.csr_matrix(mdata.mod[m].X), mdata.mod[m].obs[[]], mdata.mod[m].var[[]])
        for m in ("rna", "atac")
    }
    split = mdata.obs[SPLIT].astype(str).to_numpy()
    fit, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    cells = np.concatenate([fit, valid])
    training = joined({m: a[cells] for m, a in parts.items()}, "paired")
    scvi.model.MULTIVI.setup_mudata(training, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = scvi.model.MULTIVI(training, n_genes=parts["rna"].n_vars, n_regions=parts["atac"].n_vars)
    began = time.monotonic()
    model.train(
        lr=asked.lr,
        accelerator="cpu",
        enable_progress_bar=False,
        early_stopping=True,
        max_time={"seconds": asked.max_seconds},
        datasplitter_kwargs={"external_indexing": [np.arange(len(fit)), np.arange(len(fit), len(cells))]},
    )
    seconds = time.monotonic() - began
    for kind in ("paired", "rna", "atac"):
        latent = np.asarray(model.get_latent_representation(joined(parts, kind)), np.float32)
        mdata.obsm[KEY if kind == "paired" else f"{KEY}_{kind}"] = latent
    mdata.write_h5mu(asked.out)
    print(json.dumps({"train_s": round(seconds, 1), "epochs": len(model.history["elbo_train"])}))


if __name__ == "__main__":
    main()
