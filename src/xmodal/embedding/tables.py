"""What is said of embedded cells: columns of ``obs``, the table of cells, the table of clusters, the summary."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.errors import InputRefused
from xmodal.predicting.overview import type_column
from xmodal.scores.score_texts import shown

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.embedding.clustering import Found
    from xmodal.embedding.job import Job
    from xmodal.embedding.latents import Latents

log = logging.getLogger(__name__)
DIGITS = 6  # significant ones: a float32 has seven
MOST_BATCHES = 100  # columns that a table of clusters can have and still be read
NEARLY, HALF = 0.9, 0.5  # shares of cells
BATCHES = (
    "batch",
    "donor",
    "donor_id",
    "plate",
    "sample",
)  # columns that are looked for, after the checkpoint's and xmodal's


@dataclass(frozen=True)
class Embedded:
    """All that was found of the cells of ``job``; ``about``: the provenance."""

    job: Job
    latents: Latents
    found: Found
    about: dict[str, Any]

    @property
    def several(self) -> npt.NDArray[np.bool_]:
        """Which cells have more than one modality, (cells,)."""
        many: npt.NDArray[np.bool_] = np.sum([self.job.cells.present[m] for m in self.job.shared], axis=0) > 1
        return many


def columns(job: Job, latents: Latents, found: Found) -> dict[str, Any]:
    """Columns of ``obs``, (cells,) each: cluster, weights of the modalities, unlike the training cells."""
    import pandas as pd

    names = [str(i) for i in range(int(found.clusters.max()) + 1)]
    weights = {f"{fields.WEIGHT}_{m}": values for m, values in latents.weights.items()}
    return {
        fields.CLUSTER: pd.Categorical.from_codes(found.clusters, names),
        **weights,
        fields.UNLIKE: job.unlike,
    }


def label_column(obs: pd.DataFrame, asked: str | None) -> str | None:
    """The column with the cells' types: the one asked for, or one found by its name."""
    if asked is None:
        return type_column(obs)
    if asked not in obs:
        shown = ", ".join(map(str, obs.columns[:12])) or "none"
        raise InputRefused(f"there is no obs column '{asked}' (--label-key); there is {shown}", do="give one of these")
    return asked


def batch_column(job: Job) -> str | None:
    """The column with the technical batches: the checkpoint's, the samples, or one that is called so; only where they differ."""
    batches = job.cells.vocabulary.batches
    obs = job.mdata.obs
    for name in (*([batches.key] if batches is not None else []), fields.SAMPLE, *BATCHES):
        if name in obs and 1 < obs[name].nunique() <= MOST_BATCHES:
            return name
    return None


def table(all_of: Embedded) -> pd.DataFrame:
    """``embedding.tsv``, cell by cell: cluster, weights (empty where not measured), place in the UMAP, embedding."""
    import pandas as pd

    latents, found = all_of.latents, all_of.found
    out = pd.DataFrame({"cell": all_of.job.cells.names, fields.CLUSTER: found.clusters})
    for m, values in latents.weights.items():
        out[f"{fields.WEIGHT}_{m}"] = values
    out[["umap1", "umap2"]] = found.umap
    names = dimension_names(latents.joint.shape[1])
    return pd.concat([out, pd.DataFrame(latents.joint, columns=names)], axis=1)


def dimension_names(latent: int) -> list[str]:
    return [f"{fields.UNS}_{i}" for i in range(1, latent + 1)]


def clusters(all_of: Embedded, label: str | None, batch: str | None) -> pd.DataFrame:
    """``clusters.tsv``: for each cluster its cells, shares of cells with each modality, mean weights, commonest label, batches.

    Mean weights are of cells with more than one modality; empty where there are none.
    """
    import pandas as pd

    job, codes = all_of.job, all_of.found.clusters
    obs, several = job.mdata.obs, all_of.several
    values = obs[batch].astype(str) if batch else None
    rows = []
    for code in range(int(codes.max()) + 1):
        own = codes == code
        row: dict[str, Any] = {"cluster": code, "cells": int(own.sum())}
        row |= {f"share_{m}": job.cells.present[m][own].mean() for m in job.shared}
        row |= {f"weight_{m}": mean_of(w[own & several]) for m, w in all_of.latents.weights.items()}
        row["share_unlike"] = job.unlike[own].mean()
        if label:
            row["label"], row["label_share"] = _commonest(obs[label][own])
        if values is not None:
            shares = values[own].value_counts(normalize=True)
            row |= {f"batch_{b}": float(shares.get(b, 0.0)) for b in sorted(values.unique())}
        rows.append(row)
    return pd.DataFrame(rows)


def mean_of(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _commonest(labels: pd.Series) -> tuple[str, float | None]:
    """The commonest label of cells that have one, and its share of these; of equally common ones the first by name."""
    counts = labels.dropna().astype(str).value_counts().sort_index()
    if not counts.sum():
        return "", None
    return str(counts.idxmax()), float(counts.max() / counts.sum())


def write_table(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, sep="\t", index=False, lineterminator="\n", float_format=f"%.{DIGITS}g")


def facts(job: Job, latents: Latents, found: Found) -> dict[str, Any]:
    """What provenance and summary say of the embedding, beside the job's own facts."""
    several = np.sum([job.cells.present[m] for m in job.shared], axis=0) > 1
    weights = {m: mean_of(w[several]) for m, w in latents.weights.items()}
    return {
        **found.facts,
        "sizes": [int(n) for n in np.bincount(found.clusters)],
        "latent": latents.joint.shape[1],
        "one_sided": one_sided(job, found.clusters),
        "unlike": round(float(job.unlike.mean()), 4),
        "several_modalities": int(several.sum()),
        "weights": {m: None if w is None else round(w, 4) for m, w in weights.items()},
    }


def measured_of(job: Job) -> npt.NDArray[Any]:
    """In words which of the shared modalities each cell has, (cells,)."""
    present = np.column_stack([job.cells.present[m] for m in job.shared])
    patterns, code = np.unique(present, axis=0, return_inverse=True)
    names = [[shown(m) for m, there in zip(job.shared, row, strict=True) if there] for row in patterns]
    words = np.array([f"only {n[0]}" if len(n) == 1 else " and ".join(n) for n in names], object)
    out: npt.NDArray[Any] = words[code.ravel()]
    return out


def one_sided(job: Job, clusters: npt.NDArray[np.int64]) -> dict[str, str]:
    """Clusters nearly all of whose cells have what fewer than half of all cells have, and what that is; said in the log.

    They may be groups of what was measured, rather than of cells.
    """
    kinds, found = measured_of(job), {}
    for code in range(int(clusters.max()) + 1):
        names, sizes = np.unique(kinds[clusters == code].astype(str), return_counts=True)
        kind, share = names[sizes.argmax()], sizes.max() / sizes.sum()
        if share >= NEARLY and (kinds == kind).mean() < HALF:
            found[str(code)] = str(kind)
            log.warning(
                "cluster %d: nearly all of its cells have %s; it may be a group of what was measured, not of cells",
                *(code, kind),
            )
    return found


def summary(about: dict[str, Any]) -> dict[str, Any]:
    """``embedding.json`` and ``--summary``: the provenance without the model's settings, its JSON unfolded."""
    inner = json.loads(about["settings"])
    inner.pop("model_settings", None)
    return {**{k: about[k] for k in ("model", "checkpoint_sha256", "seed")}, **inner}
