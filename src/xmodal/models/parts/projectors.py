"""Learned ways between texts and cells; kernel ridge regression (:mod:`text_scores`) is what they have to beat.

The queries of :class:`QFormer` are those of BLIP-2 (Li et al. 2023), which scMMGPT uses both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.models.parts.perceiver import feed_forward

if TYPE_CHECKING:
    from xmodal.text.bank import TextBank

QUERIES, LAYERS, HEADS, WIDTH = 16, 2, 4, 128
ANCESTORS = 6  # of a term that are among its tokens, the nearest first
PAIRED = 64  # dimensions in which a cell and a text are matched
HARD = 0.1  # temperature of the likeness by which wrong texts are drawn: the most alike are drawn most often
RIDGE, MLP, QFORMER = "ridge", "mlp", "qformer"


def tokens_of(bank: TextBank, terms: Sequence[str]) -> Tensor:
    """What a projector reads of terms, (terms, tokens, width): their views, then the names of ancestors, zeros for none."""
    from xmodal.text.bank import NAME, VIEWS

    out = np.zeros((len(terms), len(VIEWS) + ANCESTORS, bank.width), np.float32)
    for v, view in enumerate(VIEWS):
        out[:, v] = bank.embeddings[view][bank.rows(terms)]
    for i, term in enumerate(terms):
        above = sorted(bank.ontology.ancestors(term), key=lambda t: (-bank.ontology.depth(t), t))[:ANCESTORS]
        out[i, len(VIEWS) : len(VIEWS) + len(above)] = bank.embeddings[NAME][bank.rows(above)]
    return torch.from_numpy(out)


def projector(kind: str, inputs: int, outputs: int) -> nn.Module | None:
    """Texts (terms, tokens, inputs) to where cells lie (terms, outputs); None for ridge, which is not learned."""
    if kind == RIDGE:
        return None
    return QFormer(inputs, outputs) if kind == QFORMER else Views(inputs, outputs)


class Views(nn.Module):
    """A hidden layer over the mean of a term's tokens."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        there = tokens.abs().sum(-1, keepdim=True) > 0
        found: Tensor = self.body(tokens.sum(1) / there.sum(1).clamp(min=1))
        return found


class QFormer(nn.Module):
    """Learned queries that attend to each other and to the tokens."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH) * 0.02)
        self.inputs = nn.Linear(inputs, WIDTH)
        self.layers = nn.ModuleList(QFormerLayer() for _ in range(LAYERS))
        self.after = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        nothing = tokens.abs().sum(-1) == 0  # (terms, tokens)
        read = self.inputs(tokens)
        x = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, read, nothing)
        found: Tensor = self.after(x.mean(1))
        return found


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each normalised before it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.other = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.forward_layer = feed_forward(WIDTH)

    def forward(self, x: Tensor, read: Tensor, nothing: Tensor) -> Tensor:
        normal = self.before(x)
        x = x + self.own(normal, normal, normal, need_weights=False)[0]
        x = x + self.other(self.between(x), read, read, key_padding_mask=nothing, need_weights=False)[0]
        return x + self.forward_layer(x)


class Matching(nn.Module):
    """Is this text that cell's?  With a wrong text for each cell, drawn by how like the right one it is."""

    def __init__(self, cell: int, text: int) -> None:
        super().__init__()
        self.cell, self.text = nn.Linear(cell, PAIRED), nn.Linear(text, PAIRED)
        self.bias = nn.Parameter(torch.zeros(()))

    def loss(self, place: Tensor, codes: Tensor, texts: Tensor, likeness: Tensor) -> Tensor:
        """Binary cross-entropy, a scalar; ``place`` (cells, cell), ``texts`` (types, text), ``likeness`` (types, types)."""
        odds = (likeness / HARD).softmax(1).fill_diagonal_(0) + 1e-9
        wrong = torch.multinomial(odds[codes], 1)[:, 0] if self.training else odds.argmax(1)[codes]
        cell, text = self.cell(place), self.text(texts)
        right = (cell * text[codes]).mean(1) + self.bias
        false = (cell * text[wrong]).mean(1) + self.bias
        return (F.softplus(-right) + F.softplus(false)).mean() / 2


class Captioning(nn.Module):
    """The text's vector from the cell: what a caption would say, without its words."""

    def __init__(self, cell: int, text: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(cell, WIDTH), nn.GELU(), nn.Linear(WIDTH, text))

    def loss(self, place: Tensor, codes: Tensor, texts: Tensor) -> Tensor:
        """One less the cosine with the right text, a scalar."""
        return (1 - F.cosine_similarity(self.body(place), texts[codes], dim=1)).mean()
