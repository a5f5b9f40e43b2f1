"""Cells, and minibatches of them as tensors.  Matrices stay sparse; a minibatch is dense where a model asks for it.

Counts lie in memory, or in their file (:mod:`xmodal.data.on_disk`); what comes out is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from xmodal import fields, ranks
from xmodal.data import shuffling
from xmodal.data.on_disk import Counts, OnDisk, entries, held, stacked, taken
from xmodal.data.packed import Packed
from xmodal.data.transforms import tensor_to_scale, to_scale
from xmodal.kernels.rows import Rows

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.data.vocabulary import Vocabulary

Index = npt.NDArray[np.int64]


class Lazy(Mapping[str, Tensor]):
    """Tensors by name that are made when they are first asked for, and then kept."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = tuple(names), make
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Batch:
    """A minibatch.

    Per modality: ``sparse``, the counts as they are kept, (cells, features); ``counts``, the same dense, and ``values`` on the
    modality's scale (``scales``), both made where they are asked for; ``depth`` and ``present``, (cells,).

    Cells that lack a modality have zero rows there and ``present`` False: a missing modality is normal input.  ``extra``: what
    the vocabulary asks for besides, see :class:`Cells`.
    """

    sparse: dict[str, Rows]
    scales: dict[str, str]
    depth: dict[str, Tensor]
    present: dict[str, Tensor]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    @cached_property
    def counts(self) -> Mapping[str, Tensor]:
        return Lazy(self.sparse, lambda m: self.sparse[m].dense())

    @cached_property
    def values(self) -> Mapping[str, Tensor]:
        return Lazy(self.sparse, self._values)

    def _values(self, m: str) -> Tensor:
        counts = self.counts[m]
        if not len(self.sparse[m].column):  # zero on every scale, and in memory one row
            return counts
        return tensor_to_scale(counts, self.depth[m], self.scales[m])

    def sparse_values(self, m: str) -> Rows:
        """``values`` as sparse rows, on a scale where zero counts are zero values (binary, log1p CP10k)."""
        rows = self.sparse[m]
        if self.scales[m] == fields.BINARY:
            return rows.positive()
        assert self.scales[m] == fields.LOG_CP10K, self.scales[m]
        depth = self.depth[m][rows.cell()]
        return replace(rows, value=tensor_to_scale(rows.value[:, None], depth, fields.LOG_CP10K)[:, 0])

    def to(self, device: torch.device) -> Batch:
        if all(x.device.type == device.type for x in self.present.values()):
            return self
        sparse = {m: x.to(device) for m, x in self.sparse.items()}
        depth, present, extra = (
            {k: v.to(device, non_blocking=True) for k, v in x.items()} for x in (self.depth, self.present, self.extra)
        )
        return Batch(sparse, self.scales, depth, present, extra)

    @cached_property
    def own(self) -> Batch:
        """The cells whose wide values this process computes: all, but where several processes train together."""
        mine = ranks.own(len(self))
        return self if mine == slice(0, len(self)) else self.rows(mine)

    def rows(self, index: Tensor | slice) -> Batch:
        """The cells ``index`` of this batch."""
        sparse = {m: x.take(index) for m, x in self.sparse.items()}
        depth, present, extra = ({k: v[index] for k, v in x.items()} for x in (self.depth, self.present, self.extra))
        return Batch(sparse, self.scales, depth, present, extra)

    def only(self, name: str) -> Batch:
        """The same cells as if only modality ``name`` had been measured."""
        return replace(self, present={m: p if m == name else torch.zeros_like(p) for m, p in self.present.items()})


@dataclass(frozen=True)
class Cells:
    """Cells in the vocabulary's features.  ``counts[m]``: CSR (cells, features), in memory or on disk; ``depth[m]``,
    ``present[m]``: (cells,).

    ``extra``, where the vocabulary asks for it: ``batch``, codes (cells,), -1 for a batch that it does not know;
    ``reference``, (cells, width), rows of nan for cells without; ``label`` and ``target``, classes (cells,), -1 for
    cells without.
    """

    vocabulary: Vocabulary
    names: npt.NDArray[np.str_]
    counts: dict[str, Counts]
    depth: dict[str, npt.NDArray[np.float32]]
    present: dict[str, npt.NDArray[np.bool_]]
    extra: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scales(self) -> dict[str, str]:
        """The scale of each modality's values."""
        return {m: self.vocabulary[m].scale for m in self.counts}

    def subset(self, rows: Index) -> Cells:
        return Cells(
            self.vocabulary,
            self.names[rows],
            {m: taken(x, rows) for m, x in self.counts.items()},
            {m: d[rows] for m, d in self.depth.items()},
            {m: p[rows] for m, p in self.present.items()},
            {k: a[rows] for k, a in self.extra.items()},
        )

    @property
    def on_disk(self) -> bool:
        return any(isinstance(x, OnDisk) for x in self.counts.values())

    def in_memory(self) -> Cells:
        """The same cells, their counts read."""
        return replace(self, counts={m: held(x) for m, x in self.counts.items()}) if self.on_disk else self

    def packed(self) -> Cells:
        """The same cells for :meth:`minibatches` alone, their counts read into as few bytes as will do."""
        packed = {m: Packed.of(x) if isinstance(x, OnDisk) else x for m, x in self.counts.items()}
        return replace(self, counts=packed) if self.on_disk else self

    @property
    def entries(self) -> Index:
        """Counts above zero of each cell in all modalities, (cells,)."""
        return np.sum([entries(x) for x in self.counts.values()], axis=0, dtype=np.int64)

    def having(self, *modalities: str) -> Cells:
        """Only the cells that were measured in all of ``modalities``."""
        keep = np.logical_and.reduce([self.present[m] for m in modalities])
        return self if keep.all() else self.subset(np.flatnonzero(keep))

    def values(self, modality: str, rows: slice | Index = slice(None)) -> npt.NDArray[np.float32]:
        """Dense values of ``modality`` on its scale, (cells, features)."""
        scale = self.vocabulary[modality].scale
        return to_scale(self.counts[modality][rows], self.depth[modality][rows], scale)

    def batch(self, rows: slice | Index, size: int | None = None, only: str | None = None) -> Batch:
        """The cells ``rows`` as tensors; with ``size`` padded with empty cells to exactly that many.

        Prediction always pads: matrix products then have one shape, and a cell's result does not depend on its shard.  With
        ``only`` the other modalities are as if they had not been measured, and take no memory.
        """
        sparse, depth, present = {}, {}, {}
        for m, matrix in self.counts.items():
            many = size or len(self.depth[m][rows])
            if only not in (None, m):
                sparse[m] = Rows.empty(many, matrix.shape[1])
                depth[m], present[m] = torch.zeros(many), torch.zeros(many, dtype=torch.bool)
                continue
            sparse[m] = Rows.of(matrix[rows], size)
            depth[m], present[m] = (torch.from_numpy(_padded(a[rows], size)) for a in (self.depth[m], self.present[m]))
        extra = {k: torch.from_numpy(_padded(a[rows], size)) for k, a in self.extra.items()}
        return Batch(sparse, self.scales, depth, present, extra)

    def minibatches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All cells once, shuffled by ``generator`` where given; a last batch of one cell is left out when shuffling."""
        order = np.arange(len(self)) if generator is None else shuffling.order(self.entries, generator)
        at_once = len(self) if not self.on_disk else shuffling.read_at_once(self.entries, size)
        for first in range(0, len(self), at_once or 1):
            part = order[first : first + at_once]
            cells, own = (self.subset(part).packed(), np.arange(len(part))) if self.on_disk else (self, part)
            for start in range(0, len(part), size):
                rows = own[start : start + size]
                if generator is not None and len(rows) < 2 < len(self):
                    continue  # batch normalisation has no variance to learn from one cell
                yield cells.batch(rows)


def joined(first: Cells, second: Cells) -> Cells:
    """The cells of both, of one vocabulary."""
    return Cells(
        first.vocabulary,
        np.concatenate([first.names, second.names]),
        {m: stacked([first.counts[m], second.counts[m]]) for m in first.counts},
        {m: np.concatenate([first.depth[m], second.depth[m]]) for m in first.depth},
        {m: np.concatenate([first.present[m], second.present[m]]) for m in first.present},
        {k: np.concatenate([first.extra[k], second.extra[k]]) for k in first.extra},
    )


def _padded(array: npt.NDArray[Any], size: int | None) -> npt.NDArray[Any]:
    if size is None or len(array) == size:
        return np.ascontiguousarray(array)
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def cells_of(mdata: MuData, vocabulary: Vocabulary) -> Cells:
    """All cells of a prepared file whose features *are* the vocabulary (training); new files go through alignment."""
    from xmodal.data.alignment import align

    aligned = {m: align(adata, vocabulary[m])[:2] for m, adata in mdata.mod.items() if m in vocabulary.modalities}
    names = mdata.obs_names.to_numpy(str)
    return replace(
        spread(vocabulary, names, {m: mdata.mod[m].obs_names for m in aligned}, aligned),
        extra=extra_of(mdata, vocabulary),
    )


def extra_of(mdata: MuData, vocabulary: Vocabulary) -> dict[str, npt.NDArray[Any]]:
    """What the vocabulary asks of cells besides their counts, in the order of ``mdata.obs_names``.

    An obs column or obsm that is not there gives -1 and nan: whether that will do is for the model to say.
    """
    extra: dict[str, npt.NDArray[Any]] = {}
    if vocabulary.batches is not None:
        code = {value: i for i, value in enumerate(vocabulary.batches.values)}
        column = mdata.obs.get(vocabulary.batches.key)
        codes = [-1] * mdata.n_obs if column is None else [code.get(str(value), -1) for value in column]
        extra[fields.BATCH_CODE] = np.array(codes, np.int64)
    for name, labels in ((fields.LABEL_CODE, vocabulary.labels), (fields.TARGET_CODE, vocabulary.target)):
        if labels is not None:
            given = mdata.obs.get(labels.key)
            extra[name] = labels.codes([None] * mdata.n_obs if given is None else given)
    if vocabulary.reference is not None:
        found = np.full((mdata.n_obs, vocabulary.reference.width), np.nan, np.float32)
        place = reference_of(mdata, vocabulary.reference.key)
        if place is not None and place.shape == found.shape:
            found[:] = place
        extra[fields.REFERENCE] = found
    return extra


def reference_of(mdata: MuData, key: str) -> npt.NDArray[np.float32] | None:
    """``obsm[key]`` of the file or of the modality that has it, (cells, width), nan for cells without; None: nowhere."""
    if key in mdata.obsm and key not in mdata.mod:
        return np.asarray(mdata.obsm[key], np.float32)
    for adata in mdata.mod.values():
        if key in adata.obsm:
            values = np.asarray(adata.obsm[key], np.float32)
            out = np.full((mdata.n_obs, values.shape[1]), np.nan, np.float32)
            out[mdata.obs_names.get_indexer(adata.obs_names)] = values
            return out
    return None


def spread(
    vocabulary: Vocabulary, names: npt.NDArray[np.str_], measured: dict[str, Any], aligned: dict[str, Any]
) -> Cells:
    """Put each modality's rows where its cells stand in ``names``; cells without it get an empty row."""
    counts, depth, present = {}, {}, {}
    for m, modality in vocabulary.modalities.items():
        total = np.zeros(len(names), np.float32)
        has = np.zeros(len(names), bool)
        if m not in aligned:
            counts[m], depth[m], present[m] = sp.csr_matrix((len(names), len(modality)), dtype=np.float32), total, has
            continue
        x, d = aligned[m]
        rows = places(names, np.asarray(measured[m]))
        if len(rows) == len(names) and (rows == np.arange(len(names))).all():
            counts[m] = x
        elif isinstance(x, OnDisk):
            own = np.full(len(names), -1)
            own[rows] = np.arange(len(rows))
            counts[m] = x.take(own)
        else:
            place = sp.csr_matrix(
                (np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), (len(names), len(rows))
            )
            counts[m] = (place @ x).tocsr()
        total[rows], has[rows] = d, True
        depth[m], present[m] = total, has
    return Cells(vocabulary, names, counts, depth, present)


def places(names: npt.NDArray[Any], own: Any) -> Index:
    """Where each of the names ``own`` stands in ``names``; -1: nowhere."""
    import pandas as pd

    return np.arange(len(names)) if np.array_equal(names, own) else pd.Index(names).get_indexer(pd.Index(own))
