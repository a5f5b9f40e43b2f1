"""Pretrained weights as the start of a training: of the encoder all, of the genes those that both know."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xmodal import fields, provenance
from xmodal.data.alignment import MIN_COVERAGE
from xmodal.errors import InputRefused, UsageRefused
from xmodal.models.parts.perceiver import Perceiver
from xmodal.pretraining.pretrained import load
from xmodal.pretraining.shared_features import shared_rows as shared_rows

if TYPE_CHECKING:
    from xmodal.models.base import CrossModalModel
    from xmodal.pretraining.pretrained import Pretrained

log = logging.getLogger(__name__)
GENE = "gene"  # the embedding of genes, the one part whose rows are the genes of a vocabulary
SHAPE = ("latents", "width", "layers", "heads")  # settings that decide what weights there are and what they mean


@torch.no_grad()
def load_into(model: CrossModalModel, path: Path, least: float = MIN_COVERAGE) -> dict[str, Any]:
    """Put the weights in ``path`` into the one cell encoder `builtin` of ``model``; returns what was shared, for metrics.json.

    Models of :mod:`xmodal.fusion` take encoders and decoders of single modalities: :mod:`xmodal.pretraining.initial_single`.

    Refuses a model without that encoder, one of another size (naming the settings that fit), and genes of which fewer than
    ``least`` are in the file.  Genes that the file does not know start from nothing, as without it.
    """
    from xmodal.fusion.fused import Fused

    if isinstance(model, Fused):
        from xmodal.pretraining import initial_single

        return initial_single.load_into(model, path, least)
    encoder = _encoder(model)
    given = load(path)
    _require_size(encoder, given, path)
    known = model.vocabulary[fields.RNA]
    if len(known) != len(encoder.gene):
        raise UsageRefused("--init: the cell encoder of this model reads other features than the genes of its file")
    rows = shared_rows(known, given.vocabulary[fields.RNA])
    found = np.flatnonzero(rows >= 0)
    if len(found) < least * len(rows):
        missing = [known.features[i] for i in np.flatnonzero(rows < 0)[:5]]
        raise InputRefused(
            f"it knows {len(found)} of the {len(rows)} genes that are trained on (missing: {', '.join(missing)}, ...)",
            where=str(path),
            do="give an encoder pretrained on the same species, with genes called alike",
        )
    state = encoder.state_dict()
    odd = sorted(
        k for k in state.keys() | given.weights.keys() if k != GENE and _shape(state, k) != _shape(given.weights, k)
    )
    if odd:
        raise InputRefused(f"{len(odd)} tensors do not fit ({odd[0]})", where=str(path), do="run xmodal pretrain again")
    encoder.load_state_dict({**given.weights, GENE: state[GENE]})
    encoder.gene[found] = given.weights[GENE][rows[found]].to(encoder.gene)
    log.info("%s: %d of %d genes are shared; the others start from nothing", path.name, len(found), len(rows))
    return {"genes": len(rows), "shared": len(found), "sha256": provenance.sha256(path)}


def _encoder(model: CrossModalModel) -> Perceiver:
    found = [module for module in model.modules() if isinstance(module, Perceiver)]
    if len(found) != 1:
        raise UsageRefused(
            "--init: this model has no cell encoder 'builtin'. What to do: give --model scmmgpt --set cell_model=builtin, "
            "or a model that xmodal pretrain --model knows, or leave --init out"
        )
    return found[0]


def _require_size(encoder: Perceiver, given: Pretrained, path: Path) -> None:
    differ = [k for k in SHAPE if getattr(encoder.size, k) != getattr(given.size, k)]
    if differ:
        here, there = (
            [f"{k}={getattr(size, k)}" for k in differ] for size in (encoder.size, given.size)
        )  # as they are set
        raise InputRefused(
            f"the encoder in it has {', '.join(there)}, this model asks for {', '.join(here)}",
            where=str(path),
            do=f"train with --set {' --set '.join(there)}, or pretrain with --set {' --set '.join(here)}",
        )


def _shape(tensors: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
