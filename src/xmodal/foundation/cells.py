"""Cells as foundation models read them: tokens with their values, as many as a cell has, in batches of like length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from mudata import MuData

from xmodal import fields, memory, progress
from xmodal.data import contracts
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
LEAST = 0.5  # share of the counts that must be of genes the model knows: other names or another species have far less
TOLD = 20  # times that progress is told


def rna_of(given: AnnData | MuData) -> AnnData:
    """The RNA counts; refused where there are none, or what is there is no counts."""
    adata = given
    if isinstance(given, MuData):
        if fields.RNA not in given.mod:
            raise InputRefused(f"there is {', '.join(given.mod)}, no rna", do="give a file with RNA counts")
        adata = given.mod[fields.RNA]
    contracts.require(
        f for f in contracts.check_modality(fields.RNA, adata, fields.NB, fields.LOG_CP10K) if f.level == "error"
    )
    return adata


def known_counts(counts: sp.csr_matrix, names: Sequence[str], tokens: Mapping[str, int], what: str) -> sp.csr_matrix:
    """Counts by token, (cells, tokens + 1), of the genes that the model knows; refused where it knows too few.

    ``what``: the model, as in messages.  Genes of one token are summed.
    """
    pairs = [(i, tokens[name]) for i, name in enumerate(names) if name in tokens]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    width = max(tokens.values(), default=0) + 1
    place = sp.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), (len(names), width))
    found = sp.csr_matrix(counts @ place)
    share = float(found.sum(dtype=np.float64)) / max(float(counts.sum(dtype=np.float64)), 1.0)
    if share < LEAST:
        lost = [name for name in names if name not in tokens][:5]
        raise InputRefused(
            f"{what} knows {len(pairs)} of the {len(names)} genes, with {share:.0%} of the counts (unknown: "
            f"{', '.join(lost)}, ...)",
            do="give cells of the species that it was made for, with genes called as in its vocabulary",
        )
    log.info("%s: %d of %d genes are known, with %.0f %% of the counts", what, len(pairs), len(names), 100 * share)
    found.sort_indices()
    return found


def in_batches(
    lengths: Sequence[int], width: int, batch_size: int, work: Callable[[Ints], Floats], what: str
) -> Floats:
    """``work(cells)``, (cells, width), for all cells, those of like length together; the rows come back in their order."""
    out = np.zeros((len(lengths), width), np.float32)
    order = np.argsort(np.asarray(lengths), kind="stable")
    portions = memory.Portions(batch_size, 1, what, "nothing, or a GPU with more memory")
    starts = range(0, len(order), batch_size)
    with progress.bar(len(order), what) as bar:
        for turn, start in enumerate(starts):
            rows = order[start : start + batch_size]

            def all_of(size: int, rows: Ints = rows) -> Floats:
                return np.concatenate([work(rows[i : i + size]) for i in range(0, len(rows), size)])

            out[rows] = portions.run(all_of, len(rows))
            bar.add(len(rows))
            if (turn + 1) % max(1, len(starts) // TOLD) == 0:
                progress.line(log, "%s: %d of %d cells", what, min(start + batch_size, len(order)), len(order))
    return out


def padded(rows: Sequence[npt.NDArray[np.generic]], fill: float, kind: type) -> npt.NDArray[np.generic]:
    """Rows of unlike length as one array, (rows, longest)."""
    out: npt.NDArray[np.generic] = np.full((len(rows), max(map(len, rows), default=0)), fill, kind)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
