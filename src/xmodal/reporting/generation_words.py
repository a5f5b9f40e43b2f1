"""Words of the report about generated cells: what was asked for, what it was taken for, and how like real cells they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.fields import EXTRAPOLATING, NEAREST_COSINE, NEAREST_NAME, PROMPT, TERM, UNKNOWN
from xmodal.reporting import figures, generation_scores_figure
from xmodal.reporting.annotation_scores_words import best_of
from xmodal.reporting.report_words import number, plain
from xmodal.scores.generation_texts import METHODS, OWN, REAL, of_methods, text_of
from xmodal.scores.generation_verdicts import judge

if TYPE_CHECKING:
    from xmodal.reporting.report_inputs import Evaluation, Inputs
    from xmodal.reporting.text_inputs import Imagined

Content = dict[str, Any]
MOST_PROMPTS = 40  # rows of a table; all are in prompts.tsv
MOST_TYPES = 60
SHOWN_GENES = 8  # of each prompt
GLOSSARY = {
    "Generated cell": "Counts that a model made up for a text. No such cell was measured; it can only hold what the training "
    "cells were like.",
    "Extrapolating": "The prompt is of no type that the model was trained on: its cells are a guess between the types that are.",
}


def glossary(inputs: Inputs) -> dict[str, str]:
    """The words that only pages about generated cells use."""
    return GLOSSARY if inputs.generated or any(e.generation for e in inputs.evaluations) else {}


def answer(inputs: Inputs) -> list[str]:
    """Lines for the head of the page."""
    lines = []
    for found in inputs.generated:
        prompts = found.prompts
        guessed = int((prompts[EXTRAPOLATING] == "yes").sum()) if EXTRAPOLATING in prompts else 0
        of_prompts = f"{number(len(prompts))} prompt{'' if len(prompts) == 1 else 's'}"
        more = f"; {number(guessed)} of them {'is' if guessed == 1 else 'are'} of no type that the model was trained on"
        lines.append(
            f"{number(found.about['cells'])} cells were generated for {of_prompts} ({found.name}){more if guessed else ''}. "
            "None of these cells was measured."
        )
    for part in inputs.evaluations:
        about = part.generation
        if about:
            lines.append(
                f"{number(about.get('cells'))} generated cells of {number(len(about.get('types') or []))} types were compared "
                f"with {number(about.get('test_cells'))} real cells ({part.name})."
            )
    return lines


def scored(part: Evaluation) -> Content:
    """One evaluated file of generated cells: verdict, scores of all methods, each type, picture."""
    about = part.generation or {}
    methods = {m: v for m, v in (about.get("methods") or {}).items() if m in METHODS}
    own, names = methods.get(OWN) or {}, [m for m in METHODS if m in methods]
    return {
        "name": part.name,
        "about": about,
        "verdict": judge(about),
        "methods": {m: METHODS[m] for m in names},
        "rows": [_row(s, {m: methods[m] for m in names}) for s in of_methods(own)],
        "types": [_type(t) for t in (about.get("types") or [])[:MOST_TYPES]],
        "picture": figures.png(generation_scores_figure.scores(about)) if own else b"",
    }


def _row(score: str, methods: dict[str, dict[str, float]]) -> Content:
    """One row of the table of scores, the best marked; floors may not be the best, for some beat real cells in one score."""
    text = text_of(score)
    values = {m: v[score] for m, v in methods.items() if score in v}
    return {"key": score, "text": text, "values": values, "best": best_of(values, text.better) & {OWN, REAL}}


def _type(row: Content) -> Content:
    kept = {k: row.get(f"{k}_{OWN}") for k in ("mmd2", "variance_ratio", "r_delta")}
    real = {f"{k}_{REAL}": row.get(f"{k}_{REAL}") for k in kept}
    name, cells = str(row.get("name") or row.get("type")), {k: row.get(k) for k in ("train", "generated")}
    return {"name": name, "real": row.get("test", row.get("valid")), **cells, **kept, **real}


def section(found: Imagined) -> Content:
    """What the template shows of the cells of one run of generate."""
    prompts = found.prompts
    return {
        "name": found.name,
        "picture": found.picture,
        "alt": f"Generated cells of {', '.join(map(str, prompts[PROMPT].head(6)))} among the profiles of the training types",
        "rows": [_prompt(r) for r in prompts.head(MOST_PROMPTS).to_dict("records")],
        "more": max(0, len(prompts) - MOST_PROMPTS),
        "genes": genes(found),
    }


def _prompt(row: Content) -> Content:
    term = str(row.get(TERM) or UNKNOWN)
    guessed = row.get(EXTRAPOLATING) == "yes"
    return {
        "prompt": row[PROMPT],
        "term": "-" if term == UNKNOWN else term,
        "nearest": row[NEAREST_NAME],
        "cosine": row.get(NEAREST_COSINE),
        "cells_of": "a guess between all types" if guessed else row.get("cells_of") or "types near it",
        "guessed": guessed,
        "cells": row["cells"],
        "counts": row.get("median_counts"),
    }


def genes(found: Imagined) -> list[Content]:
    """Of each prompt the genes of which its cells have most beyond the training types, and how many times as much."""
    rows = []
    for prompt in found.prompts[PROMPT].head(MOST_PROMPTS):
        own = found.genes[found.genes[PROMPT] == prompt].head(SHOWN_GENES)
        shown = [
            {"gene": r["gene"], "times": f"{2 ** r['log2_ratio']:.1f}"}
            for r in own.to_dict("records")
            if r["log2_ratio"] > 0
        ]
        rows.append({"prompt": prompt, "genes": shown})
    return [row for row in rows if row["genes"]]


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """Notes of scores, and prompts that are guesses."""
    rows = []
    for part in inputs.evaluations:
        notes = (part.generation or {}).get("notes") or []
        rows += [{"where": f"{part.name}, generated cells", "what": str(n), "level": "warning"} for n in notes]
    for found in inputs.generated:
        for row in section(found)["rows"]:
            if row["guessed"]:
                what = f"'{row['prompt']}' is of no type that the model was trained on; nearest: {row['nearest']}"
                rows.append({"where": f"{found.name}, generated cells", "what": what, "level": "warning"})
    return rows


def provenance(inputs: Inputs) -> list[tuple[str, str]]:
    """Models and fingerprints."""
    rows = []
    for part in inputs.evaluations:
        said = (part.generation or {}).get("provenance") or {}
        rows += [(f"{part.name}, generated cells: {k.replace('_', ' ')}", plain(v)) for k, v in said.items() if v]
    for found in inputs.generated:
        said = {
            "model": found.about.get("model"),
            "checkpoint SHA-256": found.about.get("checkpoint_sha256"),
            "seed": found.about.get("seed"),
        }
        rows += [(f"generated {found.name}: {k}", plain(v)) for k, v in said.items() if v is not None]
    return rows
