"""Whatever is changed in any param that stands for an option, in any tool, the judge finds: hundreds of drifts by rule."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest

from helpers_galaxy_judge import Tool, calls, exceptions, of_params, options, texts
from helpers_wrappers import GALAXY_TOOLS, Param, click_command, expand
from xmodal.commands import COMMANDS

Change = Callable[[ET.Element], object]
TABLE = exceptions()
MACROS = (GALAXY_TOOLS / "macros.xml").read_text()


def toggled(element: ET.Element, name: str) -> None:
    element.set(name, "false" if element.get(name) == "true" else "true")


def of_numbers(param: Param) -> Iterator[tuple[str, Change]]:
    yield "default", lambda e: e.set("value", "0.77" if param.kind == "float" else "77")
    yield "min", lambda e: e.set("min", str(float(e.get("min", 0)) + 1))
    if "min" in param.element.attrib:
        yield "no min", lambda e: e.attrib.pop("min", None)
    yield "max", lambda e: e.set("max", "99")


def changes(param: Param) -> Iterator[tuple[str, Change]]:
    """Each a name and what it does to the ``<param>``."""
    yield "renamed argument", lambda e: e.set("argument", f"{param.argument}s")
    yield "no argument", lambda e: e.attrib.pop("argument")
    yield "type", lambda e: e.set("type", "color")
    yield "multiple", lambda e: toggled(e, "multiple")
    if param.kind in ("integer", "float"):
        yield from of_numbers(param)
    if param.kind == "text":
        yield "default", lambda e: e.set("value", "x")
        yield "sanitizer", lambda e: e.remove(e.findall("sanitizer")[0])
    if param.kind == "boolean":
        yield "default", lambda e: toggled(e, "checked")
        yield "truevalue", lambda e: e.set("truevalue", "--yes")
        yield "falsevalue", lambda e: e.set("falsevalue", "--no")
    if param.kind == "select":
        yield "another choice", lambda e: e.append(ET.Element("option", value="other"))
        yield "a choice less", lambda e: e.remove(e.findall("option")[0])
        yield "a choice twice", lambda e: e.append(deepcopy(e.findall("option")[0]))
        yield "default", lambda e: toggled(e.findall("option")[-1], "selected")
    if param.kind == "data" and param.least is None and not param.chosen:
        yield "optional", lambda e: toggled(e, "optional")


def meant(tool: Tool, param: Param, what: str) -> bool:
    """Is this allowed: by options.yml, or since whoever added a repeat finds something filled in?"""
    excused = TABLE.of(tool.name, "differs").get(param.argument, {})
    return what in excused or "argument" in excused or (what == "default" and param.least == 0)


@pytest.mark.parametrize("name", [c.name for c in COMMANDS if c.galaxy])
def test_every_change_of_a_param_is_found(name: str) -> None:
    whole = expand((GALAXY_TOOLS / f"xmodal_{name}.xml").read_text(), MACROS)
    command, missed, tried = click_command(name), [], 0
    for number, param in enumerate(Tool(name, whole, command).params):
        for what, change in changes(param) if param.argument else ():
            root = deepcopy(whole)
            change(Tool(name, root, command).params[number].element)
            assert ET.tostring(root) != ET.tostring(whole), f"{param.path}: {what} changes nothing"
            tool = Tool(name, root, command)
            found = [*options(tool, TABLE), *texts(tool), *calls(tool), *tool.script.problems]
            found += TABLE.problems(of_params(tool), TABLE.of(name, "differs"))
            tried += 1
            if not found and not meant(tool, param, what):
                missed.append(f"{param.path}: {what}")
    assert missed == [] and tried >= 5
