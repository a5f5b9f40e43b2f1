"""The release workflow: what a tag agrees with, its permissions, its own commands with stand-ins for docker and gh."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers_containers import IMAGES, engine, image
from helpers_nextflow import ROOT
from xmodal import __version__

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RELEASE: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
JOBS: dict[str, Any] = RELEASE["jobs"]
# Where a name of an image may stand; generated locks and snapshots of bytes hold none.
PLACES = (
    "README.md",
    "nextflow.config",
    "main.nf",
    "conf",
    "docs",
    "modules",
    "subworkflows",
    "workflows",
    "galaxy_tools",
)
PLACES += ("assets", "containers", "scripts", ".github", "tests")
NAME = re.compile(r"[\w.-]+(?::\d+)?/crossmodal/xmodal:[\w.@${}-]+")


def text_files() -> list[Path]:
    found = [
        path for place in PLACES for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
    ]
    kinds = {".nf", ".config", ".yml", ".yaml", ".md", ".xml", ".json", ".py", ".test", ".ga", ".sh", ""}
    return sorted(path for path in found if path.is_file() and path.suffix in kinds and path.stat().st_size < 1_000_000)


def foreign(text: str) -> set[str]:
    """Names of images of ours that are none of containers/images.yml's."""
    named = {name.replace("@TOOL_VERSION@", __version__).rstrip(".") for name in NAME.findall(text)}
    return named - set(IMAGES.values())


def test_every_image_that_is_named_anywhere_is_one_that_is_built() -> None:
    assert {str(p.relative_to(ROOT)): wrong for p in text_files() if (wrong := foreign(p.read_text()))} == {}
    naming = {p.name for p in text_files() if NAME.search(p.read_text())}
    assert {"main.nf", "images.yml", "usage.md"} <= naming  # the search sees what is there


def test_a_foreign_image_is_seen() -> None:
    cpu = IMAGES["cpu"]
    registry, _, path = cpu.partition("/")
    assert foreign(f"container '{cpu}'") == set() and foreign(f'container "{registry}/{path}"') == set()
    for wrong in (cpu + "1", cpu + "-rocm", f"localhost:5000/{path}", cpu.replace(__version__, "latest")):
        assert foreign(f"container '{wrong}'") == {wrong}


@pytest.mark.containers
@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_the_named_images_are_built_and_of_this_version(kind: str) -> None:
    form = '{{index .Config.Labels "software"}} {{index .Config.Labels "software.version"}}'
    done = engine()("image", "inspect", "--format", form, image(kind))
    assert done.stdout.split() == ["xmodal", __version__], done.stderr
    said = engine().run(IMAGES[kind], "xmodal", "--version")
    assert said.stdout.split()[-1] == __version__, said.stderr


def test_the_tag_is_this_version() -> None:
    tag = os.environ.get("XMODAL_RELEASE_TAG")
    if not tag:
        pytest.skip("skipped, because no release is being made (XMODAL_RELEASE_TAG)")
    assert tag == f"v{__version__}", f"the tag {tag} is not that of version {__version__} in pyproject.toml"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    heading = re.search(rf"^## {re.escape(__version__)}\b(.*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heading and "unreleased" not in heading[1], "CHANGELOG.md still calls this version unreleased"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_nothing_is_allowed_by_default(path: Path) -> None:
    text = path.read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert uses and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used) for used in uses), uses
    versions = {(used.split("@")[0], used.split("@")[1]) for used in uses}
    assert len(versions) == len({name for name, _ in versions})  # one version of each
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {} and all(job["permissions"] for job in workflow["jobs"].values())


def test_what_may_write_runs_no_code_of_the_checkout_or_of_packages() -> None:
    writing = {name for name, job in JOBS.items() if "write" in job["permissions"].values()}
    assert writing == {"report", "publish", "release"}
    for name in writing:
        steps = JOBS[name]["steps"]
        assert not [s for s in steps if "checkout" in s.get("uses", "")]
        assert not [s for s in steps if re.search(r"\b(make|pip|python|npm|docker run)\b", s.get("run", ""))]
    assert JOBS["build"]["permissions"] == {"contents": "read"}
    assert JOBS["publish"]["needs"] == "build" and JOBS["release"]["needs"] == "publish"


def test_only_a_tag_that_was_pushed_is_published() -> None:
    """A run by hand can name a tag as well: what looks at the tag asks how the run was started too."""
    pushed = "github.event_name == 'push' && github.ref_type == 'tag'"
    for name in ("publish", "release"):
        assert JOBS[name]["if"] == f"${{{{ {pushed} }}}}"
    packing = [step for step in JOBS["build"]["steps"] if "images.tar.zst" in str(step)]
    assert len(packing) == 2 and all(step["if"] == f"${{{{ {pushed} }}}}" for step in packing)
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert text.count("github.ref_type") == text.count(pushed) == 5


def test_the_build_is_the_one_of_a_checkout() -> None:
    """The very commands that a developer runs, tests and scans before anything is packed."""
    steps = JOBS["build"]["steps"]
    runs = [step.get("run", step.get("uses", "").split("@")[0]).strip() for step in steps]
    order = ("make containers", "make test-containers", "aquasecurity/trivy-action", "scripts/release-files dist")
    assert [runs.index(each) for each in order] == sorted(runs.index(each) for each in order)
    scans = [step["with"] for step in steps if "trivy-action" in step.get("uses", "")]
    assert [scan["exit-code"] for scan in scans] == ["1", "1"]
    assert all(scan["severity"] == "CRITICAL" and scan["ignore-unfixed"] for scan in scans)
    kinds = ("cpu", "gpu")
    assert [scan["image-ref"] for scan in scans] == [f"${{{{ steps.names.outputs.{kind} }}}}" for kind in kinds]


def test_the_workflow_names_no_image_and_no_package_index() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    assert "ghcr.io" not in text and not re.search("https?://", text)
    assert "vars.XMODAL_TORCH_CPU_INDEX" in text


def run_step(job: str, name: str, folder: Path, path: Path | None = None, **env: str) -> dict[str, str]:
    """Run a step's own lines as the runner does (bash -e, GITHUB_OUTPUT); its outputs."""
    script = next(step["run"] for step in JOBS[job]["steps"] if step.get("name") == name)
    output = folder / "output"
    output.touch()
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    environment = {"PATH": search, "GITHUB_OUTPUT": str(output), "HOME": str(folder)} | env
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in output.read_text().splitlines())


def stand_in(folder: Path, name: str, answer: str) -> Path:
    """A command that notes its arguments in calls, and answers by a line of bash."""
    folder.mkdir(exist_ok=True)
    tool = folder / name
    tool.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >>"{folder}/calls"\n{answer}\n')
    tool.chmod(0o755)
    return folder


def test_names_are_read_from_their_one_place(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/images.yml").write_text((ROOT / "containers/images.yml").read_text())
    assert run_step("build", "Names of the images", tmp_path) == IMAGES


def test_both_images_are_pushed_and_their_digests_handed_on(tmp_path: Path) -> None:
    answer = 'case "$*" in load) cat >/dev/null ;; login*) cat >"$HOME/token" ;; *inspect*) echo "${@: -1}@sha256:${#4}" ;; esac'
    tools = stand_in(tmp_path / "tools", "docker", answer)
    stand_in(tools, "zstd", "echo archive")
    env = {"TOKEN": "secret", "ACTOR": "somebody", "CPU": IMAGES["cpu"], "GPU": IMAGES["gpu"]}
    outputs = run_step("publish", "Push", tmp_path, tools, **env)
    calls = (tools / "calls").read_text()
    assert "docker login ghcr.io --username somebody --password-stdin" in calls and "secret" not in calls
    assert (tmp_path / "token").read_text() == "secret\n"
    assert re.findall("docker push --quiet (.*)", calls) == [IMAGES["cpu"], IMAGES["gpu"]]
    assert outputs["name"] == IMAGES["cpu"].rpartition(":")[0]
    assert all(re.fullmatch(r"sha256:\d+", outputs[kind]) for kind in IMAGES)


def test_each_pushed_image_gets_both_attestations() -> None:
    wanted = {(kind, f"dist/sbom-{kind}.cdx.json" if what else None) for kind in IMAGES for what in (0, 1)}
    steps = [s["with"] for s in JOBS["publish"]["steps"] if "actions/attest" in s.get("uses", "")]
    images = [w for w in steps if "subject-digest" in w]
    assert {(w["subject-digest"].split(".")[-1][:3], w.get("sbom-path")) for w in images} == wanted
    assert all(w["subject-name"] == "${{ steps.push.outputs.name }}" and w["push-to-registry"] for w in images)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A checkout after `make containers`, with small stand-ins for the wheel and the lists of parts."""
    checkout = tmp_path / "checkout"
    for name in (
        "scripts/release-files",
        "containers/bioconda",
        "pyproject.toml",
        "CHANGELOG.md",
        "README.md",
        "LICENSE",
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / name, checkout / name], check=True)
    (checkout / "src/xmodal").mkdir(parents=True)
    (checkout / "src/xmodal/__init__.py").write_text("")
    (checkout / ".venv").symlink_to(sys.prefix)
    wheels = checkout / "build/containers/wheels"
    wheels.mkdir(parents=True)
    (wheels / f"xmodal-{__version__}-py3-none-any.whl").write_text("wheel")
    for kind in IMAGES:
        bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": {"name": kind}}}
        (wheels.parent / f"sbom-{kind}.cdx.json").write_text(json.dumps(bom))
    return checkout


def test_the_files_of_a_release(built: Path) -> None:
    dist = built / "dist"
    done = subprocess.run([built / "scripts/release-files"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sdist = f"xmodal-{__version__}.tar.gz"
    summed = {
        f"xmodal-{__version__}-py3-none-any.whl",
        sdist,
        "sbom-cpu.cdx.json",
        "sbom-gpu.cdx.json",
        "bioconda-meta.yaml",
    }
    assert {path.name for path in dist.iterdir()} == summed | {"notes.md", "SHA256SUMS"}
    sums = dict(reversed(line.split("  ")) for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((dist / name).read_bytes()).hexdigest() for name in summed}
    assert f'sha256 = "{sums[sdist]}"' in (dist / "bioconda-meta.yaml").read_text()
    changes, notes = (ROOT / "CHANGELOG.md").read_text(), (dist / "notes.md").read_text()
    assert notes.strip() and notes in changes and "\n## " not in notes

    tools = stand_in(built / "tools", "gh", ":")
    run_step(
        "release", "Make the release", built, tools, TAG=f"v{__version__}", GH_TOKEN="t", GH_REPO="crossmodal/xmodal"
    )
    call = (tools / "calls").read_text()
    assert f"gh release create v{__version__} --verify-tag --title xmodal {__version__} --notes-file notes.md" in call
    assert set(re.findall(r"dist/(\S+)", call)) == summed | {"SHA256SUMS"}


def test_lists_of_parts_have_what_an_attestation_asks_for(built: Path) -> None:
    """actions/attest takes CycloneDX with these three keys and below 16 MB.  The number is one of the contents."""
    numbers = []
    for _ in range(2):
        subprocess.run([built / "scripts/release-files"], check=True, capture_output=True)
        boms = {kind: json.loads((built / f"dist/sbom-{kind}.cdx.json").read_text()) for kind in IMAGES}
        assert all(bom["bomFormat"] == "CycloneDX" and bom["specVersion"] for bom in boms.values())
        numbers.append({kind: bom["serialNumber"] for kind, bom in boms.items()})
    assert numbers[0] == numbers[1] and len(set(numbers[0].values())) == len(IMAGES)
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", number) for number in numbers[0].values())


def test_no_files_of_a_release_before_the_images(built: Path) -> None:
    (built / "build/containers/sbom-gpu.cdx.json").unlink()
    done = subprocess.run([built / "scripts/release-files"], capture_output=True, text=True)
    assert done.returncode == 3 and "make containers" in done.stderr and not (built / "dist").exists()
