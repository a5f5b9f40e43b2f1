"""How much each part of an ensemble deserves: weights that are not negative, chosen on held-out cells."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
PRIOR_CELLS = 100.0  # the weights before any cell was seen count as much as so many cells
FLOOR = 1e-3  # of the mean variance; features that hardly vary would count beyond measure


@dataclass
class Stacking:
    """Weights of deviations from the mean, by stacked regression (Breiman 1996): min sum_j |y_j - sum_c w_c x_cj|^2 / var_j, w >= 0.

    Added up chunk by chunk.  Every feature counts the same, as in the mean of per-feature correlations.
    """

    variance: npt.NDArray[np.float64]  # (features,) of the truth
    parts: int
    gram: npt.NDArray[np.float64] = field(init=False)
    with_truth: npt.NDArray[np.float64] = field(init=False)
    cells: int = 0

    def __post_init__(self) -> None:
        self.variance = np.maximum(self.variance, FLOOR * max(float(self.variance.mean()), 1e-9))
        self.gram, self.with_truth = np.zeros((self.parts, self.parts)), np.zeros(self.parts)

    def add(self, deviations: list[Array], true: Array) -> None:
        """``deviations`` of each part from the mean and of the truth from it, (cells, features) each."""
        scaled = [(d / np.sqrt(self.variance)).ravel() for d in deviations]
        y = (true / np.sqrt(self.variance)).ravel()
        for i, a in enumerate(scaled):
            self.with_truth[i] += float(a @ y)
            for j in range(i + 1):
                self.gram[i, j] = self.gram[j, i] = self.gram[i, j] + float(a @ scaled[j])
        self.cells += len(true)

    def weights(self, before: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(parts,); drawn to ``before`` as if that had been seen in PRIOR_CELLS cells."""
        from scipy.optimize import nnls

        pull = np.trace(self.gram) / self.parts * PRIOR_CELLS / max(self.cells, 1)
        gram = self.gram + pull * np.eye(self.parts) + 1e-12 * np.eye(self.parts)
        root = np.linalg.cholesky(gram)
        solved: npt.NDArray[np.float64] = nnls(root.T, np.linalg.solve(root, self.with_truth + pull * before))[0]
        return solved
