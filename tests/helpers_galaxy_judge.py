"""The judge of the Galaxy tools: does a tool's XML fit its command, the table of exceptions and the suite's conventions?

Its limits: every branch of a ``<command>`` counts as taken, so a chain that breaks in one branch only, or an option given
in the wrong one, is left to the tools' own tests in a Galaxy.  Signs that join commands are looked for outside of single
quotes; redirections, the order of files, and what Python in a directive computes are not judged.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import yaml

from helpers_tool_chain import device
from helpers_tool_command import OPTION, Script
from helpers_wrappers import (
    DATA,
    GALAXY_TOOLS,
    Param,
    Spec,
    click_command,
    differences,
    expand,
    flags_of,
    of_param,
    of_schema,
    options_of,
    params_of,
    repeats_of,
    specs_of,
)
from xmodal import __version__
from xmodal.commands import COMMANDS, Command

ROOT = Path(__file__).resolve().parents[1]
THREADS = '--threads "\\${GALAXY_SLOTS:-1}"'
ON_A_GPU = ("train", "predict", "decode", "embed", "impute", "annotate", "describe", "generate")
HARMLESS = ("string.ascii_letters", "string.ascii_lowercase", "string.digits")
Differences = dict[str, dict[str, str]]  # option -> what of it is other -> how


@dataclass(frozen=True)
class Exceptions:
    """galaxy_tools/options.yml."""

    text: str

    @cached_property
    def all(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load(self.text)
        return content

    def of(self, tool: str, group: str) -> dict[str, Any]:
        """The entries for a tool, those of every tool first."""
        return self.all["every_tool"].get(group, {}) | self.all["tools"].get(tool, {}).get(group, {})

    def problems(self, own: Differences, excused: Differences) -> Iterator[str]:
        """Differences that no entry excuses, and entries that excuse none or say no reason."""
        for option, found in own.items():
            yield from (f"{option} {how}" for what, how in found.items() if what not in excused.get(option, {}))
        for option, entries in excused.items():
            for what, reason in entries.items():
                if not str(reason or "").strip():
                    yield f"options.yml gives no reason for {option}: {what}"
                if what not in own.get(option, {}):
                    yield f"options.yml excuses {option}: {what}, but there it does not differ"


@dataclass(frozen=True)
class Tool:
    """A tool as Galaxy reads it, beside the command that it is for."""

    name: str
    root: ET.Element
    command: click.Command

    @cached_property
    def inputs(self) -> ET.Element:
        return _there(self.root, "inputs")

    @cached_property
    def outputs(self) -> list[ET.Element]:
        return list(_there(self.root, "outputs"))

    @cached_property
    def params(self) -> list[Param]:
        return params_of(self.inputs)

    @cached_property
    def specs(self) -> dict[str, Spec]:
        return specs_of(self.command)

    @cached_property
    def script(self) -> Script:
        files = [f.get("name", "") for f in (*self.outputs, *self.root.iter("configfile"))]
        return Script(_there(self.root, "command").text or "", self.params, repeats_of(self.inputs), files)

    def given(self) -> set[str]:
        """Options that the tool's own command is called with."""
        return {option for call in self.script.calls if call.name == self.name for option in call.options}


def _there(root: ET.Element, place: str) -> ET.Element:
    found = root.find(place)
    assert found is not None, f"<{place}> is missing"
    return found


def exceptions() -> Exceptions:
    return Exceptions((GALAXY_TOOLS / "options.yml").read_text())


def problems(name: str, xml: str, macros: str, command: click.Command, table: Exceptions | None = None) -> list[str]:
    """What is wrong with the tool ``xml`` as the wrapper of ``command``."""
    table = table or exceptions()
    tool = Tool(name, expand(xml, macros), command)
    found = [*form(tool), *tests(tool), *outputs(tool), *calls(tool), *tool.script.problems, *texts(tool)]
    found += [*options(tool, table), *gpu(tool)]
    return found + list(table.problems(of_params(tool), table.of(name, "differs")))


def form(tool: Tool) -> Iterator[str]:
    """Identity, version, container: the suite's conventions."""
    root = tool.root
    image = yaml.safe_load((ROOT / "containers" / "images.yml").read_text())["cpu"]
    said = {
        "id": (root.get("id"), f"xmodal_{tool.name}"),
        "name": (root.get("name"), f"xmodal {tool.name}"),
        "licence": (root.get("license"), "MIT"),
        "container": (root.findtext("requirements/container"), image),
        "requirement": (root.findtext("requirements/requirement"), "xmodal"),
        "version command": (root.findtext("version_command"), "xmodal --version"),
        "error detection": (_there(root, "command").get("detect_errors"), "exit_code"),
    }
    yield from (f"the {what} is {is_so!r}, not {right!r}" for what, (is_so, right) in said.items() if is_so != right)
    if not re.fullmatch(rf"{re.escape(__version__)}\+galaxy\d+", root.get("version", "")):
        yield f"the version {root.get('version')} is not that of the package, {__version__}+galaxyN"
    if (required := root.find("requirements/requirement")) is None or required.get("version") != __version__:
        yield "the requirement is of another version"
    if not re.fullmatch(r"\d\d\.\d", root.get("profile", "")):
        yield "the profile is no version of Galaxy"
    for place, least in (("description", 10), ("help", 400)):
        if len((root.findtext(place) or "").strip()) < least:
            yield f"the {place} is missing or says next to nothing"
    yield from (
        f"{place} are missing" for place in ("citations", "creator", "edam_operations") if root.find(place) is None
    )


def tests(tool: Tool) -> Iterator[str]:
    """At least two on contents and one on a refusal and its message."""
    every = tool.root.findall("tests/test")
    refused = [t for t in every if t.get("expect_failure") == "true"]
    on_contents = [t for t in every if t not in refused and _asserts(t, "output//assert_contents")]
    if len(on_contents) < 2:
        yield "fewer than two tests look at contents"
    if not [t for t in refused if _asserts(t, "assert_stderr", "has_text")]:
        yield "no test of a refusal looks at the message"
    if any(t.get("expect_num_outputs") is None for t in every if t not in refused):
        yield "a test does not say how many outputs there are"


def _asserts(test: ET.Element, place: str, kind: str = "") -> bool:
    found = [inner.tag for holder in test.findall(f".//{place}") for inner in holder]
    return kind in found if kind else any(tag != "has_size" for tag in found)


def outputs(tool: Tool) -> Iterator[str]:
    """Each is written by the command: its file or folder is named there."""
    for output in tool.outputs:
        name = output.get("name", "")
        found = output.find("discover_datasets")
        place = output.get("from_work_dir") or (found.get("directory", "") if found is not None else "")
        written = re.escape(place.split("/")[0]) if place else rf"\${{?{name}}}?"
        if not re.search(rf"(?<![\w./-]){written}(?![\w.-])", tool.script.shell):
            yield f"nothing writes the output {name} ({place})"
        if not output.get("label", "").startswith("${tool.name}"):
            yield f"the label of the output {name} does not begin with the tool's name"


def calls(tool: Tool) -> Iterator[str]:
    """Options that the commands have, those that they need, the threads of the job, and nobody's choice of a device."""
    every = tool.script.calls
    known = {c.name for c in COMMANDS}
    if tool.name not in {call.name for call in every}:
        yield f"xmodal {tool.name} is not called"
    if set(OPTION.findall(tool.script.shell)) & {"--device"}:
        yield "--device is the administrator's choice"
    for call in every:
        if call.name not in known:
            yield f"there is no command xmodal {call.name}"
            continue
        command = tool.command if call.name == tool.name else click_command(call.name)
        yield from (f"{flag} is no option of xmodal {call.name}" for flag in sorted(call.options - flags_of(command)))
        needed = [o for o, s in specs_of(command).items() if s.required]
        yield from (f"{flag} is not given to xmodal {call.name}" for flag in needed if flag not in call.options)
        if THREADS not in call.text:
            yield f"the threads of xmodal {call.name} are not those of the job"


def gpu(tool: Tool) -> Iterator[str]:
    """What runs a model may use one GPU where the administrator gives one; other tools say nothing of it."""
    asked = {r.get("type", ""): (r.text or "").strip() for r in tool.root.findall("requirements/resource")}
    right = {"cuda_device_count_min": "0", "cuda_device_count_max": "1"} if tool.name in ON_A_GPU else {}
    if asked != right:
        yield f"the macro may_use_a_gpu: the resources are {asked}, not {right}"
    if tool.name in ON_A_GPU:
        yield from device(_there(tool.root, "command").text or "")
    elif "XMODAL_DEVICE" in tool.script.shell:
        yield "@DEVICE@ is for the tools that may use a GPU"


def texts(tool: Tool) -> Iterator[str]:
    """What a user can write is cleaned and judged, every param is used, and says what it is for."""
    known = known_specs(tool)
    for param in tool.params:
        option = "--" + param.path.split(".")[-1].replace("_", "-")
        if not param.argument and option in known and known[option].kind == of_param(param).kind:
            yield f"the param {param.path} is called like {option}, but has no argument"
        if param.kind == "text":
            valid = [v.get("type") for v in param.element.findall("validator")]
            if param.element.find("sanitizer") is None or "regex" not in valid:
                yield f"the text {param.path} has no sanitizer or no validator"
            if bad := _admitted(param):
                yield f"the text {param.path} admits {bad}"
        if param not in tool.script.used:
            yield f"the param {param.path} is not used"
        elif param.argument and param not in tool.script.passed:
            yield f"the value of {param.path} goes nowhere"
        elif param.kind in DATA and param not in tool.script.read:
            yield f"the dataset {param.path} is not read"
        if not param.element.get("label"):
            yield f"the param {param.path} has no label"
        if param.kind == "data" and not param.element.get("format"):
            yield f"the data {param.path} can have any format"


def _admitted(param: Param) -> str:
    """What a sanitizer lets through that it should not: signs that a shell or a browser reads, or any letters."""
    initial = [v.get("initial", "") for v in param.element.findall("sanitizer/valid")]
    added = "".join(a.get("value", "") for a in param.element.findall("sanitizer/valid/add"))
    whole = [name for text in initial for name in text.split(",") if name not in HARMLESS]
    return " ".join([*whole, *sorted(set(added) & set("'\"$`\\;&|<>\n#"))])


def options(tool: Tool, table: Exceptions) -> Iterator[str]:
    """Each option of the command has a param, or stands in the table."""
    given, left_out = table.of(tool.name, "given"), table.of(tool.name, "left_out")
    arguments, passed = {p.argument for p in tool.params}, tool.given()
    for option in tool.specs:
        if option not in arguments | set(given) | set(left_out):
            yield f"{option} has no param, and options.yml does not say why"
        if option in arguments and option not in passed:
            yield f"{option} has a param, but is not given"
    for option, reason in (given | left_out).items():
        if option not in tool.specs:
            yield f"options.yml names {option}, which xmodal {tool.name} does not have"
        elif option in given and option in left_out:
            yield f"options.yml has {option} twice"
        elif (option in passed) != (option in given):
            yield f"options.yml says that {option} is {'given' if option in given else 'left out'}"
        elif option in arguments:
            yield f"options.yml names {option}, which has a param"
        if not str(reason or "").strip():
            yield f"options.yml gives no reason for {option}"


def known_specs(tool: Tool) -> dict[str, Spec]:
    """Options of the commands that the tool calls; those of its own count first."""
    called = {call.name for call in tool.script.calls} & {c.name for c in COMMANDS}
    specs: dict[str, Spec] = {}
    for name in sorted(called):
        specs |= specs_of(click_command(name))
    return specs | tool.specs


def of_params(tool: Tool) -> Differences:
    """How params differ from their options: of the tool's command, else of another that the tool calls."""
    known = known_specs(tool)
    found: Differences = {}
    once = {p.argument for p in tool.params if p.least is None}
    for param in (p for p in tool.params if p.argument):
        spec = known.get(param.argument)
        if spec is None:
            found.setdefault(param.argument, {})["argument"] = f"is no option of xmodal {tool.name}"
            continue
        differs = differences(of_param(param), spec)
        if not spec.required and (param.chosen or param.least == 0):
            differs.pop("required", None)  # who chose this case, or added this repeat, wants it
        if param.least == 0 and spec.default is None:
            differs.pop("default", None)
        if param.least is not None and param.yes("multiple"):
            differs["multiple"] = "can be several in each of several"
        elif param.least is not None and param.argument in once:
            differs.pop("multiple", None)  # for one sample a param, for several a repeat
        found.setdefault(param.argument, {}).update(differs | _flag(param, tool.command))
    return {option: differs for option, differs in found.items() if differs}


def _flag(param: Param, command: click.Command) -> dict[str, str]:
    """Is what a boolean writes an option, and does it say what is not the default?"""
    option = options_of(command).get(param.argument)
    if param.kind != "boolean" or option is None:
        return {}
    yes, no = param.element.get("truevalue"), param.element.get("falsevalue")
    right = yes in (*option.opts, "") and no in (*option.secondary_opts, "")
    needed = no if option.default is True else yes
    return {} if right and needed else {"truevalue": f"writes {yes!r} or {no!r}"}


def of_the_table(commands: Sequence[Command], tools: set[str], modules: set[str], table: Exceptions) -> list[str]:
    """Commands without wrapper or reason, wrappers without command, sections of options.yml without tool."""
    said = {kind: {c.name for c in commands if getattr(c, kind)} for kind in ("galaxy", "module")}
    there = {"galaxy": tools, "module": modules}
    found = [f"xmodal {n} has no {kind}" for kind in said for n in sorted(said[kind] - there[kind])]
    found += [f"the {kind} {n} has no command" for kind in said for n in sorted(there[kind] - said[kind])]
    found += [f"xmodal {c.name}: why not?" for c in commands if not (c.galaxy and c.module) and not c.why_not.strip()]
    return found + [f"options.yml names {n}, which is no tool" for n in sorted(set(table.all["tools"]) - tools)]


def with_nextflow(tools: Sequence[Tool], rules: dict[str, dict[str, Any]], table: Exceptions) -> list[str]:
    """Where parameters of nextflow_schema.json differ from the options, and from the params of Galaxy, of the same name."""
    found: Differences = {}
    modules = [specs_of(click_command(c.name)) for c in COMMANDS if c.module]
    for name, rule in rules.items():
        option = "--" + name.replace("_", "-")
        forms = [s[option] for s in modules if option in s]
        forms += [of_param(p) for tool in tools for p in tool.params if p.argument == option and option in tool.specs]
        for other in forms:
            differs = differences(of_schema(rule), other)
            for what in ("multiple", "required", *([] if "default" in rule else ["default"])):
                differs.pop(what, None)  # lists are written with commas, and what is null the command decides
            found[option] = found.get(option, {}) | differs
    return list(table.problems({o: d for o, d in found.items() if d}, table.all["nextflow"].get("differs", {})))
