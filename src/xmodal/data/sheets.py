"""A samplesheet from the folders that facilities have: the work of ``xmodal samplesheet``."""

from __future__ import annotations

import csv
import io as text_io
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem

from xmodal.data import io
from xmodal.data.sample_names import STATES, WITH_EMPTY, Named, read_name
from xmodal.data.samples import COLUMNS
from xmodal.errors import InputRefused
from xmodal.fields import ATAC, PROTEIN, RNA, UNS

log = logging.getLogger(__name__)
SINGLE = (RNA, ATAC, PROTEIN)
FRAGMENTS = "fragments"
SKIPPED = {"work", "pipeline_info", "multiqc", "fastqc", "analysis"}  # hold no counts, but many files
OWN_RESULTS = ("predict", "merge")  # commands of ours whose files are no measurements
OWN_NAMES = (
    "heldout, training, joint, input, checkpoint, prediction1, part1, check, prepare, evaluation, selection, embedding, "
    "markers, annotation, description or generated"
)
# Names that the pipeline gives its own sets and the folders it hands files over in; capitals do not matter.
RESERVED = re.compile(
    "heldout|training|joint|input|checkpoint|prediction[0-9]*|part[0-9]+|check|prepare|evaluation|selection|embedding|"
    "markers|annotation|description|generated"
)
LOOKED_FOR = (
    "*_filtered_matrix.h5ad of nf-core/scrnaseq, filtered_feature_bc_matrix.h5 and atac_fragments.tsv.gz of Cell Ranger, "
    "and .h5ad or .h5mu files such as S1_rna.h5ad with S1_atac.h5ad, S1/rna.h5ad with S1/atac.h5ad, S1.h5mu"
)
FEW, MANY = (
    500,
    20_000,
)  # features that are looked at where the name of the file says the modality, and where it does not
UNFIT = re.compile(r"[\s,'\"]")  # signs that the samplesheet of the pipeline does not take in a path


@dataclass(frozen=True)
class Row:
    """One line to be: ``files`` by column, and the modalities that they hold."""

    sample: str
    files: dict[str, Path]
    holds: tuple[str, ...]
    role: str = ""
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A file that can stand in ``column`` (of an h5ad with several modalities: in several)."""

    named: Named
    columns: tuple[str, ...]
    holds: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return self.columns[0] in ("h5", "h5mu")


@dataclass(frozen=True)
class Found:
    """Rows, and the files that were left out with the reason."""

    rows: list[Row]
    left: list[tuple[Path, str]]


def find(folder: Path) -> Found:
    """Samples in ``folder``, sorted by name.  Raises :class:`InputRefused` where there is none, with what was looked for."""
    top = Path(os.path.abspath(folder))
    if not top.is_dir():
        raise InputRefused("there is no such folder", where=str(folder), do="give the folder of results")
    left: list[tuple[Path, str]] = []
    named = [n for path in _files(top) if (n := _named(path, top, left))]
    candidates = [c for n in _best_states(named, left) if (c := _candidate(n, left))]
    candidates = _without_conversions(candidates, left)
    groups: dict[tuple[Path, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.named.place, candidate.named.sample].append(candidate)
    chosen = {key: _row(group, left) for key, group in groups.items()}
    names = unique_names([key for key, row in chosen.items() if row], top)
    rows = [replace(row, sample=names[key]) for key, row in chosen.items() if row]
    if not rows:
        seen = f"; left out: {in_words(left, top)}" if left else ""
        raise InputRefused(
            f"no sample was found{seen}", where=str(folder), do=f"give a folder with what is looked for: {LOOKED_FOR}"
        )
    return Found(sorted(rows, key=lambda r: r.sample), left)


def _files(top: Path) -> Iterable[Path]:
    """All files below ``top`` in a fixed order; links are followed, each folder is entered once."""
    entered: set[str] = set()
    for folder, inner, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        inner[:] = sorted(
            d for d in inner if d not in SKIPPED and not d.startswith((".", "_")) and not d.endswith("_CS")
        )
        if real in entered:
            inner[:] = []
            continue
        entered.add(real)
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _named(path: Path, top: Path, left: list[tuple[Path, str]]) -> Named | None:
    named = read_name(path, top)
    if named is None:
        if path.suffix == ".h5":
            left.append((path, "an .h5 that is no matrix of Cell Ranger by its name"))
        return None
    if UNFIT.search(str(path.relative_to(top))):
        left.append((path, "its path holds a blank, a comma or a quote, which the pipeline does not take: rename it"))
        return None
    return named


def _best_states(named: list[Named], left: list[tuple[Path, str]]) -> list[Named]:
    """Without files of all samples together where single ones are there, and without raw where filtered is there."""
    if any(not n.combined and not n.path.name.endswith(".tsv.gz") for n in named):
        left += [(n.path, "holds all samples together; the single ones are there") for n in named if n.combined]
        named = [n for n in named if not n.combined]
    same: dict[tuple[Any, ...], list[Named]] = defaultdict(list)
    for n in named:
        same[n.place, n.sample, n.modality, n.converted, "".join(n.path.suffixes[-1:])].append(n)
    kept = []
    for group in same.values():
        best = min(n.rank for n in group)
        kept += [n for n in group if n.rank == best]
        left += [
            (n.path, f"{n.state or 'unmarked'}; {STATES[best] or 'unmarked'} is preferred")
            for n in group
            if n.rank > best
        ]
    return kept


def _candidate(named: Named, left: list[tuple[Path, str]]) -> Candidate | None:
    """``named`` with what the file itself says that it holds; None, and noted, where it cannot be used."""
    path = named.path
    if path.name.endswith(".tsv.gz"):
        if not path.is_file() or path.stat().st_size == 0:
            left.append((path, "the file is empty (0 bytes), or a link to nowhere"))
            return None
        return Candidate(named, (FRAGMENTS,), (ATAC,))
    try:
        holds = modalities(path, named.modality)
    except InputRefused as error:
        left.append((path, error.what))
        return None
    usable = tuple(m for m in SINGLE if m in holds)
    if not usable:
        left.append((path, f"holds {', '.join(holds)}, for which the samplesheet has no column"))
        return None
    return Candidate(named, usable if path.suffix == ".h5ad" else (path.suffix[1:],), usable)


def modalities(path: Path, said: str | None = None) -> tuple[str, ...]:
    """The modalities in an h5ad, h5mu or 10x h5, without reading its matrix; ``said``: what the name of an h5ad says.

    Judged by the rules of :mod:`xmodal.data.io`; refused like there, and where it is a prediction of ours.
    """
    kind = io.file_kind(path)
    with io.refusing(path), h5py.File(path, "r") as file:
        if kind == "h5mu":
            return tuple(sorted({io.ALSO_CALLED.get(name.lower(), name) for name in file["mod"]}))
        if kind == "10x h5":
            features = file["matrix/features/feature_type"][:] if "matrix" in file else []
            types = sorted({t.decode() for t in features}) or ["Gene Expression"]
            return tuple(io.FEATURE_TYPES.get(t, t) for t in types)
        uns = {UNS: read_elem(file["uns"][UNS])} if UNS in file.get("uns", {}) else {}
        if hasattr(uns.get(UNS), "get") and uns[UNS].get("command") in OWN_RESULTS:
            raise InputRefused("a prediction of xmodal, no measurement", where=str(path))
        names, types = _features(file["var"], FEW if said else MANY)
    known = {io.FEATURE_TYPES.get(str(t)) for t in types} - {None}
    if len(known) > 1 or (known and not said):
        return tuple(sorted(str(m) for m in known))
    try:
        content = io.guess_modality(ad.AnnData(var=pd.DataFrame(index=names), uns=uns), path)
    except io.ModalityUnknown as error:
        if said is None:
            do = f"which modality it holds is open: call it {path.stem}_rna.h5ad or the like"
            raise InputRefused(do, where=str(path)) from error
        return (said,)
    if said and said != content:
        log.warning("%s: its name says %s, its features look like %s; the name is believed", path, said, content)
    return (said or content,)


def _features(var: Any, most: int) -> tuple[list[str], list[str]]:
    """The first names of features, and the types of all of them that their file states (of 10x), from h5ad's ``var``."""
    if not isinstance(var, h5py.Group):  # anndata before 0.7
        table = read_elem(var)
        return list(table.index[:most].astype(str)), list(table.get("feature_types", pd.Series(dtype=str)).unique())
    names = var[var.attrs["_index"]].asstr()[:most]
    types = pd.unique(pd.Series(read_elem(var["feature_types"]))) if "feature_types" in var else []
    return [str(n) for n in names], list(types)


def _without_conversions(candidates: list[Candidate], left: list[tuple[Path, str]]) -> list[Candidate]:
    """An h5ad that nf-core/scrnaseq made from a matrix of Cell Ranger goes where that matrix is there: it holds genes only."""
    matrices = [c.named for c in candidates if c.columns == ("h5",)]
    kept = []
    for c in candidates:
        better = [
            m
            for m in matrices
            if m.sample == c.named.sample and c.named.place in m.path.parents and m.rank <= c.named.rank
        ]
        if c.named.converted and better:
            left.append((c.named.path, f"made from {better[0].path.name}, which holds all modalities"))
        else:
            kept.append(c)
    return kept


def _row(group: list[Candidate], left: list[tuple[Path, str]]) -> Row | None:
    """The files of one sample: one that holds all, or one for each modality; whichever is filtered and holds more."""
    group = sorted(group, key=lambda c: (c.named.rank, -len(c.holds), c.named.path))
    wholes = [c for c in group if c.whole]
    single: dict[str, Candidate] = {}
    for c in group:
        for column in c.columns if not c.whole and c.columns != (FRAGMENTS,) else ():
            single.setdefault(column, c)
    sets = [{c.columns[0]: c} for c in wholes[:1]] + ([single] if single else [])
    best = max(sets, key=lambda s: (not _has_empty(s), len({m for c in s.values() for m in c.holds})), default={})
    holds = {m for c in best.values() for m in c.holds}
    counted = next((c for c in group if c.columns == (FRAGMENTS,)), None)
    if counted and ATAC not in holds:
        best = {**best, FRAGMENTS: counted}
    used = {c.named.path for c in best.values()}
    for c in group:
        if c.named.path not in used:
            left.append((c.named.path, f"the same sample is taken from its {' and '.join(best)}"))
    if _has_empty(best):
        log.warning("%s: there is only the raw matrix, which holds droplets without a cell", group[0].named.sample)
    files = {column: best[column].named.path for column in COLUMNS if column in best}
    return Row(group[0].named.sample, files, tuple(m for c in files for m in best[c].holds)) if files else None


def _has_empty(chosen: dict[str, Candidate]) -> bool:
    return any(c.named.state in WITH_EMPTY for c in chosen.values())


def unique_names(keys: Sequence[tuple[Path, str]], top: Path) -> dict[tuple[Path, str], str]:
    """A legal and unique name for each (place, sample): folders that tell equal samples apart, then a number, are added."""
    same: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for key in keys:
        same[legal_name(key[1])].append(key)
    result: dict[tuple[Path, str], str] = {}
    for name, members in sorted(same.items(), key=lambda item: len(item[1])):
        folders = [[*place.relative_to(top.parent).parts] if place.is_relative_to(top) else [] for place, _ in members]
        while len(members) > 1 and all(folders) and len({f[0] for f in folders}) == 1:
            folders = [f[1:] for f in folders]
        while len(members) > 1 and all(folders) and len({f[-1] for f in folders}) == 1:
            folders = [f[:-1] for f in folders]
        for key, folder in zip(members, folders, strict=True):
            wanted = legal_name("_".join([*folder, name])) if len(members) > 1 else name
            number = 2
            unique = wanted
            while unique in result.values():
                unique, number = f"{wanted[:95]}_{number}", number + 1
            result[key] = unique
    return result


def legal_name(text: str) -> str:
    """A name that the pipeline takes: letters, digits, ``_ . -``, beginning with a letter or digit, at most 100.

    >>> legal_name(".S 1 (new)"), legal_name("training")
    ('S_1_new', 'sample_training')
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")[:100]
    return f"sample_{name}" if RESERVED.fullmatch(name.lower()) else name or "sample"


def in_words(left: list[tuple[Path, str]], top: Path, most: int = 20) -> str:
    """What was left out, by reason, the first of each by name."""
    reasons: dict[str, list[Path]] = defaultdict(list)
    for path, reason in left:
        reasons[reason].append(path)
    said = []
    for reason, paths in list(reasons.items())[:most]:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        shown = ", ".join(str(p.relative_to(top)) if p.is_relative_to(top) else str(p) for p in paths[:3])
        said.append(f"{shown}{more} ({reason})")
    return "; ".join(said) + (f"; and {len(reasons) - most} more reasons" if len(reasons) > most else "")


def with_roles(rows: list[Row], role: str | None, checkpoint: Path | None) -> list[Row]:
    """Rows with their role: ``role``; else predict with a ``checkpoint``, train where a sample has two modalities."""

    def chosen(row: Row) -> str:
        return role or ("train" if checkpoint is None and len(row.holds) > 1 else "predict")

    return [replace(row, role=chosen(row), checkpoint=checkpoint) for row in rows]


def only_from(found: Found, sources: set[str]) -> Found:
    """Without samples that hold none of ``sources``; refused where none is left."""
    fit = [r for r in found.rows if sources & set(r.holds)]
    why = f"the checkpoint predicts from {' or '.join(sorted(sources))} only"
    left = found.left + [(path, why) for r in found.rows if r not in fit for path in r.files.values()]
    if not fit:
        holds = ", ".join(sorted({m for r in found.rows for m in r.holds}))
        raise InputRefused(f"{why}, and the samples hold {holds}", do="give a checkpoint that fits: xmodal models FILE")
    return Found(fit, left)


def as_text(rows: list[Row], sheet: Path) -> str:
    """The CSV; paths relative to the folder of ``sheet`` where they lie in it, else absolute.

    Raises :class:`InputRefused` for a path that the pipeline would not take.
    """
    home = Path(os.path.abspath(sheet)).parent

    def written(path: Path) -> str:
        whole = Path(os.path.abspath(path))
        text = (whole.relative_to(home) if whole.is_relative_to(home) else whole).as_posix()
        if UNFIT.search(text):
            do = "write the samplesheet above the files (--output), so that their paths begin there; or link the folder"
            raise InputRefused("a blank, a comma or a quote in a path of the samplesheet", where=text, do=do)
        return text

    used = [c for c in COLUMNS if c in ("sample", "role") or any(c in r.files for r in rows)]
    used += ["checkpoint"] if any(r.checkpoint for r in rows) else []
    lines = text_io.StringIO()
    writer = csv.DictWriter(lines, used, lineterminator="\n")
    writer.writeheader()
    for r in rows:
        model = {"checkpoint": written(r.checkpoint)} if r.checkpoint else {}
        writer.writerow({"sample": r.sample, "role": r.role, **{c: written(p) for c, p in r.files.items()}, **model})
    return lines.getvalue()
