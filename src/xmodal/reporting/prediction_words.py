"""Words of the report about cells that were predicted, and about cells that are simulated."""

from __future__ import annotations

from typing import Any

from xmodal.reporting import reliability_words
from xmodal.reporting.report_inputs import Inputs
from xmodal.reporting.report_words import number
from xmodal.scores.score_texts import shown

SIMULATED = "simulated"  # the genome that xmodal simulate writes
LIKE = {
    "fine": "they look like the cells the model was trained on",
    "warning": "many look unlike the cells the model was trained on: for those the scores of the model do not hold",
    "refused": "most look unlike the cells the model was trained on and were predicted all the same (--force): do not trust "
    "this prediction",
}


def rows(inputs: Inputs) -> list[dict[str, str]]:
    """A row for each prediction: sample, direction, cells, features, share found, first missing, likeness."""
    return [row(name, content) for name, content in inputs.predictions]


def row(name: str, content: dict[str, Any]) -> dict[str, str]:
    """One summary of ``xmodal predict`` in words."""
    found, novelty = content.get("alignment") or {}, content.get("novelty") or {}
    share, unlike = found.get("coverage"), novelty.get("unlike")
    counted = (
        f" ({number(found.get('missing'))} of {number(found.get('features'))} missing)" if found.get("missing") else ""
    )
    empty = content.get("empty")
    return {
        "sample": sample(name, content),
        "what": direction(content),
        "model": str(content.get("model") or "-"),
        "cells": number(content.get("cells")) + (f" ({number(empty)} without any counts)" if empty else ""),
        "features": _features(content),
        "found": f"{_percent(share)}{counted}" if isinstance(share, int | float) else "-",
        "first": ", ".join(map(str, found.get("first_missing") or [])) or "-",
        "hint": str(found.get("hint") or ""),
        "trust": reliability_words.of_summary(content),
        "level": str(novelty.get("level") or ""),
        "unlike": _percent(unlike) if isinstance(unlike, int | float) else "-",
        "means": LIKE.get(str(novelty.get("level")), "the model does not say what its training cells looked like"),
    }


def _features(content: dict[str, Any]) -> str:
    """How many, in which units, and which of them and of their values are written."""
    if content.get("latent"):
        return f"{number(content['latent'])} dimensions of the latent, to be decoded"
    chosen, threshold = content.get("chosen") or {}, content.get("threshold")
    return (
        number(content.get("features"))
        + (f" of {number(chosen['of'])}, as asked for" if chosen else "")
        + (f" ({content['units']})" if content.get("units") else "")
        + (f", the {number(content['top'])} highest of each cell" if content.get("top") else "")
        + (f", values of at least {threshold:g}" if isinstance(threshold, int | float) else "")
    )


def direction(content: dict[str, Any], between: str = " from ") -> str:
    """What from what, such as 'ATAC from RNA'."""
    target, source = (str(content.get(k) or "another modality") for k in ("target", "source"))
    return f"{shown(target)}{between}{shown(source)}"


def sample(name: str, content: dict[str, Any]) -> str:
    """The sample's name without the direction that the pipeline puts behind it."""
    return name.removesuffix(f": {content.get('target')} from {content.get('source')}")


def answer(inputs: Inputs) -> list[str]:
    """Lines about the predictions for the head of the page; those that were evaluated have their verdict there already."""
    lines = []
    evaluated = {e.name for e in inputs.evaluations}
    for name, content in inputs.predictions:
        if name.partition(":")[0] in evaluated:
            continue
        one = row(name, content)
        unlike = f", {one['unlike']} of them unlike the training cells" if one["unlike"] != "-" else ""
        lines.append(
            f"{direction(content, ' was predicted from ')} in {number(content.get('cells'))} cells of {one['sample']}{unlike}: "
            f"{one['means']}. Nothing was measured in them to compare with (see 'Predicted cells')."
        )
    return lines


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """What the model did not find in cells to predict, and cells unlike its training cells."""
    from xmodal.reporting.report_words import unaligned

    return [
        {"where": f"{sample(name, content)}, {direction(content)}", **found}
        for name, content in inputs.predictions
        for found in unaligned(
            {"missing": content.get("alignment"), "novelty": content.get("novelty")}, str(content.get("source") or "")
        )
    ]


def simulated(inputs: Inputs) -> str:
    """A sentence where cells of any part are simulated, else nothing."""
    parts = [(f"training {t.name}", t.metrics) for t in inputs.trainings]
    parts += [(e.name, e.metrics) for e in inputs.evaluations] + list(inputs.prepares)
    parts += [(name, file) for name, content in inputs.checks for file in content.get("files") or []]
    names = [name for name, content in parts if SIMULATED in _genomes(content)]
    if not names:
        return ""
    which = "The cells" if len(names) == len(parts) else f"Cells ({', '.join(dict.fromkeys(names))})"
    return (
        f"{which} are simulated, not measured. Scores of them are those of a simulation: they show that the method works as "
        "built, not how well it predicts real cells."
    )


def _genomes(content: dict[str, Any]) -> set[str]:
    return {str(m.get("genome")) for m in (content.get("modalities") or {}).values() if isinstance(m, dict)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
