"""A real Galaxy runs a tool in our image, as Galaxy does it: its user, its mounts, its HOME, no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers_containers import IMAGES, engine, image
from helpers_galaxy import HERE, Galaxy, container_jobs, need_galaxy
from helpers_nextflow import TESTDATA

TOOL = HERE / "tools" / "in_container.xml"
WITHOUT = HERE / "tools" / "without_container.xml"  # its own <test> expects that it fails
OTHER_USER = 12345  # in no /etc/passwd


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, list[str]]]]:
    """What the tool says of its surroundings, by tool: as Galaxy's own user, and as one that nobody knows."""
    need_galaxy()
    image("cpu")
    folder = tmp_path_factory.mktemp("galaxy")
    jobs = container_jobs(engine())
    environments = jobs["execution"]["environments"]
    environments["other_user"] = environments["container"] | {"docker_set_user": f"{OTHER_USER}:{OTHER_USER}"}
    jobs["tools"].append({"id": "xmodal_as_other_user", "environment": "other_user"})
    environments["no_default"] = environments["container"].copy()
    del environments["no_default"]["docker_default_container_id"]
    jobs["tools"].append({"id": "xmodal_without_container", "environment": "no_default"})
    other = folder / "tools" / "as_other_user.xml"
    other.parent.mkdir(mode=0o755)  # a tool's folder is mounted too
    other.write_text(TOOL.read_text().replace('id="xmodal_in_container"', 'id="xmodal_as_other_user"'))
    # Galaxy's job folders are its own user's: only so can another one write there.
    with Galaxy(folder / "server", [TOOL, other, WITHOUT], jobs, umask=0) as galaxy:
        tests = galaxy.passes(TESTDATA)
        told = (test for test in tests if "where" in test["data"]["job"]["outputs"])
        yield {test["data"]["tool_id"]: _report(galaxy.output(test, "where").decode()) for test in told}


def _report(text: str) -> dict[str, list[str]]:
    return {line[0]: line[1:] for line in (row.split("\t") for row in text.splitlines())}


def test_the_tool_names_our_image() -> None:
    version = IMAGES["cpu"].rpartition(":")[2]
    assert IMAGES["cpu"].replace(version, "@TOOL_VERSION@") in TOOL.read_text()
    assert f'name="@TOOL_VERSION@">{version}<' in TOOL.read_text()


@pytest.mark.containers
def test_the_job_runs_in_the_container_as_galaxys_user(reports: dict[str, dict[str, list[str]]]) -> None:
    # That it was our image, without network and with inputs that cannot be changed is asserted by the tool's own <test>.
    report = reports["xmodal_in_container"]
    assert report["user"] == [str(os.geteuid()), str(os.getgid())]
    assert report["container"] == ["yes"]


@pytest.mark.containers
def test_a_user_that_the_image_does_not_know(reports: dict[str, dict[str, list[str]]]) -> None:
    report = reports["xmodal_as_other_user"]
    assert report["user"] == [str(OTHER_USER), str(OTHER_USER)]
    assert "/jobs_directory/" in report["HOME"][0]
    assert not Path(report["HOME"][0]).is_relative_to(Path.home())
