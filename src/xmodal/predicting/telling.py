"""``xmodal predict --to COLUMN``: what each cell is told to be by a model that learned it (``xmodal train --target COLUMN``)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields, memory
from xmodal.data import filling, io
from xmodal.embedding import job as jobs
from xmodal.embedding import reading
from xmodal.embedding.latents import streamed
from xmodal.embedding.settings import StreamedSettings
from xmodal.errors import InputRefused, UsageRefused
from xmodal.learning import checkpoint
from xmodal.outputs import replacing_files
from xmodal.predicting.overview import CELLS, FEATURES, PICTURE

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from xmodal.data.batches import Batch
    from xmodal.data.vocabulary import Labels
    from xmodal.embedding.job import Job

log = logging.getLogger(__name__)
DIGITS = 6
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Told:
    """``probability``: of each class, (cells of the job, classes); ``about``: the provenance."""

    job: Job
    target: Labels
    probability: Floats
    about: dict[str, Any]

    @property
    def best(self) -> npt.NDArray[np.int64]:
        """The most probable class of each cell, (cells,)."""
        return self.probability.argmax(1)

    def columns(self) -> dict[str, Any]:
        """Columns of ``obs``, (cells,) each."""
        import pandas as pd

        key = self.target.key
        return {
            fields.TOLD.format(key): pd.Categorical.from_codes(self.best, list(self.target.values)),
            fields.TOLD_PROBABILITY.format(key): self.probability.max(1),
            fields.UNLIKE: self.job.unlike,
        }


def target_of(path: Path) -> str | None:
    """The column of obs that a checkpoint can tell, from its header alone."""
    found = (
        checkpoint.read_header(path).get("vocabulary", {}).get("target")
    )  # whether it is whole is asked when it is loaded
    return None if found is None else str(found["key"])


@memory.refusing("the model")
def run(
    file: Path,
    model: Path,
    outputs: tuple[Path, Path | None],
    asked: tuple[str | None, StreamedSettings],
    how: tuple[torch.device, int, bool],
) -> dict[str, Any]:
    """Tell and write; ``outputs`` = (file, folder of the overview), ``asked`` = (source, which cells), ``how`` = (device, seed,
    overwrite).  Returns the summary.
    """
    loaded = checkpoint.load(model)
    target = loaded.model.vocabulary.target
    assert target is not None
    source, settings = asked
    if source is not None and source not in loaded.model.vocabulary.modalities:
        raise UsageRefused(f"--from {source}: the checkpoint knows {', '.join(loaded.model.vocabulary)}")
    device, seed, overwrite = how
    mdata = reading.read(file, loaded, settings.on_disk)
    try:
        if source is not None and source not in mdata.mod:
            raise InputRefused(
                f"the input has no modality '{source}' (it has {', '.join(mdata.mod)})", do="give --from one of these"
            )
        job = jobs.prepare_job(mdata if source is None else _only(mdata, source), loaded, settings)
    except InputRefused as error:
        raise error.at(str(file)) from None
    names = {term: value for value, term in zip(target.values, target.terms, strict=True)}
    more = {
        "seen": list(target.terms),
        "trained": {"key": target.key, "values": list(target.values), "terms": list(target.terms)},
        "names": names,
        "plain": True,  # values are what they are: no ontology is asked what they mean
    }
    about = jobs.described("predict", job, model, (device, seed), **more)
    told = Told(job, target, _probability(job, device), about)
    write = _write_h5mu if outputs[0].suffix == ".h5mu" else _write_h5ad
    write(outputs[0], told, overwrite)
    found = summary(told)
    if outputs[1] is not None:
        _write_overview(outputs[1], told, found, overwrite)
    return found


def _only(mdata: Any, source: str) -> Any:
    """The cells with the one modality that is to be read."""
    import mudata as mu

    part = mu.MuData({source: mdata.mod[source]})
    part.obs = mdata.obs.loc[part.obs_names].copy()
    part.uns = mdata.uns
    return part


def _probability(job: Job, device: torch.device) -> Floats:
    model = job.loaded.model

    def work(batch: Batch, rows: int) -> memory.Arrays:
        return (model.tell_target(batch.to(device))[:rows].float().cpu().numpy(),)

    rows = np.arange(len(job.cells))
    parts = [values for (values,) in streamed(model, job.cells, rows, (device, job.shared), work, "told")]
    return np.concatenate(parts).astype(np.float32)


def _write_h5ad(path: Path, told: Told, overwrite: bool) -> None:
    """Cells by classes: X has the probabilities, obs what the file says of the cells and what they are told to be."""
    import anndata as ad
    import pandas as pd

    obs = told.job.mdata.obs[[c for c in told.job.mdata.obs if ":" not in str(c)]].assign(**told.columns())
    var = pd.DataFrame(index=pd.Index(list(told.target.values), dtype=object))
    io.write_h5ad(ad.AnnData(told.probability, obs=obs, var=var, uns={fields.UNS: told.about}), path, overwrite)


def _write_h5mu(path: Path, told: Told, overwrite: bool) -> None:
    """The cells as they are in the input, with what they are told to be."""
    mdata = told.job.mdata
    for name, values in told.columns().items():
        mdata.obs[name] = values
    mdata.uns[fields.TARGET_ABOUT] = told.about
    filling.write(mdata, path, overwrite)


def table(told: Told) -> pd.DataFrame:
    """``cells.tsv``: what each cell is told to be, and the probability of every class."""
    import pandas as pd

    own = told.columns()
    own[fields.UNLIKE] = np.where(told.job.unlike, "yes", "no")
    every = {f"p_{value}": told.probability[:, i] for i, value in enumerate(told.target.values)}
    return pd.DataFrame({"cell": told.job.cells.names, **own, **every})


def classes(told: Told) -> pd.DataFrame:
    """``features.tsv``: of each class the mean and standard deviation of its probability, and the cells that are told it."""
    import pandas as pd

    p = told.probability
    many = np.bincount(told.best, minlength=p.shape[1])
    return pd.DataFrame(
        {"feature": list(told.target.values), "mean": p.mean(0), "sd": p.std(0), fields.CELLS_TOLD: many}
    )


def summary(told: Told) -> dict[str, Any]:
    """How many cells are told to be what, and how surely; what was found, missing and unlike."""
    import json

    inner = json.loads(told.about["settings"])
    many = np.bincount(told.best, minlength=len(told.target.values))
    sure = told.probability.max(1)
    kept = {k: told.about[k] for k in ("model", "checkpoint_sha256")}
    each = list(inner["modalities"].values())
    return {
        **kept,
        "target": told.target.key,
        "source": " and ".join(told.job.shared),
        "units": "classes",
        "features": len(many),
        **{k: inner[k] for k in ("cells", "empty", "left_out", "modalities", "split") if k in inner},
        # Of the modality that fits least, as reports show one.
        "alignment": min((one["alignment"] for one in each), key=lambda found: found["coverage"]),
        "novelty": max((one["novelty"] for one in each), key=lambda found: found.get("unlike") or 0),
        "composition": [
            {
                "value": value,
                "cells": int(n),
                "mean_probability": round(float(sure[told.best == i].mean()), DIGITS) if n else None,
            }
            for i, (value, n) in enumerate(zip(told.target.values, many, strict=True))
        ],
    }


def _write_overview(folder: Path, told: Told, found: dict[str, Any], overwrite: bool) -> None:
    from xmodal.embedding.tables import write_table
    from xmodal.reporting import figures, target_figure

    with replacing_files(folder, (PICTURE, CELLS, FEATURES), overwrite) as temporary:
        write_table(table(told), temporary / CELLS)
        write_table(classes(told), temporary / FEATURES)
        drawn = target_figure.told(found, told.probability.max(1))
        (temporary / PICTURE).write_bytes(figures.png(drawn))
