"""A joint embedding beside plain ones of the same counts: every score of every method, on the same cells."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import fields
from xmodal.data.vocabulary import Vocabulary
from xmodal.scores import embedding_clusters, embedding_measures, validation_cells
from xmodal.scores.embedding_comparators import JOINED, PLAIN, Counts, concatenated
from xmodal.scores.embedding_input import Embedding, Groups, Scene, scene
from xmodal.scores.embedding_measures import MIN_CELLS, MIXED, NEIGHBORS, Neighbors
from xmodal.scores.embedding_wnn import CANDIDATES, weighted_neighbors
from xmodal.scores.evaluation_settings import EvaluationSettings
from xmodal.scores.metrics import Array, Bools, Floats, Index

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.scoring import Scores

log = logging.getLogger(__name__)
OWN = "embedding"
CLUSTERINGS = 5  # seeds: the middle one of five moved by .001 to .013 where single ones moved by .02 to .04
SCALES = {fields.RNA: fields.LOG_CP10K, fields.ATAC: fields.BINARY, fields.PROTEIN: fields.CLR}


@dataclass(frozen=True)
class Space:
    """Where cells lie: coordinates ``parts[0]`` (cells, dimensions), or several of them, joined by weighted neighbours.

    ``has`` (cells,): which cells have all that it is made of; the rows of others are without meaning.
    """

    parts: list[Array]
    has: Bools

    @property
    def coordinates(self) -> Array | None:
        return self.parts[0] if len(self.parts) == 1 else None

    def near(self, rows: Bools, k: int) -> Neighbors:
        """The ``k`` nearest of each of the cells ``rows`` among them."""
        own = [z[rows] for z in self.parts]
        return embedding_measures.neighbors(own[0], k) if len(own) == 1 else weighted_neighbors(own, k)

    def across(self, rows: Bools, known: Bools, k: int) -> Index:
        """The nearest of the cells ``known`` to each of ``rows``, (rows, k), as numbers of ``known``."""
        if len(self.parts) == 1:
            return embedding_measures.neighbors(self.parts[0][rows], k, self.parts[0][known]).index
        both = np.concatenate([np.flatnonzero(rows), np.flatnonzero(known)])
        first = int(rows.sum())
        index = weighted_neighbors([z[both] for z in self.parts], CANDIDATES).index[:first]
        order = np.argsort(index < first, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(
            index, order, 1
        )  # where too few are known, others follow: the nearest stands for them
        return np.where(found < first, np.maximum(found[:, :1], first), found) - first


@dataclass
class Result:
    """Scores of each method, and what a reader must know of them; ``clusters``: (resolution, number) of each method."""

    scene: Scene
    embedding: Embedding
    methods: dict[str, Scores] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)
    clusters: dict[str, tuple[float, int]] = field(default_factory=dict)
    paired: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        log.warning("%s", text)
        self.notes.append(text)


def evaluate(mdata: MuData, embedding: Embedding, settings: EvaluationSettings, seed: int) -> Result:
    """Score ``embedding`` and the comparators; raises :class:`InputRefused` where truth and embedding do not fit."""
    found = scene(mdata, embedding, settings)
    result = Result(found, embedding)
    result.notes += validation_cells.notes(embedding.about, found.which)
    if found.left_out:
        result.note(f"{found.left_out} {found.which} cells have no modality that the model knows and are left out")
    labels, batches = _worthwhile(result)
    depths = _depths(mdata, found)
    for name, space in _spaces(mdata, result, settings, seed):
        rows = found.scored & space.has
        log.info("%s: %d cells", name, rows.sum())
        result.cells[name] = int(rows.sum())
        if rows.sum() <= NEIGHBORS:
            result.note(f"{name}: only {rows.sum()} of the scored cells have what it is made of, so it is not scored")
            continue
        scores = result.methods[name] = {}
        if labels is not None:
            scores |= _by_label(name, space, labels, result, seed)
        if batches is not None:
            scores |= _mixing(space, batches, found)
        if space.coordinates is not None:
            scores |= _leaks(space, depths, labels, found, seed)
        if name == OWN:
            scores |= _meeting(result, depths, labels)
    result.methods = {m: {k: float(v) for k, v in s.items() if np.isfinite(v)} for m, s in result.methods.items()}
    return result


def _worthwhile(result: Result) -> tuple[Groups | None, Groups | None]:
    """Labels and batches, as far as there are two of each among the cells that they are scored on."""
    found = result.scene
    labels, batches = found.labels, found.batches
    if labels is not None and len(np.unique(labels.among(labels.known(found.scored)))) < 2:
        result.note(f"the scored cells have fewer than two labels in '{labels.key}', so nothing is scored by label")
        labels = None
    if batches is not None and len(np.unique(batches.among(batches.known(found.scored | found.train)))) < 2:
        result.note(f"all cells are of one batch in '{batches.key}', so how batches mix is not scored")
        batches = None
    return labels, batches


# ---- the methods


def _spaces(mdata: MuData, result: Result, settings: EvaluationSettings, seed: int) -> Iterator[tuple[str, Space]]:
    """The embedding, then every comparator that can be made, one at a time."""
    found = result.scene
    every = np.ones(len(found.names), bool)
    yield OWN, Space([result.embedding.z[found.row]], every)
    asked = settings.comparator_names()
    needed = {*asked, *(part for name in asked for part in JOINED.get(name, ()))}
    plain = {name: _plain(mdata, name, result, seed) for name in PLAIN if name in needed}
    for name in asked:
        parts = [plain[p] for p in JOINED.get(name, (name,)) if plain.get(p) is not None]
        spaces = [s for s in parts if s is not None]
        if len(spaces) < (2 if name in JOINED else 1):
            if settings.comparators != EvaluationSettings.model_fields["comparators"].default:
                result.note(f"the comparator '{name}' cannot be made of the modalities of the truth")
            continue
        has = np.logical_and.reduce([s.has for s in spaces])
        blocks = [s.parts[0] for s in spaces]
        if name == "concatenated":
            learned = found.train if (found.train & has).any() else has
            blocks = [concatenated(blocks, learned & has)]
        yield name, Space(blocks, has)


def _plain(mdata: MuData, name: str, result: Result, seed: int) -> Space | None:
    """A comparator of one modality, fitted to the truth's training cells (to all where there are none)."""
    modality, make = PLAIN[name]
    if modality not in mdata.mod or Vocabulary.from_prepared(mdata)[modality].scale != SCALES[modality]:
        return None
    adata = mdata.mod[modality]
    part = np.full(adata.n_obs, "")
    if fields.SPLIT in mdata.obs:
        part = mdata.obs[fields.SPLIT].astype(str).reindex(adata.obs_names).to_numpy(str)
    train = np.isin(part, validation_cells.learned_parts(result.scene.which))
    if not train.any():
        text = "the file holds no training cells: the comparators were fitted to the scored cells themselves"
        if text not in result.notes:
            result.note(text)
        train = np.isin(adata.obs_names, result.scene.names)
    row = adata.obs_names.get_indexer(result.scene.names)
    if min(train.sum(), (row >= 0).sum()) <= NEIGHBORS:
        return None
    log.info("making %s", name)
    z = make(Counts(adata.X, _depth(adata), train), seed)
    return Space([z[np.maximum(row, 0)]], row >= 0)


def _depth(adata: Any) -> Floats:
    """Total counts of each cell, over all features that were measured where the file says so."""
    if fields.DEPTH in adata.obs:
        return adata.obs[fields.DEPTH].to_numpy(np.float64)
    return np.asarray(adata.X.sum(1), dtype=np.float64).ravel()


def _depths(mdata: MuData, found: Scene) -> dict[str, Floats]:
    """Log total counts by modality, (cells,), nan where a cell lacks it; modalities that are no counts are left out."""
    out = {}
    vocabulary = Vocabulary.from_prepared(mdata)
    for name, adata in mdata.mod.items():
        if vocabulary[name].scale == fields.IDENTITY:
            continue
        row = adata.obs_names.get_indexer(found.names)
        logged = np.log(np.maximum(_depth(adata), 1))
        out[name] = np.where(row >= 0, logged[np.maximum(row, 0)], np.nan)
    return out


# ---- the scores


def _by_label(name: str, space: Space, labels: Groups, result: Result, seed: int) -> Scores:
    """Do cells of one label lie together?"""
    found = result.scene
    rows = labels.known(found.scored & space.has)
    codes = labels.among(rows)
    if len(codes) <= NEIGHBORS or codes.max() < 1:
        return {}
    near = space.near(rows, NEIGHBORS)
    scores = {"knn_accuracy": float((embedding_measures.voted(near.index, codes) == codes).mean())}
    test, train = labels.known(found.heldout & space.has), labels.known(found.train & space.has)
    if test.any() and train.sum() >= NEIGHBORS:
        told = embedding_measures.voted(space.across(test, train, NEIGHBORS), labels.codes[train])
        scores["knn_accuracy_heldout"] = float((told == labels.codes[test]).mean())
    scores |= _clustered(name, near, codes, result, seed)
    if space.coordinates is not None:
        scores["silhouette"] = embedding_measures.silhouette(space.coordinates[rows], codes, seed)
    return scores


def _clustered(name: str, near: Neighbors, codes: Index, result: Result, seed: int) -> Scores:
    """Do clusters agree with labels?  The middle one, by ARI, of several clusterings: single ones scatter by a tenth."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    wanted = int(codes.max()) + 1
    graph = embedding_clusters.graph_of(near)
    runs = [embedding_clusters.matched(graph, wanted, seed + i) for i in range(CLUSTERINGS)]
    ari = [float(adjusted_rand_score(codes, run.codes)) for run in runs]
    middle = int(np.argsort(ari, kind="stable")[CLUSTERINGS // 2])
    clusters = runs[middle]
    result.clusters[name] = clusters.resolution, clusters.number
    if clusters.number != wanted:
        result.note(f"{name}: {clusters.number} clusters, the nearest to the {wanted} labels that there is")
    return {"ari": ari[middle], "nmi": float(normalized_mutual_info_score(codes, clusters.codes))}


def _mixing(space: Space, batches: Groups, found: Scene) -> Scores:
    """Do batches mix?  Of the scored and the training cells together, since a batch may be held out whole."""
    rows = batches.known((found.scored | found.train) & space.has)
    codes = batches.among(rows)
    if len(codes) <= NEIGHBORS or codes.max() < 1:
        return {}
    near = space.near(rows, MIXED)
    return {"ilisi": embedding_measures.ilisi(near, codes), "kbet": embedding_measures.kbet(near, codes)}


def _leaks(space: Space, depths: dict[str, Floats], labels: Groups | None, found: Scene, seed: int) -> Scores:
    """How well each modality's depth can be told from the embedding."""
    scores = {}
    assert space.coordinates is not None
    for modality, depth in depths.items():
        every = found.scored & space.has & np.isfinite(depth)
        for within in (False, True):
            rows = labels.known(every) if within and labels is not None else every
            if rows.sum() < MIN_CELLS or (within and labels is None):
                continue
            types = labels.among(rows) if within and labels is not None else None
            for trees in (False, True):
                name = f"depth_r2_{'within_' * within}{'trees_' * trees}{modality}"
                scores[name] = embedding_measures.depth_r2(space.coordinates[rows], depth[rows], types, trees, seed)
    return scores


def _meeting(result: Result, depths: dict[str, Floats], labels: Groups | None) -> Scores:
    """Do the embeddings of each modality alone put a cell in one place?"""
    found, alone = result.scene, result.embedding.by_modality
    scores: Scores = {}
    if len(alone) < 2 and not found.several:
        each = ", ".join(f"{m} of {cells} cells" for m, cells in found.modalities.items())
        result.note(f"the scored cells have a single modality each ({each}), so modalities cannot be compared")
        return scores
    if len(alone) < 2:
        result.note(
            "the file does not hold the embedding of each modality alone (xmodal embed --by-modality), so how well "
            "modalities meet is not scored"
        )
        return scores
    places = {m: z[found.row] for m, z in alone.items()}
    for a, b in combinations(places, 2):
        rows = found.scored & np.isfinite(places[a]).all(1) & np.isfinite(places[b]).all(1)
        pair = f"{a}_{b}"
        result.paired[pair] = int(rows.sum())
        if rows.sum() <= NEIGHBORS:
            result.note(f"{rows.sum()} scored cells have both {a} and {b}, too few to score how well they meet")
            continue
        ending = "" if len(places) == 2 else f"_{pair}"
        scores |= _pair(places[a], places[b], rows, labels, ending)
        known = [depths[m] for m in (a, b) if m in depths]
        seen = rows & np.isfinite(known).all(0) if known else rows & False
        if seen.sum() > NEIGHBORS:
            first, second = np.zeros_like(places[a], np.float64), np.zeros_like(places[b], np.float64)
            cue = np.stack(known, 1)[seen]
            first[seen] = embedding_measures.without(places[a][seen], cue)
            second[seen] = embedding_measures.without(places[b][seen], cue)
            scores |= _pair(first, second, seen, labels, f"_without_depth{ending}")
    return scores


def _pair(first: Any, second: Any, rows: Bools, labels: Groups | None, ending: str) -> Scores:
    """FOSCTTM over the cells ``rows``; label match over all pairs of those that have a label."""
    scores = {f"foscttm{ending}": embedding_measures.matching(first[rows], second[rows], None)[0]}
    if labels is not None and (known := labels.known(rows)).sum() > NEIGHBORS:
        match = embedding_measures.matching(first[known], second[known], labels.codes[known])[1]
        scores[f"label_match{ending}"] = match
    return scores
