"""The bundle with a real podman, carried into a network without anything: made, installed, and the pipeline run from it.

With an image of a shell and its tools always; with our own images where XMODAL_TEST_BUNDLE=1 (20 minutes, 32 GB of disk).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers_bundle import IMAGES, VERSION, lay_out
from helpers_containers import engine, image
from helpers_nextflow import ROOT

pytestmark = pytest.mark.containers
Result = subprocess.CompletedProcess[str]
TOOLS = (
    "bash cat ls mkdir touch sed awk grep date ps tail head sort env mktemp rm cp mv ln id dirname basename sleep cut tr uname "
    "wc tee stat true"
)
SAY = "#!/bin/bash\necho '{name}, version {version}'\n"
BUNDLE = f"xmodal-{VERSION}-bundle"


@dataclass(frozen=True)
class Site:
    """A machine: podman's images in ``folder/images`` only, and a PATH without this checkout."""

    folder: Path
    settings: str

    @property
    def env(self) -> dict[str, str]:
        java = Path(shutil.which("java") or "/usr/bin/java").parent  # need_nextflow has looked
        return {
            "PATH": f"{java}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "OMP_NUM_THREADS": "1",
            "NXF_ANSI_LOG": "false",
        } | ({"CONTAINERS_CONF": self.settings} if self.settings else {})

    def run(self, *command: object, timeout: int = 300, **more: str) -> Result:
        line = [str(c) for c in command]
        return subprocess.run(
            line, cwd=self.folder, env=self.env | more, capture_output=True, text=True, timeout=timeout, check=False
        )

    def offline(self, *command: object, timeout: int = 300) -> Result:
        """Run it where there is no network device but an idle loopback."""
        return self.run("unshare", "-n", *command, timeout=timeout)


def site() -> Iterator[Site]:
    """A machine; its images go at the end.  In a short path: in a long one conmon's sockets fail, and each run waits for 20 s."""
    folder = Path(tempfile.mkdtemp(prefix="xb"))
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    store = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(store)
    made = Site(folder, engine("podman").env.get("CONTAINERS_CONF", ""))
    yield made
    made.run("podman", "rmi", "--all", "--force", timeout=120)
    subprocess.run(["umount", folder / "images" / "overlay"], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def maker() -> Iterator[Site]:
    engine("podman")
    yield from site()


@pytest.fixture
def node() -> Iterator[Site]:
    """The machine without internet, proven to be that."""
    engine("podman")
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"skipped, because a network of its own is not allowed here: {probe.stderr.strip()}")
    for made in site():
        devices = made.offline("cat", "/proc/net/dev").stdout.splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        assert "unreachable" in made.offline("bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/443").stderr
        yield made


def room(folder: Path, gigabytes: int) -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        pytest.skip(f"skipped, because {gigabytes} GB of disk are needed and {free:.0f} GB are free")


def import_image(maker: Site) -> None:
    """Both images, of a shell and tools of this machine, in the maker's podman."""
    tree = maker.folder / "tree"
    for folder in ("bin", "tmp"):
        (tree / folder).mkdir(parents=True)
    (tree / "usr").mkdir()
    (tree / "usr" / "bin").symlink_to("../bin")
    for tool in TOOLS.split():
        found = Path(str(shutil.which(tool))).resolve()
        shutil.copy(found, tree / "bin" / tool)
        for word in subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout.split():
            if word.startswith("/") and not (tree / word[1:]).exists():
                (tree / word[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(word, tree / word[1:])
    for name, version in (("xmodal", VERSION), ("multiqc", "1.35")):
        (tree / "bin" / name).write_text(SAY.format(name=name, version=version))
        (tree / "bin" / name).chmod(0o755)
    subprocess.run(["tar", "-C", tree, "-cf", maker.folder / "image.tar", "."], check=True)
    for kind, name in IMAGES.items():
        change = ["-c", "ENV PATH=/bin", "-c", f"LABEL kind={kind}"]
        done = maker.run("podman", "import", *change, maker.folder / "image.tar", name)
        assert done.returncode == 0, done.stderr


def need_nextflow() -> None:
    if not (ROOT / ".nextflow-jars" / "nextflow-24.10.0.jar").exists():
        pytest.skip("skipped, because Nextflow was on PATH at make setup, so the bundle has none")
    if not shutil.which("java"):
        pytest.skip("skipped, because Nextflow needs Java, and there is none")


def run_pipeline(node: Site, prefix: Path, *options: str, timeout: int) -> Path:
    """The first of the two commands that the installer tells, by the Nextflow of the bundle.  Returns the results."""
    command = [prefix / "nextflow" / "nextflow", "run", prefix / "pipeline", "-profile", "test,podman,offline"]
    done = node.offline(*command, "-c", prefix / "xmodal.config", "--outdir", "out", *options, timeout=timeout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    scripts = [path.read_text() for path in node.folder.glob("work/*/*/.command.run")]
    assert len(scripts) >= 10
    assert all("podman run" in text and IMAGES["cpu"] in text for text in scripts)
    return node.folder / "out"


@pytest.mark.nextflow
def test_carried_into_a_network_without_anything(maker: Site, node: Site, tmp_path: Path) -> None:
    need_nextflow()
    lay_out(tmp_path)
    import_image(maker)
    given = ("--from", tmp_path / "containers", "--lock", tmp_path / "lock", "--output", tmp_path / "bundle")
    made = maker.run(ROOT / "scripts" / "bundle", *given, XMODAL_ENGINE="podman")
    assert made.returncode == 0, made.stderr
    prefix = node.folder / "opt" / "xmodal"
    done = node.offline(tmp_path / "bundle" / BUNDLE / "install.sh", "--prefix", prefix, "--engine", "podman")
    assert done.returncode == 0, done.stderr
    assert f"install: {IMAGES['gpu']}: xmodal, version {VERSION}" in done.stderr
    shutil.rmtree(tmp_path / "bundle")  # what is installed needs the bundle no more
    results = run_pipeline(node, prefix, "-stub", timeout=600)
    assert (results / "report" / "index.html").exists()
    assert (results / "pipeline_info" / "execution_report.html").stat().st_size > 0


@pytest.mark.nextflow
@pytest.mark.skipif(
    not os.environ.get("XMODAL_TEST_BUNDLE"),
    reason="skipped, because our own images take 20 minutes: XMODAL_TEST_BUNDLE=1",
)
def test_our_own_images_and_wheels(node: Site, tmp_path: Path) -> None:
    need_nextflow()
    image("gpu", "podman")
    image("cpu", "podman")
    room(tmp_path, 32)
    environment = dict(engine("podman").env) | {"XMODAL_ENGINE": "podman"}
    made = subprocess.run(
        [ROOT / "scripts" / "bundle", "--output", tmp_path / "bundle"], env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    installer, prefix = tmp_path / "bundle" / BUNDLE / "install.sh", node.folder / "opt" / "xmodal"
    done = node.offline(installer, "--prefix", prefix, "--engine", "podman", timeout=1500)
    assert done.returncode == 0, done.stderr
    results = run_pipeline(node, prefix, timeout=1200)
    for name in ("report/index.html", "multiqc/multiqc_report.html", "models/auto/model.safetensors"):
        assert (results / name).stat().st_size > 10_000, name
    node.run("podman", "rmi", "--all", "--force", timeout=300)  # room for the environment

    prefix = node.folder / "opt" / "python"
    done = node.offline(installer, "--prefix", prefix, "--engine", "none", timeout=1500)
    assert done.returncode == 0, done.stderr
    command = prefix / "pipeline" / ".venv" / "bin" / "xmodal"
    assert node.offline(command, "--version").stdout.strip() == f"xmodal, version {VERSION}"
    assert '"crossmp"' in node.offline(command, "models", "--json").stdout
