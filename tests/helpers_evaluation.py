"""Small prepared files and predictions for the tests of scores, evaluation and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import scipy.sparse as sp

mu.set_options(pull_on_update=False)
KINDS = {"rna": ("nb", "log1p_cp10k"), "atac": ("bernoulli", "binary"), "protein": ("gaussian", "clr")}


def paired(cells: int = 240, genes: int = 40, peaks: int = 90, seed: int = 0) -> mu.MuData:
    """A prepared MuData with rna, atac and protein of three types of cells that differ in all of them."""
    rng = np.random.default_rng(seed)
    kind = np.arange(cells) % 3
    depth = rng.uniform(0.6, 1.6, cells)[:, None]
    rna = rng.poisson(rng.gamma(0.6, 3.0, (3, genes))[kind] * depth)
    atac = rng.poisson(rng.gamma(0.4, 0.7, (3, peaks))[kind] * depth)
    protein = rng.poisson(rng.gamma(1.0, 12.0, (3, 12))[kind] * depth)
    names = pd.Index([f"cell{i}" for i in range(cells)])
    starts = np.arange(peaks) * 1000
    features = {
        "rna": pd.DataFrame(index=[f"gene{i}" for i in range(genes)]),
        "atac": pd.DataFrame(
            {"chrom": "chr1", "start": starts, "end": starts + 500}, index=[f"chr1:{s}-{s + 500}" for s in starts]
        ),
        "protein": pd.DataFrame(index=[f"antibody{i}" for i in range(12)]),
    }
    counts = {"rna": rna, "atac": atac, "protein": protein}
    mods = {
        m: ad.AnnData(sp.csr_matrix(x, dtype=np.float32), obs=pd.DataFrame(index=names), var=features[m])
        for m, x in counts.items()
    }
    mdata = mu.MuData(mods)
    mdata.obs["cell_type"] = np.array(["T", "B", "<script>alert(1)</script>"])[kind]
    mdata.obs["xmodal_split"] = np.where(
        np.arange(cells) % 12 < 6, "train", np.where(np.arange(cells) % 12 < 7, "valid", "test")
    )
    settings = {
        "modalities": {m: {"likelihood": k, "scale": s, "genome": "hg38"} for m, (k, s) in KINDS.items()},
        "split": {"source": "random", "seed": 0, "by": None},
    }
    mdata.uns["xmodal"] = {
        "schema": "xmodal-prepared/1",
        "command": "prepare",
        "version": "0",
        "seed": 0,
        "settings": json.dumps(settings),
    }
    return mdata


def prediction(mdata: mu.MuData, target: str, source: str, noise: float = 0.3, seed: int = 1) -> ad.AnnData:
    """A good but noisy prediction of the test cells: the truth, shrunk, with noise."""
    from xmodal.data.transforms import to_scale

    rng = np.random.default_rng(seed)
    adata = mdata.mod[target]
    test = np.flatnonzero((mdata.obs["xmodal_split"] == "test").to_numpy())
    values = to_scale(adata.X[test], None, KINDS[target][1])
    mixed = 0.3 * values + rng.normal(0, noise, values.shape)
    mixed = np.round(np.clip(mixed, 0, 1), 2) if target == "atac" else mixed  # rounding makes ties
    about = {
        "schema": "xmodal-prediction/1",
        "command": "predict",
        "version": "0",
        "model": "toy",
        "source": source,
        "target": target,
        "units": "?",
        "seed": 0,
        "checkpoint_sha256": "ab" * 32,
        "settings": json.dumps(
            {
                "alignment": {"features": 9, "missing": 2, "first_missing": ["<b>x</b>"], "unused": 1},
                "novelty": {"unlike": 0.01, "level": "fine"},
            }
        ),
    }
    return ad.AnnData(
        mixed.astype(np.float32),
        obs=pd.DataFrame(index=mdata.obs_names[test]),
        var=pd.DataFrame(index=adata.var_names),
        uns={"xmodal": about},
    )


def files(folder: Path, *targets: tuple[str, str], **kwargs: Any) -> tuple[Path, dict[str, Path]]:
    """The prepared file and predictions of (target, source) in ``folder``."""
    mdata = paired(**kwargs)
    folder.mkdir(parents=True, exist_ok=True)
    truth = folder / "truth.h5mu"
    mdata.write_h5mu(truth)
    written = {}
    for target, source in targets:
        written[target] = folder / f"predicted_{target}.h5ad"
        prediction(mdata, target, source).write_h5ad(written[target])
    return truth, written


def training_folder(folder: Path) -> Path:
    """What train leaves, without the model."""
    folder.mkdir(parents=True)
    metrics = {
        "model": "crossmp",
        "settings": {"epochs": 3, "latent": 10},
        "epochs": 3,
        "best_epoch": 2,
        "seed": 0,
        "modalities": {
            "rna": {"features": 40, "likelihood": "nb", "scale": "log1p_cp10k", "genome": "hg38"},
            "atac": {"features": 90, "likelihood": "bernoulli", "scale": "binary", "genome": None},
        },
        "directions": [["rna", "atac"], ["atac", "rna"]],
        "split": {
            "source": "groups",
            "by": "donor",
            "seed": 0,
            "train": 120,
            "valid": 20,
            "test": 100,
            "groups": {"train": ["a"], "valid": ["b"], "test": ["c & <d>"]},
        },
        "filters": {"min_peaks": 15},
        "losses": {"valid_loss": 1.5},
        "warnings": ["no links <i>given</i>"],
        "timing": {"train_s": 3.0, "peak_mib": 500, "threads": 1, "device": "cpu"},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.tsv").write_text(
        "epoch\ttrain_loss\tvalid_loss\tlearning_rate\n"
        + "".join(f"{i}\t{2 - i / 10}\t{1.9 - i / 20}\t0.01\n" for i in range(1, 13))
    )
    return folder
