"""Calls for cells that come without: what ``xmodal annotate`` would write beside them, by its defaults."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pandas as pd

from xmodal import fields, provenance
from xmodal.annotating import candidates, clusters, scoring, tables
from xmodal.annotating.candidates import Family
from xmodal.annotating.decisions import Rule
from xmodal.annotating.settings import AUTO, AnnotateSettings
from xmodal.annotating.tables import Annotated
from xmodal.describing import calls
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from xmodal.annotating.annotator import Annotator
    from xmodal.describing.settings import DescribeSettings
    from xmodal.embedding.job import Job
    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)


def of(
    job: Job, texts: tuple[Annotator, TextBank], settings: DescribeSettings, how: tuple[torch.device, int]
) -> pd.DataFrame:
    """``obs`` of the cells with annotate's columns: the file's own where it has them, else made now; ``how`` = (device, seed)."""
    obs = job.mdata.obs
    if calls.annotated(obs):
        return obs
    # The clusters that the groups are made of vote; where the groups are labels, small clusters, as annotate does.
    key = settings.group_by
    if key == AUTO and fields.CLUSTER in obs:
        key = fields.CLUSTER
    log.info("the cells have no labels of xmodal annotate: they are annotated by its defaults")
    found = _annotated(job, texts, AnnotateSettings(cluster_key=key), how)
    made = pd.DataFrame(tables.columns(found), index=obs.index)
    return pd.concat([obs.drop(columns=[c for c in made if c in obs]), made], axis=1)


def _annotated(
    job: Job, texts: tuple[Annotator, TextBank], asked: AnnotateSettings, how: tuple[torch.device, int]
) -> Annotated:
    model, bank = texts
    device, seed = how
    voting = clusters.of_column(job.mdata.obs, asked.cluster_key, "--group-by")
    if asked.cluster_key == AUTO:
        voting = clusters.found(scoring.embedding(model, job.cells, (device, job.shared)), len(job.cells), seed)
    chosen = candidates.chosen(asked, bank.ontology, model.seen)
    rule = Rule(asked.least(), float(model.thresholds()["reject"]))
    names = chosen, Family.of(bank.ontology, chosen.ids)
    scored = scoring.scored(model, job.cells, names, rule, voting, (device, job.shared))
    return Annotated(job, chosen, bank.ontology, scored, voting, {})


def require_same(job: Job, checkpoint: Path, force: bool) -> None:
    """Refuse labels that another checkpoint made: its vectors and types are not those of this one."""
    about = job.mdata.uns.get(fields.ANNOTATION_ABOUT)
    for part in (about, *(m.uns.get(fields.ANNOTATION_ABOUT) for m in job.mdata.mod.values())):
        said = str(part["checkpoint_sha256"]) if part is not None and "checkpoint_sha256" in part else None
        if said is None or said == (own := provenance.sha256(checkpoint)) or force:
            continue
        raise InputRefused(
            f"the cells were annotated by another checkpoint ({said[:12]}...) than {checkpoint.name} ({own[:12]}...)",
            do="give that checkpoint, or go on with --force",
        )
