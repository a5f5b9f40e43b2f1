"""The image's compiled functions: copied where numba may write, never over what is there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers_nextflow import ROOT
from xmodal import caches, compiled, warm


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "image"
    (folder / "umap").mkdir(parents=True)
    (folder / "umap/f.nbi").write_text("compiled")
    monkeypatch.setattr(compiled, "READY", folder)
    monkeypatch.setattr(compiled, "_fits", lambda: True)
    monkeypatch.setattr(caches, "_private_folders", [])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    for name in compiled.PROCESSOR:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setitem(os.environ, name, "")  # so that what provide sets is taken back
        del os.environ[name]
    target = tmp_path / "cache/numba"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(target))
    return target


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_the_cache_begins_with_the_images(ready: Path, there: bool) -> None:
    if there:
        ready.mkdir(parents=True)
    assert compiled.provide()
    assert (ready / "umap/f.nbi").read_text() == "compiled"
    assert [path.name for path in ready.parent.iterdir()] == ["numba"]
    assert ready.stat().st_mode & 0o777 == 0o700
    assert {name: os.environ[name] for name in compiled.PROCESSOR} == compiled.PROCESSOR


def test_a_cache_in_use_is_left_alone(ready: Path) -> None:
    (ready / "umap").mkdir(parents=True)
    assert compiled.provide()
    assert list((ready / "umap").iterdir()) == []


@pytest.mark.parametrize("why", ["a file", "everybody"])
def test_a_folder_that_others_came_to_gives_way_to_a_private_one(ready: Path, why: str) -> None:
    if why == "a file":
        ready.parent.write_text("where the folder should be")
    else:
        (ready / "umap").mkdir(parents=True)
        ready.chmod(0o777)
    assert compiled.provide()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder != ready and folder.parent.name.startswith("xmodal-caches-")
    assert (folder / "umap/f.nbi").read_text() == "compiled"
    assert compiled.provide() and os.environ["NUMBA_CACHE_DIR"] == str(folder)


def test_no_room_is_no_error(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled.shutil, "copytree", full)
    assert compiled.provide()
    assert not list(ready.iterdir())


def test_nothing_happens_outside_of_an_image(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_fits", lambda: False)
    assert not compiled.provide()
    assert not ready.exists()
    assert not set(compiled.PROCESSOR) & set(os.environ)


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_the_image_is_made_for_the_same_processor(image: str) -> None:
    script = (ROOT / "containers" / image / "Dockerfile").read_text()
    wanted = " ".join(f"{name}={value or chr(39) * 2}" for name, value in compiled.PROCESSOR.items())
    assert f"{wanted} HOME=/tmp" in script and "-m xmodal.warm" in script


SECOND = """
from xmodal import compiled, warm
warm.graphs()
from umap import layouts, umap_
for one in (umap_.smooth_knn_dist, umap_.compute_membership_strengths, getattr(layouts, compiled.EPOCH)):
    print(one.__name__, sum(one.stats.cache_hits.values()) > 0, sum(one.stats.cache_misses.values()))
print(type(layouts._nb_optimize_layout_euclidean_single_epoch_parallel._cache).__name__)
"""


def test_umap_is_compiled_once_for_all_processes() -> None:
    warm.graphs()
    done = subprocess.run([sys.executable, "-c", SECOND], check=True, capture_output=True, text=True)
    *found, alone = done.stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in found] == ["True 0"] * 3, done.stdout
    assert alone == "NullCache"  # one that runs on several threads is none of these


V3 = "fma cx16 movbe popcnt pni ssse3 sse4_1 sse4_2 avx f16c lahf_lm abm bmi1 avx2 bmi2 xsave fpu"


@pytest.mark.parametrize(
    ("without", "expected"), [("fpu", True), ("avx2", False), ("fma", False), ("bmi2", False), ("abm", False)]
)
def test_the_whole_of_the_processor_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str, expected: bool
) -> None:
    """A virtual machine may hide a part: functions that need it would end the process with an illegal instruction."""
    has = " ".join(flag for flag in V3.split() if flag != without)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {has}\n\nprocessor\t: 1\nflags\t\t: {has}\n")
    monkeypatch.setattr(compiled, "CPUINFO", tmp_path / "cpuinfo")
    assert compiled._fits() is expected
    monkeypatch.setattr(compiled, "CPUINFO", tmp_path / "nothing")
    assert not compiled._fits()
