"""Samples: which files belong together, read into modalities and labels."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from xmodal.data import fragments, io, splits
from xmodal.data.contracts import Finding
from xmodal.data.genome import genome_of
from xmodal.data.on_disk import OnDisk
from xmodal.data.on_disk_settings import NEVER, Choice
from xmodal.errors import InputRefused
from xmodal.fields import ATAC, PROTEIN, RNA, UNS

log = logging.getLogger(__name__)
WHOLE = ("h5", "h5mu")  # files that hold all their modalities
FRAGMENTS = "fragments"
COLUMNS = ("sample", "role", RNA, ATAC, PROTEIN, *WHOLE, FRAGMENTS, "checkpoint")
FILES = (RNA, ATAC, PROTEIN, *WHOLE, FRAGMENTS)
ROLES = ("train", "predict", "both")
RAW = "raw"


@dataclass(frozen=True)
class SampleFiles:
    """Files of one sample: by modality (h5ad), ``h5`` / ``h5mu`` for files that hold several, ``fragments`` to count."""

    name: str
    files: Mapping[str, Path]
    role: str = "both"


@dataclass
class Sample:
    """Modalities of one sample with the labels of its cells; ``where`` names the file of each modality in messages."""

    name: str
    parts: dict[str, ad.AnnData]
    labels: pd.DataFrame
    where: dict[str, str] = field(default_factory=dict)
    genomes: dict[str, str | None] = field(default_factory=dict)
    likelihoods: dict[str, str] = field(default_factory=dict)  # what an earlier prepare wrote
    fragments: dict[str, Any] = field(default_factory=dict)  # what was found in counting them


def load(
    files: SampleFiles,
    layer: str | None = None,
    counting: fragments.Counting | None = None,
    on_disk: Choice = NEVER,
) -> Sample:
    """Read the files of one sample; a modality that comes twice, or is not in its file, is refused.

    Fragments are counted last, as ``counting`` says, over the cells that the other files name.  ``on_disk``: whether counts
    stay in their file.
    """
    sample = Sample(files.name, {}, pd.DataFrame())
    for key, path in files.files.items():
        if key == FRAGMENTS:
            continue
        mdata = io.read_cells(path, None if key in WHOLE else key, on_disk=on_disk)
        if key not in WHOLE and key not in mdata.mod:
            raise InputRefused(
                f"there is no modality '{key}' in it (it holds {', '.join(mdata.mod)})",
                where=str(path),
                do=f"give a file that holds {key}, or give this one as --h5mu or --h5",
            )
        for name in mdata.mod if key in WHOLE else [key]:
            if name in sample.parts:
                raise InputRefused(
                    f"'{name}' comes from two files",
                    where=f"{sample.where[name]} and {path}",
                    do="give each modality once per sample",
                )
            sample.parts[name] = mdata.mod[name]
            sample.where[name] = f"{path} ({name})"
            sample.genomes[name] = genome_of(mdata, name)
            remember_likelihood(sample, name, mdata.uns.get(UNS))
        sample.labels = mdata.obs if len(sample.labels.index) == 0 else _all_labels(sample.labels, mdata.obs)
    if layer and sample.parts:
        use_layer(sample, layer)
    if counting is not None and FRAGMENTS in files.files:
        fragments.count_into(sample, files.files[FRAGMENTS], counting)
    return sample


def _all_labels(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Labels of two files: the first one's win, cells in the order of the first, then those new in the second."""
    if not (first.index.is_unique and second.index.is_unique):
        return first  # refused by the contracts
    order = first.index.append(second.index.difference(first.index, sort=False))
    return first.combine_first(second).reindex(order)[[*first, *(c for c in second if c not in first)]]


def remember_likelihood(sample: Sample, name: str, written: object) -> None:
    """Note the likelihood that an earlier ``prepare`` wrote into ``uns["xmodal"]`` (``written``), if it did."""
    try:
        sample.likelihoods[name] = json.loads(written["settings"])["modalities"][name]["likelihood"]  # type: ignore[index]
    except (TypeError, KeyError, ValueError):  # not a prepared file
        return


def use_layer(sample: Sample, layer: str) -> None:
    """Put ``layers[layer]`` (``raw``: ``.raw``) into X of every modality that has it; refused where none has."""
    used = []
    for name, part in sample.parts.items():
        if layer in part.layers:
            part.X = _counts(part.layers[layer])
            used.append(name)
        elif layer == RAW and part.raw is not None:
            sample.parts[name] = ad.AnnData(_counts(part.raw.X), obs=part.obs, var=part.raw.var.copy(), uns=part.uns)
            used.append(name)
    if not used:
        layers = sorted({key for part in sample.parts.values() for key in part.layers})
        raise InputRefused(
            f"no modality has a layer '{layer}'",
            where=", ".join(sample.where.values()),
            do=splits.near(layer, layers) if layers else "leave out --layer: there are no layers",
        )
    log.info("%s: layer '%s' is used for %s", sample.name, layer, ", ".join(used))


def _counts(matrix: Any) -> Any:
    return matrix if isinstance(matrix, OnDisk) else io.csr(matrix)


def read_samplesheet(path: Path, role: str = "train") -> list[SampleFiles]:
    """Rows of a samplesheet whose role is ``role``, ``both`` or empty; all mistakes are told at once."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"the samplesheet cannot be read ({error})", where=str(path), do="give a CSV file") from None
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", restkey="", restval="")
    header = [str(h).strip() for h in reader.fieldnames or []]
    reader.fieldnames = header
    wrong = [f"column '{h}' is not known: {splits.near(h, COLUMNS)}" for h in header if h not in COLUMNS]
    if "sample" not in header:
        wrong.append("there is no column 'sample'")
    rows: list[SampleFiles] = []
    names: dict[str, int] = {}
    if not wrong:
        for row in reader:
            line = reader.line_num
            cells = {k: (v or "").strip() for k, v in row.items() if k}
            if any(cells.values()):
                wrong += [f"line {line}: {w}" for w in _row(cells, row.get("") is not None, names, line, path, rows)]
    if not rows and not wrong:
        wrong.append("it has no rows")
    if wrong:
        shown = "\n  ".join(wrong)
        raise InputRefused(
            f"the samplesheet has {len(wrong)} mistake{'s' * (len(wrong) > 1)}:\n  {shown}",
            where=str(path),
            do=f"mend it; its columns are {', '.join(COLUMNS)}",
        )
    chosen = [r for r in rows if r.role in (role, "both")]
    if not chosen:
        raise InputRefused(f"no row has the role '{role}' or 'both'", where=str(path), do="set the column role")
    for left in (r.name for r in rows if r not in chosen):
        log.info("%s: left out, its role is not %s", left, role)
    return chosen


def _row(
    cells: dict[str, str], too_long: bool, names: dict[str, int], line: int, sheet: Path, rows: list[SampleFiles]
) -> list[str]:
    """Mistakes of one row; a row without any is added to ``rows``."""
    wrong = ["it has more fields than the header"] if too_long else []
    name, role = cells["sample"], cells.get("role") or "both"
    if not name:
        wrong.append("the sample has no name")
    elif name in names:
        wrong.append(f"sample '{name}' stands in line {names[name]} already")
    names.setdefault(name, line)
    if role not in ROLES:
        wrong.append(f"role '{role}' is none of {', '.join(ROLES)}")
    files = {}
    for key in FILES:
        if value := cells.get(key):
            found = next((p for p in (sheet.parent / value, Path(value)) if p.exists()), None)
            if found is None:
                wrong.append(f"{key}: there is no file '{value}'")
            else:
                files[key] = found
    if not files and not any(cells.get(k) for k in FILES):
        wrong.append(f"sample '{name}' has no file")
    if not wrong:
        rows.append(SampleFiles(name, files, role))
    return wrong


def one_modality(sample: Sample) -> list[Finding]:
    """A note for samples that hold one modality only: their cells are kept and marked."""
    if len(sample.parts) > 1:
        return []
    return [Finding("note", sample.name, f"it holds {next(iter(sample.parts))} only", "its cells are kept and marked")]
