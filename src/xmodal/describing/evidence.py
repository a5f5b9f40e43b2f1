"""What a description rests on: a numbered table of facts for each described group or cell.

A sentence may quote what a fact shows, and nothing else that is a number, a gene or the name of a cell type.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def seen(inside: float, outside: float) -> str:
    """Shares of cells that show a gene, as a sentence says them."""
    return f"{percent(inside)} of them, {percent(outside)} of the others"


def decimal(value: float) -> str:
    return f"{value:.{PLACES}f}"


def rate(value: float) -> str:
    """A false discovery rate with one digit: ``3e-12``, ``0.004``."""
    return f"{max(value, LEAST_SHOWN):.1g}"


def number(value: int) -> str:
    return str(int(value))


def by_id(table: Iterable[Evidence]) -> dict[str, Evidence]:
    return {one.id: one for one in table}
