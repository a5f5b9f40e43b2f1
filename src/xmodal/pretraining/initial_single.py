"""Pretrained encoders and decoders of single modalities as the start of a training; features are matched by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xmodal import provenance
from xmodal.data.alignment import MIN_COVERAGE
from xmodal.data.vocabulary import Vocabulary
from xmodal.errors import InputRefused
from xmodal.fusion.coders import FEATURE_AXIS, OF_CELLS
from xmodal.models.base import GradientSettings
from xmodal.pretraining.pretrained import load_tensors, read_header
from xmodal.pretraining.shared_features import shared_rows

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Modality
    from xmodal.fusion.fused import Fused

log = logging.getLogger(__name__)
PARTS = ("encoders", "decoders")


@dataclass(frozen=True)
class Start:
    """Weights by their name in the model; ``rows``: of each modality the features (here, there) that both know."""

    weights: dict[str, Tensor]
    rows: dict[str, tuple[Tensor, Tensor]]

    @torch.no_grad()
    def put_into(self, model: Fused) -> None:
        """After the model has taken its statistics: features that were not pretrained keep theirs."""
        state = model.state_dict()
        for name, given in self.weights.items():
            part, m, where = split_name(name)
            axis = FEATURE_AXIS.get(where) if part in PARTS else None
            if axis is None:
                state[name].copy_(given)
                continue
            here, there = self.rows[m]
            to, source = state[name].movedim(axis, 0), given.movedim(axis, 0)
            to[here] = source[there].to(to)
            more = len(model.vocabulary[m])  # the depth stands behind the features
            to[more:] = source[source.shape[0] - (len(to) - more) :].to(to)


def load_into(model: Fused, path: Path, least: float = MIN_COVERAGE) -> dict[str, Any]:
    """Let the training of ``model`` begin with the weights in ``path``; returns what was shared, for metrics.json.

    Refuses those of another model or size, and modalities of another likelihood, scale or genome, or of which fewer than
    ``least`` of the features are in the file.  A modality that is not in the file starts from nothing, as without it.
    """
    header = read_header(path)
    if header.get("model") != model.name:
        kind = f"encoders of model '{header['model']}'" if "model" in header else "the cell encoder of scmmgpt"
        raise InputRefused(
            f"it holds {kind}, this is '{model.name}'",
            where=str(path),
            do=f"run xmodal pretrain --model {model.name}, or train the model that was pretrained",
        )
    tensors = load_tensors(path)
    given = Vocabulary.from_json(header["vocabulary"], {})
    shared = [m for m in model.vocabulary if m in given.modalities]
    if not shared:
        raise InputRefused(
            f"it knows {', '.join(given)}, and is to begin a training on {', '.join(model.vocabulary)}",
            where=str(path),
            do="pretrain on one of these",
        )
    rows = {m: _rows(model.vocabulary[m], given[m], path, least) for m in shared}
    weights = _fitting(model, header["settings"], tensors, shared, path)
    model.begins_with = Start(weights, rows)
    facts = {m: {"features": len(model.vocabulary[m]), "shared": len(rows[m][0])} for m in shared}
    for m, found in facts.items():
        log.info("%s: %d of %d %s features are shared", path.name, found["shared"], found["features"], m)
    return {"modalities": facts, "sha256": provenance.sha256(path)}


def _rows(known: Modality, given: Modality, path: Path, least: float) -> tuple[Tensor, Tensor]:
    """Places of the features that both know, here and there."""
    for what in ("likelihood", "scale", "genome"):
        ours, theirs = getattr(known, what), getattr(given, what)
        if ours != theirs and None not in (ours, theirs):
            raise InputRefused(
                f"its {known.name} has {what} {theirs}, the training cells have {ours}",
                where=str(path),
                do="pretrain on cells that were prepared alike",
            )
    places = shared_rows(known, given)
    here = np.flatnonzero(places >= 0)
    if len(here) < least * len(places):
        missing = [known.features[i] for i in np.flatnonzero(places < 0)[:5]]
        raise InputRefused(
            f"it knows {len(here)} of the {len(places)} {known.name} features that are trained on (missing: "
            f"{', '.join(missing)}, ...)",
            where=str(path),
            do="pretrain on cells with the same features: genes called alike, fragments counted over the same peaks",
        )
    return torch.from_numpy(here), torch.from_numpy(places[here])


def _fitting(
    model: Fused, settings: dict[str, Any], tensors: dict[str, Tensor], shared: list[str], path: Path
) -> dict[str, Tensor]:
    """The weights that this model takes; refused where its size is another."""
    own, taken, odd = model.state_dict(), {}, []
    for name, value in tensors.items():
        part, m, where = split_name(name)
        if part not in PARTS:
            if name in own and own[name].shape == value.shape:
                taken[name] = value
        elif m in shared and where not in OF_CELLS:
            axis = FEATURE_AXIS.get(where)
            if name not in own or _without(own[name], axis) != _without(value, axis):
                odd.append(name)
            taken[name] = value
    expected = {k for k in own if k.startswith(tuple(f"{p}.{m}." for p in PARTS for m in shared))}
    lacking = [k for k in expected - tensors.keys() if split_name(k)[2] not in OF_CELLS]
    if odd or lacking:
        now = model.settings.model_dump(mode="json")
        differ = [k for k in now if k not in GradientSettings.model_fields and settings.get(k) != now[k]]
        there = " ".join(f"--set {k}={settings.get(k)}" for k in differ)
        raise InputRefused(
            f"{len(odd) + len(lacking)} tensors do not fit ({sorted([*odd, *lacking])[0]})",
            where=str(path),
            do=f"train with the settings of the pretraining: {there}" if there else "run xmodal pretrain again",
        )
    return taken


def split_name(name: str) -> tuple[str, str, str]:
    """``encoders.rna.first.weight``: the part, its modality, and which tensor of it."""
    part, _, rest = name.partition(".")
    m, _, where = rest.partition(".")
    return part, m, where


def _without(value: Tensor, axis: int | None) -> tuple[int, ...]:
    """Its shape but for the features."""
    return tuple(n for i, n in enumerate(value.shape) if i != axis)
