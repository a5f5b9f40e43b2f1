"""``xmodal train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, common


@click.command("train", context_settings=HELP)
@click.argument("prepared", type=READABLE)
@click.option("--model", default="auto", show_default=True, help="Which model; `xmodal models` lists them.")
@click.option(
    "--fallback",
    default=None,
    metavar="MODEL",
    help="Train MODEL instead, with a warning, where there are too few cells [default: refuse].",
)
@click.option("--output-dir", type=FOLDER, required=True, help="Gets model.safetensors, history.tsv and metrics.json.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the model, repeatable; `xmodal models MODEL` lists them.",
)
@click.option("--gene-table", type=READABLE, help="Gene positions (GTF, BED or TSV) for peak-gene links by distance.")
@click.option("--links", type=READABLE, help="Peak-gene links as a TSV with columns gene, peak[, weight].")
@common
def command(
    prepared: Path,
    model: str,
    fallback: str | None,
    output_dir: Path,
    changes: tuple[str, ...],
    gene_table: Path | None,
    links: Path | None,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Train a model on PREPARED, an .h5mu that `xmodal prepare` wrote.

    A run that was stopped goes on from OUTPUT_DIR/state.safetensors where that exists.
    """
    from xmodal import devices
    from xmodal.learning.run_training import TrainRequest, run

    request = TrainRequest(model, output_dir, changes, gene_table, links, seed, threads, overwrite, fallback=fallback)
    metrics: dict[str, Any] = run(prepared, request, devices.choose(device, threads, seed))
    timing = metrics["timing"]
    click.echo(
        f"{metrics['model']}: trained in {timing['train_s']} s, {timing['peak_mib']} MiB; best epoch {metrics['best_epoch']} "
        f"of {metrics['epochs']}; {output_dir}/model.safetensors"
    )
