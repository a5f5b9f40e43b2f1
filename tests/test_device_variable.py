"""Administrators choose where to compute by the environment; the command line wins, and a bad value names the variable."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from xmodal.cli.options import common


@click.command()
@common
def told(device: str, **_: object) -> None:
    click.echo(device)


@pytest.mark.parametrize(
    ("value", "given", "device"),
    [(None, (), "auto"), ("cpu", (), "cpu"), ("", (), "auto"), ("cuda", ("--device", "cpu"), "cpu")],
)
def test_the_variable_is_the_default(value: str | None, given: tuple[str, ...], device: str) -> None:
    done = CliRunner().invoke(told, given, env={"XMODAL_DEVICE": value})
    assert done.exit_code == 0 and done.stdout.strip() == device


def test_a_bad_value_names_the_variable() -> None:
    done = CliRunner().invoke(told, env={"XMODAL_DEVICE": "gpu0"})
    assert done.exit_code == 2 and "XMODAL_DEVICE" in done.output and "'gpu0'" in done.output, done.output
