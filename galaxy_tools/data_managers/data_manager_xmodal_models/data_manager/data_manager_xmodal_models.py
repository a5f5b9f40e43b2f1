"""Take a trained model of xmodal from a path, an address or a dataset, check it, and say its line of the data table.

Galaxy moves what this leaves in ``--folder`` into the server's tool data and adds the line.  A model is data: it is read by
``xmodal models``, which knows safetensors only, and nothing in it is run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlsplit

TABLE = "xmodal_models"
MODEL = "model.safetensors"
BESIDE = ("model_card.md", "model_card.html", "report.html")  # what `make models` writes beside a model
LARGEST_BESIDE = 50 << 20  # bytes; a report has 1 MB
LARGEST_DOWNLOAD = 20 * 10**9  # bytes; models have 0.4 to some 100 MB
LOOPBACK = ("127.0.0.1", "localhost", "::1")
WAIT = 60  # seconds without an answer or a byte
CHUNK = 1 << 20
LONGEST_ID = 80


class Refused(Exception):
    """What is wrong and what to do; the dataset's error text."""

    def __init__(self, where: str, what: str, do: str) -> None:
        super().__init__(f"{where}: {what}. What to do: {do}")


class _OnlyEncrypted(urllib.request.HTTPRedirectHandler):
    """What began encrypted does not go on without it."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError("it leads to an address without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def identifier(given: str, name: str, taken: set[str]) -> str:
    """The id that was given, or one made from the name; refused where it is no id or is taken."""
    made = given or re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:LONGEST_ID].rstrip("_")
    if not re.fullmatch(rf"[a-z0-9][a-z0-9_-]{{0,{LONGEST_ID - 1}}}", made):
        raise Refused("id", f"{made!r} is no id", "give one of letters a-z, digits, _ and -")
    if made in taken:
        raise Refused(
            made, "there is a model of this id", "give another id, or remove that model's line from the table"
        )
    return made


def shown_name(name: str) -> str:
    """The name on one line, without tabs and other control characters."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if not plain:
        raise Refused("name", "it is empty", "give a name that says for which cells the model is")
    return plain


def take(source: dict[str, Any], sha256: str, folder: Path) -> None:
    """Bring the model, and what lies beside it, into ``folder``."""
    kind = source["kind"]
    if kind == "address":
        download(source["address"].strip(), sha256, folder / MODEL)
        return
    path = Path(source["path"].strip() if kind == "server" else source["model"])
    shown = str(path) if kind == "server" else "dataset"
    if path.is_dir():
        if path.name.endswith(".missed"):
            raise Refused(shown, "this model misses what its recipe asks for", "read its report; make a better one")
        for name in BESIDE:
            beside = path / name
            if beside.is_file() and beside.stat().st_size <= LARGEST_BESIDE:
                shutil.copyfile(beside, folder / name)
        path = path / MODEL
    if not path.is_file():
        raise Refused(
            shown, f"there is no {MODEL}" if path.name == MODEL else "there is no such file", "check the path"
        )
    try:
        shutil.copyfile(path, folder / MODEL)
    except PermissionError:
        raise Refused(shown, "Galaxy may not read it", "let the user that Galaxy's jobs run as read it") from None


def download(address: str, sha256: str, file: Path) -> None:
    """The file at ``address``; refused where it comes without encryption and without a checksum, is too large, or is cut."""
    scheme, host, path = parts(address)
    shown = f"{scheme}://{host}{path}"  # no token
    local = host in LOOPBACK
    if scheme == "http" and not local and not sha256:
        raise Refused(shown, "it comes without encryption", "give an https address, or the SHA-256 of the model")
    own = [urllib.request.ProxyHandler({})] if local else []
    opener = urllib.request.build_opener(_OnlyEncrypted, *own)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "xmodal-data-manager"})
        with opener.open(request, timeout=WAIT) as answer, file.open("wb") as handle:
            copied(answer, handle, min(LARGEST_DOWNLOAD, shutil.disk_usage(file.parent).free), shown)
    except InvalidURL:  # its text holds the address
        raise Refused(shown, "it is no address, or leads to none", "check the address, or give a path") from None
    except urllib.error.HTTPError as error:
        raise Refused(shown, f"the server says {error.code} ({error.reason})", "check the address") from None
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise Refused(
            shown, f"cannot be fetched ({getattr(error, 'reason', error)})", "check the address, or give a path"
        ) from None


def parts(address: str) -> tuple[str, str, str]:
    """Scheme, host and path. What is refused here is not repeated: a password may be anywhere in it."""
    do = "give such as https://host/model.safetensors, or a path on this server"
    try:
        split = urlsplit(address)
        host = split.hostname or ""
    except ValueError:
        raise Refused("address", "it cannot be read", do) from None
    if "@" in split.netloc:
        raise Refused(
            "address", "it holds a name or a password", "give one without, or fetch the file and give its path"
        )
    if split.scheme not in ("https", "http") or not host:
        raise Refused("address", "only https:// and http:// addresses are read", do)
    return split.scheme, host, split.path


def copied(answer: Any, handle: BinaryIO, most: int, shown: str) -> None:
    """Write what comes; refused where the server announces or sends more than ``most`` bytes, or less than it announced."""
    do = "check the address, make room on the disk, or give a path"
    expected = int(answer.headers.get("Content-Length") or 0)
    if expected > most:
        raise Refused(shown, f"it has {expected / 1e9:.1f} GB, more than the {most / 1e9:.1f} GB that are taken", do)
    came = 0
    while chunk := answer.read(CHUNK):
        came += len(chunk)
        if came > most:
            raise Refused(shown, f"it has more than the {most / 1e9:.1f} GB that are taken", do)
        handle.write(chunk)
    if expected and came != expected:
        raise Refused(shown, f"only {came} of {expected} bytes came", "run again")


def checked(model: Path, sha256: str, shown: str) -> dict[str, Any]:
    """What ``xmodal models`` says of the file; refused where it is no checkpoint or not the one that was meant."""
    with model.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if sha256 and found != sha256:
        raise Refused(shown, f"its SHA-256 is {found}, not {sha256}", "give the right file or checksum")
    try:
        done = subprocess.run(
            ["xmodal", "models", "--json", str(model)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise Refused("xmodal", "the command is not there", "install the package xmodal for this tool") from None
    if done.returncode == 3:
        said = done.stderr.strip().splitlines()[-1].removeprefix("xmodal: error: ").replace(str(model), shown)
        raise SaidByXmodal(said)
    if done.returncode != 0:
        raise Refused(
            shown, f"xmodal models ended with {done.returncode}: {done.stderr.strip()[-300:]}", "look at the file"
        )
    about: dict[str, Any] = json.loads(done.stdout)
    if about["sha256"] != found:
        raise Refused(shown, "it changed while it was read", "run again")
    return about


class SaidByXmodal(Refused):
    """What xmodal says itself: where, what and what to do."""

    def __init__(self, said: str) -> None:
        Exception.__init__(self, said)


def row(value: str, name: str, about: dict[str, Any]) -> dict[str, str]:
    """The line of the table; ``path``: the folder, as Galaxy is to move it."""
    genomes = {m["genome"] for m in about["modalities"].values() if m["genome"]}
    return {
        "value": value,
        "name": name,
        "genome": genomes.pop() if len(genomes) == 1 else "?",
        "predicts": ",".join(f"{source}:{target}" for source, target in about["directions"]),
        "sha256": about["sha256"],
        "path": value,
    }


def run(given: dict[str, Any], taken: set[str], folder: Path) -> dict[str, str]:
    """The line of the model, which is then in ``folder/ID``; nothing stays there where it is refused."""
    name = shown_name(given["name"])
    value = identifier((given.get("id") or "").strip(), name, taken)
    sha256 = (given.get("sha256") or "").strip().lower()
    place = folder / value
    shutil.rmtree(place, ignore_errors=True)  # of a job that was stopped and is run again in its folder
    place.mkdir(parents=True)
    try:
        take(given["source"], sha256, place)
        return row(value, name, checked(place / MODEL, sha256, MODEL))
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--given", type=Path, required=True, help="the form's values as JSON")
    parser.add_argument("--taken", type=Path, required=True, help="ids of the table, one on each line")
    parser.add_argument("--folder", type=Path, required=True, help="gets the folder of the model")
    parser.add_argument("--output", type=Path, required=True, help="gets the line of the table as JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    given = json.loads(options.given.read_text(encoding="utf-8"))
    taken = set(options.taken.read_text(encoding="utf-8").split())
    try:
        new = run(given, taken, options.folder)
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return 3
    options.output.write_text(
        json.dumps({"data_tables": {TABLE: [new]}}, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    return 0


def _stop(*_: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
