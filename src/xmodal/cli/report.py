"""``xmodal report``: the HTML page, and the sections for MultiQC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli import options

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("report", context_settings=options.HELP)
@click.option("--training", "trainings", type=FOLDER, multiple=True, help="Folder that train wrote; repeatable.")
@click.option("--evaluation", "evaluations", type=FOLDER, multiple=True, help="Folder that evaluate wrote; repeatable.")
@click.option("--check", "checks", type=options.READABLE, multiple=True, help="JSON that check wrote; repeatable.")
@click.option(
    "--prepare", "prepares", type=options.READABLE, multiple=True, help="JSON that prepare wrote; repeatable."
)
@click.option("--output", type=options.WRITABLE, required=True, help="The HTML file.")
@click.option(
    "--multiqc-dir", type=options.FOLDER, help="Also write sections for MultiQC (*_mqc.json) into this folder."
)
@click.option("--title", default="Cross-modal prediction", show_default=True, help="Heading of the page.")
@options.common
def command(output: Path, multiqc_dir: Path | None, title: str, overwrite: bool, **given: Any) -> None:
    """Write one self-contained HTML page that says what was done and how far to trust it.

    Every part is optional, but at least one must be given.
    """
    from xmodal import outputs
    from xmodal.reporting import multiqc_sections, report, report_inputs

    outputs.refuse_existing(output, overwrite)
    if multiqc_dir is not None:
        outputs.refuse_existing(multiqc_dir, overwrite)
    parts = (given["trainings"], given["evaluations"], given["checks"], given["prepares"])
    inputs = report_inputs.read(*parts)
    outputs.write_text(output, report.render(inputs, title), overwrite)
    if multiqc_dir is not None:
        multiqc_sections.write(multiqc_dir, inputs, overwrite)
