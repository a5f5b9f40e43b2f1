"""Tables and plots of what `peers.py` measured."""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import median
from typing import Any

from common import SHOWN
from peer_methods import Method

log = logging.getLogger("benchmark")
REFERENCES = ("pls10", "linear")  # ratios are to PLS-10 in the same run; where no peer ran, `linear` is the same method
SCORES = {**SHOWN, "protein": SHOWN["rna"]}
CHANCE = {"peak_auroc": 0.5, "cell_auroc": 0.5}  # ratios are of what is above chance
WORDS = {
    "gene_pearson": "per-feature r",
    "gene_pearson_top_hvg": "r of 200 most variable",
    "cell_pearson_centred": "centred cell r",
    "label_transfer_macro": "label transfer",
    "gene_pearson_within_type": "within-type r",
    "variance_ratio_hvg": "variance ratio",
    "peak_auroc": "peak AUROC",
    "peak_auprc_over_prevalence": "AUPRC / prevalence",
    "peak_pearson_within_type": "within-type peak r",
    "cell_auroc": "cell AUROC",
}
TIMES = {"train_s": "train s", "predict_s": "predict s", "wall_s": "all s", "peak_mib": "peak MiB"}
README_ROWS = ("mean", "depth", "pls10", "ridge", "knn", "label_transfer", "multivi_lr1e-3", "crossmp", "auto")
README_SCORES = (("rna", SHOWN["rna"][:4]), ("atac", SHOWN["atac"][:3]))
README_WORDS = {
    "gene_pearson": "per-gene r",
    "gene_pearson_top_hvg": "200 top genes r",
    "label_transfer_macro": "type recognised",
    "peak_auroc": "per-peak AUROC",
    "peak_auprc_over_prevalence": "AUPRC / chance",
}
Runs = dict[str, list[dict[str, Any]]]
Interval = tuple[float, float, float]


def finished(found: dict[str, Any]) -> Runs:
    """The runs with scores of each method, on the newest cells only."""
    digest = found["about"]["digest"]
    return {
        m: [seeds[s] for s in sorted(seeds, key=int) if "targets" in seeds[s] and seeds[s]["digest"] == digest]
        for m, seeds in found["methods"].items()
    }


def interval(runs: list[dict[str, Any]], target: str, score: str) -> Interval | None:
    """(median, least, most) over seeds; None where it was not scored."""
    values = [r["targets"][target][score] for r in runs if score in r["targets"].get(target, {})]
    return (median(values), min(values), max(values)) if values else None


def text(found: Interval | None) -> str:
    if found is None:
        return "-"
    middle, least, most = (f"{v:.3f}" if abs(v) < 100 else f"{v:.0f}" for v in found)
    return middle if least == most else f"{middle} [{least}, {most}]"


def ratio(own: Interval | None, base: Interval | None, score: str) -> str:
    chance = CHANCE.get(score, 0.0)
    if own is None or base is None or abs(base[0] - chance) < 1e-9:
        return "-"
    return f"{(own[0] - chance) / (base[0] - chance):.2f}"


def reference(runs: Runs) -> list[dict[str, Any]]:
    return next((runs[m] for m in REFERENCES if runs.get(m)), [])


def shown_scores(runs: Runs, target: str) -> list[str]:
    """Scores that at least one method has."""
    return [s for s in SCORES[target] if any(interval(r, target, s) for r in runs.values())]


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def target_tables(runs: Runs, target: str, source: str, methods: dict[str, Method]) -> list[str]:
    """Scores, and ratios to the reference, of one direction."""
    scores = shown_scores(runs, target)
    rows = [m for m in methods if any(target in r["targets"] for r in runs.get(m, []))]
    if not rows:
        return []
    words = [WORDS[s] for s in scores]
    label = "protein" if target == "protein" else target.upper()
    given = "protein" if source == "protein" else source.upper()
    values = [
        [methods[m].shown, str(len(runs[m])), *(text(interval(runs[m], target, s)) for s in scores)] for m in rows
    ]
    lines = [f"**{given} -> {label}**: median [least, most] over seeds", "", *table(["method", "runs", *words], values)]
    base = reference(runs)
    if not base:
        return lines
    ratios = [
        [methods[m].shown] + [ratio(interval(runs[m], target, s), interval(base, target, s), s) for s in scores]
        for m in rows
    ]
    return [*lines, "Ratios to PLS-10 (AUROC: of what is above .5)", "", *table(["method", *words], ratios)]


def cost_table(runs: Runs, methods: dict[str, Method]) -> list[str]:
    rows = []
    for m, method in methods.items():
        if got := runs.get(m):
            numbers = [median(r.get(k, 0.0) for r in got) for k in TIMES]
            threads = ", ".join(sorted({str(r["threads"]) for r in got}))
            rows.append([method.shown, threads, *(f"{n:.0f}" if n >= 10 else f"{n:.1f}" for n in numbers)])
    return table(["method", "threads", *TIMES.values()], rows)


def notes(found: dict[str, Any], runs: Runs, methods: dict[str, Method], name: str) -> list[str]:
    """What a reader must know of a row, and why others are not there."""
    lines = []
    for m, method in methods.items():
        if name not in method.sets:
            continue
        if runs.get(m):
            if chosen := list(dict.fromkeys(_said(r["chosen"]) for r in runs[m] if r.get("chosen"))):
                lines.append(f"- {method.shown}: chosen {'; '.join(chosen)}. {method.note}".rstrip())
            elif method.note:
                lines.append(f"- {method.shown}: {method.note}")
            continue
        seeds = found["methods"].get(m, {})
        why = next((e["skipped"] for e in seeds.values() if "skipped" in e), method.unavailable or "it was not run")
        lines.append(f"- {method.shown}: skipped, because {why}")
    return lines


def _said(chosen: dict[str, Any]) -> str:
    parts = []
    for k, v in chosen.items():
        parts.append(f"{k} ({_said(v)})" if isinstance(v, dict) else f"{k} {v}")
    return ", ".join(parts)


def markdown(found: dict[str, Any], sets: dict[str, dict[str, Any]], methods: dict[str, Method]) -> str:
    """The section of RESULTS.md."""
    parts = []
    for name, about in sets.items():
        if name not in found or "about" not in found[name]:
            parts.append(f"### {about['title']}\n\nSkipped, because it was not measured or its cells are not there.\n")
            continue
        runs, cells = finished(found[name]), found[name]["about"]
        counts = "{train} training, {valid} validation, {test} test cells".format(**cells["cells"])
        features = ", ".join(f"{n} {m} features" for m, n in sorted(cells["features"].items()))
        lines = [f"### {about['title']}", "", f"{counts}; {features}.", ""]
        for target, source in (("rna", about["second"]), (about["second"], "rna")):
            lines += target_tables(runs, target, source, methods)
        lines += [*cost_table(runs, methods), *notes(found[name], runs, methods, name), ""]
        if (Path(__file__).parent / "results" / f"peers_{name}.png").exists() or runs:
            lines.append(f"![{about['title']}](results/peers_{name}.png)\n")
        parts.append("\n".join(lines))
    return "\n".join(parts).rstrip("\n")


def readme(found: dict[str, Any], methods: dict[str, Method]) -> str:
    """The README's table: medians on the cortex, both directions beside each other; "" before the default model is measured."""
    runs = finished(found["cortex"]) if "about" in found.get("cortex", {}) else {}
    if not runs.get("auto"):
        return ""
    arrows = {"rna": "ATAC -> RNA", "atac": "RNA -> ATAC"}
    columns = [(t, score) for t, scores in README_SCORES for score in scores]
    rows = []
    for m in README_ROWS:
        if runs.get(m):
            values = [interval(runs[m], t, score) for t, score in columns]
            name = methods[m].shown if methods[m].script else f"`{m}`"
            rows.append([name, *("-" if v is None else f"{v[0]:.3f}" for v in values)])
    heads = [f"{arrows[t]}: {README_WORDS.get(score, WORDS[score])}" for t, score in columns]
    return "\n".join(table(["", *heads], rows)).rstrip("\n")


def plots(found: dict[str, Any], sets: dict[str, dict[str, Any]], methods: dict[str, Method], folder: Path) -> None:
    """peers_SET.png: one panel for each score, one row for each method, the interval over seeds as a line."""
    for name, about in sets.items():
        if name in found and "about" in found[name]:
            runs = {m: r for m, r in finished(found[name]).items() if r and m in methods}
            if runs:
                _plot(runs, about, methods, folder / f"peers_{name}.png")


def _plot(runs: Runs, about: dict[str, Any], methods: dict[str, Method], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    targets = [t for t in ("rna", about["second"]) if any(t in r["targets"] for v in runs.values() for r in v)]
    widest = max(len(shown_scores(runs, t)) for t in targets)
    order = [m for m in methods if m in runs]
    size = (2.3 * widest + 1.6, (0.27 * len(order) + 1.1) * len(targets) + 0.4)
    figure, axes = plt.subplots(len(targets), widest, figsize=size, squeeze=False, layout="constrained")
    for row, target in zip(axes, targets, strict=True):
        scores = shown_scores(runs, target)
        for axis, score in zip(row, scores, strict=False):
            _panel(axis, runs, order, (target, score), methods)
        for axis in row[len(scores) :]:
            axis.set_axis_off()
        for axis in row[1:]:
            axis.set_yticklabels([])
        source = about["second"] if target == "rna" else "rna"
        row[0].set_ylabel(f"{source} → {target}", fontsize=9)
    figure.suptitle(about["title"], fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _panel(axis: Any, runs: Runs, order: list[str], what: tuple[str, str], methods: dict[str, Method]) -> None:
    target, score = what
    if score == "variance_ratio_hvg":
        axis.set_xscale("symlog", linthresh=0.05)  # gene activity is far off
    for y, m in enumerate(order):
        got = interval(runs[m], target, score)
        if got is None:
            continue
        colour = "#b2182b" if m == "auto" else "#2166ac" if methods[m].model else "#555555"
        axis.plot(got[1:], [y, y], color=colour, lw=2, alpha=0.5)
        axis.plot(got[0], y, "o", color=colour, ms=5)
    base = interval(reference(runs), target, score)
    if base:
        axis.axvline(base[0], color="#999999", lw=0.8, ls=":")
    axis.set_yticks(range(len(order)), [methods[m].shown for m in order], fontsize=7)
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_title(WORDS[score], fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", lw=0.3)
