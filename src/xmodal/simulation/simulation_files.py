"""The files of a simulation: what would have been measured, and beside it the truth."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from xmodal import fields, outputs, provenance
from xmodal.data import io

if TYPE_CHECKING:
    from xmodal.simulation.simulate import Simulated
    from xmodal.simulation.simulation_oracle import Oracle

log = logging.getLogger(__name__)
SETTINGS_FILE = "simulation.json"
SCALES = {fields.RNA: fields.LOG_CP10K, fields.ATAC: fields.BINARY, fields.PROTEIN: fields.IDENTITY}
OWN_FILES = (
    "paired.h5mu",
    "rna.h5ad",
    "atac.h5ad",
    "protein.h5ad",
    "genes.tsv",
    "links.tsv",
    "types.tsv",
    "features.tsv",
    "truth.npz",
    "oracle_rna.h5ad",
    "oracle_atac.h5ad",
    "oracle_protein.h5ad",
    SETTINGS_FILE,
)


def write_simulation(
    simulated: Simulated, oracle: Oracle | None, folder: Path, *, overwrite: bool = False, rates: bool = True
) -> None:
    """Write all files into ``folder``, or none.

    With ``overwrite`` the files of an earlier simulation are replaced or removed; others in the folder stay.
    """
    with outputs.replacing_files(folder, OWN_FILES, overwrite) as temporary, io.naming_full_disk(folder):
        _write_measured(simulated, temporary)
        _write_truth(simulated, temporary, rates)
        if oracle is not None:
            _write_oracle(simulated, oracle, temporary)
        outputs.write_json(temporary / SETTINGS_FILE, _summary(simulated, oracle))
    log.info("%d cells in %s", len(simulated.obs), folder)


def _write_measured(simulated: Simulated, folder: Path) -> None:
    io.write_h5mu(simulated.mdata, folder / "paired.h5mu")
    for m, part in simulated.mdata.mod.items():
        alone = part.copy()
        alone.obs = simulated.obs.loc[part.obs_names].copy()
        alone.uns[fields.UNS] = {"modality": m}  # invented names do not tell it
        io.write_h5ad(alone, folder / f"{m}.h5ad")
    _write_tsv(simulated.genes, folder / "genes.tsv")


def _write_truth(simulated: Simulated, folder: Path, rates: bool) -> None:
    _write_tsv(simulated.links, folder / "links.tsv")
    _write_tsv(simulated.types.assign(is_leaf=simulated.types["is_leaf"].astype(int)), folder / "types.tsv")
    _write_tsv(simulated.features, folder / "features.tsv")
    arrays = {name: array for name, array in simulated.truth.items() if rates or not name.startswith("rate_")}
    arrays["cells"] = np.array(simulated.obs.index, dtype=str)
    np.savez(folder / "truth.npz", **arrays)  # type: ignore[arg-type]


def _write_tsv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, sep="\t", index=False, lineterminator="\n")


def _write_oracle(simulated: Simulated, oracle: Oracle, folder: Path) -> None:
    """``oracle_rna.h5ad`` from ATAC, the others from RNA, in the form of a prediction."""
    for target, source in ((fields.RNA, fields.ATAC), (fields.ATAC, fields.RNA), (fields.PROTEIN, fields.RNA)):
        if (source, target) not in oracle.predictions:
            continue
        part = simulated.mdata.mod[target]
        obs = simulated.obs.loc[oracle.cells].copy()
        adata = ad.AnnData(oracle.predictions[source, target], obs=obs, var=part.var.copy())
        adata.uns[fields.UNS] = provenance.record(
            "simulate",
            {},
            model="oracle",
            source=source,
            target=target,
            units=fields.UNITS[SCALES[target]],
            seed=simulated.seed,
        )
        io.write_h5ad(adata, folder / f"oracle_{target}.h5ad")


def _summary(simulated: Simulated, oracle: Oracle | None) -> dict[str, Any]:
    split = simulated.obs[fields.SPLIT].value_counts().to_dict()
    summary: dict[str, Any] = {
        "settings": simulated.settings.model_dump(),
        "seed": simulated.seed,
        "split": {str(k): int(v) for k, v in split.items()},
        "modalities": {
            m: {
                "cells": part.n_obs,
                "features": part.n_vars,
                "median_total": round(float(np.median(np.asarray(part.X.sum(1)))), 4),
            }
            for m, part in simulated.mdata.mod.items()
        },
        "coupled_features": {m: int(simulated.truth[f"coupled_{m}"].sum()) for m in simulated.mdata.mod},
    }
    if oracle is not None:
        summary["oracle"] = oracle.scores
    return summary
