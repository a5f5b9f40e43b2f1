"""A sweep in the report and in MultiQC: which trial was chosen, by what, and which failed."""

from __future__ import annotations

from typing import Any

from xmodal.reporting import figures
from xmodal.reporting.figures import LABEL_COLOURS
from xmodal.reporting.multiqc_rows import PARENT
from xmodal.reporting.report_words import number
from xmodal.reporting.selection_figure import selection as picture
from xmodal.scores.score_texts import shown, text_for

Content = dict[str, Any]


def answer(about: Content | None) -> list[str]:
    """One sentence for the top of the page."""
    if about is None:
        return []
    best, judged = about["best"], _judged(about)
    what = " ".join([best["model"], *best["settings"]])
    return [
        f"The model was chosen among {len(about['trials'])} trials: {best['name']} ({what}) scored {_three(judged[0])}."
    ]


def section(about: Content | None) -> Content | None:
    """What the template shows of a sweep; None where there was none."""
    if about is None:
        return None
    return {
        "lines": list(_lines(about)),
        "picture": figures.png(picture(about)),
        "directions": [_direction(d) for d in about["measures"]],
        "rows": [_row(t, about) for t in about["trials"]],
    }


def _lines(about: Content) -> list[str]:
    best, trials = about["best"], about["trials"]
    judged, failed = _judged(about), [t for t in trials if not t["rank"]]
    linear = about["linear"].get("score")
    beside = f", the linear control {linear:.3f}" if linear is not None else ""
    lines = [f"{best['name']} predicted the validation cells best: it scored {_three(judged[0])}{beside}."]
    if about["close"]:
        lines.append(
            f"{', '.join(about['close'])}: less than 0.002 behind. Another draw of cells could turn them round, so the "
            "faster or plainer one is as good a choice."
        )
    if failed:
        lines.append(f"{len(failed)} of {len(trials)} trials failed; the table says why.")
    lines.append(
        f"A score is the mean of {_measures(about)}, each on a scale from 0 (guessing) to 1 (perfect). Every trial learned "
        "from the training cells only, so validation cells could judge it; test cells played no part in the choice."
    )
    return lines


def _measures(about: Content) -> str:
    parts = []
    for direction, names in about["measures"].items():
        target = direction.rpartition(" -> ")[2]
        texts = [text_for(n, target).name for n in names]
        parts.append(f"{' and '.join(t[:1].lower() + t[1:] for t in texts)} ({_direction(direction)})")
    return ", and ".join(parts)


def _direction(direction: str) -> str:
    source, _, target = direction.partition(" -> ")
    return f"{shown(target)} from {shown(source)}"


def _row(trial: Content, about: Content) -> Content:
    return {
        "rank": number(trial["rank"]) if trial["rank"] else "-",
        "name": trial["name"],
        "model": trial["model"] or "-",
        "settings": " ".join(trial["settings"]) or "defaults",
        "seed": trial["seed"],
        "score": _three(trial),
        "directions": [_three(trial["directions"].get(d, {})) for d in about["measures"]],
        "note": trial["why"] if trial["rank"] else "",
        "failed": "" if trial["rank"] else trial["why"],
    }


def _judged(about: Content) -> list[Content]:
    return [t for t in about["trials"] if t["rank"]]


def _three(entry: Content) -> str:
    return f"{entry['score']:.3f}" if entry.get("score") is not None else "-"


def multiqc(about: Content | None) -> Content:
    """Bars of the scores, as MultiQC's custom content; no data where there was no sweep."""
    judged = _judged(about) if about else []
    return {
        "id": "xmodal_sweep",
        **PARENT,
        "section_name": "Trials of the sweep",
        "description": "Mean of the scores of each direction on validation cells: 0 is guessing, 1 is perfect. The best "
        "was chosen; trials that failed are in the report.",
        "plot_type": "bargraph",
        "pconfig": {
            "id": "xmodal_sweep_plot",
            "title": "xmodal: trials",
            "stacking": "group",
            "cpswitch": False,
            "sort_samples": False,
            "ylab": "score on validation cells",
            "tt_decimals": 3,
        },
        "categories": {
            _direction(d): {"name": _direction(d), "color": colour}
            for d, colour in zip(about["measures"] if about else (), LABEL_COLOURS, strict=False)
        },
        "data": {t["name"]: {_direction(d): v["score"] for d, v in t["directions"].items()} for t in judged},
    }
