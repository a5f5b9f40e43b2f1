"""What cells must be like before anything is computed: findings, each with where, what and what to do next."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from xmodal.data.intervals import split_peaks
from xmodal.data.on_disk import OnDisk
from xmodal.errors import InputRefused
from xmodal.fields import ATAC, BERNOULLI, BINARY, CLR, GAUSSIAN, IDENTITY, LOG_CP10K, NB, PROTEIN, RNA

log = logging.getLogger(__name__)
Level = Literal["error", "warning", "note"]
DEFAULTS = {RNA: (NB, LOG_CP10K), ATAC: (BERNOULLI, BINARY), PROTEIN: (GAUSSIAN, CLR)}
CHUNK = 1 << 24  # values looked at in one go: 64 MiB of float32, so that 1e9 values never need a second copy
LARGEST_LOG = 25.0  # log1p of a count is below this for any count a sequencer can make (e^25 = 7e10)


@dataclass(frozen=True)
class Finding:
    """One thing that was found: an ``error`` stops, a ``warning`` is told, a ``note`` is for those who look."""

    level: Level
    where: str
    what: str
    do: str = ""

    def __str__(self) -> str:
        return str(InputRefused(self.what, where=self.where, do=self.do))

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def require(findings: Iterable[Finding]) -> None:
    """Log warnings and notes; raise one :class:`InputRefused` with all errors, the first in the first line."""
    findings = list(findings)
    for finding in findings:
        if finding.level == "warning":
            log.warning("warning: %s", finding)
        elif finding.level == "note":
            log.info("%s", finding)
    errors = list(dict.fromkeys(f for f in findings if f.level == "error"))
    if errors:
        first, rest = errors[0], errors[1:]
        more = "".join(f"\n  also: {f}" for f in rest)
        raise InputRefused(first.what, where=first.where, do=(first.do or "mend the file").rstrip(".") + more)


def resolve_likelihood(name: str, adata: AnnData, given: str | None) -> tuple[str, str]:
    """(likelihood, scale) of a modality: as ``given``, else the default of its name, else by its values.

    Values that are not counts, of a modality without a default, are ``gaussian``; counts need the user's word.
    """
    if given is None:
        if name in DEFAULTS:
            return DEFAULTS[name]
        if is_counts(adata.X):
            raise InputRefused(
                "it holds counts of a kind that is not known",
                where=name,
                do=f"say how to model it: --likelihood {name}=nb (counts), bernoulli (open or closed) "
                "or gaussian (values)",
            )
        return GAUSSIAN, IDENTITY
    if given == GAUSSIAN:
        return GAUSSIAN, CLR if name == PROTEIN and is_counts(adata.X) else IDENTITY
    return given, {NB: LOG_CP10K, BERNOULLI: BINARY}[given]


def check_modality(
    name: str, adata: AnnData, likelihood: str, scale: str | None = None, where: str | None = None, raw: bool = False
) -> list[Finding]:
    """Findings about one modality: names, values, peaks, empty cells.  Looks at ``X.data`` only, never at a dense X.

    ``raw``: the file is still to go through ``prepare``, which adds up duplicated gene symbols.
    """
    where = where or name
    needs_counts = likelihood in (NB, BERNOULLI) or scale == CLR
    findings = [*_names(adata, where, raw and name == RNA), *_values(name, adata, needs_counts, where)]
    if name == ATAC:
        findings += _peaks(adata, where)
    if needs_counts and not any(f.level == "error" for f in findings):
        empty = int((totals(adata.X) == 0).sum())
        if empty == adata.n_obs:
            findings.append(Finding("error", where, "not one cell has a count", "give the file with the raw counts"))
        elif empty:
            findings.append(
                Finding(
                    "warning",
                    where,
                    f"{empty} of {adata.n_obs} cells have no counts at all",
                    "they are kept and flagged; drop them with --min-rna-counts or --min-peaks",
                )
            )
    return findings


def _names(adata: AnnData, where: str, summed: bool) -> Iterator[Finding]:
    level: Level = "note" if summed else "error"
    cells = "make them unique, e.g. with the sample's name in front"
    features = "xmodal prepare adds them up" if summed else "rename them, or add them up"
    if not adata.obs_names.is_unique:
        yield Finding("error", where, f"cell names (obs_names) are duplicated: {_twice(adata.obs_names)}", cells)
    if not adata.var_names.is_unique:
        yield Finding(level, where, f"feature names are duplicated: {_twice(adata.var_names)}", features)


def _twice(index: pd.Index) -> str:
    names = index[index.duplicated()].unique()
    return f"{len(names)} name{'s' * (len(names) > 1)}, {_shown(names)}"


def _values(name: str, adata: AnnData, needs_counts: bool, where: str) -> Iterator[Finding]:
    finite, smallest, largest, whole = survey(adata.X)
    if not finite:
        yield Finding("error", where, "there are NaN or infinite values", "give the counts as they were measured")
        return
    if not needs_counts:
        return
    if smallest < 0:
        yield Finding(
            "error",
            where,
            f"there are negative values (least: {smallest:.4g}) where counts are needed",
            _counts_elsewhere(name, adata) or _as_values(name),
        )
    elif not whole:
        looks = "looks log-normalised" if looks_logged(adata.X, largest) else "looks normalised"
        yield Finding(
            "error",
            where,
            f"the values are not whole numbers where counts are needed: it {looks} (largest: {largest:.4g})",
            _counts_elsewhere(name, adata) or _as_values(name),
        )


def _as_values(name: str) -> str:
    do = "give the file with the raw counts in X"
    return do if name in (RNA, ATAC) else f"{do}, or model the values as they are: --likelihood {name}=gaussian"


def _counts_elsewhere(name: str, adata: AnnData) -> str:
    """The option that leads to raw counts kept in a layer or in ``.raw``; empty where there are none."""
    for layer, matrix in adata.layers.items():
        if is_counts(matrix):
            return f"the raw counts are in layers['{layer}']: bring it through xmodal prepare with --layer {layer}"
    if adata.raw is not None and is_counts(adata.raw.X):
        return "the raw counts are in .raw: bring it through xmodal prepare with --layer raw"
    return ""


def _peaks(adata: AnnData, where: str) -> Iterator[Finding]:
    parts = split_peaks(adata.var_names)
    bad = np.flatnonzero(parts["chrom"].isna().to_numpy())
    if len(bad):
        what = f"{len(bad)} of {adata.n_vars} peak names do not parse: {_shown(adata.var_names[bad])}"
        yield Finding("error", where, what, "name peaks chrom:start-end with start < end (chr1:9999-10500)")


def check_cells(mdata: MuData, training: bool = True) -> list[Finding]:
    """Findings about the cells as a whole; ``training``: pairs of modalities and more than one cell are needed."""
    findings = []
    if mdata.n_obs == 0:
        findings.append(Finding("error", "cells", "there are no cells", "give a file that holds cells"))
    elif mdata.n_obs == 1 and training:
        findings.append(Finding("error", "cells", "there is one cell only", "give a file with more cells"))
    if len(mdata.mod) < 2:
        only = ", ".join(mdata.mod)
        told = Finding(
            "warning",
            "modalities",
            f"there is one modality only ({only})",
            "it can be predicted from, but no model can be trained on it alone",
        )
        return [*findings, told] if training else findings
    if training:
        findings += check_pairing({name: part.obs_names for name, part in mdata.mod.items()})
    return findings


def check_pairing(barcodes: dict[str, pd.Index], where: str = "cells") -> list[Finding]:
    """Whether the modalities of one sample share cells, and which barcode affix keeps them apart where they do not."""
    findings = []
    names = list(barcodes)
    shared = {(a, b): len(barcodes[a].intersection(barcodes[b])) for i, a in enumerate(names) for b in names[i + 1 :]}
    any_shared = any(shared.values())
    for (a, b), n in shared.items():
        fewer = min(len(barcodes[a]), len(barcodes[b]))
        if n == fewer or fewer == 0:
            continue
        affix = find_affix(barcodes[a], barcodes[b], n)
        if n == 0 and (not any_shared or affix):
            what = f"{a} and {b} share no cell names ({barcodes[a][0]} ..., {barcodes[b][0]} ...)"
            do = affix or "give files of the same cells with the same obs_names"
            findings.append(Finding("error", where, what, do))
        else:
            level: Level = "warning" if n < fewer / 2 or affix else "note"
            what = f"{a} ({len(barcodes[a])} cells) and {b} ({len(barcodes[b])} cells) share {n} cells"
            findings.append(Finding(level, where, what, affix or "cells of one modality only are kept and marked"))
    return findings


def find_affix(first: pd.Index, second: pd.Index, shared: int) -> str:
    """What to do so that more cells pair: names the suffix (``-1``) or prefix (``sample_``) that keeps them apart."""
    cut = {"suffix": r"[-_:.#][A-Za-z0-9.]{1,24}$", "prefix": r"^.{1,60}[-_:#](?=[ACGTN]{8,}(?:[-_.]\w+)?$)"}
    best = (shared, "")
    for kinds in (("suffix",), ("prefix",), ("prefix", "suffix")):
        pattern = "|".join(cut[k] for k in kinds)
        bare = [index.astype(str).str.replace(pattern, "", regex=True) for index in (first, second)]
        together = len(bare[0].unique().intersection(bare[1].unique()))
        if together > max(2 * best[0], best[0] + 1, 0.2 * min(len(first), len(second))):
            found = [_affixes(index, pattern) for index in (first, second)]
            kind = " and ".join(kinds)
            best = (
                together,
                f"the barcode {kind} keeps {together} cells from pairing "
                f"({found[0]} against {found[1]}): rename obs_names in one of the files to agree",
            )
    return best[1]


def _affixes(index: pd.Index, pattern: str) -> str:
    found = {m.group(0) for name in index[:50].astype(str) for m in re.finditer(pattern, name)}
    return "/".join(f"'{a}'" for a in sorted(found)[:3]) or "none"


def survey(matrix: Any) -> tuple[bool, float, float, bool]:
    """(all finite, least, largest, all whole) of a sparse or dense matrix, in chunks."""
    if isinstance(matrix, OnDisk):
        return matrix.known.finite, matrix.known.least, matrix.known.largest, matrix.known.whole
    data = matrix.data if sp.issparse(matrix) else np.asarray(matrix).ravel()
    least, largest, whole = 0.0, 0.0, True
    for at in range(0, len(data), CHUNK):
        part = data[at : at + CHUNK]
        low, high = float(part.min()), float(part.max())
        if not np.isfinite([low, high]).all():
            return False, low, high, False
        least, largest = min(least, low), max(largest, high)
        whole = whole and (part.dtype.kind in "iub" or bool((part == np.rint(part)).all()))
    return True, least, largest, whole


def is_counts(matrix: Any) -> bool:
    """Whether all values are finite, whole and not negative."""
    finite, least, _, whole = survey(matrix)
    return finite and least >= 0 and whole


def looks_logged(matrix: Any, largest: float) -> bool:
    """Whether fractional values look like log1p of normalised counts: small, or expm1 sums alike in most cells."""
    if largest > LARGEST_LOG:
        return False
    some = matrix[: min(matrix.shape[0], 200)]
    dense = some.toarray() if sp.issparse(some) else np.asarray(some)
    sums = np.expm1(dense.astype(np.float64)).sum(1)
    sums = sums[sums > 0]
    alike = len(sums) > 1 and float(sums.std() / sums.mean()) < 0.01
    return alike or largest < 12  # log1p(1e5)


def totals(matrix: Any) -> npt.NDArray[np.float64]:
    """Sum over features of each cell, (cells,)."""
    return np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()


def _shown(names: Sequence[Any]) -> str:
    return ", ".join(f"'{n}'" for n in list(names)[:5]) + (", ..." if len(names) > 5 else "")
