"""Cross-modal attention between tokens of modalities, then self-attention over all of them (Husformer)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.fusion.hiding import Present


@dataclass(frozen=True)
class Shape:
    """Tokens of a modality and their width, heads, layers of either attention, dropout."""

    tokens: int
    width: int
    heads: int
    cross: int
    layers: int
    dropout: float


class Attention(nn.Module):
    """One block: tokens (cells, n, width) attend to ``keys`` (cells, k, width) of which ``seen`` (cells, k) are there.

    What a token finds is multiplied by a gate that the token itself opens, so that products of what two modalities tell need
    one block only, not a wide body behind it.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.rate = shape.heads, shape.dropout
        self.before, self.keys, self.after = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.tell, self.out = (
            nn.Linear(width, 2 * width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.body = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(shape.dropout), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, keys: Tensor, seen: Tensor) -> Tensor:
        asked, gate = self.ask(self.before(tokens)).chunk(2, 2)
        key, value = self.tell(self.keys(keys)).chunk(2, 2)
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (asked, key, value))
        rate = self.rate if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, seen[:, None, None, :], rate)
        tokens = tokens + self.out(found.transpose(1, 2).flatten(2) * (1 + gate))
        return tokens + self.body(self.after(tokens))


class CrossModal(nn.Module):
    """Each modality attends to the tokens of all, then all to all; a missing modality is keys that nobody sees.

    Its own tokens are vectors that are learned, which ask the others: what they come out as is what the others say of it.
    """

    def __init__(self, names: list[str], shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        tokens, width = shape.tokens, shape.width
        self.place = nn.ParameterDict({m: nn.Parameter(0.1 * torch.randn(tokens, width)) for m in names})
        self.low = nn.ModuleDict({m: nn.ModuleList(Attention(shape) for _ in range(shape.cross)) for m in names})
        self.high = nn.ModuleList(Attention(shape) for _ in range(shape.layers))
        self.last = nn.LayerNorm(width)

    def forward(self, states: dict[str, Tensor], present: Present) -> Tensor:
        """``states`` (cells, tokens x width) of each modality; tokens of all, (cells, modalities x tokens, width)."""
        names, shape = list(states), (self.shape.tokens, self.shape.width)
        at = {
            m: self.place[m] + h.reshape(-1, *shape) * present[m][:, None, None].to(h.dtype) for m, h in states.items()
        }
        whole = torch.cat([at[m] for m in names], 1)
        seen = torch.cat([present[m][:, None].expand(-1, shape[0]) for m in names], 1)
        seen = seen | ~seen.any(1, keepdim=True)  # a cell without any modality must attend to something
        for m in names:
            for block in self.low[m]:  # type: ignore[attr-defined]
                at[m] = block(at[m], whole, seen)
        joined = torch.cat([at[m] for m in names], 1)
        for block in self.high:
            joined = block(joined, joined, seen)
        found: Tensor = self.last(joined)
        return found
