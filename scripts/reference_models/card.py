"""The model card: what a model was made of, what it can do, and what it must not be used for; as Markdown and HTML.

The HTML has no script and no style sheet and its picture inside, so that Galaxy shows it unchanged.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

import jinja2
import markdown

from reference_models import expected
from reference_models.recipe import Recipe
from xmodal import describe, fields, outputs
from xmodal.reporting import report_words
from xmodal.scores import score_texts, verdicts

TEMPLATE = "model_card.md.j2"
METHODS = ("prediction", "mean", "depth", "linear")
FURTHER = ("cell_pearson", "rmse_log1p", "rmse_clr", "rmse", "variance_ratio_hvg", "peak_auprc")
PICTURE = "evaluation/scores.png"


def write(folder: Path, recipe: Recipe, name: str, lacking: list[str]) -> None:
    """``model_card.md`` and ``model_card.html`` in the folder of a made model; ``lacking``: what it did not reach."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        finalize=_no_tags,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = report_words.number
    environment.filters["score"] = report_words.score
    environment.filters["plain"] = report_words.plain
    text = environment.get_template(TEMPLATE).render(**view(folder, recipe, name, lacking))
    outputs.write_text(folder / "model_card.md", text, overwrite=True)
    outputs.write_text(folder / "model_card.html", page(text, folder, recipe.title), overwrite=True)


def _no_tags(value: Any) -> str:
    """A recipe's words must not become tags; the rest of Markdown stays readable."""
    return str(value).replace("<", "&lt;")


def view(folder: Path, recipe: Recipe, name: str, lacking: list[str]) -> dict[str, Any]:
    """All that the card says."""
    training, scores, prepared, made = (
        json.loads((folder / file).read_text(encoding="utf-8"))
        for file in ("training/metrics.json", "evaluation/metrics.json", "prepared.json", "made.json")
    )
    about = describe.checkpoint(folder / fields.CHECKPOINT_FILE)
    bounds = [
        expected.in_words(target, score, bound)
        for target, of_target in recipe.expected.items()
        for score, bound in of_target.items()
    ]
    return {
        "recipe": recipe,
        "name": name,
        "lacking": lacking,
        "about": about,
        "training": training,
        "prepared": prepared,
        "made": made,
        "split": report_words.how_split(scores["split"]),
        "counts": scores["split"],
        "targets": [_target(target, content) for target, content in sorted(scores["targets"].items())],
        "expected": bounds,
        "source_of_model": describe.model(about["model"])["source"],
        "picture": PICTURE if (folder / PICTURE).is_file() else "",
        "shown": score_texts.shown,
    }


def _target(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """One table of scores and the verdict on it."""
    methods = [m for m in METHODS if m in content["methods"]]
    own = content["methods"]["prediction"]
    rows = [
        {
            "text": score_texts.text_for(score, name),
            "key": score,
            "values": [content["methods"][m].get(score) for m in methods],
        }
        for score in (*score_texts.HEADLINE, *FURTHER)
        if score in own
    ]
    verdict = verdicts.judge(name, content)
    return {
        "name": name,
        "source": content["source"],
        "cells": content["cells"],
        "features": content["features"],
        "methods": methods,
        "rows": rows,
        "verdict": verdict.headline,
        "advice": verdict.advice,
        "trust": content.get("intervals", {}).get("trust", {}),
    }


def page(text: str, folder: Path, title: str) -> str:
    """The Markdown as a page of HTML that no sanitiser changes."""
    body = markdown.markdown(text, extensions=["tables"])
    picture = folder / PICTURE
    if picture.is_file():
        inline = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
        body = body.replace(f'src="{PICTURE}"', f'src="{inline}"')
    body = body.replace("<table>", '<table border="1" cellpadding="4" cellspacing="0">')
    head = f'<meta charset="utf-8"/>\n<title>{html.escape(title)}</title>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'
