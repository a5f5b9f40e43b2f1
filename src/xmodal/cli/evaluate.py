"""``xmodal evaluate``: score predictions, an embedding or labels against the truth and against plain methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli import options
from xmodal.errors import UsageRefused
from xmodal.scores.evaluation_settings import OF_EMBEDDINGS, OF_PREDICTIONS, EvaluationSettings


def _pairs(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not sign or not name or not path:
            raise click.BadParameter(f"'{value}' is not MODALITY=FILE, e.g. rna=predicted.h5ad")
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice; evaluate each in its own folder")
        if not Path(path).exists():
            raise click.BadParameter(f"there is no file '{path}'")
        pairs[name] = Path(path)
    return pairs


@click.command("evaluate", context_settings=options.HELP)
@click.argument("truth", type=options.CELLS)
@click.option(
    "--prediction",
    "predictions",
    multiple=True,
    metavar="MODALITY=FILE",
    callback=_pairs,
    help="A prediction (.h5ad) of MODALITY; may be given once for each modality; or, alone, of the obs column that a "
    "model was trained to tell (train --target).",
)
@click.option(
    "--embedding",
    type=options.READABLE,
    help="In place of predictions: the joint embedding (.h5mu or .h5ad) that `xmodal embed` wrote.",
)
@click.option(
    "--annotation",
    type=options.READABLE,
    help="In place of predictions: the labels (.h5ad or .h5mu) that `xmodal annotate` wrote, or the classes (.h5ad) that "
    "`xmodal predict` told of a column of obs.",
)
@click.option(
    "--generated",
    type=options.READABLE,
    help="In place of predictions: the cells (.h5ad) that `xmodal generate` wrote.",
)
@click.option(
    "--description",
    type=options.READABLE,
    help="In place of predictions: the descriptions.json that `xmodal describe` wrote.",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="MODALITY=SHARES",
    help="In place of predictions: what --checkpoint makes of cells of which a share (0 to 1; several: 0.25,0.5,1) lacks "
    "MODALITY; repeatable.",
)
@click.option(
    "--noise",
    multiple=True,
    metavar="MODALITY=SHARES",
    help="The same with noise: a share of the counts of MODALITY is replaced by draws from the mean profile; repeatable.",
)
@click.option(
    "--ontology",
    type=options.READABLE,
    envvar="XMODAL_ONTOLOGY",
    show_envvar=True,
    help="With --annotation and --description: the Cell Ontology (.obo, .owl, .tsv), for distances in it and definitions "
    "[default: the release that the installed package carries].",
)
@click.option(
    "--text-model",
    metavar="DIR_OR_ID",
    help="With --description: the text model in whose space texts are compared [default: that of the installed package].",
)
@click.option("--output-dir", type=options.FOLDER, required=True, help="Folder for the scores, tables and pictures.")
@click.option(
    "--checkpoint",
    type=options.READABLE,
    help="Refuse what another checkpoint made; with --drop and --noise: the model to ask.",
)
@click.option("--no-controls", is_flag=True, help="The same as --controls '' and --comparators ''.")
@options.from_settings(EvaluationSettings)
@options.common
def command(
    truth: Path,
    predictions: dict[str, Path],
    embedding: Path | None,
    annotation: Path | None,
    generated: Path | None,
    output_dir: Path,
    settings: EvaluationSettings,
    **rest: Any,
) -> None:
    """Score predictions of cells in TRUTH (a prepared .h5mu) against what was measured and against controls; or a joint
    embedding of them against plain ones (--embedding); or what they are called against what they are (--annotation), or what
    is said of them against both (--description); or what a model makes of cells that lack a modality or have noise in it
    (--drop, --noise, with --checkpoint).

    The controls (mean, depth, linear), the plain embeddings and the plain classifiers are fitted to the training cells of
    TRUTH.  Writes metrics.json, scores.tsv and pictures; of predictions also features.tsv and umap.tsv.
    """
    from xmodal import outputs

    given = {
        "--prediction": predictions,
        "--embedding": embedding,
        "--annotation": annotation,
        "--generated": generated,
    }
    given["--description"] = rest["description"]
    given["--drop or --noise"] = rest["drop"] + rest["noise"]
    if sum(bool(value) for value in given.values()) != 1:
        raise UsageRefused(f"give one of {', '.join(given)}")
    if not predictions:
        settings.refuse_those_of("prediction", OF_PREDICTIONS)
    if embedding is None:
        settings.refuse_those_of("embedding", OF_EMBEDDINGS)
    settings.control_names()
    settings.comparator_names()
    if rest["no_controls"]:
        settings = settings.model_copy(update={"controls": "", "comparators": ""})
    outputs.refuse_existing(output_dir, rest["overwrite"])
    if embedding is not None:
        _embedding(truth, embedding, output_dir, settings, rest)
    elif annotation is not None:
        _annotation(truth, annotation, output_dir, settings, rest)
    elif generated is not None:
        _generated(truth, generated, output_dir, settings, rest)
    elif rest["drop"] or rest["noise"]:
        _robustness(truth, output_dir, settings, rest)
    elif rest["description"] is not None:
        _description(truth, rest["description"], output_dir, settings, rest)
    else:
        _predictions(truth, predictions, output_dir, settings, rest)


def _predictions(
    truth: Path, predictions: dict[str, Path], output_dir: Path, settings: EvaluationSettings, rest: dict[str, Any]
) -> None:
    import time

    from xmodal.data import io
    from xmodal.scores import evaluation, evaluation_files
    from xmodal.scores.annotation_input import is_target

    if told := [name for name, path in predictions.items() if is_target(path)]:
        if len(predictions) > 1:
            raise UsageRefused(
                f"--prediction {told[0]}=...: it tells a column of obs; evaluate it in a folder of its own"
            )
        _annotation(truth, predictions[told[0]], output_dir, settings, rest, told[0])
        return

    start = time.monotonic()
    files = {
        name: (str(path), evaluation.read_prediction(path, settings.on_disk)) for name, path in predictions.items()
    }
    if rest["checkpoint"] is not None:
        evaluation.require_checkpoint(rest["checkpoint"], files)
    settings = settings.model_copy(update={"cells": evaluation.scored_cells(files, settings)})
    mdata = io.read_cells(truth, on_disk=settings.on_disk)
    targets = evaluation.evaluate(mdata, files, settings, rest["seed"])
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = evaluation_files.results(targets, mdata, settings, rest["seed"], timing)
    evaluation_files.write(output_dir, targets, content, rest["overwrite"])
    for line in evaluation_files.summary(content):
        click.echo(line)


def _embedding(
    truth: Path, embedding: Path, output_dir: Path, settings: EvaluationSettings, rest: dict[str, Any]
) -> None:
    import time

    from xmodal.data import io
    from xmodal.scores import embedding_evaluation, embedding_files, embedding_input

    start = time.monotonic()
    given = embedding_input.read_embedding(embedding)
    if rest["checkpoint"] is not None:
        embedding_input.require_checkpoint(rest["checkpoint"], given)
    mdata = io.read_cells(truth)
    result = embedding_evaluation.evaluate(mdata, given, settings, rest["seed"])
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = embedding_files.results(result, mdata, settings, rest["seed"], timing)
    embedding_files.write(output_dir, content, rest["overwrite"])
    for line in embedding_files.summary(content):
        click.echo(line)


def _annotation(
    truth: Path,
    annotation: Path,
    output_dir: Path,
    settings: EvaluationSettings,
    rest: dict[str, Any],
    target: str | None = None,
) -> None:
    """``target``: the obs column that a prediction tells, where it is one of `xmodal predict --to COLUMN`."""
    import time

    from xmodal.data import io
    from xmodal.scores import annotation_evaluation, annotation_files, annotation_input

    start = time.monotonic()
    if annotation_input.is_target(annotation):
        ontology, given = None, annotation_input.read_target(annotation, target)
    else:
        ontology = annotation_files.ontology_of(rest["ontology"])
        given = annotation_input.read_annotation(annotation)
    if rest["checkpoint"] is not None:
        annotation_input.require_checkpoint(rest["checkpoint"], given)
    mdata = io.read_cells(truth)
    result = annotation_evaluation.evaluate(mdata, given, settings, ontology, rest["seed"])
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = annotation_files.results(result, mdata, settings, rest["seed"], timing)
    annotation_files.write(output_dir, content, rest["overwrite"])
    for line in annotation_files.summary(content):
        click.echo(line)


def _generated(
    truth: Path, generated: Path, output_dir: Path, settings: EvaluationSettings, rest: dict[str, Any]
) -> None:
    import time

    from xmodal.data import io
    from xmodal.scores import annotation_files, generation_evaluation, generation_files, generation_input

    start = time.monotonic()
    ontology = annotation_files.ontology_of(rest["ontology"])
    given = generation_input.read_generated(generated)
    if rest["checkpoint"] is not None:
        generation_input.require_checkpoint(rest["checkpoint"], given)
    mdata = io.read_cells(truth)
    result = generation_evaluation.evaluate(mdata, given, settings, ontology, rest["seed"])
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = generation_files.results(result, mdata, settings, rest["seed"], timing)
    generation_files.write(output_dir, content, rest["overwrite"])
    for line in generation_files.summary(content):
        click.echo(line)


def _description(
    truth: Path, description: Path, output_dir: Path, settings: EvaluationSettings, rest: dict[str, Any]
) -> None:
    import time

    from xmodal.data import io
    from xmodal.scores import description_evaluation, description_files, description_input
    from xmodal.text import encoder, ontology

    start = time.monotonic()
    texts = ontology.read(rest["ontology"]), encoder.load(rest["text_model"], threads=rest["threads"])
    given = description_input.read_description(description)
    if rest["checkpoint"] is not None:
        description_input.require_checkpoint(rest["checkpoint"], given)
    mdata = io.read_cells(truth)
    result = description_evaluation.evaluate(mdata, given, settings, texts, rest["seed"])
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = description_files.results(result, mdata, settings, rest["seed"], timing)
    description_files.write(output_dir, result, content, rest["overwrite"])
    for line in description_files.summary(content):
        click.echo(line)


def _robustness(truth: Path, output_dir: Path, settings: EvaluationSettings, rest: dict[str, Any]) -> None:
    import time

    from xmodal import devices
    from xmodal.scores import robustness_evaluation, robustness_files
    from xmodal.scores.robustness_changes import parsed

    start, model = time.monotonic(), rest["checkpoint"]
    changes = parsed("--drop", rest["drop"]) + parsed("--noise", rest["noise"])
    if model is None:
        raise UsageRefused("--drop and --noise ask a model: give --checkpoint")
    how = (devices.choose(rest["device"], rest["threads"], rest["seed"]), rest["seed"])
    scene, rows, mdata = robustness_evaluation.evaluate(truth, model, changes, settings, how)
    timing = {"evaluate_s": round(time.monotonic() - start, 2), "threads": rest["threads"]}
    content = robustness_files.results(scene, rows, model, (mdata, settings, rest["seed"], timing))
    robustness_files.write(output_dir, content, rest["overwrite"])
    for line in robustness_files.summary(content):
        click.echo(line)
