"""What a command, a Galaxy tool and nextflow_schema.json say of an option, all in one form: :class:`Spec`.

Galaxy's macros are expanded here, so that nothing but the standard library is needed; ``test_galaxy_in_step.py`` compares
with Galaxy's own expansion where that is there.
"""

from __future__ import annotations

import importlib
import tomllib
import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

GALAXY_TOOLS = Path(__file__).parents[1] / "galaxy_tools"
DATA = ("data", "data_collection")
FILES = {"prepare": ("--gene-table", "--checkpoint", "--peaks", "--obs")}  # whose settings hold paths as text
# Texts of which the tool writes the name and the form asks for the file.
PAIRS = ("NAME=FILE", "NAME=FILE.json", "MODALITY=FILE", "NAME=DIR")
OF_SCHEMA = {"string": "text", "integer": "integer", "number": "float", "boolean": "boolean"}


@dataclass(frozen=True)
class Spec:
    """An option: ``kind`` as Galaxy names types; ``default`` None where there is none; both ends lie inside the range.

    Forms know closed ranges only: an open end of a float counts as closed, and the command refuses the end itself.
    """

    kind: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    multiple: bool = False
    required: bool = False


# ---- commands


def click_command(name: str) -> click.Command:
    found: click.Command = importlib.import_module(f"xmodal.cli.{name}").command
    return found


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Options by their long flag."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    return {next(flag for flag in o.opts if flag.startswith("--")): o for o in options}


def flags_of(command: click.Command) -> set[str]:
    """All flags, --no-x too."""
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts) if flag.startswith("--")}


def own_models() -> tuple[str, ...]:
    """Of this package only: a plug-in installed beside it is no concern of the wrappers."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    return tuple(project["project"]["entry-points"]["xmodal.models"])


def values_of(name: str) -> dict[str, tuple[str, ...]]:
    """Values of options that click takes as free text or number, but the command does not (of NAME=KIND the kinds)."""
    from xmodal.fields import LIKELIHOODS
    from xmodal.learning.uncertainty import LEVELS
    from xmodal.scores.evaluation_settings import COMPARATORS, CONTROLS

    known: dict[str, dict[str, tuple[str, ...]]] = {
        "check": {"--likelihood": LIKELIHOODS},
        "prepare": {"--likelihood": LIKELIHOODS},
        "train": {"--model": own_models(), "--fallback": own_models()},
        **{name: {"--interval": tuple(f"{level:g}" for level in (*LEVELS, 0))} for name in ("predict", "decode")},
        "evaluate": {"--controls": CONTROLS, "--comparators": COMPARATORS},
    }
    return known.get(name, {})


@cache
def specs_of(command: click.Command) -> dict[str, Spec]:
    """All options of a command, by their long flag.

    Ranges are click's, else those of the settings classes that the command's module names.
    """
    name = str(command.name)
    named = vars(importlib.import_module(f"xmodal.cli.{name}")).values()
    classes = [v for v in named if isinstance(v, type) and issubclass(v, BaseModel)]
    fields = {"--" + k.replace("_", "-"): f for c in classes for k, f in c.model_fields.items()}
    values, files = values_of(name), FILES.get(name, ())
    return {
        flag: _of_click(option, fields.get(flag), values.get(flag, ()), flag in files)
        for flag, option in options_of(command).items()
    }


def _of_click(option: click.Option, setting: Any, values: tuple[str, ...], is_file: bool) -> Spec:
    unset = option.default in (None, ()) or "UNSET" in repr(option.default)
    default = None if unset else option.default
    spec = Spec("text", default, multiple=option.multiple, required=option.required)
    kind = option.type
    if values:
        word = f"{default:g}" if isinstance(default, float) else default
        return replace(spec, kind="select", choices=values, default=word, multiple=option.multiple or "," in str(word))
    if isinstance(kind, click.types.BoolParamType):
        return replace(spec, kind="boolean", default=bool(default))
    if isinstance(kind, click.Choice):
        return replace(spec, kind="select", choices=tuple(str(c) for c in kind.choices))
    if isinstance(kind, click.Path | click.File) or is_file or option.metavar in PAIRS:
        return replace(spec, kind="data")
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        whole = isinstance(kind, click.types.IntParamType)
        low, high = _ends(kind, setting, 1 if whole else 0)
        return replace(spec, kind="integer" if whole else "float", low=low, high=high)
    return spec


def _ends(kind: Any, setting: Any, step: int) -> tuple[float | None, float | None]:
    """Lowest and highest value; ``step``: how far inside an open end the last value lies."""
    if isinstance(kind, click.IntRange | click.FloatRange):
        low = None if kind.min is None else kind.min + step * kind.min_open
        return low, None if kind.max is None else kind.max - step * kind.max_open
    return of_field(setting, step)


def of_field(setting: Any, step: int) -> tuple[float | None, float | None]:
    """The same of a pydantic field."""
    rules = getattr(setting, "metadata", ())
    found = {n: getattr(rule, n) for rule in rules for n in ("ge", "gt", "le", "lt") if hasattr(rule, n)}
    low = found["gt"] + step if "gt" in found else found.get("ge")
    return low, found["lt"] - step if "lt" in found else found.get("le")


# ---- Galaxy


def expand(tool: str, macros: str) -> ET.Element:
    """A tool as Galaxy reads it: macros in their places, tokens replaced; comments are gone.

    ``macros``: the text of macros.xml; other files that the tool imports are read.
    """
    root = ET.fromstring(tool)
    own = root.find("macros")
    assert own is not None
    imported = [ET.fromstring(_imported(i.text or "", macros)) for i in own.findall("import")]
    known: dict[str, ET.Element] = {}
    tokens: dict[str, str] = {}
    for holder in (*imported, own):
        known |= {m.get("name", ""): m for m in holder.findall("xml")}
        tokens |= {t.get("name", ""): t.text or "" for t in holder.findall("token")}
    for name in tokens:  # tokens within tokens
        tokens = {k: v if k == name else v.replace(name, tokens[name]) for k, v in tokens.items()}
    root.remove(own)
    _grow(root, known)
    _replace_tokens(root, tokens)
    return root


def _imported(name: str, macros: str) -> str:
    return macros if name == "macros.xml" else (GALAXY_TOOLS / name).read_text()


def _grow(element: ET.Element, known: dict[str, ET.Element]) -> None:
    grown: list[ET.Element] = []
    for child in element:
        if child.tag == "expand":
            grown += _macro(child, known)
        else:
            _grow(child, known)
            grown.append(child)
    element[:] = grown


def _macro(asked: ET.Element, known: dict[str, ET.Element]) -> list[ET.Element]:
    """What stands in the place of an ``<expand>``."""
    macro = known[asked.get("macro", "")]
    body = deepcopy(macro)
    _fill(body, list(asked))
    words = {
        k.removeprefix("token_"): v for k, v in macro.attrib.items() if k.startswith("token_") and k != "token_quote"
    }
    words |= {k: asked.attrib[k] for k in filter(None, macro.get("tokens", "").split(","))}
    words |= {k: asked.attrib[k] for k in words if k in asked.attrib}
    quote = macro.get("token_quote", "@")
    for child in body:
        _replace_tokens(child, {f"{quote}{k.upper()}{quote}": v for k, v in words.items()})
    _grow(body, known)
    return list(body)


def _fill(element: ET.Element, content: list[ET.Element]) -> None:
    """Put ``content`` in the place of each ``<yield>``; a ``<token>`` of it goes to the yield of its name."""
    filled: list[ET.Element] = []
    named = {c.get("name"): list(c) for c in content if c.tag == "token"}
    rest = [c for c in content if c.tag != "token"]
    for child in element:
        if child.tag == "yield":
            filled += deepcopy(named[child.get("name")] if child.get("name") else rest)
        else:
            _fill(child, content)
            filled.append(child)
    element[:] = filled


def _replace_tokens(element: ET.Element, tokens: dict[str, str]) -> None:
    for inner in element.iter():
        for token, value in tokens.items():
            if inner.text:
                inner.text = inner.text.replace(token, value)
            for key, held in inner.attrib.items():
                inner.set(key, held.replace(token, value))


@dataclass(frozen=True, eq=False)
class Param:
    """A ``<param>`` of ``<inputs>``; ``path`` as the command names it (advanced.seed), through conditionals, not their cases."""

    path: str
    element: ET.Element
    least: int | None = None  # how often the repeat that it stands in must be there
    chosen: bool = False  # shown in one case of a conditional only

    @property
    def argument(self) -> str:
        return self.element.get("argument", "")

    @property
    def kind(self) -> str:
        return self.element.get("type", "")

    def yes(self, name: str) -> bool:
        """Is this attribute "true"?"""
        return self.element.get(name, "").lower() == "true"


def params_of(inputs: ET.Element, path: str = "", least: int | None = None, chosen: bool = False) -> list[Param]:
    """All params, the selectors of conditionals too."""
    found = []
    for child in inputs:
        name = child.get("name") or child.get("argument", "").lstrip("-").replace("-", "_")
        inner = int(child.get("min", 0)) if child.tag == "repeat" else least
        if child.tag == "param":
            found.append(Param(path + name, child, least, chosen))
        elif child.tag in ("section", "repeat", "conditional"):
            found += params_of(child, f"{path}{name}.", inner, chosen)
        elif child.tag == "when":
            found += params_of(child, path, least, True)
    return found


def repeats_of(inputs: ET.Element, path: str = "") -> list[str]:
    """Paths of ``<repeat>``."""
    found = []
    for child in inputs:
        inner = f"{path}{child.get('name')}"
        if child.tag == "repeat":
            found.append(inner)
        if child.tag in ("section", "repeat", "conditional", "when"):
            found += repeats_of(child, path if child.tag == "when" else f"{inner}.")
    return found


def of_param(param: Param) -> Spec:
    element, kind = param.element, "data" if param.kind in DATA else param.kind
    multiple = param.least is not None or param.yes("multiple") or param.kind == "data_collection"
    spec = Spec(kind, element.get("value") or None, multiple=multiple)
    if kind == "boolean":
        return replace(spec, default=param.yes("checked"))
    if kind == "select":
        options = element.findall("option")
        marked = [o.get("value", "") for o in options if o.get("selected") == "true"]
        first = [] if param.yes("optional") or param.yes("multiple") or not options else [options[0].get("value", "")]
        default = ",".join(marked or first) or None
        return replace(spec, choices=tuple(o.get("value", "") for o in options), default=default)
    low, high = (float(v) if (v := element.get(end)) else None for end in ("min", "max"))
    return replace(spec, low=low, high=high, required=_required(param, spec.default))


def _required(param: Param, default: str | None) -> bool:
    """Does Galaxy insist on an answer?  A text is optional for it, unless it says otherwise."""
    if param.least is not None:
        return param.least > 0
    if param.kind == "text":
        return any(v.get("type") == "empty_field" for v in param.element.findall("validator"))
    return default is None and not param.yes("optional")


# ---- Nextflow


def of_schema(rule: dict[str, Any]) -> Spec:
    """A parameter of nextflow_schema.json; without a default the command's own counts."""
    kind = "select" if "enum" in rule else "data" if rule.get("format") == "file-path" else OF_SCHEMA[rule["type"]]
    low, high = rule.get("minimum"), rule.get("maximum")
    return Spec(kind, rule.get("default"), low, high, tuple(rule.get("enum", ())))


# ---- all


def differences(own: Spec, other: Spec) -> dict[str, str]:
    """How ``own`` differs from ``other``, by what differs."""
    if own.kind != other.kind:
        return {"type": f"is {own.kind}, not {other.kind}"}
    found = {}
    if _number(own.default) != _number(other.default):
        found["default"] = f"is {own.default} by default, not {other.default}"
    for what, mine, theirs in (("min", own.low, other.low), ("max", own.high, other.high)):
        if mine != theirs:
            found[what] = f"has {what} {mine}, not {theirs}"
    if set(own.choices) != set(other.choices) or len(own.choices) != len(set(own.choices)):
        found["choices"] = f"has the choices {', '.join(own.choices)}, not {', '.join(other.choices)}"
    if own.multiple != other.multiple:
        found["multiple"] = (
            f"can be given {'often' if own.multiple else 'once'}, not {'often' if other.multiple else 'once'}"
        )
    if own.required != other.required:
        found["required"] = f"is {'required' if own.required else 'optional'}, not the other way round"
    return found


def _number(value: Any) -> Any:
    """Texts of numbers as numbers: 0.50 is 0.5."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value
