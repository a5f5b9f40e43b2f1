"""Label transfer in the manner of Seurat: clusters of the RNA of training cells, recognised in new cells, and their means.

Low-rank RNA (of training cells) is clustered (k-means), a logistic regression recognises the clusters from the source's
low-rank input, and a test cell gets the mean profile of its cluster in the target.  The number of clusters, the penalty,
and whether the likeliest cluster alone counts or each by its probability, are chosen on the validation cells.
"""

from __future__ import annotations

import itertools

import numpy as np
from contract import Array, Job, agreement, read_job
from low_rank import embedding
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

CLUSTERS, STRENGTHS, WAYS = (8, 15, 25), (0.001, 0.01, 0.1), ("likeliest", "weighted")


def fitted(job: Job, zs: Array, rna: Array, y: Array, setting: tuple[int, float]) -> tuple[LogisticRegression, Array]:
    """The classifier from source coordinates ``zs`` to clusters of ``rna``, and the mean of ``y`` in each cluster."""
    labels = KMeans(setting[0], n_init=3, random_state=job.seed).fit_predict(rna)
    model = LogisticRegression(C=setting[1], max_iter=300, random_state=job.seed).fit(zs, labels)
    return model, np.stack([y[labels == c].mean(0) for c in model.classes_])


def apply(model: LogisticRegression, means: Array, z: Array, way: str) -> Array:
    chance = model.predict_proba(z)
    return (chance @ means if way == "weighted" else means[chance.argmax(1)]).astype(np.float32)


def predict(job: Job, source: str, target: str) -> Array:
    train, valid, test = job.rows("train"), job.rows("valid"), job.rows("test")
    y = job.values(target)
    with job.timed("train"):
        zs, zr = embedding(job, source, train), embedding(job, "rna", train)
        tried = {}
        for setting in itertools.product(CLUSTERS, STRENGTHS):
            model = fitted(job, zs[train], zr[train], y[train], setting)
            for way in WAYS:
                tried[(*setting, way)] = agreement(apply(*model, zs[valid], way), y[valid])
        best = max(tried, key=tried.__getitem__)
        job.chosen[target] = dict(zip(("clusters", "C", "way"), best, strict=True))
        both = np.sort(np.concatenate([train, valid]))
        zs, zr = embedding(job, source, both), embedding(job, "rna", both)
        model, means = fitted(job, zs[both], zr[both], y[both], best[:2])
    with job.timed("predict"):
        return apply(model, means, zs[test], best[2])


def main() -> None:
    job = read_job()
    job.write(rna=predict(job, job.second, "rna"), **{job.second: predict(job, "rna", job.second)})


if __name__ == "__main__":
    main()
