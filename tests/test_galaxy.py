"""All tools in a real Galaxy: their own tests, names that could harm, what a failed job says, how long a job takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers_galaxy import GALAXY_TOOLS, ROOT, TEST_DATA, TOOLS, Galaxy, contents

pytestmark = pytest.mark.galaxy
PLANEMO = ROOT / ".planemo" / "bin" / "planemo"
REAL = Path(os.environ.get("XMODAL_REAL_DATA", ROOT.parent / "shared" / "data")) / "human_pbmc_multiome_40cells"
ANSWER_S = 30  # from Run to green
HOSTILE = "-x'\"; $(touch harmed) `touch harmed` ${HOME} \\ | & > harmed <b>ünï 細胞</b> %s {x} #if"
GOOD = {"source": "server", "installed": "demo_simulated"}


class Person:
    """Somebody with an account and one history."""

    def __init__(self, galaxy: Galaxy) -> None:
        self.galaxy = galaxy
        self.key = contents.user_key(galaxy, "biologist@example.org", "biologist", "a password of 9 words")
        self.history = galaxy.post("histories", {"name": "tests"}, self.key)["id"]

    def upload(self, file: Path, kind: str, name: str = "") -> dict[str, str]:
        """A dataset as tools take it."""
        made = contents.upload(self.galaxy, self.key, self.history, file, kind, name)
        contents.wait(self.galaxy, self.key, [made])
        return {"src": "hda", "id": made}

    def run(self, tool: str, **inputs: Any) -> list[dict[str, Any]]:
        """The outputs of a job, when it has ended, well or not."""
        asked = {"history_id": self.history, "tool_id": tool, "inputs": inputs, "input_format": "21.01"}
        made = self.galaxy.post("tools", asked, self.key)
        ids = [output["id"] for output in made["outputs"]]
        ids += [part["object"]["id"] for c in made["output_collections"] for part in c.get("elements") or []]
        while True:
            found = [self.get(f"datasets/{one}") for one in ids]
            if all(one["state"] in contents.ENDED for one in found):
                return found
            self.galaxy.pause(0.3)

    def get(self, path: str) -> Any:
        return json.loads(self.galaxy.read(path, key=self.key))


@pytest.fixture(scope="module")
def person(galaxy_server: Galaxy) -> Person:
    return Person(galaxy_server)


@pytest.fixture(scope="module")
def named(person: Person) -> Iterator[dict[str, dict[str, str]]]:
    """The test files under a name that a careless command line would run."""
    files = {"rna.h5ad": "h5ad", "atac.h5ad": "h5ad", "prepared.h5mu": "h5mu", "model.safetensors": "safetensors"}
    files |= {"predicted_atac.h5ad": "h5ad", "predicted_atac.json": "json", "latent_atac.h5ad": "h5ad"}
    files |= {"embedded.h5mu": "h5mu", "joint.safetensors": "safetensors"}
    files |= {"annotated.h5ad": "h5ad", "types.safetensors": "safetensors", "prompts.tsv": "tabular"}
    yield {
        name.partition(".")[0] + kind: person.upload(TEST_DATA / name, kind, HOSTILE) for name, kind in files.items()
    }


def test_every_test_of_every_tool(galaxy_server: Galaxy) -> None:
    galaxy_server.passes(TEST_DATA)


def test_lint() -> None:
    if not PLANEMO.exists():
        pytest.skip("skipped, because planemo is not there: scripts/setup-planemo")
    manager = sorted((GALAXY_TOOLS / "data_managers").glob("*/data_manager/*.xml"))
    # BioToolsValid asks bio.tools on the internet.
    command = [PLANEMO, "lint", "--skip", "BioToolsValid", "--fail_level", "warn", *TOOLS, *manager]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
    assert done.returncode == 0, said


def asked(named: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    model = {"source": "history", "checkpoint": named["modelsafetensors"]}
    joint = model | {"checkpoint": named["jointsafetensors"]}
    types = model | {"checkpoint": named["typessafetensors"]}
    paired = {"form": "prepared", "cells": named["preparedh5mu"]}
    prediction = {"modality": "atac", "prediction": named["predicted_atach5ad"]}
    return {
        "xmodal_predict": {"cells": named["rnah5ad"], "model": model, "to": "atac"},
        "xmodal_decode": {"latent": named["latent_atach5ad"], "model": model},
        "xmodal_train": {"paired": paired, "model": "linear"},
        "xmodal_embed": {"cells": named["preparedh5mu"], "model": joint, "advanced": {"clusters": 3}},
        "xmodal_impute": {"cells": named["preparedh5mu"], "model": joint},
        "xmodal_markers": {"cells": named["embeddedh5mu"]},
        "xmodal_annotate": {"cells": named["rnah5ad"], "model": types},
        "xmodal_describe": {"cells": named["annotatedh5ad"], "model": types},
        "xmodal_generate": {"model": types, "prompts": named["promptstabular"], "cells": 5},
        "xmodal_models": {"model": model},
        "xmodal_prepare": {"samples": {"form": "one", "rna": named["rnah5ad"], "atac": named["atach5ad"]}},
        "xmodal_check": {"files": [{"cells": named["rnah5ad"], "modality": "rna"}], "model": model},
        "xmodal_evaluate": {
            "paired": paired,
            "scored": {"what": "prediction", "predictions": [prediction]},
            "advanced": {"umap_cells": 0},
        },
        "xmodal_report": {"title": "x", "predictions": [{"summary": named["predicted_atacjson"]}]},
    }


NAMED = [tool.stem for tool in TOOLS]


@pytest.mark.parametrize("tool", NAMED)
def test_a_hostile_name_is_only_a_name(person: Person, named: dict[str, dict[str, str]], tool: str) -> None:
    assert set(asked(named)) == set(NAMED)
    for output in person.run(tool, **asked(named)[tool]):
        assert output["state"] == "ok", output["misc_info"]
    assert [*person.galaxy.folder.rglob("harmed*")] == []


def test_a_failed_job_says_what_to_do(person: Person) -> None:
    mistyped = person.upload(TEST_DATA / "prepared.h5mu", "h5ad")
    outputs = person.run("xmodal_predict", cells=mistyped, model=GOOD, to="atac")
    assert {output["state"] for output in outputs} == {"error"}
    said = outputs[0]["misc_info"]
    assert "in Galaxy set its type to h5mu" in said and "Traceback" not in said
    assert [output["file_size"] for output in outputs] == [0] * len(outputs)


def test_a_report_is_shown_as_a_page(person: Person, named: dict[str, dict[str, str]]) -> None:
    outputs = person.run("xmodal_predict", cells=named["rnah5ad"], model=GOOD, to="atac")
    report = next(output for output in outputs if output["extension"] == "html")
    page = person.galaxy.read(f"datasets/{report['id']}/display", key=person.key).decode()
    assert "<script" not in page and "<b>" not in page
    assert page.startswith("<!DOCTYPE html>") and "ATAC was predicted from RNA" in page


@pytest.mark.real_data
def test_a_full_width_job_is_back_soon(person: Person, tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"skipped, because there is no {REAL} (XMODAL_REAL_DATA)")
    xmodal = ROOT / ".venv/bin/xmodal"
    files = ["--rna", REAL / "rna.h5ad", "--atac", REAL / "atac.h5ad"]
    subprocess.run([xmodal, "prepare", *files, "--output", tmp_path / "cells.h5mu"], check=True)
    train = [xmodal, "train", tmp_path / "cells.h5mu", "--model", "linear", "--output-dir", tmp_path / "trained"]
    subprocess.run(train, check=True)
    model = {"source": "history"}
    model["checkpoint"] = person.upload(tmp_path / "trained" / "model.safetensors", "safetensors")  # type: ignore[assignment]
    cells = person.upload(REAL / "rna.h5ad", "h5ad")
    began = time.monotonic()
    outputs = person.run("xmodal_predict", cells=cells, model=model, to="atac")
    seconds = time.monotonic() - began
    assert {output["state"] for output in outputs} == {"ok"}, outputs[0]["misc_info"]
    sys.stdout.write(f"40 cells at full width: {seconds:.1f} s from Run to green\n")
    assert seconds <= ANSWER_S
