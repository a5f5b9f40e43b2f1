"""The fusion models on mouse cortex: folds of the training batches; the batches of the final test are in none of them.

Two whole batches are scored, a third weighs network and linear part, the other three train (the folds of trials.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import mudata as md
import numpy as np
from common import REAL
from fusion_measures import chunked, foscttm
from sklearn.neighbors import KNeighborsClassifier
from trials import prepared

from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.fields import ATAC, RNA, SPLIT, TEST, TRAIN, VALID
from xmodal.scores.metrics import Matrix, feature_pearson

if TYPE_CHECKING:
    from xmodal.models.base import CrossModalModel

Scores = dict[str, float]
NEIGHBOURS = 15
TYPE = "cell_type"


def cells_of_fold(fold: str) -> tuple[dict[str, Cells], dict[str, np.ndarray]]:
    """Training, validation and scored cells of a fold, and what they are called."""
    if not (REAL / "mouse_cortex_snareseq_dev").is_dir():
        raise SystemExit(f"there is no {REAL / 'mouse_cortex_snareseq_dev'} (XMODAL_REAL_DATA)")
    with tempfile.TemporaryDirectory() as folder:
        mdata = md.read_h5mu(prepared(Path(folder), fold))
    cells = cells_of(mdata, Vocabulary.from_prepared(mdata))
    rows = {part: np.flatnonzero(mdata.obs[SPLIT].to_numpy(str) == part) for part in (TRAIN, VALID, TEST)}
    types = mdata.obs[TYPE].to_numpy(str)
    return {part: cells.subset(i) for part, i in rows.items()}, {part: types[i] for part, i in rows.items()}


def measured(model: CrossModalModel, parts: dict[str, Cells], types: dict[str, np.ndarray]) -> Scores:
    """Mean Pearson correlation of features both ways; of a model with a latent also label accuracy and matching."""
    test, found = parts[TEST], {}
    for s, t in ((ATAC, RNA), (RNA, ATAC)):
        predicted = chunked(test, lambda batch, s=s, t=t: model.predict(batch.only(s), s, t))
        each = feature_pearson(predicted, Matrix(test.values(t)))
        found[f"{s}_{t}_all"] = float(each.mean())
    if model.has_latent:
        near = KNeighborsClassifier(NEIGHBOURS).fit(chunked(parts[TRAIN], model.embed), types[TRAIN])
        found["type_15nn"] = float((near.predict(chunked(test, model.embed)) == types[TEST]).mean())
        found["foscttm"] = foscttm(model, test)
    blend = getattr(model, "blend", None)
    if blend is not None:
        for s, t in ((ATAC, RNA), (RNA, ATAC)):
            found[f"{s}_{t}_weight"] = float(blend.get_buffer(f"weights_{s}_{t}")[0])
    return {**found, "cpu_s": float(model.cpu_s)}  # type: ignore[arg-type]
