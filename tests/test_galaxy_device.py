"""The token @DEVICE@ of the Galaxy tools: what XMODAL_DEVICE and GPU_AVAILABLE of a job make of the command's device."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from helpers_tool_chain import DEVICES, chosen
from helpers_wrappers import GALAXY_TOOLS

OPTIONS = ((), ("-e",), ("-e", "-u", "-o", "pipefail"))  # Galaxy sets -e where a tool asks for strict


def token() -> str:
    tokens = ET.parse(GALAXY_TOOLS / "macros.xml").getroot().findall("token")
    return next(t.text or "" for t in tokens if t.get("name") == "@DEVICE@")


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
@pytest.mark.parametrize(("given", "right"), DEVICES.items(), ids=str)
def test_the_token_sets_the_device(given: tuple[str | None, str | None], right: str, options: tuple[str, ...]) -> None:
    assert chosen(token(), *given, *options) == right


def test_nothing_else_is_joined_to_it() -> None:
    assert token().strip().endswith("&&") and token().count("&&") == 1


def test_a_broken_token_is_not_taken_for_a_device() -> None:
    assert chosen(token().replace("case", "caze", 1), None, "1").startswith("exit ")
