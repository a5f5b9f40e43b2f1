"""What is said of annotated cells: columns of ``obs``, tables of cells, labels, clusters and genes, the summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.annotating import decisions
from xmodal.data.on_disk import blocks
from xmodal.text.ontology import PSEUDO

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.annotating.candidates import Candidates
    from xmodal.annotating.clusters import Clusters
    from xmodal.annotating.scoring import Scored
    from xmodal.embedding.job import Job
    from xmodal.text.ontology import Ontology

STATUSES = (fields.ASSIGNED, fields.COARSE, fields.UNKNOWN)
BINS = 20  # of the histograms of scores
GENES_SHOWN = 10  # of each call
ENOUGH = 5  # cells of a call, below which its genes are those of single cells
SEPARATOR = "|"
Strings = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Annotated:
    """All that was found of the cells of ``job``; ``about``: the provenance."""

    job: Job
    candidates: Candidates
    ontology: Ontology
    scored: Scored
    clusters: Clusters | None
    about: dict[str, Any]

    def name(self, term: str) -> str:
        return name_of(term, self.ontology)


def name_of(term: str, ontology: Ontology) -> str:
    """The name of a term; the label itself where it has no term; "unknown" stays."""
    if term == fields.UNKNOWN:
        return fields.UNKNOWN
    return term.removeprefix(PSEUDO) if term.startswith(PSEUDO) else ontology.terms[term].name


def id_of(term: str) -> str:
    """What stands in the column of Cell Ontology ids: labels without a term have none."""
    return fields.UNKNOWN if term.startswith(PSEUDO) else term


def columns(found: Annotated) -> dict[str, Any]:
    """Columns of ``obs``, (cells,) each."""
    import pandas as pd

    calls, ids = found.scored.calls, found.candidates.ids
    names = {i: found.name(ids[i]) for i in np.unique(calls.best)}
    out: dict[str, Any] = {
        fields.CT_LABEL: _categories(_each(calls.term, found.name)),
        fields.TERM: _categories(_each(calls.term, id_of)),
        fields.CT_SCORE: calls.score.astype(np.float32),
        fields.CT_MARGIN: calls.margin.astype(np.float32),
        fields.CT_SECOND: _categories(np.array([names[i] for i in calls.best[:, 1]], object)),
        fields.CT_STATUS: pd.Categorical(calls.status, categories=STATUSES),
        fields.CT_KNOWN: found.scored.known.astype(np.float32),
        fields.CT_TOP: _top(calls, ids),
        **_votes(found),
        fields.UNLIKE: found.job.unlike,
    }
    return out


def _votes(found: Annotated) -> dict[str, Any]:
    """What the cluster of each cell is called; "unknown" for a cell without one, nothing where none vote."""
    if found.clusters is None or found.scored.votes is None:
        return {}
    import pandas as pd

    votes, codes = found.scored.votes, found.clusters.codes
    # Code -1 takes the last of each: what a cell without a cluster gets.
    label = np.append(_each(votes.term, found.name), fields.UNKNOWN)
    score, agreement = (np.append(v, np.nan).astype(np.float32) for v in (votes.score, agreements(found)))
    return {
        fields.CT_CLUSTER: pd.Categorical.from_codes(codes, list(found.clusters.names)),
        fields.CT_CLUSTER_LABEL: _categories(label[codes]),
        fields.CT_CLUSTER_SCORE: score[codes],
        fields.CT_CLUSTER_AGREEMENT: agreement[codes],
    }


def agreements(found: Annotated) -> npt.NDArray[np.float64]:
    """Share of the cells of each cluster whose own call is the cluster's, (clusters,)."""
    assert found.clusters is not None and found.scored.votes is not None
    codes, own = found.clusters.codes, found.scored.calls.term
    there = codes >= 0
    same = own[there] == found.scored.votes.term[codes[there]]
    many = np.bincount(codes[there], minlength=len(found.clusters.names))
    return np.bincount(codes[there], same, len(many)) / np.maximum(many, 1)


def _each(terms: Strings, word: Any) -> Strings:
    known = {t: word(t) for t in np.unique(terms.astype(str))}
    return np.array([known[t] for t in terms], object)


def _categories(values: Strings) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical(values.astype(str))


def _top(calls: decisions.Calls, ids: tuple[str, ...]) -> Strings:
    """``ID=probability|ID=probability|ID=probability`` of each cell; a bar in a label would part it, so it becomes a slash."""
    shown = {i: ids[i].replace(SEPARATOR, "/") for i in np.unique(calls.best)}
    return np.array(
        [
            SEPARATOR.join(f"{shown[i]}={p:.4f}" for i, p in zip(places, values, strict=True))
            for places, values in zip(calls.best, calls.probability, strict=True)
        ],
        object,
    )


# ---- tables


def cells(found: Annotated) -> pd.DataFrame:
    """``annotation.tsv``, cell by cell: the columns of ``obs``, why a cell is called nothing, its counts, its genes."""
    import pandas as pd

    out = pd.DataFrame({"cell": found.job.cells.names, **columns(found)})
    out["why"] = found.scored.calls.why
    out["counts"] = np.sum([found.job.cells.depth[m] for m in found.job.shared], axis=0).astype(np.int64)
    first = found.scored.made.first
    if first is not None:
        genes = np.append(np.array(found.job.cells.vocabulary[fields.RNA].features, object), "")
        out["genes"] = [SEPARATOR.join(g for g in genes[row] if g) for row in first]
    return out


def composition(found: Annotated) -> pd.DataFrame:
    """``composition.tsv``: of each label its term, cells, their share, how many are assigned and coarse, mean score."""
    import pandas as pd

    calls = found.scored.calls
    rows = []
    for term in np.unique(calls.term.astype(str)):
        own = calls.term == term
        rows.append(
            {
                "label": found.name(term),
                fields.TERM: id_of(term),
                "cells": int(own.sum()),
                "share": float(own.mean()),
                **{s: int((calls.status[own] == s).sum()) for s in STATUSES},
                "mean_score": float(calls.score[own].mean()),
                "mean_known": float(found.scored.known[own].mean()),
            }
        )
    table = pd.DataFrame(rows).sort_values(["cells", "label"], ascending=[False, True], kind="stable")
    last = table["label"] == fields.UNKNOWN  # what was not named is no type among others
    return pd.concat([table[~last], table[last]], ignore_index=True)


def clusters(found: Annotated) -> pd.DataFrame:
    """``clusters.tsv``: of each cluster its cells, label, term, status, score and agreement; empty where none vote."""
    import pandas as pd

    if found.clusters is None or found.scored.votes is None:
        return pd.DataFrame()
    votes, codes = found.scored.votes, found.clusters.codes
    return pd.DataFrame(
        {
            "cluster": found.clusters.names,
            "cells": np.bincount(codes[codes >= 0], minlength=len(votes)),
            "label": _each(votes.term, found.name),
            fields.TERM: _each(votes.term, id_of),
            "status": votes.status,
            "score": votes.score,
            "agreement": agreements(found),
        }
    )


def genes(found: Annotated) -> pd.DataFrame:
    """``genes.tsv``: of each call the genes that spoke most for it, and whether they are high in its cells.

    ``contribution``: mean over its cells, as a share of all that spoke for it; ``inside``, ``outside``: share of its cells,
    and of all others, in which the gene was seen; ``logfc``: log2 of its mean share of the counts there and elsewhere.
    """
    import pandas as pd

    features = found.job.cells.vocabulary[fields.RNA].features
    total = dict(sorted(found.scored.made.total.items()))
    best = {
        term: [int(g) for g in np.argsort(-v, kind="stable")[:GENES_SHOWN] if v[g] > 0] for term, v in total.items()
    }
    seen = _Seen.of(found.job.cells.counts[fields.RNA], found.scored.calls.term, best)
    rows = []
    for place, (term, own) in enumerate(best.items()):
        positive = float(total[term][total[term] > 0].sum())
        inside, outside = seen.shares(place, own)
        for rank, gene in enumerate(own, 1):
            rows.append(
                {
                    "label": found.name(term),
                    fields.TERM: id_of(term),
                    "cells": int(seen.cells[place]),
                    "rank": rank,
                    "gene": features[gene],
                    "contribution": total[term][gene] / positive,
                    "inside": inside[0][rank - 1],
                    "outside": outside[0][rank - 1],
                    "logfc": inside[1][rank - 1] - outside[1][rank - 1],
                }
            )
    names = ["label", fields.TERM, "cells", "rank", "gene", "contribution", "inside", "outside", "logfc"]
    return pd.DataFrame(rows, columns=names)


@dataclass(frozen=True)
class _Seen:
    """Sums over the cells of each call, and of all cells in the last row: how many, all counts, and for each of ``genes`` the
    cells with it and its counts, (calls + 1, genes).
    """

    genes: npt.NDArray[np.int64]
    cells: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    cells_with: npt.NDArray[np.float64]
    counts_of: npt.NDArray[np.float64]

    @classmethod
    def of(cls, counts: Any, called: Strings, best: dict[str, list[int]]) -> _Seen:
        """``called``: (cells,); ``best``: the genes that are looked at, by call."""
        genes = np.unique([gene for own in best.values() for gene in own]).astype(np.int64)
        place = {term: i for i, term in enumerate(best)}
        codes = np.array([place.get(term, -1) for term in called], np.int64)
        every = len(place)
        cells = np.append(np.bincount(codes[codes >= 0], minlength=every), len(codes)).astype(np.float64)
        total = np.zeros(every + 1)
        seen, sums = np.zeros((every + 1, len(genes))), np.zeros((every + 1, len(genes)))
        for rows, block in blocks(counts):
            inside = np.flatnonzero(codes[rows] >= 0)
            of_cell = np.append(codes[rows][inside], np.full(block.shape[0], every))
            cell = np.append(inside, np.arange(block.shape[0]))
            member = sp.csr_matrix((np.ones(len(cell)), (of_cell, cell)), (every + 1, block.shape[0]))
            part = block[:, genes].astype(np.float64)
            total += member @ np.asarray(block.sum(1, dtype=np.float64)).ravel()
            seen += (member @ (part > 0).astype(np.float64)).toarray()
            sums += (member @ part).toarray()
        return cls(genes, cells, total, seen, sums)

    def shares(self, call: int, genes: list[int]) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Of the cells of a call, and of all others: share of cells with each of ``genes``, and log2 of the gene's share of
        their counts, in parts per ten thousand; nan where there are no others.
        """
        where = np.searchsorted(self.genes, genes)
        own = self.cells[call], self.counts[call], self.cells_with[call, where], self.counts_of[call, where]
        every = self.cells[-1], self.counts[-1], self.cells_with[-1, where], self.counts_of[-1, where]
        found = []
        for cells, total, seen, sums in (own, tuple(a - b for a, b in zip(every, own, strict=True))):
            nobody = np.full(len(genes), np.nan)
            found.append((seen / cells, np.log2(1 + 1e4 * sums / max(total, 1.0))) if cells else (nobody, nobody))
        return found[0], found[1]


# ---- summary


def facts(found: Annotated) -> dict[str, Any]:
    """What provenance and summary say of the calls, beside the job's own facts."""
    calls = found.scored.calls
    edges = np.linspace(0, 1, BINS + 1)
    spread = {s: np.histogram(calls.score[calls.status == s], edges)[0].tolist() for s in STATUSES}
    known = np.histogram(found.scored.known, edges)[0].tolist()
    why = {w: int((calls.why == w).sum()) for w in (decisions.NOVEL, decisions.UNDECIDED, decisions.EMPTY)}
    return {
        "status": {s: int((calls.status == s).sum()) for s in STATUSES},
        "why_unknown": why,
        "composition": composition(found).round(4).to_dict("records"),
        "mean_score": round(float(calls.score.mean()), 4),
        "histogram": {"edges": edges.round(4).tolist(), "cells": spread, "known": known},
        "unlike": round(float(found.job.unlike.mean()), 4),
        "clusters": _clustered(found),
        "genes": _genes(found),
    }


def _clustered(found: Annotated) -> dict[str, Any] | None:
    if found.clusters is None or found.scored.votes is None:
        return None
    agree = agreements(found)
    many = np.bincount(found.clusters.codes[found.clusters.codes >= 0], minlength=len(agree))
    return {
        "key": found.clusters.key,
        "clusters": len(agree),
        "agreement": round(float((agree * many).sum() / max(many.sum(), 1)), 4),
    }


def _genes(found: Annotated) -> dict[str, list[str]]:
    """Label -> the genes that spoke most for it, in the order of the table."""
    table = genes(found)
    return {str(label): own["gene"].tolist() for label, own in table.groupby("label", sort=False)}


def summary(about: dict[str, Any]) -> dict[str, Any]:
    """``annotation.json`` and ``--summary``: the provenance without the model's settings, its JSON unfolded."""
    inner = json.loads(about["settings"])
    inner.pop("model_settings", None)
    return {**{k: about[k] for k in ("schema", "model", "checkpoint_sha256", "seed")}, **inner}
