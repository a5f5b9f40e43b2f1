"""The job configurations and TPV rules beside the portal: what Galaxy's own code makes of them; nothing is started."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from helpers_galaxy import GALAXY_TOOLS, HERE, INSTALLED, TOOLS, need_galaxy
from helpers_nextflow import ROOT
from xmodal.commands import COMMANDS

PORTAL = GALAXY_TOOLS / "portal"
RULES, DESTINATIONS = PORTAL / "tpv_rules.yml", PORTAL / "tpv_destinations.yml"
IMAGES: dict[str, str] = yaml.safe_load((ROOT / "containers/images.yml").read_text())
MEMORY: dict[str, dict[str, float]] = yaml.safe_load((PORTAL / "memory.yml").read_text())
SHED = "toolshed.g2.bx.psu.edu/repos/someone/{0}/{0}/0.1.0+galaxy0"
GPU = {"GPU_AVAILABLE": "1", "XMODAL_DEVICE": "cuda"}  # a container sees nothing of what an environment sets
MODELS = "/data/xmodal_models"  # of the data table; a container has no folder of the server but Galaxy's own
CASES = [
    ("xmodal_check", 0.1),
    ("xmodal_train", 0.5),
    ("xmodal_predict", 0.5),
    (SHED.format("xmodal_predict"), 1.5),
    ("xmodal_evaluate", 0.01),
    ("cat1", 1.0),
]
TOOL_IDS = [f"xmodal_{command.name}" for command in COMMANDS if command.galaxy]


def environments(name: str) -> dict[str, dict[str, Any]]:
    """Those of a job configuration, as Galaxy's container code takes them."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((PORTAL / name).read_text())["execution"]["environments"]
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All that tests/galaxy/decide.py is asked here, in one process of Galaxy's Python."""
    need_galaxy()
    folder = tmp_path_factory.mktemp("decide")
    destinations = yaml.safe_load(DESTINATIONS.read_text())
    gpu = destinations["destinations"].pop("slurm_gpu")
    gpu["params"] |= destinations["destinations"]["_slurm"]["params"]
    (folder / "tpv_destinations.yml").write_text(yaml.safe_dump(destinations))
    for path in (RULES, PORTAL / "job_conf.slurm.yml"):
        shutil.copy(path, folder)
    conf = environments("job_conf.gpu.yml") | {"singularity": gpu["params"] | {"singularity_enabled": True}}
    asked = {
        "lint": [str(RULES), str(DESTINATIONS)],
        "jobs": [
            (str(PORTAL / "job_conf.slurm.yml"), CASES),
            (str(folder / "job_conf.slurm.yml"), [("xmodal_train", 0.1)]),
        ],
        "containers": (IMAGES["cpu"], conf),
    }
    command = [INSTALLED / "bin/python", HERE / "decide.py"]
    text = json.dumps(asked)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def rules() -> dict[str, dict[str, Any]]:
    """Tool regex -> rule, without those that others inherit from."""
    tools = yaml.safe_load(RULES.read_text())["tools"]
    return {name: rule for name, rule in tools.items() if not rule.get("abstract")}


def memory(tool: str, size: float) -> float:
    return MEMORY[tool]["base"] + MEMORY[tool]["per_gb"] * size


def test_every_tool_has_one_rule_from_a_checkout_or_a_shed() -> None:
    assert {tool.stem for tool in TOOLS} <= set(TOOL_IDS) == set(MEMORY)
    for tool in TOOL_IDS:
        for name in (tool, SHED.format(tool)):
            assert len([rule for rule in rules() if re.match(rule, name)]) == 1, name
    others = ("xmodal_training", "data_manager_xmodal_models", SHED.format("data_manager_xmodal_models"))
    assert not [name for name in others if any(re.match(rule, name) for rule in rules())]


@pytest.mark.parametrize("tool", TOOL_IDS)
def test_rules_ask_for_the_memory_that_was_measured(tool: str) -> None:
    (rule,) = [rule for name, rule in rules().items() if re.match(name, tool)]
    base, slope = (MEMORY[tool][name] for name in ("base", "per_gb"))
    assert rule["mem"] == f"{base} + {slope} * input_size"
    assert memory(tool, MEMORY[tool]["largest_input_mb"] / 1024) > MEMORY[tool]["largest_peak_gb"] > 0


def test_the_linter_has_nothing_to_say(answers: Any) -> None:
    assert answers["lint"] == {"errors": [], "warnings": []}


def test_where_jobs_go_and_with_what(answers: Any) -> None:
    found = answers["jobs"][0]
    assert [job["id"] for job in found] == ["local", "slurm_gpu", "slurm", "slurm_gpu", "slurm", "slurm"]
    for job, (tool, size) in zip(found[1:5], CASES[1:5], strict=True):
        name = next(known for known in TOOL_IDS if known in tool)
        assert job["params"]["job_--mem"] == f"{round(memory(name, size) * 1024)}M"
    _, train, few, many, _, other = found
    assert [job["params"]["job_ncpus"] for job in (train, few, other)] == ["4", "2", "1"]
    assert [job["params"].get("job_--gres") for job in (train, few, many)] == ["gpu:1", None, "gpu:1"]
    assert {variable["name"]: variable["value"] for variable in train["env"]} == GPU and few["env"] == []


def test_without_a_destination_with_a_gpu_trainings_run_on_processors(answers: Any) -> None:
    (train,) = answers["jobs"][1]
    assert train["id"] == "slurm" and train["env"] == []


def test_containers_get_the_image_the_gpu_and_the_variable(answers: Any) -> None:
    made = answers["containers"]
    assert made["host"] == ""
    assert f" {IMAGES['cpu']} " in made["container"] and "--gpus" not in made["container"]
    assert f" {IMAGES['gpu']} " in made["gpu"] and "--gpus all" in made["gpu"]
    assert all(f'"{name}={value}"' in made["gpu"] for name, value in GPU.items())
    assert all("--net none" in made[name] for name in ("container", "gpu"))
    assert all(
        "/job/working:/job/working:rw" in made[name] and f"{MODELS}:{MODELS}:ro" in made[name]
        for name in ("container", "gpu")
    )


def test_singularity_on_a_node_with_a_gpu(answers: Any) -> None:
    """The destination slurm_gpu with singularity_enabled: true, as its comment says."""
    command = answers["containers"]["singularity"]
    assert f"docker://{IMAGES['gpu']}" in command and "--nv" in command
    assert all(re.search(f'{name}="?{value}', command) for name, value in GPU.items())
    assert "/job/working" in command and f"{MODELS}:{MODELS}:ro" in command


def test_images_are_those_of_this_version() -> None:
    text = "".join(path.read_text() for path in (*PORTAL.glob("*.yml"), ROOT / "docs/galaxy_admin.md"))
    named = set(re.findall(r"[\w./-]+/xmodal:[\w.-]+", text))
    assert {name.removeprefix("//") for name in named} == set(IMAGES.values())


def test_the_page_has_the_measured_numbers_and_every_tool() -> None:
    page = (ROOT / "docs/galaxy_admin.md").read_text()
    shown = dict(re.findall(r"^\| `(xmodal_\w+)` \| ([\d.]+ \+ \d+ x GB) \|", page, re.M))
    assert shown == {tool: f"{line['base']} + {line['per_gb']} x GB" for tool, line in MEMORY.items()}
    listed = re.findall(r'<tool file="/opt/xmodal/galaxy_tools/(\w+)\.xml"/>', page)
    assert sorted(listed) == sorted(TOOL_IDS)


@pytest.mark.parametrize("name", ["local", "gpu"])
def test_other_configurations_name_only_what_they_have(name: str) -> None:
    conf = yaml.safe_load((PORTAL / f"job_conf.{name}.yml").read_text())
    environments = conf["execution"]["environments"]
    assert conf["execution"]["default"] in environments
    assert {environment["runner"] for environment in environments.values()} <= set(conf["runners"])
    for tool in conf.get("tools", []):
        assert tool["environment"] in environments
        assert tool["id"] in {*TOOL_IDS, "__DATA_FETCH__", "upload1", "data_manager_xmodal_models"}
