"""A small causal transformer that is trained from nothing, on one CPU in minutes: ``--decoder scratch``.

About 8 M parameters with the word pieces of MiniLM, most of which are the vectors of its 30,522 pieces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from xmodal.describing.neural import Speaker
from xmodal.describing.wordings import SLOT, WORDED, forms, slots
from xmodal.errors import InputRefused

TOKENIZER_FILE = "tokenizer.json"


class ScratchSettings(BaseModel):
    """Its shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(4, ge=1, description="Layers.")
    width: int = Field(192, ge=8, description="Width of a layer.")
    heads: int = Field(6, ge=1, description="Attention heads; they share the width.")
    soft: int = Field(4, ge=1, description="Places of the soft prompt.")
    longest: int = Field(160, ge=32, description="Most tokens of prompt and sentence.")


class Scratch(Speaker):
    """Pre-norm transformer; the vectors of pieces are also the output layer's."""

    def __init__(self, settings: ScratchSettings, tokenizer: Any, prefix: int) -> None:
        """``tokenizer``: a ``tokenizers.Tokenizer``; ``prefix``: width of the vectors of cells."""
        super().__init__()
        self.settings, self.tokenizer = settings, tokenizer
        known = tokenizer.get_vocab_size()
        names = sorted({slot for kind in WORDED for slot in slots(forms(kind)[0])})
        self._slots = {f"{{{name}}}": known + i for i, name in enumerate(names)}  # each is one token
        self.end = known + len(names)
        width = settings.width
        self.pieces_of = nn.Embedding(self.end + 1, width)
        self.places = nn.Embedding(settings.soft + settings.longest, width)
        self.prompt = nn.Linear(prefix, settings.soft * width)
        layer = nn.TransformerEncoderLayer(
            width, settings.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, settings.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        nn.init.normal_(self.pieces_of.weight, std=width**-0.5)
        nn.init.normal_(self.places.weight, std=0.1)  # else places drown what stands there
        said = {i for kind in WORDED for form in forms(kind) for i in self.pieces(form)} | {self.end}
        self.said = torch.tensor(sorted(said))  # follows from the tokenizer: no buffer

    def pieces(self, text: str) -> list[int]:
        ids: list[int] = []
        last = 0
        for slot in SLOT.finditer(text):
            ids += [*self._text(text[last : slot.start()]), self._slots[slot[0]]]
            last = slot.end()
        return (ids + self._text(text[last:]))[: self.settings.longest]

    def _text(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def logits(self, vectors: Tensor, ids: Tensor) -> Tensor:
        soft = self.prompt(vectors).view(len(vectors), self.settings.soft, -1)
        read = self.pieces_of(ids.to(vectors.device)) * self.settings.width**0.5
        x = torch.cat([soft, read], 1)  # (rows, soft + length, width)
        x = x + self.places(torch.arange(x.shape[1], device=x.device))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        x = self.layers(x, mask=mask, is_causal=True)[:, self.settings.soft - 1 :]
        return x @ self.pieces_of(self.said.to(x.device)).T

    def outputs(self, ids: Tensor) -> Tensor:
        """Only what stands in a wording can be said: some 150 of 30,000 pieces, a tenth of the work."""
        return torch.searchsorted(self.said, ids).clamp(max=len(self.said) - 1)


def tokenizer_of(folder: Path) -> Any:
    """The word pieces of a text model's directory, whichever files hold them."""
    from transformers import AutoTokenizer

    try:
        found: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return whole(found.backend_tokenizer)
    except Exception as error:  # transformers raises whatever a broken directory leads to
        why = str(error).strip().split("\n")[0]
        raise InputRefused(f"its tokenizer cannot be read ({why})", where=str(folder), do="give another one") from None


def kept_tokenizer(folder: Path) -> Any:
    """That of a trained decoder."""
    from tokenizers import Tokenizer

    file, do = folder / TOKENIZER_FILE, "copy the whole folder, or train it again"
    if not file.is_file():
        raise InputRefused(f"there is no {TOKENIZER_FILE}", where=str(folder), do=do)
    try:
        return whole(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises no other class
        raise InputRefused(f"{TOKENIZER_FILE} cannot be read ({error})", where=str(folder), do=do) from None


def whole(tokenizer: Any) -> Any:
    """Texts are neither cut nor filled up."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
