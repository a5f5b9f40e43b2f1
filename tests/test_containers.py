"""The images as they are run: their labels, as any user on a read-only root, in pipelines, with a GPU's options."""

from __future__ import annotations

import hashlib
import json
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from helpers_containers import IMAGES, Engine, engine, image
from helpers_docker import docker
from helpers_nextflow import ROOT, Run, pipeline, succeeded

pytestmark = pytest.mark.containers
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# A user that no image knows, on a root where nothing can be written, without even a /tmp.
STRANGER = ("--user", "12345:12345", "--read-only")


def inspected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine()("image", "inspect", name).stdout)[0]
    return found


def without_tmp(found: Engine) -> tuple[str, ...]:
    """podman gives a read-only container a /tmp that can be written, docker does not."""
    return ("--read-only-tmpfs=false",) if found.name == "podman" else ()


def said(done: Run) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_says_what_it_is(kind: str) -> None:
    config = inspected(image(kind))["Config"]
    labels = config["Labels"]
    assert (labels["software"], labels["software.version"]) == ("xmodal", VERSION)
    wanted = {
        "base_image",
        "version",
        "about.summary",
        "about.home",
        "about.license",
        "org.opencontainers.image.revision",
    }
    assert wanted <= {name for name, value in labels.items() if value}
    assert (config["User"], config.get("Entrypoint") or []) == ("1000", [])
    licence = engine().run(image(kind), "head", "-n", "1", labels["about.license_file"])
    assert said(licence) == (ROOT / "LICENSE").read_text().splitlines(keepends=True)[0]


@pytest.mark.parametrize("kind", IMAGES)
def test_the_health_check_is_the_version(kind: str) -> None:
    about = inspected(image(kind))
    places = [about["Config"], about]  # Docker's place and podman's
    check = next(found["Test"] for place in places for name, found in place.items() if name.lower() == "healthcheck")
    assert check == ["CMD", "xmodal", "--version"]
    assert said(engine().run(image(kind), *check[1:])) == f"xmodal, version {VERSION}\n"


def test_both_images_hold_the_same_wheel() -> None:
    record = f"/opt/xmodal/lib/python3.11/site-packages/xmodal-{VERSION}.dist-info/RECORD"
    cpu, gpu = (said(engine().run(image(kind), "grep", "-v", "^../", record)) for kind in ("cpu", "gpu"))
    assert cpu == gpu
    assert "xmodal/cli/__init__.py,sha256=" in cpu


def test_an_image_holds_the_source_that_lies_here() -> None:
    program = "import xmodal, pathlib; print(pathlib.Path(xmodal.__file__).parent)"
    place = said(engine().run(image("cpu"), "python", "-c", program)).strip()
    sums = said(engine().run(image("cpu"), "bash", "-c", f"cd {place} && find . -name '*.py' | xargs sha256sum"))
    inside = {name.removeprefix("./"): digest for digest, name in (line.split() for line in sums.splitlines())}
    source = ROOT / "src/xmodal"
    here = {str(p.relative_to(source)): hashlib.sha256(p.read_bytes()).hexdigest() for p in source.rglob("*.py")}
    assert inside == here, "these images are of other code: make containers"


def test_the_version_is_said_within_a_second() -> None:
    name, seconds = image("cpu"), []
    for _ in range(5):
        began = time.perf_counter()
        said(engine().run(name, "xmodal", "--version"))
        seconds.append(time.perf_counter() - began)
    print(f"xmodal --version in a container: {min(seconds):.2f} s at best of five, {max(seconds):.2f} s at worst")
    assert min(seconds) <= 1.0


@pytest.mark.parametrize("kind", IMAGES)
def test_the_list_of_contents_is_that_of_the_image(kind: str) -> None:
    bom = json.loads(said(engine().run(image(kind), "cat", "/opt/xmodal/share/xmodal/sbom.cdx.json")))
    assert bom["bomFormat"] == "CycloneDX"
    assert json.loads((ROOT / f"build/containers/sbom-{kind}.cdx.json").read_text()) == bom
    listed = {part["purl"].partition("?")[0] for part in bom["components"] if "purl" in part}
    freeze = "import importlib.metadata as m; [print(d.name.lower().replace('_', '-'), d.version) for d in m.distributions()]"
    packages = said(engine().run(image(kind), "python", "-c", freeze)).splitlines()
    assert len(packages) > 50
    missing = [line for line in packages if f"pkg:pypi/{line.replace(' ', '@').replace('+', '%2B')}" not in listed]
    assert missing == []
    assert any(name.startswith("pkg:deb/debian/libc6@") for name in listed)


def test_a_stranger_on_a_read_only_root_trains_predicts_and_reports(tmp_path: Path) -> None:
    found, name = engine(), image("cpu")
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    steps = """
        set -e
        xmodal simulate --output-dir sim --cells 300 --genes 60 --peaks 150
        xmodal prepare --h5mu sim/paired.h5mu --split-by batch --output prepared.h5mu
        xmodal train prepared.h5mu --model crossmp --set epochs=1 --output-dir model
        xmodal predict prepared.h5mu --from rna --to atac --checkpoint model/model.safetensors --output atac.h5ad
        xmodal evaluate prepared.h5mu --prediction atac=atac.h5ad --output-dir scores
        xmodal report --training model --evaluation scores --output report.html
        id -u; ls
    """
    mount = ("--volume", f"{data}:/work", "--workdir", "/work", "--env", "HOME=/nonexistent")
    done = found.run(name, "bash", "-c", steps, options=(*STRANGER, *without_tmp(found), *mount))
    assert "12345" in said(done).splitlines()
    assert (data / "report.html").stat().st_uid == 12345
    assert "Warning" not in done.stderr
    left = {path.name for path in data.iterdir()}
    assert left == {"sim", "prepared.h5mu", "model", "atac.h5ad", "scores", "report.html"}


def test_numba_finds_what_was_compiled_for_it() -> None:
    program = """
        set -e
        xmodal simulate --output-dir sim --cells 300 --genes 60 --peaks 150 --quiet
        xmodal prepare --h5mu sim/paired.h5mu --split-by batch --output cells.h5mu --quiet
        xmodal train cells.h5mu --model mean --output-dir model --quiet
        xmodal predict cells.h5mu --from rna --to atac --checkpoint model/model.safetensors --output atac.h5ad --quiet
        NUMBA_DEBUG_CACHE=1 xmodal evaluate cells.h5mu --prediction atac=atac.h5ad --output-dir scores
    """
    variables = dict(pair.split("=", 1) for pair in inspected(image("cpu"))["Config"]["Env"])
    lines = said(engine().run(image("cpu"), "bash", "-c", program, options=("--workdir", "/tmp"))).splitlines()
    assert any(f"data loaded from '{variables['NUMBA_CACHE_DIR']}/" in line for line in lines)
    assert [line for line in lines if "data saved to" in line] == []


def local_config(folder: Path) -> tuple[str, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.config").write_text("process.resourceLimits = [cpus: 2, memory: 6.GB, time: 1.h]\n")
    return "-c", "site.config"


def test_the_pipeline_runs_in_podman_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = engine("podman")
    image("cpu", "podman")
    monkeypatch.setattr(os, "environ", dict(found.env))
    folder = tmp_path / "run"
    site = local_config(folder)
    with (folder / "site.config").open("a") as config:  # no task may find what an image lacks
        config.write("process.containerOptions = '--network none'\n")
    run = pipeline(folder, *site, "-profile", "test,podman,offline", "--outdir", "out", timeout=600)
    succeeded(run)
    assert (folder / "out/report/index.html").exists()
    assert list((folder / "out/multiqc").glob("*.html"))
    scripts = [path.read_text() for path in folder.glob("work/*/*/.command.run")]
    assert len(scripts) > 5
    assert all("podman run" in text and IMAGES["cpu"] in text for text in scripts)


def test_docker_runs_the_pipeline_and_passes_the_gpu_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with docker(tmp_path) as found:
        done = found("run", "--rm", *STRANGER, "--network", "none", IMAGES["cpu"], "xmodal", "--version")
        assert said(done) == f"xmodal, version {VERSION}\n"
        monkeypatch.setattr(os, "environ", dict(found.env))
        run = pipeline(
            tmp_path / "run", *local_config(tmp_path / "run"), "-profile", "test,docker,offline", "--outdir", "out"
        )
        succeeded(run)
        assert (tmp_path / "run/out/report/index.html").exists()
        if (tmp_path / "bin").exists():  # our own daemon, whose hook only writes down that it was called
            said(found("run", "--rm", "--gpus", "all", IMAGES["cpu"], "xmodal", "--version"))
            assert "prestart" in (tmp_path / "hook.log").read_text()
