"""A real Galaxy for the tests: started in a folder of its own, with given tools and jobs, and stopped whole.

with Galaxy(tmp_path, tools=[xml], jobs=container_jobs(engine())) as galaxy:
    galaxy.passes(test_data)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from helpers_containers import IMAGES, Engine
from helpers_nextflow import ROOT

HERE = ROOT / "tests" / "galaxy"
INSTALLED = ROOT / ".galaxy"
START_SECONDS = 240  # 20 s on a quiet machine
STOP_SECONDS = 15
QUEUES = "galaxy.internal,galaxy.external,celery"
Settings = Mapping[str, Any]


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


class Galaxy:
    """A context manager around galaxy-web and a Celery worker; ``url`` and ``key`` (of an administrator) while it runs.

    ``settings`` go over those of tests/galaxy/galaxy.yml, ``env`` over this process's environment.  With ``umask`` 0 jobs
    can write their outputs under a user id that is not Galaxy's.
    """

    def __init__(
        self,
        folder: Path,
        tools: Sequence[Path],
        jobs: Settings,
        settings: Settings | None = None,
        env: Mapping[str, str] | None = None,
        umask: int = 0o022,
    ) -> None:
        self.folder = folder.resolve()
        self.tools = tools
        self.environments: Settings = jobs["execution"]["environments"]
        self.key = secrets.token_hex(16)
        self.url = ""
        self.started: list[subprocess.Popen[bytes]] = []
        self.umask = umask
        self.env = os.environ | dict(env or {})
        self.env["PATH"] = f"{self.env['PATH']}:{INSTALLED / 'bin'}"
        self.env["GALAXY_CONFIG_FILE"] = str(self.folder / "galaxy.yml")
        self._configure(jobs, settings or {})

    def _configure(self, jobs: Settings, settings: Settings) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # it is mounted into containers, whose user may be another one
        conf = yaml.safe_load((HERE / "galaxy.yml").read_text())
        conf["galaxy"] |= {"bootstrap_admin_api_key": self.key, **settings}
        (self.folder / "galaxy.yml").write_text(yaml.safe_dump(conf))
        (self.folder / "job_conf.yml").write_text(yaml.safe_dump(dict(jobs)))
        # Galaxy's own list of tables asks addresses on the internet.
        (self.folder / "tool_data_table_conf.xml").write_text("<tables/>\n")
        toolbox = ET.Element("toolbox")
        section = ET.SubElement(toolbox, "section", id="xmodal", name="xmodal")
        for tool in self.tools:
            ET.SubElement(section, "tool", file=str(tool.resolve()))
        ET.ElementTree(toolbox).write(self.folder / "tool_conf.xml")

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        web = self._launch("web", "galaxy-web", "-c", "galaxy.yml", "-b", f"127.0.0.1:{port}")
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if web.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Galaxy did not start:\n{self.log()}")
            time.sleep(0.5)
        # Not before: both would create the tables of the database.
        worker = ["--pool", "threads", "--concurrency", "2", "-Q", QUEUES]
        self._launch("celery", "celery", "--app", "galaxy.celery", "worker", *worker)

    def _launch(self, name: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A session of its own, by which all that it starts can be found."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [INSTALLED / "bin" / program, *arguments],
                cwd=self.folder,
                env=self.env,
                umask=self.umask,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def _answers(self) -> bool:
        try:
            return "version_major" in self.get("version")
        except (OSError, ValueError):
            return False

    def get(self, path: str) -> Any:
        """What the API says at ``/api/PATH``."""
        return json.loads(self._read(path))

    def output(self, test: Settings, name: str) -> bytes:
        """What a tool's test wrote to its output ``name``."""
        return self._read(f"datasets/{test['data']['job']['outputs'][name]['id']}/display?to_ext=data")

    def _read(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}/api/{path}", headers={"x-api-key": self.key})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def log(self, lines: int = 60) -> str:
        """The ends of Galaxy's logs, without the requests."""
        said = []
        for path in sorted(self.folder.glob("*.log")):
            kept = [line for line in path.read_text(errors="replace").splitlines() if not line.startswith("INFO:  ")]
            said += [f"{path.name}:", *kept[-lines:]]
        return "\n".join(said)

    def test(self, data: Path, *options: str, timeout: float = 900) -> list[dict[str, Any]]:
        """Run the tools' own tests over the API with the files in ``data``; one result for each, as in results.json."""
        results = self.folder / "results.json"
        results.unlink(missing_ok=True)
        # Tests of data tables are left out, and count as passed, unless they are asked for.
        command: list[str | Path] = [
            INSTALLED / "bin/galaxy-tool-test",
            "-u",
            self.url,
            "-a",
            self.key,
            "--with-reference-data",
        ]
        command += ["--parallel-tests", "2", "--test-data", data, "-j", results, *options]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )
        if not results.exists():
            raise RuntimeError(f"galaxy-tool-test wrote no results:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        tests: list[dict[str, Any]] = json.loads(results.read_text())["tests"]
        return tests

    def passes(self, data: Path, *options: str, timeout: float = 900) -> list[dict[str, Any]]:
        """As ``test``, and every ``<test>`` of the tools was run and succeeded."""
        tests = self.test(data, *options, timeout=timeout)
        failed = {test["id"]: test["data"] for test in tests if test["data"]["status"] != "success"}
        assert not failed, f"{json.dumps(failed, indent=1)[-8000:]}\n{self.log()}"
        assert len(tests) == number_of_tests(self.tools), [test["id"] for test in tests]
        return tests

    def _remove_containers(self) -> None:
        """Those of unfinished jobs; all have this folder mounted."""
        used = [job for job in self.environments.values() if "docker_cmd" in job]
        for command, env in {job["docker_cmd"]: job["env"] for job in used}.items():
            engine = Engine(command, self.env | {variable["name"]: variable["value"] for variable in env})
            left = engine("ps", "--all", "--quiet", "--filter", f"volume={self.folder}").stdout.split()
            if left:
                engine("rm", "--force", *left)

    def stop(self) -> None:
        """End everything that was started, jobs too. Celery ignores SIGTERM and leaves fork servers: after a while by SIGKILL."""
        sessions = {process.pid for process in self.started}
        for process in self.started:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in self.started[:1]:
                process.wait(STOP_SECONDS)
        for pid in _members(sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._remove_containers()
        for process in self.started:
            process.wait(STOP_SECONDS)
        self.started.clear()


def _members(sessions: set[int]) -> list[int]:
    """Processes of these sessions, the leaders last."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(stat.read_text().rpartition(")")[2].split()[3])  # see proc(5): the sixth field
            if session in sessions:
                found.append(int(stat.parent.name))
    return sorted(found, key=lambda pid: (pid in sessions, pid))
