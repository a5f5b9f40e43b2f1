"""The fusion models on mouse cortex: folds of the training batches; the batches of the final test are in none of them.

Two whole batches are scored, a third weighs network and linear part, the other three train (the folds of trials.py).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mudata as md
import numpy as np
from common import REAL
from fusion_measures import chunked, foscttm, nearest
from trials import prepared

from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.fields import ATAC, LABEL_CODE, RNA, SPLIT, TEST, TRAIN, VALID
from xmodal.learning import training_labels
from xmodal.learning.training_labels import LabelRequest
from xmodal.models.contrastive import Contrastive, ContrastiveSettings
from xmodal.scores.metrics import Matrix, feature_pearson

if TYPE_CHECKING:
    from xmodal.models.base import CrossModalModel

Scores = dict[str, float]
TYPE = "cell_type"


def cells_of_fold(fold: str, labelled: bool = False) -> tuple[dict[str, Cells], dict[str, np.ndarray]]:
    """Training, validation and scored cells of a fold, and what they are called.

    ``labelled``: models that learn labels know those of the training cells.
    """
    if not (REAL / "mouse_cortex_snareseq_dev").is_dir():
        raise SystemExit(f"there is no {REAL / 'mouse_cortex_snareseq_dev'} (XMODAL_REAL_DATA)")
    with tempfile.TemporaryDirectory() as folder:
        mdata = md.read_h5mu(prepared(Path(folder), fold))
    vocabulary = Vocabulary.from_prepared(mdata)
    if labelled:
        settings = ContrastiveSettings(positives="ontology")
        request = LabelRequest(TYPE, ontology=REAL / "tables" / "cell_ontology_terms.tsv.gz")
        labels, _ = training_labels.of_training(mdata, (Contrastive, settings), request, [])
        vocabulary = replace(vocabulary, labels=labels)
    cells = cells_of(mdata, vocabulary)
    rows = {part: np.flatnonzero(mdata.obs[SPLIT].to_numpy(str) == part) for part in (TRAIN, VALID, TEST)}
    types = mdata.obs[TYPE].to_numpy(str)
    parts = {part: cells.subset(i) for part, i in rows.items()}
    if labelled:
        for part in (VALID, TEST):
            parts[part].extra[LABEL_CODE][:] = -1
    return parts, {part: types[i] for part, i in rows.items()}


def measured(model: CrossModalModel, parts: dict[str, Cells], types: dict[str, np.ndarray]) -> Scores:
    """Mean Pearson correlation of features both ways; of a model with a latent also label accuracy and matching."""
    test, found = parts[TEST], {}
    for s, t in ((ATAC, RNA), (RNA, ATAC)):
        predicted = chunked(test, lambda batch, s=s, t=t: model.predict(batch.only(s), s, t))
        each = feature_pearson(predicted, Matrix(test.values(t)))
        found[f"{s}_{t}_all"] = float(each.mean())
    if model.has_latent:
        train, own = (chunked(parts[part], model.embed) for part in (TRAIN, TEST))
        found["type_15nn"] = nearest(train, types[TRAIN], own, types[TEST])
        found["foscttm"] = foscttm(model, test)
    blend = getattr(model, "blend", None)
    if blend is not None:
        for s, t in ((ATAC, RNA), (RNA, ATAC)):
            found[f"{s}_{t}_weight"] = float(blend.get_buffer(f"weights_{s}_{t}")[0])
    return {**found, "cpu_s": float(model.cpu_s)}  # type: ignore[arg-type]
