"""The file that pretraining leaves: one safetensors file whose header holds one key, as that of a checkpoint.  Never pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodal import __version__, fields
from xmodal.data.vocabulary import Vocabulary
from xmodal.errors import InputRefused
from xmodal.learning.checkpoint import KEY
from xmodal.models.parts.perceiver import PerceiverSettings
from xmodal.outputs import replacing

ENCODER = "encoder."
CONTENT = "weights of the cell encoder 'builtin'; no cell"
WHAT = f"give the {fields.PRETRAINED_FILE} that xmodal pretrain wrote"


@dataclass(frozen=True)
class Pretrained:
    """A loaded file.  ``size``: of the encoder; ``genes``, ``gene_ids``: rows of its gene embedding; ``weights``: by name."""

    header: dict[str, Any]
    size: PerceiverSettings
    vocabulary: Vocabulary
    weights: dict[str, Tensor]


def save(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write ``tensors`` to ``path`` in one step; ``header``: settings, vocabulary and facts, all JSON."""
    from safetensors.numpy import save_file

    text = {"format": fields.PRETRAINED_SCHEMA, "version": __version__, "content": CONTENT, **header}
    arrays = {k: np.require(v.detach().cpu().numpy(), requirements="C") for k, v in tensors.items()}
    with replacing(path, overwrite=True) as temporary:
        save_file(arrays, temporary, {KEY: json.dumps(text, sort_keys=True)})


def read_header(path: Path) -> dict[str, Any]:
    """The header alone; refuses what pretraining did not write."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputRefused("there is no such file", where=str(path), do=WHAT)
    try:
        with safe_open(path, "np") as handle:
            header: dict[str, Any] = json.loads((handle.metadata() or {}).get(KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputRefused(f"not a readable safetensors file ({error})", where=str(path), do=WHAT) from None
    if "directions" in header:
        raise InputRefused("this is a trained model, nothing pretrained", where=str(path), do=WHAT)
    if header.get("format") != fields.PRETRAINED_SCHEMA:
        raise InputRefused("a safetensors file, but nothing that xmodal pretrain wrote", where=str(path), do=WHAT)
    return header


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file whose header was read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {k: torch.from_numpy(np.array(v)) for k, v in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise _cut(path, error) from None


def _cut(path: Path, error: Exception) -> InputRefused:
    return InputRefused(
        f"the file is cut or corrupt ({error})", where=str(path), do="copy it again, or run xmodal pretrain again"
    )


def load(path: Path) -> Pretrained:
    """The encoder's weights; refused where the file is cut, or its parts do not fit."""
    header = read_header(path)
    if "model" in header:
        raise InputRefused(
            f"it holds encoders of model '{header['model']}', no cell encoder",
            where=str(path),
            do="run xmodal pretrain without --model, or train the model that was pretrained",
        )
    tensors = load_tensors(path)
    try:
        vocabulary = Vocabulary.from_json(header["vocabulary"], {})
        size = PerceiverSettings(**{k: header["settings"][k] for k in PerceiverSettings.model_fields})
    except (KeyError, TypeError, ValueError) as error:
        raise _cut(path, error) from None
    weights = {k.removeprefix(ENCODER): v for k, v in tensors.items() if k.startswith(ENCODER)}
    return Pretrained(header, size, vocabulary, weights)
