"""The bioconda recipe says what pyproject.toml says, its sum comes from the archive of the release, and it reads as a recipe."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from helpers_nextflow import ROOT
from xmodal import __version__

FOLDER = ROOT / "containers/bioconda"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# PyPI's name to conda-forge's; all others are the same. matplotlib-base is matplotlib without a window system.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "igraph": "python-igraph"}


def rendered(text: str | None = None) -> dict[str, Any]:
    """The recipe as conda-build reads it."""

    def pin_subpackage(name: str, max_pin: str) -> str:
        return f"{name} pinned to {max_pin}"

    text = (FOLDER / "meta.yaml").read_text() if text is None else text
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text)
    recipe: dict[str, Any] = yaml.safe_load(template.render(PYTHON="python", pin_subpackage=pin_subpackage))
    return recipe


def as_conda(requirement: str) -> str:
    found = re.fullmatch(r"([a-z0-9-]+)(>=[0-9.]+)", requirement)
    assert found, f"a requirement of another form: {requirement}"
    return f"{CONDA.get(found[1], found[1])} {found[2]}"


def test_requirements_are_those_of_pyproject() -> None:
    requirements = rendered()["requirements"]
    python = f"python {PROJECT['project']['requires-python']}"
    assert sorted(requirements["run"]) == sorted([python, *map(as_conda, PROJECT["project"]["dependencies"])])
    assert sorted(requirements["host"]) == sorted([python, "pip", *map(as_conda, PROJECT["build-system"]["requires"])])
    assert "build" not in requirements  # pure Python


def test_facts_are_those_of_pyproject() -> None:
    recipe, project = rendered(), PROJECT["project"]
    assert recipe["package"] == {"name": project["name"], "version": project["version"]}
    assert project["version"] == __version__
    assert recipe["build"]["entry_points"] == [f"{name} = {call}" for name, call in project["scripts"].items()]
    assert recipe["build"]["noarch"] == "python" and recipe["build"]["number"] == 0
    assert recipe["about"]["license"] == project["license"]
    assert (ROOT / recipe["about"]["license_file"]).is_file()
    assert {f"xmodal --version | grep -F '{__version__}'", "xmodal --help"} <= set(recipe["test"]["commands"])


def test_bioconda_s_rules() -> None:
    """What its reviewers ask: https://bioconda.github.io/contributor/linting.html and .../guidelines.html."""
    text, recipe = (FOLDER / "meta.yaml").read_text(), rendered()
    assert recipe["build"]["run_exports"] == ["xmodal pinned to x.x"]  # below 1.0 a minor version may break
    assert all(recipe["about"][key] for key in ("home", "license", "license_file", "summary"))
    assert len(recipe["about"]["summary"]) <= 120 and "url" in recipe["source"] and "sha256" in recipe["source"]
    assert f"/v{__version__}/" in recipe["source"]["url"] and "git_url" not in recipe["source"]
    assert recipe["extra"]["recipe-maintainers"] and FOLDER.joinpath("meta.yaml").read_bytes().isascii()
    specs = recipe["requirements"]["run"] + recipe["requirements"]["host"]
    assert all(re.fullmatch(r"[a-z0-9-]+( >=[0-9.]+)?", spec) for spec in specs)  # a blank before the version
    assert not re.search(r"^\s*skip:|# \[", text, re.M)  # noarch knows no selectors


def test_requirements_read_as_conda_s_own() -> None:
    python = ROOT / ".containerlint/bin/python"
    if not python.exists():
        pytest.skip("skipped, because py-rattler is not there: scripts/setup-container-lint fetches it")
    recipe = rendered()["requirements"]
    judge = (
        "import json, sys; from rattler import MatchSpec\n"
        "for spec in json.load(sys.stdin): found = MatchSpec(spec, strict=True); assert str(found) == spec, (spec, str(found))"
    )

    def judged(specs: list[str]) -> int:
        return subprocess.run([python, "-c", judge], input=json.dumps(specs), text=True, capture_output=True).returncode

    assert judged(recipe["run"] + recipe["host"]) == 0
    assert judged(["numpy >>1"]) != 0 and judged(["numpy>=1.26"]) != 0


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    hatchling = ROOT / ".venv/bin/hatchling"
    if not hatchling.exists():
        pytest.skip("skipped, because hatchling is not there: make setup")
    command = [hatchling, "build", "--target", "sdist", "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / f"xmodal-{__version__}.tar.gz"


def finish(archive: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FOLDER / "finish", archive], capture_output=True, text=True)


def test_an_unreleased_recipe_has_no_sum_and_a_finished_one_has_the_archive_s(sdist: Path) -> None:
    assert not re.fullmatch("[0-9a-f]{64}", rendered()["source"]["sha256"])  # conda-build stops at it
    done = finish(sdist)
    assert done.returncode == 0, done.stderr
    finished = rendered(done.stdout)
    assert finished["source"].pop("sha256") == hashlib.sha256(sdist.read_bytes()).hexdigest()
    unfinished = rendered()
    del unfinished["source"]["sha256"]
    assert finished == unfinished and "not released" not in done.stdout


def test_an_archive_of_another_version_is_refused(sdist: Path, tmp_path: Path) -> None:
    other = tmp_path / "xmodal-9.9.9.tar.gz"
    shutil.copy(sdist, other)
    done = finish(other)
    assert done.returncode == 3 and not done.stdout and f"xmodal-{__version__}.tar.gz" in done.stderr


def test_the_archive_holds_the_package_and_nothing_else(sdist: Path) -> None:
    """Folders of tools in the checkout (environments, peers) have files of the same names."""
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"xmodal-{__version__}/") for name in archive.getnames()}
    beside = {name for name in names if not name.startswith("src/xmodal/")}
    assert beside == {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore", "PKG-INFO"}
    assert {"src/xmodal/cli/__init__.py", "src/xmodal/models/auto.py"} <= names


def test_the_recipe_s_own_tests_pass_on_what_its_archive_installs(sdist: Path, tmp_path: Path) -> None:
    """The script of the recipe into a folder of its own, then its imports and its entry point there."""
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path, "--strip-components", "1"], check=True)
    recipe = rendered()
    python, target = ROOT / ".venv/bin/python", tmp_path / "installed"
    script = recipe["build"]["script"].replace("-vvv", f"-q --target {target}").split()
    subprocess.run([python, *script[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(target), "HOME": str(tmp_path)}
    module, function = recipe["build"]["entry_points"][0].split(" = ")[1].split(":")
    lines = [f"import {name}; assert {name}.__file__.startswith({str(target)!r})" for name in recipe["test"]["imports"]]
    lines += ["import sys", "sys.argv = ['xmodal', '--version']", f"import {module}", f"{module}.{function}()"]
    command = [python, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and __version__ in done.stdout, done.stderr
    assert (target / f"xmodal-{__version__}.dist-info/licenses/LICENSE").is_file()
