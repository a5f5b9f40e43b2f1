"""How well a predictor that knows the coupling does on simulated cells, and how well one that multiplies nothing.

Both read the true bits and type traits out of the source modality by ridge regression and regress the target on them;
the oracle also gets the products of the bits read out within each block, where the target follows products.  It is a
strong reference, not an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal.fields import ATAC, PROTEIN, RNA, SPLIT, TEST

if TYPE_CHECKING:
    from xmodal.simulation.simulate import Simulated

Array = npt.NDArray[Any]
ENOUGH = 1.25  # oracle over linear from which "better than linear" can be asked of a model
FLOOR = 0.01  # correlations below it are noise: the ratio is to at least this
READOUT = tuple(float(x) for x in 10.0 ** np.arange(1, 5))  # penalties tried for the readout of bits
LAST = (1.0, 10.0, 100.0)  # penalties tried for the last step


@dataclass(frozen=True)
class Oracle:
    """``predictions[source, target]``: float32 (test cells, features); ``scores["source->target"]``: by name."""

    cells: list[str]
    predictions: dict[tuple[str, str], Array]
    scores: dict[str, dict[str, float | bool]]


def run_oracle(simulated: Simulated) -> Oracle:
    """Fit on cells outside the test batches that have every modality, predict the test cells.

    RNA is scored as log1p CP10k, ATAC as open or not, protein as it is.
    """
    modalities = simulated.mdata.mod
    everyone = simulated.obs.index
    have = everyone[np.all([everyone.isin(part.obs_names) for part in modalities.values()], axis=0)]
    values = {m: values_of(m, part[have].X) for m, part in modalities.items()}
    rows = simulated.obs.index.get_indexer(have)
    test = (simulated.obs[SPLIT] == TEST).to_numpy()[rows]
    predictions, scores = {}, {}
    for source, side in ((ATAC, "p"), (RNA, "r")):
        truth = np.hstack([simulated.truth[side], simulated.truth["y"]])[rows]  # (cells, bits + traits)
        read = read_out(values[source], truth, test)
        products = _products(read[:, : simulated.settings.bits], int(simulated.settings.block))
        for target in values:
            if target == source:
                continue
            linear = oracle = _ridge(read[~test], values[target][~test], read[test], LAST)
            if simulated.settings.coupling == "nonlinear" or target == PROTEIN:  # proteins follow a product always
                full = np.hstack([read, products])
                oracle = _ridge(full[~test], values[target][~test], full[test], LAST)
            coupled = simulated.truth[f"coupled_{target}"]
            scores[f"{source}->{target}"] = _scores(oracle, linear, values[target][test], coupled)
            predictions[source, target] = _inside(target, oracle).astype(np.float32)
    return Oracle(list(have[test]), predictions, scores)


def values_of(modality: str, x: Any) -> Array:
    dense = np.asarray(x.toarray() if sp.issparse(x) else x, np.float64)
    if modality == RNA:
        return np.log1p(1e4 * dense / np.maximum(dense.sum(1, keepdims=True), 1))
    return (dense > 0).astype(np.float64) if modality == ATAC else dense


def read_out(x: Array, truth: Array, test: Array) -> Array:
    """Bits and traits of all cells, read out of ``x``; of training cells out of fold, so they err as the test's do."""
    centre, spread = x[~test].mean(0), x[~test].std(0)
    x = (x - centre) / np.where(spread > 0, spread, 1)
    result = np.empty(truth.shape)
    train = np.flatnonzero(~test)
    result[test] = _ridge(x[train], truth[train], x[test], READOUT)
    for fold in range(3):
        held = np.arange(len(train)) % 3 == fold
        result[train[held]] = _ridge(x[train[~held]], truth[train[~held]], x[train[held]], READOUT)
    return result


def _products(bits: Array, block: int) -> Array:
    """Products of two or more bits of each block; readouts are cut to [-1, 1], where expectations of bits lie."""
    bits = np.clip(bits, -1, 1)
    columns = [
        bits[:, start + np.array(chosen)].prod(1)
        for start in range(0, bits.shape[1], block)
        for size in range(2, block + 1)
        for chosen in combinations(range(block), size)
    ]
    return np.stack(columns, axis=1)


def _ridge(x: Array, y: Array, new: Array, penalties: tuple[float, ...]) -> Array:
    """Ridge from ``x`` to ``y``, applied to ``new``; the penalty is chosen on every eighth row."""
    from sklearn.linear_model import Ridge

    held = np.arange(len(x)) % 8 == 0
    loss = [((Ridge(alpha=a).fit(x[~held], y[~held]).predict(x[held]) - y[held]) ** 2).sum() for a in penalties]
    best = Ridge(alpha=penalties[int(np.argmin(loss))]).fit(x, y)
    return np.asarray(best.predict(new)).reshape(len(new), -1)


def _inside(target: str, prediction: Array) -> Array:
    if target == PROTEIN:
        return prediction
    return np.clip(prediction, 0, 1 if target == ATAC else None)


def _scores(oracle: Array, linear: Array, truth: Array, coupled: Array) -> dict[str, float | bool]:
    by_method = {"oracle": pearson(oracle, truth), "linear": pearson(linear, truth)}
    result: dict[str, float | bool] = {}
    for method, each in by_method.items():
        result[method] = round(float(each.mean()), 4)
        result[f"{method}_coupled"] = round(float(each[coupled].mean()), 4) if coupled.any() else 0.0
    ratio = by_method["oracle"].mean() / max(by_method["linear"].mean(), FLOOR)
    result["oracle_over_linear"] = round(float(ratio), 4)
    result["better_than_linear_can_be_asked"] = bool(ratio >= ENOUGH)
    return result


def pearson(prediction: Array, truth: Array) -> Array:
    """Correlation of each column, (features,); 0 where one of the two does not vary."""
    a, b = prediction - prediction.mean(0), truth - truth.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(norm > 1e-12, (a * b).sum(0) / np.where(norm > 1e-12, norm, 1), 0.0)
