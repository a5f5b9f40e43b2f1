"""``xmodal generate``: cells from a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, WRITABLE, common, from_settings, require_apart
from xmodal.errors import UsageRefused
from xmodal.generating.settings import GenerateSettings


@click.command("generate", context_settings=HELP)
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option("--output", type=WRITABLE, required=True, help="NAME.h5ad: the counts of the generated cells.")
@click.option(
    "--prompt",
    "given",
    multiple=True,
    metavar="TEXT",
    help="What the cells shall be: a Cell Ontology id, a name or exact synonym in it, or any text; repeatable.",
)
@click.option("--prompts", "table", type=READABLE, help="TSV with a column 'prompt', one prompt in each line.")
@from_settings(GenerateSettings)
@click.option(
    "--text-model",
    default=None,
    metavar="DIR_OR_ID",
    envvar="XMODAL_TEXT_MODEL",
    show_envvar=True,
    help="For prompts that are free text: the text encoder that the checkpoint was trained with [default: MiniLM of the "
    "installed package].",
)
@click.option("--allow-download", is_flag=True, help="A text encoder that is not on this machine may be fetched.")
@click.option("--summary", type=WRITABLE, default=None, help="Also write what each prompt was taken for as JSON.")
@click.option(
    "--overview",
    type=FOLDER,
    default=None,
    help="Also write a picture (generated.png), tables of the prompts and their genes (prompts.tsv, genes.tsv) and the "
    "summary (generated.json) into this folder.",
)
@common
def command(
    checkpoint: Path,
    output: Path,
    given: tuple[str, ...],
    table: Path | None,
    settings: GenerateSettings,
    summary: Path | None,
    overview: Path | None,
    **rest: Any,
) -> None:
    """Write counts of cells that fit each prompt, as a model that was trained on labelled cells imagines them.

    Each cell says what was asked for, and which training type is nearest. A prompt of a type that the model was not trained
    on is marked as extrapolating; one that is far from all of them is refused.
    """
    if output.suffix != ".h5ad":
        raise UsageRefused(f"--output {output}: the name must end in .h5ad")
    if not given and table is None:
        raise UsageRefused("--prompt or --prompts is needed: what shall the cells be?")
    settings.counts()
    require_apart({"--output": output, "--summary": summary}, "--overview", overview)
    from xmodal.outputs import refuse_existing, refuse_inputs, write_json

    overwrite = rest["overwrite"]
    for path in (output, summary, overview):
        if path is not None:
            refuse_existing(path, overwrite)
    for path in (output, summary):
        if path is not None:
            refuse_inputs(path, checkpoint, *([table] if table is not None else []))
    from xmodal import devices

    where = devices.choose(rest["device"], rest["threads"], rest["seed"])
    from xmodal.generating import prompts
    from xmodal.generating.run import Outputs, run

    asked = [*given, *(prompts.read(table) if table is not None else [])]
    model = prompts.TextModel(rest["text_model"], rest["allow_download"])
    found = run(checkpoint, asked, Outputs(output, overview, overwrite), settings, model, (where, rest["seed"]))
    if summary is not None:
        write_json(summary, found, overwrite)
    for prompt in found["prompts"]:
        sure = "extrapolating" if prompt["extrapolating"] else "known"
        click.echo(
            f"{prompt['prompt']}: {prompt['cells']} cells, {sure}, nearest {prompt['nearest_name']} ({prompt['cosine']:.2f})"
        )
    click.echo(f"{found['cells']} cells x {found['genes']} genes on {where} -> {output}")
