"""Are these cells like the ones the model was trained on?  A score for each cell and a verdict on the file.

Count modalities: how probable the cell's counts are under the training group that explains them best, as a z-score that
accounts for depth (the mean log probability of n draws has a known expectation and variance under the group's profile).
Values: the squared distance to the nearest group, in the spreads of the groups.  Both are compared with the training cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.errors import InputRefused

Array = npt.NDArray[np.float32]
GROUPS = 12  # enough for the main cell types; each group mean rests on at least MIN_GROUP cells
MIN_GROUP = 20
SAMPLE = 5_000
QUANTILE = 0.01  # a cell is unlike the training cells below this quantile of their scores
REFUSE = 0.5  # share of unlike cells above which the file is refused
WARN = 0.1
CHUNK = 1_024


@dataclass(frozen=True)
class Novelty:
    """Group profiles (groups, features) of the training cells and the ``limit`` below which a score is unlike them."""

    profiles: Array
    spread: Array  # (features,); of values, empty for counts
    limit: float

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"profiles": self.profiles, "spread": self.spread, "limit": np.array([self.limit], np.float32)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> Novelty:
        return cls(tensors["profiles"], tensors["spread"], float(tensors["limit"][0]))

    def scores(self, x: sp.csr_matrix) -> Array:
        """Score of each cell, (cells,); low is unlike the training cells; nan where a cell has no counts."""
        parts = [self._chunk(x[i : i + CHUNK]) for i in range(0, x.shape[0], CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _chunk(self, x: sp.csr_matrix) -> Array:
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


def fit(counts: sp.csr_matrix, likelihood: str, seed: int = 0) -> Novelty | None:
    """Learn what the training cells of one modality look like; None below MIN_GROUP cells."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD

    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(counts.shape[0], min(SAMPLE, counts.shape[0]), replace=False))
    x = _as_counts(counts[rows], likelihood)
    if x.shape[0] < MIN_GROUP:
        return None
    reduced = TruncatedSVD(min(20, x.shape[0] - 1, x.shape[1] - 1), random_state=seed).fit_transform(_logged(x))
    found = MiniBatchKMeans(min(GROUPS, x.shape[0] // MIN_GROUP), random_state=seed, n_init=3).fit_predict(reduced)
    groups = [found == g for g in np.unique(found) if (found == g).sum() >= MIN_GROUP] or [np.ones(len(found), bool)]
    if likelihood == fields.GAUSSIAN:
        profiles = np.stack([np.asarray(x[g].mean(0)).ravel() for g in groups]).astype(np.float32)
        spread = np.maximum(x.toarray().std(0), 1e-3).astype(np.float32)
    else:
        profiles = np.stack([_share(x[g]) for g in groups])
        spread = np.zeros(0, np.float32)
    scores = Novelty(profiles, spread, 0.0).scores(x)
    scores = scores[np.isfinite(scores)]
    limit = float(np.quantile(scores, QUANTILE)) if len(scores) else -np.inf
    # The groups were fitted to these cells and new batches vary more: allow half the distance from median to limit on top.
    return Novelty(profiles, spread, limit - 0.5 * abs(float(np.median(scores)) - limit) if len(scores) else limit)


def verdict(known: Novelty, counts: sp.csr_matrix, likelihood: str) -> dict[str, Any]:
    """``unlike``: share of cells below the limit; ``median``, ``limit``: scores; ``level``: fine, warning or refused."""
    scores = known.scores(_as_counts(counts, likelihood))
    scores = scores[np.isfinite(scores)]
    unlike = float((scores < known.limit).mean()) if len(scores) else 0.0
    level = "refused" if unlike > REFUSE else "warning" if unlike > WARN else "fine"
    median = round(float(np.median(scores)), 3) if len(scores) else None
    return {"unlike": round(unlike, 4), "median": median, "limit": round(known.limit, 3), "level": level}


def require(name: str, found: dict[str, Any], force: bool) -> None:
    """Refuse a file most of whose cells are unlike the training cells, unless ``force``."""
    if found["level"] == "refused" and not force:
        raise InputRefused(
            f"{found['unlike']:.0%} of the cells are unlike the training cells in {name} (median score {found['median']}, "
            f"limit {found['limit']}): another tissue, species, assay or scale?",
            do="use a checkpoint trained on such cells, or go on with --force",
        )


def _as_counts(counts: sp.csr_matrix, likelihood: str) -> sp.csr_matrix:
    if likelihood == fields.BERNOULLI:
        return sp.csr_matrix((counts > 0).astype(np.float32))
    return sp.csr_matrix(counts, dtype=np.float32)


def _logged(x: sp.csr_matrix) -> sp.csr_matrix:
    total = np.maximum(np.abs(np.asarray(x.sum(1))).ravel(), 1e-9)
    scaled = (sp.diags(1e4 / total) @ x).tocsr()
    scaled.data = np.sign(scaled.data) * np.log1p(np.abs(scaled.data))
    return scaled


def _share(x: sp.csr_matrix) -> Array:
    """Expected share of counts of each feature, smoothed so that none is impossible."""
    total = np.asarray(x.sum(0), dtype=np.float64).ravel()
    smooth = total + 0.05 * max(total.sum(), 1) / len(total)
    return (smooth / smooth.sum()).astype(np.float32)
