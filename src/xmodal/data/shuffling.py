"""The order in which an epoch goes over the cells.

Up to ``LARGE`` counts any order is as good: it is drawn over all cells.  Beyond that a random order would read a file piece by
piece many times over, so that blocks of neighbouring cells are drawn, and the cells of ``WINDOW`` counts shuffled with each
other.  Whether the counts lie in memory or on disk makes no difference: equal cells and seed give equal batches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Index = npt.NDArray[np.int64]
LARGE = 1 << 27  # 1 GB in memory
WINDOW = 1 << 23  # 64 MB; a window holds the cells of dozens of blocks
READ = 1 << 24  # 128 MB: read at once where the order is any, so that a file is read eight times an epoch at most
BLOCK = 64  # neighbouring cells that go together


def order(entries: Index, generator: torch.Generator) -> Index:
    """All cells in the order of an epoch; ``entries``: counts of each, (cells,)."""
    cells = len(entries)
    if entries.sum() <= LARGE:
        return torch.randperm(cells, generator=generator).numpy()
    blocks = torch.randperm(-(-cells // BLOCK), generator=generator).numpy()
    rows = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    rows = rows[rows < cells]
    window = np.cumsum(entries[rows]) // WINDOW
    return rows[np.lexsort([torch.rand(cells, generator=generator, dtype=torch.float64).numpy(), window])]


def read_at_once(entries: Index, size: int) -> int:
    """Cells that are read in one go, a multiple of the minibatch's ``size``: those of a window, where there are windows."""
    mean = max(float(entries.mean()) if len(entries) else 0.0, 1.0)
    most = READ if entries.sum() <= LARGE else WINDOW
    return max(int(most / mean) // size, 1) * size
