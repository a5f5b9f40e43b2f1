"""Where the types lie among cells, as one group of members sees them, and how far a cell is from all of them.

Centres are means over cells of a type; a type of fewer than 20 cells is drawn to where its text puts it, so that a checkpoint
holds no mean of fewer (the text stands in for the cells that are missing).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.models.parts.text_scores import nearness, predicted

LEAST_CELLS = 20
SPHERE = 0.3  # .1 to .5 were measured to be alike, 1 (no covariance) to be worse
LEAST = 1e-4  # added where a logarithm is taken of what may be zero
SIGNALS = ("agreement", "energy", "nearness", "completeness")  # that a cell is of a type trained on


class WithinTypes(nn.Module):
    """Cells brought to where those of one type spread alike in all directions, so that distances are Mahalanobis'.

    One covariance for all types, drawn to a sphere by :data:`SPHERE`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("turned", torch.eye(width))

    @torch.no_grad()
    def fit(self, place: Tensor, codes: Tensor) -> WithinTypes:
        """``place`` (cells, width), ``codes`` (cells,) of types."""
        place = place.double()
        size = torch.bincount(codes)
        sums = place.new_zeros(len(size), place.shape[1]).index_add_(0, codes, place)
        own = place - (sums / size.clamp(min=1)[:, None])[codes]
        spread = own.T @ own / len(own)
        even = torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
        usual = (spread.trace() / len(spread)).clamp(min=1e-12)
        root = torch.linalg.cholesky((1 - SPHERE) * spread + SPHERE * usual * even)
        self.get_buffer("turned").copy_(torch.linalg.solve_triangular(root, even, upper=False).T)
        return self

    def forward(self, place: Tensor) -> Tensor:
        """(cells, width) -> (cells, width)."""
        return place @ self.get_buffer("turned")


class TypePlaces(nn.Module):
    """Centres of ``types`` in ``width`` dimensions."""

    def __init__(self, types: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("centres", torch.zeros(types, width))
        self.register_buffer("typical", torch.ones(types))  # squared distance of a type's cells to its centre, median
        self.register_buffer("usual", torch.ones(()))  # over all types
        self.register_buffer("known", torch.zeros(types, dtype=torch.bool))

    @torch.no_grad()
    def fit(self, place: Tensor, codes: Tensor, likeness: Tensor) -> TypePlaces:
        """``place`` (cells, width), ``codes`` (cells,) of types, ``likeness`` (types, types) by their texts."""
        self.get_buffer("mean").copy_(place.mean(0))
        self.get_buffer("scale").copy_(place.std().clamp(min=1e-6))
        at = self.standard(place)
        size = torch.bincount(codes, minlength=len(likeness))
        known = size > 0
        sums = torch.zeros_like(self.get_buffer("centres")).index_add_(0, codes, at)
        centres = sums / size.clamp(min=1)[:, None]
        self.get_buffer("known").copy_(known)
        self.get_buffer("centres").copy_(_drawn(centres, size, known, likeness))
        own = (at - self.get_buffer("centres")[codes]).square().sum(1)
        self.get_buffer("usual").copy_(own.median())
        for code in known.nonzero().ravel():
            mine = own[codes == code]
            share = min(1.0, len(mine) / LEAST_CELLS)  # few cells lie near their own mean
            self.get_buffer("typical")[code] = share * mine.median() + (1 - share) * own.median()
        return self

    def standard(self, place: Tensor) -> Tensor:
        """Mean 0 and, over all dimensions, spread 1."""
        return (place - self.get_buffer("mean")) / self.get_buffer("scale")

    def nearness(self, at: Tensor, centres: Tensor | None = None) -> Tensor:
        """``at`` (cells, width), standardised, to the types' centres or to others, (cells, centres)."""
        return nearness(at, self.get_buffer("centres") if centres is None else centres, self.get_buffer("usual"))

    def beyond(self, towards: Tensor, likeness: Tensor) -> Tensor:
        """Centres of types without cells; ``towards`` (new, types) and ``likeness`` (types, types), by texts."""
        known = self.get_buffer("known")
        return predicted(likeness[known][:, known], towards[:, known], self.get_buffer("centres")[known])

    def signals(self, at: Tensor, logits: Tensor, leftover: Tensor) -> Tensor:
        """What speaks for a cell being of a known type, (cells, signals); ``logits`` (members, cells, types).

        In the order of :data:`SIGNALS`: that the members agree (minus the log of their mutual information); the energy (Liu et
        al. 2020); that it lies as near to a type as that type's cells do; that the components leave no more of it than of others.
        """
        known = self.get_buffer("known")
        each = F.log_softmax(logits[..., known], -1)
        mean = each.exp().mean(0)
        entropy = -(mean * mean.clamp(min=1e-9).log()).sum(-1)
        disagreement = entropy + (each.exp() * each).sum(-1).mean(0)
        energy = logits[..., known].mean(0).logsumexp(-1)
        square = -2 * self.nearness(at)[:, known] * self.get_buffer("usual")
        far = (square / self.get_buffer("typical")[known]).amin(1)
        return torch.stack(
            [-torch.log(disagreement.clamp(min=0) + LEAST), energy, -torch.log(far.clamp(min=LEAST)), -leftover], 1
        )


def _drawn(centres: Tensor, size: Tensor, known: Tensor, likeness: Tensor) -> Tensor:
    """Centres of small types drawn to where the others and the texts put them, as if cells up to 20 lay there."""
    out = centres.clone()
    for code in ((size < LEAST_CELLS) & known).nonzero().ravel():
        others = known.clone()
        others[code] = False
        if int(others.sum()) < 2:
            continue
        text = predicted(likeness[others][:, others], likeness[code, others][None], centres[others])[0]
        share = size[code] / LEAST_CELLS
        out[code] = share * centres[code] + (1 - share) * text
    return out
