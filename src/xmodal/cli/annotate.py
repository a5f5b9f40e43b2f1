"""``xmodal annotate``: what each cell is called, how sure that is, and by which genes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.annotating.settings import AnnotateSettings
from xmodal.cli.options import FOLDER, HELP, READABLE, WRITABLE, common, from_settings, require_apart
from xmodal.data.on_disk_settings import ALWAYS
from xmodal.errors import UsageRefused


@click.command("annotate", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option(
    "--output", type=WRITABLE, required=True, help="NAME.h5ad or NAME.h5mu: the cells with their labels in obs."
)
@from_settings(AnnotateSettings)
@click.option(
    "--ontology",
    type=READABLE,
    help="Refuse the checkpoint where its terms are of another release of the Cell Ontology than this file.",
)
@click.option(
    "--text-model",
    metavar="DIR_OR_ID",
    help="Refuse the checkpoint where its texts were read by another text encoder than this.",
)
@click.option(
    "--cell-model",
    metavar="KIND:DIR",
    help="The foundation model whose embedding the checkpoint was trained on (scgpt:DIR, geneformer:DIR), where the cells "
    "do not bring that embedding.",
)
@click.option(
    "--report-dir",
    type=FOLDER,
    help="Also write a page (index.html), a picture and tables of cells, labels, clusters and genes into this folder.",
)
@click.option("--table", type=WRITABLE, help="Also write the labels as a table (TSV), cell by cell.")
@click.option("--summary", type=WRITABLE, help="Also write what was found, missing and unlike as JSON.")
@common
def command(
    file: Path,
    checkpoint: Path,
    output: Path,
    settings: AnnotateSettings,
    report_dir: Path | None,
    table: Path | None,
    summary: Path | None,
    **rest: Any,
) -> None:
    """Name the type of each cell in FILE (RNA counts: .h5ad, .h5mu, .zarr or 10x .h5), with its Cell Ontology id.

    Each label has a calibrated probability. Where that is low a more general term is given; a cell that is unlike all types
    the model was trained on stays 'unknown'.
    """
    if output.suffix not in (".h5ad", ".h5mu"):
        raise UsageRefused(f"--output {output}: the name must end in .h5ad or .h5mu")
    settings.require_fit()
    if settings.on_disk == ALWAYS and rest["cell_model"] is not None:
        raise UsageRefused(
            f"--on-disk {ALWAYS}: a foundation model (--cell-model) reads cells in memory; leave one out"
        )
    require_apart({"--output": output, "--table": table, "--summary": summary}, "--report-dir", report_dir)
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    overwrite = rest["overwrite"]
    for path in (output, table, summary, report_dir):
        if path is not None:
            refuse_existing(path, overwrite)
    for path in (output, table, summary):
        if path is not None:
            refuse_inputs(path, file, checkpoint)
    from xmodal import devices

    where = devices.choose(rest["device"], rest["threads"], rest["seed"])
    from xmodal.annotating.run import Outputs, Sources, run

    given = Sources(rest["ontology"], rest["text_model"], rest["cell_model"])
    found = run(file, checkpoint, Outputs(output, table, report_dir, overwrite), settings, given, (where, rest["seed"]))
    if summary is not None:
        write_json(summary, found, overwrite)
    for line in told(found):
        click.echo(line)
    click.echo(f"{output}, on {where}")


def told(found: dict[str, Any]) -> list[str]:
    """The summary for a person."""
    status, shown = found["status"], found["composition"][:5]
    first = ", ".join(f"{row['label']} {row['cells']}" for row in shown if row["label"] != "unknown")
    return [
        f"{found['cells']} cells: {status['assigned']} assigned, {status['coarse']} coarse, {status['unknown']} unknown",
        f"most: {first}" if first else "no cell got a label",
    ]
