"""A real Galaxy before a real Slurm: jobs run where total-perspective-vortex sends them, with what its rules ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import helpers_slurm
from helpers_galaxy import GALAXY_TOOLS, TABLES, TEST_DATA, Galaxy, contents, need_galaxy

pytestmark = [
    pytest.mark.galaxy,
    pytest.mark.skipif(bool(helpers_slurm.why_not()), reason=f"no Slurm: {helpers_slurm.why_not()}"),
]
PORTAL = GALAXY_TOOLS / "portal"
RAN = [GALAXY_TOOLS / f"xmodal_{name}.xml" for name in ("predict", "train")]
MEMORY = yaml.safe_load((PORTAL / "memory.yml").read_text())


def small(folder: Path) -> dict[str, Any]:
    """job_conf.slurm.yml and the destinations' example, for nodes of one core, no GPU behind its name, and an hour at most."""
    folder.mkdir()
    known = yaml.safe_load((PORTAL / "tpv_destinations.yml").read_text())
    places = known["destinations"]
    for name in ("slurm", "slurm_gpu"):
        places[name] |= {"max_cores": 1}
        places[name]["params"] |= {"job_time": "00:10:00"}
    (device,) = [variable for variable in places["slurm_gpu"]["env"] if variable["name"] == "XMODAL_DEVICE"]
    device["value"] = "cpu"
    (folder / "tpv_destinations.yml").write_text(yaml.safe_dump(known))
    conf: dict[str, Any] = yaml.safe_load((PORTAL / "job_conf.slurm.yml").read_text())
    files = [str(PORTAL / "tpv_rules.yml"), str(folder / "tpv_destinations.yml")]
    conf["execution"]["environments"]["tpv_dispatcher"]["tpv_config_files"] = files
    return conf


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[helpers_slurm.Cluster]:
    need_galaxy()
    with helpers_slurm.running(tmp_path_factory.mktemp("slurm") / "cluster") as started:
        yield started


@pytest.fixture(scope="module")
def galaxy(cluster: helpers_slurm.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Galaxy]:
    folder = tmp_path_factory.mktemp("galaxy")
    given = {name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
    with Galaxy(folder / "server", RAN, small(folder / "jobs"), env=given, tables=TABLES) as server:
        yield server


def run(galaxy: Galaxy, key: str, history: str, tool: str, **inputs: Any) -> list[str]:
    """Ids of the outputs."""
    asked = {"history_id": history, "tool_id": tool, "inputs": inputs, "input_format": "21.01"}
    return [made["id"] for made in galaxy.post("tools", asked, key)["outputs"]]


def granted(galaxy: Galaxy, cluster: helpers_slurm.Cluster, dataset: str) -> dict[str, str]:
    """What Slurm says of the job that made ``dataset``."""
    job = galaxy.get(f"jobs/{galaxy.get(f'datasets/{dataset}')['creating_job']}?full=true")
    shown = cluster.call("scontrol", "show", "job", job["external_id"])
    return dict(re.findall(r"(\w+)=(\S+)", shown))


def mebibytes(text: str) -> float:
    return float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


def test_jobs_run_in_slurm_with_what_the_rules_ask(galaxy: Galaxy, cluster: helpers_slurm.Cluster) -> None:
    key = contents.user_key(galaxy, "biologist@example.org", "biologist", "a password of 9 words")
    history = galaxy.post("histories", {"name": "slurm"}, key)["id"]
    files = (("rna.h5ad", "h5ad"), ("prepared.h5mu", "h5mu"), ("model.safetensors", "safetensors"))
    cells, prepared, model = (
        {"src": "hda", "id": contents.upload(galaxy, key, history, TEST_DATA / name, kind)} for name, kind in files
    )
    contents.wait(galaxy, key, [made["id"] for made in (cells, prepared, model)])
    predicted = run(
        galaxy, key, history, "xmodal_predict", cells=cells, to="atac", model={"source": "history", "checkpoint": model}
    )
    trained = run(galaxy, key, history, "xmodal_train", paired={"form": "prepared", "cells": prepared}, model="linear")
    contents.wait(galaxy, key, [*predicted, *trained])
    for tool, output, partition in (("xmodal_predict", predicted[0], "cpu"), ("xmodal_train", trained[0], "gpu")):
        job = granted(galaxy, cluster, output)
        assert job["JobState"] == "COMPLETED" and job["ExitCode"] == "0:0"
        assert job["Partition"] == partition and job["NumCPUs"] == "1"
        assert tool in job["JobName"]
        # Inputs of less than a megabyte: little more than the formula's first number.
        assert 0 <= mebibytes(job["MinMemoryNode"]) - 1024 * MEMORY[tool]["base"] <= 64
        assert ("gpu" in job.get("TresPerNode", "")) == (partition == "gpu")
