"""The HTML report: one static page that needs no script, no network and no second file."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodal import __version__
from xmodal.reporting import (
    annotation_scores_words,
    annotation_words,
    description_words,
    figures,
    generation_words,
    joint_words,
    markers_words,
    novelty_figure,
    overview_words,
    prediction_words,
    reliability_words,
    report_words,
    robustness_words,
    selection_words,
)
from xmodal.reporting.reliability_figure import reliability
from xmodal.scores.score_texts import HEADLINE, better, shown, text_for
from xmodal.scores.verdicts import judge

if TYPE_CHECKING:
    import pandas as pd

    from xmodal.reporting.report_inputs import Evaluation, Inputs, Training

METHODS = ("prediction", "mean", "depth", "linear")
SHOWN = 10  # best and worst features in a table
ENOUGH = 20  # cells with the feature, below which its score is luck


def render(content: dict[str, Any]) -> str:
    """The page as text; ``content`` is a :func:`view`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xmodal.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=report_words.number,
        score=report_words.score,
        plain=report_words.plain,
        shown=shown,
        inline=inline,
        capitalised=report_words.capitalised,
        percent=joint_words.percent,
    )
    # As a link: servers that drop unknown tags (old Galaxy) leave the text of a <style> on the page.
    style = (resources.files("xmodal.reporting") / "templates" / "report.css").read_bytes()
    return environment.get_template("report.html.j2").render(style=style, **content)


def view(inputs: Inputs, title: str) -> dict[str, Any]:
    """All that the template shows, as plain values; pictures as the bytes of a PNG, empty where there is none."""
    results = [result(e, name) for e in inputs.evaluations for name in e.targets]
    return {
        "title": title,
        "version": __version__,
        "results": results,
        "trainings": [training(t) for t in inputs.trainings],
        "answer": report_words.answer(inputs, [r["verdict"] for r in results])
        + selection_words.answer(inputs.selection)
        + prediction_words.answer(inputs)
        + joint_words.answer(inputs)
        + annotation_words.answer(inputs)
        + description_words.answer(inputs)
        + generation_words.answer(inputs)
        + robustness_words.answer(inputs),
        "sweep": selection_words.section(inputs.selection),
        "missing": report_words.missing(inputs)
        + prediction_words.missing(inputs)
        + joint_words.missing(inputs)
        + annotation_words.missing(inputs)
        + description_words.missing(inputs)
        + generation_words.missing(inputs),
        "predictions": prediction_words.rows(inputs),
        "unlikeness": unlikeness(inputs),
        "overviews": [overview_words.section(o) for o in inputs.overviews],
        "joints": [joint_words.scored(e) for e in inputs.evaluations if e.embedding],
        "embedded": [joint_words.embedded(e) for e in inputs.embeddings],
        "marked": [markers_words.section(m) for m in inputs.markers],
        "named": [annotation_words.section(a) for a in inputs.annotations],
        "namings": [annotation_scores_words.scored(e) for e in inputs.evaluations if e.annotation],
        "worded": [description_words.scored(e) for e in inputs.evaluations if e.description],
        "told": [description_words.section(d) for d in inputs.descriptions],
        "imitations": [generation_words.scored(e) for e in inputs.evaluations if e.generation],
        "bearings": [robustness_words.scored(e) for e in inputs.evaluations if e.robustness],
        "imagined": [generation_words.section(g) for g in inputs.generated],
        "simulated": prediction_words.simulated(inputs),
        "checks": [{"name": n, **report_words.check(c)} for n, c in inputs.checks],
        "prepares": [{"name": n, **report_words.prepared(c)} for n, c in inputs.prepares],
        "provenance": report_words.provenance(inputs)
        + joint_words.provenance(inputs)
        + annotation_words.provenance(inputs)
        + description_words.provenance(inputs)
        + generation_words.provenance(inputs),
        "glossary": report_words.GLOSSARY
        | joint_words.glossary(inputs)
        | annotation_words.glossary(inputs)
        | generation_words.glossary(inputs),
        "methods": report_words.METHOD_TEXT,
    }


def unlikeness(inputs: Inputs) -> bytes:
    """The picture of how unlike the training cells the predicted cells are; nothing where no summary says."""
    figure = novelty_figure.unlikeness(inputs.predictions)
    return figures.png(figure) if figure is not None else b""


def training(part: Training) -> dict[str, Any]:
    """One training: facts in words, settings, and the learning curves."""
    losses = {"train_loss", "valid_loss"} & set(part.history.columns)
    curve = b""
    if len(part.history) > 1 and losses:
        curve = figures.png(figures.learning(part.history, int(part.metrics.get("best_epoch") or 0)))
    found = report_words.training(part)
    found["facts"] |= reliability_words.of_training(part.metrics)
    return {"name": part.name, "curve": curve, **found}


def result(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """One target of one evaluation: verdict, scores, features and pictures."""
    target = evaluation.targets[name]
    features, points = _part(evaluation.features, name), _part(evaluation.umap, name)
    methods = [m for m in METHODS if m in target.get("methods", {})]
    return {
        "id": f"{evaluation.name}-{name}",
        "name": name,
        "sample": evaluation.name,
        "target": target,
        "verdict": judge(name, target),
        "methods": methods,
        "headline": list(score_rows(name, target, methods, HEADLINE)),
        "further": list(score_rows(name, target, methods, None)),
        "bars": figures.png(figures.scores({name: target})) if methods else b"",
        "curves": figures.png(figures.feature_scores(features)) if len(features) else b"",
        "umap": figures.png(figures.profiles(points)) if len(points) else b"",
        "labelled": bool(target.get("label_key")),
        "trust": trust(evaluation, name),
        **best_and_worst(features),
    }


def trust(evaluation: Evaluation, name: str) -> dict[str, Any] | None:
    """Which features can be trusted, and do the intervals hold; None where the prediction does not say."""
    target, table = evaluation.targets[name], _part(evaluation.reliability, name)
    found = reliability_words.section(name, target.get("intervals") or {}, table)
    if found is None:
        return None
    return {**found, "picture": figures.png(reliability(target, table)) if len(table) else b""}


def _part(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["target"] == name] if "target" in table else table.iloc[:0]


def score_rows(
    modality: str, target: dict[str, Any], methods: list[str], only: tuple[str, ...] | None
) -> Iterator[dict[str, Any]]:
    """Rows of the table of scores: those named in ``only``, or all others."""
    values = target.get("methods", {})
    known = values.get("prediction", {})
    names = [s for s in only if s in known] if only else [s for s in sorted(known) if s not in HEADLINE]
    for name in names:
        own = {m: values[m][name] for m in methods if name in values[m]}
        text = text_for(name, modality)
        best = None
        if text.better in ("higher", "lower") and len(own) > 1:
            best = next(iter(own.values()))
            for value in own.values():
                best = value if better(name, value, best) else best
        yield {"key": name, "text": text, "values": own, "best": {m for m, v in own.items() if v == best}}


def best_and_worst(features: pd.DataFrame) -> dict[str, Any]:
    """Tables of the best and worst predicted features, and how often the prediction beats each control."""
    empty: dict[str, Any] = {
        "best_features": [],
        "worst_features": [],
        "feature_score": None,
        "feature_wins": [],
        "scored": 0,
    }
    if not len(features) or "prediction" not in features:
        return empty
    name = str(features["score"].iloc[0])
    table = features[(features["score"] == name) & features["prediction"].notna()]
    seen = table[table["n_nonzero"] >= ENOUGH]
    seen = (seen if len(seen) > 2 * SHOWN else table).sort_values(["prediction", "feature"], ascending=[False, True])
    wins = [(m, float(np.mean(table["prediction"] > table[m]))) for m in METHODS[1:] if m in table and len(table)]
    return {
        "feature_score": text_for(name, str(features["target"].iloc[0])),
        "best_features": seen.head(SHOWN).to_dict("records"),
        "worst_features": seen.tail(min(SHOWN, max(0, len(seen) - SHOWN))).iloc[::-1].to_dict("records"),
        "feature_wins": wins,
        "scored": len(table),
    }


def inline(content: bytes, kind: str = "image/png") -> str:
    """A picture or a style sheet as the value of ``src`` or ``href``."""
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")
