"""The drop-in promise, with nf-core's own tools: installed into a foreign pipeline and run there, linted, nf-tested.

``make test-nfcore`` brings nf-core's tools into ``.nfcore``.  No network is used after that: git is told to read this
repository's address from a copy of the checkout.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from helpers_nextflow import ROOT, TESTDATA, Run, example, nextflow, nextflow_command, succeeded

pytestmark = pytest.mark.nfcore
ADDRESS = "https://github.com/crossmodal/xmodal.git"
MODULES = sorted(path.parent.name for path in ROOT.glob("modules/crossmodal/xmodal/*/main.nf"))
SUBWORKFLOWS = sorted(path.parent.name for path in ROOT.glob("subworkflows/crossmodal/*/main.nf"))
# nf-core looks these up with `nextflow inspect` of Nextflow 25.04.4, which is newer than what can be assumed.
NEED_NEWER_NEXTFLOW = {"docker_tag", "singularity_tag"}


def git(*args: str, cwd: Path) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", *who, *args], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_of_the_checkout(folder: Path) -> Path:
    """A git repository with one commit: the checkout's files as they are now."""
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git("init", "-q", "-b", "main", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "as it is now", cwd=folder)
    return folder


@dataclass(frozen=True)
class Tools:
    """nf-core's command, with a home of its own in which git finds this repository under its public address."""

    command: str
    home: Path

    def run(self, folder: Path, *args: str, timeout: int = 400) -> Run:
        environment = os.environ | {
            "HOME": str(self.home),
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "NXF_OFFLINE": "true",
            "PATH": f"{Path(nextflow_command()).parent}:{os.environ['PATH']}",
        }
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        command = [self.command, "--hide-progress", *args]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_checkout(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def tools(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    own = ROOT / ".nfcore/bin/nf-core"
    found = str(own) if own.exists() else shutil.which("nf-core")
    if not found:
        pytest.skip("nf-core's tools are not there: make test-nfcore brings them, where PyPI can be reached")
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(f'[url "file://{suite}"]\n\tinsteadOf = {ADDRESS}\n')
    return Tools(found, home)


# --- installed elsewhere, and run there -----------------------------------------------------------------------------

# As nf-core's template has it: our conf/ does not travel.
THEIR_CONFIG = """
manifest { name = 'theirs/pipeline'; homePage = 'https://example.org/theirs'; version = '1.0.0' }
process {
    errorStrategy = { task.exitStatus in ((130..145) + 104 + (175..177)) ? 'retry' : 'finish' }
    resourceLimits = [cpus: 1, memory: 5.GB, time: 1.h]
    withLabel: process_single { cpus = 1; memory = { 6.GB * task.attempt } }
    withLabel: process_medium { cpus = 6; memory = { 36.GB * task.attempt } }
    withName: 'XMODAL_TRAIN'  { ext.args = '--model linear' }
}
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody else's pipeline, into which nothing is installed yet."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("modules", "subworkflows"):
        (folder / name).mkdir()
    (folder / ".nf-core.yml").write_text("repository_type: pipeline\nnf_core_version: 4.2.1\n")
    (folder / "main.nf").write_text(example("CROSSMODAL_TRAIN"))
    (folder / "nextflow.config").write_text(THEIR_CONFIG)
    about = {"name": "theirs/pipeline", "homePage": "https://example.org/theirs", "repos": {}}
    (folder / "modules.json").write_text(json.dumps(about))
    git("init", "-q", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "theirs", cwd=folder)
    return folder


def recorded(folder: Path) -> dict[str, dict[str, object]]:
    return json.loads((folder / "modules.json").read_text())["repos"][ADDRESS]  # type: ignore[no-any-return]


def test_every_module_installs_alone_and_whole(tools: Tools, foreign: Path) -> None:
    for module in MODULES:
        done = tools.run(foreign, "modules", "-g", ADDRESS, "-b", "main", "install", f"xmodal/{module}")
        assert done.returncode == 0, done.stderr
        here, there = (root / f"modules/crossmodal/xmodal/{module}" for root in (ROOT, foreign))
        files = sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())
        assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == files
        assert f"XMODAL_{module.upper()} " in done.stdout + done.stderr
    assert sorted(recorded(foreign)["modules"]["crossmodal"]) == [f"xmodal/{m}" for m in MODULES]  # type: ignore[index]


def test_subworkflows_install_with_what_they_need_and_run_there(tools: Tools, foreign: Path) -> None:
    for name in SUBWORKFLOWS:
        done = tools.run(foreign, "subworkflows", "-g", ADDRESS, "-b", "main", "install", name)
        assert done.returncode == 0, done.stderr
    assert sorted(recorded(foreign)["subworkflows"]["crossmodal"]) == SUBWORKFLOWS  # type: ignore[index]
    assert not (foreign / "bin").exists() and not (foreign / "conf").exists()
    run = nextflow(
        foreign, "run", "main.nf", "--rna", str(TESTDATA / "rna.h5ad"), "--atac", str(TESTDATA / "atac.h5ad")
    )
    succeeded(run)
    got = sorted(line for line in run.stdout.splitlines() if line.startswith("GOT"))
    assert got == [f"GOT donor1.{way} donor1.{way}.h5ad" for way in ("atac_to_rna", "rna_to_atac")]
    assert "SCORED donor1" in run.stdout and "metrics.json" in run.stdout


def test_the_installed_modules_pass_lint_in_the_foreign_pipeline(tools: Tools, foreign: Path) -> None:
    """Against this repository's own remote, as `nf-core modules -g ADDRESS lint` of a facility does."""
    assert (foreign / "modules.json").read_text().count('"xmodal/') == len(MODULES)
    own = ("--registry", "quay.io,ghcr.io/crossmodal")
    judge(tools.run(foreign, "modules", "-g", ADDRESS, "-b", "main", "lint", "--all", "--plain-text", *own))
    judge(tools.run(foreign, "subworkflows", "-g", ADDRESS, "-b", "main", "lint", "--all", "--plain-text"))


# --- linted here ----------------------------------------------------------------------------------------------------


def failures(text: str) -> list[tuple[str, str]]:
    """(component, test) of every failure that nf-core's plain report lists."""
    failed = text.partition("Tests Failed")[2] if "[✗]" in text else ""
    return re.findall(r"^(\S+) (\w+)$", failed.partition("LINT RESULTS SUMMARY")[0], re.M)


def nextflow_is_new() -> bool:
    text = subprocess.run([nextflow_command(), "-version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    return bool(found) and tuple(map(int, found.groups())) >= (25, 4, 4)  # type: ignore[union-attr]


def judge(run: Run) -> None:
    """Pass where nothing failed but what needs a newer Nextflow, and say how much that was."""
    text = run.stdout + run.stderr
    passed = re.search(r"(\d+) Tests? Passed", text)
    assert passed and int(passed[1]) > 10, text
    found = failures(text)
    listed = re.search(r"\[✗\]\s+(\d+) Tests? Failed\s*$", text, re.M)
    assert len(found) == int(listed[1] if listed else 0), text
    left = found if nextflow_is_new() else [item for item in found if item[1] not in NEED_NEWER_NEXTFLOW]
    print(f"\nnf-core lint: {passed[1]} passed, {len(found) - len(left)} skipped, because they need Nextflow 25.04.4")
    assert left == [], text


@pytest.mark.parametrize("kind", ["modules", "subworkflows"])
def test_lint_against_our_own_schemas(tools: Tools, suite: Path, kind: str) -> None:
    judge(tools.run(suite, kind, "-g", ADDRESS, "-b", "main", "lint", "--all", "--plain-text"))


@pytest.mark.parametrize("kind", ["modules", "subworkflows"])
def test_lint_against_nf_cores_schemas(tools: Tools, suite: Path, kind: str) -> None:
    mirror = os.environ.get("XMODAL_NFCORE_MODULES")
    if not mirror:
        pytest.skip("nf-core/modules is not there: name a clone of it in XMODAL_NFCORE_MODULES")
    judge(tools.run(suite, kind, "-g", mirror, "-b", "master", "lint", "--all", "--plain-text"))


def test_the_parameter_schema_passes(tools: Tools, suite: Path) -> None:
    done = tools.run(suite, "pipelines", "schema", "lint", "nextflow_schema.json")
    assert done.returncode == 0 and "Pipeline schema looks valid" in done.stdout + done.stderr, done.stderr


# --- nf-test --------------------------------------------------------------------------------------------------------


def test_every_component_has_an_nf_test_with_a_real_run_a_stub_and_a_snapshot() -> None:
    for file in [*ROOT.glob("modules/crossmodal/*/*"), *ROOT.glob("subworkflows/crossmodal/*")]:
        text = (file / "tests/main.nf.test").read_text()
        assert 'options "-stub"' in text and text.count("test(") >= 2, file
        assert (file / "tests/main.nf.test.snap").exists(), file


def test_nf_test_passes(suite: Path) -> None:
    found = shutil.which("nf-test")
    if not found:
        pytest.skip("nf-test is not on PATH (it is on no package registry); the other tests run the same modules")
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "NXF_OFFLINE": "true",
        "NXF_PLUGINS_MODE": "prod",
        "OMP_NUM_THREADS": "1",
    }
    command = [found, "test", "--ci", "modules", "subworkflows"]
    done = subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    executed = re.search(r"SUCCESS: Executed (\d+) tests", text)
    assert done.returncode == 0 and executed, text[-4000:]
    print(f"\nnf-test: {executed[1]} passed")


def test_meta_files_name_each_input_of_their_process() -> None:
    """nf-core's lint passes over inputs it does not understand; a facility reads meta.yml to know what to give."""
    for main in ROOT.glob("modules/crossmodal/*/*/main.nf"):
        block = main.read_text().partition("\n    input:\n")[2].partition("\n    output:\n")[0]
        names = re.findall(r"^\s*(?:tuple )?.*$", block, re.M)
        wanted = [
            n
            for line in names
            if not line.lstrip().startswith("//")
            for n in re.findall(r"(?:val|path)[( ]\s*(\w+)", line)
        ]
        told = yaml.safe_load((main.parent / "meta.yml").read_text())["input"]
        listed = [key for row in told for part in (row if isinstance(row, list) else [row]) for key in part]
        assert listed == wanted, main
