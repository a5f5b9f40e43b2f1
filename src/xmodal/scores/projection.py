"""True and predicted profiles in one picture: one PCA, one UMAP, so that positions can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import compiled
from xmodal.scores.scoring import Truth, profile

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.scores.metrics import Array

COMPONENTS = 20
MOST_FEATURES = 4_000  # those seen in most cells; keeps 3,000 cells of 100,000 peaks in memory
FEWEST = 15  # cells below which a UMAP shows nothing


@dataclass(frozen=True)
class Picture:
    """``place`` (2, cells, 2): where each of ``cells`` lies, as measured and as predicted."""

    cells: npt.NDArray[np.int64]
    place: npt.NDArray[np.float64]


def project(predicted: Array, truth: Truth, most: int, seed: int) -> Picture | None:
    """UMAP fitted to true and predicted profiles together; None where there are too few cells.

    The PCA is that of the true profiles.  Predictions vary less than measurements, so both sides are centred on their
    own mean and scaled by one factor each: the picture shows direction (which type), never the amount; the variance
    ratio does that.
    """
    count = len(truth.cells)
    if min(most, count) < FEWEST or len(truth.features) < 3:
        return None
    cells = np.arange(count)
    if count > most:
        cells = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    true, guess = _reduced(predicted, truth, cells, seed)
    both = np.concatenate([true, guess]).round(3)  # so that other rounding of the matrix products changes no map
    umap = compiled.umap()
    from sklearn.neighbors import NearestNeighbors

    near = min(15, len(cells) - 1)
    distance, index = (
        NearestNeighbors(n_neighbors=near).fit(both).kneighbors(both)
    )  # umap's own takes minutes to compile
    place = umap.UMAP(
        n_neighbors=near,
        min_dist=0.3,
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(index, distance, None),
        force_approximation_algorithm=True,
    ).fit_transform(both)
    return Picture(cells, np.asarray(place, dtype=np.float64).reshape(2, len(cells), 2))


def _reduced(predicted: Array, truth: Truth, cells: npt.NDArray[np.int64], seed: int) -> tuple[Any, Any]:
    from sklearn.decomposition import PCA

    seen = truth.values.nonzero()
    chosen = np.sort(np.argsort(-seen, kind="stable")[:MOST_FEATURES])
    true = profile(truth.values.subset(cells).columns(chosen), truth.scale, truth.mean[chosen]).astype(np.float32)
    guess = profile(predicted[np.ix_(cells, chosen)], truth.scale, truth.mean[chosen]).astype(np.float32)
    components = min(COMPONENTS, len(cells) - 1, len(chosen) - 1)
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(true)
    return _standard(pca.transform(true)), _standard((guess - guess.mean(0)) @ pca.components_.T)


def _standard(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    centred = values - values.mean(0)
    scaled: npt.NDArray[Any] = centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)
    return scaled


def table(name: str, picture: Picture, truth: Truth) -> pd.DataFrame:
    """Rows of ``umap.tsv``."""
    import pandas as pd

    labels = np.full(len(truth.cells), "") if truth.labels is None else truth.labels
    parts = [
        pd.DataFrame(
            {
                "target": name,
                "cell": truth.cells[picture.cells],
                "kind": kind,
                "umap1": place[:, 0].round(4),
                "umap2": place[:, 1].round(4),
                "label": labels[picture.cells],
            }
        )
        for kind, place in zip(("true", "predicted"), picture.place, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)
