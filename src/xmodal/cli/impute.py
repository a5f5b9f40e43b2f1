"""``xmodal impute``: denoised values of what was measured."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.options import HELP, READABLE, WRITABLE, common, from_settings
from xmodal.embedding.settings import ImputeSettings
from xmodal.errors import UsageRefused


@click.command("impute", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option(
    "--output",
    type=WRITABLE,
    required=True,
    help="NAME.h5mu: a copy of the input with the layer xmodal_imputed; NAME.h5ad: one modality's imputed values alone.",
)
@from_settings(ImputeSettings)
@click.option("--summary", type=WRITABLE, default=None, help="Also write what was found, missing and unlike as JSON.")
@common
def command(
    file: Path,
    checkpoint: Path,
    output: Path,
    settings: ImputeSettings,
    summary: Path | None,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Write denoised values of the modalities that the cells in FILE (.h5ad, .h5mu, .zarr or 10x .h5) have.

    Each value is what the model expects of the cell, from everything that was measured of it.  A modality that a cell lacks
    is the work of xmodal predict.
    """
    if output.suffix not in (".h5ad", ".h5mu"):
        raise UsageRefused(f"--output {output}: the name must end in .h5ad or .h5mu")
    if output.suffix == ".h5ad" and len(settings.modality) != 1:
        raise UsageRefused(f"--output {output}: an .h5ad holds one modality; give exactly one --modality, or an .h5mu")
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    for path in (output, summary):
        if path is not None:
            refuse_existing(path, overwrite)
            refuse_inputs(path, file, checkpoint)
    from xmodal import devices

    where = devices.choose(device, threads, seed)
    from xmodal.embedding.imputation import run

    found = run(file, checkpoint, output, settings, (where, seed, overwrite))
    if summary is not None:
        write_json(summary, found, overwrite)
    done = ", ".join(
        f"{m}: {about['cells']} cells x {about['features']} features" for m, about in found["imputed"].items()
    )
    click.echo(f"imputed {done} on {where} -> {output}")
