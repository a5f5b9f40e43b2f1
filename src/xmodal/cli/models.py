"""``xmodal models``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import HELP, common


@click.command("models", context_settings=HELP)
@click.argument("what", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option(
    "--features", type=str, default=None, metavar="MODALITY", help="List a checkpoint's features, one on each line."
)
@common
def command(
    what: str | None, as_json: bool, features: str | None, threads: int, device: str, seed: int, overwrite: bool
) -> None:
    """List the models; or say what WHAT, a model's name or a checkpoint, is: settings, features, genome, training."""
    import json

    from xmodal import describe
    from xmodal.errors import UsageRefused

    is_file = what is not None and (Path(what).exists() or what.endswith(".safetensors"))
    if features is not None:
        if not is_file:
            raise UsageRefused("--features needs a checkpoint")
        click.echo("\n".join(describe.features(Path(str(what)), features)))
        return
    content: Any = (
        describe.checkpoint(Path(str(what))) if is_file else describe.model(what) if what else describe.models()
    )
    click.echo(json.dumps(content, indent=1, sort_keys=True) if as_json else describe.text(content))
