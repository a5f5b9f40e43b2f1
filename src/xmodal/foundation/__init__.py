"""Embeddings of cells by foundation models that lie on the facility's disk: `scgpt:DIR`, `geneformer:DIR`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xmodal import fields, provenance
from xmodal.errors import UsageRefused

if TYPE_CHECKING:
    import torch
    from mudata import MuData

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


def digest(spec: str) -> str:
    """Of the weights of a foundation model: cells that are annotated must be embedded by the one that was trained with."""
    from xmodal.foundation import geneformer, scgpt

    kind, _, folder = spec.partition(":")
    names = (scgpt.WEIGHTS,) if kind == "scgpt" else geneformer.WEIGHTS
    return provenance.sha256(next(path for path in (Path(folder) / name for name in names) if path.is_file()))
