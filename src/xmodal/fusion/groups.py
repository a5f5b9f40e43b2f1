"""Which cells are alike, for models that learn from it: what training cells are called, or clusters of them.

Only used in training: nothing of it is kept in a checkpoint, and new cells need no label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xmodal import fields
from xmodal.models.layers import drawn
from xmodal.models.parts.projections import project

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Labels

PLACES = 15  # dimensions in which clusters are found
MOST_CELLS = 10_000
CHUNK = 512


def kinship(labels: Labels, alpha: float) -> Tensor:
    """How far cells of each two classes are to be alike, alpha^distance, (classes, classes); 1 for those of one class.

    Distances are edges of the ontology; classes without a term have none, and are like themselves only.
    """
    count = len(labels.classes)
    found = torch.eye(count)
    if labels.distances:
        steps = torch.tensor(labels.distances)
        found = torch.where(steps >= 0, alpha ** steps.clamp(min=0).float(), found)
    return found.fill_diagonal_(1.0)


def kin_of_labels(batch: Batch, kinship: Tensor) -> Tensor:
    """``kinship`` of each two cells of the batch, (cells, cells); a cell without a label is like itself only."""
    code = batch.extra[fields.LABEL_CODE].long()
    known = code >= 0
    rows = kinship.to(code.device)[code.clamp(min=0)]
    found = rows[:, code.clamp(min=0)] * (known[:, None] & known[None])
    return found.fill_diagonal_(1.0)


class Clusters:
    """k-means of the training cells in the leading coordinates of all modalities; new cells get the nearest centre."""

    def __init__(self, cells: Cells, count: int) -> None:
        from sklearn.cluster import KMeans

        self.places = {}
        some = cells.subset(drawn(len(cells), 1, MOST_CELLS))
        for m in cells.vocabulary:
            measured = cells.having(m)
            if len(measured):
                self.places[m] = project(cells.vocabulary[m], PLACES)
                self.places[m].prepare(measured)
        place = torch.cat([self.place(some.batch(slice(i, i + CHUNK))) for i in range(0, len(some), CHUNK)]).numpy()
        many = min(count, len(np.unique(place, axis=0)))
        found = KMeans(many, n_init=1, random_state=0).fit(place.astype(np.float64)).cluster_centers_
        self.centres = torch.from_numpy(found.astype(np.float32))

    @torch.no_grad()
    def place(self, batch: Batch) -> Tensor:
        """Coordinates of all modalities side by side, zeros for one that a cell lacks, (cells, dimensions)."""
        each = []
        for m, projection in self.places.items():
            each.append(projection(batch) * batch.present[m][:, None])
        return torch.cat(each, 1)

    def kin(self, batch: Batch) -> Tensor:
        """Which cells of the batch are of one cluster, (cells, cells), 1 or 0."""
        device = next(iter(batch.present.values())).device
        for projection in self.places.values():
            projection.to(device)
        centres = self.centres.to(device)
        code = torch.cdist(self.place(batch), centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        return (code[:, None] == code[None]).float()
