"""The first form of the score, kept for checkpoints that were written before the present one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[np.float32]
CHUNK = 1_024
LIMIT = 2.0  # of the present score; a cell at the first form's own limit gets it


@dataclass(frozen=True)
class FirstNovelty:
    """Group profiles (groups, features) of the training cells and the ``limit`` of the z-score below which cells are unlike."""

    profiles: Array
    spread: Array  # (features,); of values, empty for counts
    limit: float

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """As they stand in the checkpoint."""
        return {"profiles": self.profiles, "spread": self.spread, "limit": np.array([self.limit], np.float32)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> FirstNovelty:
        return cls(tensors["profiles"], tensors["spread"], float(tensors["limit"][0]))

    def scores(self, x: sp.csr_matrix, lost: tuple[int, ...] = ()) -> Array:
        """Score of each cell, (cells,), unlike above LIMIT; nan where a cell has no counts.  ``lost`` is not used."""
        parts = [LIMIT + self.limit - self._chunk(x[i : i + CHUNK]) for i in range(0, x.shape[0], CHUNK)]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)

    def _chunk(self, x: sp.csr_matrix) -> Array:
        """How probable the counts are under the best group, a z-score; of values minus the squared distance to the nearest."""
        if len(self.spread):
            standard = x.toarray() / self.spread
            centres = self.profiles / self.spread
            distance = (standard**2).sum(1)[:, None] - 2 * standard @ centres.T + (centres**2).sum(1)
            return -distance.min(1).astype(np.float32)
        log_p = np.log(self.profiles)
        expected = (self.profiles * log_p).sum(1)
        variance = (self.profiles * (log_p - expected[:, None]) ** 2).sum(1)
        total = np.asarray(x.sum(1)).ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray(x @ log_p.T) / total[:, None]  # (cells, groups)
            z = (mean - expected) / np.sqrt(variance / total[:, None])
            best = mean.argmax(1)
        return z[np.arange(len(z)), best].astype(np.float32)
