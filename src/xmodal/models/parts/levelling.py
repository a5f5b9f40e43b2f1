"""Depth and batch taken out of a cell's place in closed form: within groups of like cells, what moves with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS, CELLS_OF_GROUP = 30, 30  # k-means groups at most, cells of one on average at least
FEWEST = 4 * CELLS_OF_GROUP  # cells below which nothing is taken out
RIDGE = 15.0  # cells' worth of evidence against any slope
FARTHEST = 3.0  # standard deviations of the log depth, beyond which slopes are not followed
POWERS = 2


class Levelled(nn.Module):
    """Places (cells, width), rows of length 1, less what depth and batch tell of them within the group of the cell.

    Ridge of the place on the log depth, its square and the batch, in each k-means group of the training cells.  Over all cells
    depth is state as well (large cells have more RNA); within a group it is not, so states stay.  Where depth moves cells more
    than their states do, the groups themselves follow it, and much of it stays.
    Mouse cortex: R2 of the log depth within types .12 before, .01 after, by trees; types by 15 neighbours as before.
    """

    def __init__(self, width: int, batches: int, groups: int = GROUPS) -> None:
        super().__init__()
        self.batches = batches
        columns = POWERS + batches
        self.register_buffer("depth", torch.tensor([0.0, 1.0]))  # mean and spread of the log depth
        self.register_buffer("centres", torch.zeros(groups, width))
        self.register_buffer("means", torch.zeros(groups, columns))
        self.register_buffer("slopes", torch.zeros(groups, columns, width))

    def forward(self, place: Tensor, log_depth: Tensor, batch: Tensor) -> Tensor:
        """``log_depth``: (cells,); ``batch``: (cells, batches), as the decoders take it.  A place of zeros stays one."""
        group = torch.cdist(place, self.get_buffer("centres"), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        rest = self._columns(log_depth, batch) - self.get_buffer("means")[group]
        told = (rest[:, None] @ self.get_buffer("slopes")[group])[:, 0]
        measured = place.square().sum(1, keepdim=True) > 0
        return F.normalize((place - told) * measured, dim=1)

    def _columns(self, log_depth: Tensor, batch: Tensor) -> Tensor:
        centre, spread = self.get_buffer("depth")
        depth = ((log_depth - centre) / spread).clamp(-FARTHEST, FARTHEST)
        return torch.cat([torch.stack([depth, depth.square()], 1), batch], 1)

    @torch.no_grad()
    def prepare(self, place: Tensor, log_depth: Tensor, batch: Tensor) -> None:
        """Groups and slopes of the training cells; shapes as for :meth:`forward`."""
        from sklearn.cluster import KMeans

        if len(place) < FEWEST:
            return
        self.get_buffer("depth").copy_(torch.stack([log_depth.mean(), log_depth.std().clamp(min=1e-3)]))
        columns, wide = self._columns(log_depth, batch).double(), place.double()
        many = min(len(self.get_buffer("centres")), len(place) // CELLS_OF_GROUP)
        found = KMeans(many, n_init=1, random_state=0).fit(wide.numpy())
        self.get_buffer("centres").fill_(1e3)  # nobody's
        penalty = RIDGE * torch.eye(columns.shape[1], dtype=torch.float64)
        for g in range(many):
            mine = torch.from_numpy(found.labels_ == g)
            x, y = columns[mine], wide[mine]
            x, mean = x - x.mean(0), x.mean(0)
            slopes = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - y.mean(0)))
            self.get_buffer("centres")[g] = torch.from_numpy(found.cluster_centers_[g]).float()
            self.get_buffer("means")[g], self.get_buffer("slopes")[g] = mean.float(), slopes.float()
