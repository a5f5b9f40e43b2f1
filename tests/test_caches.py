"""Folders of libraries' caches: as an unknown user, without a home, with one that is read-only, beside other users."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import XMODAL, Ran, call_xmodal
from helpers_data import write_10x
from xmodal import caches

GOLDEN = Path(__file__).parent / "golden"
NOBODY = 54321  # a user id that no system gives
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
# Where Python itself lies in root's home: reading everywhere, writing nowhere.
READING = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No variable of a cache set, packages that cannot be written, and a home of one's own; what is made goes again."""
    for name in (*caches.CACHES, "XDG_CONFIG_HOME", "TRITON_HOME", *caches.NAMES):
        monkeypatch.delenv(name, raising=False)
    home, packages = tmp_path / "home", tmp_path / "packages"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "someone")
    monkeypatch.setattr(caches.sysconfig, "get_path", lambda _: str(packages))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(caches, "_private_folders", [])
    before = dict(os.environ)
    yield home
    for name in set(os.environ) - set(before):
        del os.environ[name]


def test_nothing_is_done_where_all_is_well(clean: Path) -> None:
    before = dict(os.environ)
    assert caches.provide() is None
    assert dict(os.environ) == before and not list(clean.iterdir())


def test_no_home(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "file").write_text("")
    monkeypatch.setenv("HOME", str(clean / "file"))
    folder = caches.provide()
    assert folder is not None and stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"):
        assert Path(os.environ[name]).parent == folder and Path(os.environ[name]).is_dir()
    assert "NUMBA_CACHE_DIR" not in os.environ  # its default lies in XDG_CACHE_HOME
    assert caches.provide() is None  # the second time all is well
    caches._remove(folder, os.getpid() + 1)  # a forked child leaves it
    assert folder.exists()
    caches._remove(folder, os.getpid())
    assert not folder.exists()


def test_a_home_that_nobody_knows_makes_no_folder_called_tilde(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert caches.provide() is not None
    assert not os.environ["XDG_CACHE_HOME"].startswith("~")


def test_what_the_user_set_stays(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(clean / "not/there/yet"))
    assert caches.provide() is None
    assert os.environ["NUMBA_CACHE_DIR"] == str(clean / "not/there/yet")
    assert all(mode(clean / part) == 0o700 for part in ("not", "not/there", "not/there/yet"))  # before anybody else


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def everybodys(clean: Path) -> Path:
    """A folder as /tmp, whatever the umask."""
    folder = clean / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({}, True),  # made at once
        ({"numba": 0o700}, True),
        ({"numba": 0o755}, True),
        ({"numba": 0o777}, False),
        ({"numba": 0o775}, False),
        ({"numba": 0o700, "numba/umap_1": 0o775}, True),  # as numba makes it with umask 002; nobody else comes in
        ({"numba": 0o755, "numba/umap_1": 0o775}, False),
        ({"a": 0o775, "a/numba": 0o700}, False),  # others put another in its place
        ({"a": 0o755, "a/numba": 0o700}, True),
    ],
)
def test_where_everybody_writes(everybodys: Path, modes: dict[str, int], expected: bool) -> None:
    for name, bits in modes.items():
        (everybodys / name).mkdir()
        (everybodys / name).chmod(bits)
    folder = everybodys / ("a/numba" if "a" in modes else "numba")
    assert caches.usable(folder, shared=True, given=True) is expected
    if not modes:
        assert mode(folder) == 0o700


@pytest.mark.parametrize(("bits", "expected"), [(0o755, True), (0o775, True), (0o777, False)])
def test_elsewhere_a_group_may_write(clean: Path, bits: int, expected: bool) -> None:
    """As everything that is made with umask 002."""
    (clean / ".cache/numba").mkdir(parents=True)
    for name in (".cache", ".cache/numba"):
        (clean / name).chmod(bits)
    assert caches.usable(clean / ".cache/numba", shared=True) is expected
    assert (caches.provide() is None) is expected


def test_a_link_where_everybody_writes_is_not_followed(everybodys: Path, clean: Path) -> None:
    (clean / "elsewhere").mkdir(mode=0o700)
    (everybodys / "numba").symlink_to(clean / "elsewhere")
    assert not caches.usable(everybodys / "numba", shared=True, given=True)
    (clean / "scratch").symlink_to(everybodys)  # this one is ours, and leads there
    assert caches.usable(clean / "scratch/a", given=True) and not caches.usable(clean / "scratch/numba", given=True)


def test_a_folder_that_everybody_may_rename_is_not_used(everybodys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everybodys.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(everybodys / "numba"))
    folder = caches.provide()
    assert folder is not None and os.environ["NUMBA_CACHE_DIR"] == str(folder / "numba_cache_dir")
    assert not list(everybodys.iterdir())


def test_a_home_where_everybody_writes(everybodys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in our images: what has no variable is made at once as well."""
    monkeypatch.setenv("HOME", str(everybodys))
    assert caches.provide() is None
    assert mode(everybodys / ".cache") == mode(everybodys / ".triton") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="skipped, because only root can make files of another user")
def test_a_folder_between_that_is_another_users(everybodys: Path) -> None:
    (everybodys / "a/numba").mkdir(parents=True, mode=0o700)
    os.chown(everybodys / "a", NOBODY, NOBODY)
    assert not caches.usable(everybodys / "a/numba", shared=True, given=True)
    assert not caches.usable(everybodys / "a/other", shared=True, given=True)


def test_a_link_to_nothing_and_a_file_are_no_folders(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "link").symlink_to(clean / "nothing")
    (clean / "file").write_text("")
    assert not caches.usable(clean / "link") and not caches.usable(clean / "file")
    assert not caches.usable(clean / "file" / "below") and caches.usable(clean / "a" / "b")


@pytest.mark.skipif(os.geteuid() != 0, reason="skipped, because only root can make files of another user")
@pytest.mark.parametrize("whose", ["folder", "subfolder"])
def test_a_folder_that_another_user_fills_is_not_used(clean: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    """numba unpickles what it finds there."""
    shared = clean / "numba"
    (shared / "umap_123").mkdir(parents=True)
    shared.chmod(0o777)
    os.chown(shared if whose == "folder" else shared / "umap_123", NOBODY, NOBODY)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(shared))
    folder = caches.provide()
    assert folder is not None and os.environ["NUMBA_CACHE_DIR"] == str(folder / "numba_cache_dir")
    assert "MPLCONFIGDIR" not in os.environ


def test_a_user_without_a_name_gets_one(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    monkeypatch.delenv("USER")
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    caches.provide()
    assert getpass.getuser() == f"uid{NOBODY}"


def test_no_place_at_all_is_said_once(
    clean: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(**_: object) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null")
    assert caches.provide() is None
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "set TMPDIR" in caplog.text


def as_nobody() -> list[str]:
    """What to put before a command so that it runs as an unknown user."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("skipped, because only root can run a command as another user (with setpriv)")
    for before in ([*AS_NOBODY], [*AS_NOBODY, *READING]):
        if subprocess.run([*before, XMODAL, "--version"], capture_output=True, check=False).returncode == 0:
            return before
    pytest.skip("skipped, because another user may not read this environment")


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of the unknown user, outside of those that only root may enter."""
    folder = Path(tempfile.mkdtemp(prefix="xmodal-test-", dir="/tmp"))
    (folder / "tmp").mkdir()
    for path in (folder, folder / "tmp"):
        os.chmod(path, 0o755)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def run_as_nobody(folder: Path, home: str, *args: object, **more: str) -> Ran:
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": home, "TMPDIR": str(folder / "tmp"), **more}
    given = [*as_nobody(), XMODAL, *map(str, args), "--threads", "1"]
    done = subprocess.run(given, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def unread(folder: Path) -> Path:
    """A home of root's, to read only."""
    home = folder / "home"
    home.mkdir()
    home.chmod(0o555)
    return home


@pytest.mark.parametrize("home", ["absent", "read-only"])
def test_scanpy_is_imported_as_an_unknown_user(nobody: Path, home: str) -> None:
    """Of a 10x file; numba has no place for what scanpy lets it compile."""
    write_10x(nobody / "cells.h5").chmod(0o644)
    where = "/nonexistent" if home == "absent" else str(unread(nobody))
    done = run_as_nobody(nobody, where, "check", nobody / "cells.h5", "--quiet")
    assert done.code in (0, 3) and "Traceback" not in done.err and "locator" not in done.out + done.err
    assert not list((nobody / "tmp").iterdir())  # it went at exit
    assert sorted(p.name for p in nobody.iterdir()) == sorted(
        ["cells.h5", "tmp", *(["home"] if home != "absent" else [])]
    )


def test_matplotlib_is_silent_as_an_unknown_user(nobody: Path, tmp_path: Path) -> None:
    """A whole evaluation with its pictures; a shared NUMBA_CACHE_DIR that somebody else made does not matter."""
    shared = tmp_path / "numba"
    shared.mkdir(mode=0o755)
    given = ("--to", "atac", "--from", "rna", "--checkpoint", GOLDEN / "mean-format1.safetensors")
    assert call_xmodal("predict", GOLDEN / "cells.h5mu", *given, "--output", nobody / "p.h5ad").code == 0
    told = ("--prediction", f"atac={nobody / 'p.h5ad'}", "--no-controls", "--umap-cells", 0, "--cells", "all")
    done = run_as_nobody(
        *(nobody, "/nonexistent", "evaluate", GOLDEN / "cells.h5mu", *told, "--output-dir", nobody / "out", "--quiet"),
        NUMBA_CACHE_DIR=str(shared),
    )
    assert done.code == 0, done.err
    assert not [line for line in done.err.splitlines() if "atplotlib" in line or "ontconfig" in line or "mkdir" in line]
    assert list((nobody / "out").glob("*.png")) and not list((nobody / "tmp").iterdir())


def test_a_training_that_is_stopped_leaves_no_caches(nobody: Path, prepared: Path) -> None:
    cells = nobody / "cells.h5mu"
    shutil.copyfile(prepared, cells)
    cells.chmod(0o644)
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "TMPDIR": str(nobody / "tmp"), "LANG": "C.UTF-8"}
    args = ("train", cells, "--model", "crossmp", "--set", "epochs=500", "--set", "patience=500", "--threads", "1")
    given = [*as_nobody(), XMODAL, *map(str, args), "--output-dir", str(nobody / "out"), "--verbose"]
    process = subprocess.Popen(given, cwd=nobody, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "caches that cannot be used elsewhere" in line:
            assert len(list((nobody / "tmp").iterdir())) == 1
        if "epoch 2/" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (nobody / "out/state.safetensors").exists() and not list((nobody / "tmp").iterdir())
