"""Cells made worse on purpose: a modality that some of them lose, or noise of a given strength in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from xmodal import fields
from xmodal.errors import UsageRefused

if TYPE_CHECKING:
    from xmodal.data.batches import Cells

DROP, NOISE = "drop", "noise"


@dataclass(frozen=True)
class Change:
    """``kind``: drop or noise; ``strength``, 0 to 1: share of the cells that lose it, or of its signal that is noise."""

    kind: str
    modality: str
    strength: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.modality} {self.strength:g}"


def parsed(option: str, texts: tuple[str, ...]) -> list[Change]:
    """``MODALITY=X[,X...]`` as changes, each modality's from 0 (untouched) upwards."""
    kind, found = option.removeprefix("--"), {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not (sign and name and values):
            raise UsageRefused(f"{option} {text}: write MODALITY=SHARE or MODALITY=0.25,0.5,1")
        if name in found:
            raise UsageRefused(f"{option} {text}: {name} is given twice; write its shares with commas")
        found[name] = sorted({0.0, *(_share(option, text, value) for value in values.split(","))})
    return [Change(kind, name, value) for name, values in found.items() for value in values]


def _share(option: str, text: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageRefused(f"{option} {text}: '{value}' is no share from 0 to 1")
    return share


def changed(cells: Cells, change: Change, profile: np.ndarray[Any, Any], seed: int) -> Cells:
    """``cells`` after ``change``; ``profile``: what noise is drawn from, see :func:`profile_of`."""
    if not change.strength:
        return cells
    if change.kind == DROP:
        return _dropped(cells, change, seed)
    rng = np.random.default_rng([seed, round(change.strength * 1e6)])
    m = change.modality
    matrix = sp.csr_matrix(cells.counts[m])
    if cells.vocabulary[m].likelihood == fields.GAUSSIAN:
        noisy = sp.csr_matrix(_blurred(matrix.toarray(), profile, change.strength, rng))
    else:
        noisy = _replaced(matrix, profile, change.strength, rng)
    return replace(cells, counts={**cells.counts, m: noisy})


def _dropped(cells: Cells, change: Change, seed: int) -> Cells:
    """Cells that have the modality and another one lose it, in one order: a larger share takes those of a smaller one too."""
    m = change.modality
    others = np.logical_or.reduce([p for k, p in cells.present.items() if k != m])
    able = np.flatnonzero(cells.present[m] & others)
    lost = np.random.default_rng(seed).permutation(able)[: round(change.strength * len(able))]
    present = cells.present[m].copy()
    present[lost] = False
    return replace(cells, present={**cells.present, m: present})


def profile_of(cells: Cells, modality: str) -> np.ndarray[Any, Any]:
    """Of the cells that have ``modality``: each feature's share of all counts, (features,).

    Of values (gaussian): mean and spread of each feature, (2, features).
    """
    own = sp.csr_matrix(cells.having(modality).counts[modality])
    if cells.vocabulary[modality].likelihood == fields.GAUSSIAN:
        dense = own.toarray().astype(np.float64)
        return np.stack([dense.mean(0), dense.std(0)])
    total = np.asarray(own.sum(0), np.float64).ravel() + 1e-9
    shares: np.ndarray[Any, Any] = total / total.sum()
    return shares


def _replaced(
    counts: sp.csr_matrix, profile: np.ndarray[Any, Any], strength: float, rng: np.random.Generator
) -> sp.csr_matrix:
    """Each molecule (or cut) is lost with probability ``strength``, and as many are drawn from the profile of all cells."""
    whole = np.rint(counts.data).astype(np.int64)
    kept = counts.copy()
    kept.data = rng.binomial(whole, 1 - strength).astype(np.float32)
    before, after = (
        np.asarray(sp.csr_matrix((d, counts.indices, counts.indptr), counts.shape).sum(1)).ravel()
        for d in (whole, kept.data)
    )
    lost = np.rint(before - after).astype(np.int64)
    drawn = rng.choice(len(profile), int(lost.sum()), p=profile)
    rows = np.repeat(np.arange(counts.shape[0]), lost)
    ambient = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, drawn)), counts.shape)
    noisy = (kept + ambient).tocsr()
    noisy.eliminate_zeros()
    noisy.sort_indices()
    return noisy


def _blurred(
    values: np.ndarray[Any, Any], profile: np.ndarray[Any, Any], strength: float, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """``strength`` of each feature's variance is Gaussian noise; mean and spread stay."""
    mean, spread = profile
    noise = rng.standard_normal(values.shape) * spread
    blurred: np.ndarray[Any, Any] = mean + np.sqrt(1 - strength) * (values - mean) + np.sqrt(strength) * noise
    return blurred.astype(np.float32)
