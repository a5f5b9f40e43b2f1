"""From a file of latents and the checkpoint that made it to the written prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from xmodal import fields, memory, provenance
from xmodal.data.batches import Cells
from xmodal.errors import InputRefused
from xmodal.learning import checkpoint
from xmodal.predicting import kept, latents, overview, prediction, size
from xmodal.predicting.choosing import chosen
from xmodal.predicting.prediction import Job, Request
from xmodal.predicting.run_prediction import write_h5ad

if TYPE_CHECKING:
    import torch


@memory.refusing("the model")
def run(
    file: Path,
    model: Path,
    output: Path,
    request: Request,
    how: tuple[torch.device, int, bool],
    pictures: Path | None = None,
) -> tuple[int, dict[str, Any]]:
    """Decode and write; ``how`` = (device, seed, overwrite).  Returns features and ``uns["xmodal"]`` of the prediction.

    Of ``request`` the values that are kept count; which cells and which target the latent says.  ``pictures``: a folder that
    gets the overview of the whole prediction.
    """
    device, seed, overwrite = how
    found = latents.read(file)
    require_same(found, model, file)
    request = replace(request, target=str(found.about["target"]))
    job = prepare(found, checkpoint.load(model), request)
    kept.require_size(job, request, str(output))
    about = prediction.described(job, model, device, seed)
    features = write_h5ad(job, found.obs, output, about, (device, overwrite, request.max_size * size.GB))
    if pictures is not None:
        overview.write(pictures, output, job.target, seed)
    return features, about


def require_same(found: latents.Latent, model: Path, file: Path) -> None:
    """Refuse another checkpoint than the one that made the latent: its decoder would read it as something else."""
    said, digest = str(found.about["checkpoint_sha256"]), provenance.sha256(model)
    if said != digest:
        raise InputRefused(
            f"the latent was made by another checkpoint ({said[:12]}...) than {model.name} ({digest[:12]}...)",
            where=str(file),
            do="give --checkpoint the file that predict had, or predict again",
        )


def prepare(found: latents.Latent, loaded: checkpoint.Checkpoint, request: Request) -> Job:
    """The cells of the latent in place of measured ones, with the facts that predict had found."""
    source, target = str(found.about["source"]), request.target
    vocabulary, many = loaded.model.vocabulary, len(found.values)
    own = chosen(request.features, vocabulary[target])
    cells = Cells(
        vocabulary,
        found.obs.index.to_numpy(str),
        {source: sp.csr_matrix((many, len(vocabulary[source])), dtype=np.float32)},
        {source: np.zeros(many, np.float32)},
        {source: np.ones(many, bool)},
        {fields.LATENT: found.values},
    )
    facts = {k: v for k, v in found.facts.items() if k not in (fields.LATENT, "interval")}
    facts |= kept.kept_facts(loaded, source, request, own)
    first = found.rows[0]
    return Job(cells, loaded, source, target, found.rows, facts, facts["interval"]["level"], None, own, first)
