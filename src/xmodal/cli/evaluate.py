"""``xmodal evaluate``: score predictions against the truth and against controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli import options
from xmodal.scores.evaluation_settings import EvaluationSettings


def _pairs(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not sign or not name or not path:
            raise click.BadParameter(f"'{value}' is not MODALITY=FILE, e.g. rna=predicted.h5ad")
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice; evaluate each in its own folder")
        if not Path(path).is_file():
            raise click.BadParameter(f"there is no file '{path}'")
        pairs[name] = Path(path)
    return pairs


@click.command("evaluate", context_settings=options.HELP)
@click.argument("truth", type=options.READABLE)
@click.option(
    "--prediction",
    "predictions",
    multiple=True,
    required=True,
    metavar="MODALITY=FILE",
    callback=_pairs,
    help="A prediction (.h5ad) of MODALITY; may be given once for each modality.",
)
@click.option("--output-dir", type=options.FOLDER, required=True, help="Folder for the scores, tables and pictures.")
@click.option("--checkpoint", type=options.READABLE, help="Refuse predictions that another checkpoint made.")
@click.option("--no-controls", is_flag=True, help="The same as --controls ''.")
@options.from_settings(EvaluationSettings)
@options.common
def command(
    truth: Path, predictions: dict[str, Path], output_dir: Path, settings: EvaluationSettings, **rest: Any
) -> None:
    """Score predictions of cells in TRUTH (a prepared .h5mu) against what was measured and against controls.

    The controls (mean, depth, linear) are fitted to the training cells of TRUTH.  Writes metrics.json, scores.tsv,
    features.tsv, umap.tsv and pictures.
    """
    import time

    from xmodal import outputs
    from xmodal.data import io
    from xmodal.scores import evaluation, evaluation_files

    start = time.monotonic()
    settings.control_names()
    if rest["no_controls"]:
        settings = settings.model_copy(update={"controls": ""})
    outputs.refuse_existing(output_dir, rest["overwrite"])
    files = {name: (str(path), evaluation.read_prediction(path)) for name, path in predictions.items()}
    if rest["checkpoint"] is not None:
        evaluation.require_checkpoint(rest["checkpoint"], files)
    settings = settings.model_copy(update={"cells": evaluation.scored_cells(files, settings)})
    mdata = io.read_cells(truth)
    targets = evaluation.evaluate(mdata, files, settings, rest["seed"])
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = evaluation_files.results(targets, mdata, settings, rest["seed"], timing)
    evaluation_files.write(output_dir, targets, content, rest["overwrite"])
    for line in evaluation_files.summary(content):
        click.echo(line)
