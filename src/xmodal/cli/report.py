"""``xmodal report``: the HTML page, and the sections for MultiQC."""

from __future__ import annotations

import dataclasses
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
@click.option(
    "--overview",
    "overviews",
    multiple=True,
    metavar="NAME=DIR",
    help="A sample's name and the folder that predict --overview wrote; repeatable.",
)
@click.option(
    "--embedding",
    "embeddings",
    type=FOLDER,
    multiple=True,
    help="Folder that embed --overview wrote, named like the sample; repeatable.",
)
@click.option(
    "--markers", type=FOLDER, multiple=True, help="Folder that markers wrote, named like the sample; repeatable."
)
@click.option(
    "--annotation",
    "annotations",
    type=FOLDER,
    multiple=True,
    help="Folder that annotate --report-dir wrote, named like the sample; repeatable.",
)
@click.option(
    "--description",
    "descriptions",
    type=FOLDER,
    multiple=True,
    help="Folder that describe wrote, named like the sample; repeatable.",
)
@click.option("--generated", type=FOLDER, multiple=True, help="Folder that generate --overview wrote; repeatable.")
@click.option("--selection", type=FOLDER, help="Folder that select wrote: the trials of a sweep.")
@click.option("--output", type=options.WRITABLE, required=True, help="The HTML file (.html or .htm).")
@click.option(
    "--multiqc-dir", type=options.FOLDER, help="Also write sections for MultiQC (*_mqc.json) into this folder."
)
@click.option(
    "--plots",
    type=options.FOLDER,
    help="Also write the pictures (PNG) and main tables (TSV) of the page into this folder, for places that show no HTML.",
)
@click.option("--title", default="Cross-modal prediction", show_default=True, help="Heading of the page.")
@options.common
def command(
    output: Path, multiqc_dir: Path | None, plots: Path | None, title: str, overwrite: bool, **given: Any
) -> None:
    """Write one self-contained HTML page that says what was done and how far to trust it.

    Every part is optional, but at least one must be given.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageRefused(f"--output: {output.name} must end in .html or .htm, since the report is a web page")
    given["predictions"] = [_named("--prediction", value) for value in given["predictions"]]
    given["overviews"] = [_named("--overview", value, folder=True) for value in given["overviews"]]
    from xmodal import outputs
    from xmodal.reporting import multiqc_sections, report, report_files, report_inputs

    for place in (output, multiqc_dir, plots):
        if place is not None:
            outputs.refuse_existing(place, overwrite)
    parts = {f.name: given[f.name] for f in dataclasses.fields(report_inputs.Given)}
    inputs = report_inputs.read(report_inputs.Given(**parts))
    content = report.view(inputs, title)
    outputs.write_text(output, report.render(content), overwrite)
    # Asked above; by now the page itself may lie in these folders.
    if multiqc_dir is not None:
        multiqc_sections.write(multiqc_dir, inputs, overwrite=True)
    if plots is not None:
        report_files.write(plots, content)


def _named(option: str, value: str, folder: bool = False) -> tuple[str, Path]:
    name, sign, path = value.partition("=")
    if not (sign and name and path):
        form = "NAME=DIR, e.g. sample1=overview" if folder else "NAME=FILE.json, e.g. sample1=sample1.json"
        raise UsageRefused(f"{option}: '{value}' is not {form}")
    if not (Path(path).is_dir() if folder else Path(path).is_file()):
        raise UsageRefused(f"{option}: there is no {'folder' if folder else 'file'} '{path}'")
    return name, Path(path)
