"""The option of all commands that need not hold their cells in memory."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.data.on_disk_settings import ALWAYS, AUTO, CHOICES, OPTION
from xmodal.errors import UsageRefused

on_disk_option = click.option("--on-disk", type=click.Choice(CHOICES), default=AUTO, show_default=True, help=OPTION)


def require_streaming(output: Path, on_disk: str) -> None:
    """Refuse an output that needs all of the input at once, where it was said to stay on disk."""
    if on_disk == ALWAYS and output.suffix == ".h5mu":
        raise UsageRefused(
            f"--on-disk {on_disk}: {output.name} would be a copy of the input, which is made in memory; give NAME.h5ad"
        )
