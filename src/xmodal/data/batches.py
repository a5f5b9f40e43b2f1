"""Cells in memory, and minibatches of them as tensors.  Matrices stay sparse; only a minibatch is dense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from xmodal import fields
from xmodal.data.transforms import to_scale

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.data.vocabulary import Vocabulary

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A minibatch.

    Per modality: raw ``counts`` and ``values`` on its scale, (cells, features); ``depth`` and ``present``, (cells,).

    Cells that lack a modality have zero rows there and ``present`` False: a missing modality is normal input.  ``extra``: what
    the vocabulary asks for besides, see :class:`Cells`.
    """

    counts: dict[str, Tensor]
    values: dict[str, Tensor]
    depth: dict[str, Tensor]
    present: dict[str, Tensor]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    def to(self, device: torch.device) -> Batch:
        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: _moved(v, device) for k, v in tensors.items()}

        return Batch(*map(move, (self.counts, self.values, self.depth, self.present, self.extra)))

    def rows(self, index: Tensor | slice) -> Batch:
        """The cells ``index`` of this batch."""

        def take(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: v[index] for k, v in tensors.items()}

        return Batch(*map(take, (self.counts, self.values, self.depth, self.present, self.extra)))

    def only(self, name: str) -> Batch:
        """The same cells as if only modality ``name`` had been measured."""
        return replace(self, present={m: p if m == name else torch.zeros_like(p) for m, p in self.present.items()})


@dataclass(frozen=True)
class Cells:
    """Cells in the vocabulary's features.  ``counts[m]``: CSR (cells, features); ``depth[m]``, ``present[m]``: (cells,).

    ``extra``, where the vocabulary asks for it: ``batch``, codes (cells,), -1 for a batch that it does not know;
    ``reference``, (cells, width), rows of nan for cells without; ``label``, classes (cells,), -1 for cells without.
    """

    vocabulary: Vocabulary
    names: npt.NDArray[np.str_]
    counts: dict[str, sp.csr_matrix]
    depth: dict[str, npt.NDArray[np.float32]]
    present: dict[str, npt.NDArray[np.bool_]]
    extra: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, rows: Index) -> Cells:
        return Cells(
            self.vocabulary,
            self.names[rows],
            {m: x[rows] for m, x in self.counts.items()},
            {m: d[rows] for m, d in self.depth.items()},
            {m: p[rows] for m, p in self.present.items()},
            {k: a[rows] for k, a in self.extra.items()},
        )

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
        counts, values, depth, present = {}, {}, {}, {}
        for m, matrix in self.counts.items():
            if only not in (None, m):
                many = size or len(self.depth[m][rows])
                counts[m] = values[m] = torch.zeros(1, matrix.shape[1]).expand(many, -1)
                depth[m], present[m] = torch.zeros(many), torch.zeros(many, dtype=torch.bool)
                continue
            x = matrix[rows].toarray()
            d, p = self.depth[m][rows], self.present[m][rows]
            v = to_scale(x, d, self.vocabulary[m].scale)
            counts[m], values[m], depth[m], present[m] = (torch.from_numpy(_padded(a, size)) for a in (x, v, d, p))
        extra = {k: torch.from_numpy(_padded(a[rows], size)) for k, a in self.extra.items()}
        return Batch(counts, values, depth, present, extra)

    def minibatches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All cells once, shuffled by ``generator`` where given; a last batch of one cell is left out when shuffling."""
        order = np.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator).numpy()
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            if generator is not None and len(rows) < 2 < len(self):
                continue  # batch normalisation has no variance to learn from one cell
            yield self.batch(rows)


def joined(first: Cells, second: Cells) -> Cells:
    """The cells of both, of one vocabulary."""
    return Cells(
        first.vocabulary,
        np.concatenate([first.names, second.names]),
        {m: sp.vstack([first.counts[m], second.counts[m]]).tocsr() for m in first.counts},
        {m: np.concatenate([first.depth[m], second.depth[m]]) for m in first.depth},
        {m: np.concatenate([first.present[m], second.present[m]]) for m in first.present},
        {k: np.concatenate([first.extra[k], second.extra[k]]) for k in first.extra},
    )


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Rows that are one and the same in memory (a modality that was not measured) stay so, and take as little there."""
    if len(tensor) > 1 and tensor.stride(0) == 0:
        return tensor[:1].to(device, non_blocking=True).expand_as(tensor)
    return tensor.to(device, non_blocking=True)


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
    if vocabulary.labels is not None:
        given = mdata.obs.get(vocabulary.labels.key)
        extra[fields.LABEL_CODE] = vocabulary.labels.codes([None] * mdata.n_obs if given is None else given)
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
    position = {name: i for i, name in enumerate(names)}
    for m, modality in vocabulary.modalities.items():
        total = np.zeros(len(names), np.float32)
        has = np.zeros(len(names), bool)
        if m not in aligned:
            counts[m], depth[m], present[m] = sp.csr_matrix((len(names), len(modality)), dtype=np.float32), total, has
            continue
        x, d = aligned[m]
        rows = np.array([position[str(n)] for n in measured[m]], dtype=np.int64)
        if len(rows) == len(names) and (rows == np.arange(len(names))).all():
            counts[m] = x
        else:
            place = sp.csr_matrix(
                (np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), (len(names), len(rows))
            )
            counts[m] = (place @ x).tocsr()
        total[rows], has[rows] = d, True
        depth[m], present[m] = total, has
    return Cells(vocabulary, names, counts, depth, present)
