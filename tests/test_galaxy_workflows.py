"""The workflows in a real Galaxy by planemo, as IWC tests them, and their lint."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers_galaxy import GALAXY_TOOLS, ROOT, Galaxy, contents
from helpers_wrappers import expand

PLANEMO = ROOT / ".planemo" / "bin" / "planemo"
WORKFLOWS = sorted(path.parent for path in (GALAXY_TOOLS / "workflows").glob("*/*.gxwf.yml"))
NAMES = ("atac-to-rna", "cell-types", "joint-analysis", "rna-to-atac", "train-and-evaluate")
SECONDS = 900  # a minute on a quiet machine
Results = list[dict[str, Any]]
each = pytest.mark.parametrize("folder", WORKFLOWS, ids=[folder.name for folder in WORKFLOWS])


def need_planemo() -> None:
    if not (PLANEMO.parents[1] / ".setup-done").exists():
        pytest.skip("skipped, because planemo is not there: scripts/setup-planemo")


def definition(folder: Path) -> Path:
    return folder / f"{folder.name}.gxwf.yml"


def cases(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((folder / f"{folder.name}.gxwf-tests.yml").read_text())
    return found


def run_workflow(galaxy: Galaxy, folder: Path) -> Results:
    """Every test of the workflow in ``folder``, run by a user of ``galaxy``; one result for each, as planemo writes them."""
    need_planemo()
    results = galaxy.folder / f"{folder.name}.json"
    results.unlink(missing_ok=True)
    key = contents.user_key(galaxy, "workflows@example.org", "workflows", "a password of 9 words")
    server = ["--engine", "external_galaxy", "--galaxy_url", galaxy.url, "--no_shed_install"]
    keys = ["--galaxy_admin_key", galaxy.key, "--galaxy_user_key", key]
    written = ["--test_output", results.with_suffix(".html"), "--test_output_json", results]
    done = subprocess.run(
        [PLANEMO, "test", *server, *keys, *written, "--test_timeout", str(SECONDS), definition(folder)],
        cwd=galaxy.folder,
        env=galaxy.env | {"HOME": str(galaxy.folder)},  # planemo keeps notes there
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )
    if not results.exists():
        raise RuntimeError(f"planemo wrote no results:\n{done.stdout[-3000:]}{done.stderr[-3000:]}\n{galaxy.log()}")
    found: Results = json.loads(results.read_text())["tests"]
    return found


def passed(folder: Path, results: Results) -> None:
    """Every test of the workflow was run, every output that it names was judged, and all was well."""
    failed = [result["data"] for result in results if result["data"]["status"] != "success"]
    assert not failed, json.dumps([{k: v for k, v in data.items() if "problem" in k} for data in failed], indent=1)
    assert len(results) == len(cases(folder)) > 0, results
    jobs = [job for result in results for step in steps(result) for job in step["jobs"]]
    assert jobs and {job["exit_code"] for job in jobs} == {0}


def steps(result: dict[str, Any]) -> list[dict[str, Any]]:
    return list(result["data"]["invocation_details"]["steps"].values())


def test_all_workflows_are_there() -> None:
    assert tuple(folder.name for folder in WORKFLOWS) == NAMES


@pytest.mark.galaxy
@each
def test_a_workflow_passes_its_tests(galaxy_server: Galaxy, folder: Path) -> None:
    passed(folder, run_workflow(galaxy_server, folder))


@pytest.mark.galaxy
def test_a_form_asks_for_nothing_but_the_inputs(galaxy_server: Galaxy) -> None:
    """Where a step lacks a value Galaxy warns of changed tools, and shows every step's form instead of the few inputs."""
    key = contents.user_key(galaxy_server, "forms@example.org", "forms", "a password of 9 words")
    names = contents.publish_workflows(
        galaxy_server, key, GALAXY_TOOLS / "workflows", galaxy_server.folder / "workflows.json"
    )
    history = galaxy_server.post("histories", {"name": "forms"}, key)["id"]
    forms = {}
    for workflow in json.loads(galaxy_server.read("workflows", key=key)):
        asked = f"workflows/{workflow['id']}/download?style=run&history_id={history}"
        forms[workflow["name"]] = json.loads(galaxy_server.read(asked, key=key))
    assert set(forms) >= set(names) and len(names) == len(NAMES)
    for name in names:
        said = {step["step_label"]: step["messages"] for step in forms[name]["steps"] if step.get("messages")}
        assert not forms[name]["has_upgrade_messages"] and not said, said
        model = next(step["inputs"][0] for step in forms[name]["steps"] if step["step_label"] == "Model")
        assert model["type"] == "select" and model["options"], name


def without_value(inputs: ET.Element, state: dict[str, Any], at: str = "") -> Iterator[str]:
    """Paths of the params that ``state`` gives no value."""
    for one in inputs:
        name = one.get("name", "") or one.get("argument", "").lstrip("-").replace("-", "_")
        if one.tag == "param":
            if name not in state:
                yield at + name
        elif one.tag == "section":
            yield from without_value(one, state.get(name, {}), f"{at}{name}|")
        elif one.tag == "repeat":
            for index, values in enumerate(state.get(name, [])):
                yield from without_value(one, values, f"{at}{name}_{index}|")
        elif one.tag == "conditional":
            values, choice = state.get(name, {}), one[0].get("name", "")
            if choice not in values:
                yield f"{at}{name}|{choice}"
            for when in one.findall("when"):
                if str(values.get(choice)).lower() == when.get("value", "").lower():
                    yield from without_value(when, values, f"{at}{name}|")


@each
def test_every_param_of_every_step_has_a_value(folder: Path) -> None:
    """As Galaxy asks (above), without Galaxy."""
    macros = (GALAXY_TOOLS / "macros.xml").read_text()
    for label, step in yaml.safe_load(definition(folder).read_text())["steps"].items():
        tool = expand((GALAXY_TOOLS / f"{step['tool_id']}.xml").read_text(), macros)
        inputs = tool.find("inputs")
        assert inputs is not None
        missing = set(without_value(inputs, step["state"])) - set(step.get("in", {}))
        assert not missing, (folder.name, label)


@pytest.mark.galaxy
@each
def test_lint(folder: Path) -> None:
    need_planemo()
    command = [PLANEMO, "workflow_lint", "--iwc", "--fail_level", "warn", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "WARNING" not in said, said


@each
def test_every_output_is_judged(folder: Path) -> None:
    asked = set(yaml.safe_load(definition(folder).read_text())["outputs"])
    for test in cases(folder):
        assert set(test["outputs"]) == asked
        for name, expected in test["outputs"].items():
            parts = [expected, *expected.get("element_tests", {}).values()]
            assert any(part.get("asserts") for part in parts), name


def test_the_gate_is_shut() -> None:
    folder = WORKFLOWS[0]
    job = {"exit_code": 0}
    good = {"data": {"status": "success", "invocation_details": {"steps": {"1. Step": {"jobs": [job]}}}}}
    passed(folder, [good])
    bad = {"data": good["data"] | {"status": "failure", "output_problems": ["wrong"]}}
    idle = {"data": good["data"] | {"invocation_details": {"steps": {"1. Step": {"jobs": []}}}}}
    for results in ([], [bad], [good, good], [idle]):
        with pytest.raises(AssertionError):
            passed(folder, results)
