"""Which cells are compared: the groups of a column of obs, and the samples they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xmodal.data.splits import is_continuous, kind_of, near
from xmodal.errors import InputRefused
from xmodal.fields import CLUSTER, SAMPLE

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.markers.settings import MarkerSettings

Index = npt.NDArray[np.int64]
MOST_GROUPS = 200  # more are hardly groups: barcodes, or a number of each cell


@dataclass(frozen=True)
class Groups:
    """``codes``, ``sample_codes`` (cells,): number in ``names`` and ``samples``, -1 for none; ``asked``: groups to compare."""

    names: tuple[str, ...]
    codes: Index
    asked: tuple[int, ...]
    sample_key: str | None
    samples: tuple[str, ...]
    sample_codes: Index

    def at(self, rows: Index) -> Groups:
        """The same groups for the cells ``rows``."""
        return Groups(self.names, self.codes[rows], self.asked, self.sample_key, self.samples, self.sample_codes[rows])


def find(mdata: MuData, settings: MarkerSettings) -> Groups:
    """The groups of ``--group-by`` and the samples of ``--sample-key``; :class:`InputRefused` where there are none."""
    names, codes = _coded(_column(mdata.obs, settings.group_by, "--group-by"), settings.group_by, "--group-by")
    if len(names) < 2:
        there = f"one group only ('{names[0]}')" if names else "no cell with a value"
        raise InputRefused(
            f"'{settings.group_by}' has {there}, and a marker tells a group from others",
            where="--group-by",
            do="give a column with two groups or more" + _finer(settings.group_by),
        )
    asked = tuple(range(len(names)))
    if settings.groups:
        for group in settings.groups:
            if group not in names:
                what = f"'{settings.group_by}' has no group '{group}'"
                raise InputRefused(what, where="--groups", do=near(group, names))
        asked = tuple(i for i in asked if names[i] in settings.groups)
    key, samples, sample_codes = _samples(mdata.obs, settings)
    return Groups(names, codes, asked, key, samples, sample_codes)


def _samples(obs: pd.DataFrame, settings: MarkerSettings) -> tuple[str | None, tuple[str, ...], Index]:
    key = settings.sample_key or (SAMPLE if SAMPLE in obs else None)
    if key is None:
        if settings.method == "pseudobulk":
            raise InputRefused(
                "pseudobulk compares samples, and nothing says which sample a cell is of",
                where="--method pseudobulk",
                do="give --sample-key COLUMN, or --method wilcoxon",
            )
        return None, (), np.full(len(obs), -1)
    if key == settings.group_by:
        raise InputRefused(
            f"'{key}' names the groups as well: a group would be one sample",
            where="--sample-key",
            do="give the column with the donors or animals, which are several in a group",
        )
    names, codes = _coded(_column(obs, key, "--sample-key"), key, "--sample-key", most=len(obs))
    if settings.method == "pseudobulk" and len(names) < 2:
        raise InputRefused(
            f"'{key}' holds {len(names)} sample, and pseudobulk compares samples",
            where="--method pseudobulk",
            do="give another --sample-key, or --method wilcoxon",
        )
    return key, names, codes


def coded(obs: pd.DataFrame, name: str, where: str, most: int = MOST_GROUPS) -> tuple[tuple[str, ...], Index]:
    """Groups of a column in their natural order, and the code of each cell, -1 for none; refused where these are no groups."""
    return _coded(_column(obs, name, where), name, where, most)


def _column(obs: pd.DataFrame, name: str, where: str) -> pd.Series:
    if name in obs:
        return obs[name]
    columns = [str(c) for c in obs.columns]
    if name != CLUSTER:
        do = near(name, columns) if columns else "obs has no columns at all"
        raise InputRefused(f"obs has no column '{name}'", where=where, do=do)
    others = f"; there are: {', '.join(columns[:20])}" if columns else ""  # what is like its name has no groups
    raise InputRefused(
        f"obs has no column '{name}' (`xmodal embed` writes it)",
        where=where,
        do=f"run xmodal embed first, or name the groups with --group-by COLUMN{others}",
    )


def _coded(column: pd.Series, name: str, where: str, most: int = MOST_GROUPS) -> tuple[tuple[str, ...], Index]:
    """Names in their natural order (2 before 10) and the code of each cell; refused where these are no groups."""
    number = column.nunique()
    if is_continuous(column):
        what = f"'{name}' holds continuous numbers ({number} of them), and no groups"
        raise InputRefused(what, where=where, do="give a column of labels" + _finer(name))
    if number > most:
        what = f"'{name}' has {number} values, more than {most}: these are no groups"
        raise InputRefused(what, where=where, do="give a column of labels" + _finer(name))
    kind = kind_of(column)
    text = column.astype(object).map(lambda v: _text(v, kind), na_action="ignore")
    names = tuple(sorted(text.dropna().unique(), key=_natural))
    return names, pd.Categorical(text, categories=list(names)).codes.astype(np.int64)


def _text(value: Any, kind: str) -> str:
    return str(int(value)) if kind == "f" else str(value)


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _finer(name: str) -> str:
    return "" if name != CLUSTER else ", or run xmodal embed with another --resolution"
