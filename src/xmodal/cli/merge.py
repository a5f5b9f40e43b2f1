"""``xmodal merge``."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.options import WRITABLE, common


@click.command("merge")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=WRITABLE, required=True, help="The whole prediction, .h5ad.")
@common
def command(parts: tuple[Path, ...], output: Path, threads: int, device: str, seed: int, overwrite: bool) -> None:
    """Join PARTS, predictions of row ranges, into the file that one run over all rows would have written."""
    from xmodal.outputs import refuse_existing
    from xmodal.predicting.merging import merge

    refuse_existing(output, overwrite)
    click.echo(f"{merge(list(parts), output, overwrite)} cells from {len(parts)} parts -> {output}")
