"""The checkpoint: one safetensors file whose header holds exactly one key, ``xmodal``.  Never pickle.

One key, since the header's order of several keys is not fixed: equal models must give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import __version__, fields, registry
from xmodal.data.vocabulary import Vocabulary
from xmodal.errors import InputRefused, UsageRefused
from xmodal.learning.novelty import Novelty
from xmodal.learning.novelty_first import FirstNovelty
from xmodal.learning.uncertainty import Uncertainty
from xmodal.outputs import replacing

if TYPE_CHECKING:
    from xmodal.models.base import CrossModalModel

KEY = "xmodal"
MODEL = "model."  # before the names of its tensors
CONTENT = "weights and statistics over training cells; group means of at least 20 cells; no single cell"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.  ``header``: what ``xmodal models FILE`` shows; ``novelty``: what the training cells looked like."""

    model: CrossModalModel
    header: dict[str, Any]
    novelty: dict[str, Novelty | FirstNovelty] = field(default_factory=dict)
    uncertainty: dict[tuple[str, str], Uncertainty] = field(default_factory=dict)

    @property
    def directions(self) -> list[tuple[str, str]]:
        """The pairs (source, target) that were learned."""
        return [(s, t) for s, t in self.header["directions"]]


def save(
    path: Path,
    model: CrossModalModel,
    training: dict[str, Any],
    novelty: Mapping[str, Novelty | FirstNovelty],
    uncertainty: dict[tuple[str, str], Uncertainty] | None = None,
) -> None:
    """Write ``model`` to ``path``, in one step; ``uncertainty``: of each direction (source, target) that has one.

    ``training``: what it was trained on, all JSON; its ``directions`` are the pairs (source, target) that were learned.
    """
    from safetensors.numpy import save_file

    header = {
        "format": fields.CHECKPOINT_FORMAT,
        "version": __version__,
        "model": model.name,
        "settings": model.settings.model_dump(mode="json"),
        "vocabulary": model.vocabulary.to_json(),
        "genome": {m: v.genome for m, v in model.vocabulary.modalities.items()},
        "directions": [list(d) for d in training.get("directions", model.directions())],
        "training": training,
        "content": CONTENT,
    }
    tensors = {MODEL + k: v.detach().cpu().contiguous().numpy() for k, v in model.state_dict().items()}
    tensors |= {f"vocabulary.{k}": v for k, v in model.vocabulary.tensors().items()}
    for m, known in novelty.items():
        tensors |= {f"novelty.{m}.{k}": v for k, v in known.tensors().items()}
    for (s, t), errors in (uncertainty or {}).items():
        tensors |= {f"uncertainty.{s}.{t}.{k}": v for k, v in errors.tensors().items()}
    with replacing(path, overwrite=True) as temporary:
        save_file(
            {k: np.require(v, requirements="C") for k, v in tensors.items()},
            temporary,
            {KEY: json.dumps(header, sort_keys=True)},
        )


def read_header(path: Path) -> dict[str, Any]:
    """The header alone, in milliseconds; refuses what is not an xmodal checkpoint of a known format."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputRefused(
            "there is no such checkpoint", where=str(path), do="give the model.safetensors that train wrote"
        )
    try:
        with safe_open(path, "np") as handle:
            text = (handle.metadata() or {}).get(KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputRefused(
            f"not a readable safetensors file ({error})",
            where=str(path),
            do="give the model.safetensors that train wrote; if this is one, it is cut: copy it again",
        ) from None
    if text is None:
        raise InputRefused(
            "a safetensors file, but not an xmodal checkpoint",
            where=str(path),
            do="give the model.safetensors that train wrote",
        )
    try:
        header: dict[str, Any] = json.loads(text)
    except ValueError:
        raise corrupt(path, "its header is not JSON") from None
    if header.get("format") == fields.PRETRAINED_SCHEMA:
        raise InputRefused(
            "pretrained weights, no trained model",
            where=str(path),
            do="train with it (xmodal train --init FILE) and give the model.safetensors of that",
        )
    if header.get("format") != fields.CHECKPOINT_FORMAT:
        raise InputRefused(
            f"checkpoint format {header.get('format')} (written by xmodal {header.get('version')}); this is xmodal "
            f"{__version__}, which reads format {fields.CHECKPOINT_FORMAT}",
            where=str(path),
            do="use the xmodal that wrote it, or train again",
        )
    return header


def load(path: Path) -> Checkpoint:
    """Load strictly: every tensor there and of its shape, or refused with what differs.

    One tensor after the other, so that a wide model is in memory once.
    """
    from safetensors import SafetensorError, safe_open

    header = read_header(path)
    try:
        with safe_open(path, "np") as handle:
            return _read(path, header, handle)
    except (SafetensorError, OSError) as error:
        raise InputRefused(f"cannot be read to the end ({error})", where=str(path), do="copy it again") from None


def _read(path: Path, header: dict[str, Any], handle: Any) -> Checkpoint:
    """``handle``: the open file."""
    model_class = _model_class(path, header)
    try:
        vocabulary = Vocabulary.from_json(header["vocabulary"], _under("vocabulary.", handle))
        settings = model_class.Settings(**header["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt(path, str(error).splitlines()[0]) from None
    model = model_class.build(settings, vocabulary)
    _fill(path, model, handle)
    known = {m: _under(f"novelty.{m}.", handle) for m in vocabulary}
    try:
        novelty = {m: Novelty.from_tensors(t) for m, t in known.items() if t}
    except (KeyError, TypeError, IndexError) as error:
        raise corrupt(path, f"what the training cells looked like: {error}") from None
    loaded = Checkpoint(model.eval(), header, novelty)
    for s, t in loaded.directions:
        if errors := _under(f"uncertainty.{s}.{t}.", handle):
            try:
                loaded.uncertainty[s, t] = Uncertainty.from_tensors(errors, vocabulary[t].scale)
            except (KeyError, TypeError) as error:
                raise corrupt(path, f"uncertainty: {error}") from None
    return loaded


def corrupt(path: Path, reason: str) -> InputRefused:
    """A checkpoint whose parts do not fit together."""
    return InputRefused(
        f"the checkpoint is corrupt, or written by another xmodal than {__version__} ({reason})",
        where=str(path),
        do="copy it again, use the xmodal that wrote it, or train again",
    )


def _model_class(path: Path, header: dict[str, Any]) -> type[CrossModalModel]:
    try:
        return registry.get(header["model"])
    except UsageRefused:
        raise InputRefused(
            f"made by model '{header['model']}', which is not installed here (known: {', '.join(registry.names())})",
            where=str(path),
            do="install the package that brings this model",
        ) from None


def _fill(path: Path, model: CrossModalModel, handle: Any) -> None:
    import torch

    own = model.state_dict()
    expected = {MODEL + k: list(v.shape) for k, v in own.items()}
    given = {k: list(handle.get_slice(k).get_shape()) for k in sorted(handle.keys()) if k.startswith(MODEL)}
    if expected != given:
        odd = sorted(k for k in expected.keys() | given.keys() if expected.get(k) != given.get(k))
        shown = "; ".join(f"{k}: expected {expected.get(k)}, found {given.get(k)}" for k in odd[:3])
        raise InputRefused(f"{len(odd)} tensors do not fit the model ({shown})", where=str(path), do="train again")
    with torch.no_grad():
        for k, tensor in own.items():
            tensor.copy_(torch.from_numpy(handle.get_tensor(MODEL + k)))


def _under(prefix: str, handle: Any) -> dict[str, Any]:
    return {k.removeprefix(prefix): handle.get_tensor(k) for k in sorted(handle.keys()) if k.startswith(prefix)}
