"""``xmodal embed``: one embedding of cells with any of a checkpoint's modalities, and their clusters."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, WRITABLE, common, from_settings, require_apart
from xmodal.embedding.settings import EmbedSettings
from xmodal.errors import UsageRefused


@click.command("embed", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option(
    "--output",
    type=WRITABLE,
    required=True,
    help="NAME.h5mu: a copy of the input with the embedding; NAME.h5ad: the embedding alone.",
)
@from_settings(EmbedSettings)
@click.option("--table", type=WRITABLE, default=None, help="Also write the embedding as a table (TSV), cell by cell.")
@click.option("--summary", type=WRITABLE, default=None, help="Also write what was found, missing and unlike as JSON.")
@click.option(
    "--overview",
    type=FOLDER,
    default=None,
    help="Also write a picture (embedding.png), tables of the cells and clusters (embedding.tsv, clusters.tsv) and the "
    "summary (embedding.json) into this folder.",
)
@common
def command(
    file: Path,
    checkpoint: Path,
    output: Path,
    settings: EmbedSettings,
    table: Path | None,
    summary: Path | None,
    overview: Path | None,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Embed the cells in FILE (.h5ad, .h5mu, .zarr or 10x .h5), whatever of the checkpoint's modalities they have.

    Cells with several modalities and cells with one get one joint embedding, a graph of neighbours, a UMAP and Leiden
    clusters.  New cells are embedded as the checkpoint stands: nothing is trained again.
    """
    if output.suffix not in (".h5ad", ".h5mu"):
        raise UsageRefused(f"--output {output}: the name must end in .h5ad or .h5mu")
    settings.given_resolution()
    require_apart({"--output": output, "--table": table, "--summary": summary}, "--overview", overview)
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    for path in (output, table, summary, overview):
        if path is not None:
            refuse_existing(path, overwrite)
    for path in (output, table, summary):
        if path is not None:
            refuse_inputs(path, file, checkpoint)
    from xmodal import devices

    where = devices.choose(device, threads, seed)
    from xmodal.embedding.run import Outputs, run

    found = run(file, checkpoint, Outputs(output, table, overview, overwrite), settings, (where, seed))
    if summary is not None:
        write_json(summary, found, overwrite)
    many = "cluster" if found["clusters"] == 1 else "clusters"
    measured = ", ".join(f"{about['cells']} with {m}" for m, about in found["modalities"].items())
    click.echo(
        f"{found['cells']} cells ({measured}) on {where}: {found['clusters']} {many} at resolution "
        f"{found['resolution']:g} -> {output}"
    )
