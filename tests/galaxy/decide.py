"""Run by Galaxy's Python: what its own code and total-perspective-vortex make of our job configurations.

Reads one JSON object from stdin and prints one, with the same keys; one process, since its start takes the most time:

- ``lint``: files of rules -> the linter's errors and warnings (without mypy, which takes minutes)
- ``jobs``: [job_conf, [[tool, GB of input], ...]] pairs -> where each job runs, and with what
- ``containers``: [image of the tool, {name: parameters of its environment}] -> the command around the tool's, by name
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from galaxy.tool_util.deps.containers import ContainerFinder
from galaxy.tool_util.deps.dependencies import AppInfo, JobInfo, ToolInfo
from galaxy.tool_util.deps.requirements import ContainerDescription, ResourceRequirement
from tpv.commands.dryrunner import TPVDryRunner
from tpv.commands.linter import TPVConfigLinter, TPVLintError
from tpv.commands.test import mock_galaxy
from tpv.rules import gateway


class Linter(TPVConfigLinter):
    """All but type checks."""

    def lint_code(self, loader: Any) -> None:
        """Left out; loading has compiled every piece of code."""


def lint(rules: list[str]) -> dict[str, Any]:
    linter = Linter(rules, [], False)
    try:
        linter.lint()
    except TPVLintError as error:
        return {"errors": [str(error)], "warnings": linter.warnings}
    return {"errors": linter.errors, "warnings": linter.warnings}


def jobs(asked: list[tuple[str, list[tuple[str, float]]]]) -> list[list[dict[str, Any]]]:
    return [decided(job_conf, cases) for job_conf, cases in asked]


def decided(job_conf: str, cases: list[tuple[str, float]]) -> list[dict[str, Any]]:
    app = mock_galaxy.App(job_conf=job_conf, create_model=True)
    named = app.job_config.get_destination("tpv_dispatcher").params["tpv_config_files"]
    files = TPVDryRunner.resolve_relative_config_paths(named, job_conf)
    gateway.ACTIVE_DESTINATION_MAPPERS = {"tpv_dispatcher": gateway.load_destination_mapper(files)}
    found = []
    for tool_id, size in cases:
        job = mock_galaxy.Job()
        dataset = mock_galaxy.Dataset("cells", file_size=int(size * 1024**3))
        job.add_input_dataset(mock_galaxy.DatasetAssociation("cells", dataset))
        job.history = mock_galaxy.History()
        tool = mock_galaxy.Tool(tool_id, resource_requirements=optional_gpu())
        place = gateway.map_tool_to_destination(app, job, tool, None, tpv_config_files=files)
        found.append({"id": place.id, "runner": place.runner, "params": place.params, "env": place.env})
    return found


def optional_gpu() -> list[ResourceRequirement]:
    """None or one, as a tool's XML may say it."""
    return [ResourceRequirement(count, f"cuda_device_count_{end}") for count, end in ((0, "min"), (1, "max"))]


def containers(asked: tuple[str, dict[str, dict[str, Any]]]) -> dict[str, str]:
    image, environments = asked
    finder = ContainerFinder(AppInfo(container_image_cache_path="/cache"))
    job = JobInfo(*(f"/job/{name}" for name in ("working", "tool", "", "tmp", "home")), "galaxy")
    tool = ToolInfo([ContainerDescription(image, "docker")], profile=25.0)
    made = {name: finder.find_container(tool, parameters, job) for name, parameters in environments.items()}
    return {name: container.containerize_command("true") if container else "" for name, container in made.items()}


if __name__ == "__main__":
    logging.disable()
    answers = {"lint": lint, "jobs": jobs, "containers": containers}
    sys.stdout.write(json.dumps({name: answers[name](asked) for name, asked in json.load(sys.stdin).items()}))
