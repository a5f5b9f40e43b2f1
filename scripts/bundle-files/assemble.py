"""Fills a bundle that `scripts/bundle` began: wheels, models, SBOMs, lists of the images, MANIFEST.json, SHA256SUMS.

Equal input gives equal bytes: no clock time, no host, no path from this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from xmodal.errors import InputRefused
from xmodal.learning import checkpoint
from xmodal.outputs import write_json, write_text

HERE = Path(__file__).resolve().parent
# For whom the wheels are; pip there judges for itself, here it is only asked whether a line of the lock means that machine.
TARGET = {
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
DECOMPRESS = {".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dc"]}
COMPILED = 1.1  # a venv takes this much more than its wheels unpacked, for compiled Python (measured: 1.06)
BLOCK = 1 << 20


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def link(source: Path, target: Path) -> None:
    """A hard link, so that gigabytes are not stored twice; a copy on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def requirements(lock: Path) -> dict[str, set[str]]:
    """Packages of a lock that the target machine needs, with the hashes of their files."""
    if not lock.is_file():
        raise InputRefused("the list of packages is missing", where=str(lock), do="give one that is there (--lock)")
    found: dict[str, set[str]] = {}
    for entry in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").replace("\\\n", " ")):
        head = re.match(r"([A-Za-z0-9._-]+)==\S+\s*(?:;([^-]*?))?\s*--hash", entry)
        if head and (not head[2] or Marker(head[2].strip()).evaluate(TARGET)):
            found[canonicalize_name(head[1])] = set(re.findall(r"sha256:([0-9a-f]{64})", entry))
    return found


def missing(wheels: list[str], origin: Path) -> InputRefused:
    return InputRefused(f"wheels are missing: {', '.join(wheels[:5])}", where=str(origin), do="make containers")


def add_wheels(bundle: Path, origin: Path, lock: Path, version: str) -> tuple[dict[str, str], int]:
    """Link the wheels that the lock names, and ours.  Returns the sums by path in the bundle, and the bytes of a venv."""
    needed, sums, unpacked, own = requirements(lock), {}, 0, []
    for wheel in sorted((origin / "wheels").glob("*.whl")):
        name, digest = canonicalize_name(wheel.name.split("-")[0]), sha256(wheel)
        if name == "xmodal":
            own.append(digest)
        elif digest not in needed.get(name, ()):
            continue
        needed.pop(name, None)
        link(wheel, bundle / "wheels" / wheel.name)
        sums[f"wheels/{wheel.name}"] = digest
        with zipfile.ZipFile(wheel) as archive:
            unpacked += sum(member.file_size for member in archive.infolist())
    if needed or len(own) != 1:
        raise missing(sorted(needed) or [f"one of xmodal {version}"], origin)
    shutil.copyfile(lock, bundle / "requirements.lock")
    write_text(bundle / "xmodal.lock", f"xmodal=={version} --hash=sha256:{own[0]}\n")
    return sums, int(unpacked * COMPILED)


def same_source(bundle: Path) -> bool:
    """Is the wheel made of the same files as the pipeline's commit?"""
    wheel = next((bundle / "wheels").glob("xmodal-*.whl"))
    source = bundle / "pipeline" / "src"
    with zipfile.ZipFile(wheel) as archive:
        packed = {m: archive.read(m) for m in archive.namelist() if m.startswith("xmodal/")}
    committed = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*") if p.is_file()}
    return packed == committed


def read_models(models: list[Path]) -> list[dict[str, Any]]:
    """Load checkpoints to the end, and say what they are, in the order given."""
    listed: list[dict[str, Any]] = []
    for path in models:
        header, digest = checkpoint.load(path).header, sha256(path)
        stem = f"{header['model']}-{digest[:12]}" if path.stem == "model" else path.stem  # train calls all alike
        name = f"models/{stem}.safetensors"
        if name in {m["file"] for m in listed}:
            raise InputRefused(f"two models would be {name}", where=str(path), do="rename one of them")
        modalities = {m["name"]: len(m["features"]) for m in header["vocabulary"]["modalities"]}
        listed.append(
            {
                "file": name,
                "sha256": digest,
                "model": header["model"],
                "written_by": header["version"],
                "directions": [f"{s} -> {t}" for s, t in header["directions"]],
                "features": modalities,
            }
        )
    return listed


def add_models(bundle: Path, models: list[Path]) -> list[dict[str, Any]]:
    listed = read_models(models)
    for path, model in zip(models, listed, strict=True):
        link(path, bundle / model["file"])
    return listed


class Counted:
    """What a stream has given so far; tarfile reads it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.bytes = stream, 0

    def read(self, size: int = -1) -> bytes:
        block = self.stream.read(size)
        self.bytes += len(block)
        return block


def read_archive(path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]], int]:
    """Read a docker archive back: its manifest, the JSON files in it, its bytes.  A cut archive is refused."""
    small: dict[str, dict[str, Any]] = {}
    with subprocess.Popen([*DECOMPRESS[path.suffix], str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        counted = Counted(process.stdout)
        with tarfile.open(fileobj=counted, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.isfile() and member.size < BLOCK and (handle := archive.extractfile(member)):
                    content = handle.read()
                    if content[:1] in b"[{":
                        small[member.name] = json.loads(content)
        while counted.read(BLOCK):
            pass
    if process.returncode or "manifest.json" not in small:
        raise InputRefused("the image archive cannot be read back", where=path.name, do="make room and run again")
    manifest: Any = small["manifest.json"]
    return manifest, small, counted.bytes


def list_images(bundle: Path, kinds: list[str], names: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Say what is in the archive; for Apptainer, which takes one image an archive, how to cut each out."""
    found = sorted((bundle / "images").glob("images.tar.*"))
    if not found:
        return [], 0
    manifest, parts, size = read_archive(found[0])
    by_name = {tag: entry for entry in manifest for tag in entry["RepoTags"] or ()}
    listed = []
    for kind, name in zip(kinds, names, strict=True):
        if name not in by_name:
            raise InputRefused(f"the engine did not save {name}", where=found[0].name, do="make containers")
        entry = by_name[name] | {"RepoTags": [name]}
        write_text(bundle / "images" / f"{kind}.json", json.dumps([entry]) + "\n")
        write_text(bundle / "images" / f"{kind}.files", "\n".join([entry["Config"], *entry["Layers"]]) + "\n")
        config = parts[entry["Config"]]
        labels = config.get("config", {}).get("Labels") or {}
        listed.append(
            {
                "kind": kind,
                "name": name,
                "id": "sha256:" + re.sub(r"^.*/|\.json$", "", entry["Config"]),
                "layers": config["rootfs"]["diff_ids"],
                "revision": labels.get("org.opencontainers.image.revision"),
            }
        )
    return listed, size


def write_contents(bundle: Path, told: dict[str, Any], archive_bytes: int) -> None:
    """What install.sh reads: a word and its value a line."""
    layers = {tuple(i["layers"]) for i in told["images"]}
    lines = [
        f"version {told['version']}",
        f"python {TARGET['python_version']}",
        f"venv_bytes {told['sizes']['venv']}",
        f"archive_bytes {archive_bytes}",
        f"one_sif {'yes' if len(layers) == 1 else 'no'}",
        *(f"image {i['kind']} {i['name']} {i['id'].removeprefix('sha256:')}" for i in told["images"]),
        *(f"model {m['file']}" for m in told["models"]),
    ]
    write_text(bundle / "contents.txt", "\n".join(lines) + "\n")


def write_readme(bundle: Path, told: dict[str, Any]) -> None:
    images = "\n".join(f"- `{i['name']}`" for i in told["images"]) or "- none: this bundle was made without images"
    models = "\n".join(f"- `{m['file']}`: {m['model']}, {', '.join(m['directions'])}" for m in told["models"])
    galaxy = f"{told['galaxy_tools']} files in `galaxy_tools/`" if told["galaxy_tools"] else "none in this version"
    flow = "`nextflow/` (24.10.0)" if told["nextflow"] else "not in this bundle: bring your own, 24.10.0 or newer"
    text = (HERE / "README.md").read_text(encoding="utf-8")
    for key, value in {
        "VERSION": told["version"],
        "COMMIT": told["commit"],
        "IMAGES": images,
        "MODELS": models
        or "- none: xmodal comes without trained models; train your own, or give some when the bundle is made",
        "GALAXY": galaxy,
        "NEXTFLOW": flow,
    }.items():
        text = text.replace(f"@{key}@", value)
    write_text(bundle / "README.md", text)


def files(bundle: Path) -> list[str]:
    return sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file() or p.is_symlink())


def write_sums(bundle: Path, known: dict[str, str]) -> None:
    lines = [f"{known.get(name) or sha256(bundle / name)}  {name}" for name in files(bundle)]
    write_text(bundle / "SHA256SUMS", "\n".join(lines) + "\n")


def check(options: argparse.Namespace) -> None:
    """What can be refused at once: the lock, wheels that are not there, models.  The wheels' sums take longer."""
    there = {canonicalize_name(wheel.name.split("-")[0]) for wheel in (options.origin / "wheels").glob("*.whl")}
    if lacking := sorted(({*requirements(options.lock), "xmodal"}) - there):
        raise missing(lacking, options.origin)
    read_models(options.models)


def assemble(bundle: Path, options: argparse.Namespace) -> None:
    sums, venv = add_wheels(bundle, options.origin, options.lock, options.version)
    models = add_models(bundle, options.models)
    for sbom in sorted(options.origin.glob("sbom-*.cdx.json")):
        (bundle / "sbom").mkdir(exist_ok=True)
        shutil.copyfile(sbom, bundle / "sbom" / sbom.name)
    kinds = options.kinds.split()
    images, archive_bytes = list_images(bundle, kinds, options.names.split())
    sizes = {"venv": venv, "images_unpacked": archive_bytes}
    for part in sorted(p for p in bundle.iterdir() if p.is_dir()):
        sizes[part.name] = sum(f.stat().st_size for f in part.rglob("*") if f.is_file())
    galaxy = len(list((bundle / "galaxy_tools").rglob("*.xml")))
    told: dict[str, Any] = {
        "version": options.version,
        "commit": options.commit,
        "wheel_is_of_commit": same_source(bundle),
        "lock_sha256": sha256(bundle / "requirements.lock"),
        "python": TARGET["python_version"],
        "images": images,
        "models": models,
        "wheels": len(sums),
        "galaxy_tools": galaxy,
        "nextflow": "24.10.0" if (bundle / "nextflow").is_dir() else None,
        "sboms": [f.name for f in sorted(bundle.glob("sbom/*"))],
        "sizes": sizes,
    }
    write_contents(bundle, told, archive_bytes)
    write_json(bundle / "MANIFEST.json", told)
    write_readme(bundle, told)
    write_sums(bundle, sums)
    warn(told, options.commit)


def warn(told: dict[str, Any], commit: str) -> None:
    if not told["wheel_is_of_commit"]:
        say("warning: the wheel is not made of this commit. What to do: commit, then make containers")
    old = [i["name"] for i in told["images"] if i["revision"] != commit]
    if old:
        say(f"warning: {', '.join(old)}: built from another commit. What to do: make containers")
    if not told["galaxy_tools"]:
        say("no Galaxy tools in this commit")
    if not told["models"]:
        say("no models given (XMODAL_BUNDLE_MODELS)")


def say(text: str) -> None:
    sys.stderr.write(f"bundle: {text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--version", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="as build/containers")
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--kinds", default="", help="cpu gpu")
    parser.add_argument("--names", default="", help="names of the images, in the order of --kinds")
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--check", action="store_true", help="look whether it could be done, and write nothing")
    options = parser.parse_args()
    try:
        check(options) if options.check else assemble(options.bundle, options)
    except InputRefused as error:
        say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
