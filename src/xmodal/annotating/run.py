"""From a file of cells and a checkpoint to cells with names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal import fields, memory
from xmodal.annotating import annotator, candidates, clusters, scoring, tables, writing
from xmodal.annotating.candidates import Family
from xmodal.annotating.decisions import Rule
from xmodal.annotating.settings import AUTO
from xmodal.annotating.tables import Annotated
from xmodal.data.on_disk_settings import NEVER
from xmodal.embedding import job as jobs
from xmodal.embedding import reading
from xmodal.errors import InputRefused, UsageRefused

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.annotating.annotator import Annotator
    from xmodal.annotating.candidates import Candidates
    from xmodal.annotating.scoring import Scored
    from xmodal.annotating.settings import AnnotateSettings
    from xmodal.data.vocabulary import Labels
    from xmodal.learning.checkpoint import Checkpoint
    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """Where to write; ``table`` and ``report`` (a folder) only where asked for."""

    file: Path
    table: Path | None
    report: Path | None
    overwrite: bool


@dataclass(frozen=True)
class Sources:
    """Where given: the ontology's file and the text encoder (directory or id) that the checkpoint must have been trained
    with; the foundation model (KIND:DIR) whose embedding it reads.
    """

    ontology: Path | None = None
    text_model: str | None = None
    cell_model: str | None = None


@memory.refusing("the model")
def run(
    file: Path,
    checkpoint: Path,
    outputs: Outputs,
    settings: AnnotateSettings,
    sources: Sources,
    how: tuple[torch.device, int],
) -> dict[str, Any]:
    """Annotate and write; ``how`` = (device, seed).  Returns the summary."""
    from xmodal.learning.checkpoint import load

    loaded = load(checkpoint)
    model, bank, labels = annotator.of(loaded, checkpoint)
    _require_same(bank, sources)
    chosen = candidates.chosen(settings, bank.ontology, model.seen)
    # A foundation model reads whole cells, one token a gene: of a file in memory.
    mdata = reading.read(file, loaded, settings.on_disk if sources.cell_model is None else NEVER)
    device, seed = how
    try:
        mdata = _with_embedding(mdata, loaded, sources.cell_model, device)
        job = jobs.prepare_job(mdata, loaded, settings)
        voting = clusters.of_column(job.mdata.obs, settings.cluster_key)
    except InputRefused as error:
        raise error.at(str(file)) from None
    if settings.cluster_key == AUTO:
        voting = clusters.found(scoring.embedding(model, job.cells, (device, job.shared)), len(job.cells), seed)
    known = model.thresholds()
    rule = Rule(settings.least(), float(known["reject"]))
    log.info("%d candidates (%s), %d types trained on", len(chosen.ids), chosen.kind, len(model.seen))
    names = chosen, Family.of(bank.ontology, chosen.ids)
    scored = scoring.scored(model, job.cells, names, rule, voting, (device, job.shared))
    found = Annotated(job, chosen, bank.ontology, scored, voting, {})
    more = {**tables.facts(found), **_said(model, (bank, labels), chosen, scored, rule)}
    found = Annotated(
        job, chosen, bank.ontology, scored, voting, jobs.described("annotate", job, checkpoint, how, **more)
    )
    write = writing.write_h5mu if outputs.file.suffix == ".h5mu" else writing.write_h5ad
    write(outputs.file, found, outputs.overwrite)
    if outputs.table is not None:
        writing.write_tsv(outputs.table, found, outputs.overwrite)
    if outputs.report is not None:
        writing.write_report(outputs.report, found)
    return tables.summary(found.about)


def _require_same(bank: TextBank, sources: Sources) -> None:
    """The checkpoint brings its texts; where others are named they must be the same."""
    if sources.ontology is not None:
        from xmodal.text import ontology

        given, known = ontology.read(sources.ontology), bank.ontology
        if given.version != known.version:
            raise InputRefused(
                f"{given.title} is another release than the one the checkpoint was trained with, {known.title}",
                where="--ontology",
                do="leave --ontology out (the checkpoint holds all terms), or train again with this release",
            )
    if sources.text_model is not None:
        from xmodal.text import encoder

        given_encoder = encoder.load(sources.text_model)
        if given_encoder.digest != bank.encoder["digest"]:
            raise InputRefused(
                f"{given_encoder.name} ({given_encoder.digest[:12]}...) is another text encoder than the one the checkpoint "
                f"was trained with, {bank.encoder['name']} ({bank.encoder['digest'][:12]}...)",
                where="--text-model",
                do="leave --text-model out (the checkpoint holds the vectors of all terms), or train again with this one",
            )


def _with_embedding(mdata: MuData, loaded: Checkpoint, spec: str | None, device: torch.device) -> MuData:
    """The cells with the embedding by a foundation model, where one is named and the checkpoint reads it."""
    if spec is None:
        return mdata
    from xmodal import foundation

    kind, reads = foundation.KINDS.get(spec.partition(":")[0]), loaded.model.vocabulary.reference
    if kind is None:
        raise UsageRefused(f"--cell-model {spec}: give {' or '.join(f'{k}:DIR' for k in foundation.KINDS)}")
    if reads is None or kind != reads.key:
        what = "the counts alone" if reads is None else f"obsm['{reads.key}']"
        raise UsageRefused(f"--cell-model {spec}: the checkpoint was trained on {what}; leave --cell-model out")
    foundation.require_same(loaded.header["training"], spec, "--cell-model")
    return foundation.ensure(mdata, spec, device)[0]


def _said(
    model: Annotator, texts: tuple[TextBank, Labels], chosen: Candidates, scored: Scored, rule: Rule
) -> dict[str, Any]:
    """Candidates, thresholds and texts, for the provenance."""
    bank, labels = texts
    met = {chosen.ids[i] for i in set(scored.calls.best.ravel().tolist())}
    called = {str(t) for t in scored.calls.term if t != fields.UNKNOWN}
    voted = set() if scored.votes is None else {str(t) for t in scored.votes.term if t != fields.UNKNOWN}
    return {
        "candidates": {"kind": chosen.kind, "root": chosen.root, "number": len(chosen.ids), "ids": list(chosen.ids)},
        "thresholds": {**{k: round(float(v), 6) for k, v in model.thresholds().items()}, "least": rule.least},
        "ontology": {"version": bank.ontology.version, "source": bank.ontology.source},
        "text_encoder": dict(bank.encoder),
        "seen": list(model.seen),
        "trained": {"key": labels.key, "values": list(labels.values), "terms": list(labels.terms)},
        "names": {t: tables.name_of(t, bank.ontology) for t in sorted({*model.seen, *met, *called, *voted})},
    }
