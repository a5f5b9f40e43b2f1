"""Names of genome assemblies; and the door to peaks (``intervals``) and genes (``genes``)."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from xmodal.data.genes import cut_version, links_from_distance, links_from_table, read_gene_table
from xmodal.data.intervals import overlap_map, parse_peaks, peak_names, split_peaks
from xmodal.fields import GENOME, UNS

__all__ = [
    "cut_version",
    "genome_of",
    "links_from_distance",
    "links_from_table",
    "normal_genome",
    "overlap_map",
    "parse_peaks",
    "peak_names",
    "read_gene_table",
    "split_peaks",
]

# The consortia's names beside UCSC's, which are the ones kept (hg38, hg19, mm10, mm39).
ALIASES = {
    "grch38": "hg38",
    "hg38": "hg38",
    "grch37": "hg19",
    "hg19": "hg19",
    "b37": "hg19",
    "grcm38": "mm10",
    "mm10": "mm10",
    "grcm39": "mm39",
    "mm39": "mm39",
}
_ALIAS = re.compile(r"(?<![a-z0-9])(" + "|".join(ALIASES) + r")(?![0-9a-z])")


def normal_genome(name: Any) -> str | None:
    """One name per assembly: ``GRCh38``, ``GRCh38.p13`` and ``hg38`` are ``hg38``; unknown names stay as given.

    >>> [normal_genome(n) for n in ("GRCm38", "refdata-arc-GRCh38-2020-A", "rheMac10", "")]
    ['mm10', 'hg38', 'rheMac10', None]
    """
    text = "" if name is None else str(name).strip()
    if not text or text.lower() in {"none", "nan", "unknown", "na"}:
        return None
    found = _ALIAS.search(text.lower())
    return ALIASES[found.group(1)] if found else text


def genome_of(data: Any, modality: str | None = None) -> str | None:
    """Genome of an AnnData, or of one modality of a MuData; None where no place says it.

    In this order: ``uns["genome"]`` of the modality, of the file, what ``prepare`` wrote, ``var["genome"]`` (10x).
    """
    mods = getattr(data, "mod", None)
    part = mods[modality] if mods is not None and modality in mods else data
    prepared = _prepared_genome(data, modality)
    for candidate in (part.uns.get(GENOME), data.uns.get(GENOME), prepared):
        if isinstance(candidate, np.ndarray | list):
            candidate = candidate[0] if len(candidate) == 1 else None
        if (name := normal_genome(candidate)) is not None:
            return name
    if mods is None or part is not data:
        values = part.var[GENOME].dropna().unique() if GENOME in part.var else []
        names = {n for n in map(normal_genome, values) if n}
        if len(names) == 1:
            return names.pop()
    return None


def _prepared_genome(data: Any, modality: str | None) -> Any:
    written = data.uns.get(UNS)
    try:
        return json.loads(written["settings"])["modalities"][modality]["genome"]
    except (TypeError, KeyError, ValueError, IndexError):  # not a prepared file
        return None
