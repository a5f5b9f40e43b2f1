"""The images as they are run: their labels, as any user on a read-only root, in pipelines, with a GPU's options."""

from __future__ import annotations

import json
import os
import time
import tomllib
from pathlib import Path

import pytest

from helpers_containers import IMAGES, Engine, engine, image
from helpers_nextflow import ROOT, Run, pipeline, succeeded

pytestmark = pytest.mark.containers
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# A user that no image knows, on a root where nothing can be written, without even a /tmp.
STRANGER = ("--user", "12345:12345", "--read-only")
GPU_STEP = """
process ON_GPU {
    label 'process_gpu'
    container "${task.accelerator ? '%(gpu)s' : '%(cpu)s'}"
    output: stdout
    script: "ls %(seen)s; xmodal --version"
}
workflow { ON_GPU().view() }
"""


def inspected(name: str) -> dict[str, object]:
    return json.loads(engine()("image", "inspect", name).stdout)[0]  # type: ignore[no-any-return]


def without_tmp(found: Engine) -> tuple[str, ...]:
    """podman gives a read-only container a /tmp that can be written, docker does not."""
    return ("--read-only-tmpfs=false",) if found.name == "podman" else ()


def said(done: Run) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_says_what_it_is(kind: str) -> None:
    config = inspected(image(kind))["Config"]
    assert isinstance(config, dict)
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
    assert (config["User"], config.get("Entrypoint") or []) == ("biodocker", [])
    licence = engine().run(image(kind), "head", "-n", "1", labels["about.license_file"])
    assert said(licence) == (ROOT / "LICENSE").read_text().splitlines(keepends=True)[0]


@pytest.mark.parametrize("kind", IMAGES)
def test_the_health_check_is_the_version(kind: str) -> None:
    config = inspected(image(kind))["Config"]
    assert isinstance(config, dict)
    check = (config.get("Healthcheck") or inspected(image(kind))["HealthCheck"])["Test"]  # type: ignore[index]
    assert check == ["CMD", "xmodal", "--version"]
    assert said(engine().run(image(kind), *check[1:])) == f"xmodal {VERSION}\n"


def test_both_images_hold_the_same_wheel() -> None:
    record = f"/opt/xmodal/lib/python3.11/site-packages/xmodal-{VERSION}.dist-info/RECORD"
    cpu, gpu = (said(engine().run(image(kind), "grep", "-v", "^../", record)) for kind in ("cpu", "gpu"))
    assert cpu == gpu
    assert "xmodal/cli/__init__.py,sha256=" in cpu


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
        xmodal simulate --cells 300 --genes 60 --peaks 150 --output cells.h5mu
        xmodal train cells.h5mu --model crossmp --set epochs=1 --output-dir trained --device cpu
        xmodal predict cells.h5mu --to atac --from rna --checkpoint trained/model.safetensors --output atac --device cpu
        xmodal evaluate cells.h5mu atac.h5ad --output-dir scores
        xmodal report scores --output-dir report
        id -u; ls
    """
    mount = ("--volume", f"{data}:/work", "--workdir", "/work", "--env", "HOME=/nonexistent")
    done = found.run(name, "bash", "-c", steps, options=(*STRANGER, *without_tmp(found), *mount))
    assert "12345" in said(done).splitlines()
    assert (data / "report/index.html").stat().st_uid == 12345
    assert "Warning" not in done.stderr
    left = {path.name for path in data.iterdir()}
    assert left == {"cells.h5mu", "trained", "atac.h5ad", "atac.h5mu", "scores", "report"}


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
