"""``xmodal select``: the best trial of a sweep."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.options import FOLDER, HELP, common
from xmodal.errors import UsageRefused

GIVEN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("select", context_settings=HELP)
@click.option(
    "--training",
    "trainings",
    type=GIVEN,
    multiple=True,
    help="Folder that train --trial wrote, named like the trial; repeatable.",
)
@click.option(
    "--evaluation",
    "evaluations",
    type=GIVEN,
    multiple=True,
    help="Folder that evaluate wrote of a trial's validation cells; repeatable.",
)
@click.option(
    "--expect",
    "expected",
    multiple=True,
    metavar="NAME",
    help="A trial that was started: listed as failed where it left no folder; repeatable.",
)
@click.option(
    "--metric",
    default=None,
    metavar="SCORE,...",
    help="Scores that count, each in the directions that have it; the others do not count [default: gene_pearson, "
    "cell_pearson_centred, peak_auroc, cell_auroc, label_transfer_macro].",
)
@click.option("--output-dir", type=FOLDER, required=True, help="Gets selection.tsv, .json, .png and model.safetensors.")
@common
def command(
    trainings: tuple[Path, ...],
    evaluations: tuple[Path, ...],
    expected: tuple[str, ...],
    metric: str | None,
    output_dir: Path,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Choose the best of several trials by their validation cells; test cells are never looked at.

    A trial is trained with --trial, predicted with --split valid, and evaluated.  Trials that failed are listed with the
    reason.  Ties go by name.
    """
    from xmodal import outputs
    from xmodal.scores import selection, selection_files

    if not (trainings or expected):
        raise UsageRefused("--training: give the folder of each trial")
    measures = selection.parse_measures(metric)
    outputs.refuse_existing(output_dir, overwrite)
    found = selection.select(selection_files.read(trainings, evaluations, expected), measures)
    about = selection_files.write(output_dir, found, trainings, overwrite)
    for line in selection_files.in_words(about):
        click.echo(line)
