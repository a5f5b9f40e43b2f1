"""Facts about a group or a cell, and which sentences are said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmodal import fields
from xmodal.describing import evidence as facts
from xmodal.describing.evidence import Evidence, decimal, number, percent, probability, rate
from xmodal.describing.grounding import Plan, Slot, joined
from xmodal.text.ontology import PSEUDO

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.describing.calls import Call
    from xmodal.text.ontology import Ontology

UNLIKE_SAID = (
    0.1  # share of cells unlike the training cells from which it is said: up to some percent are unlike in any data
)
NEXT_SAID = 0.005  # probability from which another candidate is a fact: less is shown as none
CANDIDATES = 3  # others that stand in the table


@dataclass(frozen=True)
class Subject:
    """What is described.  ``of_label``: the group is all cells of one label; ``cell``: one cell of the group.

    ``unlike``: share of its cells that are unlike the training cells; ``genes``: rows of the genes that were chosen, with the
    figures of the test; ``tested``: cells in which they were chosen and tested, None where that was not done; of a cell
    ``counts`` of its group's genes.
    """

    group: str
    of_label: bool
    cells: int
    share: float
    call: Call
    unlike: float
    genes: pd.DataFrame
    tested: tuple[int, int] | None
    fdr: float
    cell: str | None = None
    counts: tuple[tuple[str, int], ...] = ()

    @property
    def confirmed(self) -> pd.DataFrame:
        return self.genes[self.genes["confirmed"].astype(bool)]

    @property
    def called_group(self) -> str:
        if not self.of_label:
            return f"group {self.group}"
        return "this group" if self.call.term == fields.UNKNOWN else "this type"

    @property
    def whose_group(self) -> str:
        """The group, as it is called of one of its cells."""
        return "its group" if self.of_label else self.called_group


def table(subject: Subject, ontology: Ontology) -> list[Evidence]:
    """All facts, in the order in which a page shows them."""
    own = [*_type(subject.call, ontology), _cells(subject), _call(subject)]
    rest = [found for found in subject.call.rest if found[1] >= NEXT_SAID][:CANDIDATES]
    own += [_candidate(i, found, ontology) for i, found in enumerate(rest, 1)]
    own += _genes(subject)
    if subject.tested is not None:
        own.append(_tested(subject))
    return [*own, _unlike(subject)]


def _type(call: Call, ontology: Ontology) -> list[Evidence]:
    found = [Evidence("T1", f"{call.name} ({call.term})", facts.MODEL, {"name": call.name}, {"term": call.term})]
    if call.term == fields.UNKNOWN or not (text := ontology[call.term].definition):
        return found
    text = text if text.endswith((".", "!", "?")) else f"{text}."
    return [*found, Evidence("D1", ontology.title, facts.ONTOLOGY, {"definition": text}, {"term": call.term})]


def _cells(subject: Subject) -> Evidence:
    whose = subject.called_group if subject.cell is None else subject.whose_group
    says = f"{subject.cells} cells of {whose}, {percent(subject.share)} of all"
    shown = {"cells": number(subject.cells), "share": percent(subject.share)}
    shown |= {} if subject.of_label else {"group": subject.group}
    return Evidence("C1", says, facts.MEASURED, shown, {"cells": subject.cells, "share": subject.share})


def _call(subject: Subject) -> Evidence:
    call = subject.call
    shown = {"probability": probability(call.score), "agreement": percent(call.agreement)}
    if call.term == fields.UNKNOWN:
        shown = {}
    elif not call.term.startswith(PSEUDO):
        shown["id"] = call.term
    words = f"{call.status}, probability {probability(call.score)}; {percent(call.agreement)} of the cells one by one"
    values = {"status": call.status, "score": call.score, "agreement": call.agreement}
    return Evidence("P1", words if subject.cell is None else words.partition(";")[0], facts.MODEL, shown, values)


def _candidate(place: int, found: tuple[str, float], ontology: Ontology) -> Evidence:
    term, share = found
    name = named(term, ontology)
    shown = {"candidate": name, "candidate_probability": probability(share)}
    says = f"{name}, probability {probability(share)}"
    return Evidence(f"N{place}", says, facts.MODEL, shown, {"term": term, "probability": share})


def named(term: str, ontology: Ontology) -> str:
    name = ontology[term].name
    return name if term.startswith(PSEUDO) else f"{name} ({term})"


def _genes(subject: Subject) -> list[Evidence]:
    counts = dict(subject.counts)
    return [
        _gene(f"G{i}", row, counts.get(str(row["gene"]), 0) if subject.cell is not None else None)
        for i, row in enumerate(subject.confirmed.to_dict("records"), 1)
    ]


def _gene(id: str, row: dict[str, Any], counts: int | None) -> Evidence:
    """Figures are those of the half of the cells in which the gene was not chosen; of a cell its counts as well."""
    seen = f"seen in {percent(row['share_in'])} of them, {percent(row['share_out'])} of the others"
    figures = f"{facts.fold(row['log2fc'])}, {seen}, AUROC {decimal(row['auroc'])}"
    shown = {"gene": row["gene"], "figures": facts.more(row)}
    values = {k: float(row[k]) for k in ("log2fc", "share_in", "share_out", "auroc", "padj")}
    values |= {"gene": row["gene"], "higher": True}
    if counts is not None:
        seen = f"{counts} count" if counts == 1 else f"{counts} counts"
        shown["counts"], values["counts"] = f"{row['gene']} ({seen})", counts
    return Evidence(id, f"{figures}, false discovery rate {rate(row['padj'])}", facts.MEASURED, shown, values)


def _tested(subject: Subject) -> Evidence:
    assert subject.tested is not None
    chosen, confirmed = len(subject.genes), len(subject.confirmed)
    half, rest = subject.tested
    shown = {"half": number(half), "rest": number(rest), "chosen": number(chosen), "confirmed": number(confirmed)}
    failed = [str(g) for g in subject.genes.loc[~subject.genes["confirmed"].astype(bool), "gene"]]
    values = {
        "half": half,
        "rest": rest,
        "chosen": chosen,
        "confirmed": confirmed,
        "failed": failed,
        "fdr": subject.fdr,
    }
    says = f"chosen in {half} cells: {chosen}; confirmed in the other {rest}: {confirmed}"
    return Evidence("H1", says, facts.MEASURED, {**shown, "fdr": f"{subject.fdr:g}"}, values)


def _unlike(subject: Subject) -> Evidence:
    says = f"{percent(subject.unlike)} of the cells are unlike the training cells"
    if subject.cell is not None:
        says = f"{'unlike' if subject.unlike else 'like'} the training cells"
    shown = {} if subject.cell is not None else {"unlike": percent(subject.unlike)}
    return Evidence("U1", says, facts.MODEL, shown, {"unlike": subject.unlike})


def sentences(subject: Subject, known: dict[str, Evidence]) -> list[Plan]:
    """What is said, in its order; ``known``: the facts of :func:`table` by id."""
    plans = [_quoted("type", known, name="T1")]
    if "D1" in known:
        plans.append(_quoted("definition", known, definition="D1"))
    plans += _of_cell(subject, known) if subject.cell is not None else _of_group(subject, known)
    return plans


def _quoted(kind: str, known: dict[str, Evidence], behind: tuple[str, ...] = (), **places: str) -> Plan:
    """A sentence whose slots quote what the fact (id) of each shows under the slot's name."""
    return Plan(kind, {slot: Slot(known[i].shown[slot], (i,)) for slot, i in places.items()}, behind)


def _of_group(subject: Subject, known: dict[str, Evidence]) -> list[Plan]:
    group = Slot(subject.called_group, ("C1",))
    cells = Slot(known["C1"].shown["cells"], ("C1",))
    if subject.call.term == fields.UNKNOWN:
        plans = [Plan("unknown", {"cells": cells, "group": group}, ("P1",))]
    else:
        own = _quoted("call", known, probability="P1", agreement="P1")
        plans = [Plan("call", {**own.slots, "cells": cells, "group": group, "id": _id(subject, known)})]
    plans += _candidates(subject, known)
    if any(i.startswith(facts.GENE) for i in known):
        genes = {i: one for i, one in known.items() if one.kind == facts.GENE}
        figures = Slot(joined(one.shown["figures"] for one in genes.values()), tuple(genes))
        plans.append(Plan("genes", {"genes": figures}))
        plans.append(_quoted("tested", known, half="H1", rest="H1", confirmed="H1", chosen="H1", fdr="H1"))
    elif "H1" in known:
        plans.append(Plan("no_genes", {}, ("H1",)))
    else:
        plans.append(Plan("few", {}, ("C1",)))
    if subject.unlike >= UNLIKE_SAID:
        plans.append(_quoted("unlike", known, unlike="U1"))
    return plans


def _of_cell(subject: Subject, known: dict[str, Evidence]) -> list[Plan]:
    if subject.call.term == fields.UNKNOWN:
        plans = [Plan("cell_unknown", {}, ("P1",))]
    else:
        own = _quoted("cell_call", known, probability="P1")
        plans = [Plan("cell_call", {**own.slots, "id": _id(subject, known)})]
    plans += _candidates(subject, known)
    genes = {i: one for i, one in known.items() if one.kind == facts.GENE}
    shown = {i: one for i, one in genes.items() if one.values["counts"]}
    group = Slot(subject.whose_group, ("C1",))
    if shown:
        counts = Slot(joined(one.shown["counts"] for one in shown.values()), tuple(shown))
        plans.append(Plan("cell_genes", {"genes": counts, "group": group}))
    elif genes:
        plans.append(Plan("cell_no_genes", {"group": group}, tuple(genes)))
    if subject.unlike:
        plans.append(Plan("cell_unlike", {}, ("U1",)))
    return plans


def _id(subject: Subject, known: dict[str, Evidence]) -> Slot:
    """The term's id; the name of a type that has no term."""
    if "id" in known["P1"].shown:
        return Slot(known["P1"].shown["id"], ("P1",))
    return Slot(subject.call.name, ("T1",))


def _candidates(subject: Subject, known: dict[str, Evidence]) -> list[Plan]:
    """No narrower type of a coarse call, and what comes next."""
    plans = [Plan("coarse", {}, ("P1",))] if subject.call.status == fields.COARSE else []
    if "N1" in known:
        kind = "next" if subject.call.status == fields.ASSIGNED else "nearest"
        plans.append(_quoted(kind, known, candidate="N1", candidate_probability="N1"))
    return plans
