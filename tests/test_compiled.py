"""The image's compiled functions: copied where numba may write, never over what is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from helpers_nextflow import ROOT
from xmodal import compiled


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "image"
    (folder / "umap").mkdir(parents=True)
    (folder / "umap/f.nbi").write_text("compiled")
    monkeypatch.setattr(compiled, "READY", folder)
    monkeypatch.setattr(compiled, "_has_avx2", lambda: True)
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
    assert {name: os.environ[name] for name in compiled.PROCESSOR} == compiled.PROCESSOR


def test_a_cache_in_use_is_left_alone(ready: Path) -> None:
    (ready / "umap").mkdir(parents=True)
    assert compiled.provide()
    assert list((ready / "umap").iterdir()) == []


def test_no_room_is_no_error(ready: Path) -> None:
    ready.parent.parent.joinpath("cache").write_text("a file where the folder should be")
    assert compiled.provide()


def test_nothing_happens_outside_of_an_image(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_has_avx2", lambda: False)
    assert not compiled.provide()
    assert not ready.exists()
    assert not set(compiled.PROCESSOR) & set(os.environ)


def test_the_image_is_made_for_the_same_processor() -> None:
    script = (ROOT / "containers/warm-numba").read_text()
    assert all(f"{name}={value or chr(39) * 2} " in script for name, value in compiled.PROCESSOR.items())
