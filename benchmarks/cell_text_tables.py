"""The tables of benchmarks/cell_text.py: means with their 95 % intervals, ratios of the same splits and folds."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import HERE, between
from scipy.stats import t as student

SHOWN = {
    "heldout": ("accuracy", "macro_f1", "ece"),
    "transfer": ("accuracy", "macro_f1", "ece"),
    "unseen": ("area", "h", "seen", "unseen", "best_h", "among_unseen"),
    "reject": ("auroc",),
}
BASES = {
    "heldout": (("macro_f1", "CellTypist"), ("macro_f1", "logistic regression")),
    "transfer": (("accuracy", "CellTypist"), ("macro_f1", "CellTypist")),
    "unseen": (("area", "ridge, definitions"), ("area", "ridge, definitions and ancestors")),
    "reject": (),
}


def interval(values: Any) -> str:
    """Mean and half of the 95 % interval of Student's t."""
    x = np.asarray(values, float)
    half = student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.nan
    return f"{x.mean():.3f} ± {half:.3f}" if np.isfinite(half) else f"{x.mean():.3f}"


def of_part(part: str, runs: dict[str, Any]) -> str:
    """A row for each method, and what it amounts to beside others."""
    methods = [k for k, v in next(iter(runs.values())).items() if isinstance(v, dict)]
    columns = [c for c in SHOWN[part] if all(c in r[m] for r in runs.values() for m in methods)]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for m in methods:
        lines.append(f"| {m} | " + " | ".join(interval([r[m][c] for r in runs.values()]) for c in columns) + " |")
    said = [f"{len(runs)} runs"]
    for column, other in BASES[part]:
        if other in methods and column in columns:
            ratio = np.mean([r["scmmgpt"][column] for r in runs.values()]) / np.mean(
                [r[other][column] for r in runs.values()]
            )
            apart = interval([r["scmmgpt"][column] - r[other][column] for r in runs.values()])
            said.append(f"{column} / {other}: {ratio:.3f} (difference {apart})")
    if part == "unseen":
        said.append("AUROC of `known`, " + by_type(runs))
    if part == "reject":
        said.append(", ".join(f"{k} {v['scmmgpt']['auroc']:.2f}" for k, v in runs.items()))
        said += [
            f"{k.replace('_', ' ')}: {np.mean([r[k] for r in runs.values()]):.2f}"
            for k in ("rejected_known", "rejected_new")
        ]
    if all("seconds" in r for r in runs.values()):
        said.append(f"training {np.median([r['seconds'] for r in runs.values()]):.0f} s")
    return "\n".join([*lines, "", *(f"- {s}" for s in said)])


def by_type(runs: dict[str, Any]) -> str:
    """Mean over the types, each the mean over the folds that left it out."""
    found: dict[str, list[float]] = {}
    for run in runs.values():
        for term, value in zip(run["left out"], run["auroc"], strict=True):
            found.setdefault(term, []).append(value)
    means = {t: float(np.mean(v)) for t, v in found.items()}
    least = sorted(means, key=lambda t: means[t])[:4]
    shown = ", ".join(f"{t.removeprefix('label:')} {means[t]:.2f}" for t in least)
    every = list(means.values())
    return f"mean over {len(means)} types {np.mean(every):.3f}, median {np.median(every):.3f}; lowest: {shown}"


def of_ablations(runs: dict[str, Any]) -> str:
    titles = list(dict.fromkeys(k.split(";")[0] for k in runs))
    lines = ["| | macro_f1 | accuracy | ece | area | h | AUROC | s |", "|---|" + "---|" * 7]
    for title in titles:
        cells = [v for k, v in runs.items() if k.startswith(f"{title}; cells")]
        folds = [v for k, v in runs.items() if k.startswith(f"{title}; types")]
        values = [np.mean([r["scmmgpt"][c] for r in cells]) for c in ("macro_f1", "accuracy", "ece")]
        values += [np.mean([r["scmmgpt"][c] for r in folds]) for c in ("area", "h")]
        values += [np.mean([a for r in folds for a in r["auroc"]])]
        seconds = np.mean([r["seconds"] for r in cells])
        lines.append(f"| {title} | " + " | ".join(f"{v:.3f}" for v in values) + f" | {seconds:.0f} |")
    return "\n".join(lines)


def write(known: dict[str, Any]) -> None:
    """Rewrite the tables of benchmarks/RESULTS.md."""
    for key, runs in known.items():
        part, name = key.split(", ")
        table = of_ablations(runs) if part == "ablations" else of_part(part, runs)
        between(HERE / "RESULTS.md", f"cell_text_{part}_{name}", table)
