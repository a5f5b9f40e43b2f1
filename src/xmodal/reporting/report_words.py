"""Sentences of the report: what was done, what was missing, where it came from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from xmodal.reporting import pairing
from xmodal.reporting.report_inputs import Evaluation, Inputs, Training
from xmodal.scores.score_texts import shown
from xmodal.scores.verdicts import Verdict

GLOSSARY = {
    "RNA, ATAC, protein": "What can be measured in a cell: which genes are read (RNA), which stretches of the "
    "genome are open "
    "(ATAC, in 'peaks'), which proteins sit on its surface. Each is called a modality.",
    "Prediction": "The values a model gives for a modality that was hidden from it, from another one of the "
    "same cells.",
    "Training, validation, test "
    "cells": "A model learns from training cells; validation cells decide when to stop, and the last "
    "weights may be learned from them as well; test cells are never seen before the scores are computed.",
    "Control": "A prediction so simple that a useful model must beat it.",
    "log1p CP10k": "The unit of RNA: counts per ten thousand of the cell, plus one, natural logarithm.",
    "Correlation": "From -1 to 1: do two lists of numbers rise and fall together? 0 means no relation.",
    "AUROC": "Chance that a randomly drawn open case is ranked above a randomly drawn closed one. 0.5 is "
    "guessing, 1 is perfect.",
    "Average precision "
    "(AUPRC)": "How pure the top of a ranking is; guessing gives the share of open cases (the prevalence).",
    "Label transfer": "Each predicted cell is given the type whose average true profile it resembles most; the "
    "score is the "
    "share given the right type.",
    "UMAP": "A map that puts similar profiles close together. Distances between far points, sizes and shapes of "
    "groups mean "
    "nothing.",
    "Checkpoint": "The file that holds a trained model (model.safetensors); its SHA-256 is its fingerprint.",
}
METHOD_TEXT = {
    "prediction": "the model that is judged here",
    "mean": "control: the average training cell, the same for every cell",
    "depth": "control: sees only how many counts a cell has",
    "linear": "control: linear regression, fitted in seconds",
}
SPLIT_TEXT = {"file": "as marked in the input file", "random": "drawn at random among all cells"}


def number(value: Any) -> str:
    """A count with thousands separated, any other number with at most four digits, other things as text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def score(value: Any) -> str:
    """A score with three decimals; a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:.3f}".replace("-0.000", "0.000")


def plain(value: Any) -> str:
    """A setting as text: lists with commas, nothing as a dash."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, dict):
        return "; ".join(f"{k}: {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value)
    return number(value)


def answer(inputs: Inputs, verdicts: list[Verdict]) -> list[str]:
    """The first lines of the page: what was done, and what came out."""
    lines = [_trained(t, [content for _, content in inputs.prepares]) for t in inputs.trainings]
    lines += [line for e in inputs.evaluations for line in _scored(e)]
    if not inputs.evaluations:
        lines.append(f"Nothing was evaluated, so this page cannot say how {_open(inputs)}.")
    elif not verdicts and not any(
        e.embedding or e.annotation or e.description or e.generation or e.robustness for e in inputs.evaluations
    ):
        lines.append("The evaluation holds no scores.")
    return lines


def _open(inputs: Inputs) -> str:
    """What only an evaluation can say."""
    others = inputs.embeddings or inputs.markers
    texts = inputs.annotations or inputs.descriptions or inputs.generated
    if inputs.predictions or inputs.overviews or not (others or texts):
        return "far the predictions can be trusted"
    if others or inputs.annotations:
        return "good the embedding is" if others else "many of the labels are right"
    return "true the descriptions are" if inputs.descriptions else "like real cells the generated ones are"


def _trained(part: Training, prepares: list[dict[str, Any]]) -> str:
    m, split = part.metrics, part.metrics.get("split") or {}
    modalities = m.get("modalities") or {}
    together = " and ".join(f"{shown(k)} ({number(v.get('features'))} features)" for k, v in modalities.items())
    about = pairing.prepared_for(split, set(modalities), prepares) or {}
    held = pairing.by_part(about, list(modalities))
    name = m.get("model") or "model"
    text = f"{'An' if name[0] in 'aeiou' else 'A'} {name} model was trained"
    text += f" on {number(split['train'])} cells" if "train" in split else ""
    if held:
        text += _had(held["train"], tuple(modalities), together)
    elif together:
        text += f" and what they have of {together}" if "train" in split else f" on {together}"
    if split.get("test"):
        test = split["test"]
        both = held["test"][tuple(modalities)] if held else test
        which = f", {number(both)} of them with {_all(modalities)}," if both != test else ""
        text += f"; {number(test)} other cells{which} were held out to test it ({how_split(split)})"
    return f"{text}." + (_of_all(about, list(modalities)) if held is None else "")


def _had(held: pairing.Held, names: tuple[str, ...], together: str) -> str:
    """In how many of the training cells all was ``together``, and what the others had."""
    others = [
        f"{number(n)} had {' and '.join(map(shown, has)) or 'neither'}{' only' if has else ''}"
        for has, n in sorted(held.items())
        if n and has != names
    ]
    if not others:
        return f" in which {together} had been measured{' together' if len(names) > 1 else ''}"
    return f", in {number(held[names])} of which {together} had been measured together ({', '.join(others)})"


def _of_all(about: dict[str, Any], names: list[str]) -> str:
    """How many of all prepared cells had the modalities ``names`` together, where only that is known."""
    counts = about.get("counts") or {}
    cells, paired = (counts.get("cells") or {}).get("after"), counts.get("paired")
    if cells is None or paired is None or set(names) != set(about.get("modalities") or {}):
        return ""
    return f" In {number(paired)} of all {number(cells)} prepared cells {_all(names)} had been measured."


def _all(names: Iterable[str]) -> str:
    """All of the modalities in words, such as 'both RNA and ATAC'."""
    names = list(names)
    return ("both " if len(names) == 2 else "") + " and ".join(map(shown, names))


def how_split(split: dict[str, Any]) -> str:
    """How cells were held out."""
    groups, by = split.get("groups") or {}, split.get("by")
    if by and groups.get("test"):
        return f"whole groups of '{by}': {', '.join(map(str, groups['test']))}"
    if by:
        return f"whole groups of '{by}'"
    return SPLIT_TEXT.get(str(split.get("source")), "by the file's split")


def _scored(part: Evaluation) -> list[str]:
    scored = part.metrics.get("settings", {}).get("cells")
    return [
        f"{capitalised(shown(name))} was predicted from {shown(str(t.get('source') or 'another modality'))} in "
        f"{number(t.get('cells'))} {_which(scored, t)} and compared with "
        f"what was measured in them, {number(t.get('features'))} features ({part.name})."
        for name, t in part.targets.items()
    ]


def _which(scored: Any, target: dict[str, Any]) -> str:
    """What the scored cells were to the model."""
    if scored == "valid":
        learned = "which the model never saw" if target.get("trial") else "from which the model may have learned"
        return f"validation cells, {learned},"
    return "cells" if scored == "all" else "held-out cells"


def capitalised(text: str) -> str:
    """The text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """What was missing, filtered or odd in the input: ``where``, ``what`` and ``level`` (error, warning, note)."""
    rows: list[dict[str, str]] = []
    for name, content in inputs.checks:
        for f in content.get("findings") or []:
            do = f" What to do: {f['do']}." if f.get("do") else ""
            rows.append(
                {
                    "where": f"{name}: {f.get('where', '')}",
                    "what": f"{f.get('what', '')}.{do}",
                    "level": f.get("level", "note"),
                }
            )
    for name, content in inputs.prepares:
        rows += [{"where": name, "what": w, "level": "note"} for w in _filtered(content.get("counts") or {})]
    for t in inputs.trainings:
        rows += [
            {"where": f"training {t.name}", "what": str(w), "level": "warning"} for w in t.metrics.get("warnings") or []
        ]
    for e in inputs.evaluations:
        for name, target in e.targets.items():
            source = str(target.get("source") or "")
            place = f"{e.name}, {shown(name)} from {shown(source) or 'another modality'}"
            rows += [{"where": place, **row} for row in unaligned(target, source)]
    return rows


def _filtered(counts: dict[str, Any]) -> list[str]:
    cells, out = counts.get("cells") or {}, []
    if cells.get("before") != cells.get("after"):
        why = "; ".join(f"{k}: {number(v)}" for k, v in cells.items() if k not in ("before", "after"))
        out.append(f"{number(cells.get('after'))} of {number(cells.get('before'))} cells were kept ({why})")
    for m, f in (counts.get("features") or {}).items():
        if f.get("before") != f.get("after"):
            out.append(f"{m}: {number(f.get('after'))} of {number(f.get('before'))} features were kept")
    out += [
        f"{m}: {number(n)} duplicated features were summed"
        for m, n in (counts.get("duplicates_summed") or {}).items()
        if n
    ]
    out += [f"{number(n)} cells have {m} only" for m, n in (counts.get("single") or {}).items() if n]
    return out


def unaligned(target: dict[str, Any], source: str) -> list[dict[str, str]]:
    """How the features of the ``source`` fit the model, and whether its cells are like the training cells."""
    found, rows = target.get("missing") or {}, []
    kind = f"{shown(source)} features".strip()
    if found.get("missing"):
        first = ", ".join(map(str, found.get("first_missing") or []))
        share = f"{number(found['missing'])} of {number(found.get('features'))} {kind}"
        what = f"{share} the model knows are not in the input and were taken as zero; the first: {first}"
        rows.append({"what": what, "level": "warning"})
    elif found:
        rows.append(
            {"what": f"all {number(found.get('features'))} {kind} the model needs were in the input", "level": "note"}
        )
    for key, text in (
        ("by_overlap", "peaks were matched by overlap"),
        ("by_gene_id", "genes were matched by Ensembl id"),
        ("unused", "features of the input are unknown to the model and were not used"),
    ):
        if found.get(key):
            rows.append({"what": f"{number(found[key])} {text}", "level": "note"})
    unlike = (target.get("novelty") or {}).get("unlike")
    if unlike is not None:
        level = "note" if target["novelty"].get("level") == "fine" else "warning"
        rows.append(
            {"what": f"{unlike:.1%} of the cells are unlike the cells the model was trained on", "level": level}
        )
    return rows + [{"what": str(n), "level": "warning"} for n in target.get("notes") or []]


def training(part: Training) -> dict[str, Any]:
    """Facts, settings and filters of one training."""
    m = part.metrics
    split, timing = m.get("split") or {}, m.get("timing") or {}
    threads = f"{number(timing.get('threads'))} {'thread' if timing.get('threads') == 1 else 'threads'}"
    facts = {
        "Model": m.get("model"),
        "Predicts": ", ".join(f"{s} → {t}" for s, t in m.get("directions") or []),
        "Training, validation, test cells": " / ".join(number(split.get(k)) for k in ("train", "valid", "test"))
        if split
        else None,
        "How cells were held out": how_split(split) if split else None,
        "Epochs (kept)": f"{number(m.get('epochs'))} ({number(m.get('best_epoch'))})" if m.get("epochs") else None,
        "Parameters": m.get("parameters"),
        "Peak-gene links": m.get("links"),
        "Time": f"{number(timing.get('train_s'))} s on {timing.get('device')}, {threads}" if timing else None,
        "Memory": f"{number(timing.get('peak_mib'))} MiB" if timing.get("peak_mib") else None,
    }
    return {
        "facts": {k: v for k, v in facts.items() if v not in (None, "")},
        "modalities": m.get("modalities") or {},
        "settings": m.get("settings") or {},
        "filters": m.get("filters") or {},
        "best_epoch": m.get("best_epoch"),
        "last_is_kept": (m.get("settings") or {}).get("schedule") == "onecycle",
    }


def check(content: dict[str, Any]) -> dict[str, Any]:
    """One file of ``xmodal check``: a row for each modality of each file."""
    rows = [
        {
            "file": f.get("file"),
            "modality": m,
            **{k: v.get(k) for k in ("cells", "features", "depth_median", "sparsity", "genome")},
        }
        for f in content.get("files") or []
        for m, v in (f.get("modalities") or {}).items()
    ]
    return {"ok": content.get("ok"), "rows": rows}


def prepared(content: dict[str, Any]) -> dict[str, Any]:
    """One summary of ``xmodal prepare``: options and split."""
    options = {k: v for k, v in (content.get("options") or {}).items() if v not in (None, [], "", {})}
    return {"options": options, "split": content.get("split") or {}, "modalities": content.get("modalities") or {}}


def provenance(inputs: Inputs) -> list[tuple[str, str]]:
    """Versions, seeds and fingerprints."""
    rows = [(f"training {t.name}: checkpoint SHA-256", t.checkpoint) for t in inputs.trainings if t.checkpoint]
    rows += [(f"training {t.name}: seed", plain(t.metrics["seed"])) for t in inputs.trainings if "seed" in t.metrics]
    for e in inputs.evaluations:
        for name, target in e.targets.items():
            said = {"model": target.get("model"), **(target.get("provenance") or {})}
            rows += [
                (f"{e.name}, {name}: {k.replace('_', ' ')}", plain(v)) for k, v in said.items() if v not in (None, "")
            ]
    for name, content in inputs.predictions:
        place = f"prediction {name}, {shown(str(content['target']))}"
        said = {"model": content.get("model"), "checkpoint SHA-256": content.get("checkpoint_sha256")}
        rows += [(f"{place}: {k}", plain(v)) for k, v in said.items() if v]
    return rows
