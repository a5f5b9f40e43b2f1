"""Files of a foundation model: from a folder of the facility, never looked up elsewhere, and none that could run code."""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def need(directory: Path, name: str, option: str) -> Path:
    """``directory/name``; refused where it is not there, naming the ``option`` (``cell_model=scgpt:DIR``) that asked for it."""
    if not directory.is_dir():
        raise InputRefused("there is no such folder", where=str(directory), do=f"give the model's folder: {option}")
    path = directory / name
    if not path.is_file():
        raise InputRefused(
            f"{option} needs {name}, which is not there", where=str(directory), do=f"copy {name} into it"
        )
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputRefused(f"this is no JSON ({error})", where=str(path), do="copy it again") from None
    if not isinstance(content, dict):
        raise InputRefused("this is no JSON object", where=str(path), do="copy it again")
    return content


def read_table(directory: Path, stem: str, option: str) -> dict[str, Any]:
    """The JSON object in ``directory`` whose name begins with ``stem``; a pickle in its place is refused with the way out."""
    found = sorted(directory.glob(f"{stem}*.json"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputRefused(f"{names}: which one?", where=str(directory), do="leave the one that belongs to the weights")
    if found:
        return read_json(found[0])
    pickles = sorted(directory.glob(f"{stem}*.pkl"))
    if pickles:
        name = pickles[0].name
        code = f"import json, pickle; json.dump(pickle.load(open('{name}', 'rb')), open('{stem}.json', 'w'), default=float)"
        raise InputRefused(
            f"{name} is a pickle, and reading a pickle runs whatever code is in it",
            where=str(directory),
            do=f'where you trust it, make {stem}.json of it, once, in that folder: python -c "{code}"',
        )
    need(directory, f"{stem}.json", option)
    raise AssertionError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or from what ``torch.save`` wrote; whatever else is in the latter is refused."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise InputRefused(
            "it holds more than weights, and reading that would run whatever code is in it",
            where=str(path),
            do="where you trust it, save its weights alone: torch.save(model.state_dict(), PATH)",
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputRefused(f"the weights cannot be read ({reason})", where=str(path), do="copy them again") from None
    for inner in ("model_state_dict", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise InputRefused("it holds no weights by name", where=str(path), do="give the weights of the model")
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def fill(model: Any, weights: Mapping[str, Tensor], path: Path, about: str) -> None:
    """Load ``weights`` into ``model`` where all that it has is among them, in its shape; else refused with the first three."""
    state = model.state_dict()
    odd = [k for k, v in state.items() if k not in weights or weights[k].shape != v.shape]
    if odd:
        shown = "; ".join(
            f"{k}: expected {tuple(state[k].shape)}, found {tuple(weights[k].shape) if k in weights else 'nothing'}"
            for k in odd[:3]
        )
        raise InputRefused(
            f"{len(odd)} tensors do not fit {about} ({shown})", where=str(path), do="use files that belong together"
        )
    model.load_state_dict({k: weights[k].float() if weights[k].is_floating_point() else weights[k] for k in state})
