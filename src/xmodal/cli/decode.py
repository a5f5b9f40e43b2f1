"""``xmodal decode``."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, STORE, WRITABLE, common
from xmodal.cli.written import in_words, refuse_unfit, require_name, which_values


@click.command("decode", context_settings=HELP)
@click.argument("latent", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that made the latent.")
@click.option("--output", type=STORE, required=True, help="NAME.h5ad or NAME.zarr: the prediction.")
@which_values
@click.option("--summary", type=WRITABLE, default=None, help="Also write what was found, missing and unlike as JSON.")
@click.option(
    "--overview",
    type=FOLDER,
    default=None,
    help="Also write a picture (prediction.png) and tables of the cells and features (cells.tsv, features.tsv) into this "
    "folder.",
)
@common
def command(
    latent: Path,
    checkpoint: Path,
    output: Path,
    interval: float,
    features: tuple[str, ...],
    top: int | None,
    threshold: float | None,
    max_size: float,
    summary: Path | None,
    overview: Path | None,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Predict from LATENT, which `xmodal predict --output-kind latent` wrote: the values that predict would have written."""
    require_name(output, (".h5ad", ".zarr"))
    refuse_unfit(output, top, threshold, interval)
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    for path in (output, summary):
        if path is not None:
            refuse_existing(path, overwrite)
            refuse_inputs(path, latent, checkpoint)
    if overview is not None:
        refuse_existing(overview, overwrite)
    from xmodal import devices

    where = devices.choose(device, threads, seed)
    from xmodal.predicting.prediction import Request
    from xmodal.predicting.prediction import summary as prediction_summary
    from xmodal.predicting.run_decoding import run

    request = Request(
        "", interval=interval, features=features, top=top, threshold=threshold, max_size=max_size
    )  # the latent says what was to be predicted
    many, about = run(latent, checkpoint, output, request, (where, seed, overwrite), overview)
    found = prediction_summary(about, many)
    if summary is not None:
        write_json(summary, found, overwrite)
    cells = about.get("rows", f"all {found['cells']}")
    click.echo(f"{found['target']} from {found['source']}: {cells} cells x {in_words(found)} on {where} -> {output}")
