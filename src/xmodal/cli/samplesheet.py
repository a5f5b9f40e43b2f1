"""``xmodal samplesheet``: the pipeline's samplesheet from a folder of results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli import options
from xmodal.errors import UsageRefused

if TYPE_CHECKING:
    from xmodal.data.sheets import Row

log = logging.getLogger(__name__)
SHOWN = 20  # samples that are told one by one


@click.command("samplesheet", context_settings=options.HELP)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=options.WRITABLE,
    default=Path("samplesheet.csv"),
    show_default=True,
    help="The samplesheet; paths below its folder are written relative to it.",
)
@click.option(
    "--role",
    type=click.Choice(["train", "predict", "both"]),
    help="Role of all samples [default: train with two modalities and no --checkpoint, else predict].",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A model.safetensors for the column checkpoint.")
@options.common
def command(folder: Path, output: Path, role: str | None, checkpoint: Path | None, overwrite: bool, **_: Any) -> None:
    """Write the samplesheet for what is found in DIR.

    DIR: results of nf-core/scrnaseq, of Cell Ranger (count, multi, ATAC, ARC), or a folder of h5ad and h5mu files.
    Filtered matrices are preferred to raw ones; what was left out, and why, goes to stderr.
    """
    if output.suffix != ".csv":
        raise UsageRefused(f"--output {output}: the name must end in .csv")
    if checkpoint and role == "train":
        raise UsageRefused(
            "--checkpoint belongs to samples to predict for. What to do: give --role predict, or leave it out"
        )
    from xmodal import outputs
    from xmodal.data import sheets

    outputs.refuse_existing(output, overwrite)
    directions = _directions(checkpoint)
    found = sheets.find(folder)
    if directions:
        found = sheets.only_from(found, {source for source, _ in directions})
    rows = sheets.with_roles(found.rows, role, checkpoint)
    outputs.write_text(output, sheets.as_text(rows, output), overwrite)
    _say(rows)
    if found.left:
        log.info("left out: %s", sheets.in_words(found.left, folder.absolute()))
    log.info("%s: %d sample%s", output, len(rows), "s" if len(rows) > 1 else "")


def _directions(checkpoint: Path | None) -> list[tuple[str, str]]:
    if checkpoint is None:
        return []
    from xmodal.learning.checkpoint import read_header

    return [(source, target) for source, target in read_header(checkpoint)["directions"]]


def _say(rows: list[Row]) -> None:
    for row in rows[:SHOWN]:
        files = ", ".join(f"{column} {path.name}" for column, path in row.files.items())
        log.info("%s (%s): %s; holds %s", row.sample, row.role, files, ", ".join(row.holds))
    if len(rows) > SHOWN:
        log.info("... and %d more samples", len(rows) - SHOWN)
    if any("fragments" in row.files and row.role != "predict" for row in rows):
        log.warning("fragments to learn from are counted over peaks: give the pipeline --peaks")
    if not any(row.role != "predict" or row.checkpoint for row in rows):
        log.warning("all samples are to be predicted for: give the pipeline a model (--checkpoint)")
