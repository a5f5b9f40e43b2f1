"""The bundle for machines without internet: made of stand-ins, damaged in every way, installed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers_bundle import IMAGES, VERSION, Machine, lay_out, make
from helpers_nextflow import ROOT

GOLDEN = ROOT / "tests" / "golden" / "mean-format1.safetensors"
TOOLS = (
    "bash",
    "dirname",
    "readlink",
    "realpath",
    "cut",
    "sort",
    "find",
    "sed",
    "head",
    "comm",
    "wc",
    "sha256sum",
    "cat",
    "ls",
)
Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of stand-ins, with one model."""
    folder = tmp_path_factory.mktemp("bundle")
    done = make(folder, lay_out(folder), "--model", str(GOLDEN))
    assert done.returncode == 0, done.stderr
    return folder / "bundle" / f"xmodal-{VERSION}-bundle"


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil: hard links, so replace files, do not write into them."""
    shutil.copytree(made, tmp_path / "carried over", copy_function=os.link, symlinks=True)
    return tmp_path / "carried over"


@pytest.fixture
def node(tmp_path: Path) -> Machine:
    """Where to install: a machine with podman and no image."""
    return Machine(tmp_path / "node").add("podman")


def replace(path: Path, content: str) -> None:
    path.unlink()
    path.write_text(content)


def install(node: Machine, bundle: Path, *options: object) -> Result:
    return node.run(bundle / "install.sh", *options)


def refused(done: Result, prefix: Path, *words: str, code: int = 3) -> None:
    """Ended with ``code``, one line that says why, and nothing left behind."""
    assert done.returncode == code, done.stderr
    assert "What to do:" in done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(prefix.parent.glob(f"{prefix.name}*"))


def test_what_is_in_it(made: Path) -> None:
    told = json.loads((made / "MANIFEST.json").read_text())
    assert {i["kind"]: i["name"] for i in told["images"]} == IMAGES
    [model] = told["models"]
    assert model["model"] == "mean" and "rna -> atac" in model["directions"]
    assert told["wheels"] == 2 and not told["wheel_is_of_commit"]
    assert told["sboms"] == ["sbom-cpu.cdx.json"]
    for name in ("pipeline/main.nf", "pipeline/modules", "install.sh", "README.md", "requirements.lock", model["file"]):
        assert (made / name).exists(), name
    assert (made / "galaxy_tools").is_dir() == bool(told["galaxy_tools"])
    assert "@" not in re.sub(r"`[^`]*`", "", (made / "README.md").read_text())


def test_it_tells_neither_time_nor_place(made: Path) -> None:
    for name in ("MANIFEST.json", "contents.txt", "SHA256SUMS", "README.md"):
        text = (made / name).read_text()
        assert not re.search(r"\b20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text), name
        assert str(ROOT) not in text and str(made.parent) not in text, name


def test_equal_input_gives_equal_bytes_and_one_tar(made: Path, tmp_path: Path) -> None:
    again = make(tmp_path, lay_out(tmp_path), "--model", str(GOLDEN), "--tar")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "bundle" / made.name / "SHA256SUMS").read_bytes() == (made / "SHA256SUMS").read_bytes()
    subprocess.run(["tar", "-xf", tmp_path / "bundle" / f"{made.name}.tar", "-C", tmp_path], check=True)
    checked = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / made.name, check=False)
    assert checked.returncode == 0


def test_installing_with_podman(bundle: Path, node: Machine, tmp_path: Path) -> None:
    prefix = tmp_path / "opt" / "xmodal"
    done = install(node, bundle, "--prefix", prefix, "--engine", "podman")
    assert done.returncode == 0, done.stderr
    assert set(node.images()) == set(IMAGES.values())
    config = (prefix / "xmodal.config").read_text()
    assert f"task.accelerator ? '{IMAGES['gpu']}' : '{IMAGES['cpu']}'" in config
    flow = f"{prefix}/nextflow/nextflow" if (bundle / "nextflow").is_dir() else "nextflow"  # as make setup found it
    assert f" {flow} run {prefix}/pipeline -profile test,podman,offline" in done.stdout
    assert f"--checkpoint {prefix}/models/mean-format1.safetensors" in done.stdout
    assert (prefix / "models" / "mean-format1.safetensors").read_bytes() == GOLDEN.read_bytes()
    assert (prefix / "pipeline" / "main.nf").exists()

    again = install(node, bundle, "--prefix", prefix, "--engine", "podman")  # the same again changes nothing
    assert again.returncode == 0 and "already installed" in again.stderr and "loading" not in again.stderr
    (node.store / "images.json").unlink()  # somebody removed the images: they come back
    again = install(node, bundle, "--prefix", prefix, "--engine", "podman")
    assert again.returncode == 0 and set(node.images()) == set(IMAGES.values())

    other = install(
        node, bundle, "--prefix", prefix, "--engine", "podman", "--no-images"
    )  # another way is another folder
    assert other.returncode == 3 and "is not empty" in other.stderr
    assert list(prefix.parent.iterdir()) == [prefix]


@pytest.mark.parametrize("name", ["wheels/tiny-1.0-py3-none-any.whl", "contents.txt", "pipeline/main.nf"])
def test_a_damaged_file_is_named(bundle: Path, node: Machine, tmp_path: Path, name: str) -> None:
    replace(bundle / name, (bundle / name).read_text(errors="replace") + "x")
    refused(install(node, bundle, "--prefix", tmp_path / "p"), tmp_path / "p", f"{name} is damaged")
    assert not node.images()


@pytest.mark.parametrize("name", ["images/images.tar.*", "install.sh", "SHA256SUMS", "contents.txt"])
def test_a_missing_file_is_named(bundle: Path, node: Machine, tmp_path: Path, name: str) -> None:
    name = next(bundle.glob(name)).relative_to(bundle).as_posix()
    script = tmp_path / "install.sh"  # bash reads it, so it may go
    shutil.copy(bundle / "install.sh", script)
    (bundle / name).unlink()
    if name == "install.sh":
        shutil.copy(script, bundle / "start.sh")
        done = node.run("bash", bundle / "start.sh", "--prefix", tmp_path / "p")
    else:
        done = install(node, bundle, "--prefix", tmp_path / "p")
    refused(done, tmp_path / "p", f"{name} is missing")


def test_a_damaged_line_of_the_list_is_found(bundle: Path, node: Machine, tmp_path: Path) -> None:
    listed = (bundle / "SHA256SUMS").read_text()
    replace(bundle / "SHA256SUMS", "x" + listed[1:])  # no sum any more, so nothing would be compared
    refused(install(node, bundle, "--prefix", tmp_path / "p"), tmp_path / "p", "SHA256SUMS in", "is damaged: ")
    assert not node.images()


def test_a_list_that_was_cut_and_a_foreign_file_are_found(bundle: Path, node: Machine, tmp_path: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines(keepends=True)
    replace(bundle / "SHA256SUMS", "".join(lines[:-1]))
    refused(install(node, bundle, "--prefix", tmp_path / "p"), tmp_path / "p", "is not listed in SHA256SUMS")
    (bundle / "SHA256SUMS").write_text("".join(lines))
    (bundle / "wheels" / "foreign.whl").write_text("")
    refused(install(node, bundle, "--prefix", tmp_path / "p"), tmp_path / "p", "wheels/foreign.whl is not listed")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "lxc"), "'lxc' is none of"),
        (("--prefix",), "--prefix needs a value"),
        (("--fast",), "no option '--fast'"),
    ],
)
def test_wrong_options(bundle: Path, node: Machine, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    refused(install(node, bundle, *options), tmp_path / "p", words, "install.sh --help", code=2)


def test_help(bundle: Path, node: Machine) -> None:
    done = install(node, bundle, "--help")
    assert done.returncode == 0 and "--no-images" in done.stdout and VERSION in done.stdout


def test_without_a_home(bundle: Path, node: Machine, tmp_path: Path) -> None:
    start = ("env", "-u", "HOME", bundle / "install.sh")
    assert f"$HOME/xmodal-{VERSION}" in node.run(*start, "--help").stdout
    done = node.run(*start, "--engine", "podman")
    assert done.returncode == 2 and "HOME is not set, so --prefix is needed" in done.stderr
    done = node.run(*start, "--prefix", tmp_path / "p", "--engine", "podman")
    assert done.returncode == 0, done.stderr


def test_parents_are_for_all_and_blanks_are_quoted(bundle: Path, node: Machine, tmp_path: Path) -> None:
    prefix = tmp_path / "a site" / "soft & ware" / "p"
    done = node.run("bash", "-c", 'umask 077; "$0" --prefix "$1"', bundle / "install.sh", prefix)
    assert done.returncode == 0, done.stderr
    assert {p.stat().st_mode & 0o777 for p in (prefix, prefix.parent, prefix.parent.parent)} == {0o755}
    command = next(line for line in done.stdout.splitlines() if "-profile test" in line)
    assert str(prefix / "pipeline") in shlex.split(command) and f"{prefix}/xmodal.config" in shlex.split(command)
    [model] = [line for line in done.stdout.splitlines() if "--checkpoint" in line]
    assert Path(shlex.split(model)[-1]).is_file()


def test_no_room(bundle: Path, node: Machine, tmp_path: Path) -> None:
    node.add(
        "df", "#!/bin/sh\nprintf 'Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/x 9 9 100 99%% /\\n'\n"
    )
    done = install(node, bundle, "--prefix", tmp_path / "p")
    refused(done, tmp_path / "p", "0 GB are free, 1 GB are needed")
    assert not node.images()


def test_no_engine(bundle: Path, tmp_path: Path) -> None:
    node = Machine(tmp_path / "bare").add("nothing")
    bare = tmp_path / "tools"
    bare.mkdir()
    for tool in TOOLS:
        (bare / tool).symlink_to(str(shutil.which(tool)))
    done = node.run("bash", bundle / "install.sh", "--prefix", tmp_path / "p", PATH=str(bare))
    refused(done, tmp_path / "p", "no podman, docker, apptainer or singularity on PATH", "--engine none")
    done = node.run("bash", bundle / "install.sh", "--prefix", tmp_path / "p", "--engine", "none", PATH=str(bare))
    refused(done, tmp_path / "p", "no Python 3.11")


def test_no_zstd_where_the_engine_needs_it(bundle: Path, tmp_path: Path) -> None:
    if not (bundle / "images" / "images.tar.zst").exists():
        pytest.skip("skipped, because zstd is not on this machine, so the archive is a .gz")
    node = Machine(tmp_path / "node").add("docker")
    bare = tmp_path / "tools"
    bare.mkdir()
    for tool in (*TOOLS, "awk", "df", "du"):
        (bare / tool).symlink_to(str(shutil.which(tool)))
    (bare / "docker").symlink_to(node.bin / "docker")
    done = node.run("bash", bundle / "install.sh", "--prefix", tmp_path / "p", PATH=str(bare))
    refused(done, tmp_path / "p", "docker cannot read images.tar.zst without", "XMODAL_BUNDLE_COMPRESS=gzip")


@pytest.mark.parametrize("place", ["file", "other"])
def test_a_taken_prefix_is_left_alone(bundle: Path, node: Machine, tmp_path: Path, place: str) -> None:
    prefix = tmp_path / place
    if place == "other":
        prefix.mkdir()
    (prefix / "mine" if place == "other" else prefix).write_text("mine")
    done = install(node, bundle, "--prefix", prefix)
    assert done.returncode == 3 and str(prefix) in done.stderr
    assert [p.name for p in prefix.rglob("*")] == (["mine"] if place == "other" else [])


def test_an_engine_that_fails_leaves_nothing(bundle: Path, node: Machine, tmp_path: Path) -> None:
    (node.store / "broken").touch()
    done = install(node, bundle, "--prefix", tmp_path / "p")
    assert done.returncode == 1 and "podman could not load the images" in done.stderr
    assert not list(tmp_path.glob("p*"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_that_looks_complete(
    bundle: Path, node: Machine, tmp_path: Path, how: signal.Signals
) -> None:
    slow = 'import time\nif words[0] == "load":\n    time.sleep(5)\nelif words[0] == "info"'
    node.add("podman", (node.bin / "podman").read_text().replace('if words[0] == "info"', slow))
    process = subprocess.Popen(
        [bundle / "install.sh", "--prefix", tmp_path / "p"],
        env=node.env,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until = time.monotonic() + 30
    while not list(tmp_path.glob("p.part.*/pipeline/main.nf")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, how)
    process.communicate(timeout=60)
    assert process.returncode in (143, -how)
    assert not (tmp_path / "p").exists()
    if how == signal.SIGTERM:
        assert not list(tmp_path.glob("p.*"))
    node.add("podman")
    again = install(node, bundle, "--prefix", tmp_path / "p")
    assert again.returncode == 0  # and the way is free
    assert ("was killed and left" in again.stderr) == (how == signal.SIGKILL)


def test_apptainer_gets_one_image_at_a_time(bundle: Path, tmp_path: Path) -> None:
    node, prefix = Machine(tmp_path / "node").add("apptainer"), tmp_path / "p"
    done = install(node, bundle, "--prefix", prefix, "--engine", "apptainer")
    assert done.returncode == 0, done.stderr
    sif = prefix / "images" / f"xmodal-{VERSION}.sif"
    assert list((prefix / "images").iterdir()) == [sif]  # all their layers are the same, so one file does
    assert sif.read_text() == IMAGES["cpu"]
    assert f"task.accelerator ? '{sif}' : '{sif}'" in (prefix / "xmodal.config").read_text()
    assert not (prefix / ".sif").exists()
    (node.store / "broken").touch()
    done = install(node, bundle, "--prefix", tmp_path / "q", "--engine", "apptainer")
    assert done.returncode == 0 and "warning: does not run on this machine; try on a node" in done.stderr


def test_without_images(tmp_path: Path) -> None:
    made = make(tmp_path, lay_out(tmp_path), XMODAL_BUNDLE_IMAGES="none")
    assert made.returncode == 0, made.stderr
    bundle = tmp_path / "bundle" / f"xmodal-{VERSION}-bundle"
    assert (
        not (bundle / "images").exists()
        and "none: this bundle was made without images" in (bundle / "README.md").read_text()
    )
    assert "xmodal comes without trained models" in (bundle / "README.md").read_text()
    node = Machine(tmp_path / "node").add("podman")
    done = node.run("bash", "-c", 'umask 077; "$0" --prefix "$1"', bundle / "install.sh", tmp_path / "p")
    assert done.returncode == 0 and not node.images()
    assert all(
        p.is_symlink() or p.stat().st_mode & 0o044 == 0o044 for p in (tmp_path / "p").rglob("*")
    )  # for all users


def test_without_an_engine(bundle: Path, node: Machine, tmp_path: Path) -> None:
    prefix = tmp_path / "a & b"  # such names must survive the renaming
    done = install(node, bundle, "--prefix", prefix, "--engine", "none")
    if "no Python" in done.stderr:
        pytest.skip(f"skipped, because {done.stderr}")
    assert done.returncode == 0, done.stderr
    command = prefix / "pipeline" / ".venv" / "bin" / "xmodal"
    assert node.run(command).stdout == f"xmodal, version {VERSION}\n"
    assert not subprocess.run(["grep", "-rlI", "\\.part\\.", command.parent], capture_output=True).stdout
    assert "-profile test,offline" in done.stdout
