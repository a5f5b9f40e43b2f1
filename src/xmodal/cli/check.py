"""``xmodal check``: what is in a file, and whether it fits the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli import options
from xmodal.errors import UsageRefused


@click.command("check", context_settings=options.HELP)
@click.argument("files", nargs=-1, required=True, metavar="[NAME=]FILE...")
@click.option("--json", "json_path", type=options.WRITABLE, help="Also write the answer as JSON.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A model: can it predict from these cells?")
@click.option("--likelihood", multiple=True, metavar="NAME=KIND", help="As in prepare: nb, bernoulli or gaussian.")
@click.option("--layer", help="As in prepare: the layer that holds the raw counts.")
@options.common
def command(
    files: tuple[str, ...],
    json_path: Path | None,
    checkpoint: Path | None,
    likelihood: tuple[str, ...],
    layer: str | None,
    overwrite: bool,
    **_: Any,
) -> None:
    """Say what is in h5ad, h5mu or 10x h5 files and what they can be used for.

    Files of different modalities are taken as one sample.  NAME=FILE says which modality an h5ad or a table (CSV, TSV) holds.
    Without --checkpoint the job is training, with it prediction.  Exit code 3 where there are errors.
    """
    from xmodal import outputs
    from xmodal.data import checking, contracts
    from xmodal.data.prepare_settings import parse_likelihoods

    if json_path:
        outputs.refuse_existing(json_path, overwrite)
    named = [_named(file) for file in files]
    result = checking.check(named, parse_likelihoods(likelihood), layer, checkpoint)
    click.echo(checking.in_words(result))
    if json_path:
        outputs.write_json(json_path, result.as_dict(), overwrite)
    contracts.require(f for f in result.findings if f.level == "error")


def _named(file: str) -> tuple[str | None, Path]:
    name, equals, path = file.partition("=")
    if not equals or Path(file).exists():
        return None, Path(file)
    if not name or not path:
        raise UsageRefused(f"{file}: give NAME=FILE")
    return name, Path(path)
