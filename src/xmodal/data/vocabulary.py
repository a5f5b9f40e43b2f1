"""What a checkpoint knows: its modalities, their features in order, and the peak-gene links.

The vocabulary is made once, from the prepared training file, and travels in the checkpoint; new cells are brought to it by
:mod:`xmodal.data.alignment`, never the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from xmodal import fields
from xmodal.errors import InputRefused

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.text.bank import TextBank

TEXTS = "texts."  # what tensors of the texts are called
DEFAULT_SCALE = {  # what a likelihood is predicted on where the prepared file does not say
    fields.NB: fields.LOG_CP10K,
    fields.BERNOULLI: fields.BINARY,
    fields.GAUSSIAN: fields.IDENTITY,
}


@dataclass(frozen=True)
class Modality:
    """One modality: ``features`` in the order of the checkpoint, its likelihood, its scale, its genome (None: unknown)."""

    name: str
    likelihood: str
    scale: str
    features: tuple[str, ...]
    gene_ids: tuple[str, ...] | None = None
    genome: str | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def units(self) -> str:
        return fields.UNITS[self.scale]

    @cached_property
    def peaks(self) -> pd.DataFrame | None:
        """``chrom, start, end`` of every feature, or None where features are not genomic intervals."""
        if self.likelihood != fields.BERNOULLI:
            return None
        from xmodal.data.intervals import parse_peaks

        try:
            return parse_peaks(self.features)
        except InputRefused:
            return None  # a binary modality that is not peaks, e.g. methylated genes

    def blocks(self) -> list[npt.NDArray[np.int64]]:
        """Feature indices by chromosome, in order of first appearance; one block where there are no chromosomes."""
        if self.peaks is None:
            return [np.arange(len(self))]
        chroms = self.peaks["chrom"].to_numpy()
        return [np.flatnonzero(chroms == c) for c in dict.fromkeys(chroms)]


@dataclass(frozen=True)
class Batches:
    """The technical batches of the training cells: the obs column ``key`` and its values, in the order of their codes."""

    key: str
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Reference:
    """An embedding that cells bring along, ``obsm[key]``, (cells, width)."""

    key: str
    width: int


@dataclass(frozen=True)
class Labels:
    """What cells are called in obs column ``key``: ``values``, sorted, and for each the id of its text in the bank.

    That is a Cell Ontology id, or ``label:VALUE`` where the value has no term.  ``distances``, where a model asks for them:
    edges of the ontology between each two of the ``classes``, -1 where one has no term.
    """

    key: str
    values: tuple[str, ...]
    terms: tuple[str, ...]
    distances: tuple[tuple[int, ...], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """What is told apart, sorted: labels of one term are one class."""
        return tuple(sorted(set(self.terms)))

    def codes(self, given: Iterable[object]) -> npt.NDArray[np.int64]:
        """Class of each given label, (cells,); -1 for a label that is not among the values."""
        place = {term: i for i, term in enumerate(self.classes)}
        code = {value: place[term] for value, term in zip(self.values, self.terms, strict=True)}
        return np.array([code.get(str(one), -1) for one in given], np.int64)


@dataclass(frozen=True)
class Vocabulary:
    """Modalities by name, and the gene-activity links between peaks and genes, (peaks, genes), where known.

    ``batches``, ``reference``, ``labels``: what a model takes of its cells besides, where it asks for it; ``texts``: what
    the ontology says of the labels, and of all that a cell could be called.  ``target``: the column of obs that it is to tell
    of new cells (``xmodal train --target``).
    """

    modalities: dict[str, Modality]
    links: sp.csr_matrix | None = field(default=None, compare=False)
    batches: Batches | None = None
    reference: Reference | None = None
    labels: Labels | None = None
    target: Labels | None = None
    texts: TextBank | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> Modality:
        return self.modalities[name]

    def __iter__(self) -> Any:
        return iter(self.modalities)

    def to_json(self) -> dict[str, Any]:
        """JSON object; links and texts travel as tensors (:meth:`tensors`) since they may be millions."""
        beside: dict[str, Any] = {}  # only where there is any: other checkpoints keep their bytes
        if self.batches is not None:
            beside["batches"] = {"key": self.batches.key, "values": list(self.batches.values)}
        if self.reference is not None:
            beside["reference"] = {"key": self.reference.key, "width": self.reference.width}
        for name, labels in (("labels", self.labels), ("target", self.target)):
            if labels is not None:
                beside[name] = {"key": labels.key, "values": list(labels.values), "terms": list(labels.terms)}
                if labels.distances:
                    beside[name]["distances"] = [list(row) for row in labels.distances]
        return {
            **beside,
            "modalities": [
                {
                    "name": m.name,
                    "likelihood": m.likelihood,
                    "scale": m.scale,
                    "genome": m.genome,
                    "features": list(m.features),
                    "gene_ids": list(m.gene_ids) if m.gene_ids else None,
                }
                for m in self.modalities.values()
            ],
        }

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is too much for JSON: the links (``links.*``) and the texts of the labels (``texts.*``)."""
        texts = {} if self.texts is None else self.texts.to_tensors()
        return {**self._link_tensors(), **{TEXTS + k: v for k, v in texts.items()}}

    def _link_tensors(self) -> dict[str, npt.NDArray[Any]]:
        if self.links is None:
            return {}
        coo = self.links.tocoo()
        return {
            "links.peak": coo.row.astype(np.int32),
            "links.gene": coo.col.astype(np.int32),
            "links.weight": coo.data.astype(np.float32),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> Vocabulary:
        modalities = {
            m["name"]: Modality(
                m["name"],
                m["likelihood"],
                m["scale"],
                tuple(m["features"]),
                tuple(m["gene_ids"]) if m["gene_ids"] else None,
                m["genome"],
            )
            for m in content["modalities"]
        }
        links = None
        if "links.peak" in tensors:
            shape = (len(modalities[fields.ATAC]), len(modalities[fields.RNA]))
            links = sp.csr_matrix(
                (tensors["links.weight"], (tensors["links.peak"], tensors["links.gene"])), shape=shape
            )
        batches, reference, labels, target = (content.get(k) for k in ("batches", "reference", "labels", "target"))
        texts = {k.removeprefix(TEXTS): v for k, v in tensors.items() if k.startswith(TEXTS)}
        if texts:
            from xmodal.text.bank import TextBank
        return cls(
            modalities,
            links,
            Batches(batches["key"], tuple(batches["values"])) if batches else None,
            Reference(reference["key"], reference["width"]) if reference else None,
            _labels(labels) if labels else None,
            _labels(target) if target else None,
            TextBank.from_tensors(texts) if texts else None,
        )

    @classmethod
    def from_prepared(cls, mdata: MuData, links: sp.csr_matrix | None = None, only: str | None = None) -> Vocabulary:
        """The vocabulary of a prepared file: every modality (or ``only`` one), all its features, in the file's order."""
        described = prepared_settings(mdata)["modalities"]
        modalities = {}
        for name, adata in mdata.mod.items():
            if only not in (None, name):
                continue
            about = described.get(name)
            if about is None:
                raise InputRefused(
                    f"modality '{name}' has no likelihood in uns['{fields.UNS}']", do="run xmodal prepare again"
                )
            ids = adata.var[fields.GENE_ID].astype(str) if fields.GENE_ID in adata.var else None
            modalities[name] = Modality(
                name,
                about["likelihood"],
                about.get("scale") or DEFAULT_SCALE[about["likelihood"]],
                tuple(map(str, adata.var_names)),
                tuple(ids) if ids is not None else None,
                about.get("genome"),
            )
        return cls(modalities, links)


def _labels(content: dict[str, Any]) -> Labels:
    distances = tuple(tuple(row) for row in content.get("distances", ()))
    return Labels(content["key"], tuple(content["values"]), tuple(content["terms"]), distances)


def prepared_settings(mdata: MuData, where: str = "") -> dict[str, Any]:
    """The ``settings`` of a prepared file; refuses a file that ``xmodal prepare`` did not write."""
    about = mdata.uns.get(fields.UNS, {})
    if (not isinstance(about, dict) and not hasattr(about, "get")) or about.get("schema") != fields.PREPARED_SCHEMA:
        raise InputRefused(
            "this file was not written by xmodal prepare",
            where=where,
            do="run `xmodal prepare --rna FILE --atac FILE --output prepared.h5mu` (or --h5mu FILE) and train on that",
        )
    settings: dict[str, Any] = json.loads(about["settings"])
    return settings
