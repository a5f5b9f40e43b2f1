"""The plain methods that stand beside every annotation: what a minute without this tool gives.

All learn from the labelled training cells of the truth, of the types that the annotation's model was trained on too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.data.transforms import to_scale
from xmodal.data.vocabulary import prepared_settings
from xmodal.scores.annotation_texts import LOGISTIC, MAJORITY, NEIGHBORS
from xmodal.scores.embedding_comparators import Counts, atac_lsi, projected
from xmodal.scores.metrics import Array, Bools, Floats, blocks

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

log = logging.getLogger(__name__)
COMPONENTS = 50
NEAREST = 15
ROUNDS = 2_000  # of the solver, which needs a few hundred
TOP = 3
Strings = npt.NDArray[Any]


@dataclass(frozen=True)
class Guess:
    """What a method says of the scored cells: ``best`` id (cells,); the best ids ``top`` (cells, up to 3), where it ranks them.

    ``score``: probability of the best, (cells,); ``known``: high where the cell seems of a known type, (cells,).
    """

    best: Strings
    top: Strings | None = None
    score: Floats | None = None
    known: Floats | None = None


def majority(labels: Strings, cells: int) -> Guess:
    """The most frequent of ``labels`` for each of so many cells; of equally frequent ones the first by id."""
    names, many = np.unique(labels.astype(str), return_counts=True)
    return Guess(np.full(cells, str(names[many.argmax()]), object))


def rna_places(rna: AnnData, train: Bools, seed: int) -> Array:
    """Principal components of log1p CP10k of the cells of ``rna``, (cells, 50); ``train``: those that they are fitted to."""
    depth = rna.obs[fields.DEPTH].to_numpy(np.float64) if fields.DEPTH in rna.obs else _sums(rna)
    logged = [sp.csr_matrix(to_scale(sp.csr_matrix(rna.X[s]), depth[s], fields.LOG_CP10K)) for s in blocks(rna.n_obs)]
    return projected(sp.vstack(logged, format="csr"), train, COMPONENTS, seed)


def joint_places(mdata: MuData, names: Strings, train: Bools, modalities: list[str], seed: int) -> Array:
    """Components of every one of ``modalities`` side by side, each of variance one in the training cells, (cells, components).

    ``names``, ``train``: (cells,).  Counts: as :func:`rna_places`; peaks: latent semantic indexing; values: z-scored.  A cell
    that lacks a modality, and one without training cells, has zeros there.
    """
    kinds = prepared_settings(mdata)["modalities"]
    parts = []
    for m in modalities:
        adata = mdata.mod[m]
        place = adata.obs_names.get_indexer(names)
        have = place >= 0
        if (have & train).sum() < 2:
            continue
        own, taught = adata[place[have]], train[have]
        if kinds[m]["likelihood"] == fields.NB:
            found = rna_places(own, taught, seed)
        elif kinds[m]["likelihood"] == fields.BERNOULLI:
            found = atac_lsi(Counts(sp.csr_matrix(own.X), _sums(own), taught), seed)
        else:
            values = to_scale(own.X, None, kinds[m].get("scale") or fields.IDENTITY)
            found = projected(_standard(values, taught), taught, COMPONENTS, seed)
        whole = np.zeros((len(names), found.shape[1]), np.float32)
        whole[have] = _standard(found, taught)
        parts.append(whole)
    return np.concatenate(parts, 1)


def _standard(values: Array, train: Bools) -> Array:
    """z-scores by the training cells, (cells, features)."""
    mean, spread = values[train].mean(0, dtype=np.float64), values[train].std(0, dtype=np.float64)
    return np.asarray((values - mean) / np.where(spread > 0, spread, 1), np.float32)


def fitted(places: Array, train: Bools, labels: Strings, rows: Bools, seed: int) -> dict[str, Guess]:
    """Majority, logistic regression and neighbours in ``places`` (cells, components).

    ``train``, ``rows``: cells that teach, and that are scored; ``labels``: ids of all cells, (cells,).
    """
    log.info("logistic regression and neighbours on %d training cells", train.sum())
    own = labels[train].astype(str)
    out = {MAJORITY: majority(own, int(rows.sum()))}
    if len(np.unique(own)) < 2:
        return out
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    makers = {
        LOGISTIC: LogisticRegression(max_iter=ROUNDS, random_state=seed),
        NEIGHBORS: KNeighborsClassifier(min(NEAREST, len(own))),
    }
    for name, maker in makers.items():
        learned = maker.fit(places[train], own)
        out[name] = ranked(learned.predict_proba(places[rows]).astype(np.float64), learned.classes_)
    return out


def ranked(probability: Floats, classes: Strings) -> Guess:
    """The best of the ``classes`` (classes,) by their ``probability``, (cells, classes)."""
    order = np.argsort(-probability, axis=1, kind="stable")[:, :TOP]
    top = np.asarray(classes, object)[order]
    best = np.take_along_axis(probability, order[:, :1], 1).ravel()
    return Guess(top[:, 0], top, best, best)


def _sums(rna: AnnData) -> Floats:
    return np.asarray(rna.X.sum(1), np.float64).ravel()
