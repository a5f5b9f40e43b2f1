"""The order in which an epoch goes over the cells.

Up to ``LARGE`` counts any order is as good: it is drawn over all cells, and where they come from a file they are read once for
all epochs (:mod:`xmodal.data.packed`).  Beyond that a random order would read a file piece by piece many times over, so that
blocks of neighbouring cells are drawn, and the cells of ``WINDOW`` counts, read together, shuffled with each other.  Whether
the counts lie in memory or on disk makes no difference: equal cells and seed give equal batches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Index = npt.NDArray[np.int64]
LARGE = 1 << 27  # 400 MB packed, or 670 where features are over 65,536
WINDOW = 1 << 24  # 50 MB packed, or 80; it holds the cells of 128 blocks
BLOCK = 1 << 17  # counts of neighbouring cells that go together: two pieces of a file or three


def order(entries: Index, generator: torch.Generator) -> Index:
    """All cells in the order of an epoch; ``entries``: counts of each, (cells,)."""
    cells, total = len(entries), int(entries.sum())
    if total <= LARGE:
        return torch.randperm(cells, generator=generator).numpy()
    size = max(1, round(BLOCK * cells / total))
    blocks = torch.randperm(-(-cells // size), generator=generator).numpy()
    rows = (blocks[:, None] * size + np.arange(size)).ravel()
    rows = rows[rows < cells]
    window = np.cumsum(entries[rows]) // WINDOW
    return rows[np.lexsort([torch.rand(cells, generator=generator, dtype=torch.float64).numpy(), window])]


def read_at_once(entries: Index, size: int) -> int:
    """Cells that are read in one go, a multiple of the minibatch's ``size``: as many as a window has."""
    mean = max(float(entries.mean()) if len(entries) else 0.0, 1.0)
    return max(int(WINDOW / mean) // size, 1) * size
