"""Bringing new cells to the features a checkpoint knows: reorder, map peaks by overlap, count what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.data.new_cells_settings import MIN_COVERAGE as MIN_COVERAGE
from xmodal.data.on_disk import Counts, OnDisk
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from anndata import AnnData

    from xmodal.data.vocabulary import Modality

SHOWN = 5


@dataclass(frozen=True)
class Alignment:
    """What became of a checkpoint's features in new cells; goes into the prediction's provenance and the report."""

    modality: str
    features: int  # of the checkpoint
    by_name: int
    by_gene_id: int
    by_overlap: int
    missing: int
    unused: int  # features of the input that the checkpoint does not know
    first_missing: tuple[str, ...]
    hint: str = ""
    lost: tuple[int, ...] = ()  # positions of the missing features

    @property
    def coverage(self) -> float:
        """Share of the checkpoint's features that the input has."""
        return 1 - self.missing / max(self.features, 1)

    def to_json(self) -> dict[str, Any]:
        found = {k: v for k, v in asdict(self).items() if k != "lost"}
        return {**found, "first_missing": list(self.first_missing), "coverage": round(self.coverage, 4)}


def align(adata: AnnData, modality: Modality) -> tuple[Counts, npt.NDArray[np.float32], Alignment]:
    """Counts (cells, features of the checkpoint) as CSR float32, depth (cells,), and what was found.

    Features are matched by name, then genes by Ensembl id, peaks by overlap (a peak gets the counts of every peak of the
    input that overlaps it).  Missing features are zero columns.  Counts on disk stay there.
    """
    counts = adata.X if isinstance(adata.X, OnDisk) else sp.csr_matrix(adata.X, dtype=np.float32)
    names = list(map(str, adata.var_names))
    depth = _depth(adata, counts)
    if tuple(names) == modality.features:
        return counts, depth, Alignment(modality.name, len(names), len(names), 0, 0, 0, 0, ())
    pairs, found = _by_name(adata, names, modality)
    overlap = 0
    if modality.peaks is not None:
        extra, overlap = _by_overlap(names, modality, found["target"])
        pairs += extra
    rows = np.array([p[0] for p in pairs], dtype=np.int64)
    cols = np.array([p[1] for p in pairs], dtype=np.int64)
    mapping = sp.csr_matrix((np.ones(len(pairs), np.float32), (rows, cols)), shape=(len(names), len(modality)))
    reached = np.zeros(len(modality), bool)
    reached[cols] = True
    lost = np.flatnonzero(~reached)
    report = Alignment(
        modality.name,
        len(modality),
        found["by_name"],
        found["by_gene_id"],
        overlap,
        len(lost),
        len(names) - len(np.unique(rows)),
        tuple(modality.features[i] for i in lost[:SHOWN]),
        _hint(names, modality) if len(lost) > len(modality) / 2 else "",
        tuple(map(int, lost)),
    )
    if isinstance(counts, OnDisk):
        return counts.then(lambda block: (block @ mapping).tocsr(), len(modality)), depth, report
    return (counts @ mapping).tocsr(), depth, report


def matched(adata: AnnData, modality: Modality) -> list[tuple[int, int]]:
    """Pairs (feature of ``adata``, feature of ``modality``) that are the same by name or Ensembl id."""
    return _by_name(adata, list(map(str, adata.var_names)), modality)[0]


def require_coverage(report: Alignment, minimum: float) -> None:
    """Refuse below ``minimum`` coverage, naming the first features that are missing."""
    if report.coverage < minimum:
        raise InputRefused(
            f"only {report.coverage:.1%} of the {report.features} {report.modality} features of the checkpoint are in the "
            f"input (at least {minimum:.0%} are needed); missing: {', '.join(report.first_missing)}"
            f"{' and more' if report.missing > SHOWN else ''}{report.hint}",
            do="use a checkpoint trained on such features, or accept it with --min-coverage",
        )


def _depth(adata: AnnData, counts: Counts) -> npt.NDArray[np.float32]:
    if fields.DEPTH in adata.obs:
        return adata.obs[fields.DEPTH].to_numpy(np.float32)
    return np.asarray(counts.sum(1), dtype=np.float32).ravel()


def _by_name(adata: AnnData, names: list[str], modality: Modality) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """Pairs (input feature, checkpoint feature) by name, then by Ensembl id on either side."""
    position = {f: i for i, f in enumerate(modality.features)}
    if modality.peaks is not None:
        names = _canonical(names)
    pairs = [(i, position[n]) for i, n in enumerate(names) if n in position]
    taken, used = {t for _, t in pairs}, {i for i, _ in pairs}
    by_name = len(taken)
    by_id = {
        _unversioned(g): i for i, g in enumerate(modality.gene_ids or ()) if g.startswith("ENS") and i not in taken
    }
    own = adata.var[fields.GENE_ID].astype(str) if fields.GENE_ID in adata.var else names
    extra = [(i, by_id[_unversioned(g)]) for i, g in enumerate(own) if i not in used and _unversioned(g) in by_id]
    taken |= {t for _, t in extra}
    return pairs + extra, {"by_name": by_name, "by_gene_id": len(taken) - by_name, "target": taken}


def _by_overlap(names: list[str], modality: Modality, taken: set[int]) -> tuple[list[tuple[int, int]], int]:
    """Pairs for the checkpoint's peaks that no peak of the input has by name."""
    from xmodal.data.intervals import overlap_map, parse_peaks

    left = np.array([i for i in range(len(modality)) if i not in taken], dtype=np.int64)
    if not len(left) or modality.peaks is None:
        return [], 0
    hits = overlap_map(parse_peaks(names), modality.peaks.iloc[left].reset_index(drop=True)).tocoo()
    return [(int(q), int(left[t])) for q, t in zip(hits.row, hits.col, strict=True)], len(np.unique(hits.col))


def _canonical(names: list[str]) -> list[str]:
    from xmodal.data.intervals import parse_peaks, peak_names

    return list(peak_names(parse_peaks(names)))


def _unversioned(gene: str) -> str:
    return gene.split(".")[0] if gene.startswith("ENS") else gene


def _hint(names: list[str], modality: Modality) -> str:
    """Why nearly nothing matches, where that can be told."""
    known, lower = set(modality.features), {f.lower() for f in modality.features}
    alike = len({n.lower() for n in names} & lower)
    if alike >= 10 and alike > 3 * sum(n in known for n in names):
        return " (they match when upper and lower case are ignored: is this another species?)"
    if names and names[0].startswith("ENS") and not modality.features[0].startswith("ENS"):
        return " (the input has Ensembl ids, the checkpoint gene symbols: run xmodal prepare with --gene-table)"
    return ""
