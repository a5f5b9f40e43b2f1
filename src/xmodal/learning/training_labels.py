"""What the training cells are called, for models that learn it, and the texts that go with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xmodal import fields
from xmodal.errors import InputRefused, NotApplicable, UsageRefused

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.data.vocabulary import Labels
    from xmodal.models.base import CrossModalModel, ModelSettings
    from xmodal.text.bank import TextBank

log = logging.getLogger(__name__)
SHOWN = 5


@dataclass(frozen=True)
class LabelRequest:
    """``key``: obs column of the labels, None: one found by its name; ``terms``: table of label and Cell Ontology id.

    ``ontology``: file of the Cell Ontology, None: the release of the installed package; ``text_model``: directory or id of the
    text encoder, None: that of the installed package.
    """

    key: str | None = None
    terms: Path | None = None
    ontology: Path | None = None
    text_model: str | None = None
    allow_download: bool = False

    def unused(self) -> list[str]:
        """The options that were given, for a model that takes none of them."""
        given = {
            "--label-key": self.key,
            "--label-terms": self.terms,
            "--ontology": self.ontology,
            "--text-model": self.text_model,
        }
        return [option for option, value in given.items() if value is not None]


def of_training(
    mdata: MuData, chosen: tuple[type[CrossModalModel], ModelSettings], asked: LabelRequest, warnings: list[str]
) -> tuple[Labels | None, TextBank | None]:
    """The labels of the cells that are not test cells, and the texts of the ontology; None, None for a model that takes none."""
    model_class, settings = chosen
    if model_class.may_learn_labels(settings):
        return _if_there(mdata, asked, warnings), None
    if not model_class.takes_labels:
        # The ontology and the text model may stand in the environment for all commands; a label column was asked for.
        if asked.key is not None or asked.terms is not None:
            warnings.append(f"--label-key is not used: model '{model_class.name}' as it is set learns no labels")
            log.warning(warnings[-1])
        return None, None
    from xmodal.data.labels import labels_of
    from xmodal.text import bank, encoder, ontology
    from xmodal.text.ontology import PSEUDO

    terms = ontology.read(asked.ontology)
    found = labels_of(_no_test_cells(mdata), asked.key or _column(mdata), terms, asked.terms)
    pseudo = [t.removeprefix(PSEUDO) for t in found.classes if t.startswith(PSEUDO)]
    texts = bank.build(terms, encoder.load(asked.text_model, asked.allow_download), pseudo)
    log.info("%d labels of obs column '%s' are %d classes", len(found.values), found.key, len(found.classes))
    return found, texts


def target_of(mdata: MuData, model_class: type[CrossModalModel], key: str | None) -> Labels | None:
    """The classes of obs column ``key`` (``--target``) among the cells that are not test cells; None where none is asked for."""
    if key is None:
        return None
    from xmodal.data.labels import classes_of

    require_takes_target(model_class, key)
    if key in mdata.mod:
        raise UsageRefused(f"--target {key}: that is a modality, which is predicted anyway; give a column of obs")
    found = classes_of(_no_test_cells(mdata), key, "--target")
    shown = ", ".join(found.values[:SHOWN]) + (", ..." if len(found.values) > SHOWN else "")
    log.info("the model learns to tell obs column '%s': %d classes (%s)", key, len(found.values), shown)
    return found


def require_takes_target(model_class: type[CrossModalModel], key: str, option: str = "--target") -> None:
    """Refuse a model that cannot learn to tell a column of obs."""
    if model_class.takes_target:
        return
    from xmodal import registry

    able = ", ".join(n for n in registry.names() if registry.get(n).takes_target)
    raise NotApplicable(f"{option} {key}: model '{model_class.name}' tells no column of obs; these can: {able}")


def require_classes(target: Labels, codes: np.ndarray, least: int, path: Path, warnings: list[str]) -> None:
    """Refuse training cells of one class, or fewer than ``least`` with any; ``codes``: (training cells,), -1 for none."""
    require_labelled(codes, least, path, f"a class in obs['{target.key}']")
    many = np.bincount(codes[codes >= 0], minlength=len(target.classes))
    if (many > 0).sum() < 2:
        raise InputRefused(
            f"the training cells are all '{target.values[int(many.argmax())]}' in obs['{target.key}']",
            where=str(path),
            do="prepare the cells with another split, so that classes are among the training cells",
        )
    if none := [v for v, n in zip(target.values, many, strict=True) if n == 0]:
        warnings.append(f"no training cell is {', '.join(none[:SHOWN])} in obs['{target.key}']: it cannot be told")
        log.warning(warnings[-1])


def _no_test_cells(mdata: MuData) -> MuData:
    """Else a type of which all cells are test cells would count as known."""
    if fields.SPLIT not in mdata.obs:
        return mdata
    return mdata[(mdata.obs[fields.SPLIT].astype(str) != fields.TEST).to_numpy()]


def _if_there(mdata: MuData, asked: LabelRequest, warnings: list[str]) -> Labels | None:
    """Labels with the distances of their terms, for a model that can do without; None, with a warning, where there are none."""
    from xmodal.data.labels import labels_of
    from xmodal.predicting.overview import type_column
    from xmodal.text import ontology
    from xmodal.text.ontology import PSEUDO

    key = asked.key or type_column(mdata.obs)
    if key is None:
        warnings.append("no obs column is called as cell types are: clusters take the place of labels")
        log.warning(warnings[-1])
        return None
    try:
        terms = ontology.read(asked.ontology)
    except InputRefused:
        if asked.ontology is not None or asked.terms is not None:
            raise
        terms = ontology.Ontology({}, "", "no ontology")  # its package is not installed: labels are alike or are not
    found = labels_of(_no_test_cells(mdata), key, terms, asked.terms)
    known = [not t.startswith(PSEUDO) for t in found.classes]
    distances = tuple(
        tuple(terms.distance(a, b) if known[i] and known[j] else -1 for j, b in enumerate(found.classes))
        for i, a in enumerate(found.classes)
    )
    log.info("labels of obs column '%s': %d classes, %d with a term", key, len(known), sum(known))
    return replace(found, distances=distances)


def _column(mdata: MuData) -> str:
    from xmodal.predicting.overview import type_column

    found = type_column(mdata.obs)
    if found is None:
        shown = ", ".join(map(str, mdata.obs.columns[:12])) or "none"
        raise InputRefused(
            f"no obs column is called as cell types are; there is {shown}", do="name the column: --label-key COLUMN"
        )
    return found


def require_labelled(labels: np.ndarray, least: int, path: Path, what: str = "a label") -> None:
    """Refuse fewer than ``least`` labelled training cells; ``labels``: classes (cells,), -1 for none."""
    if (known := int((labels >= 0).sum())) < least:
        raise InputRefused(
            f"{known} training cells have {what}; {least} are needed", where=str(path), do="label more cells"
        )
