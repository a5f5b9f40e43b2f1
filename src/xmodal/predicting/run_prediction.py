"""From a file of cells and a checkpoint to the written prediction."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xmodal import memory, progress
from xmodal.data import io
from xmodal.errors import InputRefused
from xmodal.predicting import kept, overview, prediction, size, streaming, threshold, top
from xmodal.predicting.prediction import Job, Request

if TYPE_CHECKING:
    import pandas as pd
    import torch

log = logging.getLogger(__name__)
Part = TypeVar("Part")
TICK = 10  # batches between two lines of progress


@memory.refusing("the model")
def run(
    file: Path,
    checkpoint: Path,
    output: Path,
    request: Request,
    how: tuple[torch.device, int, bool],
    pictures: Path | None = None,
) -> tuple[int, dict[str, Any]]:
    """Predict and write; ``how`` = (device, seed, overwrite).  Returns features and ``uns["xmodal"]`` of the prediction.

    ``pictures``: a folder that gets the overview of the whole prediction.
    """
    device, seed, overwrite = how
    mdata = io.read_cells(file, request.source, _known_source(checkpoint, request), request.on_disk)
    try:
        job = prediction.prepare_job(mdata, checkpoint, request)
    except InputRefused as error:
        raise error.at(str(file)) from None
    kept.require_size(job, request, str(output))
    about = prediction.described(job, checkpoint, device, seed)
    if output.suffix == ".h5mu":
        var, chunks = prediction.target_frame(job), _told(job, job.chunks(device))
        parts = (job.cells.names, about, chunks, overwrite, job.columns())
        streaming.write_h5mu(output, mdata, job.modality, var, parts)
        features = len(var)
    else:
        obs = mdata.obs.reindex(job.cells.names[slice(*job.rows)]).assign(**job.columns())
        features = write_h5ad(job, obs, output, about, (device, overwrite, request.max_size * size.GB))
    if pictures is not None:
        overview.write(pictures, output, job.target, seed, job.source_counts())
    return features, about


def write_h5ad(
    job: Job, obs: pd.DataFrame, output: Path, about: dict[str, Any], how: tuple[torch.device, bool, float]
) -> int:
    """Write the prediction as it is computed; ``how`` = (device, overwrite, most bytes).  Returns its number of features."""
    device, overwrite, most = how
    var = prediction.target_frame(job)
    if top.top_of(about):
        top.write_h5ad(output, obs, var, about, _told(job, job.tops(device)), overwrite)
    elif threshold.threshold_of(about) is not None:
        threshold.write_h5ad(output, (obs, var), about, _told(job, job.above(device)), overwrite, most)
    else:
        streaming.write_h5ad(output, obs, var, about, _told(job, job.chunks(device)), overwrite)
    return len(var)


def _known_source(checkpoint: Path, request: Request) -> str | None:
    """What an h5ad that does not say its modality must be: the only one that leads to the target."""
    from xmodal.learning.checkpoint import read_header

    possible = {s for s, t in read_header(checkpoint)["directions"] if t == request.target}
    return possible.pop() if len(possible) == 1 else None


def _told(job: Job, chunks: Iterator[Part]) -> Iterator[Part]:
    first, last = job.rows
    total = last - first
    with progress.bar(total, "predicting") as bar:
        for i, chunk in enumerate(chunks):
            bar.add(min(prediction.BATCH, total - i * prediction.BATCH))
            if i % TICK == TICK - 1:
                progress.line(log, "%d of %d cells predicted", min((i + 1) * prediction.BATCH, total), total)
            yield chunk
