"""Decoders that learn: what both have in common, how they are taught, and how they are held to the facts.

A network is asked only where a sentence may go on in several ways, and only which of these it is: numbers, genes and names are
slots, which are filled from the evidence.  Where it gives hardly any probability to all of them together, it would have said
something else; the template's sentence is taken then, and counted.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from xmodal import progress
from xmodal.describing import corpus
from xmodal.describing.wordings import following
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)
LEAST_MASS = 0.01  # probability of all ways to go on together, below which the decoder would have said something else
NO_TARGET = -100  # as torch's cross entropy has it
TICK = 50  # steps between two lines of progress


class TeachingSettings(BaseModel):
    """How a decoder is taught."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(200, ge=1, description="Minibatches.")
    batch_size: int = Field(16, ge=1, description="Sentences in a minibatch.")
    learning_rate: float = Field(2e-3, gt=0, description="Learning rate of AdamW.")
    noise: float = Field(
        0.3, ge=0, description="Length of the noise that is added to the vector of a text, of length 1."
    )
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")


class Speaker(nn.Module, ABC):
    """A causal language model with soft prompts: ``prefix`` (vectors, width) becomes ``soft`` places before the first token."""

    end: int  # the token that ends a sentence

    @abstractmethod
    def pieces(self, text: str) -> list[int]:
        """Token ids."""

    @abstractmethod
    def logits(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """Of the token after each of ``ids`` (rows, length), and after the soft prompt of ``vectors`` (rows, width).

        (rows, length + 1, outputs); ids after a row's end may be anything.
        """

    def outputs(self, ids: Tensor) -> Tensor:
        """Places of ``ids`` in the last dimension of the logits; 0 for what is never said."""
        return ids

    def loss(self, vectors: Tensor, prompts: Sequence[str], said: Sequence[str]) -> Tensor:
        """Mean negative log probability of the tokens of ``said``, and of the end."""
        asked = [self.pieces(p) for p in prompts]
        whole = [[*a, *self.pieces(f" {s}"), self.end] for a, s in zip(asked, said, strict=True)]
        ids = _filled(whole, self.end)
        places, targets = self.outputs(ids), torch.full_like(ids, NO_TARGET)
        for row, (a, w) in enumerate(zip(asked, whole, strict=True)):
            targets[row, len(a) : len(w)] = places[row, len(a) : len(w)]
        found = self.logits(vectors, ids[:, :-1])  # (rows, length, vocabulary)
        return functional.cross_entropy(
            found.flatten(0, 1).float(), targets.flatten().to(found.device), ignore_index=NO_TARGET
        )

    @torch.no_grad()
    def likely(self, vector: Tensor, prompt: str, said: str, ways: Sequence[str]) -> Tensor:
        """Log probability of each of ``ways`` (texts that go on from ``said``), (ways,)."""
        begun = self.pieces(f"{prompt} {said}".rstrip())
        whole = [self.pieces(f"{prompt} {way}") for way in ways]
        ids = _filled(whole, self.end)
        rate = self.logits(vector.expand(len(ways), -1), ids[:, :-1]).float().log_softmax(-1)
        rate = rate.gather(-1, self.outputs(ids).to(rate.device)[:, :, None])[:, :, 0].cpu()  # (ways, length)
        found = []
        for row, own in enumerate(whole):
            same = next(
                (i for i, (a, b) in enumerate(zip(begun, own, strict=False)) if a != b), min(len(begun), len(own))
            )
            found.append(rate[row, same : len(own)].sum())
        return torch.stack(found)


def _filled(rows: list[list[int]], end: int) -> Tensor:
    """(rows, longest), filled up behind."""
    longest = max(map(len, rows))
    return torch.tensor([row + [end] * (longest - len(row)) for row in rows])


@dataclass
class Worded:
    """Sentences asked for, and those for which the template's was taken, by kind."""

    sentences: int = 0
    fallen_back: int = 0


class NeuralDecoder:
    """Words sentences with a trained :class:`Speaker`; draws among the ways to say it by their probability, seeded."""

    def __init__(self, speaker: Speaker, name: str, how: tuple[torch.device, int]) -> None:
        self.speaker, self.name = speaker.eval(), name
        self.device, seed = how
        self.draw = np.random.default_rng(seed)
        self.worded = Worded()

    def form(self, kind: str, about: str, vector: Tensor) -> str | None:
        """A sentence of ``kind`` about the type ``about`` with slots; None where the template's must be taken.

        ``vector``: of the cells in the joint space, (1, width).
        """
        self.worded.sentences += 1
        said, asked, vector = "", corpus.prompt(kind, about), vector.to(self.device)
        while ways := following(kind, said):
            if len(ways) == 1:
                said = next(iter(ways.values()))
                continue
            rate = self.speaker.likely(vector, asked, said, list(ways.values())).exp().numpy().astype(np.float64)
            if not rate.sum() >= LEAST_MASS:  # nan is not
                self.worded.fallen_back += 1
                return None
            said = list(ways.values())[self.draw.choice(len(ways), p=rate / rate.sum())]
        return said


def teach(
    speaker: Speaker, bank: TextBank, projected: dict[str, Tensor], settings: TeachingSettings, seed: int
) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps.

    ``projected``: by view, the texts of the bank in the joint space, (ids, width).
    """
    torch.manual_seed(seed)
    source = corpus.examples(bank, seed)
    trained = [p for p in speaker.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    device = trained[0].device
    speaker.train()
    losses: list[float] = []
    steps = range(1, settings.steps + 1)
    for step in progress.along(steps, len(steps), "decoder", "steps"):
        drawn = list(islice(source, settings.batch_size))
        vectors = torch.stack([projected[e.view][e.row] for e in drawn]).to(device)
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed + step)).to(device)
        vectors = functional.normalize(vectors + settings.noise * functional.normalize(noise, dim=1), dim=1)
        loss = speaker.loss(vectors, [e.prompt for e in drawn], [e.form for e in drawn])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, settings.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % TICK == 0:
            progress.line(log, "step %d/%d: loss %.3f", step, settings.steps, np.mean(losses[-TICK:]))
    found = float(np.mean(losses[-max(1, settings.steps // 10) :]))
    if not np.isfinite(found):
        raise InputRefused("the decoder's loss is no number", where="--train-decoder", do="lower its learning rate")
    return found
