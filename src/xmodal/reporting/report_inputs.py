"""What a report is made of: folders of train and evaluate, JSON of check and prepare.  Every part may be absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import HISTORY_FILE, METRICS_FILE
from xmodal.reporting import text_inputs
from xmodal.reporting.folders import PNG, member, name_of, read_json, table
from xmodal.reporting.text_inputs import Annotated, Described, Imagined


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

    @property
    def robustness(self) -> dict[str, Any] | None:
        """What was scored in place of predictions, where cells were made worse on purpose."""
        found = self.metrics.get("robustness")
        return found if isinstance(found, dict) else None

    @property
    def generation(self) -> dict[str, Any] | None:
        """What was scored in place of predictions, where these are generated cells."""
        found = self.metrics.get("generation")
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
    descriptions: Sequence[Path] = ()
    generated: Sequence[Path] = ()


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
    descriptions: list[Described] = field(default_factory=list)
    generated: list[Imagined] = field(default_factory=list)


def read(given: Given) -> Inputs:
    """Read all parts; raises :class:`InputRefused` for what is not the output of the command it is given for."""
    if not any(vars(given).values()):
        raise UsageRefused(
            "give at least one of --training, --evaluation, --prediction, --overview, --embedding, --markers, --annotation, "
            "--description, --generated, --selection, --check, --prepare"
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
        [text_inputs.annotated(folder) for folder in given.annotations],
        [text_inputs.described(folder) for folder in given.descriptions],
        [text_inputs.imagined(folder) for folder in given.generated],
    )


def _overview(name: str, folder: Path) -> Overview:
    from xmodal.predicting.overview import CELLS, FEATURES, PICTURE

    picture, cells, features = (member(folder, n, "predict --overview") for n in (PICTURE, CELLS, FEATURES))
    found = Overview(name, picture.read_bytes(), table(cells), table(features))
    if not (
        found.picture.startswith(PNG) and "cell" in found.cells and {"feature", "mean", "sd"} <= set(found.features)
    ):
        raise InputRefused(
            "this is no overview of a prediction", where=str(folder), do="give what predict --overview wrote"
        )
    return found


def _embedded(folder: Path) -> Embedded:
    from xmodal.embedding.writing import CLUSTERS, PICTURE, SUMMARY

    picture, clusters, about = (member(folder, n, "embed --overview") for n in (PICTURE, CLUSTERS, SUMMARY))
    found = Embedded(name_of(folder), picture.read_bytes(), table(clusters), read_json(about))
    if not (found.picture.startswith(PNG) and {"cluster", "cells"} <= set(found.clusters) and "cells" in found.about):
        raise InputRefused(
            "this is no overview of an embedding", where=str(folder), do="give what embed --overview wrote"
        )
    return found


def _marked(folder: Path) -> Marked:
    from xmodal.markers.run_markers import CONTENT_FILE, PICTURE, TABLE_FILE

    found, about = (member(folder, n, "markers") for n in (TABLE_FILE, CONTENT_FILE))
    content, rows = read_json(about), table(found)
    if not ({"groups", "modalities"} <= set(content) and {"modality", "group", "feature", "is_marker"} <= set(rows)):
        raise InputRefused("this is no folder of markers", where=str(folder), do="give what xmodal markers wrote")
    drawn = {m: folder / PICTURE.format(m) for m in content["modalities"]}
    pictures = {m: path.read_bytes() for m, path in drawn.items() if path.is_file()}
    return Marked(name_of(folder), content, rows, {m: p for m, p in pictures.items() if p.startswith(PNG)})


def _prediction(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not {"source", "target", "cells"} <= set(content):
        raise InputRefused(
            "this is no summary of a prediction", where=str(path), do="give what predict --summary wrote"
        )
    return content


def _selection(folder: Path) -> dict[str, Any]:
    content = read_json(member(folder, "selection.json", "select"))
    if not {"best", "trials", "measures", "linear"} <= set(content):
        raise InputRefused("this is no selection", where=str(folder), do="give a folder that xmodal select wrote")
    return content


def _training(folder: Path) -> Training:
    from xmodal.fields import CHECKPOINT_FILE
    from xmodal.provenance import sha256

    metrics = read_json(member(folder, METRICS_FILE, "train"))
    if {"targets", "embedding", "annotation", "description", "generation", "robustness"} & set(metrics):
        raise InputRefused("this is a folder of evaluate", where=str(folder), do="give it as --evaluation")
    model = folder / CHECKPOINT_FILE
    return Training(name_of(folder), metrics, table(folder / HISTORY_FILE), sha256(model) if model.is_file() else "")


def _evaluation(folder: Path) -> Evaluation:
    metrics = read_json(member(folder, METRICS_FILE, "evaluate"))
    if "directions" in metrics:
        raise InputRefused("this is a folder of train", where=str(folder), do="give it as --training")
    tables = (table(folder / f"{name}.tsv") for name in ("features", "umap", "reliability"))
    return Evaluation(name_of(folder), metrics, *tables)
