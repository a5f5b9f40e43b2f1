"""``xmodal pretrain``: the cell encoder learns from cells without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, common


@click.command("pretrain", context_settings=HELP)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--output-dir", type=FOLDER, required=True, help="Gets pretrained.safetensors, history.tsv and metrics.json."
)
@click.option(
    "--model",
    default=None,
    metavar="MODEL",
    help="Pretrain the encoders and decoders of MODEL (contrastive, mfm, ...), each on its own modality of prepared .h5mu files "
    "[default: the cell encoder `builtin` of scmmgpt].",
)
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    metavar="NAME",
    help="With --model: pretrain on this modality only, repeatable [default: all that the files have].",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the encoder or of pretraining, repeatable; docs/pretrain.md lists them.",
)
@click.option(
    "--genes",
    type=READABLE,
    help="The genes to learn, a text file with one name a line [default: all genes of all files].",
)
@click.option("--gene-table", type=READABLE, help="Symbols of Ensembl ids (GTF, or TSV), for files without symbols.")
@click.option(
    "--layer", default=None, metavar="NAME", help="Layer with the raw counts ('raw': .raw), where X has none."
)
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Keep the state after the first round that ends SECONDS after the last was kept; 0: after each [default: as "
    "often as costs a 20th of the time].",
)
@common
def command(
    files: tuple[Path, ...],
    output_dir: Path,
    model: str | None,
    modalities: tuple[str, ...],
    changes: tuple[str, ...],
    genes: Path | None,
    gene_table: Path | None,
    layer: str | None,
    save_every: float | None,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Pretrain the cell encoder `builtin` on the RNA counts of every FILE (.h5ad, .h5mu or 10x .h5), without labels; or, with
    --model, the encoders of single modalities on prepared files (.h5mu), whose cells need no second modality.

    Of RNA counts files are read piece by piece, so their number and size need no memory.  A run that was stopped goes on from
    OUTPUT_DIR/state.safetensors, to the same weights.  Use the result with `xmodal train --init
    OUTPUT_DIR/pretrained.safetensors` and `--model scmmgpt --set cell_model=builtin`, or the same --model.
    """
    from xmodal import devices
    from xmodal.errors import UsageRefused

    if model is not None:
        for option, value in (("--genes", genes), ("--gene-table", gene_table), ("--layer", layer)):
            if value is not None:
                raise UsageRefused(f"{option}: with --model files are prepared ones, whose features are settled")
        single = (model, output_dir, modalities, changes, seed, threads, overwrite, save_every)
        _single(files, single, device)
        return
    if modalities:
        raise UsageRefused("--modality goes with --model; without it the RNA counts are learned")
    from xmodal.pretraining.run_pretraining import PretrainRequest, run

    request = PretrainRequest(
        output_dir=output_dir,
        changes=changes,
        genes=genes,
        gene_table=gene_table,
        layer=layer,
        seed=seed,
        threads=threads,
        overwrite=overwrite,
        save_every=save_every,
    )
    chosen = devices.choose(device, threads, seed)
    metrics = run(files, request, chosen)
    cells, losses, timing = metrics["cells"], metrics["losses"], metrics["timing"]
    click.echo(
        f"pretrained on {cells['train']} cells and {metrics['genes']} genes of {metrics['files']} files in "
        f"{timing['train_s']} s ({timing['cells_per_s']} cells/s, {timing['peak_mib']} MiB) on {chosen}; loss "
        f"{losses['last']:.4f}, of the mean profile {losses['mean_profile']:.4f}; {output_dir}/pretrained.safetensors"
    )


def _single(files: tuple[Path, ...], asked: tuple[Any, ...], device: str) -> None:
    """With --model; ``asked``: the fields of the request, in order."""
    from xmodal import devices
    from xmodal.pretraining.run_single import SingleRequest, run

    request = SingleRequest(*asked)
    chosen = devices.choose(device, request.threads, request.seed)
    metrics = run(files, request, chosen)
    timing = metrics["timing"]
    click.echo(
        f"{metrics['model']}: pretrained on {metrics['cells']['train']} cells of {metrics['files']} files in "
        f"{timing['train_s']} s ({timing['peak_mib']} MiB) on {chosen}; {request.output_dir}/pretrained.safetensors"
    )
    for m, about in metrics["modalities"].items():
        first, last = (f"{value:.4f}" if value is not None else "none" for value in about["losses"].values())
        click.echo(f"{m}: {about['cells']['train']} cells, {about['features']} features, loss {first} -> {last}")
