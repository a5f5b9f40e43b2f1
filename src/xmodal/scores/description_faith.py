"""Are descriptions true?  Sentences against their evidence, evidence and genes against the cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xmodal import fields
from xmodal.describing import genes
from xmodal.describing.evidence import CELLS, DEFINITION, GENE, Evidence, by_id
from xmodal.describing.grounding import WORD, Prover
from xmodal.errors import InputRefused
from xmodal.scores.description_input import OF_GENES

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.description_input import Description, Unit
    from xmodal.scores.scoring import Scores
    from xmodal.text.ontology import Ontology

CLOSE = 1e-4  # figures are written with six digits
FIGURES = ("log2fc", "share_in", "share_out", "auroc")


@dataclass
class Faith:
    """``scores``; ``wrong``: what is not true, the first few of it, in words; ``counts``: of what there are how many."""

    scores: Scores
    wrong: list[str]
    counts: dict[str, int]


def checked(mdata: MuData, given: Description, ontology: Ontology) -> Faith:
    """All sentences, all evidence that can be recomputed, all genes that are named or were chosen."""
    known = frozenset(map(str, mdata.mod[fields.RNA].var_names))
    prover = Prover(known, ontology)
    wrong: list[str] = []
    proven = [_proven(unit, prover, wrong) for unit in given.units]
    traceable = [ok for unit in proven for ok in unit]
    named = {(u.group, g) for u in given.units for g in _named(u, known)}
    chosen = {(name, gene) for name, own in given.groups.items() for gene in own.genes}
    fdr = float((given.about.get("settings") or {}).get("fdr", 0.05))
    tested = _tested(mdata, given, sorted(named | chosen), fdr)
    true = dict(zip(zip(tested["group"], tested["gene"], strict=True), tested["confirmed"].astype(bool), strict=True))
    counts = _Counts(mdata)
    claims = [_holds(u, gene, true, counts, wrong) for u in given.units for gene in _named(u, known)]
    evidence = [_reproduced(u, e, tested, ontology, (counts, wrong)) for u in given.units for e in u.evidence]
    some = [ok for ok in evidence if ok is not None]
    scores = {
        "traceable": float(np.mean(traceable)),
        "evidence_true": float(np.mean(some)) if some else float("nan"),
        "gene_claims_true": float(np.mean(claims)) if claims else float("nan"),
        "genes_chosen_true": float(np.mean([true[c] for c in sorted(chosen)])) if chosen else float("nan"),
    }
    sizes = {
        "sentences": len(traceable),
        "evidence": len(some),
        "gene_claims": len(claims),
        "genes_chosen": len(chosen),
    }
    return Faith({k: v for k, v in scores.items() if np.isfinite(v)}, wrong, sizes)


def _proven(unit: Unit, prover: Prover, wrong: list[str]) -> list[bool]:
    table = by_id(unit.evidence)
    reasons = [prover.untraceable(sentence, table) for sentence in unit.sentences]
    wrong += [f"{unit.name}: {s.text}: {why}" for s, why in zip(unit.sentences, reasons, strict=True) if why]
    return [not why for why in reasons]


def _named(unit: Unit, known: frozenset[str]) -> list[str]:
    """Genes that the sentences about genes name, by their words and by the evidence that they cite, each once."""
    table = by_id(unit.evidence)
    found: dict[str, None] = {}
    for sentence in unit.sentences:
        if sentence.kind in OF_GENES:
            cited = [str(table[i].values["gene"]) for i in sentence.evidence if i in table and table[i].kind == GENE]
            found |= dict.fromkeys([*cited, *(w for w in WORD.findall(sentence.text) if w in known)])
    return list(found)


def _tested(mdata: MuData, given: Description, claims: list[tuple[str, str]], fdr: float) -> pd.DataFrame:
    """Claims (group, gene) in the cells in which genes were not chosen."""
    names = tuple(given.groups)
    place = {str(c): i for i, c in enumerate(mdata.obs_names)}
    codes = np.full(mdata.n_obs, -1)
    for code, group in enumerate(given.groups.values()):
        codes[[place[c] for c in group.tested_in]] = code
    if not claims:
        return pd.DataFrame(columns=list(genes.COLUMNS))
    if not (codes >= 0).any():
        raise InputRefused("no cells were kept to test genes in", where=given.where, do="describe again")
    return genes.test(genes.of_groups(mdata, names, codes, Path("truth")), claims, fdr)


class _Counts:
    """Counts of single genes in single cells."""

    def __init__(self, mdata: MuData) -> None:
        self.rna = mdata.mod[fields.RNA]
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self.row = {str(c): i for i, c in enumerate(self.rna.obs_names)}

    def of(self, cell: str, gene: str) -> int:
        """Nothing of what is not there."""
        if gene not in self.rna.var_names or cell not in self.row:
            return 0
        if gene not in self.columns:
            self.columns[gene] = np.asarray(self.rna[:, [gene]].X.todense()).ravel()
        return int(self.columns[gene][self.row[cell]])


def _holds(unit: Unit, gene: str, true: dict[tuple[str, str], bool], counts: _Counts, wrong: list[str]) -> bool:
    """Of a cell: its group has more of the gene, and the cell shows it."""
    found = true.get((unit.group, gene), False) and (unit.cell is None or counts.of(unit.cell, gene) > 0)
    if not found:
        wrong.append(f"{unit.name}: {gene} is not higher in the cells of {unit.group} in which it was tested")
    return found


def _reproduced(
    unit: Unit, one: Evidence, tested: pd.DataFrame, ontology: Ontology, by: tuple[_Counts, list[str]]
) -> bool | None:
    """Whether a fact comes out again; None of one that only the model knows."""
    counts, wrong = by
    found = _again(unit, one, tested, ontology, counts)
    if found is False:
        wrong.append(f"{unit.name}: {one.id} ({one.says}) does not come out again")
    return found


def _again(unit: Unit, one: Evidence, tested: pd.DataFrame, ontology: Ontology, counts: _Counts) -> bool | None:
    if one.kind == DEFINITION:
        term = str(one.values.get("term"))
        known = ontology[term].definition if term in ontology else ""
        return bool(known) and one.shown["definition"].rstrip(".") == known.rstrip(".")
    if one.kind == CELLS:
        return unit.cell is not None or int(one.values["cells"]) == len(unit.cells)
    if one.kind == GENE:
        own = tested[(tested["group"] == unit.group) & (tested["gene"] == one.values["gene"])]
        same = len(own) == 1 and all(np.isclose(own.iloc[0][k], one.values[k], rtol=CLOSE, atol=CLOSE) for k in FIGURES)
        return same and (unit.cell is None or counts.of(unit.cell, one.values["gene"]) == one.values["counts"])
    return None
