"""``xmodal merge``."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.options import HELP, WRITABLE, common


@click.command("merge", context_settings=HELP)
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=WRITABLE, required=True, help="The whole prediction, .h5ad.")
@click.option("--summary", type=WRITABLE, default=None, help="Also write what was found, missing and unlike as JSON.")
@common
def command(
    parts: tuple[Path, ...],
    output: Path,
    summary: Path | None,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Join PARTS, predictions of row ranges, into the file that one run over all rows would have written."""
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json
    from xmodal.predicting.merging import merge

    for path in (output, summary):
        if path is not None:
            refuse_existing(path, overwrite)
            refuse_inputs(path, *parts)
    found = merge(list(parts), output, overwrite)
    if summary is not None:
        write_json(summary, found, overwrite)
    click.echo(f"{found['cells']} cells from {len(parts)} parts -> {output}")
