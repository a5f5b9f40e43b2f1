"""``xmodal predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, STORE, WRITABLE, common
from xmodal.cli.reading import on_disk_option
from xmodal.cli.written import in_words, refuse_unfit, refuse_values, require_name, which_values
from xmodal.data.new_cells_settings import MIN_COVERAGE
from xmodal.data.on_disk_settings import Choice
from xmodal.embedding.settings import StreamedSettings
from xmodal.errors import UsageRefused


def parse_pair(option: str, text: str | None, separator: str, form: str) -> tuple[int, int] | None:
    """``A:B`` or ``I/N`` as two integers."""
    if text is None:
        return None
    first, found, second = text.partition(separator)
    if not (found and first.isdigit() and second.isdigit()):
        raise UsageRefused(f"{option} {text}: write {form}")
    return int(first), int(second)


def _refuse_for_target(target: str, output: Path, output_kind: str, wanted: Mapping[str, object]) -> None:
    """What is there for modalities only."""
    require_name(output, (".h5ad", ".h5mu"))
    given = [option for option, value in wanted.items() if value not in (None, ())]
    if output_kind != "values":
        given.append("--output-kind")
    if given:
        raise UsageRefused(
            f"{given[0]} is for modalities; {target} is a column of obs, told of whole cells: leave it out"
        )


@click.command("predict", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    required=True,
    help="The modality to predict; or the obs column that the model learned to tell (train --target).",
)
@click.option(
    "--from",
    "source",
    default=None,
    help="The modality to predict from [default: the only one that fits; an obs column: all that are there].",
)
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option(
    "--output",
    type=STORE,
    required=True,
    help="NAME.h5ad or NAME.zarr: the prediction alone; NAME.h5mu: a copy of the input with it.",
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
@which_values
@click.option(
    "--output-kind",
    type=click.Choice(["values", "latent"]),
    default="values",
    show_default=True,
    help="Predicted values, or the small latent that `xmodal decode` makes them of (.h5ad only; crossmp, linear, sailerx).",
)
@click.option("--summary", type=WRITABLE, default=None, help="Also write what was found, missing and unlike as JSON.")
@click.option(
    "--overview",
    type=FOLDER,
    default=None,
    help="Also write a picture (prediction.png) and tables of the cells and features (cells.tsv, features.tsv) into this "
    "folder.",
)
@on_disk_option
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
    features: tuple[str, ...],
    top: int | None,
    threshold: float | None,
    max_size: float,
    output_kind: str,
    summary: Path | None,
    overview: Path | None,
    on_disk: Choice,
    force: bool,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Predict a modality of the cells in FILE (.h5ad, .h5mu, .zarr or 10x .h5) that was not measured.

    Where the model learned to tell a column of obs (train --target COLUMN), --to COLUMN writes each cell's class with its
    probability (NAME.h5ad: cells by classes; NAME.h5mu: a copy of the input with it in obs); evaluate --prediction
    COLUMN=NAME.h5ad scores it.
    """
    require_name(output, (".h5ad", ".h5mu", ".zarr"))
    numbers = parse_pair("--shard", shard, "/", "I/N, such as 1/4")
    if numbers and not 1 <= numbers[0] <= numbers[1]:
        raise UsageRefused(f"--shard {shard}: I must lie between 1 and N")
    if numbers and rows:
        raise UsageRefused("--rows and --shard exclude each other")
    if (rows or numbers) and output.suffix != ".h5ad":
        raise UsageRefused("--rows and --shard write .h5ad; `xmodal merge` joins them")
    if (rows or numbers) and overview is not None:
        raise UsageRefused("--overview shows a whole prediction, not one of --rows or --shard; leave one of them out")
    refuse_unfit(output, top, threshold, interval)
    if output_kind == "latent":
        refuse_values(output, overview)
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    for path in (output, summary):
        if path is not None:
            refuse_existing(path, overwrite)
            refuse_inputs(path, file, checkpoint)
    if overview is not None:
        refuse_existing(overview, overwrite)
    from xmodal import devices
    from xmodal.predicting import telling

    if telling.target_of(checkpoint) == target:
        wanted = {"--rows": rows, "--shard": shard, "--features": features, "--top": top, "--threshold": threshold}
        _refuse_for_target(target, output, output_kind, wanted)
        asked = source, StreamedSettings(split=split, min_coverage=min_coverage, force=force, on_disk=on_disk)
        where = devices.choose(device, threads, seed)
        told = telling.run(file, checkpoint, (output, overview), asked, (where, seed, overwrite))
        if summary is not None:
            write_json(summary, told, overwrite)
        shares = ", ".join(f"{row['value']} {row['cells']}" for row in told["composition"])
        click.echo(f"{target} from {told['source']}: {told['cells']} cells ({shares}) on {where} -> {output}")
        return
    where = devices.choose(device, threads, seed)
    from xmodal.predicting.prediction import Request
    from xmodal.predicting.prediction import summary as prediction_summary
    from xmodal.predicting.run_prediction import run

    cells_asked = (source, split, parse_pair("--rows", rows, ":", "A:B, such as 0:256"), numbers, min_coverage, force)
    request = Request(
        target, *cells_asked, interval, top, threshold, features, max_size, output_kind == "latent", on_disk
    )
    many, about = run(file, checkpoint, output, request, (where, seed, overwrite), overview)
    found = prediction_summary(about, many)
    if summary is not None:
        write_json(summary, found, overwrite)
    cells, chosen = about.get("rows", f"all {found['cells']}"), found["source"]
    click.echo(f"{target} from {chosen}: {cells} cells x {in_words(found)} on {where} -> {output}")
