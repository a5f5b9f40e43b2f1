"""``scripts/models``: make the reference models of the given recipes, or of all."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from reference_models import making, recipe
from reference_models.fetching import Unreachable
from xmodal.errors import InputRefused, XmodalError

log = logging.getLogger("reference_models")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("recipes", nargs=-1)
@click.option("--output-dir", type=FOLDER, default=ROOT / "build/models", help="Gets a folder for each model.")
@click.option("--loc", type=click.Path(dir_okay=False, path_type=Path), help="The table [default: in OUTPUT_DIR].")
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: the CPUs granted].")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--list", "only_list", is_flag=True, help="List the recipes, one on each line, and stop.")
def main(
    recipes: tuple[str, ...], output_dir: Path, loc: Path | None, threads: int | None, device: str, only_list: bool
) -> None:
    """Make reference models: fetch, prepare, train, predict, evaluate, check, describe, register.

    RECIPES are names (--list) or files; none: all.  A recipe that fails does not keep the others from being made.

    Exit codes: 0 all were made, 3 a recipe or its model was refused, 77 a source cannot be had from here, 143 stopped by
    SIGTERM, else that of the command that failed.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="models: %(message)s")
    log.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _stop)
    if only_list:
        for name in recipe.names():
            click.echo(f"{name}\t{recipe.read(recipe.find(name)).title}")
        return
    common = ("--device", device, *(("--threads", str(threads)) if threads else ()))
    failed: list[XmodalError] = []
    for what in dict.fromkeys(recipes or recipe.names()):
        try:
            place = making.make(recipe.find(what), output_dir, loc or output_dir / "xmodal_models.loc", common)
            click.echo(f"{what}: {place}")
        except (XmodalError, OSError) as caught:
            error = caught if isinstance(caught, XmodalError) else _of_files(caught)
            log.error("%s: %s", f"{what}: not made" if isinstance(error, Unreachable) else "error", error)
            failed.append(error)
    if failed:
        # A refusal says more than a lacking network.
        sys.exit(next((e.exit_code for e in failed if not isinstance(e, Unreachable)), failed[0].exit_code))


def _of_files(error: OSError) -> InputRefused:
    """A folder that cannot be written and the like."""
    return InputRefused(str(error.strerror or error), where=str(error.filename or ""), do="give other folders or files")


def _stop(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


if __name__ == "__main__":
    main()
