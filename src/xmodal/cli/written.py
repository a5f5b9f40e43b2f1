"""Options of the commands that write predicted values: which of them, in which form, and how many bytes at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xmodal.errors import UsageRefused
from xmodal.predicting.size import DEFAULT

Function = Callable[..., Any]
OPTIONS = (
    click.option(
        "--interval",
        type=float,
        default=0.9,
        show_default=True,
        help="Share of the measured values that lie between the layers xmodal_lower and xmodal_upper: 0.5, 0.8, 0.9, 0.95; "
        "0 leaves the layers out.",
    ),
    click.option(
        "--features",
        multiple=True,
        metavar="LIST",
        help="Only these features: names, Ensembl ids, regions chrom:start-end (all peaks that overlap), a BED file, or a file "
        "with a name in each line; with commas, or given again [default: all].",
    ),
    click.option(
        "--top",
        type=click.IntRange(1),
        default=None,
        metavar="K",
        help="Keep only the K highest predicted values of each cell, as a sparse matrix without intervals (.h5ad only) "
        "[default: all].",
    ),
    click.option(
        "--threshold",
        type=float,
        default=None,
        metavar="X",
        help="Keep only predicted values of at least X, as a sparse matrix without intervals (.h5ad only) [default: all].",
    ),
    click.option(
        "--max-size",
        type=click.FloatRange(0),
        default=DEFAULT,
        show_default=True,
        metavar="GB",
        help="Refuse a larger output, before anything is predicted where its size is known then.",
    ),
)


def which_values(function: Function) -> Function:
    """``--interval --features --top --threshold --max-size``."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def require_name(output: Path, endings: tuple[str, ...]) -> None:
    """Refuse a name with another ending, and a folder that is no Zarr store: it would be replaced as a whole."""
    if output.suffix not in endings:
        words = ", ".join(endings[:-1]) + " or " + endings[-1]
        raise UsageRefused(f"--output {output}: the name must end in {words}")
    if output.is_dir():
        from xmodal.data.stores import ENDING, is_zarr

        if output.suffix != ENDING or (any(output.iterdir()) and not is_zarr(output)):
            raise UsageRefused(f"--output {output} is a folder, and no Zarr store; give another name")


def refuse_unfit(output: Path, top: int | None, threshold: float | None, interval: float) -> None:
    """Options that do not go together."""
    if top is not None and threshold is not None:
        raise UsageRefused("--top and --threshold exclude each other; give one of them")
    if threshold is not None and not math.isfinite(threshold):
        raise UsageRefused(f"--threshold {threshold}: give a number")
    name = "--top" if top is not None else "--threshold" if threshold is not None else ""
    if name and output.suffix != ".h5ad":
        raise UsageRefused(
            f"{name} writes a sparse .h5ad, not {output.name}; give --output NAME.h5ad, or leave {name} out"
        )
    if (
        name
        and interval
        and click.get_current_context().get_parameter_source("interval") is ParameterSource.COMMANDLINE
    ):
        kept = "the highest values" if top is not None else "values of at least the threshold"
        raise UsageRefused(f"{name} and --interval exclude each other: only {kept} are kept, without intervals")


def refuse_values(output: Path, overview: Path | None) -> None:
    """With ``--output-kind latent``: options that choose or show values, which are not there yet."""
    if output.suffix != ".h5ad":
        raise UsageRefused(f"--output-kind latent writes an .h5ad, not {output.name}; give --output NAME.h5ad")
    context = click.get_current_context()
    for name in ("interval", "features", "top", "threshold"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageRefused(f"--output-kind latent and --{name} exclude each other; give --{name} to xmodal decode")
    if overview is not None:
        raise UsageRefused("--overview shows values, not a latent; give it to xmodal decode")


def in_words(found: dict[str, Any]) -> str:
    """Which values a prediction holds; ``found``: its summary."""
    if "latent" in found:
        return f"{found['latent']} dimensions of the latent"
    kept = f"{found['features']} features" + (f" (of {found['chosen']['of']})" if "chosen" in found else "")
    if "top" in found:
        return f"{kept}, the {found['top']} highest of each cell"
    return f"{kept}, values of at least {found['threshold']:g}" if "threshold" in found else kept
