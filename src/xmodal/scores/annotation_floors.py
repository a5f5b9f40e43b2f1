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
from xmodal.scores.annotation_texts import LOGISTIC, MAJORITY, NEIGHBORS
from xmodal.scores.embedding_comparators import projected
from xmodal.scores.metrics import Bools, Floats, blocks

if TYPE_CHECKING:
    from anndata import AnnData

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


def fitted(rna: AnnData, train: Bools, labels: Strings, rows: Bools, seed: int) -> dict[str, Guess]:
    """Majority, logistic regression and neighbours; ``train``, ``rows``: cells of ``rna`` that teach, and that are scored.

    ``labels``: ids of all cells of ``rna``, (cells,).
    """
    depth = rna.obs[fields.DEPTH].to_numpy(np.float64) if fields.DEPTH in rna.obs else _sums(rna)
    logged = [sp.csr_matrix(to_scale(sp.csr_matrix(rna.X[s]), depth[s], fields.LOG_CP10K)) for s in blocks(rna.n_obs)]
    log.info("logistic regression and neighbours on %d training cells", train.sum())
    places = projected(sp.vstack(logged, format="csr"), train, COMPONENTS, seed)
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
        out[name] = _ranked(learned.predict_proba(places[rows]).astype(np.float64), learned.classes_)
    return out


def _ranked(probability: Floats, classes: Strings) -> Guess:
    order = np.argsort(-probability, axis=1, kind="stable")[:, :TOP]
    top = np.asarray(classes, object)[order]
    best = np.take_along_axis(probability, order[:, :1], 1).ravel()
    return Guess(top[:, 0], top, best, best)


def _sums(rna: AnnData) -> Floats:
    return np.asarray(rna.X.sum(1), np.float64).ravel()
