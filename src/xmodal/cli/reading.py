"""The option of all commands that need not hold their cells in memory."""

from __future__ import annotations

import click

from xmodal.data.on_disk_settings import AUTO, CHOICES, OPTION

on_disk_option = click.option("--on-disk", type=click.Choice(CHOICES), default=AUTO, show_default=True, help=OPTION)
