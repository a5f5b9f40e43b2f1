"""How much each part of an ensemble deserves: weights that are not negative, chosen on held-out cells."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
PRIOR_CELLS = 5_000.0  # the weights before any cell was seen count as much: one validation batch is not all batches
FLOOR = 1e-3  # of the mean variance; features that hardly vary would count beyond measure


@dataclass
class Stacking:
    """Weights of the parts' deviations from the mean, by stacked regression (Breiman 1996).

    Minimises sum_j |y_j - a_j - sum_c w_c x_cj|^2 / var_j over w >= 0 and intercepts a_j of each feature: every feature counts
    the same, as in the mean of per-feature correlations, and a batch that is deeper as a whole does not change the weights.
    Added up chunk by chunk.
    """

    variance: Floats  # (features,) of the truth
    parts: int
    gram: Floats = field(init=False)
    with_truth: Floats = field(init=False)
    sums: Floats = field(init=False)  # (parts + truth, features), scaled
    cells: int = 0

    def __post_init__(self) -> None:
        self.variance = np.maximum(self.variance, FLOOR * max(float(self.variance.mean()), 1e-9))
        self.gram, self.with_truth = np.zeros((self.parts, self.parts)), np.zeros(self.parts)
        self.sums = np.zeros((self.parts + 1, len(self.variance)))

    def add(self, deviations: list[Array], true: Array) -> None:
        """``deviations`` of each part from the mean and of the truth from it, (cells, features) each."""
        scale = (1 / np.sqrt(self.variance)).astype(np.float32)
        scaled = [d * scale for d in [*deviations, true]]
        for i, a in enumerate(scaled):
            self.sums[i] += a.sum(0, dtype=np.float64)
        y = scaled[-1].ravel()
        for i, a in enumerate(scaled[:-1]):
            self.with_truth[i] += float(a.ravel() @ y)
            for j in range(i + 1):
                self.gram[i, j] = self.gram[j, i] = self.gram[i, j] + float(a.ravel() @ scaled[j].ravel())
        self.cells += len(true)

    def centred(self) -> tuple[Floats, Floats]:
        """Products of the parts with each other and with the truth, intercepts taken out."""
        between = self.sums @ self.sums.T / max(self.cells, 1)
        return self.gram - between[:-1, :-1], self.with_truth - between[:-1, -1]

    def explained(self) -> float:
        """What one part explains after the best scaling; the larger the better, nothing where it is not positive."""
        gram, with_truth = self.centred()
        return float(with_truth[0] / np.sqrt(max(gram[0, 0], 1e-12)))

    def weights(self, before: Floats, prior_cells: float | None = None) -> Floats:
        """(parts,); drawn to ``before`` as if that had been seen in ``prior_cells`` cells (``PRIOR_CELLS``)."""
        from scipy.optimize import nnls

        gram, with_truth = self.centred()
        prior_cells = PRIOR_CELLS if prior_cells is None else prior_cells
        pull = max(float(np.trace(gram)), 1e-9) / self.parts * prior_cells / max(self.cells, 1)
        root = np.linalg.cholesky(gram + pull * np.eye(self.parts))
        solved: Floats = nnls(root.T, np.linalg.solve(root, with_truth + pull * before))[0]
        return solved
