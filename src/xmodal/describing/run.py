"""The work of ``xmodal describe``: cells and a checkpoint in, a description of each group or cell out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import __version__, fields, memory, provenance
from xmodal.annotating import annotator, scoring
from xmodal.describing import annotation, calls, decoders, genes, plans
from xmodal.describing.evidence import Evidence, by_id
from xmodal.describing.grounding import Plan, Prover, Sentence, filled
from xmodal.describing.plans import Subject
from xmodal.describing.settings import TEMPLATE, DecoderChoice
from xmodal.describing.wordings import FIXED, template
from xmodal.embedding import job as jobs
from xmodal.embedding import reading
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from xmodal.describing.calls import Call, Called, Described
    from xmodal.describing.genes import Named
    from xmodal.describing.neural import NeuralDecoder
    from xmodal.describing.settings import DescribeSettings
    from xmodal.embedding.job import Job
    from xmodal.learning.checkpoint import Checkpoint
    from xmodal.text.ontology import Ontology

log = logging.getLogger(__name__)
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unit:
    """What is said of a group or cell, and why.  ``rows``: its cells among the job's."""

    subject: Subject
    rows: Index
    evidence: tuple[Evidence, ...]
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.sentences)


@dataclass
class Found:
    """All units, and what descriptions.json says besides."""

    job: Job
    groups: Described
    named: Named
    units: list[Unit]
    about: dict[str, Any]


@memory.refusing("the model")
def run(
    file: Path,
    checkpoint: Path,
    decoder_dir: Path | None,
    settings: DescribeSettings,
    how: tuple[torch.device, int],
) -> Found:
    """Describe the cells of ``file``; ``how`` = (device, seed)."""
    from xmodal.learning.checkpoint import load

    loaded = load(checkpoint)
    model, bank, _ = annotator.of(loaded, checkpoint)
    mdata = reading.read(file, loaded)
    seed = how[1]
    try:
        job = jobs.prepare_job(mdata, loaded, settings)
        annotation.require_same(job, checkpoint, settings.force)
        obs = annotation.of(job, (model, bank), settings, how)
        called = calls.called(obs, bank.ontology)
        groups = calls.groups(obs, called, settings)
    except InputRefused as error:
        raise error.at(str(file)) from None
    named = genes.find(_counted(job), (groups.names, groups.codes), settings, seed, file)
    prover = Prover(frozenset(job.cells.vocabulary[fields.RNA].features), bank.ontology)
    words = Words(prover, TEMPLATE)
    if (choice := DecoderChoice.of(settings.decoder)).neural:
        assert decoder_dir is not None
        texts = decoders.texts_of(loaded.model, bank, provenance.sha256(checkpoint))
        neural = decoders.load(choice, decoder_dir, texts, how)
        embed = scoring.embedding(model, job.cells, (how[0], job.shared))
        latent = np.concatenate(list(embed(np.arange(len(job.cells)))))
        words = Words(prover, neural.name, neural, latent)
    found = Found(job, groups, named, [], {})
    found.units = list(_units(found, called, settings, (words, seed)))
    _describe(found, loaded, checkpoint, settings, (words, how))
    return found


@dataclass
class Words:
    """Who words the plans of sentences: the template, or ``neural`` with ``latent``, the joint embedding (cells, width).

    ``unproven``: sentences that their evidence does not prove, which are left out; there should be none.
    """

    prover: Prover
    name: str
    neural: NeuralDecoder | None = None
    latent: npt.NDArray[np.float32] | None = None
    unproven: int = 0

    def say(self, subject: Subject, rows: Index, known: dict[str, Evidence]) -> Iterator[Sentence]:
        for plan in plans.sentences(subject, known):
            sentence = self._worded(plan, subject, rows)
            if why := self.prover.untraceable(sentence, known):
                self.unproven += 1
                log.warning("left out, because %s: %s", why, sentence.text)
                continue
            yield sentence

    def _worded(self, plan: Plan, subject: Subject, rows: Index) -> Sentence:
        if self.neural is None or self.latent is None or plan.kind in FIXED:
            return filled(plan, template(plan.kind), TEMPLATE)
        import torch

        mean = torch.from_numpy(self.latent[rows].mean(0, keepdims=True))
        vector = torch.nn.functional.normalize(mean, dim=1)
        form = self.neural.form(plan.kind, subject.call.name, vector)
        return filled(plan, form, self.name) if form else filled(plan, template(plan.kind), TEMPLATE)

    def about(self) -> dict[str, Any]:
        if self.neural is None:
            return {"name": self.name}
        worded = self.neural.worded
        return {"name": self.name, "sentences": worded.sentences, "fallen_back": worded.fallen_back}


def _units(found: Found, called: Called, settings: DescribeSettings, by: tuple[Words, int]) -> Iterator[Unit]:
    words, seed = by
    subjects = [_subject(found, group, settings) for group in range(len(found.groups.names))]
    if settings.per == "cluster":
        for group, subject in enumerate(subjects):
            yield _unit(subject, found.groups.rows(group), called.ontology, words)
        return
    counts = _counts(found)
    for row in map(int, drawn(found.groups.codes, settings.cells, seed)):
        subject = _of_cell(subjects[found.groups.codes[row]], found, called.cell(row), (row, counts))
        yield _unit(subject, np.array([row]), called.ontology, words)


def _unit(subject: Subject, rows: Index, ontology: Ontology, words: Words) -> Unit:
    table = tuple(plans.table(subject, ontology))
    return Unit(subject, rows, table, tuple(words.say(subject, rows, by_id(table))))


def _subject(found: Found, group: int, settings: DescribeSettings) -> Subject:
    groups, named, rows = found.groups, found.named, found.groups.rows(group)
    name = groups.names[group]
    first, rest = named.halves(name)
    tested = (len(first), len(rest)) if settings.genes and name not in named.few else None
    return Subject(
        group=name,
        of_label=groups.key == fields.CT_LABEL,
        cells=len(rows),
        share=len(rows) / max(len(groups.codes), 1),
        call=groups.calls[group],
        unlike=float(found.job.unlike[rows].mean()),
        genes=named.of(name, confirmed=False),
        tested=tested,
        fdr=settings.fdr,
    )


def _of_cell(group: Subject, found: Found, call: Call, place: tuple[int, dict[str, Any]]) -> Subject:
    """``place`` = (row of the cell, counts of all cells by gene)."""
    row, counts = place
    own = tuple((str(g), int(counts[str(g)][row])) for g in group.confirmed["gene"])
    name, unlike = str(found.job.cells.names[row]), float(found.job.unlike[row])
    return replace(group, call=call, unlike=unlike, cell=name, counts=own)


def _counted(job: Job) -> MuData:
    """The counts as the checkpoint reads them: its genes, by its names, whatever the file calls them."""
    import anndata as ad
    import pandas as pd
    from mudata import MuData

    cells = job.cells
    obs = pd.DataFrame({fields.DEPTH: cells.depth[fields.RNA]}, index=pd.Index(cells.names, dtype=object))
    var = pd.DataFrame(index=pd.Index(cells.vocabulary[fields.RNA].features, dtype=object))
    return MuData({fields.RNA: ad.AnnData(cells.counts[fields.RNA].astype(np.float32), obs=obs, var=var)})


def _counts(found: Found) -> dict[str, Any]:
    """Counts (cells,) of every gene that is named of a group."""
    cells = found.job.cells
    place = {gene: i for i, gene in enumerate(cells.vocabulary[fields.RNA].features)}
    wanted = sorted({str(g) for g in found.named.table["gene"]})
    return {gene: cells.counts[fields.RNA][:, [place[gene]]].toarray().ravel() for gene in wanted}


def drawn(codes: Index, number: int | None, seed: int) -> Index:
    """``number`` cells that have a group, as evenly from the groups as these allow, in the order of the file; None: all."""
    every = np.flatnonzero(codes >= 0)
    if number is None or number >= len(every):
        return every
    order = np.random.default_rng(seed).permutation(every)
    turn = np.zeros(len(order), np.int64)
    for code in np.unique(codes[order]):
        own = np.flatnonzero(codes[order] == code)
        turn[own] = np.arange(len(own))
    return np.sort(order[np.argsort(turn, kind="stable")[:number]])


def _describe(
    found: Found, loaded: Checkpoint, checkpoint: Path, settings: DescribeSettings, by: tuple[Words, tuple[Any, int]]
) -> None:
    words, (_, seed) = by
    texts, labels = loaded.model.vocabulary.texts, loaded.model.vocabulary.labels
    assert texts is not None and labels is not None
    chosen, confirmed = len(found.named.table), int(found.named.table["confirmed"].astype(bool).sum())
    found.about = {
        "schema": fields.DESCRIPTIONS_SCHEMA,
        "command": "describe",
        "version": __version__,
        "model": loaded.model.name,
        "checkpoint_sha256": provenance.sha256(checkpoint),
        "ontology": {"version": texts.ontology.version, "source": texts.ontology.source},
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "trained": {"key": labels.key, "values": list(labels.values), "terms": list(labels.terms)},
        "group_by": found.groups.key,
        "decoder": words.about(),
        "genes": {"chosen": chosen, "confirmed": confirmed},
        "cells": len(found.job.cells),
        "unlike": round(float(found.job.unlike.mean()), 4),
        "notes": _notes(found, settings, words),
    }


def _notes(found: Found, settings: DescribeSettings, words: Words) -> list[str]:
    notes = []
    if words.unproven:
        notes.append(f"{words.unproven} sentences are left out, because their evidence does not prove them")
    if without := int((found.groups.codes < 0).sum()):
        notes.append(f"{without} cells have no group in '{found.groups.key}' and are in no description")
    if found.named.few and settings.genes:
        notes.append(f"too few cells to test genes (--min-cells): {', '.join(sorted(found.named.few))}")
    if found.groups.key == fields.CLUSTER:
        notes.append("the clusters were found in the same cells: figures of genes order them, and prove no cluster")
    return notes
