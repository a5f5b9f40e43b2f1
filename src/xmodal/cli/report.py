"""``xmodal report``: the HTML page, and the sections for MultiQC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli import options
from xmodal.errors import UsageRefused

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("report", context_settings=options.HELP)
@click.option("--training", "trainings", type=FOLDER, multiple=True, help="Folder that train wrote; repeatable.")
@click.option("--evaluation", "evaluations", type=FOLDER, multiple=True, help="Folder that evaluate wrote; repeatable.")
@click.option("--check", "checks", type=options.READABLE, multiple=True, help="JSON that check wrote; repeatable.")
@click.option(
    "--prepare", "prepares", type=options.READABLE, multiple=True, help="JSON that prepare wrote; repeatable."
)
@click.option(
    "--prediction",
    "predictions",
    multiple=True,
    metavar="NAME=FILE.json",
    help="A sample's name and what predict --summary or merge --summary wrote; repeatable.",
)
@click.option("--selection", type=FOLDER, help="Folder that select wrote: the trials of a sweep.")
@click.option("--output", type=options.WRITABLE, required=True, help="The HTML file (.html or .htm).")
@click.option(
    "--multiqc-dir", type=options.FOLDER, help="Also write sections for MultiQC (*_mqc.json) into this folder."
)
@click.option("--title", default="Cross-modal prediction", show_default=True, help="Heading of the page.")
@options.common
def command(output: Path, multiqc_dir: Path | None, title: str, overwrite: bool, **given: Any) -> None:
    """Write one self-contained HTML page that says what was done and how far to trust it.

    Every part is optional, but at least one must be given.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageRefused(f"--output: {output.name} must end in .html or .htm, since the report is a web page")
    predictions = [_named(value) for value in given["predictions"]]
    from xmodal import outputs
    from xmodal.reporting import multiqc_sections, report, report_inputs

    outputs.refuse_existing(output, overwrite)
    if multiqc_dir is not None:
        outputs.refuse_existing(multiqc_dir, overwrite)
    parts = (
        given["trainings"],
        given["evaluations"],
        given["checks"],
        given["prepares"],
        predictions,
        given["selection"],
    )
    inputs = report_inputs.read(*parts)
    outputs.write_text(output, report.render(inputs, title), overwrite)
    if multiqc_dir is not None:
        multiqc_sections.write(multiqc_dir, inputs, overwrite)


def _named(value: str) -> tuple[str, Path]:
    name, sign, path = value.partition("=")
    if not (sign and name and path):
        raise UsageRefused(f"--prediction: '{value}' is not NAME=FILE.json, e.g. sample1=sample1.json")
    if not Path(path).is_file():
        raise UsageRefused(f"--prediction: there is no file '{path}'")
    return name, Path(path)
