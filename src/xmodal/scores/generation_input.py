"""What generated cells are scored on: the file, the measured cells of the same types, and a space fitted to training cells."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from xmodal import fields
from xmodal.errors import InputRefused
from xmodal.scores import annotation_input, given_results
from xmodal.scores.metrics import Array, Index

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.text.ontology import Ontology

log = logging.getLogger(__name__)
COMPONENTS = 50
VARIABLE = 200  # genes whose variances and distances are compared
LEAST_CELLS = 10  # test cells of a type below which it is not scored: a distribution of fewer says nothing
LEAST_GENERATED = 10
MOST_CELLS = 1_000  # of a type on each side
LEAST_SHARED = 0.5  # of the generated genes, that the truth must have
SHOWN = 5
Strings = npt.NDArray[Any]


@dataclass(frozen=True)
class GeneratedCells:
    """``counts``: CSR (cells, genes); ``prompt`` (cells,); ``term`` (cells,): the id asked for, "unknown" for free text."""

    where: str
    counts: sp.csr_matrix
    genes: npt.NDArray[np.str_]
    prompt: Strings
    term: Strings
    about: dict[str, Any] = field(default_factory=dict)

    def said(self, key: str) -> Any:
        """From the provenance; None where the file has none."""
        return (self.about.get("settings") or {}).get(key)


@dataclass(frozen=True)
class Scene:
    """Measured and generated cells of the types that are scored, dense counts (cells, genes), and their types (cells,).

    ``types``: ids, whose place is a cell's code; ``which``: test or valid.  Measured cells of other types are there as well,
    with code -1: the space is fitted to all training cells, and any test cell can be a neighbour.
    """

    types: tuple[str, ...]
    names: tuple[str, ...]
    train: Array
    train_type: Index
    test: Array
    test_type: Index
    generated: Array
    generated_type: Index
    which: str
    key: str
    notes: list[str]


class Space:
    """Depth brought to the training cells' median, log1p, 50 principal components, all fitted to training cells alone."""

    def __init__(self, train: Array) -> None:
        from sklearn.decomposition import PCA

        self.depth = max(float(np.median(train.sum(1))), 1.0)
        values = self.logged(train)
        self.mean = values.mean(0, dtype=np.float64)
        self.variable = np.sort(np.argsort(-values.var(0), kind="stable")[:VARIABLE])
        most = min(COMPONENTS, *values.shape)
        self.components = PCA(most, svd_solver="randomized", random_state=0).fit(values)

    def logged(self, counts: Array) -> Array:
        total = np.maximum(counts.sum(1, keepdims=True), 1)
        found: Array = np.log1p(counts / total * self.depth).astype(np.float32)
        return found

    def placed(self, values: Array) -> Array:
        """Principal components of logged values, (cells, 50)."""
        found: Array = self.components.transform(values).astype(np.float32)
        return found


def read_generated(path: Path) -> GeneratedCells:
    """The cells that ``xmodal generate`` wrote; refused where nothing says what they were asked to be."""
    import anndata as ad

    from xmodal.data.io import file_kind, refusing

    if file_kind(path) != "h5ad":
        raise InputRefused(
            "generated cells must be in an h5ad", where=str(path), do="give what `xmodal generate` wrote"
        )
    with refusing(path):
        adata = ad.read_h5ad(path)
    about = adata.uns.get(fields.UNS, {})
    if fields.PROMPT not in adata.obs or str(about.get("schema", "")) != fields.GENERATED_SCHEMA:
        raise InputRefused(
            f"these are not cells of xmodal generate (obs['{fields.PROMPT}'], uns['{fields.UNS}'])",
            where=str(path),
            do="give what `xmodal generate --output G.h5ad` wrote",
        )
    known = {str(k): v.item() if hasattr(v, "item") else v for k, v in about.items()}
    known["settings"] = json.loads(str(known.get("settings", "{}")))
    prompt, term = (adata.obs[c].astype(str).to_numpy(object) for c in (fields.PROMPT, fields.TERM))
    return GeneratedCells(str(path), sp.csr_matrix(adata.X), adata.var_names.to_numpy(str), prompt, term, known)


def require_checkpoint(checkpoint: Path, generated: GeneratedCells) -> None:
    """Refuse cells that say they were made by another checkpoint."""
    given_results.require_checkpoint(
        checkpoint, {generated.where: generated.about.get("checkpoint_sha256")}, "generate"
    )


def scene(mdata: MuData, generated: GeneratedCells, settings: EvaluationSettings, ontology: Ontology | None) -> Scene:
    """The cells that are compared.  Raises :class:`InputRefused` where no type has both generated and measured cells."""
    if fields.RNA not in mdata.mod:
        raise InputRefused(
            f"it has no {fields.RNA}, only {', '.join(mdata.mod)}", where="truth", do="give counts of RNA"
        )
    part = _parts(mdata)
    which = fields.VALID if settings.cells == fields.VALID else fields.TEST
    key, trained = _key(mdata, generated, settings.label_key), generated.said("trained") or {}
    taken = dict(zip(trained.get("values") or (), trained.get("terms") or (), strict=False))
    names = {str(k): str(v) for k, v in (generated.said("names") or {}).items()}
    truth = annotation_input.ids_of(mdata, key, taken, names, ontology)
    notes: list[str] = []
    asked = _asked(generated, annotation_input.labels_in(mdata, key), truth)
    types = _types(truth[part == which], asked, generated.prompt, notes, which)
    if not types:
        raise InputRefused(
            f"no type has {LEAST_CELLS} {which} cells and {LEAST_GENERATED} generated ones ({'; '.join(notes) or 'none fits'})",
            where=generated.where,
            do="prompt for the types of the truth (their labels or Cell Ontology ids), or give another --label-key",
        )
    counts, own = _shared(mdata, generated, notes)
    code = {t: i for i, t in enumerate(types)}

    def coded(ids: Strings) -> Index:
        return np.array([code.get(str(t), -1) for t in ids], np.int64)

    train, test, made = part == fields.TRAIN, (part == which) & (truth != ""), np.isin(asked, types)
    rows = _few(coded(asked), made)
    labels = {t: label for label, t in zip(annotation_input.labels_in(mdata, key), truth, strict=True)}
    called = tuple(labels[t] for t in types)
    measured = (_dense(counts, train), coded(truth[train]), _dense(counts, test), coded(truth[test]))
    return Scene(types, called, *measured, _dense(own, rows), coded(asked[rows]), which, key, notes)


def _parts(mdata: MuData) -> Strings:
    if fields.SPLIT not in mdata.obs:
        raise InputRefused(
            f"obs has no column '{fields.SPLIT}', so nothing says which cells the model has not seen",
            where="truth",
            do="give the prepared file that the model was trained on",
        )
    found: Strings = mdata.obs[fields.SPLIT].astype(str).to_numpy(object)
    if not (found == fields.TRAIN).any():
        raise InputRefused("it has no training cells", where="truth", do="give the file that the model was trained on")
    return found


def _key(mdata: MuData, generated: GeneratedCells, asked: str | None) -> str:
    """The column of the known labels: asked for, that of the training, or one that is called so."""
    from xmodal.data.splits import near
    from xmodal.predicting.overview import type_column

    if asked is not None and asked not in mdata.obs:
        raise InputRefused(f"obs has no column '{asked}'", where="--label-key", do=near(asked, list(mdata.obs.columns)))
    trained = str((generated.said("trained") or {}).get("key") or "")
    found = asked or (trained if trained in mdata.obs else type_column(mdata.obs))
    if found is None:
        raise InputRefused("no obs column is called as cell types are", where="truth", do="name it: --label-key COLUMN")
    return found


def _asked(generated: GeneratedCells, labels: Strings, truth: Strings) -> Strings:
    """The id of the truth's type that each generated cell was asked to be, "" where that is none of them, (cells,).

    The id of the prompt; else the label that the prompt is, word for word; else the one type that its cells are of.
    """
    plain = {str(label).casefold(): str(t) for label, t in zip(labels, truth, strict=True) if t}
    covers = {p["prompt"]: p["covers"] for p in generated.said("prompts") or ()}
    known = {str(t) for t in truth if t}

    def one(prompt: str, term: str) -> str:
        if term in known:
            return term
        if prompt.casefold() in plain:
            return plain[prompt.casefold()]
        only = covers.get(prompt, ())
        return only[0] if len(only) == 1 and only[0] in known else ""

    pairs = {pair: one(*pair) for pair in dict.fromkeys(zip(generated.prompt, generated.term, strict=True))}
    return np.array([pairs[pair] for pair in zip(generated.prompt, generated.term, strict=True)], object)


def _types(truth: Strings, asked: Strings, prompt: Strings, notes: list[str], which: str) -> tuple[str, ...]:
    """Ids with enough cells on both sides, sorted; what is left out goes into the notes."""
    lost = sorted({str(p) for p, t in zip(prompt, asked, strict=True) if not t})
    if lost:
        shown = ", ".join(f"'{p}'" for p in lost[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
        notes.append(f"{len(lost)} prompts are of no type of the truth, so they are not scored: {shown}")
    both = sorted({str(t) for t in asked if t})
    few = [t for t in both if (truth == t).sum() < LEAST_CELLS or (asked == t).sum() < LEAST_GENERATED]
    if few:
        shown = ", ".join(f"{t} ({(truth == t).sum()})" for t in few)
        notes.append(f"types with fewer than {LEAST_CELLS} {which} cells or generated cells are not scored: {shown}")
    return tuple(t for t in both if t not in few)


def _shared(mdata: MuData, generated: GeneratedCells, notes: list[str]) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Counts of the truth, in the order of ``mdata``, and of the generated cells, of the genes that both have."""
    import pandas as pd

    adata = mdata.mod[fields.RNA]
    place = pd.Index(adata.var_names.astype(str)).get_indexer(generated.genes)
    shared = place >= 0
    if shared.mean() < LEAST_SHARED:
        first = ", ".join(generated.genes[~shared][:3])
        raise InputRefused(
            f"the truth has {shared.sum()} of the {len(shared)} generated genes, not for instance {first}",
            where=generated.where,
            do="give the file that the model was trained on",
        )
    if not shared.all():
        notes.append(f"{(~shared).sum()} of {len(shared)} generated genes are not in the truth and are not scored")
    whole = sp.csr_matrix(adata.X)[:, place[shared]]
    row = adata.obs_names.get_indexer(mdata.obs_names)
    if (row < 0).any():
        raise InputRefused("some of its cells have no RNA", where="truth", do="give cells that all have RNA")
    return whole[row], generated.counts[:, np.flatnonzero(shared)].tocsr()


def _few(codes: Index, wanted: npt.NDArray[np.bool_]) -> Index:
    """Rows of the cells ``wanted``, at most MOST_CELLS of each code, sorted."""
    rows = [np.flatnonzero(wanted & (codes == c))[:MOST_CELLS] for c in np.unique(codes[wanted])]
    found: Index = np.sort(np.concatenate(rows)).astype(np.int64)
    return found


def _dense(counts: sp.csr_matrix, rows: Any) -> Array:
    found: Array = np.asarray(counts[np.flatnonzero(rows) if rows.dtype == bool else rows].toarray(), np.float32)
    return found
