"""``make portal``: a real Galaxy on this machine with the tools, workflows, models and an example; ends at Ctrl-C.

Everything it keeps (accounts, histories, datasets, models) lies in one folder, and is there again at the next start.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from portal import contents, example
from portal.configuration import AWAY, TOOLS, models, secret, settings
from portal.server import HERE, INSTALLED, LOOPBACK, ROOT, Server, tools_of

PORT = 8085
MODELS = ROOT / "build" / "models" / "xmodal_models.loc"
# Galaxy looks for new jobs less often than in the tests: five times a second is a third of a core for nothing.
CALM = {"job_handler_monitor_sleep": 0.5, "job_runner_monitor_sleep": 0.5, "workflow_monitor_sleep": 1.0}


class Refused(Exception):
    """The portal cannot start; the message says why and what to do."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/portal", description=__doc__)
    parser.add_argument(
        "--host", default=LOOPBACK, help="address to listen on [default: %(default)s, this machine only]"
    )
    parser.add_argument("--port", type=int, default=PORT, help="[default: %(default)s]; 0: any free one")
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "portal", help="where all is kept")
    parser.add_argument(
        "--jobs", type=Path, default=HERE / "job_conf.local.yml", help="job configuration (Slurm, GPU, ...)"
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="table of `make models`")
    return parser.parse_args(given)


@contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Only one portal at a time keeps its things in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = f"{folder}: a portal is running with this folder, or what a killed one left (`fuser {folder}/lock` names it)"
            raise Refused(f"{what}. What to do: stop it, or give --folder") from None
        yield lock


def free(host: str, port: int) -> None:
    """Refused where something listens there already, or where the address is not this machine's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
            raise Refused(f"{host}:{port}: {why}. What to do: give another --port or --host") from None


def job_configuration(path: Path) -> dict[str, Any]:
    """The content of ``path``; rules for Total Perspective Vortex are looked for beside it."""
    do = f"What to do: write it like {HERE / 'job_conf.local.yml'}"
    try:
        jobs: dict[str, Any] = yaml.safe_load(path.read_text())
        environments = list(jobs["execution"]["environments"].values())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}. What to do: give a job configuration that can be read") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: this is not YAML ({str(error).splitlines()[0]}). {do}") from None
    except (KeyError, TypeError, AttributeError):
        raise Refused(f"{path}: it has no execution with environments. {do}") from None
    for environment in environments:
        rules = environment.get("tpv_config_files", [])
        for i, name in enumerate(rules):
            rules[i] = name if "://" in name else str((path.resolve().parent / name).resolve())
    return jobs


def serve(asked: argparse.Namespace, stopping: threading.Event) -> None:
    """Start, fill, say so, and wait for ``stopping``."""
    began = time.monotonic()
    folder = asked.folder.resolve()
    jobs = job_configuration(asked.jobs)
    free(asked.host, asked.port)
    if asked.models != MODELS and not asked.models.exists():
        raise Refused(f"{asked.models}: there is no such table of models")
    if not (INSTALLED / ".setup-done").exists():
        raise Refused("Galaxy is not installed. What to do: make portal, or scripts/setup-galaxy")
    with locked(folder) as lock:
        shown = example.example(folder, asked.models)
        tables = models(folder, asked.models, shown.lines)
        for line in (folder / "xmodal_models.loc").read_text().splitlines():
            if line.startswith(AWAY):
                say(
                    f"the model {line.removeprefix(AWAY).partition(chr(9))[0]} is left out, since its file is not there"
                )
        env = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
        own = settings(folder) | CALM
        say("starting Galaxy (20 to 60 seconds)")
        server = Server(
            folder,
            tools_of(TOOLS),
            jobs,
            own,
            env,
            tables=[tables],
            host=asked.host,
            port=asked.port,
            umask=0o077,  # the database holds keys, and datasets are their owners'
            stopping=stopping,
            lock=lock.fileno(),
        )
        with server:
            new = not (folder / "admin_password").exists()
            if new and contents.is_user(server, contents.ADMIN):
                raise Refused(f"somebody has registered {contents.ADMIN} here. What to do: give a new --folder")
            key = contents.user_key(server, contents.ADMIN, "admin", secret(folder, "admin_password"))
            workflows = contents.publish_workflows(server, key, TOOLS / "workflows", folder / "workflows.json")
            if not contents.has_example(server, key):
                say(f"Galaxy answers after {time.monotonic() - began:.0f} s; running the example, once")
                contents.make_example(server, key, shown.cells, example.MODEL)
            say(f"ready after {time.monotonic() - began:.0f} s: {server.url}")
            say(f"{len(server.tools)} tools, {len(workflows)} workflows; nobody needs an account to try them")
            say(f"administrator: {contents.ADMIN}, the password is in {folder / 'admin_password'}")
            say("Ctrl-C stops it; what was made stays")
            while True:
                server.pause(1)


def say(text: str) -> None:
    sys.stderr.write(f"portal: {text}\n")
    sys.stderr.flush()


def main(given: Sequence[str] | None = None) -> int:
    asked = arguments(given)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        serve(asked, stopping)
    except Refused as error:
        say(f"error: {error}")
        return 3
    except InterruptedError:
        say("stopped; everything is kept in the folder")
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        if stopping.is_set():
            say("stopped; everything is kept in the folder")
            return 0
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
