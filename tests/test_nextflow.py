"""The pipeline, run by a real Nextflow: test profile, resume, stub, shards, a module alone in a foreign pipeline."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers_docs import missing, undocumented
from helpers_nextflow import ROOT, TESTDATA, count, nextflow, pipeline, succeeded

pytestmark = pytest.mark.nextflow
Run = subprocess.CompletedProcess[str]
TASKS = 11  # of the test profile: 2 checks, 2 prepared, 1 trained, 3 predicted, 1 evaluated, 1 report, 1 MultiQC
PUBLISHED = (
    "prepared/training.h5mu",
    "prepared/training.prepare.json",
    "prepared/paired.check.json",
    "prepared/new.h5mu",
    "models/auto/model.safetensors",
    "models/auto/history.tsv",
    "models/auto/metrics.json",
    "predictions/heldout/heldout.rna_to_atac.h5ad",
    "predictions/heldout/heldout.atac_to_rna.h5ad",
    "predictions/new/new.rna_to_atac.h5ad",
    "predictions/new/new.rna_to_atac.json",
    "evaluation/heldout/metrics.json",
    "evaluation/heldout/scores.tsv",
    "report/index.html",
    "multiqc/multiqc_report.html",
    "pipeline_info/params.json",
    "pipeline_info/xmodal_software_mqc_versions.yml",
    "pipeline_info/execution_trace.txt",
    "pipeline_info/execution_report.html",
    "pipeline_info/execution_timeline.html",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    """The test profile, run once for all tests of this file."""
    run = pipeline(folder, "-profile", "test", "--outdir", "out")
    succeeded(run)
    return run


def test_the_test_profile_publishes_every_result(finished: Run, folder: Path) -> None:
    assert count(finished, "Submitted") == TASKS
    assert [name for name in PUBLISHED if not (folder / "out" / name).is_file()] == []
    assert "Report: out/report/index.html" in finished.stdout


def test_the_page_of_outputs_names_what_a_run_leaves(finished: Run, folder: Path) -> None:
    files = [str(f.relative_to(folder / "out")) for f in (folder / "out").rglob("*") if f.is_file()]
    assert undocumented(files) == [] and missing(files) == []


def test_the_report_shows_the_samples_predicted(finished: Run, folder: Path) -> None:
    assert "new: atac from rna" in (folder / "out/report/index.html").read_text()


def test_both_directions_are_scored(finished: Run, folder: Path) -> None:
    targets = json.loads((folder / "out/evaluation/heldout/metrics.json").read_text())["targets"]
    assert {name: target["source"] for name, target in targets.items()} == {"rna": "atac", "atac": "rna"}


def test_versions_name_every_step(finished: Run, folder: Path) -> None:
    import yaml

    versions = yaml.safe_load((folder / "out/pipeline_info/xmodal_software_mqc_versions.yml").read_text())
    steps = {"CHECK", "PREPARE", "PREPARE_NEW", "TRAIN", "PREDICT", "EVALUATE", "REPORT"}
    assert set(versions) == {f"XMODAL_{step}" for step in steps} | {"Workflow"}
    assert versions["XMODAL_TRAIN"]["xmodal"] == versions["Workflow"]["crossmodal/xmodal"]


def test_multiqc_shows_our_sections(finished: Run, folder: Path) -> None:
    assert "xmodal" in (folder / "out/multiqc/multiqc_report.html").read_text()


def test_resume_runs_nothing_again(finished: Run, folder: Path) -> None:
    again = pipeline(folder, "-profile", "test", "--outdir", "out", "-resume")
    succeeded(again)
    assert (count(again, "Cached"), count(again, "Submitted")) == (TASKS, 0)


def test_three_shards_give_the_bytes_of_one(finished: Run, folder: Path) -> None:
    run = pipeline(folder, "-profile", "test", "--outdir", "sharded", "--shards", "3", "--skip_multiqc", "-resume")
    succeeded(run)
    assert count(run, "Submitted") >= 3 * 3 + 3  # shards and merges; what came before is cached
    for name in (name for name in PUBLISHED if name.startswith("predictions/")):
        assert (folder / "sharded" / name).read_bytes() == (folder / "out" / name).read_bytes(), name
    scores = "evaluation/heldout/scores.tsv"
    assert (folder / "sharded" / scores).read_bytes() == (folder / "out" / scores).read_bytes()
    assert not (folder / "sharded" / "multiqc").exists()


def test_a_given_checkpoint_is_used_and_nothing_is_trained(finished: Run, folder: Path) -> None:
    sheet = folder / "new.csv"
    sheet.write_text(f"sample,role,rna\nnew,predict,{TESTDATA / 'rna.h5ad'}\n")
    run = pipeline(
        folder / "given",
        "--input",
        str(sheet),
        "--outdir",
        "out",
        "-profile",
        "test",
        "--skip_multiqc",
        "--checkpoint",
        str(folder / "out/models/auto/model.safetensors"),
    )
    succeeded(run)
    assert "XMODAL_TRAIN" not in run.stdout
    predicted = (folder / "given/out/predictions/new/new.rna_to_atac.h5ad").read_bytes()
    assert predicted == (folder / "out/predictions/new/new.rna_to_atac.h5ad").read_bytes()


def test_refused_input_ends_the_run_with_its_reason_and_no_second_try(tmp_path: Path) -> None:
    (tmp_path / "broken.h5ad").write_bytes(b"not HDF5")
    (tmp_path / "sheet.csv").write_text("sample,role,rna,atac\ns,train,broken.h5ad,broken.h5ad\n")
    run = pipeline(tmp_path, "--input", "sheet.csv", "--outdir", "out", "-profile", "test")
    assert run.returncode == 1
    assert "XMODAL_CHECK" in run.stdout and "broken.h5ad" in run.stdout and "exit status (3)" in run.stdout
    assert "retry" not in run.stdout.lower() and not (tmp_path / "out/models").exists()


def test_a_stub_run_computes_nothing(tmp_path: Path) -> None:
    """With shards, and with a GPU that is not there: stubs touch neither."""
    run = pipeline(tmp_path, "-profile", "test,gpu", "-stub", "--outdir", "out", "--shards", "2")
    succeeded(run)
    assert (tmp_path / "out/report/index.html").is_file() and (tmp_path / "out/multiqc/multiqc_report.html").is_file()
    assert (tmp_path / "out/models/auto/model.safetensors").stat().st_size == 0


FOREIGN = """
include { XMODAL_PREPARE } from './modules/crossmodal/xmodal/prepare/main'

workflow {
    sheet = 'sample,rna,atac\\ntheirs,input1/rna.h5ad,input2/atac.h5ad'
    XMODAL_PREPARE(channel.of([[id: 'theirs'], sheet, [file(params.rna), file(params.atac)], []]))
    XMODAL_PREPARE.out.h5mu.view { meta, h5mu -> "GOT ${meta.id} ${h5mu.name}" }
    XMODAL_PREPARE.out.versions_xmodal.view { row -> "VERSION ${row.join(' ')}" }
}
"""


def test_a_module_works_alone_in_a_foreign_pipeline(tmp_path: Path) -> None:
    """Only the module's folder travels: nothing of this repository's bin, lib or conf."""
    target = tmp_path / "modules/crossmodal/xmodal/prepare"
    shutil.copytree(ROOT / "modules/crossmodal/xmodal/prepare", target)
    (tmp_path / "main.nf").write_text(FOREIGN)
    files = ("--rna", str(TESTDATA / "rna.h5ad"), "--atac", str(TESTDATA / "atac.h5ad"))
    run = nextflow(tmp_path, "run", "main.nf", *files)
    succeeded(run)
    assert "GOT theirs theirs.h5mu" in run.stdout and "VERSION XMODAL_PREPARE xmodal 0" in run.stdout


ASKING = """
process ASKS {
    label 'process_medium'
    output: stdout
    script: "echo ASKED ${task.cpus}"
}
workflow { ASKS().view() }
"""


@pytest.fixture
def asking(tmp_path: Path) -> Path:
    """A pipeline of one task with our resources, and a Slurm that notes what is asked for and takes no job."""
    (tmp_path / "main.nf").write_text(ASKING)
    base, slurm = (f"includeConfig '{ROOT}/conf/{name}.config'" for name in ("base", "executors/slurm"))
    (tmp_path / "nextflow.config").write_text(f"{base}\nprofiles {{ slurm {{ {slurm} }} }}\n")
    (tmp_path / "sbatch").write_text(f'#!/bin/bash\ncat "$@" >{tmp_path}/job\nexit 1\n')
    (tmp_path / "sbatch").chmod(0o755)
    return tmp_path


def test_on_a_small_machine_a_task_asks_for_what_there_is(asking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXF_OPTS", "-XX:ActiveProcessorCount=1")
    run = nextflow(asking, "run", "main.nf")
    succeeded(run)
    assert "ASKED 1" in run.stdout


def test_a_small_head_node_does_not_cap_the_jobs_of_a_cluster(asking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXF_OPTS", "-XX:ActiveProcessorCount=1")
    monkeypatch.setenv("PATH", f"{asking}:{os.environ['PATH']}")
    nextflow(asking, "run", "main.nf", "-profile", "slurm")
    job = (asking / "job").read_text()
    assert "#SBATCH -c 4\n" in job and "#SBATCH --mem 16384M\n" in job


# Every profile once, and what must be in the resulting configuration.
PROFILES = {
    "test,gpu,docker,slurm": (
        "docker.enabled = true",
        "accelerator = 1",
        "--gres=gpu",
        "process.executor = 'slurm'",
        "testdata/samplesheet.csv",
    ),
    "test_full,podman,offline,k8s": ("podman.enabled = true", "--pull=never", "process.executor = 'k8s'", "test_full"),
    "demo,singularity,awsbatch": ("singularity.enabled = true", "process.executor = 'awsbatch'", "'batch'"),
    "conda,google_batch": ("conda.enabled = true", "process.executor = 'google-batch'"),
    "apptainer": ("apptainer.enabled = true",),
    "standard,wave": (
        "process.executor = 'local'",
        ".venv/bin",
        "docker.enabled = true",
        "wave.enabled = true",
        "wave.strategy = ['conda', 'container']",
    ),
}


def test_every_profile_parses(tmp_path: Path) -> None:
    def flat(profiles: str) -> Run:
        return nextflow(tmp_path, "config", str(ROOT), "-flat", "-profile", profiles, timeout=120)

    with ThreadPoolExecutor(2) as pool:
        configs = dict(zip(PROFILES, pool.map(flat, PROFILES), strict=True))
    assert {name: run.stderr for name, run in configs.items() if run.returncode} == {}
    lacking = [(name, text) for name, texts in PROFILES.items() for text in texts if text not in configs[name].stdout]
    assert lacking == []
    block = (ROOT / "nextflow.config").read_text().partition("\nprofiles {")[2].partition("\n}")[0]
    assert sorted(re.findall(r"^    (\w+) \{$", block, re.M)) == sorted(",".join(PROFILES).split(","))
