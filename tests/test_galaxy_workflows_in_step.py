"""Galaxy workflows name tools, versions, params, values and outputs that there are; their inputs' defaults are the tools'."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from helpers_galaxy_judge import Tool
from helpers_wrappers import GALAXY_TOOLS, Param, click_command, expand, of_param
from xmodal import __version__
from xmodal.commands import COMMANDS

WORKFLOWS = sorted(GALAXY_TOOLS.glob("workflows/*/*.gxwf.yml"))
Content = dict[str, Any]
MEANT = {
    ("Joint analysis of gene expression and open chromatin", "Model"): "sailerx",  # auto has no embedding
    ("Cell types of new cells", "Model"): "scmmgpt",  # and learns no labels
}


@cache
def tools() -> dict[str, Tool]:
    macros = (GALAXY_TOOLS / "macros.xml").read_text()
    names = [c.name for c in COMMANDS if c.galaxy]
    texts = {name: (GALAXY_TOOLS / f"xmodal_{name}.xml").read_text() for name in names}
    return {f"xmodal_{n}": Tool(n, expand(text, macros), click_command(n)) for n, text in texts.items()}


def values_in(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths of the values in a step's state, without the numbers of repeats."""
    if isinstance(state, dict):
        for key, inner in state.items():
            if key != "__index__":
                yield from values_in(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(state, list):
        for inner in state:
            yield from values_in(inner, path)
    else:
        yield path, state


def sources_of(step: Content) -> dict[str, str]:
    """What is connected to which param: predictions_0|prediction is predictions.prediction."""
    given = {k: v["source"] if isinstance(v, dict) else v for k, v in step.get("in", {}).items()}
    return {re.sub(r"_\d+(?=\|)", "", key).replace("|", "."): source for key, source in given.items()}


def fits(value: Any, param: Param) -> bool:
    """Is it a choice, or in the range?"""
    spec = of_param(param)
    if value is None or value == "":
        return not spec.required
    if spec.kind == "select" and spec.choices:
        return str(value) in spec.choices
    if spec.kind in ("integer", "float"):
        low, high = spec.low, spec.high
        return (low is None or value >= low) and (high is None or value <= high)
    return isinstance(value, bool) if spec.kind == "boolean" else True


def default_of(param: Param) -> str:
    default = of_param(param).default
    return "" if default is None else str(default)


def of_step(name: str, step: Content, workflow: Content) -> Iterator[str]:
    inputs, steps = workflow["inputs"], workflow["steps"]
    if (tool := tools().get(step["tool_id"])) is None:
        yield f"{name}: there is no tool {step['tool_id']}"
        return
    if step["tool_version"] != tool.root.get("version"):
        yield f"{name}: the version of {step['tool_id']} is {tool.root.get('version')}"
    params = {param.path: param for param in tool.params}
    for path, source in sources_of(step).items():
        if path not in params:
            yield f"{name}: {path} is no param"
        elif source in inputs:
            asked = inputs[source].get("default")
            meant = MEANT.get((workflow["label"], source), default_of(params[path]))
            if asked is not None and str(asked) != meant:
                yield f"{name}: {source} is {asked} by default, {path} {meant}"
            if asked is not None and not fits(asked, params[path]):
                yield f"{name}: {path} cannot be {asked}"
        elif (before := steps.get(source.split("/")[0])) is None or source.split("/")[-1] not in before.get("out", {}):
            yield f"{name}: there is no {source}"
    for path, value in values_in(step.get("state", {})):
        if path not in params:
            yield f"{name}: {path} is no param"
        elif not fits(value, params[path]):
            yield f"{name}: {path} cannot be {value}"
    named = {output.get("name") for output in tool.outputs}
    yield from (f"{name}: {output} is no output" for output in step.get("out", {}) if output not in named)


def problems(workflow: Content) -> list[str]:
    steps = workflow["steps"]
    found = [problem for name, step in steps.items() for problem in of_step(name, step, workflow)]
    for name, output in workflow["outputs"].items():
        step, _, out = output["outputSource"].partition("/")
        if out not in steps.get(step, {}).get("out", {}):
            found.append(f"{name}: there is no {output['outputSource']}")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.parent.name)
def test_a_workflow_agrees_with_the_tools(path: Any) -> None:
    assert problems(yaml.safe_load(path.read_text())) == []


MUTATIONS = (
    ("rna-to-atac", "tool_id: xmodal_predict", "tool_id: xmodal_rotate", "there is no tool xmodal_rotate"),
    ("rna-to-atac", f"tool_version: {__version__}+", "tool_version: 0.0.0+", "the version of xmodal_check is"),
    ("rna-to-atac", "files_0|cells:", "file_0|cells:", "file.cells is no param"),
    ("rna-to-atac", "form: h5ad", "form: loom", "form cannot be loom"),
    ("rna-to-atac", "Predict ATAC/per_cell", "Predict ATAC/cells", "there is no Predict ATAC/cells"),
    ("atac-to-rna", "      summary:", "      figures:", "figures is no output"),
    ("joint-analysis", "default: sailerx", "default: crossmp", "Model is crossmp by default, model sailerx"),
    ("joint-analysis", "default: 15", "default: 10", "Neighbours of each cell is 10 by default"),
    ("joint-analysis", "default: 15", "default: 1", "advanced.neighbors cannot be 1"),
    ("joint-analysis", "form: h5mu\n        modalities", "form: loom\n        modalities", "form cannot be loom"),
    ("joint-analysis", "Embed the cells/groups", "Embed the cells/clusters", "there is no Embed the cells/clusters"),
    ("joint-analysis", "markers_0|pictures", "markers_0|plots", "markers.plots is no param"),
    ("train-and-evaluate", "split: test", "split: tests", "advanced.split cannot be tests"),
    ("train-and-evaluate", "      advanced:\n        split", "      more:\n        split", "more.split is no param"),
    ("train-and-evaluate", "default: auto", "default: crossmp", "Model is crossmp by default, model auto"),
    ("train-and-evaluate", "default: 3000", "default: 2000", "Cells in the UMAP is 2000 by default"),
    (
        "train-and-evaluate",
        "source: Train the model/trained",
        "source: Train a model/trained",
        "there is no Train a model",
    ),
)


@pytest.mark.parametrize(("name", "old", "new", "said"), MUTATIONS)
def test_each_drift_of_a_workflow_is_found(name: str, old: str, new: str, said: str) -> None:
    text = (GALAXY_TOOLS / "workflows" / name / f"{name}.gxwf.yml").read_text()
    assert old in text, "the text to change is not there any more"
    found = problems(yaml.safe_load(text.replace(old, new)))
    assert any(said in problem for problem in found), found
