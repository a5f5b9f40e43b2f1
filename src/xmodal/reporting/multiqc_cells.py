"""MultiQC's sections about cells and features: how many, kept or left out, how new they are, how far to trust them."""

from __future__ import annotations

from typing import Any

from xmodal.learning.uncertainty import NONE, RELIABLE, UNKNOWN, WEAK
from xmodal.reporting.multiqc_rows import HELDOUT, PARENT, Row, order
from xmodal.reporting.reliability_figure import COLOURS as TRUST_COLOURS
from xmodal.reporting.report_inputs import Inputs
from xmodal.scores.score_texts import shown

PARTS = {"train": ("training", "#0072B2"), "valid": ("validation", "#56B4E9"), "test": ("test", "#E69F00")}
PREDICTED = ("predicted", "#009E73")
GREYS = ("#8C8C8C", "#b8c0c8", "#5b6670", "#d5dae0")  # what was left out
PREPARED = ".prepare.json"
VISIBLE = 0.1  # percent of the cells; less cannot be told from none in the picture
MOST_NAMED = 12  # lines in a legend; more are told by pointing at them
Counts = dict[str, dict[str, int]]


def bars(key: str, name: str, description: str, unit: str, data: Any, categories: Any, **plot: Any) -> dict[str, Any]:
    """A section of stacked bars in the order of ``data``."""
    config = {
        "id": f"xmodal_{key}_plot",
        "title": f"xmodal: {name.lower()}",
        "ylab": unit,
        "sort_samples": False,
        "use_legend": True,
    }
    return {
        "id": f"xmodal_{key}",
        **PARENT,
        "section_name": name,
        "description": description,
        "plot_type": "bargraph",
        "pconfig": config | plot,
        "categories": {
            k: {"name": n, "color": c} for k, (n, c) in categories.items() if any(k in r for r in data.values())
        },
        "data": data,
    }


def cells(inputs: Inputs, found: dict[str, Row]) -> dict[str, Any]:
    """Cells of each sample: learned from, chosen by, tested on, predicted, left out."""
    learned: Counts = {}
    prepared = {name.removesuffix(PREPARED): content for name, content in inputs.prepares}
    for content in _of_training(inputs, found):
        learned |= _training_cells(content, learned)
    if not learned:
        learned = {t.name: part for t in inputs.trainings if (part := _split(t.metrics.get("split") or {}))}
    data = learned | _predicted_cells(found, learned, set(prepared))
    left = sorted({k for part in data.values() for k in part} - {*PARTS, "predicted", "empty"})
    categories = {**PARTS, "predicted": PREDICTED, "empty": ("predicted, without any counts", "#CC79A7")}
    categories |= {k: (k, GREYS[i % len(GREYS)]) for i, k in enumerate(left)}
    return bars(
        "cells",
        "Cells",
        "Cells of each sample: those that train the model, that choose its best epoch, that it never sees before it is tested "
        "on them, that were only predicted, and that filters left out.",
        "cells",
        data,
        categories,
    )


def _of_training(inputs: Inputs, found: dict[str, Row]) -> list[dict[str, Any]]:
    """What prepare said of cells to learn from; of new cells, which bear the name of a prediction, nothing is learned."""
    new = {row.sample for row in found.values()}
    return [content for name, content in inputs.prepares if name.removesuffix(PREPARED) not in new]


def _predicted_cells(found: dict[str, Row], learned: Counts, prepared: set[str]) -> Counts:
    data: Counts = {}
    for row in found.values():
        heldout = bool(row.scored) and row.sample not in prepared and bool(learned)  # counted as test cells already
        if row.cells is None or heldout:
            continue
        empty = int(row.summary.get("empty") or 0)
        name = f"{row.sample} (predicted)" if row.sample in learned else row.sample
        data[name] = {"predicted": row.cells - empty} | ({"empty": empty} if empty else {})
    return data


def _split(split: dict[str, Any]) -> dict[str, int]:
    return {k: int(split[k]) for k in PARTS if isinstance(split.get(k), int)}


def _training_cells(content: dict[str, Any], taken: Counts) -> Counts:
    """Sample -> cells in each part of the split and left out; by filter where there is one sample only."""
    counts = content.get("counts") or {}
    by_sample = counts.get("split_by_sample") or {}
    filters = {_filter(k): v for k, v in (counts.get("cells") or {}).items() if k not in ("before", "after") and v}
    if len(by_sample) <= 1:
        name = next(iter(by_sample), "training cells")
        row = {**_split(content.get("split") or {}), **filters}
        return {_free(name, taken): row} if row else {}
    out: Counts = {}
    for name in sorted(by_sample, key=order):
        row = _split(by_sample[name])
        left = int(by_sample[name].get("before", 0)) - sum(row.values())
        out[_free(name, taken)] = row | ({"left out": left} if left > 0 else {})
    return out


def _free(name: str, taken: Counts) -> str:
    return name if name not in taken else f"{name} (2)"


def _filter(key: str) -> str:
    """A filter in words, such as 'left out: min_peaks'."""
    return f"left out: {key.removeprefix('exclude ')}"


def features(inputs: Inputs, found: dict[str, Row]) -> dict[str, Any]:
    """Features of the training data that filters kept."""
    data: Counts = {}
    for content in _of_training(inputs, found):
        for modality, number in sorted(((content.get("counts") or {}).get("features") or {}).items()):
            kept, given = number.get("after"), number.get("before")
            if isinstance(kept, int) and isinstance(given, int):
                data[shown(modality)] = {"kept": kept} | ({"dropped": given - kept} if given > kept else {})
    return bars(
        "features",
        "Features",
        "Features of the training data. Those seen in too few training cells are dropped, since nothing can be learned "
        "about them.",
        "features",
        data,
        {"kept": ("kept", "#0072B2"), "dropped": ("dropped", GREYS[0])},
    )


FOUND = {
    "by_name": ("same name", "#0072B2"),
    "by_gene_id": ("same gene id", "#56B4E9"),
    "by_overlap": ("overlapping peak", "#E69F00"),
    "missing": ("missing", GREYS[0]),
}


def alignment(found: dict[str, Row]) -> dict[str, Any]:
    """Features the model reads: found in the sample or not; test cells of the training set have them all."""
    data = {}
    for name, row in found.items():
        if row.sample == HELDOUT:
            continue
        about = row.about("alignment")
        if counted := {k: int(about[k]) for k in FOUND if isinstance(about.get(k), int)}:
            data[name] = {k: v for k, v in counted.items() if v}
    data = {name: row for name, row in data.items() if row}
    return bars(
        "alignment",
        "Features found in the samples",
        "The features the model reads: how each was found in the sample, and how many are missing. A missing feature is "
        "treated as not measured; with many of them a prediction is worth less.",
        "features",
        data,
        FOUND,
        cpswitch_c_active=False,
    )


def unlike(found: dict[str, Row]) -> dict[str, Any]:
    """Share of cells at least as unlike the training cells as each score."""
    told = {n: row.about("novelty") for n, row in found.items() if row.about("novelty").get("histogram")}
    lines = {n: line for n, about in told.items() if (line := _at_least(about["histogram"]))}
    limit = next((float(about["limit"]) for about in told.values() if "limit" in about), 2.0)
    last = max([limit + 1, *(x for line in lines.values() for x, share in line if share >= VISIBLE)])
    lines = {n: [pair for pair in line if pair[0] <= last] for n, line in lines.items()}
    if lines:  # by definition of the score a share of 10 ** -s of the training cells reaches s
        edges = sorted({x for line in lines.values() for x, _ in line})
        lines["training cells"] = [[x, round(100 * 10**-x, 4)] for x in edges]
    return {
        "id": "xmodal_unlike",
        **PARENT,
        "section_name": "Unlike cells",
        "description": "How many cells are at least as odd to the model as each score says: a line far above the dashed one of "
        f"the training cells tells of cells the model does not know. From {limit:g} on (one training cell in {10**limit:,.0f}) "
        "a cell counts as unlike, and the scores of the model do not hold for it.",
        "plot_type": "linegraph",
        "pconfig": {
            "id": "xmodal_unlike_plot",
            "title": "xmodal: cells unlike the training cells",
            "xlab": "score of unlikeness",
            "ylab": "cells with at least this score",
            "ysuffix": "%",
            "ymin": 0,
            "ymax": 100,
            "tt_decimals": 2,
            "showlegend": len(lines) <= MOST_NAMED,
            "x_lines": [{"value": limit, "color": "#D55E00", "dash": "dash", "width": 1, "label": "unlike"}],
            "colors": {"training cells": "#22303c"},
            "dash_styles": {"training cells": "dash"},
        },
        "data": lines,
    }


def _at_least(histogram: dict[str, Any]) -> list[list[float]]:
    """Pairs of score and percent of the cells that reach it."""
    cells, edges = histogram.get("cells") or [], histogram.get("edges") or []
    if not sum(cells) or len(cells) != len(edges):
        return []
    return [[float(x), round(100 * sum(cells[i:]) / sum(cells), 3)] for i, x in enumerate(edges)]


def trust(inputs: Inputs, found: dict[str, Row]) -> dict[str, Any]:
    """How many features of each direction can be trusted, by cells held out in training."""
    data: dict[str, Any] = {}
    for part in inputs.trainings:
        for direction, about in sorted((part.metrics.get("uncertainty") or {}).items()):
            source, _, target = direction.partition(" -> ")
            data[f"{part.name}: {shown(target)} from {shown(source)}"] = about.get("trust") or {}
    known = {t.checkpoint for t in inputs.trainings} - {""}
    others = [r for r in found.values() if r.about("interval").get("trust") and _checkpoint(r) not in known]
    several = len({_checkpoint(r) for r in others}) > 1
    for row in others:
        which = f"{row.model or 'model'} {_checkpoint(row)[:6]}".strip() if several else row.model or "model"
        data.setdefault(f"{which}: {shown(row.target)} from {shown(row.source)}", row.about("interval")["trust"])
    names = {RELIABLE: "reliable", WEAK: "weak signal", NONE: "no better than the mean", UNKNOWN: "too rare to tell"}
    return bars(
        "trust",
        "Trust in single features",
        "Whether a feature's predictions follow its measurements, judged on cells held out in training. Rely on reliable ones; "
        "the file of a prediction says it for each feature (var, <code>xmodal_trust</code>).",
        "features",
        {name: {k: int(v) for k, v in row.items() if k in names} for name, row in data.items() if row},
        {k: (n, TRUST_COLOURS[k]) for k, n in names.items()},
    )


def _checkpoint(row: Row) -> str:
    return str(
        row.summary.get("checkpoint_sha256") or (row.scored.get("provenance") or {}).get("checkpoint_sha256") or ""
    )


def coverage(found: dict[str, Row]) -> dict[str, Any]:
    """Share of the measured values inside the intervals, beside what was promised."""
    data, level = {}, 0.9
    for name, row in found.items():
        about = row.scored.get("intervals") or {}
        shares = {"all": about.get("coverage"), "detected": about.get("coverage_of_detected")}
        kept = {k: round(100 * v, 2) for k, v in shares.items() if isinstance(v, int | float)}
        if kept:
            data[name], level = kept, float(about.get("level") or level)
    section = bars(
        "coverage",
        "Intervals",
        f"Share of the measured values that lie inside the interval meant to hold {100 * level:g} % of them. All values: far "
        "below means that the model is surer than it should be for these cells. Values above zero: where most values are zero, "
        "as in ATAC, intervals hold the zeros and few of the others, and then say little about a value that was detected.",
        "values inside the interval",
        data,
        {"detected": ("values above zero", "#56B4E9"), "all": ("all values", "#0072B2")},
        stacking="group",
        cpswitch=False,
        tt_decimals=1,
    )
    section["pconfig"] |= {"ysuffix": "%", "ymin": 0, "ymax": 100}
    section["pconfig"]["x_lines"] = [{"value": 100 * level, "color": "#D55E00", "dash": "dash", "width": 1}]
    return section
