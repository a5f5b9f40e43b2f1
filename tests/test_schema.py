"""nextflow_schema.json, the samplesheet's schema, nextflow.config and docs/usage.md say the same."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from typing import Any

import jsonschema
import pytest

from helpers_nextflow import ROOT
from xmodal import registry

SCHEMA = json.loads((ROOT / "nextflow_schema.json").read_text())
SHEET = json.loads((ROOT / "assets/schema_input.json").read_text())
RULES: dict[str, dict[str, Any]] = {k: v for group in SCHEMA["$defs"].values() for k, v in group["properties"].items()}
CONFIGURED = {"null": None, "true": True, "false": False}


def configured() -> dict[str, Any]:
    """The params block of nextflow.config."""
    block = re.search(r"^params \{(.*?)^\}", (ROOT / "nextflow.config").read_text(), re.M | re.S)
    assert block
    pairs = re.findall(r"^ +(\w+) += (\S+)$", block[1], re.M)
    return {k: CONFIGURED[v] if v in CONFIGURED else json.loads(v.replace("'", '"')) for k, v in pairs}


def test_every_parameter_has_its_default_in_both_places() -> None:
    # nf-core's lint wants no default where that is false.
    falsy = {"boolean": False}
    assert configured() == {name: rule.get("default", falsy.get(rule["type"])) for name, rule in RULES.items()}


def test_both_schemas_are_valid() -> None:
    for schema in (SCHEMA, SHEET):
        jsonschema.Draft202012Validator.check_schema(schema)
    assert [part["$ref"] for part in SCHEMA["allOf"]] == [f"#/$defs/{name}" for name in SCHEMA["$defs"]]


def test_every_group_and_parameter_has_an_icon() -> None:
    icons = {k: v.get("fa_icon", "") for k, v in {**SCHEMA["$defs"], **RULES}.items()}
    assert [name for name, icon in icons.items() if not re.fullmatch(r"fa[srb]? fa-[a-z-]+", icon)] == []


def test_files_are_checked_to_be_there() -> None:
    """nf-core's forms: ``exists`` for inputs, and a schema for each table."""
    for name, rule in RULES.items():
        if rule.get("format") == "file-path":
            assert rule["exists"] and rule["pattern"], name
        if "schema" in rule:
            assert (ROOT / rule["schema"]).is_file() and rule["mimetype"] == "text/csv", name


@pytest.mark.parametrize("name", RULES)
def test_a_parameter_is_described_used_and_in_the_manual(name: str) -> None:
    assert RULES[name]["description"].endswith(".")
    assert f"`--{name}`" in (ROOT / "docs/usage.md").read_text()
    places = [
        ROOT / "main.nf",
        ROOT / "nextflow.config",
        *(ROOT / "conf").glob("*.config"),
        *(ROOT / "subworkflows").rglob("*.nf"),
        *(ROOT / "workflows").glob("*.nf"),
    ]
    used = re.compile(rf"\b(params|given)\.{name}\b|'{name}'")
    assert any(used.search(place.read_text()) for place in places)


def test_the_models_are_those_that_the_package_brings() -> None:
    """Entry points of this package only: a plug-in installed beside it is no concern of the schema."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    own = set(project["project"]["entry-points"]["xmodal.models"])
    assert set(RULES["model"]["enum"]) == own <= set(registry.names())


def test_defaults_left_to_prepare_are_told() -> None:
    """The parameters are null, so that prepare's own default counts; what is said of it must be true."""
    defaults = {option.name: option.default for option in importlib.import_module("xmodal.cli.prepare").command.params}
    for name in ("min_peak_fraction", "min_rna_counts", "min_peaks"):
        assert RULES[name]["description"].endswith(f" Default: {defaults[name]}."), name
        assert f"| `--{name}` | {defaults[name]} |" in (ROOT / "docs/usage.md").read_text()


def test_the_samplesheets_of_the_repository_fit_their_schema() -> None:
    rows = []
    for sheet in (ROOT / "assets").glob("*/samplesheet.csv"):
        header, *lines = [line.split(",") for line in sheet.read_text().splitlines()]
        rows += [{k: v for k, v in zip(header, line, strict=True) if v} for line in lines]
    assert len(rows) >= 3
    jsonschema.validate(rows, SHEET)


def test_every_samplesheet_column_is_in_the_manual() -> None:
    manual = (ROOT / "docs/usage.md").read_text()
    assert [name for name in SHEET["items"]["properties"] if f"`{name}`" not in manual] == []
