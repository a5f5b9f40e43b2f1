"""What annotate says of cells, read from the columns that it writes, and the groups of cells that are described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from xmodal import fields
from xmodal.describing.settings import AUTO
from xmodal.errors import InputRefused
from xmodal.markers.groups import MOST_GROUPS, coded

if TYPE_CHECKING:
    from xmodal.describing.settings import DescribeSettings
    from xmodal.text.ontology import Ontology

Index = npt.NDArray[np.int64]
NEEDED = (fields.TERM, fields.CT_LABEL, fields.CT_SCORE, fields.CT_STATUS, fields.CT_TOP)
VOTED = (fields.CT_CLUSTER, fields.CT_CLUSTER_LABEL, fields.CT_CLUSTER_SCORE)


@dataclass(frozen=True)
class Call:
    """What a group or cell is called.  ``term``: an id or "unknown"; ``score``: mean calibrated probability of it.

    ``agreement``: share of the cells that get this term one by one; ``rest``: other candidates with their mean probabilities,
    the best first.
    """

    term: str
    name: str
    status: str
    score: float
    agreement: float
    rest: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Called:
    """All cells: ``term``, ``score``, ``status`` (cells,); ``top``: the best candidates of each, (id, probability)."""

    term: npt.NDArray[np.object_]
    score: npt.NDArray[np.float64]
    status: npt.NDArray[np.object_]
    top: tuple[tuple[tuple[str, float], ...], ...]
    ontology: Ontology

    def __len__(self) -> int:
        return len(self.term)

    def name(self, term: str) -> str:
        return fields.UNKNOWN if term == fields.UNKNOWN else self.ontology[term].name

    def cell(self, row: int) -> Call:
        return self._call(np.array([row]), str(self.term[row]), float(self.score[row]))

    def group(self, rows: Index, term: str, score: float) -> Call:
        """The group of the cells ``rows``, which is called ``term`` with a probability of ``score``."""
        return self._call(rows, term, score)

    def _call(self, rows: Index, term: str, score: float) -> Call:
        means: dict[str, float] = {}
        for row in rows:
            for candidate, probability in self.top[row]:
                means[candidate] = means.get(candidate, 0.0) + probability / len(rows)
        rest = sorted(((c, p) for c, p in means.items() if c != term), key=lambda found: (-found[1], found[0]))
        status = fields.UNKNOWN if term == fields.UNKNOWN else fields.ASSIGNED if term in means else fields.COARSE
        agreement = float(np.mean([self.term[row] == term for row in rows]))
        return Call(term, self.name(term), status, score, agreement, tuple(rest))


@dataclass(frozen=True)
class Described:
    """The groups: ``names``, ``codes`` (cells,), -1 for none, the call of each; ``key``: the column they come from."""

    key: str
    names: tuple[str, ...]
    codes: Index
    calls: tuple[Call, ...]

    def rows(self, group: int) -> Index:
        return np.flatnonzero(self.codes == group)


def annotated(obs: pd.DataFrame) -> bool:
    """Whether these are columns of annotate: all of them, or none."""
    return all(name in obs for name in NEEDED)


def called(obs: pd.DataFrame, ontology: Ontology) -> Called:
    """The calls of cells from annotate's columns; raises :class:`InputRefused` where they are not as annotate writes them."""
    names = {fields.UNKNOWN: fields.UNKNOWN}
    label = obs[fields.CT_LABEL].astype(str).to_numpy(object)
    term = obs[fields.TERM].astype(str).to_numpy(object)
    for known in ontology:
        names.setdefault(ontology[known].name, known)
    # Types without a term are "unknown" in the column that the CELLxGENE schema reads, but have a name.
    term = np.array([_term(t, n, names, ontology) for t, n in zip(term, label, strict=True)], object)
    score = obs[fields.CT_SCORE].to_numpy(np.float64)
    top = tuple(_parsed(str(text)) for text in obs[fields.CT_TOP])
    return Called(term, score, obs[fields.CT_STATUS].astype(str).to_numpy(object), top, ontology)


def _term(term: str, label: str, names: dict[str, str], ontology: Ontology) -> str:
    found = names.get(label, fields.UNKNOWN) if term == fields.UNKNOWN else term
    if found != fields.UNKNOWN and found not in ontology:
        raise InputRefused(
            f"obs['{fields.TERM}'] has {found}, which the checkpoint's ontology does not have",
            do="annotate with this checkpoint",
        )
    return found


def _parsed(text: str) -> tuple[tuple[str, float], ...]:
    found = []
    for part in filter(None, text.split("|")):
        term, sign, probability = part.rpartition("=")
        try:
            found.append((term, float(probability)))
        except ValueError:
            sign = ""
        if not sign:
            raise InputRefused(
                f"obs['{fields.CT_TOP}'] has '{part}', not ID=PROBABILITY", do="run xmodal annotate again"
            )
    return tuple(found)


def groups(obs: pd.DataFrame, found: Called, settings: DescribeSettings) -> Described:
    """The groups to describe; those of a column whose clusters annotate did not vote over are refused."""
    key = settings.group_by
    if key == AUTO and voted_over(obs, fields.CLUSTER):
        key = fields.CLUSTER
    if key == AUTO:
        return _of_labels(obs, found)
    if not voted_over(obs, key):
        raise InputRefused(
            f"the clusters that voted are not those of '{key}'",
            where="--group-by",
            do=f"annotate with --cluster-key {key}, or give the cells without annotate's columns",
        )
    names, codes = coded(obs, key, "--group-by", MOST_GROUPS)
    terms = {found.name(t): t for t in set(found.term) | {c for top in found.top for c, _ in top}}
    terms |= {found.ontology[t].name: t for t in found.ontology if found.ontology[t].name not in terms}
    calls = []
    for group in range(len(names)):
        rows = np.flatnonzero(codes == group)
        label, score = (
            str(obs[fields.CT_CLUSTER_LABEL].iloc[rows[0]]),
            float(obs[fields.CT_CLUSTER_SCORE].iloc[rows[0]]),
        )
        calls.append(found.group(rows, terms.get(label, fields.UNKNOWN), score))
    return Described(key, names, codes, tuple(calls))


def voted_over(obs: pd.DataFrame, key: str) -> bool:
    """Whether the clusters that voted are those of the obs column ``key``."""
    if key not in obs or not all(name in obs for name in VOTED):
        return False
    if key == fields.CT_CLUSTER:
        return True
    own, theirs = obs[key].astype(str), obs[fields.CT_CLUSTER].astype(str)
    pairs = len(set(zip(own, theirs, strict=True)))
    return pairs == own.nunique() == theirs.nunique()


def _of_labels(obs: pd.DataFrame, found: Called) -> Described:
    """All cells of one label together: that of their cluster where clusters voted, else their own."""
    term, score = found.term, found.score
    if all(name in obs for name in VOTED):
        label = obs[fields.CT_CLUSTER_LABEL].astype(str)
        own = {found.ontology[t].name: t for t in found.ontology}
        term = np.array([own.get(name, fields.UNKNOWN) for name in label], object)
        score = obs[fields.CT_CLUSTER_SCORE].to_numpy(np.float64)
    terms, codes = np.unique(term.astype(str), return_inverse=True)
    names = tuple(found.name(t) for t in terms)
    rows = [np.flatnonzero(codes == i) for i in range(len(terms))]
    calls = tuple(found.group(r, str(t), float(score[r].mean())) for r, t in zip(rows, terms, strict=True))
    return Described(fields.CT_LABEL, names, codes.astype(np.int64), calls)
