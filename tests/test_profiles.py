"""Profiles together: what a task of a GPU step is really given, seen in the script that Nextflow writes for it.

Engines and Slurm are not needed: the task fails where they are missing, but its script is there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers_nextflow import ROOT, nextflow

pytestmark = pytest.mark.nextflow

STEPS = """
process ON_GPU {
    label 'process_medium'
    label 'process_gpu'
    container '/images/ours.sif'
    output: stdout
    script: "echo GPU ${task.accelerator ? task.accelerator.request : 0}"
}
process ON_CPU {
    label 'process_medium'
    container '/images/ours.sif'
    output: stdout
    script: "echo CPU"
}
workflow {
    ON_GPU()
    if (!workflow.profile.contains('slurm')) {
        ON_CPU() // where the first submission fails there is no second
    }
}
"""
CONFIG = f"includeConfig '{ROOT}/nextflow.config'\nprocess.errorStrategy = '%s'\n"
# profiles -> what must be in the script of the GPU step, what in no script of the other, what in both
EXPECTED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "gpu,docker": (("--gpus all", "echo GPU 1"), ("--gpus",), ("docker run", "-u $(id -u):$(id -g)")),
    "gpu,slurm,singularity": (
        ("--nv", "--gres=gpu:1", "echo GPU 1"),
        ("--nv", "--gres"),
        ("singularity exec", "#SBATCH"),
    ),
    "offline,podman": (
        ("echo GPU 0",),
        ("--device",),
        ("podman run", "--pull=never", "--userns=keep-id", "PIP_NO_INDEX"),
    ),
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Of each combination of profiles the scripts of both steps: a run each, two side by side."""
    home = tmp_path_factory.mktemp("profiles")
    for name in ("sbatch", "squeue", "docker", "podman", "singularity"):  # none may really be called
        (home / name).write_text("#!/bin/bash\nexit 1\n")
        (home / name).chmod(0o755)

    def run(profiles: str) -> dict[str, str]:
        folder = home / profiles.replace(",", "_")
        folder.mkdir()
        (folder / "main.nf").write_text(STEPS)
        (folder / "nextflow.config").write_text(CONFIG % ("terminate" if "slurm" in profiles else "ignore"))
        done: subprocess.CompletedProcess[str] = nextflow(folder, "run", "main.nf", "-profile", profiles, timeout=120)
        written = [path.parent for path in folder.glob("work/*/*/.command.run")]
        texts = ["".join((f / name).read_text() for name in (".command.run", ".command.sh")) for f in written]
        assert texts, done.stdout + done.stderr
        return {"gpu" if "echo GPU" in text else "cpu": text for text in texts}

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("PATH", f"{home}:{os.environ['PATH']}")
        return dict(zip(EXPECTED, pool.map(run, EXPECTED), strict=True))


@pytest.mark.parametrize("profiles", EXPECTED)
def test_profiles_together_give_a_task_what_it_needs(scripts: dict[str, dict[str, str]], profiles: str) -> None:
    on_gpu, not_on_cpu, both = EXPECTED[profiles]
    found = scripts[profiles]
    assert set(found) == ({"gpu"} if "slurm" in profiles else {"gpu", "cpu"})
    assert [text for text in (*on_gpu, *both) if text not in found["gpu"]] == []
    on_cpu = found.get("cpu")
    if on_cpu is not None:
        assert [text for text in both if text not in on_cpu] == []
        assert [text for text in not_on_cpu if text in on_cpu] == []
