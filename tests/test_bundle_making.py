"""Making the bundle for machines without internet: what is refused, and which images go in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers_bundle import lay_out, make
from helpers_nextflow import ROOT


@pytest.mark.parametrize(
    ("options", "more", "code", "words"),
    [
        ((), {"XMODAL_BUNDLE_IMAGES": "tpu"}, 2, "'tpu' is none of"),
        ((), {"XMODAL_BUNDLE_IMAGES": "cpu,gpu"}, 2, "'cpu,gpu' is none of"),
        ((), {"XMODAL_BUNDLE_IMAGES": "cpu none"}, 2, "none stands alone"),
        (("--lock", "no-such.lock"), {}, 3, "no-such.lock"),
        (("--colour",), {}, 2, "no option --colour"),
        (("--model", str(ROOT / "LICENSE")), {}, 3, "LICENSE"),
        ((), {"XMODAL_BUNDLE_COMPRESS": "no-such-tool"}, 3, "no-such-tool"),
    ],
)
def test_making_refuses(tmp_path: Path, options: tuple[str, ...], more: dict[str, str], code: int, words: str) -> None:
    machine = lay_out(tmp_path)
    done = make(tmp_path, machine, *options, **more)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (machine.store / "saved").exists()  # at once, not after the images
    assert not list((tmp_path / "bundle").glob("*")) and not list((tmp_path / "bundle").glob(".*"))


@pytest.mark.parametrize(("given", "kinds"), [(" ", "cpu gpu"), ("gpu  cpu gpu", "cpu gpu"), ("cpu\ncpu", "cpu")])
def test_images_are_named_in_any_order_and_way(tmp_path: Path, given: str, kinds: str) -> None:
    done = make(tmp_path, lay_out(tmp_path), XMODAL_BUNDLE_IMAGES=given)
    assert done.returncode == 0, done.stderr
    told = json.loads(next(tmp_path.glob("bundle/*/MANIFEST.json")).read_text())
    assert [image["kind"] for image in told["images"]] == kinds.split()  # the CPU's first: install.sh goes by it


def test_making_refuses_where_images_or_wheels_are_missing(tmp_path: Path) -> None:
    machine = lay_out(tmp_path)
    (machine.store / "images.json").unlink()
    done = make(tmp_path, machine)
    assert done.returncode == 3 and "make containers" in done.stderr
    next((tmp_path / "containers" / "wheels").glob("tiny*")).unlink()
    done = make(tmp_path, machine, XMODAL_BUNDLE_IMAGES="none")
    assert done.returncode == 3 and "wheels are missing: tiny" in done.stderr


def test_making_needs_room(tmp_path: Path) -> None:
    machine = lay_out(tmp_path)
    machine.add(
        "df", "#!/bin/sh\nprintf 'Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/x 9 9 100 99%% /\\n'\n"
    )
    done = make(tmp_path, machine)
    assert done.returncode == 3 and "0 GB are free, 1 GB are needed" in done.stderr
