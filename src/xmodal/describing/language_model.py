"""A causal language model from a directory, with a soft prompt from the cells' embedding and LoRA: ``--decoder hf:DIR``.

The directory is the facility's and stays as it is.  What is trained (LoRA: Hu et al. 2021, arXiv 2106.09685, through peft; the
projection to the soft prompt) is kept apart from it.  Nothing is fetched, code of the directory is not run, weights that
are a pickle are read by ``weights_only`` alone.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from xmodal.describing.neural import Speaker
from xmodal.errors import InputRefused

INSTALL = 'pip install "xmodal[text]"'
CONFIG = "config.json"
GIVE = "give --decoder hf:DIR a causal language model in Hugging Face's format, with its tokenizer"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


class AdapterSettings(BaseModel):
    """What is added to the language model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(8, ge=1, description="Rank of LoRA.")
    alpha: int = Field(16, ge=1, description="Scale of LoRA, over the rank.")
    soft: int = Field(4, ge=1, description="Places of the soft prompt.")


class Adapted(Speaker):
    """``base``: a transformers model with LoRA in all its linear layers."""

    def __init__(self, base: Any, tokenizer: Any, settings: AdapterSettings, prefix: int) -> None:
        """``prefix``: width of the vectors of cells."""
        super().__init__()
        from peft import LoraConfig, get_peft_model

        self.settings, self.tokenizer = settings, tokenizer
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            lora_dropout=0.0,
        )
        width = base.get_input_embeddings().embedding_dim
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GPT-2's layers, whose weights lie the other way, which it sees itself
            self.model = get_peft_model(base, lora)
        self.prompt = nn.Linear(prefix, settings.soft * width)
        self.end = int(tokenizer.eos_token_id)

    def pieces(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def logits(self, vectors: Tensor, ids: Tensor) -> Tensor:
        read = self.model.get_input_embeddings()(ids.to(vectors.device))  # (rows, length, width)
        soft = self.prompt(vectors).view(len(vectors), self.settings.soft, -1).to(read.dtype)
        found: Tensor = self.model(inputs_embeds=torch.cat([soft, read], 1), use_cache=False).logits
        return found[:, self.settings.soft - 1 :]

    def trained(self) -> dict[str, Tensor]:
        """What is not the directory's: LoRA and the projection."""
        from peft import get_peft_model_state_dict

        lora = {f"lora.{k}": v for k, v in get_peft_model_state_dict(self.model).items()}
        return {**lora, **{f"prompt.{k}": v for k, v in self.prompt.state_dict().items()}}

    def fill(self, tensors: dict[str, Tensor]) -> None:
        """Raises ``RuntimeError``, ``KeyError`` where the tensors are of another model."""
        from peft import set_peft_model_state_dict

        lora = {k.removeprefix("lora."): v for k, v in tensors.items() if k.startswith("lora.")}
        if {f"lora.{k}": v.shape for k, v in lora.items()} != {
            k: v.shape for k, v in self.trained().items() if k.startswith("lora.")
        }:
            raise RuntimeError("the adapters are of another language model")
        set_peft_model_state_dict(self.model, lora)
        own = {k.removeprefix("prompt."): v for k, v in tensors.items() if k.startswith("prompt.")}
        self.prompt.load_state_dict(own, strict=True)


def require(folder: Path) -> str:
    """Refuse a directory that is not there or not whole, naming what is missing; returns how it is named in messages."""
    where = f"--decoder hf:{folder}"
    for package in ("transformers", "peft"):
        if find_spec(package) is None:
            raise InputRefused(f"language models need the package {package}, which is not installed", do=INSTALL)
    if not folder.is_dir():
        raise InputRefused("there is no such directory", where=where, do=GIVE)
    if not (folder / CONFIG).is_file():
        raise InputRefused(f"{CONFIG} is missing", where=where, do=GIVE)
    if not weights(folder):
        raise InputRefused("the weights are missing: model.safetensors", where=where, do=GIVE)
    return where


def load(folder: Path) -> tuple[Any, Any]:
    """Model (on the CPU, evaluating) and tokenizer of a directory; :class:`InputRefused` where it cannot be read."""
    where = require(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is imported, which reads it then
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        model, tokenizer = _read(folder)
    except pickle.UnpicklingError:
        what = "its weights are a pickle that holds more than tensors; it was not opened"
        raise InputRefused(what, where=where, do="convert it, where you trust it, to model.safetensors") from None
    except Exception as error:  # transformers raises whatever a broken directory leads to
        why = str(error).strip().split("\n")[0]
        raise InputRefused(f"it cannot be loaded as a causal language model ({why})", where=where, do=GIVE) from error
    if tokenizer.eos_token_id is None:
        raise InputRefused("its tokenizer has no token that ends a text (eos_token)", where=where, do=GIVE)
    return model.eval(), tokenizer


def _read(folder: Path) -> tuple[Any, Any]:
    import transformers

    quiet: Any = transformers.utils.logging
    shown, loudness = quiet.is_progress_bar_enabled(), quiet.get_verbosity()
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), weights_only=True, dtype="auto", **common
        )
        return model, transformers.AutoTokenizer.from_pretrained(str(folder), **common)
    finally:
        quiet.set_verbosity(loudness)
        if shown:
            quiet.enable_progress_bar()


def weights(folder: Path) -> list[Path]:
    return sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})


def digest(folder: Path) -> str:
    """sha256 of configuration and weights, by their names."""
    whole = hashlib.sha256()
    for file in [folder / CONFIG, *weights(folder)]:
        with file.open("rb") as stream:
            whole.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
