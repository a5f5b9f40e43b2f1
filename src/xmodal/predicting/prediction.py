"""Prediction of new cells: aligned, judged, streamed in fixed batches, written as it goes.

Shards: ``rows`` is a range of the selected cells whose edges lie on multiples of :data:`BATCH`.  Every batch is padded to
that size, so a cell's result never depends on the shard it was computed in.  A GPU that cannot hold one computes each batch in
halves, quarters, ... of it, the first batch as all others (which need as much memory): the shapes are fixed again, and whole and
shards have the same bytes on GPUs of the same memory; against a GPU that holds whole batches they agree up to rounding.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from xmodal import __version__, fields, memory, provenance
from xmodal.data import alignment, leaving
from xmodal.data.batches import Cells, spread
from xmodal.data.on_disk import entries
from xmodal.errors import InputRefused, NotApplicable, UsageRefused
from xmodal.learning import checkpoint, novelty, uncertainty
from xmodal.predicting import latents, measured, size, threshold, top
from xmodal.predicting.choosing import Chosen, chosen
from xmodal.predicting.kept import kept_facts
from xmodal.predicting.streaming import LAYERS, MATRIX, Chunks

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from xmodal.data.batches import Batch
    from xmodal.data.vocabulary import Modality

log = logging.getLogger(__name__)
BATCH = 256  # cells at once: small enough for 100,000 peaks dense, large enough for matrix products to pay


@dataclass(frozen=True)
class Request:
    """What to predict.  ``rows``: range of the selected cells, or None for all; ``split``: only these cells of the split."""

    target: str
    source: str | None = None
    split: str | None = None
    rows: tuple[int, int] | None = None
    shard: tuple[int, int] | None = None
    min_coverage: float = alignment.MIN_COVERAGE
    force: bool = False
    interval: float = uncertainty.DEFAULT  # share of the values that the intervals hold; 0: none
    top: int | None = None  # only so many highest values of each cell; then there are no intervals
    threshold: float | None = None  # only values of at least this; then there are no intervals
    features: tuple[str, ...] = ()  # only these features of the target (names, regions, files); none: all
    max_size: float = size.DEFAULT  # GB; a larger output is refused
    latent: bool = False  # what the model predicts from, in place of predicted values
    on_disk: leaving.Choice = leaving.NEVER  # whether the counts stay in the file; the result is the same

    @property
    def sparse(self) -> bool:
        return self.latent or self.top is not None or self.threshold is not None


@dataclass(frozen=True)
class Job:
    """Everything that writing needs: the cells, the model, and the facts that go beside the result.

    ``interval``: share of the values that the intervals hold; 0 where there are none.  ``chosen``: the features of the target
    that are kept; None for all.  ``first``: which of the rows the first of ``cells`` is, where they are a part alone.
    """

    cells: Cells
    loaded: checkpoint.Checkpoint
    source: str
    target: str
    rows: tuple[int, int]
    facts: dict[str, Any]
    interval: float = 0.0
    novelty: npt.NDArray[np.float32] | None = None  # (cells,)
    chosen: Chosen | None = None
    first: int = 0

    @property
    def modality(self) -> Modality:
        """The target with the features that are kept."""
        return self.chosen.restricted() if self.chosen else self.loaded.model.vocabulary[self.target]

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of ``obs`` that a prediction gets, (cells of the rows,) each: how unlike the training cells they are."""
        if self.novelty is None:
            return {}
        score = self.novelty[slice(*self.rows)]
        return {fields.NOVELTY: score, fields.UNLIKE: score > novelty.LIMIT}

    def source_counts(self) -> pd.Series | None:
        """What was measured of each cell: total counts over all features, by name; None where values are no counts."""
        import pandas as pd

        if self.loaded.model.vocabulary[self.source].likelihood == fields.GAUSSIAN:
            return None
        return pd.Series(self.cells.depth[self.source], self.cells.names)

    def chunks(self, device: torch.device) -> Chunks:
        """Predictions, and the ends of their intervals, batch by batch, (cells, features of the target) each."""
        if fields.LATENT in self.facts:
            for (z,) in self._computed(device, lambda out: (out.float().cpu().numpy(),)):
                yield {MATRIX: z}
            return
        errors = self.loaded.uncertainty[self.source, self.target] if self.interval else None
        if errors is None:
            for (values,) in self._computed(device, lambda out: (self._kept(out).float().cpu().numpy(),)):
                yield {MATRIX: values}
            return
        own = self.chosen.positions if self.chosen else slice(None)
        for (values,) in self._computed(device, lambda out: (out.float().cpu().numpy(),)):
            ends = errors.bounds(values, self.interval)  # of all features: they say which cells this one is like
            yield {place: part[:, own] for place, part in zip((MATRIX, *LAYERS), (values, *ends), strict=True)}

    def tops(self, device: torch.device) -> Iterator[top.Chunk]:
        """The highest predictions of each cell batch by batch, (cells, ``facts["top"]``): their features and themselves."""
        for pair in self._computed(device, lambda out: top.highest(self._kept(out), self.facts["top"])):
            yield pair[0], pair[1]

    def above(self, device: torch.device) -> Iterator[threshold.Chunk]:
        """The predictions of at least ``facts["threshold"]``, batch by batch."""
        least = self.facts["threshold"]
        for found in self._computed(device, lambda out: threshold.above(self._kept(out), least)):
            yield found[0], found[1], found[2]

    def _kept(self, out: torch.Tensor) -> torch.Tensor:
        return out if self.chosen is None else out[:, torch.from_numpy(self.chosen.positions).to(out.device)]

    def _of_model(self, batch: Batch) -> torch.Tensor:
        """What is asked of the model: the latent, what becomes of one, or both steps at once."""
        model = self.loaded.model
        if fields.LATENT in self.facts:
            return model.encode(batch, self.source)
        if fields.LATENT in batch.extra:
            return model.decode(batch.extra[fields.LATENT], self.source, self.target)
        return model.predict(batch, self.source, self.target)

    def _computed(self, device: torch.device, kept: Callable[[torch.Tensor], memory.Arrays]) -> Iterator[memory.Arrays]:
        """What is ``kept`` of the predictions of each batch."""
        self.loaded.model.to(device).eval()
        portions = memory.of_prediction(BATCH)

        def work(batch: Batch, rows: int) -> memory.Arrays:
            with torch.no_grad():
                return kept(self._of_model(batch.to(device))[:rows])

        first, last = (row - self.first for row in self.rows)
        for start in range(first, last, BATCH):
            stop = min(start + BATCH, last)
            yield portions.each(self.cells.batch(slice(start, stop), BATCH, self.source), stop - start, work)


def prepare_job(mdata: MuData, path: Path, request: Request) -> Job:
    """Check that the checkpoint fits these cells, and align them.  ``path``: the checkpoint."""
    loaded = checkpoint.load(path)
    source = choose_source(loaded, mdata, request)
    if request.latent:
        latents.require_able(loaded.model)
    own = chosen(request.features, loaded.model.vocabulary[request.target])
    one = measured.measured(loaded, mdata, source, request.min_coverage, request.force)
    some = select(mdata, source, request.split)
    odd, verdict = one.likeness(loaded, some, request.force)  # whatever the shard, so that shards agree
    measured.told(one, verdict)
    facts: dict[str, Any] = {"alignment": one.found.to_json(), "novelty": verdict}
    names = one.names
    cells = spread(loaded.model.vocabulary, names, {source: names}, {source: (one.counts, one.depth)})
    if len(some) < len(names):
        cells = cells.subset(some)
    rows = _rows(len(cells), request)
    if request.split:  # evaluate scores the cells that were asked for
        facts["split"] = request.split
    if loaded.header["training"].get("trial"):  # learned nothing from validation cells, so they can judge it
        facts["trial"] = True
    facts |= {"empty": int((entries(cells.counts[source]) == 0).sum()), "cells": len(cells)}
    if facts["empty"]:
        log.warning(
            "%d cells have no counts in %s; they get what a cell without any signal gets", facts["empty"], source
        )
    facts |= kept_facts(loaded, source, request, own)
    if request.latent:
        facts[fields.LATENT] = latents.width(loaded.model, cells, source)
    return Job(cells, loaded, source, request.target, rows, facts, facts["interval"]["level"], odd, own)


def choose_source(loaded: checkpoint.Checkpoint, mdata: MuData, request: Request) -> str:
    """The modality to predict from: the one given, or the only one that fits."""
    known, target = list(loaded.model.vocabulary), request.target
    if not loaded.directions:
        raise NotApplicable(f"model '{loaded.model.name}' does not predict; models that do: see `xmodal models`")
    if target not in known:
        tells = loaded.model.vocabulary.target
        columns = f", and tells the obs column {tells.key}" if tells is not None else ""
        raise UsageRefused(f"--to {target}: the checkpoint knows {', '.join(known)}{columns}")
    possible = [s for s, t in loaded.directions if t == target]
    if not possible:
        raise NotApplicable(f"this checkpoint ({loaded.model.name}) cannot predict {target}")
    if request.source is not None:
        if request.source not in possible:
            raise UsageRefused(f"--from {request.source}: {target} can be predicted from {', '.join(possible)}")
        if request.source not in mdata.mod:
            raise InputRefused(
                f"the input has no modality '{request.source}' (it has {', '.join(mdata.mod)})",
                do="give --from one of these",
            )
        return request.source
    there = [s for s in possible if s in mdata.mod]
    if not there:
        raise InputRefused(
            f"the input has {', '.join(mdata.mod)}; to predict {target} the checkpoint needs {' or '.join(possible)}",
            do="give a file with that modality",
        )
    if len(there) > 1:
        raise UsageRefused(f"--from: {target} can be predicted from {' or '.join(there)}; say which")
    return there[0]


def select(mdata: MuData, source: str, split: str | None) -> npt.NDArray[np.int64]:
    """Positions, within modality ``source``, of the cells to predict."""
    adata = mdata.mod[source]
    if split is None:
        return np.arange(adata.n_obs)
    chosen = np.flatnonzero(measured.in_split(mdata, adata.obs_names, split))
    if not len(chosen):
        raise InputRefused(f"no cell with {source} is in the split '{split}'", do="give another --split")
    return chosen


def _rows(cells: int, request: Request) -> tuple[int, int]:
    if request.shard is not None:
        index, of = request.shard
        batches = -(-cells // BATCH)
        return min(cells, batches * (index - 1) // of * BATCH), min(cells, batches * index // of * BATCH)
    if request.rows is None:
        return 0, cells
    first, last = request.rows
    if not 0 <= first < last <= cells:
        raise UsageRefused(f"--rows {first}:{last}: there are {cells} cells (0:{cells})")
    if first % BATCH or (last % BATCH and last != cells):
        raise UsageRefused(f"--rows {first}:{last}: the edges must be multiples of {BATCH} (or the last cell, {cells})")
    return first, last


def target_frame(job: Job) -> Any:
    """``var`` of a prediction, in the order of the checkpoint."""
    import pandas as pd

    if fields.LATENT in job.facts:
        return latents.frame(job.facts[fields.LATENT])
    var = measured.feature_frame(job.modality)
    own = job.chosen.positions if job.chosen else slice(None)
    errors = job.loaded.uncertainty.get((job.source, job.target))
    if errors is not None:
        columns = (*errors.reliability, errors.of_level(job.interval or uncertainty.DEFAULT))
        for name, values in zip(fields.OF_FEATURES, columns, strict=False):
            var[name] = values[own]
        var[fields.TRUST] = pd.Categorical(errors.trust()[own], categories=uncertainty.TRUST)
    return var


def described(job: Job, path: Path, device: torch.device, seed: int) -> dict[str, Any]:
    """``uns["xmodal"]`` of a prediction; a shard also says which rows it holds."""
    model, latent = job.loaded.model, fields.LATENT in job.facts
    record = provenance.record(
        "decode" if fields.LATENT in job.cells.extra else "predict",
        {
            **job.facts,
            "genome": model.vocabulary[job.target].genome,
            "model_settings": model.settings.model_dump(mode="json"),
        },
        schema=fields.LATENT_SCHEMA if latent else measured.PREDICTION_SCHEMA,
        model=model.name,
        model_version=str(job.loaded.header["version"]),
        checkpoint_sha256=provenance.sha256(path),
        source=job.source,
        target=job.target,
        units=fields.LATENT if latent else model.vocabulary[job.target].units,
        seed=seed,
        device=device.type,
    )
    record |= {k: job.facts[k] for k in ("top", "threshold") if k in job.facts}
    if job.rows != (0, job.facts["cells"]):
        record["rows"] = f"{job.rows[0]}:{job.rows[1]}"
    return record


def summary(about: dict[str, Any], features: int) -> dict[str, Any]:
    """What the report says of a prediction; ``about`` is its ``uns["xmodal"]``."""
    inner = json.loads(about["settings"])
    kept = {k: about[k] for k in ("model", "source", "target", "units", "checkpoint_sha256")}
    found = {k: inner.get(k, {}) for k in ("cells", "empty", "alignment", "novelty", "interval")}
    return {
        **kept,
        "features": features,
        **found,
        **{k: inner[k] for k in ("top", "threshold", "chosen", fields.LATENT) if k in inner},
    }


def preview(mdata: MuData, path: Path) -> dict[str, Any]:
    """How these cells would fit the checkpoint ``path``: for every known modality alignment, novelty, genome."""
    from xmodal.data.genome import genome_of

    loaded = checkpoint.load(path)
    out: dict[str, Any] = {"model": loaded.model.name, "version": __version__, "modalities": {}}
    for m, adata in mdata.mod.items():
        if m not in loaded.model.vocabulary.modalities:
            continue
        modality = loaded.model.vocabulary[m]
        counts, _, found = alignment.align(adata, modality)
        known = loaded.novelty.get(m)
        odd = novelty.scores(known, counts, modality.likelihood, found.lost) if known else None
        out["modalities"][m] = {
            "alignment": found.to_json(),
            "enough": found.coverage >= alignment.MIN_COVERAGE,
            "novelty": novelty.verdict(odd, isinstance(known, novelty.Novelty)) if odd is not None else {},
            "genome": {"input": genome_of(mdata, m), "checkpoint": modality.genome},
            "predicts": [t for s, t in loaded.directions if s == m],
        }
    return out
