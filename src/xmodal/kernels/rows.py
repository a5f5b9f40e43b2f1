"""Counts of a minibatch as compressed sparse rows of torch tensors: on a GPU they take there what they take here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """CSR (cells, ``width``): ``first`` (cells + 1,) int64, ``column`` (entries,) int32, sorted in a row, ``value`` (entries,).

    Entries may be zero, and then count as none.
    """

    first: Tensor
    column: Tensor
    value: Tensor
    width: int

    @classmethod
    def of(cls, matrix: Any, size: int | None = None) -> Rows:
        """Of a scipy CSR (cells, features); ``size``: with empty rows up to so many."""
        if not matrix.has_sorted_indices:
            matrix = matrix.sorted_indices()
        first = torch.from_numpy(matrix.indptr).long()
        if size is not None and size > matrix.shape[0]:
            first = torch.cat([first, first[-1:].expand(size - matrix.shape[0])])
        column, value = torch.from_numpy(matrix.indices).int(), torch.from_numpy(matrix.data).float()
        return cls(first, column, value, matrix.shape[1])

    @classmethod
    def empty(cls, cells: int, width: int) -> Rows:
        """Of cells that were not measured."""
        none = torch.zeros(0)
        return cls(torch.zeros(cells + 1, dtype=torch.int64), none.int(), none, width)

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def device(self) -> torch.device:
        return self.first.device

    def to(self, device: torch.device) -> Rows:
        first, column, value = (x.to(device, non_blocking=True) for x in (self.first, self.column, self.value))
        return Rows(first, column, value, self.width)

    def take(self, index: Tensor | slice) -> Rows:
        """The rows ``index``: positions, a mask or a slice."""
        chosen = torch.arange(len(self), device=self.device)[index]
        size = self.first[chosen + 1] - self.first[chosen]
        first = torch.cat([size.new_zeros(1), size.cumsum(0)])
        total = int(first[-1])
        shift = torch.repeat_interleave(self.first[chosen] - first[:-1], size, output_size=total)
        place = torch.arange(total, device=self.device) + shift
        return Rows(first, self.column[place], self.value[place], self.width)

    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """``first``, ``column`` and ``value`` as numpy sees them; on a CPU."""
        return self.first.numpy(), self.column.numpy(), self.value.numpy()

    def cell(self) -> Tensor:
        """The row of each entry, (entries,) int64."""
        size = self.first.diff()
        return torch.repeat_interleave(torch.arange(len(self), device=self.device), size, output_size=len(self.column))

    def sums(self) -> Tensor:
        """Sum of each row, (cells,)."""
        return torch.segment_reduce(self.value, "sum", offsets=self.first, initial=0)

    def positive(self) -> Rows:
        """1 where the value is above zero, 0 elsewhere."""
        return replace(self, value=(self.value > 0).to(self.value.dtype))

    def opened(self) -> Rows:
        """Only the entries above zero, with their values: these rows themselves where there are no others."""
        if not len(self.value) or bool(self.value.min() > 0):
            return self
        kept = self.value > 0
        before = torch.cat([self.first.new_zeros(1), kept.cumsum(0)])
        return Rows(before[self.first], self.column[kept], self.value[kept], self.width)

    def beside(self, values: Tensor) -> Rows:
        """With ``values`` (cells,) as one more column, the last."""
        last = torch.arange(len(self) + 1, device=self.device)
        places = self.first[1:] + last[:-1]
        column = self.column.new_full((len(self.column) + len(self),), self.width)
        value = self.value.new_empty(len(column))
        old = torch.ones(len(column), dtype=torch.bool, device=self.device)
        old[places] = False
        column[old], value[old], value[places] = self.column, self.value, values
        return Rows(self.first + last, column, value, self.width + 1)

    def times(self, factor: Tensor) -> Rows:
        """Every row multiplied by its ``factor``, (cells,)."""
        return replace(self, value=self.value * factor[self.cell()])

    def dense(self) -> Tensor:
        """(cells, width); rows that are all empty take the memory of one."""
        if not len(self.column):
            return self.value.new_zeros(1, self.width).expand(len(self), -1)
        if self.device.type == "cpu":  # three times as fast as by index
            first, column, value = self.arrays()
            return torch.from_numpy(sp.csr_matrix((value, column, first), (len(self), self.width)).toarray())
        out = self.value.new_zeros(len(self) * self.width)
        out[self.cell() * self.width + self.column] = self.value
        return out.view(len(self), self.width)
