"""``xmodal markers``: the features that tell groups of cells apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli import options
from xmodal.markers.settings import MarkerSettings


@click.command("markers", context_settings=options.HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output-dir", type=options.FOLDER, required=True, help="Gets markers.tsv, markers.json and pictures.")
@options.from_settings(MarkerSettings)
@options.common
def command(file: Path, output_dir: Path, settings: MarkerSettings, **rest: Any) -> None:
    """Find the genes, peaks and proteins that mark each group of cells in FILE (.h5mu or .h5ad with counts).

    The groups are those of `xmodal embed`, or any column of obs.  Tests are on counts; where `xmodal impute` wrote a
    layer, its values only rank.  Clusters that were found in the same cells make p-values look better than they are.
    """
    from xmodal import outputs
    from xmodal.markers import run_markers

    outputs.refuse_existing(output_dir, rest["overwrite"])
    found = run_markers.run(file, settings, rest["seed"])
    about = run_markers.write(output_dir, found, rest["overwrite"])
    for line in run_markers.in_words(about):
        click.echo(line)
