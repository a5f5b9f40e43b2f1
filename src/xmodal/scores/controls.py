"""The controls that stand beside every prediction: mean, depth and linear, fitted in seconds to the same training cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from xmodal import fields, registry
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.models.base import CrossModalModel

NAMES = ("mean", "depth", "linear")
CHUNK = 512


def control_predictions(
    mdata: MuData,
    pair: tuple[str, str],
    names: tuple[str, ...] = NAMES,
    seed: int = 0,
    scored: tuple[str, npt.NDArray[np.str_]] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Predictions of one of a ``pair`` (source, target) by each control, (scored cells in file order, features of the target).

    Fitted to the cells of the split's train and valid parts (train alone where valid is ``scored``); ``scored``: the part of the
    split, and which of its cells (None: all test cells); those with both modalities are predicted.
    A control that needs more training cells than there are is left out.
    """
    source, target = pair
    which = scored[0] if scored else fields.TEST
    cells, train = training_cells(mdata, (fields.TRAIN,) if which == fields.VALID else (fields.TRAIN, fields.VALID))
    part = mdata.obs[fields.SPLIT].astype(str).to_numpy()
    asked = np.ones(len(cells), bool) if scored is None else np.isin(cells.names, scored[1])
    test = cells.subset(np.flatnonzero((part == which) & asked & cells.present[source] & cells.present[target]))
    paired = len(train.having(source, target))
    models = {n: registry.get(n) for n in names}
    return {
        n: _predicted(_fitted(model, cells.vocabulary, train, seed), test, source, target)
        for n, model in models.items()
        if paired >= model.min_cells
    }


def training_cells(mdata: MuData, parts: tuple[str, ...] = (fields.TRAIN, fields.VALID)) -> tuple[Cells, Cells]:
    """All cells, and those of some parts of the split."""
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata))
    part = mdata.obs[fields.SPLIT].astype(str).to_numpy()
    return cells, cells.subset(np.flatnonzero(np.isin(part, parts)))


def _fitted(model_class: type[CrossModalModel], vocabulary: Vocabulary, train: Cells, seed: int) -> CrossModalModel:
    torch.manual_seed(seed)
    model = model_class.build(model_class.Settings(), vocabulary)
    model.prepare(train)
    return model.eval()


@torch.no_grad()
def _predicted(model: CrossModalModel, cells: Cells, source: str, target: str) -> npt.NDArray[np.float32]:
    chunks = range(0, len(cells), CHUNK)
    parts = [model.predict(cells.batch(slice(i, i + CHUNK)).only(source), source, target).numpy() for i in chunks]
    return np.concatenate(parts) if parts else np.zeros((0, len(cells.vocabulary[target])), np.float32)
