"""The linear part beside a network, and how much each is worth: chosen on cells that neither was fitted to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from xmodal import fields
from xmodal.models.depth import to_probability
from xmodal.models.linear import Linear, LinearSettings
from xmodal.models.mean import column_means
from xmodal.models.parts.blending import Stacking
from xmodal.models.parts.sparse import sparse_values
from xmodal.scores.metrics import Matrix, feature_pearson

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmodal.data.batches import Batch, Cells
    from xmodal.data.vocabulary import Vocabulary

log = logging.getLogger(__name__)
CHUNK = 256
FIRST = (0.5, 0.5)  # weights of network and linear part before a cell was seen ...
PRIOR_CELLS = 100.0  # ... which count as so many cells: there are two weights, not one for each feature


class Blend(nn.Module):
    """mean + a (network - its mean) + b (linear - mean) for each direction, a and b by stacked regression.

    Where the linear part alone tells the held-out cells better, it is taken alone: with few pairs a network has not learned
    yet what a regression already knows.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.linear = Linear(LinearSettings(), vocabulary)
        for m in vocabulary:
            self.register_buffer(f"mean_{m}", torch.zeros(len(vocabulary[m])))
        for s, t in self.linear.directions():
            self.register_buffer(f"weights_{s}_{t}", torch.tensor(FIRST))
            self.register_buffer(f"own_mean_{s}_{t}", torch.zeros(len(vocabulary[t])))

    def prepare(self, cells: Cells) -> None:
        self.linear.prepare(cells)
        for m in self.vocabulary:
            self.get_buffer(f"mean_{m}").copy_(column_means(cells, m))

    def deviations(self, own: Tensor, batch: Batch, source: str, target: str) -> list[Tensor]:
        """Of the network's prediction ``own`` and of the linear one from their means, (cells, features) each."""
        linear = self.linear.predict(batch, source, target) - self.get_buffer(f"mean_{target}")
        return [own - self.get_buffer(f"own_mean_{source}_{target}"), linear]

    def forward(self, own: Tensor, batch: Batch, source: str, target: str) -> Tensor:
        """The prediction on the target's scale, (cells, features of the target)."""
        out = self.get_buffer(f"mean_{target}").expand(len(own), -1)
        weights = self.get_buffer(f"weights_{source}_{target}")
        for weight, part in zip(weights, self.deviations(own, batch, source, target), strict=True):
            out = out + weight * part
        scale = self.vocabulary[target].scale
        if scale == fields.BINARY:
            return to_probability(out)
        return out.clamp(min=0) if scale == fields.LOG_CP10K else out

    @torch.no_grad()
    def centre(self, cells: Cells, source: str, target: str, own: Callable[[Batch], Tensor]) -> None:
        """The mean of the network's predictions ``own`` over ``cells``."""
        total = torch.zeros(len(self.vocabulary[target]), dtype=torch.float64)
        for batch in cells.minibatches(CHUNK):
            total += own(batch).double().sum(0)
        self.get_buffer(f"own_mean_{source}_{target}").copy_(total / max(len(cells), 1))

    @torch.no_grad()
    def weigh(self, held: Cells, source: str, target: str, own: Callable[[Batch], Tensor]) -> None:
        """Choose the weights on ``held`` cells that have both modalities."""
        true = sparse_values(held, target)
        square = true.multiply(true).mean(0) if hasattr(true, "multiply") else np.square(true).mean(0)
        variance = np.asarray(square).ravel() - np.square(np.asarray(true.mean(0)).ravel())
        stack, parts = Stacking(variance.astype(np.float64), 2), []
        mean = self.get_buffer(f"mean_{target}")
        for batch in held.minibatches(CHUNK):
            found = [p.numpy() for p in self.deviations(own(batch), batch, source, target)]
            stack.add(found, (batch.values[target] - mean).numpy())
            parts.append(found)
        weights = stack.weights(np.array(FIRST), PRIOR_CELLS)
        own_part, linear = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
        matrix = Matrix(true)
        both = float(feature_pearson(weights[0] * own_part + weights[1] * linear, matrix).mean())
        alone = float(feature_pearson(linear, matrix).mean())
        if alone >= both:
            weights = np.array([0.0, 1.0])
        log.info("%s -> %s: network %.2f, linear %.2f", source, target, *weights)
        self.get_buffer(f"weights_{source}_{target}").copy_(torch.from_numpy(weights.astype(np.float32)))
