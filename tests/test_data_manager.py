"""The data manager's script: what it takes, what it refuses, and that nothing stays of what it refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from helpers_nextflow import ROOT

MANAGER = ROOT / "galaxy_tools" / "data_managers" / "data_manager_xmodal_models"
SCRIPT = MANAGER / "data_manager" / "data_manager_xmodal_models.py"
MODEL = ROOT / "galaxy_tools" / "test-data" / "model.safetensors"
SHA256 = hashlib.sha256(MODEL.read_bytes()).hexdigest()
HOSTILE = [
    "$(touch pwned)",
    "a; rm -rf .",
    "../../etc/passwd",
    "'\"`x`\"'",
    "-rf",
    "Größe — 細胞 🧬",
    "a\tb\nc",
    "x" * 300,
]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("data_manager_xmodal_models", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder: Path, given: dict[str, Any], taken: str = "") -> subprocess.CompletedProcess[str]:
    """The script as Galaxy runs it, in ``folder``; its line is in out.json, the model under files."""
    (folder / "given.json").write_text(json.dumps(given))
    (folder / "taken").write_text(taken)
    command = ["--given", "given.json", "--taken", "taken", "--folder", "files", "--output", "out.json"]
    env = os.environ | {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, SCRIPT, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def line(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "out.json").read_text())
    assert list(content) == ["data_tables"] and list(content["data_tables"]) == ["xmodal_models"]
    [found] = content["data_tables"]["xmodal_models"]
    return dict(found)


def refused(folder: Path, done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Exit 3, one message that says what to do, and nothing is left."""
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr and "What to do:" in done.stderr and len(done.stderr.splitlines()) == 1
    assert all(text in done.stderr for text in said), done.stderr
    assert not (folder / "out.json").exists()
    assert not list((folder / "files").glob("*"))


def on_server(path: Path, **more: str) -> dict[str, Any]:
    return {"source": {"kind": "server", "path": str(path)}, "name": "A model", "id": "", "sha256": ""} | more


def at(address: str, **more: str) -> dict[str, Any]:
    return on_server(Path(), **more) | {"source": {"kind": "address", "address": address}}


def test_a_file_becomes_a_line(tmp_path: Path) -> None:
    done = run(tmp_path, on_server(MODEL, name="PBMC, human (hg38)", sha256=SHA256.upper()))
    assert done.returncode == 0, done.stderr
    expected = {
        "value": "pbmc_human_hg38",
        "name": "PBMC, human (hg38)",
        "genome": "simulated",
        "path": "pbmc_human_hg38",
    }
    assert line(tmp_path) == expected | {"predicts": "rna:atac,atac:rna", "sha256": SHA256}
    assert [p.name for p in (tmp_path / "files/pbmc_human_hg38").iterdir()] == ["model.safetensors"]


def test_of_a_folder_the_card_and_report_come_along_and_nothing_else(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    shutil.copy(MODEL, made / "model.safetensors")
    for name in ("model_card.md", "model_card.html", "report.html", "secret.txt"):
        (made / name).write_text(name)
    assert run(tmp_path, on_server(made, id="m-1")).returncode == 0
    kept = sorted(p.name for p in (tmp_path / "files/m-1").iterdir())
    assert kept == ["model.safetensors", "model_card.html", "model_card.md", "report.html"]


def test_a_dataset_is_taken(tmp_path: Path) -> None:
    given = on_server(Path()) | {"source": {"kind": "history", "model": str(MODEL)}, "id": None, "sha256": None}
    assert run(tmp_path, given).returncode == 0
    assert line(tmp_path)["value"] == "a_model"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_a_name(name: str) -> None:
    module = script()
    made = module.identifier("", name, set())
    assert module.re.fullmatch(r"[a-z0-9][a-z0-9_]{0,79}", made)
    shown = module.shown_name(name)
    assert shown.isprintable() and "\t" not in shown


@pytest.mark.parametrize("given", [*HOSTILE[:5], "UPPER", "ä", "_x", "a" * 81])
def test_an_id_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    refused(tmp_path, run(tmp_path, on_server(MODEL, id=given)), "is no id")


@pytest.mark.parametrize("name", ["", "  ", "\t", "細胞"])
def test_a_name_that_makes_no_id_needs_one(tmp_path: Path, name: str) -> None:
    refused(tmp_path, run(tmp_path, on_server(MODEL, name=name)), "give ")


def test_a_taken_id_is_refused_also_when_it_comes_of_the_name(tmp_path: Path) -> None:
    taken = "demo_simulated\na_model\n"
    refused(tmp_path, run(tmp_path, on_server(MODEL, id="demo_simulated"), taken), "there is a model of this id")
    refused(tmp_path, run(tmp_path, on_server(MODEL), taken), "a_model: there is a model of this id")


def test_another_file_than_was_meant_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, run(tmp_path, on_server(MODEL, sha256="0" * 64)), SHA256, "0" * 64)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    other = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(3)}, other)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(MODEL.read_bytes()[:-100])
    pickled = tmp_path / "model.pkl"
    pickled.write_bytes(b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.")
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    for file, said in (
        (other, "not an xmodal checkpoint"),
        (cut, "not a readable"),
        (pickled, "not a readable"),
        (empty, "not a readable"),
        (tmp_path / "nowhere", "no such file"),
        (tmp_path, "no model.safetensors"),
    ):
        refused(tmp_path, run(tmp_path, on_server(file)), said)
    assert not (tmp_path / "pwned").exists()


def test_a_model_that_missed_its_scores_is_refused(tmp_path: Path) -> None:
    missed = tmp_path / "pbmc.missed"
    missed.mkdir()
    shutil.copy(MODEL, missed / "model.safetensors")
    refused(tmp_path, run(tmp_path, on_server(missed)), "misses what its recipe asks for")


class Files(BaseHTTPRequestHandler):
    """/model whole, /unsized too, /cut half of it, /huge says it is larger than any disk, /away leads elsewhere."""

    def do_GET(self) -> None:
        content = MODEL.read_bytes()
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/model")
            self.end_headers()
            return
        if self.path not in ("/model", "/cut", "/huge", "/unsized"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(10**15 if self.path == "/huge" else len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path == "/cut" else content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("page", ["model", "away"])
def test_an_address_on_this_machine_is_read(tmp_path: Path, address: str, page: str) -> None:
    done = run(tmp_path, at(f"{address}/{page}"))
    assert done.returncode == 0, done.stderr
    assert line(tmp_path)["sha256"] == SHA256


def test_a_cut_download_is_refused(tmp_path: Path, address: str) -> None:
    refused(tmp_path, run(tmp_path, at(f"{address}/cut")), f"of {MODEL.stat().st_size} bytes came")


def test_addresses_that_are_refused_or_not_there(tmp_path: Path, address: str) -> None:
    refused(tmp_path, run(tmp_path, at(f"{address}/none")), "404")
    refused(tmp_path, run(tmp_path, at("http://127.0.0.1:9/model")), "cannot be fetched")
    refused(tmp_path, run(tmp_path, at("http://example.org/model.safetensors")), "without encryption")
    refused(tmp_path, run(tmp_path, at(f"file://{MODEL}")), "only https:// and http://")
    refused(tmp_path, run(tmp_path, at(f"{address}/model", sha256="f" * 64)), "its SHA-256 is")


def test_a_password_or_token_in_an_address_is_not_shown(tmp_path: Path) -> None:
    for address, said in (
        ("http://127.0.0.1:9/model?token=s3cret", "http://127.0.0.1/model: cannot be fetched"),
        ("https://user:s3cret@host/m", "address: it holds a name or a password"),
        ("http://me:s3cret@127.0.0.1:9/model", "address: it holds a name or a password"),
        ("https://user:s3cret@[bad/m", "address: it cannot be read"),
        ("https:/user:s3cret@host/m", "address: only https:// and http://"),
        ("user:s3cret@host/m", "address: only https:// and http://"),
        ("http://localhost:s3cret/m", "http://localhost/m: it is no address"),
    ):
        done = run(tmp_path, at(address))
        refused(tmp_path, done, said)
        assert "s3cret" not in done.stderr, address


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    for address in ("https://[bad/m", "https://", "https:///m", "", "https://[::1", "https://\u2100/m"):
        refused(tmp_path, run(tmp_path, at(address)), "address: ")


def test_a_download_that_is_too_large_is_refused(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, size = script(), MODEL.stat().st_size
    refused(tmp_path, run(tmp_path, at(f"{address}/huge")), "it has 1000000.0 GB, more than the", "make room")
    monkeypatch.setattr(module, "LARGEST_DOWNLOAD", size - 1)
    for page, said in (("model", "more than the 0.0 GB that are taken"), ("unsized", "it has more than the")):
        with pytest.raises(module.Refused, match=said):
            module.download(f"{address}/{page}", "", tmp_path / "model")
    monkeypatch.setattr(module, "LARGEST_DOWNLOAD", size)
    module.download(f"{address}/unsized", "", tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == MODEL.read_bytes()


def test_a_job_that_is_run_again_in_its_folder_begins_anew(tmp_path: Path) -> None:
    left = tmp_path / "files/a_model"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    (left / "report.html").write_text("of the run before")
    assert run(tmp_path, on_server(MODEL)).returncode == 0
    assert [p.name for p in left.iterdir()] == ["model.safetensors"]
    assert line(tmp_path)["sha256"] == SHA256


def test_encrypted_addresses_do_not_lead_to_plain_ones() -> None:
    module = script()
    request = module.urllib.request.Request("https://example.org/a")
    with pytest.raises(module.urllib.error.URLError, match="without encryption"):
        module._OnlyEncrypted().redirect_request(request, None, 302, "Found", {}, "http://example.org/a")


def test_script_form_and_table_say_the_same() -> None:
    tool = ET.parse(MANAGER / "data_manager" / "data_manager_xmodal_models.xml").getroot()
    conf = ET.parse(MANAGER / "data_manager_conf.xml").getroot()
    table = ET.parse(MANAGER / "tool_data_table_conf.xml.sample").getroot().find("table")
    assert table is not None
    columns = [c.strip() for c in str(table.findtext("columns")).split(",")]
    row = script().row("a", "A", {"modalities": {}, "directions": [["rna", "atac"]], "sha256": "0"})
    assert columns == list(row) == [c.get("name") for c in conf.iter("column")]
    assert tool.get("tool_type") == "manage_data"
    assert tool.get("id") == conf.find("data_manager").get("id")  # type: ignore[union-attr]
    assert yaml.safe_load((MANAGER / ".shed.yml").read_text())["name"] == MANAGER.name
    for name in ("tool_data_table_conf.xml.sample", "tool-data/xmodal_models.loc.sample"):
        assert (MANAGER / name).read_bytes() == (ROOT / "galaxy_tools" / name).read_bytes(), name
