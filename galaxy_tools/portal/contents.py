"""What a new portal holds before anybody comes: an administrator, the workflows, and an example history."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

from portal.server import Server

ADMIN = "admin@example.org"
EXAMPLE = "Example: open chromatin predicted from gene expression"
ENDED = ("ok", "error", "failed_metadata", "paused", "discarded")


def is_user(server: Server, email: str) -> bool:
    return email in {user["email"] for user in server.get("users")}


def user_key(server: Server, email: str, name: str, password: str) -> str:
    """An API key of the user ``email``, who is made with ``password`` where there is none yet."""
    known = {user["email"]: user["id"] for user in server.get("users")}
    if email not in known:
        made = server.post("users", {"email": email, "username": name, "password": password})
        known[email] = made["id"]
    key: str = server.post(f"users/{known[email]}/api_key", {})
    return key


def publish_workflows(server: Server, key: str, folder: Path, record: Path) -> list[str]:
    """Names of the workflows of ``folder``, each imported and shown to everybody; again where its file has changed.

    record: the file that says what was imported.
    """
    before: dict[str, list[str]] = json.loads(record.read_text()) if record.exists() else {}
    now: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*/*.gxwf.yml")):
        text = path.read_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        old, number, name = before.get(path.name, ["", "", ""])
        if old != digest:
            content = {
                "workflow": {"class": "GalaxyWorkflow", "yaml_content": text},
                "publish": True,
                "importable": True,
            }
            made = server.post("workflows", content, key)
            if number:
                server.read(f"workflows/{number}", key=key, method="DELETE")
            number, name = made["id"], made["name"]
        now[path.name] = [digest, number, name]
        record.write_text(json.dumps(now | {k: v for k, v in before.items() if k not in now}))
    return [name for _, _, name in now.values()]


def has_example(server: Server, key: str) -> bool:
    """Whether the example is there, finished; what a start that was stopped left of it goes."""
    for history in _get(server, "histories", key):
        if history["name"] == EXAMPLE and history["published"]:
            return True
        if history["name"] == EXAMPLE:
            server.read(f"histories/{history['id']}?purge=true", key=key, method="DELETE")
    return False


def make_example(server: Server, key: str, cells: Path, model: str) -> None:
    """A published history with ``cells`` (an h5ad of RNA) and the ATAC that ``model`` predicts."""
    history = server.post("histories", {"name": EXAMPLE}, key)
    dataset = upload(server, key, history["id"], cells, "h5ad")
    wait(server, key, [dataset])
    inputs = {
        "cells": {"src": "hda", "id": dataset},
        "model": {"source": "server", "installed": model},
        "to": "atac",
    }
    job = {"history_id": history["id"], "tool_id": "xmodal_predict", "inputs": inputs, "input_format": "21.01"}
    ran = server.post("tools", job, key)
    wait(server, key, [output["id"] for output in ran["outputs"]])
    seen = {"published": True, "importable": True}
    server.read(f"histories/{history['id']}", json.dumps(seen).encode(), key, "PUT")


def upload(server: Server, key: str, history: str, path: Path, kind: str, name: str = "") -> str:
    """Id of the dataset that ``path`` becomes, of the datatype ``kind``, called ``name`` or as the file."""
    item = {"src": "files", "dbkey": "?", "ext": kind, "name": name or path.name}
    target = {"destination": {"type": "hdas"}, "elements": [item]}
    fields = {"history_id": history, "targets": json.dumps([target])}
    body, boundary = _form(fields, "files_0|file_data", path)
    answer = json.loads(server.read("tools/fetch", body, key, kind=f"multipart/form-data; boundary={boundary}"))
    return str(answer["outputs"][0]["id"])


def wait(server: Server, key: str, datasets: list[str], seconds: float = 600) -> None:
    """Until all have ended; RuntimeError, with what the tool said, where one did not end well."""
    until = time.monotonic() + seconds
    for dataset in datasets:
        while (found := _get(server, f"datasets/{dataset}", key))["state"] not in ENDED:
            if time.monotonic() > until:
                raise RuntimeError(f"{found['name']} is not there after {seconds:.0f} s (state: {found['state']})")
            server.pause(0.3)
        if found["state"] != "ok":
            raise RuntimeError(f"{found['name']}: {found['state']}: {found.get('misc_info')}")


def _get(server: Server, path: str, key: str) -> Any:
    return json.loads(server.read(path, key=key))


def _form(fields: dict[str, str], name: str, path: Path) -> tuple[bytes, str]:
    """A form with one file, as browsers send it."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'.encode()
    return b"".join([*parts, head, path.read_bytes(), f"\r\n--{boundary}--\r\n".encode()]), boundary
