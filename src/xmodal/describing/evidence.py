"""What a description rests on: a numbered table of facts for each described group or cell.

A sentence may quote what a fact shows, and nothing else that is a number, a gene or the name of a cell type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Kinds of facts; an id is the letter and a number.
TYPE, DEFINITION, CELLS, CALL, NEXT, GENE, TEST, UNLIKE = "T", "D", "C", "P", "N", "G", "H", "U"
KINDS = {
    TYPE: "cell type",
    DEFINITION: "definition",
    CELLS: "cells",
    CALL: "call",
    NEXT: "next candidate",
    GENE: "gene",
    TEST: "test of the genes",
    UNLIKE: "unlike the training cells",
}
ONTOLOGY, MODEL, MEASURED = "ontology", "model", "cells"  # where a fact comes from
PLACES = 2  # decimals of probabilities and AUROC
LEAST_SHOWN = 1e-99  # smaller rates are shown as this: beyond it they are none


@dataclass(frozen=True)
class Evidence:
    """One fact.  ``says``: in words; ``shown``: what a sentence may quote, by name; ``values``: as measured, not rounded."""

    id: str
    says: str
    source: str
    shown: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.id[0]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "kind": KINDS[self.kind]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Evidence:
        """Raises ``KeyError`` or ``TypeError`` where it is none."""
        shown = {str(k): str(v) for k, v in dict(content["shown"]).items()}
        return cls(str(content["id"]), str(content["says"]), str(content["source"]), shown, dict(content["values"]))


def percent(share: float) -> str:
    """``37 %``; shares that are neither nothing nor all are not shown as these."""
    if 0 < share < 0.005:
        return "under 1 %"
    return "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def fold(log2fc: float) -> str:
    """How many times as much, with two digits or more."""
    times = 2**log2fc
    return f"{times:.0f}-fold" if times >= 9.95 else f"{times:.1f}-fold"


def more(row: Mapping[str, Any]) -> str:
    """Of a gene: how much more there is of it, and in which share of the cells it is seen, as a sentence says it."""
    inside, outside = percent(row["share_in"]), percent(row["share_out"])
    return f"{row['gene']} ({fold(row['log2fc'])}, {inside} of them and {outside} of the others)"


def probability(value: float) -> str:
    """Two decimals; what is not sure is not shown as 1."""
    return "over 0.99" if 0.995 <= value < 1 else decimal(value)


def decimal(value: float) -> str:
    return f"{value:.{PLACES}f}"


def rate(value: float) -> str:
    """A false discovery rate with one digit: ``3e-12``, ``0.004``."""
    return f"{max(value, LEAST_SHOWN):.1g}"


def number(value: int) -> str:
    return str(int(value))


def by_id(table: Iterable[Evidence]) -> dict[str, Evidence]:
    return {one.id: one for one in table}
