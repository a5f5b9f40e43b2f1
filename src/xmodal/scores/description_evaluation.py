"""Descriptions beside plain texts: every score of every method, on the same cells.

A reference is what the literature (scMMGPT) has: "Cell type: NAME. DEFINITION" of the known type.  Scores of that form are of the
sentences of a description that say the type and its definition; its other sentences say what no reference of that form has,
and the same scores of whole texts stand beside.  References *with genes* also have the template's sentence on genes of the
cells of the known type; against them stands what a description says of type and genes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.describing import evidence as facts
from xmodal.describing import genes
from xmodal.describing.grounding import joined
from xmodal.describing.settings import DescribeSettings
from xmodal.describing.wordings import template
from xmodal.scores import annotation_measures, description_faith, description_input
from xmodal.scores import description_measures as measures
from xmodal.scores.annotation_input import scene
from xmodal.scores.description_texts import LOOKUP, MAJORITY, OWN, WHOLE, WITH_GENES, WRONG
from xmodal.scores.generation_measures import mmd2
from xmodal.text.ontology import PSEUDO

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.annotation_input import Scene
    from xmodal.scores.description_faith import Faith
    from xmodal.scores.description_input import Description
    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.scores.scoring import Scores
    from xmodal.text.encoder import TextEncoder
    from xmodal.text.ontology import Ontology

log = logging.getLogger(__name__)
Strings = npt.NDArray[Any]
MOST = 1_000  # cells of a set, as of generated cells: its kernel is of all pairs
LEAST = 10  # cells below which two sets are not compared


@dataclass
class Result:
    """Scores of each method, and what a reader must know of them."""

    scene: Scene
    description: Description
    faith: Faith
    encoder: dict[str, str]
    methods: dict[str, Scores] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Texts:
    """Of the scored cells, (cells,) each: what is said of the type, of type and genes, all that is said; the term named."""

    about_type: Strings
    about_genes: Strings
    whole: Strings
    named: Strings


def evaluate(
    mdata: MuData, given: Description, settings: EvaluationSettings, texts: tuple[Ontology, TextEncoder], seed: int
) -> Result:
    """Score ``given`` and what stands beside it; :class:`InputRefused` where truth and descriptions do not fit."""
    ontology, encoder = texts
    description_input.require_cells(mdata, given)
    labels = frozenset(str(v) for v in (given.about.get("trained") or {}).get("values", ()))
    named = np.array([measures.named_term(u.text, ontology, labels) for u in given.units], object)
    found = scene(mdata, description_input.as_annotation(given, named), settings, ontology)
    log.info("%d sentences against their evidence and the cells", sum(len(u.sentences) for u in given.units))
    faith = description_faith.checked(mdata, given, ontology)
    result = Result(found, given, faith, {"name": encoder.name, "digest": encoder.digest}, notes=list(found.notes))
    truth, methods = found.truth[found.scored], _methods(given, found, named, ontology)
    references = np.array([type_text(t, ontology) for t in truth], object)
    with_genes = _with_genes(mdata, found, ontology, seed)
    log.info("texts as vectors by %s", encoder.name)
    for name, said in methods.items():
        scores = _of_label(said.named, truth, ontology)
        scores |= _against(said.about_type, references, truth, encoder, seed)
        if name == OWN:
            scores |= {f"{k}{WHOLE}": v for k, v in _against(said.whole, references, truth, encoder, seed).items()}
        if (
            with_genes is not None
            and (between := _discrepancy(said.about_genes, with_genes, encoder, seed)) is not None
        ):
            scores[f"textual_discrepancy{WITH_GENES}"] = between
        result.methods[name] = scores
    result.methods[OWN] |= faith.scores
    return result


def type_text(term: str, ontology: Ontology) -> str:
    """``Cell type: NAME. DEFINITION`` of an id; the name alone where there is no definition."""
    if term == fields.UNKNOWN:
        return template("type").format(name=fields.UNKNOWN)
    if term not in ontology:
        return template("type").format(name=term.removeprefix(PSEUDO))
    text, definition = template("type").format(name=ontology[term].name), ontology[term].definition
    if not definition:
        return text
    return f"{text} {definition if definition.endswith(('.', '!', '?')) else definition + '.'}"


def _methods(given: Description, found: Scene, named: Strings, ontology: Ontology) -> dict[str, Texts]:
    """What each method says of the scored cells."""
    unit = np.repeat(np.arange(len(given.units)), [len(u.cells) for u in given.units])[found.row[found.scored]]
    kind, with_genes, whole = (
        np.array([getattr(u, part) for u in given.units], object) for part in ("about_type", "about_genes", "text")
    )
    truth = found.truth[found.scored].astype(str)
    learned = found.truth[found.train].astype(str) if found.train.any() else truth
    names, many = np.unique(learned, return_counts=True)
    frequent = names[np.argsort(-many, kind="stable")]
    other = np.array([next((str(n) for n in frequent if n != t), fields.UNKNOWN) for t in truth], object)
    plain = {LOOKUP: named[unit], MAJORITY: np.full(len(truth), str(frequent[0]), object), WRONG: other}
    said = {t: type_text(t, ontology) for terms in plain.values() for t in dict.fromkeys(terms)}
    out = {OWN: Texts(kind[unit], with_genes[unit], whole[unit], named[unit])}
    for name, terms in plain.items():
        own = np.array([said[t] for t in terms], object)
        out[name] = Texts(own, own, own, terms)
    return out


def _of_label(named: Strings, truth: Strings, ontology: Ontology) -> Scores:
    scores: Scores = {"label_f1": annotation_measures.macro_f1(truth, named)}
    able = np.array([n in ontology and t in ontology for n, t in zip(named, truth, strict=True)])
    if able.any():
        pairs = list(zip(named[able], truth[able], strict=True))
        steps = {p: ontology.distance(*p) for p in dict.fromkeys(pairs)}
        scores["ontology_distance"] = float(np.mean([steps[p] for p in pairs]))
    return scores


def _against(texts: Strings, references: Strings, truth: Strings, encoder: TextEncoder, seed: int) -> Scores:
    """All that compares texts with references, pair by pair and as wholes."""
    pairs = [(str(a), str(b)) for a, b in zip(texts, references, strict=True)]
    own, theirs = ([measures.words(t) for t in side] for side in zip(*pairs, strict=True))
    rouge = np.array(measures.averaged(measures.rouge_l, pairs))
    vectors = [_vectors([p[i] for p in pairs], encoder) for i in (0, 1)]
    found: Scores = {
        "bleu2": measures.bleu(own, theirs, 2),
        "bleu4": measures.bleu(own, theirs, 4),
        "rouge_l": float(rouge.mean()),
        "rouge_l_macro": annotation_measures.macro(rouge, truth),
        "meteor": float(np.mean(measures.averaged(measures.meteor, pairs))),
        "cosine": float((vectors[0] * vectors[1]).sum(1).mean()),
    }
    between = _discrepancy(texts, references, encoder, seed)
    return found if between is None else {**found, "textual_discrepancy": between}


def _discrepancy(texts: Strings, references: Strings, encoder: TextEncoder, seed: int) -> float | None:
    """MMD2 of the two sets of vectors, of at most ``MOST`` cells, the same for every method; None of too few."""
    if len(texts) < LEAST:
        return None
    rows = np.arange(len(texts))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    return mmd2(_vectors(texts[rows], encoder), _vectors(references[rows], encoder))


def _vectors(texts: Sequence[str] | Strings, encoder: TextEncoder) -> npt.NDArray[np.float32]:
    """(texts, width); each text is read once."""
    unique, code = np.unique(np.array(texts, str), return_inverse=True)
    return encoder.encode([str(t) for t in unique])[code.ravel()]


def _with_genes(mdata: MuData, found: Scene, ontology: Ontology, seed: int) -> Strings | None:
    """The references, and behind each what the template says of the genes of its type, by the known labels of all cells.

    None where no type is told from the others by a gene.
    """
    truth = found.truth.astype(str)
    names, own = np.unique(truth, return_inverse=True)
    codes = np.full(mdata.n_obs, -1)
    codes[mdata.obs_names.get_indexer(found.names)] = own.ravel()
    groups = (tuple(map(str, names)), codes.astype(np.int64))
    table = genes.find(mdata, groups, DescribeSettings(), seed, Path("truth"))
    if not table.table["confirmed"].astype(bool).any():
        return None
    said = {}
    for name in groups[0]:
        rows = table.of(name).to_dict("records")
        shown = [facts.more(r) for r in rows]
        more = " " + template("genes").format(genes=joined(shown)) if shown else ""
        said[name] = type_text(name, ontology) + more
    return np.array([said[t] for t in truth[found.scored]], object)
