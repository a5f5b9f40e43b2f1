"""``xmodal train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import CELLS, FOLDER, HELP, READABLE, common
from xmodal.cli.reading import on_disk_option
from xmodal.data.on_disk_settings import Choice
from xmodal.errors import ModelRefused, NotApplicable, SettingRefused, UsageRefused
from xmodal.fields import BF16, FP32, PRECISION_AUTO


@click.command("train", context_settings=HELP)
@click.argument("prepared", type=CELLS)
@click.option("--model", default="auto", show_default=True, help="Which model; `xmodal models` lists them.")
@click.option(
    "--fallback",
    default=None,
    metavar="MODEL",
    help="Train MODEL instead, with a warning, where there are too few cells [default: refuse].",
)
@click.option("--output-dir", type=FOLDER, required=True, help="Gets model.safetensors, history.tsv and metrics.json.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the model, repeatable; `xmodal models MODEL` lists them.",
)
@click.option(
    "--trial",
    is_flag=True,
    help="A trial of a sweep: learn nothing from the validation cells, so that they can judge it (predict --split "
    "valid, evaluate, select); that the model refuses its settings or so few cells goes into metrics.json, with exit code 0.",
)
@click.option(
    "--resume-from",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Go on from the state that an earlier attempt at this training left in its OUTPUT_DIR; where PATH has none of "
    "this training (same cells, settings, seed and model), train from the start.",
)
@click.option(
    "--state-dir",
    type=FOLDER,
    envvar="XMODAL_STATE_DIR",
    show_envvar=True,
    help="Keep the state of the running training here, so that it outlives OUTPUT_DIR [default: OUTPUT_DIR].",
)
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Keep the state after the first epoch that ends SECONDS after the last was kept; 0: after each [default: as "
    "often as costs a 20th of the time].",
)
@click.option(
    "--batch-key",
    default=None,
    metavar="COLUMN",
    help="obs column of the technical batch, for models that take it out of their embedding [default: the samples, where "
    "there are several].",
)
@click.option(
    "--label-key",
    default=None,
    metavar="COLUMN",
    help="obs column of the cell types, for models that learn them [default: one that is called so].",
)
@click.option(
    "--target",
    default=None,
    metavar="COLUMN",
    help="obs column with a class of each cell, such as a state, that the model is to tell of new cells (predict --to "
    "COLUMN).",
)
@click.option(
    "--label-terms", type=READABLE, help="TSV with columns label, cell_type_ontology_term_id: what the labels mean."
)
@click.option(
    "--ontology",
    type=READABLE,
    envvar="XMODAL_ONTOLOGY",
    show_envvar=True,
    help="The Cell Ontology (.obo, .owl, .tsv) [default: the release that the installed package carries].",
)
@click.option(
    "--text-model",
    default=None,
    metavar="DIR_OR_ID",
    envvar="XMODAL_TEXT_MODEL",
    show_envvar=True,
    help="Text encoder: a directory in Hugging Face's format, or an id in the local cache [default: MiniLM of the "
    "installed package].",
)
@click.option("--allow-download", is_flag=True, help="A text encoder that is not on this machine may be fetched.")
@click.option(
    "--init",
    "initial",
    type=READABLE,
    help="Begin with what `xmodal pretrain` left (pretrained.safetensors): the cell encoder of scmmgpt, or the encoders of "
    "this model.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Train in so many processes on this machine, each with a GPU of its own (or its share of --threads); several "
    "machines: torchrun.",
)
@click.option(
    "--precision",
    "asked",
    type=click.Choice([PRECISION_AUTO, FP32, BF16]),
    default=PRECISION_AUTO,
    show_default=True,
    help="Numbers in which training multiplies matrices (predictions are always fp32); auto: bf16 on a GPU that has it, "
    "else fp32.",
)
@click.option("--gene-table", type=READABLE, help="Gene positions (GTF, BED or TSV) for peak-gene links by distance.")
@on_disk_option
@click.option("--links", type=READABLE, help="Peak-gene links as a TSV with columns gene, peak[, weight].")
@common
def command(
    prepared: Path,
    model: str,
    fallback: str | None,
    output_dir: Path,
    changes: tuple[str, ...],
    trial: bool,
    resume_from: Path | None,
    state_dir: Path | None,
    save_every: float | None,
    batch_key: str | None,
    label_key: str | None,
    target: str | None,
    label_terms: Path | None,
    ontology: Path | None,
    text_model: str | None,
    allow_download: bool,
    initial: Path | None,
    processes: int,
    asked: str,
    gene_table: Path | None,
    links: Path | None,
    on_disk: Choice,
    threads: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Train a model on PREPARED, an .h5mu that `xmodal prepare` wrote.

    A run that was stopped goes on from OUTPUT_DIR/state.safetensors (or from its state in --state-dir) where that exists.
    """
    from xmodal import starting

    if processes > 1 and not starting.asked():
        if processes > threads:
            raise UsageRefused(f"--processes {processes}: each needs a CPU, and --threads is {threads}")
        click.get_current_context().exit(starting.in_several(processes, sys.argv[1:]))

    from xmodal import devices, precision, ranks
    from xmodal.learning import earlier

    taken_over = False
    if not starting.asked():  # before anything slow: an attempt that is killed early still hands the state on
        taken_over = resume_from is not None and state_dir is None and earlier.take_over(resume_from, output_dir)
    from xmodal.learning.run_training import refused_trial, run
    from xmodal.learning.training_job import TrainRequest
    from xmodal.learning.training_labels import LabelRequest

    ranks.take_gpu(device)
    chosen = devices.choose(device, threads, seed)
    ranks.begin(chosen)
    if starting.asked() and resume_from is not None and state_dir is None:
        given = resume_from
        taken_over = ranks.of_first(lambda: earlier.take_over(given, output_dir), chosen)
    request = TrainRequest(
        model=model,
        output_dir=output_dir,
        changes=changes,
        gene_table=gene_table,
        links=links,
        seed=seed,
        threads=threads,
        overwrite=overwrite,
        save_every=save_every,
        taken_over=taken_over,
        state_dir=state_dir,
        fallback=fallback,
        trial=trial,
        batch_key=batch_key,
        labels=LabelRequest(label_key, label_terms, ontology, text_model, allow_download),
        initial=initial,
        on_disk=on_disk,
        precision=precision.agreed(asked, chosen),
        target=target,
    )
    try:
        metrics: dict[str, Any] = run(prepared, request, chosen)
    except (ModelRefused, SettingRefused, NotApplicable) as error:
        if not trial:
            raise
        if ranks.first():
            refused_trial(request, error)
            click.echo(f"{model}: refused, so this trial is out: {error}")
        return
    ranks.end()
    if not ranks.first():
        return
    timing = metrics["timing"]
    click.echo(
        f"{metrics['model']}: trained in {timing['train_s']} s, {timing['peak_mib']} MiB on {chosen}; best epoch "
        f"{metrics['best_epoch']} of {metrics['epochs']}; {output_dir}/model.safetensors"
    )
