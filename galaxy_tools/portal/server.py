"""A real Galaxy, installed by scripts/setup-galaxy, started in a folder of its own and stopped whole.

The portal (``make portal``) and the tests use it.  Nothing but Python's standard library and PyYAML is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INSTALLED = ROOT / ".galaxy"
LOOPBACK = "127.0.0.1"
START_SECONDS = 480  # 20 s on a quiet machine; minutes on one with much else to do
STOP_SECONDS = 15
QUEUES = "galaxy.internal,galaxy.external,celery"
Settings = Mapping[str, Any]


def tools_of(folder: Path) -> list[Path]:
    """The tools that lie in ``folder``: its XML files that are a <tool>."""
    return [path for path in sorted(folder.glob("*.xml")) if ET.parse(path).getroot().tag == "tool"]


class Server:
    """A context manager around galaxy-web and a Celery worker; ``url`` and ``key`` (an administrator's) while it runs.

    folder: configuration, database, datasets and logs of this Galaxy.  tools: XML files, all in one section.
    jobs: the content of its job_conf.yml.  tables: tool_data_table_conf.xml files.  settings go over galaxy.yml, env over
    this process's environment.  With umask 0 jobs can write their outputs under a user id that is not Galaxy's.
    host: the address to listen on.  port: 0 for any free one.  stopping: once set, waiting ends in InterruptedError.
    lock: an open file that the processes keep open too, so that a lock on it lasts as long as the last of them.
    """

    def __init__(
        self,
        folder: Path,
        tools: Sequence[Path],
        jobs: Settings,
        settings: Settings | None = None,
        env: Mapping[str, str] | None = None,
        *,
        tables: Sequence[Path] = (),
        umask: int = 0o022,
        host: str = LOOPBACK,
        port: int = 0,
        key: str = "",
        stopping: threading.Event | None = None,
        lock: int | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.tools = tools
        self.environments: Settings = jobs["execution"]["environments"]
        self.host, self.port = host, port
        self.key = key or secrets.token_hex(16)
        self.url = ""
        self.started: list[subprocess.Popen[bytes]] = []
        self.umask = umask
        self.stopping = stopping or threading.Event()
        self.kept_open = () if lock is None else (lock,)
        self.env = os.environ | dict(env or {})
        self.env["PATH"] = f"{self.env['PATH']}:{INSTALLED / 'bin'}"
        self.env["GALAXY_CONFIG_FILE"] = str(self.folder / "galaxy.yml")
        self._configure(jobs, settings or {}, tables)

    def _configure(self, jobs: Settings, settings: Settings, tables: Sequence[Path]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755 & ~self.umask)  # it is mounted into containers, whose user may be another one
        conf = yaml.safe_load((HERE / "galaxy.yml").read_text())
        # Galaxy's own list of tables asks addresses on the internet.
        (self.folder / "no_tables.xml").write_text("<tables/>\n")
        named = ",".join(str(path.resolve()) for path in tables) or "no_tables.xml"
        own = {
            "bootstrap_admin_api_key": self.key,
            "id_secret": secrets.token_hex(16),
            "tool_data_table_config_path": named,
        }
        conf["galaxy"] |= own | dict(settings)
        config = self.folder / "galaxy.yml"
        config.touch(mode=0o600)  # it holds the key
        config.write_text(yaml.safe_dump(conf))
        (self.folder / "job_conf.yml").write_text(yaml.safe_dump(dict(jobs)))
        toolbox = ET.Element("toolbox")
        section = ET.SubElement(toolbox, "section", id="xmodal", name="xmodal: cross-modal single-cell")
        for tool in self.tools:
            ET.SubElement(section, "tool", file=str(tool.resolve()))
        ET.ElementTree(toolbox).write(self.folder / "tool_conf.xml")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when Galaxy answers; RuntimeError, with the end of its log, where it does not."""
        port = self.port or _free_port()
        self.url = f"http://{LOOPBACK if self.host == '0.0.0.0' else self.host}:{port}"
        web = self._launch("web", "galaxy-web", "-c", "galaxy.yml", "-b", f"{self.host}:{port}")
        until = time.monotonic() + START_SECONDS
        worker = ["celery", "--app", "galaxy.celery", "worker", "--pool", "threads", "--concurrency", "2", "-Q", QUEUES]
        while not self._answers():
            if web.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Galaxy did not start:\n{self.log()}")
            # Beside the web process, but not before the database is there: both would create its tables.
            if len(self.started) == 1 and self._has_tables():
                self._launch("celery", *worker)
            self.pause(0.2)
        if len(self.started) == 1:
            self._launch("celery", *worker)

    def _has_tables(self) -> bool:
        """Whether the database is as Galaxy leaves it when it has made it: with the mark of its version."""
        path = self.folder / "data" / "universe.sqlite"
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.1)) as database:
                return len(database.execute("SELECT version_num FROM alembic_version").fetchall()) == 2
        except sqlite3.Error:
            return False

    def pause(self, seconds: float) -> None:
        """Sleep; InterruptedError where this server is to stop, RuntimeError where it has ended by itself."""
        if self.stopping.wait(seconds):
            raise InterruptedError
        for process in self.started:
            if process.poll() is not None:
                raise RuntimeError(f"Galaxy ended by itself:\n{self.log()}")

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
                pass_fds=self.kept_open,
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
        return json.loads(self.read(path))

    def post(self, path: str, content: Settings, key: str = "") -> Any:
        """What the API answers to ``content``, sent as JSON; as the administrator unless another's ``key`` is given."""
        return json.loads(self.read(path, json.dumps(content).encode(), key))

    def read(
        self,
        path: str,
        sent: bytes | None = None,
        key: str = "",
        method: str | None = None,
        kind: str = "application/json",
    ) -> bytes:
        """The bytes of ``/api/PATH``, after ``sent`` of the content type ``kind``; HTTPError where Galaxy refuses."""
        headers = {"x-api-key": key or self.key} | ({"Content-Type": kind} if sent is not None else {})
        request = urllib.request.Request(f"{self.url}/api/{path}", data=sent, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
        return content

    def log(self, lines: int = 60) -> str:
        """The ends of Galaxy's logs, without the requests."""
        said = []
        for path in sorted(self.folder.glob("*.log")):
            kept = [line for line in path.read_text(errors="replace").splitlines() if not line.startswith("INFO:  ")]
            said += [f"{path.name}:", *kept[-lines:]]
        return "\n".join(said)

    def stop(self) -> None:
        """End everything that was started, jobs too. Celery ignores SIGTERM and leaves fork servers: after a while by SIGKILL."""
        sessions = {process.pid for process in self.started}
        for process in self.started:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in self.started[:1]:
                process.wait(STOP_SECONDS)
        for pid in members(sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait(STOP_SECONDS)
        until = time.monotonic() + STOP_SECONDS
        while members(sessions) and time.monotonic() < until:  # what was killed takes a moment to be gone
            time.sleep(0.05)
        self.started.clear()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port: int = free.getsockname()[1]
    return port


def members(sessions: set[int]) -> list[int]:
    """Processes of these sessions, the leaders last."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(stat.read_text().rpartition(")")[2].split()[3])  # see proc(5): the sixth field
            if session in sessions:
                found.append(int(stat.parent.name))
    return sorted(found, key=lambda pid: (pid in sessions, pid))
