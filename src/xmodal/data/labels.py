"""What the training cells are called, and which term of the Cell Ontology each label means."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xmodal import fields
from xmodal.data.splits import is_continuous, near
from xmodal.data.vocabulary import Labels
from xmodal.errors import InputRefused
from xmodal.text.ontology import ID, NOT_FOR_ANNOTATION, PSEUDO, ROOT, SHOWN, Ontology

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

log = logging.getLogger(__name__)
NO_LABEL = ("", "nan", "none", "unknown", "na")  # in whichever case: cells without a label
MOST_SINGLE = 20  # values that may be of one cell each: few cells are often tried first
COLUMNS = f"a TSV with the columns {fields.LABEL_COLUMN} and {fields.TERM}"


def labels_of(mdata: MuData, key: str, ontology: Ontology, terms_file: Path | None) -> Labels:
    """Labels of the cells in obs column ``key``, sorted, and the term of each.

    A label's term is what ``terms_file`` says; else the one term that its cells have in obs; else that of its name or exact
    synonym; else it is ``label:VALUE``, a text of its own, which a warning says.  Raises :class:`InputRefused` for a column that
    is not there, a term that does not exist or is obsolete, and fewer than two classes.
    """
    if key not in mdata.obs:
        raise InputRefused(f"obs has no column '{key}'", where="--label-key", do=near(key, list(mdata.obs.columns)))
    given = _texts(mdata.obs[key])
    values = sorted(v for v in given.unique() if v.strip().lower() not in NO_LABEL)
    _require_labels(mdata.obs[key], key, values)
    table = {} if terms_file is None else _table(terms_file, values)
    beside = {} if key == fields.TERM else _beside(mdata.obs, given)
    terms = {value: _term(value, ontology, table, beside) for value in values}
    values = [value for value in values if _is_type(value, terms[value], ontology)]
    without = [value for value in values if terms[value].startswith(PSEUDO)]
    if without:
        log.warning(
            "%d of %d labels have no term in %s (%s): they can be predicted, but no ontology speaks of them. "
            "What to do: give a table with --label-terms",
            *(len(without), len(values), ontology.title, ", ".join(without[:SHOWN])),
        )
    found = Labels(key, tuple(values), tuple(terms[value] for value in values))
    if len(found.classes) < 2:
        shown = f"are all '{found.values[0]}'" if found.values else "have no label"
        what = f"the cells {shown} in obs['{key}'], so there is nothing to tell apart"
        raise InputRefused(what, where="--label-key", do="give a column with two types of cells or more")
    return found


def classes_of(mdata: MuData, key: str, where: str) -> Labels:
    """The values of obs column ``key``, sorted, each a class of its own, whatever they mean.

    Raises :class:`InputRefused`, which names the option ``where``, for a column that is not there or whose values are no
    classes, and for fewer than two of them.
    """
    if key not in mdata.obs:
        raise InputRefused(f"obs has no column '{key}'", where=where, do=near(key, list(mdata.obs.columns)))
    values = sorted(v for v in _texts(mdata.obs[key]).unique() if v.strip().lower() not in NO_LABEL)
    _require_labels(mdata.obs[key], key, values, where, "give a column that says which class each cell is of")
    if len(values) < 2:
        shown = f"are all '{values[0]}'" if values else "have no value"
        what = f"the cells that are not test cells {shown} in obs['{key}'], so there is nothing to tell apart"
        raise InputRefused(what, where=where, do="give a column with two classes or more")
    return Labels(key, tuple(values), tuple(PSEUDO + v for v in values))


def _require_labels(
    column: pd.Series,
    key: str,
    values: list[str],
    where: str = "--label-key",
    do: str = "give the column with the types of the cells",
) -> None:
    """Refuse measurements and names of cells, which would make every cell a type of its own."""
    if is_continuous(column):
        what = f"'{key}' holds numbers that are not whole, and no labels"
    elif len(values) > max(MOST_SINGLE, len(column) / 2):
        what = f"'{key}' has {len(values)} values in {len(column)} cells, so most cells would be types of their own"
    else:
        return
    raise InputRefused(what, where=where, do=do)


def _texts(column: pd.Series) -> pd.Series:
    """Values as text, "" for none."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _beside(obs: pd.DataFrame, given: pd.Series) -> dict[str, list[str]]:
    """The ids of the Cell Ontology that the cells of each label have in obs, most cells first."""
    if fields.TERM not in obs:
        return {}
    ids = _texts(obs[fields.TERM])
    known = ids.str.fullmatch(ID.pattern, case=False).to_numpy(bool)  # else unknown, or of another ontology
    counts = ids[known].groupby(given[known].to_numpy()).value_counts()
    found: dict[str, list[str]] = {}
    for label, term in counts.index:
        found.setdefault(label, []).append(term)
    return found


def _term(value: str, ontology: Ontology, table: Mapping[str, str], beside: Mapping[str, list[str]]) -> str:
    """The id of a label's text; see :func:`labels_of`."""
    if value in table:
        return _known(table[value], ontology, f"--label-terms, label '{value}'") if table[value] else PSEUDO + value
    ids = beside.get(value, [])
    if len(ids) == 1:
        return _known(ids[0], ontology, f"obs['{fields.TERM}'] of '{value}'")
    if ids:
        log.warning("the cells labelled '%s' have several terms (%s): none is used", value, ", ".join(ids[:SHOWN]))
    if ID.fullmatch(value.strip()):
        return _known(value, ontology, "--label-key")
    return ontology.find(value) or PSEUDO + value


def _known(term: str, ontology: Ontology, where: str) -> str:
    is_id = ID.fullmatch(term.strip())
    try:
        return ontology[f"CL:{is_id[1]}" if is_id else term.strip()].id
    except InputRefused as refused:
        raise InputRefused(refused.what, where=where, do=refused.do) from None


def _is_type(value: str, term: str, ontology: Ontology) -> bool:
    """Terms that hold for every cell, or nearly, are no label."""
    if term in (ROOT, *NOT_FOR_ANNOTATION):
        log.warning("cells labelled '%s' count as without a label: %s is no type of cell", value, ontology[term].name)
        return False
    return True


def _table(path: Path, values: list[str]) -> dict[str, str]:
    """The term of each label, "" where the table says that there is none."""
    where = f"--label-terms {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"the file cannot be read as text ({error})", where=where, do=f"give {COLUMNS}") from None
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [c for c in (fields.LABEL_COLUMN, fields.TERM) if c not in (rows.fieldnames or ())]
    if missing:
        raise InputRefused(f"columns {', '.join(missing)} are missing", where=where, do=f"give {COLUMNS}")
    found: dict[str, str] = {}
    for row in rows:
        label, term = row[fields.LABEL_COLUMN] or "", (row[fields.TERM] or "").strip()
        term = "" if term.lower() in NO_LABEL else term
        if found.setdefault(label, term) != term:
            what = f"label '{label}' has two terms, {found[label] or 'none'} and {term or 'none'}"
            raise InputRefused(what, where=where, do="leave one line of it")
    if values and not set(values) & set(found):
        raise InputRefused(
            f"none of its {len(found)} labels is one of the cells', such as {', '.join(values[:SHOWN])}",
            where=where,
            do=f"give {COLUMNS}, with the labels as they stand in obs",
        )
    return found
