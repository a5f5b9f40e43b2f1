"""Denoised values of what was measured: computed in batches and written as they come, never held whole."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields, memory, registry
from xmodal.data import filling
from xmodal.data.alignment import matched
from xmodal.data.batches import places
from xmodal.embedding import job as jobs
from xmodal.embedding import reading
from xmodal.embedding.latents import imputed
from xmodal.errors import InputRefused, NotApplicable, UsageRefused
from xmodal.models.base import CrossModalModel
from xmodal.predicting import measured, streaming

if TYPE_CHECKING:
    import h5py
    import torch
    from anndata import AnnData
    from mudata import MuData

    from xmodal.embedding.settings import ImputeSettings
    from xmodal.learning.checkpoint import Checkpoint

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
FEWER = "impute fewer modalities (--modality) or cells (--split)"


@dataclass(frozen=True)
class Part:
    """A modality to impute.  ``rows``: its cells' places among the job's, (cells of the modality,).

    ``own``, ``known``: features of the input and of the checkpoint that are the same, (matched features,) each.
    """

    modality: str
    rows: Index
    own: Index
    known: Index
    about: dict[str, Any]


@memory.refusing("the model")
def run(
    file: Path, checkpoint: Path, output: Path, settings: ImputeSettings, how: tuple[torch.device, int, bool]
) -> dict[str, Any]:
    """Impute and write; ``how`` = (device, seed, overwrite).  Returns the summary."""
    from xmodal.learning.checkpoint import load

    device, seed, overwrite = how
    loaded = load(checkpoint)
    _require_imputing(loaded)
    names = _known(loaded, settings)
    mdata = reading.read(file, loaded, settings.on_disk)
    try:
        job = jobs.prepare_job(mdata, loaded, settings)
        parts = [_part(job, m, (checkpoint, device, seed)) for m in _asked(job, names)]
        if output.suffix == ".h5mu":
            _require_matched(job, parts)
    except InputRefused as error:
        raise error.at(str(file)) from None
    if output.suffix == ".h5mu":
        _write_h5mu(output, job, parts, (device, overwrite))
    else:
        _write_h5ad(output, job, parts[0], (device, overwrite))
    return summary(job, parts)


def _require_imputing(loaded: Checkpoint) -> None:
    def imputes(model: type[CrossModalModel]) -> bool:
        return model.impute is not CrossModalModel.impute

    if not imputes(type(loaded.model)):
        able = [n for n in registry.names() if imputes(registry.get(n))]
        raise NotApplicable(
            f"this checkpoint's model ({loaded.model.name}) does not impute; models that do: {', '.join(able)}"
        )


def _known(loaded: Checkpoint, settings: ImputeSettings) -> list[str]:
    """The modalities asked for, each once; all where none is."""
    known = list(loaded.model.vocabulary)
    for m in settings.modality:
        if m not in known:
            raise UsageRefused(f"--modality {m}: the checkpoint knows {', '.join(known)}")
    return [m for m in known if m in settings.modality]


def _asked(job: jobs.Job, names: list[str]) -> list[str]:
    for m in names:
        if m not in job.shared or not job.cells.present[m].any():
            raise InputRefused(
                f"--modality {m}: no cell of the input has it (it has {', '.join(job.shared)})",
                do=f"`xmodal predict --to {m}` predicts what was not measured; or give another --modality",
            )
    return names or [m for m in job.shared if job.cells.present[m].any()]


def _part(job: jobs.Job, modality: str, given: tuple[Path, torch.device, int]) -> Part:
    """What is imputed of ``modality``; ``given`` = (checkpoint, device, seed)."""
    checkpoint, device, seed = given
    adata, known = job.mdata.mod[modality], job.loaded.model.vocabulary[modality]
    rows = places(job.cells.names, adata.obs_names)
    own, of_model = np.array(matched(adata, known), np.int64).reshape(-1, 2).T
    about = jobs.described("impute", job, checkpoint, (device, seed), modality=modality, imputed_cells=len(rows))
    return Part(modality, rows, own, of_model, {**about, "modality": modality, "units": known.units})


def _require_matched(job: jobs.Job, parts: list[Part]) -> None:
    for part in parts:
        total = len(job.loaded.model.vocabulary[part.modality])
        if not len(part.own):
            raise InputRefused(
                f"none of the checkpoint's {total} features of {part.modality} stands under its name in this file",
                do=f"write the imputed values alone, --modality {part.modality} --output NAME.h5ad",
            )
        if len(part.own) < total:
            log.warning(
                "%s: %d of %d features of the checkpoint were measured under their names; only these stand in the layer",
                *(part.modality, len(part.own), total),
            )


def _values(job: jobs.Job, part: Part, device: torch.device) -> Iterator[Array]:
    return imputed(job.loaded.model, job.cells, part.rows, part.modality, (device, job.shared))


def _write_h5ad(path: Path, job: jobs.Job, part: Part, how: tuple[torch.device, bool]) -> None:
    device, overwrite = how
    var = measured.feature_frame(job.loaded.model.vocabulary[part.modality])
    obs = job.mdata.obs.reindex(job.cells.names[part.rows])
    chunks = ({streaming.MATRIX: values} for values in _values(job, part, device))
    streaming.write_h5ad(path, obs, var, part.about, chunks, overwrite)


def _write_h5mu(path: Path, job: jobs.Job, parts: list[Part], how: tuple[torch.device, bool]) -> None:
    """The file as it is, then each layer into it batch by batch; nan where a feature or value is not the checkpoint's."""
    device, overwrite = how
    mdata = job.mdata
    for adata in mdata.mod.values():
        _clear(adata)
    size = sum(mdata.mod[p.modality].n_obs * mdata.mod[p.modality].n_vars * 4 for p in parts)
    streaming.require_room(path, size, "the layer with imputed values", FEWER)
    for part in parts:
        mdata.mod[part.modality].uns[fields.IMPUTED_ABOUT] = part.about
    with filling.writing(mdata, path, overwrite) as handle:
        for part in parts:
            _fill(handle, mdata, part, _values(job, part, device))


def _fill(handle: h5py.File, mdata: MuData, part: Part, chunks: Iterator[Array]) -> None:
    shape = mdata.mod[part.modality].shape
    data = streaming.new_matrix(handle, f"mod/{part.modality}/layers/{fields.IMPUTED}", shape)
    first = 0
    for values in chunks:
        rows = np.full((len(values), shape[1]), np.nan, np.float32)
        rows[:, part.own] = values[:, part.known]
        data[first : first + len(rows)] = rows
        first += len(rows)


def _clear(adata: AnnData) -> None:
    """Leave nothing of an earlier run."""
    if fields.IMPUTED in adata.layers:
        del adata.layers[fields.IMPUTED]
    adata.uns.pop(fields.IMPUTED_ABOUT, None)


def summary(job: jobs.Job, parts: list[Part]) -> dict[str, Any]:
    """``--summary``: the provenance without what is of one modality only, and what was imputed."""
    about = parts[0].about
    inner = json.loads(about["settings"])
    for key in ("model_settings", "modality", "imputed_cells"):
        inner.pop(key, None)
    done = {p.modality: {"cells": len(p.rows), "features": len(job.loaded.model.vocabulary[p.modality])} for p in parts}
    return {**{k: about[k] for k in ("model", "checkpoint_sha256", "seed")}, **inner, "imputed": done}
