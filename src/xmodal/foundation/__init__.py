"""Embeddings of cells by foundation models that lie on the facility's disk: `scgpt:DIR`, `geneformer:DIR`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import fields, provenance
from xmodal.errors import InputRefused, UsageRefused

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.models.base import ModelSettings

KINDS = {"scgpt": fields.SCGPT, "geneformer": fields.GENEFORMER}
BATCH = 16  # cells at once: 1,200 to 4,096 tokens each


def is_foundation(spec: str) -> bool:
    """Is this setting (`cell_model`) a foundation model on disk?"""
    return spec.partition(":")[0] in KINDS


def ensure(mdata: MuData, spec: str, device: torch.device | None = None, batch_size: int = BATCH) -> tuple[MuData, str]:
    """``mdata`` with the embedding that ``spec`` asks for, and the setting that reads it: ``obsm:X_scgpt``.

    Any other ``spec`` comes back as it is.  The embedding is put into ``mdata`` itself, (cells, width), rows of nan for cells
    without RNA; ``uns["xmodal_cell_model"]`` says which model and the digest of its weights.  ``device``: None is the CPU.
    """
    kind, _, folder = spec.partition(":")
    if kind not in KINDS:
        return mdata, spec
    if not folder:
        raise UsageRefused(f"cell_model={spec}: write {kind}:DIR, with the folder of the model")
    import torch

    from xmodal.foundation import geneformer, scgpt

    model = scgpt if kind == "scgpt" else geneformer
    found = model.embed(mdata, Path(folder), device or torch.device("cpu"), batch_size)
    out = np.full((mdata.n_obs, found.shape[1]), np.nan, np.float32)
    out[mdata.obs_names.get_indexer(mdata.mod[fields.RNA].obs_names)] = found
    mdata.obsm[KINDS[kind]] = out
    mdata.uns[fields.CELL_MODEL] = json.dumps({"model": kind, "sha256": digest(spec)}, sort_keys=True)
    return mdata, f"obsm:{KINDS[kind]}"


def for_training(
    mdata: MuData, settings: ModelSettings, device: torch.device | None = None
) -> tuple[MuData, ModelSettings, dict[str, str] | None]:
    """Cells and settings with the embedding in place of the foundation model that ``settings.cell_model`` names, if it does.

    The last is what a checkpoint keeps of it, so that new cells are embedded by the same weights.
    """
    spec = getattr(settings, "cell_model", "")
    if not is_foundation(spec):
        return mdata, settings, None
    mdata, reads = ensure(mdata, spec, device)
    about: dict[str, str] = json.loads(mdata.uns[fields.CELL_MODEL])
    return mdata, settings.model_copy(update={"cell_model": reads}), about


def require_same(training: dict[str, Any], spec: str, option: str) -> None:
    """Refuse other weights than those of the training; ``training``: what the checkpoint's header says of it."""
    kept = training.get("cell_model")
    if kept is not None and kept["sha256"] != digest(spec):
        raise InputRefused(
            f"these are other weights of {kept['model']} than those that embedded the training cells "
            f"({kept['sha256'][:12]}...)",
            where=f"{option} {spec}",
            do="give the folder that the model was trained with, or train again with this one",
        )


def digest(spec: str) -> str:
    """Of the weights of a foundation model: cells that are annotated must be embedded by the one that was trained with."""
    from xmodal.foundation import files, geneformer, scgpt

    kind, _, folder = spec.partition(":")
    names = (scgpt.WEIGHTS,) if kind == "scgpt" else geneformer.WEIGHTS
    there = [path for path in (Path(folder) / name for name in names) if path.is_file()]
    return provenance.sha256(there[0] if there else files.need(Path(folder), names[0], f"{kind}:DIR"))
