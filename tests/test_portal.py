"""``make portal``: refused where it cannot start; ready soon, on loopback only; stopped whole by Ctrl-C, and kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from helpers_galaxy import ROOT, TEST_DATA, configuration, need_galaxy, server

LONG_S = 500
READY_S = 60  # after set-up, which the first start is part of
ADDRESS = r"http://127\.0\.0\.1:\d+"
WORKFLOWS = list((ROOT / "galaxy_tools" / "workflows").glob("*/*.gxwf.yml"))


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Without the demonstration model that scripts/portal would make first; it is stopped after a while in any case."""
    given = ["--folder", str(folder), "--port", "0", "--models", os.devnull, *more]
    command, environment = (
        [sys.executable, "-m", "portal", *given],
        os.environ | {"PYTHONPATH": str(ROOT / "galaxy_tools")},
    )
    portal = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    timer = threading.Timer(LONG_S, portal.terminate)
    timer.daemon = True
    timer.start()
    return portal


def said_until(portal: subprocess.Popen[str], word: str) -> str:
    """What it says up to the line with ``word``."""
    assert portal.stderr is not None
    said = ""
    for line in portal.stderr:
        said += line
        if word in line:
            break
    assert word in said, said
    return said


def addresses(pids: set[int]) -> set[str]:
    """Addresses that these processes listen on, from /proc."""
    sockets = {
        os.readlink(file)
        for pid in pids
        for file in Path(f"/proc/{pid}/fd").glob("*")
        if os.path.islink(file) and os.path.lexists(file)
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            column = line.split()
            if column[3] == "0A" and f"socket:[{column[9]}]" in sockets:
                found.add(column[1].partition(":")[0])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need_galaxy()
    return tmp_path / "portal"


def test_the_table_of_models_keeps_what_was_added(tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    model.touch()
    row = "own\tMy model\thg38\trna:atac\tabc\t"
    disk = tmp_path / "disk"
    (tmp_path / "xmodal_models.loc").write_text(f"{row}{model}\naway\tAway\thg38\trna:atac\tabc\t{disk}/m\n")
    for is_there in (False, True, False):  # a disk that comes and goes
        if is_there:
            disk.mkdir()
            (disk / "m").touch()
        elif disk.exists():
            shutil.rmtree(disk)
        configuration.models(tmp_path, TEST_DATA / "xmodal_models.loc", tmp_path / "none.loc")
        lines = (tmp_path / "xmodal_models.loc").read_text().splitlines()
        second = "away" if is_there else "#? away"
        models = ["own", second, "demo_simulated", "demo_joint", "demo_types"]
        assert [line.partition("\t")[0] for line in lines] == ["# value", *models]
    assert lines[3].endswith(str(TEST_DATA / "model.safetensors"))


def seen(url: str) -> tuple[list[str], int]:
    """What anybody sees: names of published histories, and how many workflows."""
    histories, workflows = (
        json.loads(urllib.request.urlopen(f"{url}/api/{path}", timeout=30).read())
        for path in ("histories/published", "workflows?show_published=true")
    )
    return [history["name"] for history in histories], len(workflows)


def stopped(portal: subprocess.Popen[str]) -> None:
    """By Ctrl-C, and nothing that it started is left."""
    everything = set(server.members({portal.pid, *(os.getsid(pid) for pid in children(portal.pid))}))
    assert len(everything) >= 3  # itself, the web server and Celery
    assert addresses(everything) == {"0100007F"}  # 127.0.0.1
    portal.send_signal(signal.SIGINT)
    assert "stopped" in portal.communicate(timeout=60)[1]
    assert portal.returncode == 0
    assert [pid for pid in everything if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.galaxy
def test_ready_on_loopback_kept_and_stopped_whole(folder: Path) -> None:
    present = ["Example: open chromatin predicted from gene expression"], len(WORKFLOWS)
    portal = start(folder)  # the first start fills it
    try:
        url = re.findall(ADDRESS, said_until(portal, "ready after"))[0]
        assert seen(url) == present
        second = start(folder)
        assert "a portal is running with this folder" in second.communicate(timeout=60)[1]
        assert second.returncode == 3
        stopped(portal)
        private = ("", "admin_password", "id_secret", "galaxy.yml", "data/universe.sqlite", "data/objects")
        assert [name for name in private if (folder / name).stat().st_mode & 0o077] == []
        assert f"id_secret: {(folder / 'id_secret').read_text().strip()}" in (folder / "galaxy.yml").read_text()
        began = time.monotonic()
        portal = start(folder)
        url = re.findall(ADDRESS, said_until(portal, "ready after"))[0]
        seconds = time.monotonic() - began
        assert seen(url) == present  # kept, and not made twice
        stopped(portal)
    finally:
        portal.terminate()
        portal.wait(60)
    sys.stdout.write(f"a portal that was there before: ready after {seconds:.1f} s\n")
    assert seconds <= READY_S


def children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "99999"), "ports are 0 to 65535"),
        (("--host", "192.0.2.1"), "give another --port or --host"),
        (("--models", "/nowhere.loc"), "/nowhere.loc: there is no such table of models"),
        (("--jobs", "/nowhere.yml"), "/nowhere.yml: No such file or directory"),
        (("--jobs", "{broken}"), "this is not YAML"),
        (("--jobs", "{empty}"), "it has no execution with environments"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, options: tuple[str, str], said: str) -> None:
    files = {"broken": tmp_path / "broken.yml", "empty": tmp_path / "empty.yml"}
    files["broken"].write_text("a: [")
    files["empty"].write_text("a: 1")
    given = [options[0], options[1].format(**files), "--folder", str(tmp_path / "portal")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "galaxy_tools")}
    command = [sys.executable, "-m", "portal", *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3 and said in done.stderr, done.stderr
    assert not (tmp_path / "portal").exists()


@pytest.mark.galaxy
def test_a_port_in_use(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        portal = start(folder, "--port", str(taken.getsockname()[1]))
        said = portal.communicate(timeout=60)[1]
    assert portal.returncode == 3 and "What to do: give another --port" in said
    assert not folder.exists()
