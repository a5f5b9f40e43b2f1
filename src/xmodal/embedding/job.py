"""Which cells of a file a checkpoint can embed, in its features, and what is to be said of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields, provenance
from xmodal.data import leaving
from xmodal.data.batches import Cells, extra_of, places, reference_of, spread
from xmodal.data.on_disk import entries
from xmodal.errors import InputRefused
from xmodal.learning import checkpoint, novelty
from xmodal.predicting import measured

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.data.new_cells_settings import NewCellsSettings
    from xmodal.predicting.measured import Measured

log = logging.getLogger(__name__)
Bools = npt.NDArray[np.bool_]
SCHEMAS = {
    "embed": fields.EMBEDDING_SCHEMA,
    "impute": fields.IMPUTED_SCHEMA,
    "annotate": fields.ANNOTATION_SCHEMA,
    "predict": fields.TARGET_SCHEMA,  # of what train --target learned
}


@dataclass(frozen=True)
class Job:
    """``mdata``: only the cells to embed, in the order of ``cells``; ``unlike``, (cells,): unlike the training cells.

    ``facts``: what goes into provenance and summary.
    """

    mdata: MuData
    cells: Cells
    loaded: checkpoint.Checkpoint
    unlike: Bools
    facts: dict[str, Any]

    @property
    def shared(self) -> list[str]:
        """The modalities that file and checkpoint share, in the order of the checkpoint."""
        return list(self.facts["modalities"])


def prepare_job(mdata: MuData, loaded: checkpoint.Checkpoint, settings: NewCellsSettings) -> Job:
    """Check that the checkpoint fits these cells, and align every modality that both have."""
    known = list(loaded.model.vocabulary)
    shared = [m for m in known if m in mdata.mod]
    if not shared:
        raise InputRefused(
            f"the input has {', '.join(mdata.mod)}, the checkpoint knows {', '.join(known)}",
            do="give a file with one of these",
        )
    _require_reference(mdata, loaded)
    ones = {m: measured.measured(loaded, mdata, m, settings.min_coverage, settings.force) for m in shared}
    kept = _chosen(mdata, ones, settings.split)
    every = spread(
        loaded.model.vocabulary,
        mdata.obs_names.to_numpy(str),
        {m: one.names for m, one in ones.items()},
        {m: (one.counts, one.depth) for m, one in ones.items()},
    )
    extra = extra_of(mdata, loaded.model.vocabulary)
    cells = Cells(every.vocabulary, every.names, every.counts, every.depth, every.present, extra)
    facts: dict[str, Any] = {"modalities": {}, "left_out": 0}
    if not kept.all():
        facts["left_out"] = 0 if settings.split else int((~kept).sum())
        cells, mdata = cells.subset(np.flatnonzero(kept)), leaving.kept_cells(mdata, kept)
    if settings.split:
        facts["split"] = settings.split
    unlike = _likeness(loaded, ones, cells, settings.force, facts)
    _count(cells, shared, facts)
    return Job(mdata, cells, loaded, unlike, facts)


def _chosen(mdata: MuData, ones: dict[str, Measured], split: str | None) -> Bools:
    """The cells of the split that have a modality of the checkpoint, (cells of the file,)."""
    with_any = np.zeros(mdata.n_obs, bool)
    for one in ones.values():
        with_any[mdata.obs_names.get_indexer(one.names)] = True
    if split is None:
        return with_any
    kept = with_any & measured.in_split(mdata, mdata.obs_names, split)
    if not kept.any():
        raise InputRefused(f"no cell with {' or '.join(ones)} is in the split '{split}'", do="give another --split")
    return kept


def _likeness(
    loaded: checkpoint.Checkpoint, ones: dict[str, Measured], cells: Cells, force: bool, facts: dict[str, Any]
) -> Bools:
    """Cells that are unlike the training cells in any modality, (cells,); what was found of each goes into ``facts``."""
    unlike = np.zeros(len(cells), bool)
    for m, one in ones.items():
        place = places(cells.names, one.names)
        rows = np.flatnonzero(place >= 0)
        odd, verdict = one.likeness(loaded, rows, force)
        measured.told(one, verdict, f"{m}: " if len(ones) > 1 else "")
        if odd is not None:
            unlike[place[rows]] |= odd > novelty.LIMIT
        facts["modalities"][m] = {"cells": len(rows), "alignment": one.found.to_json(), "novelty": verdict}
    return unlike


def _count(cells: Cells, shared: list[str], facts: dict[str, Any]) -> None:
    """Cells, those without any counts, those of batches that the training did not have; said where there are any."""
    counts = np.sum([entries(cells.counts[m]) for m in shared], axis=0)
    facts |= {"cells": len(cells), "empty": int((counts == 0).sum())}
    if facts["empty"]:
        log.warning(
            "%d cells have no counts in any modality; they get the place of a cell without any signal", facts["empty"]
        )
    if facts["left_out"]:
        log.warning("%d cells are left out: they have none of %s", facts["left_out"], ", ".join(shared))
    if fields.BATCH_CODE in cells.extra:
        batches = cells.vocabulary.batches
        assert batches is not None
        facts["batch_key"] = batches.key
        facts["new_batch"] = int((cells.extra[fields.BATCH_CODE] < 0).sum())
        if facts["new_batch"]:
            log.info(
                "%d cells are of batches (obs column '%s') that were not trained on", facts["new_batch"], batches.key
            )


def _require_reference(mdata: MuData, loaded: checkpoint.Checkpoint) -> None:
    reference = loaded.model.vocabulary.reference
    if reference is None or not loaded.model.reference_in_use:
        return
    given = reference_of(mdata, reference.key)
    if given is None:
        raise InputRefused(
            f"the checkpoint needs the reference embedding obsm['{reference.key}'] ({reference.width} columns), which the "
            "input does not have",
            do="compute it as for the training cells and give a file that holds it, or train with the reference that the "
            "model makes itself",
        )
    width = given.shape[1] if given.ndim == 2 else 1
    if width != reference.width:
        raise InputRefused(
            f"obsm['{reference.key}'] of the input has {width} columns, that of the training had {reference.width}",
            do="compute it as for the training cells",
        )


def described(
    command: str, job: Job, checkpoint_file: Path, how: tuple[torch.device, int], **more: Any
) -> dict[str, Any]:
    """The provenance of ``command``; ``how`` = (device, seed), ``more`` goes into its settings beside the facts."""
    device, seed = how
    model = job.loaded.model
    schema = SCHEMAS[command]
    return provenance.record(
        command,
        {**job.facts, **more, "model_settings": model.settings.model_dump(mode="json")},
        schema=schema,
        model=model.name,
        model_version=str(job.loaded.header["version"]),
        checkpoint_sha256=provenance.sha256(checkpoint_file),
        seed=seed,
        device=device.type,
    )
