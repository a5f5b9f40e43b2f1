"""What is asked of new cells before a checkpoint sees them: counts, genome, features, likeness to the training cells."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data import alignment, features
from xmodal.data.on_disk import Counts, entries, taken
from xmodal.errors import InputRefused
from xmodal.learning import checkpoint, novelty

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from xmodal.data.vocabulary import Modality

log = logging.getLogger(__name__)
PREDICTION_SCHEMA = "xmodal-prediction/1"
COMPUTED = {
    PREDICTION_SCHEMA: (fields.PREDICTED, "a prediction"),
    fields.IMPUTED_SCHEMA: (fields.IMPUTED, "imputed"),
    fields.LATENT_SCHEMA: (fields.PREDICTED, "a latent"),
}


@dataclass(frozen=True)
class Measured:
    """One modality of new cells, in the checkpoint's features.

    ``names`` and ``depth``: (cells,); ``counts``: (cells, features of the checkpoint), in memory or on disk; ``found``: how
    they were matched.
    """

    modality: Modality
    names: npt.NDArray[np.str_]
    counts: Counts
    depth: npt.NDArray[np.float32]
    found: alignment.Alignment

    @property
    def empty(self) -> npt.NDArray[np.bool_]:
        """Which cells have no counts at all, (cells,)."""
        return entries(self.counts) == 0

    def likeness(
        self, loaded: checkpoint.Checkpoint, chosen: npt.NDArray[np.int64], force: bool
    ) -> tuple[npt.NDArray[np.float32] | None, dict[str, Any]]:
        """How unlike the training cells the ``chosen`` cells are, (chosen cells,), and the verdict; refused unless ``force``.

        None and nothing where the checkpoint does not know its training cells.
        """
        name = self.modality.name
        known = loaded.novelty.get(name)
        if known is None:
            return None, {}
        odd = novelty.scores(known, taken(self.counts, chosen), self.modality.likelihood, self.found.lost)
        verdict = novelty.verdict(odd, isinstance(known, novelty.Novelty))
        novelty.require(name, verdict, force)
        return odd, verdict


def measured(
    loaded: checkpoint.Checkpoint, mdata: MuData, name: str, min_coverage: float, force: bool = False
) -> Measured:
    """Modality ``name`` of the file brought to the checkpoint's features, or refused with what does not fit."""
    given, modality = mdata.mod[name], loaded.model.vocabulary[name]
    adata = features.with_gene_ids(given) if name == fields.RNA else given
    _require_measurement(name, given)
    _require_counts(name, adata, modality.likelihood, modality.scale)
    _require_genome(modality, mdata, force)
    counts, depth, found = alignment.align(adata, modality)
    alignment.require_coverage(found, min_coverage)
    return Measured(modality, adata.obs_names.to_numpy(str), counts, depth, found)


def told(one: Measured, verdict: dict[str, Any], where: str = "") -> None:
    """Say in the log what is missing and unlike; ``where``: the modality, where there are several."""
    if verdict and verdict["level"] != "fine":
        log.warning("%s%.0f %% of the cells are unlike the training cells", where, 100 * verdict["unlike"])
    if one.found.missing:
        log.warning(
            "%s%d of %d features are missing in the input and taken as zero",
            *(where, one.found.missing, one.found.features),
        )


def in_split(mdata: MuData, names: pd.Index, split: str) -> npt.NDArray[np.bool_]:
    """Which of the cells ``names`` are in this part of the split, (cells,); refused where the file has no split."""
    if fields.SPLIT not in mdata.obs:
        raise InputRefused(
            f"--split {split}: the input has no obs column '{fields.SPLIT}'",
            do="run xmodal prepare, or leave --split out",
        )
    part: npt.NDArray[np.bool_] = (mdata.obs[fields.SPLIT].astype(str).reindex(names) == split).to_numpy(bool)
    return part


def feature_frame(modality: Modality) -> pd.DataFrame:
    """``var`` of a modality in the order of the checkpoint: Ensembl ids of genes and places of peaks, where known."""
    import pandas as pd

    var = pd.DataFrame(index=pd.Index(modality.features, dtype=object))
    if modality.gene_ids is not None:
        var[fields.GENE_ID] = list(modality.gene_ids)
    if modality.peaks is not None:
        for column in (fields.CHROM, fields.START, fields.END):
            var[column] = modality.peaks[column].to_numpy()
    return var


def _require_measurement(name: str, adata: AnnData) -> None:
    about = adata.uns.get(fields.UNS, {})
    schema = about.get("schema") if hasattr(about, "get") else None
    layer, what = COMPUTED.get(str(schema), ("", ""))
    if what and layer not in adata.layers:
        raise InputRefused(f"the {name} in it is {what}, not a measurement", do="give measured counts")


def _require_counts(name: str, adata: AnnData, likelihood: str, scale: str) -> None:
    from xmodal.data import contracts

    contracts.require(contracts.check_modality(name, adata, likelihood, scale))


def _require_genome(modality: Modality, mdata: MuData, force: bool) -> None:
    """Peaks must be of the checkpoint's assembly; genes of its species."""
    from xmodal.data.genome import genome_of

    ours, theirs = modality.genome, genome_of(mdata, modality.name)
    if ours is None or theirs is None or ours == theirs or force:
        return
    if modality.peaks is not None or ours[:2] != theirs[:2]:
        raise InputRefused(
            f"{modality.name} of the input is {theirs}, the checkpoint was trained on {ours}",
            do="use a checkpoint of that genome, lift the input over, or go on with --force",
        )
