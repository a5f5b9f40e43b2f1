"""Tables of text (CSV, TSV; also .gz): cells by numeric features, and labels of cells.  Nothing is guessed, all is checked."""

from __future__ import annotations

import csv
import gzip
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import anndata as ad
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from xmodal.data.on_disk import csr
from xmodal.errors import InputRefused

log = logging.getLogger(__name__)
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".tabular": "\t", ".txt": "\t"}
CALLED = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
FORM = "give a table whose first column names the cells and whose first line names the features"
SHOWN = 3
PLACE = 3  # fields that say where a fragment is: chrom, start, end


def ending(path: Path) -> str:
    """What kind of table the name says it is, "" for none: ``.csv`` of ``a.csv.gz``."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    kind = bare.suffix.lower()
    return kind if kind in SEPARATORS else ""


def is_table(path: Path) -> bool:
    """Whether it is called as a table is, and holds something that is no HDF5."""
    return bool(ending(path)) and path.is_file() and path.stat().st_size > 0 and not h5py.is_hdf5(path)


def read_values(path: Path) -> ad.AnnData:
    """Cells by features, float32 CSR.  Cells whose row is empty are left out: they were not measured.

    Raises :class:`InputRefused` for another separator, names that come twice, values that are missing or no numbers.
    """
    table, lines = _read(path)
    measured = ~table.isna().all(axis=1).to_numpy()
    if not measured.all():
        log.info("%s: %d of %d rows are empty: these cells lack it", path, int((~measured).sum()), len(table))
    table, lines = table[measured], lines[measured]
    if table.empty:
        raise InputRefused("there is no value in it", where=str(path), do=FORM)
    values = _numbers(path, table, lines)
    _require_finite(path, table, values, lines)
    return ad.AnnData(csr(values), obs=pd.DataFrame(index=table.index), var=pd.DataFrame(index=table.columns))


def read_labels(path: Path) -> pd.DataFrame:
    """What is known of each cell, a column each: numbers where all that is there are, else text; None where nothing is."""
    table, _ = _read(path)
    labels = pd.DataFrame(index=table.index)
    for name in table.columns:
        texts = table[name].str.strip()
        numbers = pd.to_numeric(texts, errors="coerce")
        known = texts.notna()
        if known.any() and numbers[known].notna().all() and (known.all() or (numbers[known] % 1 != 0).any()):
            labels[name] = numbers
        else:  # whole numbers with gaps too: as floats they would be called 1.0
            labels[name] = texts.where(known, None).astype(object)
    return labels


def join_labels(labels: pd.DataFrame, path: Path) -> pd.DataFrame:
    """``labels`` of the cells with the columns of the table ``path`` beside them, by the names of the cells.

    Cells that the table does not name have none.  A column that is there already is replaced.  Refused where it names no cell.
    """
    from xmodal.data.contracts import find_affix

    table = read_labels(path)
    known = labels.index.isin(table.index)
    if not known.any():
        affix = find_affix(labels.index, table.index, 0)
        raise InputRefused(
            f"it names none of the {len(labels)} cells ({table.index[0]} ..., the cells: {labels.index[0]} ...)",
            where=f"--obs {path}",
            do=affix or "its first column must hold the names of the cells",
        )
    log.info("--obs: %d of %d cells are in the table, %s", int(known.sum()), len(labels), ", ".join(table.columns))
    if twice := [str(c) for c in table.columns if c in labels]:
        log.warning("warning: --obs takes the place of %s, which the files have too", ", ".join(twice))
    beside = table.reindex(labels.index)
    return labels.drop(columns=twice).join(beside)


def _read(path: Path) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """The table as text, NaN where nothing is, and the line of each row."""
    try:
        with _opened(path) as handle:
            rows = csv.reader(handle, delimiter=SEPARATORS[ending(path)], skipinitialspace=True)
            header = [name.strip() for name in next(rows, [])]
            body, lines = [], []
            for row in rows:
                if any(field.strip() for field in row):
                    body.append(row)
                    lines.append(rows.line_num)
    except (OSError, EOFError, zlib.error) as error:
        raise InputRefused(f"the table cannot be read ({error})", where=str(path), do="copy it again") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputRefused(f"this is no text table ({error})", where=str(path), do=FORM) from None
    header = _whole_header(path, header, body)
    names = [row[0].strip() for row in body]
    _require_names(path, header[1:], names, lines)
    for row, line in zip(body, lines, strict=True):
        if len(row) != len(header):
            raise InputRefused(
                f"line {line} has {len(row)} fields, the first line {len(header)}",
                where=str(path),
                do="mend the line; a field that holds the separator needs quotes",
            )
    table = pd.DataFrame([row[1:] for row in body], index=names, columns=header[1:], dtype=object)
    return table.mask(table.isin(MISSING)), np.array(lines)


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _whole_header(path: Path, header: list[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The first line with a name for the first column, which R leaves out; refuses one that is not of such a table."""
    own = SEPARATORS[ending(path)]
    if header and (header[0].startswith("#") or (len(header) > PLACE and all(h.isdigit() for h in header[1:PLACE]))):
        do = "fragments (chrom, start, end, barcode) are counted by xmodal prepare --fragments; else " + FORM
        raise InputRefused("its first line names no features", where=str(path), do=do)
    if not header or not body:
        raise InputRefused("there are no cells in it", where=str(path), do=FORM)
    if len(header) == len(body[0]) - 1:
        return ["", *header]
    if len(header) == 1:
        other = next((s for s in CALLED if s != own and s in header[0]), None)
        if other is not None:
            named = "name it .tsv" if other == "\t" else "name it .csv" if other == "," else f"write {CALLED[own]}"
            raise InputRefused(
                f"its columns are separated by {CALLED[other]}, those of a {ending(path)} by {CALLED[own]}",
                where=str(path),
                do=named,
            )
        raise InputRefused("it has one column only", where=str(path), do=FORM)
    return header


def _require_names(path: Path, features: list[str], cells: list[str], lines: list[int]) -> None:
    """Refuse names that are empty or come twice."""
    for kind, names in (("feature", features), ("cell", cells)):
        if "" in names:
            at = f"line {lines[names.index('')]}" if kind == "cell" else f"column {names.index('') + 2}"
            raise InputRefused(f"the {kind} of {at} has no name", where=str(path), do=FORM)
        twice = list(dict.fromkeys(pd.Series(names)[pd.Series(names).duplicated()]))
        if twice:
            more = ", ..." if len(twice) > SHOWN else ""
            raise InputRefused(
                f"{len(twice)} {kind} name{'s' * (len(twice) > 1)} come{'s' * (len(twice) == 1)} more than once: "
                f"{', '.join(twice[:SHOWN])}{more}",
                where=str(path),
                do=f"give each {kind} one {'line' if kind == 'cell' else 'column'}",
            )


def _numbers(path: Path, table: pd.DataFrame, lines: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """All values, (cells, features), NaN where there is none; refuses the first column that holds anything else."""
    columns = []
    for name in table.columns:
        found = pd.to_numeric(table[name], errors="coerce")
        odd = np.flatnonzero(found.isna().to_numpy() & table[name].notna().to_numpy())
        if len(odd):
            raise _no_numbers(path, (str(name), table[name]), odd, lines)
        columns.append(found.to_numpy(np.float64))
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        return np.stack(columns, axis=1).astype(np.float32)


def _no_numbers(
    path: Path, column: tuple[str, pd.Series], odd: npt.NDArray[np.int64], lines: npt.NDArray[np.int64]
) -> InputRefused:
    name, texts = column
    first = str(texts.iloc[odd[0]])
    if len(odd) == int(texts.notna().sum()) and not first.replace(",", "").strip("-+ ").isdigit():
        return InputRefused(
            f"column '{name}' holds text ('{first}', line {lines[odd[0]]}), and features are numbers",
            where=str(path),
            do="labels go into a table of their own, which prepare joins by cell: --obs FILE",
        )
    do = (
        "write decimal points, not commas"
        if "," in first
        else "write a number, or nothing in the whole row of the cell"
    )
    what = f"column '{name}' has {len(odd)} value{'s that are no numbers' if len(odd) > 1 else ' that is no number'}"
    return InputRefused(f"{what} (line {lines[odd[0]]}: '{first}')", where=str(path), do=do)


def _require_finite(
    path: Path, table: pd.DataFrame, values: npt.NDArray[np.float32], lines: npt.NDArray[np.int64]
) -> None:
    gaps = np.argwhere(~np.isfinite(values))
    if not len(gaps):
        return
    row, column = gaps[0]
    cells, features = (len(np.unique(gaps[:, i])) for i in (0, 1))
    raise InputRefused(
        f"{len(gaps)} value{'s are' if len(gaps) > 1 else ' is'} missing or infinite, in {cells} cell{'s' * (cells > 1)} "
        f"and {features} feature{'s' * (features > 1)} (first: line {lines[row]}, column '{table.columns[column]}')",
        where=str(path),
        do="fill them (the feature's median will do), or take the cells or features out; a cell that was not measured has an "
        "empty row, or none",
    )
