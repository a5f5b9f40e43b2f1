"""In how many cells of each part of the split the modalities were measured together, by what prepare counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

PARTS = ("train", "valid", "test")
Held = Counter[tuple[str, ...]]  # modalities that cells have -> cells


def prepared_for(split: dict[str, Any], names: set[str], summaries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The summary of prepare, among ``summaries``, whose cells have this ``split`` and the modalities ``names``."""
    for content in summaries:
        own = content.get("split") or {}
        same = all(own.get(p) == split.get(p) for p in ("train", "test"))
        if same and names <= set(content.get("modalities") or {}):
            return content
    return None


def by_part(content: dict[str, Any], names: Sequence[str]) -> dict[str, Held] | None:
    """Part of the split -> cells by which of ``names`` they have.

    None where the counts do not say it: where in one sample some cells have a modality and others lack it.
    """
    counts = content.get("counts") or {}
    samples, parts = counts.get("samples") or {}, counts.get("split_by_sample") or {}
    if not samples or set(samples) != set(parts):
        return None
    found: dict[str, Held] = {p: Counter() for p in PARTS}
    for sample, row in parts.items():
        cells = {m: (samples[sample].get(m) or {}).get("cells", 0) for m in names}
        if set(cells.values()) - {0, row.get("before")}:
            return None
        for p in PARTS:
            found[p][tuple(m for m in names if cells[m])] += int(row.get(p, 0))
    return found
