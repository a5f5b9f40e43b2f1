"""What labels are scored on: the file, the cells, and what these are known to be, each refused where it cannot be."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data.labels import NO_LABEL
from xmodal.errors import InputRefused
from xmodal.scores import given_results
from xmodal.scores.annotation_floors import Guess, ranked
from xmodal.scores.metrics import Bools, Floats, Index
from xmodal.text.ontology import ID, PSEUDO

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from xmodal.scores.evaluation_settings import EvaluationSettings
    from xmodal.text.ontology import Ontology

log = logging.getLogger(__name__)
SHOWN = 5
NEEDED = f"obs['{fields.CT_TOP}'], or obs['{fields.TERM}']"
Strings = npt.NDArray[Any]


@dataclass(frozen=True)
class Annotation:
    """Labels of ``cells`` (cells,), from ``xmodal annotate`` or another program that wrote Cell Ontology ids.

    ``guess``: best candidates; ``called``: ids as they stand in the file, "unknown" where there is none; ``status``: assigned,
    coarse, unknown; ``votes``: ids of the clusters' labels; all (cells,), the last three None where the file has none.
    """

    where: str
    cells: npt.NDArray[np.str_]
    guess: Guess
    called: Strings
    status: Strings | None = None
    votes: Strings | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def said(self, key: str) -> Any:
        """From the provenance; None where the file has none."""
        return (self.about.get("settings") or {}).get(key)

    @property
    def seen(self) -> frozenset[str] | None:
        """The types that the model was trained on, None where that is not known."""
        known = self.said("seen")
        return frozenset(map(str, known)) if known else None

    @property
    def plain(self) -> bool:
        """Are labels what they are, whatever the ontology says?  So it is with what ``train --target`` learned."""
        return bool(self.said("plain"))

    @property
    def candidates(self) -> frozenset[str] | None:
        known = (self.said("candidates") or {}).get("ids")
        return frozenset(map(str, known)) if known else None

    @property
    def names(self) -> dict[str, str]:
        """Id -> name, as far as the file says."""
        return {str(k): str(v) for k, v in (self.said("names") or {}).items()}


@dataclass(frozen=True)
class Scene:
    """The cells that play a part, ``names`` (cells,), in the order of the truth.

    ``row``: where each stands in the annotation, -1 where it does not (training cells need not be annotated).  ``truth``: ids
    (cells,), "" for cells without a label.  Masks (cells,): ``scored``, ``train``.  ``which``: test, valid or all.
    """

    names: npt.NDArray[np.str_]
    row: Index
    truth: Strings
    scored: Bools
    train: Bools
    which: str
    key: str
    notes: list[str]


def read_annotation(path: Path) -> Annotation:
    """The labels of a file, without its counts; refused where there are none."""
    import h5py
    from anndata.io import read_elem

    from xmodal.data.io import file_kind, refusing

    if file_kind(path) not in ("h5ad", "h5mu"):
        raise InputRefused(
            "labels must be in an h5ad or h5mu", where=str(path), do="give what `xmodal annotate --output` wrote"
        )
    with refusing(path), h5py.File(path, "r") as file:
        obs = read_elem(file["obs"])
        held = file.get("uns", {})
        about = read_elem(held[fields.ANNOTATION_ABOUT]) if fields.ANNOTATION_ABOUT in held else {}
    cells = obs.index.to_numpy(str)
    if len(np.unique(cells)) < len(cells):
        raise InputRefused("cell names are duplicated", where=str(path), do="make obs_names unique and annotate again")
    decoded = _decoded(about)
    names = {str(k): str(v) for k, v in (decoded.get("settings", {}).get("names") or {}).items()}
    called = _ids(obs, fields.TERM)
    if called is None:
        raise InputRefused(f"there are no labels in it ({NEEDED})", where=str(path), do="run xmodal annotate first")
    votes = _votes(obs, names)
    status = obs[fields.CT_STATUS].astype(str).to_numpy(object) if fields.CT_STATUS in obs else None
    return Annotation(str(path), cells, _guess(obs, called, names), _own(obs, called, names), status, votes, decoded)


def is_target(path: Path) -> bool:
    """Is this what `xmodal predict --to COLUMN` wrote?  The file may be of any other kind."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        schema = file.get(f"uns/{fields.UNS}/schema")
        return isinstance(schema, h5py.Dataset) and schema.asstr()[()] == fields.TARGET_SCHEMA


def read_target(path: Path, key: str | None = None) -> Annotation:
    """What ``xmodal predict --to COLUMN`` told of cells, as labels; refused where that is another column than ``key``."""
    import anndata as ad

    from xmodal.data.io import refusing

    with refusing(path):
        given = ad.read_h5ad(path)
    about = _decoded(given.uns[fields.UNS])
    trained = (about.get("settings") or {}).get("trained") or {}
    if key not in (None, trained.get("key")):
        raise InputRefused(
            f"it tells '{trained.get('key')}'",
            where=f"--prediction {key}={path}",
            do=f"write {trained.get('key')}={path}",
        )
    place = dict(zip(trained["values"], trained["terms"], strict=True))
    terms = np.array([place[v] for v in given.var_names], object)
    guess = ranked(np.asarray(given.X, np.float64), terms)
    return Annotation(str(path), given.obs_names.to_numpy(str), guess, guess.best, None, None, about)


def _decoded(about: Any) -> dict[str, Any]:
    if not isinstance(about, dict) or about.get("schema") not in (fields.ANNOTATION_SCHEMA, fields.TARGET_SCHEMA):
        return {}
    known = {str(k): v.item() if hasattr(v, "item") else v for k, v in about.items()}
    try:
        return known | {"settings": json.loads(str(known.get("settings", "{}")))}
    except ValueError:
        return known | {"settings": {}}


def _ids(obs: pd.DataFrame, column: str) -> Strings | None:
    if column not in obs:
        return None
    text = obs[column].astype(object).where(obs[column].notna(), fields.UNKNOWN).astype(str).to_numpy(object)
    return np.array([fields.UNKNOWN if t.lower() in NO_LABEL else t for t in text], object)


def _own(obs: pd.DataFrame, called: Strings, names: dict[str, str]) -> Strings:
    """The ids called; labels without a term, whose id is "unknown", by their name."""
    if fields.CT_LABEL not in obs or fields.CT_STATUS not in obs:
        return called
    labels = obs[fields.CT_LABEL].astype(str).to_numpy(object)
    pseudo = {n: t for t, n in names.items() if t.startswith(PSEUDO)}
    named = (obs[fields.CT_STATUS].astype(str) != fields.UNKNOWN).to_numpy()
    free = named & (called == fields.UNKNOWN)
    found = [
        pseudo.get(label, term) if open_ else term for term, label, open_ in zip(called, labels, free, strict=True)
    ]
    return np.array(found, object)


def _votes(obs: pd.DataFrame, names: dict[str, str]) -> Strings | None:
    if fields.CT_CLUSTER_LABEL not in obs:
        return None
    ids = {n: t for t, n in names.items()}
    return np.array([ids.get(str(v), fields.UNKNOWN) for v in obs[fields.CT_CLUSTER_LABEL]], object)


def _guess(obs: pd.DataFrame, called: Strings, names: dict[str, str]) -> Guess:
    """The best candidates as the file lists them; else the label alone, with its score where there is one."""

    def numbers(column: str) -> Floats | None:
        return obs[column].to_numpy(np.float64) if column in obs else None

    if fields.CT_TOP not in obs:
        return Guess(called, None, numbers(fields.CT_SCORE), numbers(fields.CT_KNOWN))
    whole = {t.replace("|", "/"): t for t in names}
    parts = [[p.rpartition("=") for p in str(text).split("|")] for text in obs[fields.CT_TOP]]
    top = np.array([[whole.get(t, t) for t, _, _ in row] for row in parts], object).reshape(len(parts), -1)
    best = np.array([float(row[0][2]) for row in parts])
    return Guess(top[:, 0], top, best, numbers(fields.CT_KNOWN))


def require_checkpoint(checkpoint: Path, annotation: Annotation) -> None:
    """Refuse labels that say they were made by another checkpoint."""
    given_results.require_checkpoint(
        checkpoint, {annotation.where: annotation.about.get("checkpoint_sha256")}, "annotate"
    )


def scene(mdata: MuData, annotation: Annotation, settings: EvaluationSettings, ontology: Ontology | None) -> Scene:
    """The cells that are scored and those that teach plain methods.

    Raises :class:`InputRefused` where truth and annotation do not belong together, or no cell has a known label.
    """
    row = given_results.rows(mdata, annotation.cells, annotation.where)
    key = _key(mdata, annotation, settings.label_key)
    notes: list[str] = []
    truth = known_terms(mdata, key, annotation, ontology, notes)
    part = np.full(len(row), "", object)
    if fields.SPLIT in mdata.obs:
        part = mdata.obs[fields.SPLIT].astype(str).to_numpy(object)
    there = row >= 0
    which = given_results.which(part[there], annotation.said("split"), settings.cells)
    asked = there & (part == which) if which != "all" else there
    scored = asked & (truth != "")
    if not scored.any():
        raise InputRefused(
            f"no annotated cell{'' if which == 'all' else f' of the split {which}'} has a label in obs['{key}']",
            where="truth",
            do="give another --label-key or --cells",
        )
    if (left := int(asked.sum() - scored.sum())) > 0:
        notes.append(f"{left} cells have no label in obs['{key}'] and are not scored")
    learned = (fields.TRAIN,) if which == fields.VALID else (fields.TRAIN, fields.VALID)
    train = np.isin(part, learned) & (truth != "")
    if which == "all" and (both := int((scored & train).sum())):
        notes.append(f"{both} of the scored cells are training cells: scores of new cells are lower")
    kept = scored | train
    names = mdata.obs_names.to_numpy(str)
    return Scene(
        names[kept], row[kept], truth[kept], scored[kept], (train & ~scored)[kept], which=which, key=key, notes=notes
    )


def _key(mdata: MuData, annotation: Annotation, asked: str | None) -> str:
    """The column of the known labels: asked for, that of the training, of ids, or one that is called so."""
    if asked is not None:
        if asked not in mdata.obs:
            from xmodal.data.splits import near

            raise InputRefused(
                f"obs has no column '{asked}'", where="--label-key", do=near(asked, list(mdata.obs.columns))
            )
        return asked
    from xmodal.predicting.overview import type_column

    trained = str((annotation.said("trained") or {}).get("key") or "")
    found = next((c for c in (trained, fields.TERM) if c in mdata.obs), None) or type_column(mdata.obs)
    if found is None:
        shown = ", ".join(map(str, mdata.obs.columns[:12])) or "none"
        raise InputRefused(
            f"no obs column is called as cell types are; there is {shown}",
            where="truth",
            do="name the column of the known labels: --label-key COLUMN",
        )
    return str(found)


def known_terms(
    mdata: MuData, key: str, annotation: Annotation, ontology: Ontology | None, notes: list[str]
) -> Strings:
    """The id of what each cell is known to be, (cells,), "" for cells without a label; see :func:`ids_of`."""
    trained = annotation.said("trained") or {}
    taken = dict(zip(trained.get("values") or (), trained.get("terms") or (), strict=False))
    if annotation.plain:
        given = labels_in(mdata, key)
        return np.array(["" if v.lower() in NO_LABEL else taken.get(v, f"{PSEUDO}{v}") for v in given], object)
    found = ids_of(mdata, key, taken, annotation.names, ontology)
    column = labels_in(mdata, key)
    without = sorted({v for v, t in zip(column, found, strict=True) if t == f"{PSEUDO}{v}" and v not in taken})
    if without:
        shown = ", ".join(without[:SHOWN]) + (", ..." if len(without) > SHOWN else "")
        notes.append(
            f"{len(without)} known labels have no term of the Cell Ontology, so no candidate is like them: {shown}"
        )
    return found


def labels_in(mdata: MuData, key: str) -> Strings:
    """Labels as text, (cells,), "" for none."""
    column = mdata.obs[key]
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)


def ids_of(mdata: MuData, key: str, taken: dict[str, str], names: dict[str, str], ontology: Ontology | None) -> Strings:
    """The id of each cell's label, (cells,), "" for cells without one.

    By the truth's own column of ids where each label has one id there, as the labels were ``taken`` in training (label -> id),
    by the ontology, by the ``names`` (id -> name) that the file lists; a label that is none of these is ``label:VALUE``.
    """
    text = labels_in(mdata, key)
    own = _ids_of_labels(mdata, key, text)
    named = {n.casefold(): t for t, n in names.items()}
    place: dict[str, str] = {}
    for label in sorted(set(text)):
        if label.lower() in NO_LABEL:
            place[label] = ""
            continue
        is_id = ID.fullmatch(label)
        found = own.get(label) or taken.get(label) or (f"CL:{is_id[1]}" if is_id else None)
        found = found or (ontology.find(label) if ontology is not None else None) or named.get(label.casefold())
        place[label] = found or f"{PSEUDO}{label}"
    return np.array([place[t] for t in text], object)


def _ids_of_labels(mdata: MuData, key: str, text: Strings) -> dict[str, str]:
    """Label -> id, where the truth has a column of ids and each label one id in it."""
    ids = _ids(mdata.obs, fields.TERM) if key != fields.TERM else None
    if ids is None:
        return {}
    out = {}
    for label in sorted(set(text)):
        own = {i for i in ids[text == label] if i != fields.UNKNOWN}
        if len(own) == 1:
            out[label] = own.pop()
    return out
