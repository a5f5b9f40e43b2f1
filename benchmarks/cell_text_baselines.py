"""What names of cells are compared with: logistic regression, neighbours, CellTypist, and ridge from texts to types.

CellTypist is used as it is installed.  Its call of scikit-learn's LogisticRegression names an argument that is gone in 1.8
(`multi_class="ovr"`); here it gets a class that does what the argument meant, one logistic regression for each type.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

if TYPE_CHECKING:
    from xmodal.text.bank import TextBank

Array = npt.NDArray[np.float64]
Names = npt.NDArray[Any]
COMPONENTS, NEIGHBOURS = 50, 15
PENALTIES = 10.0 ** np.arange(-2, 2.1, 0.5)  # of the ridge


def logged(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log1p of counts per 10,000 of the file's genes."""
    total = np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    out = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    out.data = np.log1p(out.data * np.repeat(1e4 / total, np.diff(out.indptr))).astype(np.float32)
    return out


class Components:
    """The 50 principal components of training cells."""

    def __init__(self, train: sp.csr_matrix) -> None:
        self.found = PCA(COMPONENTS, random_state=0).fit(train.toarray())

    def __call__(self, values: sp.csr_matrix) -> Array:
        out: Array = self.found.transform(values.toarray())
        return out


class OneVersusRest(LogisticRegression):
    """LogisticRegression(multi_class="ovr") as it was up to scikit-learn 1.7."""

    def __init__(
        self,
        C: float = 1.0,
        solver: str = "lbfgs",
        max_iter: int = 100,
        multi_class: str = "ovr",
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(C=C, solver=solver, max_iter=max_iter)
        self.multi_class, self.n_jobs = multi_class, n_jobs

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> OneVersusRest:
        self.classes_ = np.unique(y)
        each = [
            LogisticRegression(C=self.C, solver=self.solver, max_iter=self.max_iter).fit(X, y == c)
            for c in self.classes_
        ]
        self.coef_ = np.vstack([m.coef_ for m in each])
        self.intercept_ = np.concatenate([m.intercept_ for m in each])
        return self


def celltypist_of(given: str | None) -> Any:
    """The module, from a folder it was installed to (pip install --target) or a Python that has it; None, said, without."""
    if given is None:
        logging.getLogger("benchmark").warning("CellTypist: skipped, because --celltypist is not given")
        return None
    place = Path(given)
    if place.is_file():
        where = "import importlib.util as u; print(u.find_spec('celltypist').origin)"
        place = Path(
            subprocess.run([given, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
        ).parents[1]
    sys.path.append(str(place))
    import celltypist

    logging.getLogger("celltypist").setLevel(logging.ERROR)
    celltypist.logger.set_level(logging.ERROR)
    sys.modules["celltypist.train"].LogisticRegression = OneVersusRest  # type: ignore[attr-defined]
    return celltypist


class CellTypist:
    """Trained with its defaults on log1p CP10k."""

    def __init__(self, module: Any, values: sp.csr_matrix, genes: Names, types: Names) -> None:
        self.module = module
        cells = ad.AnnData(values, var=pd.DataFrame(index=genes))
        cells.obs["type"] = pd.Categorical(types)
        self.model = module.train(cells, labels="type", n_jobs=1)

    def __call__(self, values: sp.csr_matrix, genes: Names) -> tuple[Names, Array]:
        """Names of cells, and the probability of the best."""
        cells = ad.AnnData(values, var=pd.DataFrame(index=genes))
        cells.obs_names = [f"c{i}" for i in range(len(cells))]
        found = self.module.annotate(cells, model=self.model)
        return (
            found.predicted_labels["predicted_labels"].astype(str).to_numpy(),
            found.probability_matrix.to_numpy().max(1),
        )


def plain(train: tuple[sp.csr_matrix, Names], test: sp.csr_matrix) -> dict[str, tuple[Names, Array]]:
    """Names and probability of the best, of logistic regression and of the nearest neighbours on 50 components."""
    values, types = train
    reduced = Components(values)
    out = {}
    for name, model in {
        "logistic regression": LogisticRegression(max_iter=2000),
        "15 neighbours": KNeighborsClassifier(NEIGHBOURS),
    }.items():
        shares = model.fit(reduced(values), types).predict_proba(reduced(test))
        out[name] = model.classes_[shares.argmax(1)], shares.max(1)
    return out


# Types that were not seen


def texts_of(bank: TextBank, terms: tuple[str, ...], ancestors: bool) -> Array:
    """Vectors of the definitions, beside them, where asked for, the ancestors by information content."""
    from xmodal.models.parts.text_scores import Kernel

    kernel = Kernel.of(bank, terms)
    texts: Array = kernel.texts.double().numpy()
    return np.hstack([texts, kernel.lines.double().numpy()]) if ancestors else texts


def ridge(texts: Array, centres: Array, penalty: float) -> Any:
    """Ridge from texts (types, width) to centres (types, components), in its dual form; a function of texts."""
    middle, mean = texts.mean(0), centres.mean(0)
    own = texts - middle
    weights = np.linalg.solve(own @ own.T + penalty * np.eye(len(own)), centres - mean)
    return lambda other: (other - middle) @ own.T @ weights + mean


def best_ridge(texts: Array, centres: Array) -> float:
    """The penalty that predicts each type best from the others."""

    def error(penalty: float) -> float:
        return sum(
            float(
                np.square(
                    ridge(np.delete(texts, i, 0), np.delete(centres, i, 0), penalty)(texts[i : i + 1]) - centres[i]
                ).sum()
            )
            for i in range(len(texts))
        )

    return float(min(PENALTIES, key=error))


def distances(place: Array, centres: Array) -> Array:
    """Minus the squared distance, (cells, types)."""
    out: Array = -(np.square(place).sum(1)[:, None] + np.square(centres).sum(1) - 2 * place @ centres.T)
    return out
