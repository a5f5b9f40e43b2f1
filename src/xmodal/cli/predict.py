"""``xmodal predict``."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from xmodal.cli.options import FOLDER, HELP, READABLE, WRITABLE, common
from xmodal.data.new_cells_settings import MIN_COVERAGE
from xmodal.errors import UsageRefused


def parse_pair(option: str, text: str | None, separator: str, form: str) -> tuple[int, int] | None:
    """``A:B`` or ``I/N`` as two integers."""
    if text is None:
        return None
    first, found, second = text.partition(separator)
    if not (found and first.isdigit() and second.isdigit()):
        raise UsageRefused(f"{option} {text}: write {form}")
    return int(first), int(second)


@click.command("predict", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, help="The modality to predict.")
@click.option("--from", "source", default=None, help="The modality to predict from [default: the only one that fits].")
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option(
    "--output",
    type=WRITABLE,
    required=True,
    help="NAME.h5ad: the prediction alone; NAME.h5mu: a copy of the input with it.",
)
@click.option(
    "--split", type=click.Choice(["train", "valid", "test"]), default=None, help="Only these cells of the split."
)
@click.option(
    "--rows", default=None, metavar="A:B", help="Only these of the selected cells; edges are multiples of 256."
)
@click.option(
    "--shard", default=None, metavar="I/N", help="Only part I of N of the selected cells, edges chosen for you."
)
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=MIN_COVERAGE,
    show_default=True,
    help="Share of the checkpoint's features that the input must have.",
)
@click.option(
    "--interval",
    type=float,
    default=0.9,
    show_default=True,
    help="Share of the measured values that lie between the layers xmodal_lower and xmodal_upper: 0.5, 0.8, 0.9, 0.95; "
    "0 leaves the layers out.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=None,
    metavar="K",
    help="Keep only the K highest predicted values of each cell, as a sparse matrix without intervals (.h5ad only) "
    "[default: all].",
)
@click.option("--summary", type=WRITABLE, default=None, help="Also write what was found, missing and unlike as JSON.")
@click.option(
    "--overview",
    type=FOLDER,
    default=None,
    help="Also write a picture (prediction.png) and tables of the cells and features (cells.tsv, features.tsv) into this "
    "folder.",
)
@click.option("--force", is_flag=True, help="Go on where cells or genome are unlike the training data.")
@common
def command(
    file: Path,
    target: str,
    source: str | None,
    checkpoint: Path,
    output: Path,
    split: str | None,
    rows: str | None,
    shard: str | None,
    min_coverage: float,
    interval: float,
    top: int | None,
    summary: Path | None,
    overview: Path | None,
    force: bool,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Predict a modality of the cells in FILE (.h5ad, .h5mu or 10x .h5) that was not measured."""
    if output.suffix not in (".h5ad", ".h5mu"):
        raise UsageRefused(f"--output {output}: the name must end in .h5ad or .h5mu")
    numbers = parse_pair("--shard", shard, "/", "I/N, such as 1/4")
    if numbers and not 1 <= numbers[0] <= numbers[1]:
        raise UsageRefused(f"--shard {shard}: I must lie between 1 and N")
    if numbers and rows:
        raise UsageRefused("--rows and --shard exclude each other")
    if (rows or numbers) and output.suffix != ".h5ad":
        raise UsageRefused("--rows and --shard write .h5ad; `xmodal merge` joins them")
    if (rows or numbers) and overview is not None:
        raise UsageRefused("--overview shows a whole prediction, not one of --rows or --shard; leave one of them out")
    if top and output.suffix != ".h5ad":
        raise UsageRefused(
            f"--top writes a sparse .h5ad, not {output.name}; give --output NAME.h5ad, or leave --top out"
        )
    if top and interval and click.get_current_context().get_parameter_source("interval") is ParameterSource.COMMANDLINE:
        raise UsageRefused(
            "--top and --interval exclude each other: only the highest values are kept, without intervals"
        )
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    for path in (output, summary):
        if path is not None:
            refuse_existing(path, overwrite)
            refuse_inputs(path, file, checkpoint)
    if overview is not None:
        refuse_existing(overview, overwrite)
    from xmodal import devices

    where = devices.choose(device, threads, seed)
    from xmodal.predicting.prediction import Request
    from xmodal.predicting.prediction import summary as prediction_summary
    from xmodal.predicting.run_prediction import run

    chosen_rows = parse_pair("--rows", rows, ":", "A:B, such as 0:256")
    request = Request(target, source, split, chosen_rows, numbers, min_coverage, force, interval, top)
    features, about = run(file, checkpoint, output, request, (where, seed, overwrite), overview)
    found = prediction_summary(about, features)
    if summary is not None:
        write_json(summary, found, overwrite)
    cells, chosen = about.get("rows", f"all {found['cells']}"), found["source"]
    kept = f", the {found['top']} highest of each cell" if top else ""
    click.echo(f"{target} from {chosen}: {cells} cells x {features} features{kept} on {where} -> {output}")
