"""The data manager in a real Galaxy: its own tests, and a model that it adds is in the data table and in the tools' forms."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers_galaxy import GALAXY_TOOLS, TEST_DATA, Galaxy, host_jobs, need_galaxy, number_of_tests

pytestmark = pytest.mark.galaxy
MANAGER = GALAXY_TOOLS / "data_managers" / "data_manager_xmodal_models"
TOOL = MANAGER / "data_manager" / "data_manager_xmodal_models.xml"
MODEL = TEST_DATA / "model.safetensors"
SECONDS = 400  # 10 s on a quiet machine


@pytest.fixture(scope="module")
def galaxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Galaxy]:
    need_galaxy()
    folder = tmp_path_factory.mktemp("galaxy")
    # A table of its own: the data manager writes into it.
    shutil.copy(TEST_DATA / "xmodal_models.loc", folder / "xmodal_models.loc")
    shutil.copy(MODEL, folder / "model.safetensors")
    table = folder / "table.xml"
    text = (MANAGER / "tool_data_table_conf.xml.sample").read_text()
    table.write_text(text.replace("tool-data/xmodal_models.loc", str(folder / "xmodal_models.loc")))
    settings = {
        "data_manager_config_file": str(MANAGER / "data_manager_conf.xml"),
        "galaxy_data_manager_data_path": str(folder / "managed"),
    }
    predict = [GALAXY_TOOLS / "xmodal_predict.xml"]
    with Galaxy(folder, predict, host_jobs(), settings, tables=[table]) as server:
        yield server


def rows(galaxy: Galaxy) -> dict[str, dict[str, str]]:
    """The table's rows by id, as the API shows them."""
    content = galaxy.get("tool_data/xmodal_models")
    return {
        row[content["columns"].index("value")]: dict(zip(content["columns"], row, strict=False))
        for row in content["fields"]
    }


@pytest.fixture(scope="module")
def key(galaxy: Galaxy) -> str:
    """Of an administrator who is a person: only such have histories, and only such may run data managers."""
    person = {"email": "admin@example.org", "username": "admin", "password": secrets.token_hex(16)}
    who = galaxy.post("users", person)["id"]
    found: str = galaxy.post(f"users/{who}/api_key", {"for": "tests"})
    return found


def run(galaxy: Galaxy, key: str, **inputs: str) -> dict[str, Any]:
    """The finished job of the data manager."""
    history = galaxy.post("histories", {"name": "data manager"}, key)["id"]
    asked = {"history_id": history, "tool_id": "data_manager_xmodal_models", "inputs": inputs}
    job = galaxy.post("tools", asked, key)["jobs"][0]["id"]
    until = time.monotonic() + SECONDS
    while (state := galaxy.get(f"jobs/{job}?full=true"))["state"] not in ("ok", "error"):
        assert time.monotonic() < until, state
        time.sleep(0.5)
    return state


def test_a_folder_with_its_card_becomes_a_model_of_the_server(galaxy: Galaxy, key: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    shutil.copy(MODEL, made / "model.safetensors")
    (made / "model_card.md").write_text("# A card\n")
    done = run(
        galaxy, key, **{"source|kind": "server", "source|path": str(made), "name": "Größe 'x' $(id)", "id": "folder-1"}
    )
    assert done["state"] == "ok", done
    until = time.monotonic() + SECONDS
    while "folder-1" not in rows(galaxy):
        assert time.monotonic() < until, galaxy.log()
        time.sleep(0.5)
    row = rows(galaxy)["folder-1"]
    assert row["name"] == "Größe 'x' $(id)"
    assert (row["genome"], row["predicts"]) == ("simulated", "rna:atac,atac:rna")
    place = Path(row["path"])
    assert place == galaxy.folder / "managed/xmodal_models/folder-1/model.safetensors"
    assert (
        row["sha256"]
        == hashlib.sha256(MODEL.read_bytes()).hexdigest()
        == hashlib.sha256(place.read_bytes()).hexdigest()
    )
    assert (place.parent / "model_card.md").read_text() == "# A card\n"
    form = json.loads(galaxy.read(f"tools/xmodal_predict/build?history_id={done['history_id']}", None, key))
    offered = [
        option[1]
        for group in form["inputs"]
        for case in group.get("cases", [])
        for given in case["inputs"]
        for option in given.get("options", [])
        if given["name"] == "installed"
    ]
    assert "folder-1" in offered and "demo_simulated" in offered


def test_what_is_refused_is_not_in_the_table(galaxy: Galaxy, key: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.")
    given = {"source|kind": "server", "source|path": str(tmp_path / "model.pkl"), "name": "Pickle"}
    done = run(galaxy, key, **given)
    assert (done["state"], done["exit_code"]) == ("error", 3)
    assert "not a readable safetensors file" in done["tool_stderr"] and "Traceback" not in done["tool_stderr"]
    assert "pickle" not in rows(galaxy)
    assert not (galaxy.folder / "managed/xmodal_models/pickle").exists()


def test_its_own_tests_pass(galaxy: Galaxy, key: str) -> None:
    tests = galaxy.test(MANAGER / "test-data", "-t", "data_manager_xmodal_models", "-k", key)
    assert {t["data"]["status"] for t in tests} == {"success"}, json.dumps(tests, indent=1)[-6000:]
    assert len(tests) == number_of_tests([TOOL])
