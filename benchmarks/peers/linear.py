"""Linear controls and nearest neighbours between LSI-50 and PCA-50.

--setting method=ridge: penalty from 1 .. 1e5 by squared error on validation cells (Pearson hardly depends on it);
method=pls with components=10 (pinned) or components=auto (rank from 2 to 50 by Pearson on validation cells);
method=knn: the mean of the 50 nearest training cells by cosine.  What is chosen on the validation cells is refitted on
training and validation cells.  PLS predicts 50 SVD scores of peaks, ridge the peaks themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from contract import Array, Job, agreement, read_job
from low_rank import RANK, embedding
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
RANKS = (2, 4, 6, 8, 10, 12, 15, 20, 30, 50)
Predictor = Callable[[Array], Array]


def ridge(z: Array, y: Array, penalty: float, _: Job) -> Predictor:
    return Ridge(penalty).fit(z, y).predict


def pls(z: Array, y: Array, components: int, job: Job) -> Predictor:
    if not set(np.unique(y[:50])) <= {0.0, 1.0}:
        return PLSRegression(components, scale=False).fit(z, y).predict
    scores = TruncatedSVD(min(RANK, *(n - 1 for n in y.shape)), random_state=job.seed).fit(y)
    model = PLSRegression(components, scale=False).fit(z, scores.transform(y))
    return lambda new: model.predict(new) @ scores.components_


def knn(z: Array, y: Array, neighbours: int, _: Job) -> Predictor:
    near = NearestNeighbors(n_neighbors=min(neighbours, len(z)), metric="cosine").fit(z)
    return lambda new: np.stack([y[i].mean(0) for i in near.kneighbors(new, return_distance=False)])


def closeness(predicted: Array, true: Array) -> float:
    return -float(((predicted - true) ** 2).mean())


def options(job: Job) -> tuple[Callable[..., Predictor], tuple[float, ...]]:
    """The method and the values of its setting to choose from."""
    method = job.settings["method"]
    if method == "ridge":
        return ridge, PENALTIES
    if method == "pls":
        components = job.settings["components"]
        return pls, RANKS if components == "auto" else (int(components),)
    return knn, (50,)


def predict(job: Job, source: str, target: str) -> Array:
    """The target of the test cells."""
    fit, choices = options(job)
    train, valid, test = job.rows("train"), job.rows("valid"), job.rows("test")
    both = np.sort(np.concatenate([train, valid]))
    y = job.values(target)
    with job.timed("train"):
        best = choices[0]
        if len(choices) > 1:
            z = embedding(job, source, train)
            choices = tuple(c for c in choices if fit is ridge or c <= min(z.shape[1], y.shape[1]))
            good = closeness if fit is ridge else agreement
            best = max(choices, key=lambda c: good(fit(z[train], y[train], c, job)(z[valid]), y[valid]))
        job.chosen[target] = best
        z = embedding(job, source, both)
        model = fit(z[both], y[both], best, job)
    with job.timed("predict"):
        return model(z[test])


def main() -> None:
    job = read_job()
    job.write(rna=predict(job, job.second, "rna"), **{job.second: predict(job, "rna", job.second)})


if __name__ == "__main__":
    main()
