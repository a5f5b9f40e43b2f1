"""Reading cells for a checkpoint: an h5ad that does not say which modality it holds is the one whose features it has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from xmodal.data import io, leaving, stores
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.learning.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def read(file: Path, loaded: Checkpoint, on_disk: leaving.Choice = leaving.NEVER) -> MuData:
    """All modalities of ``file``."""
    try:
        return io.read_cells(file, on_disk=on_disk)
    except io.ModalityUnknown as unknown:
        name = _alike(file, loaded)
        if name is None:
            raise InputRefused(unknown.what, where=str(file), do="give an .h5mu, whose modalities have names") from None
    log.info("%s is taken as %s, by its features", file.name, name)
    return io.read_cells(file, name, on_disk=on_disk)


def _alike(file: Path, loaded: Checkpoint) -> str | None:
    """The modality of the checkpoint with the most features of this h5ad; None where it has none."""
    from anndata.io import read_elem

    with stores.reading(file) as handle:
        names = set(map(str, read_elem(handle["var"]).index))
    shared = {m: len(names & set(v.features)) for m, v in loaded.model.vocabulary.modalities.items()}
    best = max(shared, key=lambda m: shared[m])
    return best if shared[best] else None
