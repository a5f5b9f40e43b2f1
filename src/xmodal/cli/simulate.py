"""``xmodal simulate``: paired cells with known truth, for tests and teaching."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.core import ParameterSource

from xmodal.cli import options
from xmodal.simulation.simulate_settings import PRESETS, SimulateSettings


@click.command("simulate", context_settings=options.HELP)
@click.option("--output-dir", "-o", type=options.FOLDER, required=True, help="Folder for the files.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="none",
    show_default=True,
    help="Other defaults: 'cortex' has the shape and depth of the mouse cortex SNARE-seq set.",
)
@click.option("--oracle", is_flag=True, help="Also predict the test cells by a predictor that knows the coupling.")
@click.option(
    "--rates/--no-rates",
    default=True,
    show_default=True,
    help="Write the true rate of every count into truth.npz (4 bytes each).",
)
@options.from_settings(SimulateSettings)
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    /,
    output_dir: Path,
    preset: str,
    oracle: bool,
    rates: bool,
    settings: SimulateSettings,
    seed: int,
    overwrite: bool,
    **_: object,
) -> None:
    """Simulate paired RNA + ATAC (and protein) cells whose truth is known.

    Writes paired.h5mu, one .h5ad per modality, genes.tsv, and the truth: links.tsv, types.tsv, features.tsv, truth.npz.
    With --oracle, simulation.json says how well an oracle and a linear predictor do; prints those numbers.
    """
    from xmodal import outputs
    from xmodal.simulation.simulate import simulate
    from xmodal.simulation.simulation_files import write_simulation
    from xmodal.simulation.simulation_oracle import run_oracle

    outputs.refuse_existing(output_dir, overwrite)
    given = {
        name: value
        for name, value in settings.model_dump().items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    settings = options.validated(SimulateSettings, {**PRESETS[preset], **given})
    simulated = simulate(settings, seed)
    found = run_oracle(simulated) if oracle else None
    write_simulation(simulated, found, output_dir, overwrite=overwrite, rates=rates)
    if found is not None:
        click.echo(json.dumps(found.scores, indent=1, sort_keys=True))
