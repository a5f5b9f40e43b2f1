"""What is in a file and what it can be used for: the work of ``xmodal check``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mudata as mu
import numpy as np
import pandas as pd

from xmodal.data import contracts, fragment_file, io, samples
from xmodal.data.contracts import Finding
from xmodal.data.features import ENSEMBL, SYMBOL_COLUMNS, is_peaks
from xmodal.data.genome import genome_of
from xmodal.data.on_disk import entries
from xmodal.data.on_disk_settings import AUTO
from xmodal.data.samples import FRAGMENTS, WHOLE, Sample
from xmodal.errors import InputRefused, XmodalError
from xmodal.fields import ATAC, CHROM, DEPTH, PREPARED_SCHEMA, PROTEIN, RNA, SAMPLE, SPLIT, TRAIN, UNS

log = logging.getLogger(__name__)
UNKNOWN = "unknown"  # name of a modality that neither the file nor its name tells
# Paired training cells that a model needs: its min_cells, written here since loading models takes seconds.
NEEDED = {"linear": 20, "auto": 24, "crossmp": 50}
TRAINED = 0.65  # share of cells that prepare leaves to training, unless told otherwise
ALONE = "no model can be trained on it alone"


@dataclass
class Check:
    """What one call of ``check`` found; ``as_dict`` is its JSON."""

    files: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    use: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        return not any(f.level == "error" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        found = [f.as_dict() for f in self.findings]
        return {"ok": self.ok, "files": self.files, "findings": found, "use": self.use, "checkpoint": self.checkpoint}


def check(
    files: Sequence[tuple[str | None, Path]],
    likelihoods: dict[str, str] | None = None,
    layer: str | None = None,
    checkpoint: Path | None = None,
) -> Check:
    """Look at files, given as (modality or None, path).  The job is prediction with ``checkpoint``, else training.

    Files of different modalities are taken as one sample, whose cells must pair.  Errors are findings, never raised.
    """
    result = Check()
    read: list[tuple[Path, mu.MuData]] = []
    for name, path in files:
        try:
            if name == FRAGMENTS or (name is None and fragment_file.is_fragments(path)):
                result.files.append(_fragments(path, checkpoint, result.findings))
                continue
            mdata = _read(name, path, layer, result.findings)
        except InputRefused as error:
            result.findings.append(Finding("error", _short(error.where, path), error.what, error.do))
            continue
        read.append((path, mdata))
        result.files.append(describe(mdata, path.name, likelihoods or {}, result.findings))
        # One modality is all that cells to predict can have, and ``use`` says that they train nothing: no warning.
        cells = [
            replace(f, level="note") if f.level == "warning" and ALONE in f.do else f
            for f in contracts.check_cells(mdata, training=checkpoint is None)
        ]
        result.findings += cells if len(files) == 1 else [f for f in cells if f.level == "error"]
    together = [name for _, mdata in read for name in mdata.mod]
    whole = _together(read) if len(set(together)) == len(together) and read else None
    if len(read) > 1 and whole is not None and checkpoint is None:
        result.findings += contracts.check_pairing({n: p.obs_names for n, p in whole.items()}, "the files together")
    result.use = _use(read, whole, result.ok)
    if result.ok and any(about.get("kind") == FRAGMENTS for about in result.files):
        result.use["predict_from"] = sorted({*result.use["predict_from"], ATAC})
        if not result.use["train"]:
            result.use["why_not"] = "the fragments are to be counted first"
    if checkpoint is not None and result.ok:
        result.checkpoint = _fit([mdata for _, mdata in read], checkpoint, result.findings)
    return result


def _fragments(path: Path, checkpoint: Path | None, findings: list[Finding]) -> dict[str, Any]:
    """What the first lines of a fragments file say, and whether it is of the checkpoint's genome."""
    from xmodal.data.peak_sets import checkpoint_peaks

    head = fragment_file.read_head(path)
    chroms, barcodes = (list(head.table[c].cat.categories.astype(str)[:3]) for c in (CHROM, fragment_file.BARCODE))
    do = f"count it over peaks: xmodal prepare --fragments {path.name} with --checkpoint or --peaks"
    findings.append(Finding("note", path.name, "a fragments file: no counts yet, one line for each fragment", do))
    known = checkpoint_peaks(checkpoint).genome if checkpoint is not None else None
    if known and head.genome and known != head.genome:
        what = f"the genome is {head.genome}, the checkpoint's {known}"
        findings.append(Finding("error", path.name, what, "use a checkpoint of this genome"))
    about: dict[str, Any] = {"file": path.name, "kind": FRAGMENTS, "genome": head.genome, "modalities": {}}
    return {**about, "chromosomes": chroms, "barcodes": barcodes}


def _read(name: str | None, path: Path, layer: str | None, findings: list[Finding]) -> mu.MuData:
    try:
        mdata = io.read_cells(path, None if name in WHOLE else name, on_disk=AUTO)
    except io.ModalityUnknown as error:
        name = next((m for m in (RNA, ATAC, PROTEIN) if m in path.stem.lower()), UNKNOWN)
        level: contracts.Level = "warning" if name == UNKNOWN else "note"
        findings.append(Finding(level, path.name, f"{error.what}; it is taken as '{name}'", f"say NAME={path.name}"))
        mdata = io.read_cells(path, name, on_disk=AUTO)
    if layer:
        sample = Sample(path.name, dict(mdata.mod), mdata.obs, dict.fromkeys(mdata.mod, path.name))
        samples.use_layer(sample, layer)
        mdata = io.joined(sample.parts)
    return mdata


def describe(mdata: mu.MuData, name: str, likelihoods: dict[str, str], findings: list[Finding]) -> dict[str, Any]:
    """One file in numbers; what the contracts say about its modalities goes into ``findings``."""
    about: dict[str, Any] = {"file": name, "cells": int(mdata.n_obs), "modalities": {}}
    about["prepared"] = UNS in mdata.uns and dict(mdata.uns[UNS]).get("schema") == PREPARED_SCHEMA
    sample = Sample(name, dict(mdata.mod), mdata.obs)
    for modality, part in mdata.mod.items():
        where = f"{name} ({modality})" if len(mdata.mod) > 1 else name
        samples.remember_likelihood(sample, modality, mdata.uns.get(UNS))
        chosen = likelihoods.get(modality) or sample.likelihoods.get(modality)
        try:
            kind = contracts.resolve_likelihood(modality, part, chosen)
        except InputRefused as error:
            findings.append(Finding("warning", where, error.what, error.do))
            kind = ("nb", "log1p_cp10k")
        findings += contracts.check_modality(modality, part, *kind, where=where, raw=not about["prepared"])
        genome = genome_of(mdata, modality)
        findings += _names_and_genome(modality, part, genome, where)
        total = part.obs[DEPTH].to_numpy() if DEPTH in part.obs else contracts.totals(part.X)
        about["modalities"][modality] = {
            "cells": int(part.n_obs),
            "features": int(part.n_vars),
            "likelihood": kind[0],
            "scale": kind[1],
            "depth_median": _number(np.median(total)),
            "sparsity": _number(1 - int(entries(part.X).sum()) / (part.n_obs * part.n_vars)),
            "genome": genome,
            "counts": contracts.is_counts(part.X),
            "examples": [str(n) for n in part.var_names[:3]],
            "layers": sorted(part.layers),
        }
    masks = {n: mdata.obs_names.isin(p.obs_names) for n, p in mdata.mod.items()}
    number = np.sum(list(masks.values()), axis=0)
    about["paired"] = int((number == len(masks)).sum()) if len(masks) > 1 else 0
    about["single"] = {n: int((m & (number == 1)).sum()) for n, m in masks.items()}
    about["labels"] = _labels(mdata.obs)
    about["split"] = mdata.obs[SPLIT].astype(str).value_counts().to_dict() if SPLIT in mdata.obs else None
    return about


def _labels(obs: pd.DataFrame) -> dict[str, int]:
    """Columns of obs that group cells, with the number of groups: at least two cells in a group on average."""
    columns = [c for c in obs.columns if c not in (SPLIT, SAMPLE) and obs[c].dtype.kind != "f"]
    groups = {str(c): int(obs[c].nunique()) for c in columns}
    return {c: n for c, n in groups.items() if 1 <= n <= max(1, len(obs) // 2)}


def _names_and_genome(modality: str, part: Any, genome: str | None, where: str) -> list[Finding]:
    findings = []
    ensembl = modality == RNA and part.var_names[:2000].str.match(ENSEMBL).mean() > 0.5
    if ensembl and not set(SYMBOL_COLUMNS) & set(part.var):
        findings.append(
            Finding(
                "warning",
                where,
                f"its genes are Ensembl ids ({part.var_names[0]}, ...)",
                "give xmodal prepare a --gene-table",
            )
        )
    if genome is None and (modality == ATAC or (modality != RNA and is_peaks(modality, part))):
        findings.append(Finding("warning", where, "the genome is not known", "say it in prepare: --genome"))
    return findings


def _together(read: list[tuple[Path, mu.MuData]]) -> dict[str, Any]:
    return {name: part for _, mdata in read for name, part in mdata.mod.items()}


def _use(read: list[tuple[Path, mu.MuData]], whole: dict[str, Any] | None, ok: bool) -> dict[str, Any]:
    """Whether a model can be trained on it, why not, and from which modalities can be predicted."""
    names = sorted({name for _, mdata in read for name in mdata.mod if name != UNKNOWN})
    if not ok:
        return {"train": False, "why_not": "there are errors", "predict_from": []}
    paired, training = 0, 0
    for parts in [dict(m.mod) for _, m in read] + ([whole] if whole else []):
        every = list(parts.values())
        for i, first in enumerate(every):
            for other in every[i + 1 :]:
                both = first.obs_names.intersection(other.obs_names)
                paired, training = max((paired, training), (len(both), _training_cells(both, read)))
    able = [name for name, needed in NEEDED.items() if training >= needed]
    needs = ", ".join(f"{name} {needed}" for name, needed in NEEDED.items())
    why = (
        "" if able else f"{paired} cells have two modalities, about {training} of them to train on; needed are: {needs}"
    )
    if len(names) < 2:
        why = "there is one modality only"
    use = {"train": not why, "why_not": why, "paired": paired, "training": training, "predict_from": names}
    return {**use, "models": [] if why else able, "needed": NEEDED}


def _training_cells(both: pd.Index, read: list[tuple[Path, mu.MuData]]) -> int:
    """How many of these paired cells train: by the file's split, else by the default of prepare."""
    for _, mdata in read:
        if SPLIT in mdata.obs and len(both.intersection(mdata.obs_names)):
            train = mdata.obs_names[(mdata.obs[SPLIT].astype(str) == TRAIN).to_numpy()]
            return len(both.intersection(train))
    return int(TRAINED * len(both))


def _trainable(use: dict[str, Any]) -> str:
    """Whether a model can be trained, and which need more cells."""
    if not use["train"]:
        return f"no, {use['why_not']}"
    short = [f"{name} needs {use['needed'][name]}" for name in use["needed"] if name not in use["models"]]
    cells = f"{use['paired']} paired cells, about {use['training']} of them to train on"
    if not short:
        return f"yes ({cells})"
    return f"yes, with {' or '.join(use['models'])} only ({cells}; {', '.join(short)})"


def _fit(read: list[mu.MuData], checkpoint: Path, findings: list[Finding]) -> dict[str, Any] | None:
    """How the cells fit a checkpoint; what does not fit becomes an error."""
    from xmodal.predicting import prediction

    fit: dict[str, Any] = {}
    for mdata in read:
        try:
            found = prediction.preview(mdata, checkpoint)
        except XmodalError as error:
            findings.append(
                Finding(
                    "error", getattr(error, "where", ""), getattr(error, "what", str(error)), getattr(error, "do", "")
                )
            )
            continue
        fit = {**found, "modalities": {**fit.get("modalities", {}), **found.get("modalities", {})}}
    if fit and not fit["modalities"]:
        findings.append(
            Finding(
                "error",
                checkpoint.name,
                "the checkpoint knows none of these modalities",
                "give cells of a modality it was trained on: xmodal models " + checkpoint.name,
            )
        )
    misfits = {name: _misfit(name, about) for name, about in fit.get("modalities", {}).items()}
    usable = any(all(f.level != "error" for f in told) for told in misfits.values())
    for told in misfits.values():  # one modality that fits is enough to predict from
        findings += [replace(f, level="warning") if usable else f for f in told]
    return fit or None


def _misfit(name: str, about: dict[str, Any]) -> list[Finding]:
    findings = []
    if not about.get("enough", True):
        aligned = about.get("alignment", {})
        missing = ", ".join(aligned.get("first_missing", [])[:5])
        share = f"{100 * aligned.get('coverage', 0):.0f} %"
        findings.append(
            Finding(
                "error",
                name,
                f"{share} of the checkpoint's features are in it: too few (missing: {missing}, ...)",
                "give cells with the same features, or train on such cells",
            )
        )
    given, known = (about.get("genome", {}).get(k) for k in ("input", "checkpoint"))
    if given and known and given != known:
        findings.append(
            Finding(
                "error", name, f"the genome is {given}, the checkpoint's {known}", "use a checkpoint of this genome"
            )
        )
    verdict = about.get("novelty", {})
    levels: dict[str, contracts.Level] = {"refused": "error", "warning": "warning"}
    if level := levels.get(verdict.get("level", "")):
        share = f"{100 * verdict.get('unlike', 0):.0f} %"
        findings.append(
            Finding(
                level,
                name,
                f"{share} of the cells are unlike those the model was trained on",
                "use a model trained on such cells, or predict with --force",
            )
        )
    return findings


def in_words(result: Check) -> str:
    """The answer for people, on stdout.  Errors are left to the refusal that follows on stderr."""
    lines = []
    for about in result.files:
        if about.get("kind") == FRAGMENTS:
            lines.append(
                f"{about['file']}: fragments ({', '.join(about['chromosomes'])}, ...; barcodes "
                f"{', '.join(about['barcodes'])}, ...), genome {about['genome'] or 'not known'}"
            )
            continue
        lines.append(f"{about['file']}: {about['cells']} cells" + (", prepared" if about["prepared"] else ""))
        for name, m in about["modalities"].items():
            kind = "counts" if m["counts"] else "values"
            examples = ", ".join(m["examples"])
            lines.append(
                f"  {name}: {m['cells']} cells x {m['features']} features ({examples}, ...), {kind}, median "
                f"depth {m['depth_median']:g}, {100 * m['sparsity']:.1f} % zeros, "
                f"genome {m['genome'] or 'not known'}"
            )
        if len(about["modalities"]) > 1:
            alone = ", ".join(f"{n} {name} only" for name, n in about["single"].items() if n)
            lines.append(f"  {about['paired']} cells have all modalities" + (f"; {alone}" if alone else ""))
        if about["labels"]:
            lines.append("  labels: " + ", ".join(f"{c} ({n})" for c, n in about["labels"].items()))
        if about["split"]:
            lines.append("  split: " + ", ".join(f"{n} {p}" for p, n in sorted(about["split"].items())))
    if result.use:
        lines += [f"train a model on it: {_trainable(result.use)}"] if result.checkpoint is None else []
        lines.append("predict from it: " + (", ".join(result.use["predict_from"]) or "no"))
    for name, m in (result.checkpoint or {}).get("modalities", {}).items():
        share = f"{100 * m.get('alignment', {}).get('coverage', 0):.0f} %"
        lines.append(
            f"checkpoint: {name} can predict {', '.join(m.get('predicts', [])) or 'nothing'}; {share} of the "
            "features it knows are there"
        )
    lines += [f"{f.level}: {f}" for f in result.findings if f.level != "error"]
    return "\n".join(lines)


def _number(value: Any) -> float:
    return round(float(value), 4)


def _short(where: str, path: Path) -> str:
    """Messages name the file as it was given; the JSON must not hold folders."""
    return where.replace(str(path), path.name) if where else path.name
