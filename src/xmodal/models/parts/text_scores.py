"""How alike two types are by what is written of them, and from there where a type lies that no cell was seen of.

The closed-form part: a kernel over types, kernel ridge regression (a Gaussian process' mean) from it to where types lie among
cells, scores by distance, and what is chosen by leaving out types or on validation cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from xmodal.text.bank import TextBank

NOISE = 0.3  # of the kernel ridge; .1 to 1 were measured to be alike
DEFINITION = "definition"  # the view of the texts that is compared
SHARP = 2.0  # scores by distance are multiplied with it before they are a softmax
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Kernel:
    """Likeness of terms: the mean of the cosine of their texts and that of their ancestors.

    An ancestor counts by its information content, the negative log of the share of all terms below it (Resnik 1995): that two
    types are both cells says nothing.
    """

    texts: Tensor  # (terms, width), rows of length 1
    lines: Tensor  # (terms, ids of the bank), rows of length 1

    @classmethod
    def of(cls, bank: TextBank, terms: Sequence[str]) -> Kernel:
        above = torch.from_numpy(bank.ancestor_matrix(terms))
        content = torch.from_numpy(information(bank)).float().sqrt()
        texts = torch.from_numpy(bank.embeddings[DEFINITION][bank.rows(terms)])
        return cls(F.normalize(texts, dim=1), F.normalize(above * content, dim=1))

    def like(self, other: Kernel) -> Tensor:
        """(terms, terms of the other)."""
        return (self.texts @ other.texts.T + self.lines @ other.lines.T) / 2

    def targets(self, kin: float) -> Tensor:
        """What a cell of each type is to be called, (types, types), rows summing to one.

        A share ``kin`` goes to the other types, by the ancestors they share with it: an ancestor that is a type itself gets most.
        """
        other = (self.lines @ self.lines.T).square().fill_diagonal_(0)
        other = other + 1e-3 * (1 - torch.eye(len(other)))
        return (1 - kin) * torch.eye(len(other)) + kin * other / other.sum(1, keepdim=True).clamp(min=1e-9)


def information(bank: TextBank) -> Floats:
    """Information content of each id of the bank, (ids,)."""
    count = np.zeros(len(bank.ids))
    for start in range(0, len(bank.ids), 512):
        count += bank.ancestor_matrix(bank.ids[start : start + 512]).sum(0)
    return np.log(len(bank.ids) / np.maximum(count, 1))


def predicted(among: Tensor, towards: Tensor, centres: Tensor) -> Tensor:
    """Kernel ridge regression: centres of types that have none, (new, width).

    ``among`` (known, known) and ``towards`` (new, known): likeness; ``centres`` (known, width).
    """
    middle = centres.mean(0)
    ridge = among + NOISE * torch.eye(len(among), device=among.device)
    return middle + towards @ torch.linalg.solve(ridge, centres - middle)


def nearness(place: Tensor, centres: Tensor, typical: Tensor) -> Tensor:
    """Minus half the squared distance of cells (cells, width) to ``centres``, in units of the usual one, (cells, centres)."""
    square = place.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * place @ centres.T
    return -0.5 * square / typical


# What is chosen


@dataclass(frozen=True)
class Course:
    """What a penalty on the types seen does: by rising ``penalty``, the share of cells of seen and of unseen types that are
    called what they are, each the mean over types.
    """

    penalty: Floats
    seen: Floats
    unseen: Floats

    @classmethod
    def of(cls, scores: Floats, codes: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]) -> Course:
        """``scores`` (cells, types), ``codes`` (cells,), ``seen`` (types,): which types were trained on."""
        own = np.where(seen, scores, -np.inf)
        other = np.where(seen, -np.inf, scores)
        ahead = own.max(1) - other.max(1)  # such a cell is called unseen once the penalty reaches this
        weight = np.zeros(len(codes))
        for code in (present := np.unique(codes)):
            weight[codes == code] = 1 / (codes == code).sum() / (seen[present] == seen[code]).sum()
        right_own = weight * (seen[codes] & (own.argmax(1) == codes))
        right_other = weight * (~seen[codes] & (other.argmax(1) == codes))
        order = np.argsort(ahead, kind="stable")
        lost, won = np.cumsum(right_own[order]), np.cumsum(right_other[order])
        return cls(np.r_[-np.inf, ahead[order]], right_own.sum() - np.r_[0.0, lost], np.r_[0.0, won])

    def at(self, penalty: float) -> tuple[float, float]:
        """Shares of (seen, unseen) types' cells called right with this penalty."""
        i = int(np.searchsorted(self.penalty, penalty, side="right")) - 1
        return float(self.seen[i]), float(self.unseen[i])

    @property
    def area(self) -> float:
        """Area under unseen over seen (Chao et al. 2016, "generalized zero-shot learning in the wild")."""
        return float(abs(np.trapezoid(self.unseen, self.seen)))


def harmonic(seen: float, unseen: float) -> float:
    return 2 * seen * unseen / max(seen + unseen, 1e-9)


def best_penalty(courses: Sequence[Course]) -> float:
    """The penalty with the best mean harmonic mean over the courses."""
    every = np.concatenate([c.penalty[1:] for c in courses])
    grid = np.quantile(every, np.linspace(0.01, 0.99, 99))
    worth = [np.mean([harmonic(*c.at(p)) for c in courses]) for p in grid]
    return float(grid[int(np.argmax(worth))])


def temperature(logits: Tensor, codes: Tensor) -> float:
    """What logits (cells, types) are divided by so that their softmax is calibrated (Guo et al. 2017), on a grid."""
    grid = torch.logspace(-1, 1, 81, dtype=torch.float64)
    losses = [float(F.cross_entropy(logits.double() / t, codes)) for t in grid]
    return float(grid[int(np.argmin(losses))])


def slope(ahead: Floats, seen: npt.NDArray[np.bool_], weight: Floats) -> float:
    """Factor that makes ``ahead`` (cells,) log odds of being of a seen type, by likelihood on a grid."""
    sign = np.where(seen, ahead, -ahead)
    grid = np.logspace(-1, 1.5, 51)
    losses = [float((weight * np.logaddexp(0, -sign * g)).sum()) for g in grid]
    return float(grid[int(np.argmin(losses))])
