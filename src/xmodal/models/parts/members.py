"""An ensemble of small networks, computed together, of which groups are taught without some of the types.

Why an ensemble: it tells better than one network does, and what its members do not agree on they have not seen (Lakshminarayanan,
Pritzel & Blundell 2017).  Why groups that lack types: to them these types are new, so what is to be chosen for types that nobody
has seen is chosen in one training, on training cells.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ABSENT = -30.0  # logit of a type that a member was not taught


class Members(nn.Module):
    """``groups`` times ``each`` networks of one hidden layer: (cells, inputs) -> hidden (members, cells, hidden) and logits.

    The first group is taught all types, group i all but those of fold i - 1.
    """

    def __init__(self, shape: tuple[int, int, int], groups: int, each: int, dropout: float) -> None:
        super().__init__()
        inputs, hidden, types = shape
        self.groups, self.each, self.width = groups, each, each * hidden
        members = groups * each
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Parameter(_uniform(members, inputs, hidden))
        self.first_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.gain = nn.Parameter(torch.ones(members, 1, hidden))
        self.shift = nn.Parameter(torch.zeros(members, 1, hidden))
        self.second = nn.Parameter(_uniform(members, hidden, types))
        self.second_bias = nn.Parameter(torch.zeros(members, 1, types))
        self.register_buffer("known", torch.ones(groups, types, dtype=torch.bool))  # which types a group is taught

    @torch.no_grad()
    def leave_out(self, fold: Tensor, there: Tensor) -> None:
        """``fold`` (types,): the group's number less one that is not taught it; ``there`` (types,): has it any cells?"""
        known = there.expand(self.groups, -1).clone()
        for group in range(1, self.groups):
            known[group] &= fold != group - 1
        self.get_buffer("known").copy_(known)

    def hidden(self, x: Tensor, group: int | None = None) -> Tensor:
        """(members, cells, hidden), of one group or of all."""
        some = self._of(group)
        out = torch.baddbmm(self.first_bias[some], x.expand(len(self.first[some]), -1, -1), self.first[some])
        out = F.layer_norm(out, out.shape[-1:]) * self.gain[some] + self.shift[some]
        return F.gelu(out)

    def logits(self, hidden: Tensor, group: int | None = None) -> Tensor:
        """(members, cells, types); types that a member was not taught stand at :data:`ABSENT`."""
        some = self._of(group)
        out = torch.baddbmm(self.second_bias[some], self.dropout(hidden), self.second[some])
        return out.masked_fill(~self.taught[some][:, None, :], ABSENT)

    def _of(self, group: int | None) -> slice:
        return slice(None) if group is None else slice(group * self.each, (group + 1) * self.each)

    @property
    def taught(self) -> Tensor:
        """(members, types)."""
        return self.get_buffer("known").repeat_interleave(self.each, 0)

    def place(self, x: Tensor, group: int = 0) -> Tensor:
        """What the members of a group make of cells, side by side, (cells, width)."""
        return side_by_side(self.hidden(x, group))

    def loss(self, logits: Tensor, codes: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over the cells that a member may learn from and over members, a scalar.

        ``codes`` (cells,): types; ``targets`` (types, types): share of each type in what a cell of that type is to be called.
        """
        taught = self.taught
        wanted = targets[codes][None] * taught[:, None, :]  # (members, cells, types)
        wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1e-6)
        able = taught[:, codes].float()  # (members, cells)
        each = -(wanted * F.log_softmax(logits, -1)).sum(-1)
        return ((each * able).sum(1) / able.sum(1).clamp(min=1)).mean()


def side_by_side(hidden: Tensor) -> Tensor:
    """(members, cells, hidden) -> (cells, members x hidden)."""
    return hidden.transpose(0, 1).flatten(1)


def _uniform(members: int, inputs: int, outputs: int) -> Tensor:
    """As torch begins its linear layers."""
    return (torch.rand(members, inputs, outputs) * 2 - 1) / math.sqrt(inputs)
