"""From a file of cells and a checkpoint to the written embedding."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal import memory, registry
from xmodal.embedding import job as jobs
from xmodal.embedding import reading, tables, writing
from xmodal.embedding.clustering import clustered, require_cells
from xmodal.embedding.latents import embedded
from xmodal.embedding.tables import Embedded
from xmodal.errors import InputRefused, NotApplicable

if TYPE_CHECKING:
    import torch

    from xmodal.embedding.settings import EmbedSettings
    from xmodal.learning.checkpoint import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """Where to write; ``table`` and ``overview`` (a folder) only where asked for."""

    file: Path
    table: Path | None
    overview: Path | None
    overwrite: bool


@memory.refusing("the model")
def run(
    file: Path, checkpoint: Path, outputs: Outputs, settings: EmbedSettings, how: tuple[torch.device, int]
) -> dict[str, Any]:
    """Embed, cluster and write; ``how`` = (device, seed).  Returns the summary."""
    from xmodal.learning.checkpoint import load

    loaded = load(checkpoint)
    _require_latent(loaded)
    mdata = reading.read(file, loaded, settings.on_disk)
    try:
        job = jobs.prepare_job(mdata, loaded, settings)
        require_cells(len(job.cells), settings)
        label = tables.label_column(job.mdata.obs, settings.label_key)
    except InputRefused as error:
        raise error.at(str(file)) from None
    device, seed = how
    latents = embedded(loaded.model, job.cells, job.shared, device, settings.by_modality)
    found = clustered(latents.joint, settings, seed)
    more = {**tables.facts(job, latents, found), "label_key": label, "batch_column": tables.batch_column(job)}
    all_of = Embedded(job, latents, found, jobs.described("embed", job, checkpoint, how, **more))
    write = writing.write_h5mu if outputs.file.suffix == ".h5mu" else writing.write_h5ad
    write(outputs.file, all_of, outputs.overwrite)
    if outputs.table is not None:
        writing.write_tsv(outputs.table, all_of, outputs.overwrite)
    if outputs.overview is not None:
        writing.write_overview(outputs.overview, all_of, label)
    return tables.summary(all_of.about)


def _require_latent(loaded: Checkpoint) -> None:
    if not loaded.model.has_latent:
        able = [n for n in registry.names() if registry.get(n).has_latent]
        raise NotApplicable(
            f"this checkpoint's model ({loaded.model.name}) has no latent space to embed cells in; models that have one: "
            f"{', '.join(able)}"
        )
