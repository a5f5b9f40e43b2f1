"""A real Galaxy for the tests: started in a folder of its own, with given tools and jobs, and stopped whole.

with Galaxy(tmp_path, tools=[xml], jobs=container_jobs(engine())) as galaxy:
    galaxy.passes(test_data)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers_containers import IMAGES, Engine
from helpers_nextflow import ROOT

sys.path.insert(0, str(ROOT / "galaxy_tools"))
from portal import configuration, contents, server
from portal.server import INSTALLED, Server, Settings, tools_of

__all__ = ["INSTALLED", "ROOT", "contents", "server"]
HERE = ROOT / "tests" / "galaxy"
GALAXY_TOOLS = ROOT / "galaxy_tools"
TOOLS = tools_of(GALAXY_TOOLS)
TABLES = [GALAXY_TOOLS / "tool_data_table_conf.xml.test"]
TEST_DATA = GALAXY_TOOLS / "test-data"


def need_galaxy() -> None:
    """Skip the test where Galaxy has not been installed."""
    if not (INSTALLED / ".setup-done").exists():
        pytest.skip("skipped, because Galaxy is not there: scripts/setup-galaxy")


def host_jobs() -> dict[str, Any]:
    """Job configuration: tools run on this machine, by the commands on PATH."""
    conf: dict[str, Any] = yaml.safe_load((HERE / "job_conf.yml").read_text())
    return conf


def container_jobs(engine: Engine, user: str = "") -> dict[str, Any]:
    """Job configuration: every tool runs in its container (ours where it names none), as ``user`` (uid:gid) or Galaxy's own."""
    conf = host_jobs()
    conf["execution"]["default"] = "container"
    environment = conf["execution"]["environments"]["container"]
    environment |= {"docker_cmd": engine.name, "docker_default_container_id": IMAGES["cpu"]}
    needed = {name: engine.env[name] for name in ("CONTAINERS_CONF", "DOCKER_HOST") if name in engine.env}
    environment["env"] = [{"name": name, "value": value} for name, value in needed.items()]
    if user:
        environment["docker_set_user"] = user
    return conf


def number_of_tests(tools: Sequence[Path]) -> int:
    """How many ``<test>`` the XML files hold."""
    return sum(len(ET.parse(tool).findall("./tests/test")) for tool in tools)


def whole_galaxy(folder: Path) -> Galaxy:
    """All tools on this machine with the portal's settings and the tests' models; to be used in a ``with``."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = configuration.models(folder, TEST_DATA / "xmodal_models.loc")
    env = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    # What jobs leave behind is looked at, and assert_command in tools' tests asks for paths.
    seen = {"cleanup_job": "never", "expose_dataset_path": True}
    return Galaxy(folder, TOOLS, host_jobs(), configuration.settings(folder) | seen, env, tables=[tables])


class Galaxy(Server):
    """A server that runs its tools' own tests."""

    def output(self, test: Settings, name: str) -> bytes:
        """What a tool's test wrote to its output ``name``."""
        return self.read(f"datasets/{test['data']['job']['outputs'][name]['id']}/display?to_ext=data")

    def test(self, data: Path, *options: str, timeout: float = 1800) -> list[dict[str, Any]]:
        """Run the tools' own tests over the API with the files in ``data``; one result for each, as in results.json."""
        results = self.folder / "results.json"
        results.unlink(missing_ok=True)
        # Tests of data tables are left out, and count as passed, unless they are asked for.
        asked = ["-u", self.url, "-a", self.key, "--with-reference-data", "--parallel-tests", "2"]
        command = [INSTALLED / "bin/galaxy-tool-test", *asked, "--test-data", data, "-j", results, *options]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )
        if not results.exists():
            raise RuntimeError(f"galaxy-tool-test wrote no results:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        tests: list[dict[str, Any]] = json.loads(results.read_text())["tests"]
        return tests

    def passes(self, data: Path, *options: str, timeout: float = 1800) -> list[dict[str, Any]]:
        """As ``test``, and every ``<test>`` of the tools was run and succeeded."""
        tests = self.test(data, *options, timeout=timeout)
        failed = {test["id"]: test["data"] for test in tests if test["data"]["status"] != "success"}
        assert not failed, f"{json.dumps(failed, indent=1)[-8000:]}\n{self.log()}"
        assert len(tests) == number_of_tests(self.tools), [test["id"] for test in tests]
        return tests

    def stop(self) -> None:
        """Also the containers of unfinished jobs; all have this folder mounted."""
        super().stop()
        used = [job for job in self.environments.values() if "docker_cmd" in job]
        for command, env in {job["docker_cmd"]: job["env"] for job in used}.items():
            engine = Engine(command, self.env | {variable["name"]: variable["value"] for variable in env})
            left = engine("ps", "--all", "--quiet", "--filter", f"volume={self.folder}").stdout.split()
            if left:
                engine("rm", "--force", *left)
