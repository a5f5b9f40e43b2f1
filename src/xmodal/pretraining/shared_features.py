"""Which features of a pretrained file a training has as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xmodal.data.vocabulary import Modality


def shared_rows(known: Modality, given: Modality) -> np.ndarray:
    """For each gene of ``known`` its place in ``given``, by name, else by Ensembl id; -1: not there.  (genes,)"""
    place = {name: i for i, name in enumerate(given.features)}
    by_id = {gene: i for i, gene in enumerate(given.gene_ids or ()) if gene}
    ids = known.gene_ids or ("",) * len(known)
    return np.array([place.get(n, by_id.get(g, -1)) for n, g in zip(known.features, ids, strict=True)], np.int64)
