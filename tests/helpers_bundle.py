"""A bundle of stand-ins for the tests: two images of a few bytes, two wheels, and engines that only note what they are told."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from helpers_nextflow import ROOT

IMAGES: dict[str, str] = yaml.safe_load((ROOT / "containers" / "images.yml").read_text())
VERSION = IMAGES["cpu"].rsplit(":", 1)[1]
ENGINE = f"""#!{sys.executable}
import json, os, shutil, sys, tarfile
store, words = os.environ["FAKE_STORE"], sys.argv[1:]
known = os.path.join(store, "images.json")
images = json.load(open(known)) if os.path.exists(known) else {{}}
if words[0] == "info":
    print(store)
elif words[:2] == ["image", "inspect"]:
    if "probe" in words[-1]:
        sys.exit(0)
    if words[-1] not in images:
        sys.exit(1)
    print("5000000" if "Size" in words[3] else images[words[-1]])
elif words[0] == "save":
    open(os.path.join(store, "saved"), "w").close()
    shutil.copyfileobj(open(os.path.join(store, "images.tar"), "rb"), sys.stdout.buffer)
elif words[0] == "load":
    if os.path.exists(os.path.join(store, "broken")):
        sys.exit("no space left on device")
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        manifest = [json.load(archive.extractfile(m)) for m in archive if m.name == "manifest.json"][0]
    images |= {{tag: entry["Config"].removesuffix(".json") for entry in manifest for tag in entry["RepoTags"]}}
    json.dump(images, open(known, "w"))
elif words[0] == "build":  # Apptainer: one image an archive, and all its parts in it
    with tarfile.open(words[2].removeprefix("docker-archive:")) as archive:
        [entry] = json.load(archive.extractfile("manifest.json"))
        assert {{entry["Config"], *entry["Layers"], "manifest.json"}} == set(archive.getnames())
    open(words[1], "w").write(entry["RepoTags"][0])
elif words[0] in ("run", "exec"):
    if os.path.exists(os.path.join(store, "broken")):
        sys.exit("no user namespaces")
    print("xmodal, version {VERSION}")
"""


@dataclass(frozen=True)
class Machine:
    """A machine with (fake) engines: ``bin`` goes first on PATH, ``store`` is where their images are."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def add(self, name: str, script: str = ENGINE) -> Machine:
        for place in (self.bin, self.store):
            place.mkdir(parents=True, exist_ok=True)
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)
        return self

    @property
    def env(self) -> dict[str, str]:
        """Ours, without what this machine sets for xmodal or for its engines."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XMODAL_", "CONTAINERS_", "DOCKER_"))}
        own = {"PATH": f"{self.bin}:{os.environ['PATH']}", "FAKE_STORE": str(self.store), "HOME": str(self.folder)}
        return kept | own | self.more

    def run(self, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(c) for c in command], capture_output=True, text=True, env=self.env | more, timeout=300
        )

    def images(self) -> dict[str, str]:
        known = self.store / "images.json"
        return dict(json.loads(known.read_text())) if known.exists() else {}


def wheel(folder: Path, name: str, files: dict[str, str], points: str = "") -> Path:
    """Write a wheel of a few lines."""
    version = "1.0" if name != "xmodal" else VERSION
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file), text)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "".join(f"{f},,\n" for f in [*files, f"{info}/RECORD"]))
    return path


def save_images(path: Path) -> dict[str, str]:
    """Write a docker archive of both images, which share their layer.  Returns name -> id."""
    layer = b"a layer"
    parts, manifest, ids = {f"{hashlib.sha256(layer).hexdigest()}.tar": layer}, [], {}
    for kind, name in IMAGES.items():
        rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}
        config = json.dumps({"config": {"Labels": {"kind": kind}}, "rootfs": rootfs}).encode()
        ids[name] = hashlib.sha256(config).hexdigest()
        manifest.append({"Config": f"{ids[name]}.json", "RepoTags": [name], "Layers": list(parts)[:1]})
        parts[f"{ids[name]}.json"] = config
    parts["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o444  # as podman does
            archive.addfile(member, io.BytesIO(content))
    return ids


def lay_out(folder: Path) -> Machine:
    """What `make containers` leaves, of stand-ins, and a machine whose podman has both images."""
    machine = Machine(folder / "maker").add("podman")
    (machine.store / "images.json").write_text(json.dumps(save_images(machine.store / "images.tar")))
    wheels = folder / "containers" / "wheels"
    tiny = wheel(wheels, "tiny", {"tiny.py": ""})
    main = f"def main():\n    import tiny\n    print('xmodal, version {VERSION}')\n"
    wheel(
        wheels,
        "xmodal",
        {"xmodal/__init__.py": "", "xmodal/cli.py": main},
        "[console_scripts]\nxmodal = xmodal.cli:main\n",
    )
    digest = hashlib.sha256(tiny.read_bytes()).hexdigest()
    absent = f"absent==2 ; sys_platform == 'win32' \\\n    --hash=sha256:{'0' * 64}\n"
    (folder / "lock").write_text(f"{absent}tiny==1.0 \\\n    --hash=sha256:{digest}\n")
    (folder / "containers" / "sbom-cpu.cdx.json").write_text("{}\n")
    return machine


def make(folder: Path, machine: Machine, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/bundle over stand-ins; the bundle lies in ``folder/bundle``."""
    given = ("--from", folder / "containers", "--lock", folder / "lock", "--output", folder / "bundle")
    return machine.run(ROOT / "scripts" / "bundle", *given, *options, **{"XMODAL_ENGINE": "podman"} | more)
