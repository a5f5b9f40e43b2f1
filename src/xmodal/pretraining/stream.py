"""Cells of many files in random order, with only one round of them in memory.

Every file is cut into blocks of neighbouring cells.  An epoch is all blocks in random order; a round is as many of them as
``round_cells`` allows, read together and shuffled.  Which block comes in which round follows from seed and epoch alone, so that
a run that was stopped goes on with the same cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Modality, Vocabulary
from xmodal.errors import InputRefused
from xmodal.pretraining.sources import TRAIN, VALID, Index, Source, sampled

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 256  # cells read in one go: long enough for a disk, short enough that a round mixes many places
VALID_SHARE = 0.1  # of the cells that may be held out to judge on, at most
Block = tuple[int, int, int]  # file, first cell, cell after the last


@dataclass(frozen=True)
class Stream:
    """All files, their genes in the vocabulary, and the cells that are held out."""

    sources: Sequence[Source]
    vocabulary: Vocabulary
    places: Sequence[sp.csr_matrix]  # of each file: (genes of the file, genes of the vocabulary), sums duplicates
    held: Sequence[Index]  # of each file: cells to judge on, sorted
    round_cells: int
    seed: int

    @property
    def blocks(self) -> list[Block]:
        return [
            (i, start, min(start + BLOCK, s.cells))
            for i, s in enumerate(self.sources)
            for start in range(0, s.cells, BLOCK)
        ]

    @property
    def rounds(self) -> int:
        """Rounds of one epoch."""
        return max(1, round(len(self.blocks) * BLOCK / self.round_cells))

    @property
    def training(self) -> int:
        """Cells that are trained on, where none is empty."""
        found = 0
        for source, held in zip(self.sources, self.held, strict=True):
            able = np.ones(source.cells, bool) if source.roles is None else source.roles == TRAIN
            found += int(able.sum() - able[held].sum())
        return found

    def order(self, epoch: int) -> list[list[Block]]:
        """The blocks of each round of an epoch."""
        blocks = self.blocks
        order = np.random.default_rng([self.seed, epoch]).permutation(len(blocks))
        return [[blocks[i] for i in part] for part in np.array_split(order, self.rounds)]

    def cells(self, blocks: Sequence[Block]) -> Cells:
        """The training cells of these blocks, in the features of the vocabulary; shuffling is left to the minibatches."""
        return self._joined([self._block(*block) for block in blocks])

    def valid(self) -> Cells:
        """The cells to judge on, one by one from wherever they are."""
        rows = [self._rows(i, int(row), int(row) + 1) for i, held in enumerate(self.held) for row in held]
        return self._joined(rows)

    def epoch(self, number: int, first: int = 0) -> Iterator[Cells]:
        """The rounds of an epoch from round ``first`` on; the next is read while this one is trained on."""
        todo = self.order(number)[first:]
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.cells, todo[0]) if todo else None
            for following in [*todo[1:], None]:
                assert coming is not None
                ready = coming.result()
                coming = reader.submit(self.cells, following) if following is not None else None
                yield ready
                del ready

    def _block(self, i: int, start: int, stop: int) -> tuple[sp.csr_matrix, npt.NDArray[np.float32]]:
        rows, depth = self._rows(i, start, stop)
        held, roles = self.held[i], self.sources[i].roles
        keep = np.ones(stop - start, bool) if roles is None else roles[start:stop] == TRAIN
        keep[held[(held >= start) & (held < stop)] - start] = False
        keep &= rows.getnnz(1) > 0  # a cell without counts teaches nothing
        return (rows, depth) if keep.all() else (rows[keep], depth[keep])

    def _rows(self, i: int, start: int, stop: int) -> tuple[sp.csr_matrix, npt.NDArray[np.float32]]:
        rows, depth = self.sources[i].read(start, stop)
        found = sp.csr_matrix(rows @ self.places[i])
        found.sort_indices()
        return found, depth

    def _joined(self, parts: list[tuple[sp.csr_matrix, npt.NDArray[np.float32]]]) -> Cells:
        empty = sp.csr_matrix((0, len(self.vocabulary[fields.RNA])), dtype=np.float32)
        counts = sp.vstack([empty, *(rows for rows, _ in parts)]).tocsr()
        depth = np.concatenate([np.zeros(0, np.float32), *(d for _, d in parts)])
        names = np.arange(len(depth)).astype(str)
        return Cells(
            self.vocabulary, names, {fields.RNA: counts}, {fields.RNA: depth}, {fields.RNA: np.ones(len(depth), bool)}
        )

    def survey(self) -> tuple[npt.NDArray[np.float64], str]:
        """Counts of each gene summed over a few cells of every file, (genes,), and a digest of those cells."""
        totals = np.zeros(len(self.vocabulary[fields.RNA]))
        digest = hashlib.sha256()
        for i, source in enumerate(self.sources):
            digest.update(json.dumps([source.place, source.cells, source.names]).encode())
            for start, stop in sampled(source.cells):
                rows, depth = self._rows(i, start, stop)
                totals += np.asarray(rows.sum(0, dtype=np.float64)).ravel()
                for array in (rows.data, rows.indices, rows.indptr, depth):
                    digest.update(np.ascontiguousarray(array).tobytes())
            if source.roles is not None:
                digest.update(source.roles.tobytes())
        return totals, digest.hexdigest()


def open_stream(
    sources: Sequence[Source], genes: Sequence[str] | None, round_cells: int, valid_cells: int, seed: int
) -> Stream:
    """A stream over ``sources``; ``genes``: the vocabulary (None: all genes of all files, in order of appearance)."""
    names = tuple(dict.fromkeys(genes if genes is not None else (n for s in sources for n in s.names)))
    known = {name: i for i, name in enumerate(names)}
    ids = dict(pair for s in reversed(sources) if s.ids for pair in zip(s.names, s.ids, strict=True) if pair[1])
    gene_ids = tuple(ids.get(name, "") for name in names) if ids else None
    places = [_place(source, known) for source in sources]
    modality = Modality(fields.RNA, fields.NB, fields.LOG_CP10K, names, gene_ids)
    held = _held_out(sources, valid_cells, seed)
    return Stream(sources, Vocabulary({fields.RNA: modality}), places, held, round_cells, seed)


def _place(source: Source, known: dict[str, int]) -> sp.csr_matrix:
    pairs = [(i, known[name]) for i, name in enumerate(source.names) if name in known]
    if not pairs:
        raise InputRefused(
            f"none of its genes is asked for ({', '.join(source.names[:5])}, ...)",
            where=str(source.path),
            do="give gene names of the same kind and species in --genes",
        )
    rows, columns = np.array(pairs, np.int64).T
    return sp.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), (len(source.names), len(known)))


def _held_out(sources: Sequence[Source], most: int, seed: int) -> list[Index]:
    """Cells of each file to judge on: validation cells of files' own splits, or drawn where no file has any."""
    own = any(s.roles is not None and (s.roles == VALID).any() for s in sources)
    role = VALID if own else TRAIN
    able = [int((s.roles == role).sum()) if s.roles is not None else 0 if own else s.cells for s in sources]
    total = sum(able)
    wanted = min(most, total if own else int(total * VALID_SHARE))
    random = np.random.default_rng([seed, 0])  # epochs are counted from 1
    edges = np.round(np.cumsum([0, *able]) * (wanted / max(total, 1))).astype(int)
    held = []
    for source, n, number in zip(sources, able, np.diff(edges), strict=True):
        drawn: Index = np.sort(random.choice(n, number, replace=False, shuffle=False)) if n else np.zeros(0, np.int64)
        held.append(np.flatnonzero(source.roles == role)[drawn] if source.roles is not None else drawn)
    return held


def read_genes(path: Path) -> tuple[str, ...]:
    """Gene names, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputRefused("this is no text", where=str(path), do="give gene names, one a line") from None
    names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if any("\t" in name or "," in name for name in names[:100]):
        raise InputRefused(
            "there is more than one value in a line", where=str(path), do="give gene names only, one a line"
        )
    if not names:
        raise InputRefused("it names no gene", where=str(path), do="give gene names, one a line")
    return names
