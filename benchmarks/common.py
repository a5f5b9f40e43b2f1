"""What the benchmarks share: where things are, calling `xmodal`, and tables between the markers of a page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REAL = Path(os.environ.get("XMODAL_REAL_DATA", HERE.parents[1] / "shared" / "data"))
XMODAL = str(Path(sys.executable).with_name("xmodal"))
SHOWN = {
    "rna": (
        "gene_pearson",
        "gene_pearson_top_hvg",
        "cell_pearson_centred",
        "label_transfer_macro",
        "gene_pearson_within_type",
        "variance_ratio_hvg",
    ),
    "atac": (
        "peak_auroc",
        "peak_auprc_over_prevalence",
        "label_transfer_macro",
        "peak_pearson_within_type",
        "cell_auroc",
    ),
}


def xmodal(*args: object) -> None:
    """Run one command of the project; CalledProcessError where it fails."""
    subprocess.run([XMODAL, *map(str, args), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def grid(first: str, columns: tuple[str, ...], rows: dict[str, dict[str, float]]) -> list[str]:
    """Lines of a Markdown table of numbers."""
    lines = [f"| {first} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    return [
        *lines,
        *(f"| {name} | " + " | ".join(f"{row[c]:.4g}" for c in columns) + " |" for name, row in rows.items()),
    ]


def between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers ``name`` of a page."""
    before, _, rest = page.read_text().partition(f"<!-- {name} -->")
    after = rest.partition(f"<!-- /{name} -->")[2]
    page.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}")


def mean_table(known: dict[str, dict[str, dict[str, float]]], shown: dict[str, str], what: str) -> str:
    """Means over ``what`` (seeds or folds), a line for each name.

    ``known``: seed or fold -> name -> score -> value; ``shown``: score -> title of its column.
    """
    names = list(dict.fromkeys(name for one in known.values() for name in one))
    lines = [f"| {what} {', '.join(known)} | " + " | ".join(shown.values()) + " |", "|---|" + "---|" * len(shown)]
    for name in names:
        rows = [one[name] for one in known.values() if name in one]
        cells = [[row[key] for row in rows if key in row] for key in shown]
        lines.append(f"| {name} | " + " | ".join(f"{sum(v) / len(v):.3f}" if v else "-" for v in cells) + " |")
    return "\n".join(lines)
