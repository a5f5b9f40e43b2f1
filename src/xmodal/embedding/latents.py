"""The model over all cells in fixed, padded batches: embeddings and weights, or denoised values as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from xmodal import memory, progress
from xmodal.predicting.prediction import BATCH

if TYPE_CHECKING:
    from xmodal.data.batches import Batch, Cells
    from xmodal.models.base import CrossModalModel

log = logging.getLogger(__name__)
TICK = 10  # batches between two lines of progress
Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
Work = Callable[["Batch", int], memory.Arrays]  # of a padded batch and its cells that count


@dataclass(frozen=True)
class Latents:
    """``joint``: (cells, latent); ``weights``: each (cells,), nan where a cell lacks the modality; ``alone``: (cells, latent).

    ``weights`` and ``alone`` by modality; ``alone``, where asked for: as if only that had been measured, nan for cells without.
    """

    joint: Array
    weights: dict[str, Array]
    alone: dict[str, Array]


def embedded(
    model: CrossModalModel, cells: Cells, shared: list[str], device: torch.device, by_modality: bool
) -> Latents:
    """Embedding and weights of all cells; ``shared``: the modalities that are there."""
    order = list(cells.vocabulary)
    singly = shared if by_modality else []

    def work(batch: Batch, rows: int) -> memory.Arrays:
        moved = batch.to(device)
        each = [model.embed(moved), model.weights(moved), *(model.embed(moved.only(m)) for m in singly)]
        return tuple(values[:rows].float().cpu().numpy() for values in each)

    parts = list(streamed(model, cells, np.arange(len(cells)), (device, shared), work, "embedded"))
    joint, weights, *alone = (np.concatenate(one) for one in zip(*parts, strict=True))
    for m, values in zip(singly, alone, strict=True):
        values[~cells.present[m]] = np.nan
    by_name = {m: np.where(cells.present[m], weights[:, order.index(m)], np.float32(np.nan)) for m in shared}
    return Latents(joint, by_name, dict(zip(singly, alone, strict=True)))


def imputed(
    model: CrossModalModel, cells: Cells, rows: Index, modality: str, how: tuple[torch.device, list[str]]
) -> Iterator[Array]:
    """Denoised values of ``modality`` of the cells ``rows``, batch by batch, (cells, features); ``how`` = (device, shared)."""
    device, _ = how

    def work(batch: Batch, size: int) -> memory.Arrays:
        return (model.impute(batch.to(device), modality)[:size].float().cpu().numpy(),)

    for (values,) in streamed(model, cells, rows, how, work, f"imputed in {modality}"):
        yield values


def streamed(
    model: CrossModalModel, cells: Cells, rows: Index, how: tuple[torch.device, list[str]], work: Work, done: str
) -> Iterator[memory.Arrays]:
    """What ``work`` makes of each batch; every batch is padded to one size, so a cell's result never depends on its place."""
    device, shared = how
    only = shared[0] if len(shared) == 1 else None  # the other modalities take no memory then
    model = model.to(device).eval()
    portions = memory.of_prediction(BATCH)
    with progress.bar(len(rows), done) as bar:
        for turn, first in enumerate(range(0, len(rows), BATCH), 1):
            part = rows[first : first + BATCH]
            with torch.no_grad():
                found = portions.each(cells.batch(part, BATCH, only), len(part), work)
            yield found
            bar.add(len(part))
            if turn % TICK == 0:
                progress.line(log, "%d of %d cells %s", min(turn * BATCH, len(rows)), len(rows), done)
