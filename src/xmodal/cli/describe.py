"""``xmodal describe``: groups of cells, or cells, in sentences that each name their evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import FOLDER, HELP, READABLE, common, from_settings
from xmodal.describing.settings import DecoderChoice, DescribeSettings
from xmodal.errors import UsageRefused


@click.command("describe", context_settings=HELP)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--checkpoint", type=READABLE, required=True, help="The model.safetensors that train wrote.")
@click.option(
    "--output-dir", type=FOLDER, help="Gets descriptions.tsv, descriptions.json and index.html; needed with FILE."
)
@from_settings(DescribeSettings)
@click.option("--decoder-dir", type=FOLDER, help="With --decoder scratch or hf:DIR: what --train-decoder wrote.")
@click.option(
    "--train-decoder",
    type=FOLDER,
    help="In place of FILE: train --decoder scratch or hf:DIR on the checkpoint's texts, and write it into this folder.",
)
@click.option(
    "--steps", type=click.IntRange(1), help="With --train-decoder: minibatches [default: as the decoder has it]."
)
@click.option(
    "--text-model",
    metavar="DIR",
    help="With --train-decoder and --decoder scratch: the text model whose word pieces it reads [default: that of the "
    "installed package].",
)
@common
def command(
    file: Path | None,
    checkpoint: Path,
    output_dir: Path | None,
    settings: DescribeSettings,
    decoder_dir: Path | None,
    train_decoder: Path | None,
    steps: int | None,
    text_model: str | None,
    **rest: Any,
) -> None:
    """Describe each group of cells in FILE (RNA counts: .h5ad, .h5mu, .zarr or 10x .h5), or each cell, in a paragraph.

    It says the type with its definition, how sure that is, and genes that were tested in cells in which they were not chosen.
    Cells that `xmodal annotate` has named keep their names; others are named as it does by default.
    """
    settings.require_fit()
    _require_fit(file, output_dir, settings, decoder_dir, train_decoder, (steps, text_model))
    from xmodal import devices
    from xmodal.outputs import refuse_existing

    refuse_existing(train_decoder or output_dir or Path(), rest["overwrite"])
    where = devices.choose(rest["device"], rest["threads"], rest["seed"])
    if train_decoder is not None:
        from xmodal.describing import training

        given = training.Request(DecoderChoice.of(settings.decoder), train_decoder, steps, text_model)
        done = training.run(checkpoint, given, (where, rest["seed"], rest["overwrite"]))
        click.echo(
            f"{done['decoder']}: {done['parameters']:,} parameters trained, loss {done['loss']:g} -> {train_decoder}"
        )
        return
    from xmodal.describing import run, writing

    assert file is not None and output_dir is not None
    found = run.run(file, checkpoint, decoder_dir, settings, (where, rest["seed"]))
    about = writing.write(output_dir, found, rest["overwrite"])
    for line in writing.in_words(about):
        click.echo(line)


def _require_fit(
    file: Path | None,
    output_dir: Path | None,
    settings: DescribeSettings,
    decoder_dir: Path | None,
    train_decoder: Path | None,
    of_training: tuple[object, object],
) -> None:
    """Two jobs in one command, since a decoder is worth nothing without its checkpoint and its descriptions."""
    neural = DecoderChoice.of(settings.decoder).neural
    if train_decoder is not None:
        if file is not None or output_dir is not None or decoder_dir is not None:
            raise UsageRefused("--train-decoder stands alone: leave FILE, --output-dir and --decoder-dir out")
        if not neural:
            raise UsageRefused("--train-decoder: the template needs no training; give --decoder scratch or hf:DIR")
        if of_training[1] is not None and settings.decoder != "scratch":
            raise UsageRefused("--text-model goes with --decoder scratch; a language model brings its tokenizer")
        return
    if file is None or output_dir is None:
        raise UsageRefused("give FILE and --output-dir (or --train-decoder)")
    for option, value in zip(("--steps", "--text-model"), of_training, strict=True):
        if value is not None:
            raise UsageRefused(f"{option} goes with --train-decoder")
    if neural and decoder_dir is None:
        raise UsageRefused(f"--decoder {settings.decoder} needs --decoder-dir, what --train-decoder wrote")
    if decoder_dir is not None and not neural:
        raise UsageRefused("--decoder-dir goes with --decoder scratch or hf:DIR")
