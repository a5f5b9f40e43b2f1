"""The work of ``xmodal describe --train-decoder``: a checkpoint in, a decoder that reads its joint space out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal import memory, provenance
from xmodal.annotating import annotator
from xmodal.describing import decoders
from xmodal.describing.neural import TeachingSettings
from xmodal.describing.settings import SCRATCH, DecoderChoice

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
# A language model speaks already, and is a hundred times as large: smaller steps of fewer sentences.
OF_LANGUAGE_MODELS = {"batch_size": 8, "learning_rate": 1e-3}


@dataclass(frozen=True)
class Request:
    """``steps``: None for the decoder's own; ``text_model``: whose word pieces ``scratch`` reads, None: the default."""

    choice: DecoderChoice
    folder: Path
    steps: int | None = None
    text_model: str | None = None


@memory.refusing("the decoder")
def run(checkpoint: Path, asked: Request, how: tuple[torch.device, int, bool]) -> dict[str, Any]:
    """Train and write, ``how`` = (device, seed, overwrite); returns what was done."""
    from xmodal.learning.checkpoint import load

    loaded = load(checkpoint)
    _, bank, _ = annotator.of(loaded, checkpoint)
    tokens = None
    if asked.choice.kind == SCRATCH:
        from xmodal.text import encoder

        tokens = encoder.load(asked.text_model).folder
    texts = decoders.texts_of(loaded.model, bank, provenance.sha256(checkpoint))
    values = {} if asked.choice.kind == SCRATCH else dict(OF_LANGUAGE_MODELS)
    if asked.steps is not None:
        values["steps"] = asked.steps
    settings = TeachingSettings(**values)
    log.info("%s learns from %d terms: %d steps", asked.choice.kind, len(bank.ids), settings.steps)
    return decoders.train(asked.choice, texts, asked.folder, settings, decoders.How(*how, tokens))
