"""MULTIVI or PEAKVI of scvi-tools, in its own environment, timed as benchmarks/speed.py times xmodal.

    PYTHON speed_scvi.py MODEL FUSED WIDTH RNA.h5ad ATAC.h5ad RATE SECONDS THREADS SEED

FUSED: 1 for torch's fused AdamW in place of what scvi-tools takes.  WIDTH: of the hidden layers, one in place of two, with 16
latent dimensions, which gives about as many parameters as crossmp has; 0: defaults.

obs["part"]: train or held.  One JSON line for each epoch: CPU and wall seconds of training so far, and binary cross-entropy per
entry of the held-out cells' peaks, computed outside the clock.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

warnings.simplefilter("ignore")

import anndata as ad  # noqa: E402
import mudata as md  # noqa: E402
import numpy as np  # noqa: E402
import scvi  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.callbacks import Callback  # noqa: E402

NAME, FUSED, WIDTH, RNA, ATAC, RATE, SECONDS, THREADS, SEED = sys.argv[1:]
SMALL = 1e-7
DEEPEST = 10_000  # epochs, which the time ends


def cross_entropy(model: Any, cells: Any, opened: Any) -> float:
    """Mean over all entries, of the probability that training compares with (depth and region factors in it)."""
    found = model.get_normalized_accessibility(cells, normalize_cells=True, normalize_regions=True, return_numpy=True)
    found = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
    p = np.clip(found.astype(np.float64), SMALL, 1 - SMALL)
    absent = np.log1p(-p).sum()
    some = opened.nonzero()
    return float(-(absent + (np.log(p[some]) - np.log1p(-p[some])).sum()) / p.size)


class Clock(Callback):
    """Training's own seconds, by epoch; ends the training when they are over."""

    def __init__(self, model: Any, cells: Any, opened: Any) -> None:
        self.model, self.cells, self.opened = model, cells, opened
        self.cpu = self.wall = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began = time.process_time(), time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.cpu += time.process_time() - self.began[0]
        self.wall += time.perf_counter() - self.began[1]
        before, self.model.is_trained_ = self.model.is_trained_, True
        self.model.module.eval()
        loss = cross_entropy(self.model, self.cells, self.opened)
        self.model.module.train()
        self.model.is_trained_ = before
        size = sum(p.numel() for p in self.model.module.parameters())
        row = {"cpu": self.cpu, "wall": self.wall, "held": loss, "parameters": size}
        print(json.dumps(row), flush=True)
        if self.cpu > float(SECONDS):
            trainer.should_stop = True


def both(rna: Any, atac: Any) -> Any:
    cells = md.MuData({"rna": rna.copy(), "atac": atac.copy()})
    cells.obs["modality"] = "paired"
    cells.update()
    for obs in (cells.obs, cells.mod["rna"].obs, cells.mod["atac"].obs):
        obs["_indices"] = np.arange(cells.n_obs)
    return cells


def shape() -> dict[str, int]:
    if WIDTH == "0":
        return {}
    return {"n_hidden": int(WIDTH), "n_latent": 16, "n_layers_encoder": 1, "n_layers_decoder": 1}


def plan() -> dict[str, Any]:
    """scvi-tools' own optimizer, or torch's fused AdamW with the same rate, epsilon and decay as its train() has."""
    if FUSED == "0":
        return {}

    def fused(parameters: Any) -> Any:
        return torch.optim.AdamW(parameters, lr=float(RATE), eps=1e-8, weight_decay=1e-3, fused=True)

    return {"optimizer": "Custom", "optimizer_creator": fused}


def main() -> None:
    torch.set_num_threads(int(THREADS))
    scvi.settings.seed = int(SEED)
    rna, atac = ad.read_h5ad(RNA), ad.read_h5ad(ATAC)
    rna.X, atac.X = rna.X.tocsr(), atac.X.tocsr()
    held = atac.obs["part"].to_numpy() == "held"
    opened = atac.X[held]
    if NAME == "MULTIVI":
        train, test = both(rna[~held], atac[~held]), both(rna[held], atac[held])
        scvi.model.MULTIVI.setup_mudata(train, modalities={"rna_layer": "rna", "atac_layer": "atac"})
        model = scvi.model.MULTIVI(train, n_genes=rna.n_vars, n_regions=atac.n_vars, **shape())
    else:
        train, test = atac[~held].copy(), atac[held].copy()
        scvi.model.PEAKVI.setup_anndata(train)
        model = scvi.model.PEAKVI(train, **shape())
    model.train(
        max_epochs=DEEPEST,
        lr=float(RATE),
        train_size=1.0,
        batch_size=128,
        accelerator="cpu",
        early_stopping=False,
        enable_progress_bar=False,
        plan_kwargs=plan(),
        callbacks=[Clock(model, test, opened)],
    )


if __name__ == "__main__":
    main()
