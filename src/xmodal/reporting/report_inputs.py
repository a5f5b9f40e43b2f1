"""What a report is made of: folders of train and evaluate, JSON of check and prepare.  Every part may be absent."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import (
    CT_CLUSTER,
    CT_CLUSTER_LABEL,
    CT_LABEL,
    CT_SECOND,
    CT_STATUS,
    CT_TOP,
    HISTORY_FILE,
    METRICS_FILE,
    TERM,
)

# Names of features and labels are text, even where they look like numbers or missing values ("NA", "1e5").
NAMES = (
    *("target", "feature", "score", "cell", "kind", "label", "trust", "modality", "group", "method", "cluster"),
    *("gene", "genes", "why", TERM, CT_LABEL, CT_SECOND, CT_TOP, CT_CLUSTER, CT_CLUSTER_LABEL),
)
TEXT = dict.fromkeys(NAMES, str)
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Training:
    """A folder that ``xmodal train`` left; ``checkpoint`` is the SHA-256 of its model, where it is there."""

    name: str
    metrics: dict[str, Any]
    history: pd.DataFrame
    checkpoint: str = ""


@dataclass(frozen=True)
class Evaluation:
    """A folder that ``xmodal evaluate`` left."""

    name: str
    metrics: dict[str, Any]
    features: pd.DataFrame
    umap: pd.DataFrame
    reliability: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        found = self.metrics.get("targets", {})
        return {str(k): v for k, v in sorted(found.items()) if isinstance(v, dict)} if isinstance(found, dict) else {}

    @property
    def embedding(self) -> dict[str, Any] | None:
        """What was scored in place of predictions, where that is an embedding."""
        found = self.metrics.get("embedding")
        return found if isinstance(found, dict) else None

    @property
    def annotation(self) -> dict[str, Any] | None:
        """What was scored in place of predictions, where these are labels of cells."""
        found = self.metrics.get("annotation")
        return found if isinstance(found, dict) else None

    @property
    def description(self) -> dict[str, Any] | None:
        """What was scored in place of predictions, where these are descriptions of cells."""
        found = self.metrics.get("description")
        return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class Overview:
    """A folder that ``xmodal predict --overview`` left; ``picture`` is a PNG."""

    name: str
    picture: bytes
    cells: pd.DataFrame
    features: pd.DataFrame


@dataclass(frozen=True)
class Embedded:
    """A folder that ``xmodal embed --overview`` left; ``picture`` is a PNG, ``about`` the summary."""

    name: str
    picture: bytes
    clusters: pd.DataFrame
    about: dict[str, Any]


@dataclass(frozen=True)
class Marked:
    """A folder that ``xmodal markers`` left: what was found, all compared features, and a PNG for each modality."""

    name: str
    about: dict[str, Any]
    table: pd.DataFrame
    pictures: dict[str, bytes]


@dataclass(frozen=True)
class Annotated:
    """A folder that ``xmodal annotate --report-dir`` left; ``table``: of the labels, ``picture`` is a PNG."""

    name: str
    about: dict[str, Any]
    table: pd.DataFrame
    genes: pd.DataFrame
    clusters: pd.DataFrame
    cells: pd.DataFrame
    picture: bytes


@dataclass(frozen=True)
class Given:
    """Where the parts of a report are; with a name those that have no name of their own."""

    trainings: Sequence[Path] = ()
    evaluations: Sequence[Path] = ()
    checks: Sequence[Path] = ()
    prepares: Sequence[Path] = ()
    predictions: Sequence[tuple[str, Path]] = ()
    overviews: Sequence[tuple[str, Path]] = ()
    selection: Path | None = None
    embeddings: Sequence[Path] = ()
    markers: Sequence[Path] = ()
    annotations: Sequence[Path] = ()


@dataclass(frozen=True)
class Inputs:
    """Everything given; ``checks`` and ``prepares`` are (file name, content), ``predictions`` (sample, summary).

    ``selection``: what selection.json holds.
    """

    trainings: list[Training] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    checks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    prepares: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    predictions: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    selection: dict[str, Any] | None = None
    overviews: list[Overview] = field(default_factory=list)
    embeddings: list[Embedded] = field(default_factory=list)
    markers: list[Marked] = field(default_factory=list)
    annotations: list[Annotated] = field(default_factory=list)


def read(given: Given) -> Inputs:
    """Read all parts; raises :class:`InputRefused` for what is not the output of the command it is given for."""
    if not any(vars(given).values()):
        raise UsageRefused(
            "give at least one of --training, --evaluation, --prediction, --overview, --embedding, --markers, --annotation, "
            "--selection, --check, --prepare"
        )
    return Inputs(
        [_training(p) for p in given.trainings],
        [_evaluation(p) for p in given.evaluations],
        [(p.name, read_json(p)) for p in given.checks],
        [(p.name, read_json(p)) for p in given.prepares],
        [(name, _prediction(p)) for name, p in given.predictions],
        _selection(given.selection) if given.selection is not None else None,
        [_overview(name, folder) for name, folder in given.overviews],
        [_embedded(folder) for folder in given.embeddings],
        [_marked(folder) for folder in given.markers],
        [annotated(folder) for folder in given.annotations],
    )


def _overview(name: str, folder: Path) -> Overview:
    from xmodal.predicting.overview import CELLS, FEATURES, PICTURE

    picture, cells, features = (_member(folder, n, "predict --overview") for n in (PICTURE, CELLS, FEATURES))
    found = Overview(name, picture.read_bytes(), _table(cells), _table(features))
    if not (
        found.picture.startswith(PNG) and "cell" in found.cells and {"feature", "mean", "sd"} <= set(found.features)
    ):
        raise InputRefused(
            "this is no overview of a prediction", where=str(folder), do="give what predict --overview wrote"
        )
    return found


def _embedded(folder: Path) -> Embedded:
    from xmodal.embedding.writing import CLUSTERS, PICTURE, SUMMARY

    picture, clusters, about = (_member(folder, n, "embed --overview") for n in (PICTURE, CLUSTERS, SUMMARY))
    found = Embedded(_name(folder), picture.read_bytes(), _table(clusters), read_json(about))
    if not (found.picture.startswith(PNG) and {"cluster", "cells"} <= set(found.clusters) and "cells" in found.about):
        raise InputRefused(
            "this is no overview of an embedding", where=str(folder), do="give what embed --overview wrote"
        )
    return found


def _marked(folder: Path) -> Marked:
    from xmodal.markers.run_markers import CONTENT_FILE, PICTURE, TABLE_FILE

    table, about = (_member(folder, n, "markers") for n in (TABLE_FILE, CONTENT_FILE))
    content, rows = read_json(about), _table(table)
    if not ({"groups", "modalities"} <= set(content) and {"modality", "group", "feature", "is_marker"} <= set(rows)):
        raise InputRefused("this is no folder of markers", where=str(folder), do="give what xmodal markers wrote")
    drawn = {m: folder / PICTURE.format(m) for m in content["modalities"]}
    pictures = {m: path.read_bytes() for m, path in drawn.items() if path.is_file()}
    return Marked(_name(folder), content, rows, {m: p for m, p in pictures.items() if p.startswith(PNG)})


def annotated(folder: Path, name: str = "") -> Annotated:
    """What annotate left in ``folder``, called like it where no name is given."""
    from xmodal.annotating import writing as files

    needed = (files.SUMMARY, files.COMPOSITION, files.CELLS, files.PICTURE)
    about, table, cells, picture = (_member(folder, n, "annotate --report-dir") for n in needed)
    content, rows, every = read_json(about), _table(table), _table(cells)
    drawn = picture.read_bytes()
    whole = {"cells", "status", "composition"} <= set(content) and {"label", "cells"} <= set(rows)
    if not (whole and {"cell", CT_STATUS, CT_TOP} <= set(every) and drawn.startswith(PNG)):
        raise InputRefused("this is no annotation", where=str(folder), do="give what annotate --report-dir wrote")
    genes, clusters = _table(folder / files.GENES), _table(folder / files.CLUSTERS)
    return Annotated(name or _name(folder), content, rows, genes, clusters, every, drawn)


def _prediction(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not {"source", "target", "cells"} <= set(content):
        raise InputRefused(
            "this is no summary of a prediction", where=str(path), do="give what predict --summary wrote"
        )
    return content


def _selection(folder: Path) -> dict[str, Any]:
    content = read_json(_member(folder, "selection.json", "select"))
    if not {"best", "trials", "measures", "linear"} <= set(content):
        raise InputRefused("this is no selection", where=str(folder), do="give a folder that xmodal select wrote")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise InputRefused("this is not a JSON file", where=str(path), do="give what xmodal wrote") from None
    if not isinstance(content, dict):
        raise InputRefused("it holds no JSON object", where=str(path), do="give what xmodal wrote")
    return content


def _training(folder: Path) -> Training:
    from xmodal.fields import CHECKPOINT_FILE
    from xmodal.provenance import sha256

    metrics = read_json(_member(folder, METRICS_FILE, "train"))
    if {"targets", "embedding", "annotation", "description"} & set(metrics):
        raise InputRefused("this is a folder of evaluate", where=str(folder), do="give it as --evaluation")
    model = folder / CHECKPOINT_FILE
    return Training(_name(folder), metrics, _table(folder / HISTORY_FILE), sha256(model) if model.is_file() else "")


def _evaluation(folder: Path) -> Evaluation:
    metrics = read_json(_member(folder, METRICS_FILE, "evaluate"))
    if "directions" in metrics:
        raise InputRefused("this is a folder of train", where=str(folder), do="give it as --training")
    tables = (_table(folder / f"{name}.tsv") for name in ("features", "umap", "reliability"))
    return Evaluation(_name(folder), metrics, *tables)


def _name(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name  # of a link its own name


def _member(folder: Path, name: str, command: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputRefused(
            f"there is no {name} in it", where=str(folder), do=f"give a folder that xmodal {command} wrote"
        )
    return path


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file() or path.stat().st_size == 0:
        return pd.DataFrame()
    try:
        return pd.read_csv(
            path, sep="\t", dtype=TEXT, keep_default_na=False, na_values={c: [""] for c in _numeric(path)}
        )
    except (ValueError, pd.errors.ParserError):
        raise InputRefused("this is not a table xmodal wrote", where=str(path), do="run the command again") from None


def _numeric(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as handle:
        return [c for c in handle.readline().rstrip("\n").split("\t") if c not in TEXT]
