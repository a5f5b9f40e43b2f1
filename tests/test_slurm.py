"""The pipeline over a real Slurm: results, the GPU asked for where it is used and nowhere else, time limits, two nodes."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from safetensors import safe_open

import helpers_slurm
from conftest import call_xmodal
from helpers_nextflow import ROOT, Run, nextflow, pipeline, succeeded
from xmodal.learning import training_state

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(helpers_slurm.why_not()), reason=f"no Slurm: {helpers_slurm.why_not()}"),
]
SHARDS = 4
CELLS = 12_000
KEPT = 20  # epochs, at least, of a training at its time limit


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[helpers_slurm.Cluster]:
    with helpers_slurm.running(tmp_path_factory.mktemp("slurm") / "cluster") as started:
        yield started


@pytest.fixture(autouse=True)
def slurm_environment(cluster: helpers_slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.environment["PATH"])


def over_slurm(folder: Path, profiles: str, config: str, *args: str) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.config").write_text(helpers_slurm.NEXTFLOW + config)
    return pipeline(folder, "-c", "site.config", "-profile", profiles, "--outdir", "out", *args, timeout=500)


def trace(folder: Path) -> list[dict[str, str]]:
    table = next((folder / "out/pipeline_info").glob("execution_trace*"))
    head, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def headers(folder: Path) -> dict[str, str]:
    """Task folder -> the script that was given to sbatch."""
    return {str(file.parent): file.read_text() for file in folder.glob("work/*/*/.command.run")}


def step(script: str) -> str:
    """``XMODAL_TRAIN`` of the job's name, ``nf-XMODAL_CROSSMODAL_TRAIN_XMODAL_TRAIN_(training)``."""
    name = re.findall(r"^#SBATCH -J nf-(\w+)", script, re.M)[0].rstrip("_")
    return f"XMODAL_{name.rpartition('XMODAL_')[2]}"


# --- the GPU is asked for by the steps that use it ------------------------------------------------------------------

WHERE = """
process {
    beforeScript = { "env | grep -E '^(SLURM_JOB_GPUS|CUDA_VISIBLE_DEVICES|SLURMD_NODENAME)=' > .where || true" }
    queue        = 'cpu'
    withLabel: process_gpu { queue = 'gpu' }
}
"""


def test_the_gpu_reaches_the_gpu_steps_only(tmp_path: Path) -> None:
    """A stub run, since there is no CUDA behind this GPU: Slurm really gives it, to jobs that ask for it."""
    run = over_slurm(tmp_path, "test,gpu,slurm", WHERE, "-stub", "--skip_multiqc")
    succeeded(run)
    seen = {}
    for folder, script in headers(tmp_path).items():
        granted = (Path(folder) / ".where").read_text()
        seen.setdefault(step(script), set()).add(
            ("--gres=gpu:1" in script, "SLURM_JOB_GPUS=0" in granted, "NODENAME=g0" in granted)
        )
    with_gpu = {"XMODAL_TRAIN", "XMODAL_PREDICT"}
    assert with_gpu < set(seen) and len(seen) >= 6
    assert seen == {name: {(name in with_gpu,) * 3} for name in seen}


def test_a_queue_without_gpu_refuses_the_job_and_the_run_says_so(tmp_path: Path) -> None:
    run = over_slurm(tmp_path, "test,gpu,slurm", "process { queue = 'cpu'; maxRetries = 0 }", "-stub")
    assert run.returncode != 0
    assert "Requested node configuration is not available" in run.stdout, run.stdout
    assert not (tmp_path / "out/report").exists()


# --- a job at its time limit ----------------------------------------------------------------------------------------

ALONE = f"""
include {{ XMODAL_TRAIN }} from '{ROOT}/modules/crossmodal/xmodal/train/main'

workflow {{
    XMODAL_TRAIN(channel.of([[id: 'kept'], file(params.cells), [:]]), [], [], [], [], [], [])
    XMODAL_TRAIN.out.checkpoint.view {{ meta, model -> "MODEL ${{model}}" }}
}}
"""


class TimeLimit(threading.Thread):
    """Does to the first job what Slurm does 30 s before its limit: the signal that Nextflow asks for, to the batch script.

    When the training has come to epoch 60 and its state on the disk to ``KEPT``: when that is depends on the disk,
    since as much time goes into writing as is a 20th of the training's.
    """

    def __init__(self, cluster: helpers_slurm.Cluster, work: Path) -> None:
        super().__init__(daemon=True)
        self.cluster, self.work, self.over, self.sent, self.epochs_kept = cluster, work, threading.Event(), "", 0

    def run(self) -> None:
        while not self.sent and not self.over.wait(0.1):
            if any("xmodal: epoch 60/" in log.read_text() for log in self.work.glob("*/*/.command.err")):
                self.epochs_kept = max(
                    (epochs_of(state) for state in self.work.glob("*/*/*/state.safetensors")), default=0
                )
                for job in self.cluster.jobs() if self.epochs_kept >= KEPT else ():
                    self.cluster.call("scancel", "--batch", "--signal=USR2", job)
                    self.sent = job


def epochs_of(state: Path) -> int:
    """How many epochs the training had done that left ``state``."""
    with safe_open(state, "pt") as handle:
        return len(json.loads(handle.metadata()[training_state.KEY])["history"])


def test_a_training_at_its_time_limit_goes_on_in_the_next_job(
    cluster: helpers_slurm.Cluster, prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / "main.nf").write_text(ALONE)
    (tmp_path / "nextflow.config").write_text(
        "\n".join(f"includeConfig '{ROOT}/conf/{name}.config'" for name in ("base", "executors/slurm"))
        + helpers_slurm.NEXTFLOW
        + "process.ext.args = '--model crossmp --set epochs=400 --set patience=400'\n"
    )
    limit = TimeLimit(cluster, tmp_path / "work")
    limit.start()
    run = nextflow(tmp_path, "run", "main.nf", "--cells", str(prepared))
    limit.over.set()
    succeeded(run)
    assert limit.sent and "#SBATCH --signal B:USR2@30" in next(iter(headers(tmp_path).values()))
    model = Path(next(line.split()[1] for line in run.stdout.splitlines() if line.startswith("MODEL ")))
    timing = json.loads((model.parent / "metrics.json").read_text())["timing"]
    assert KEPT <= limit.epochs_kept <= timing["went_on_from_epoch"] < 400
    assert "Re-submitted process > XMODAL_TRAIN" in run.stdout


# --- the whole pipeline, and two nodes beside one -------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A samplesheet of one large sample to predict for, and a model for it."""
    folder = tmp_path_factory.mktemp("many")
    made = ("simulate", "--output-dir", folder / "sim", "--cells", CELLS, "--genes", 400, "--peaks", 3000)
    done = call_xmodal(*made, "--no-rates", "--quiet")
    assert done.code == 0, done.err
    few = folder / "few.h5mu"
    sources = ("--rna", folder / "sim/rna.h5ad", "--atac", folder / "sim/atac.h5ad")
    done = call_xmodal("prepare", *sources, "--output", few, "--quiet")
    assert done.code == 0, done.err
    done = call_xmodal("train", few, "--model", "linear", "--output-dir", folder / "model", "--threads", 1, "--quiet")
    assert done.code == 0, done.err
    sheet = folder / "sheet.csv"
    sheet.write_text(f"sample,role,rna\nmany,predict,{folder / 'sim/rna.h5ad'}\n")
    return sheet, folder / "model/model.safetensors"


def test_the_pipeline_trains_predicts_and_reports_over_slurm(tmp_path: Path) -> None:
    run = over_slurm(tmp_path, "test,slurm", "process.queue = 'both'")
    succeeded(run)
    rows = trace(tmp_path)
    assert {row["status"] for row in rows} == {"COMPLETED"} and all(int(row["native_id"]) for row in rows)
    assert (tmp_path / "out/report/index.html").is_file() and (tmp_path / "out/multiqc/multiqc_report.html").is_file()
    (tmp_path / "same.config").write_text(helpers_slurm.LIMITS)  # as many threads, or sums are added in another order
    same = ("-c", str(tmp_path / "same.config"))
    local = pipeline(tmp_path / "local", *same, "-profile", "test", "--outdir", "out", "--skip_multiqc")
    succeeded(local)
    name = "out/predictions/new/new.rna_to_atac.h5ad"
    assert (tmp_path / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def seconds_of_prediction(rows: list[dict[str, str]]) -> float:
    """From the first shard's submission to the last shard's end."""
    shards = [row for row in rows if "XMODAL_PREDICT" in row["name"]]
    assert len(shards) == SHARDS
    begins = [datetime.fromisoformat(row["submit"]) for row in shards]
    lengths = [row["duration"] for row in shards]
    ends = [begin.timestamp() + in_seconds(length) for begin, length in zip(begins, lengths, strict=True)]
    return max(ends) - min(begin.timestamp() for begin in begins)


def in_seconds(text: str) -> float:
    """``1m 3.5s`` or ``850ms``."""
    sizes = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(part.rstrip("msh")) * sizes[part.lstrip("0123456789.")] for part in text.split())


def test_two_nodes_predict_shards_faster_than_one_and_the_same(many: tuple[Path, Path], tmp_path: Path) -> None:
    sheet, model = many
    given = ("--input", str(sheet), "--checkpoint", str(model), "--shards", str(SHARDS), "--skip_multiqc")
    seconds, nodes, bytes_of = {}, {}, {}
    for queue in ("cpu", "both"):
        folder = tmp_path / queue
        noting = f"export PATH={ROOT}/.venv/bin:\\$PATH; echo \\$SLURMD_NODENAME > .node"
        config = f"process {{ beforeScript = \"{noting}\"; queue = '{queue}' }}"
        run = over_slurm(folder, "slurm", config, *given)
        succeeded(run)
        seconds[queue] = seconds_of_prediction(trace(folder))
        nodes[queue] = {
            (Path(task) / ".node").read_text().strip()
            for task, script in headers(folder).items()
            if step(script) == "XMODAL_PREDICT"
        }
        bytes_of[queue] = next(folder.glob("out/predictions/many/*.h5ad")).read_bytes()
    gain = seconds["cpu"] / seconds["both"]
    print(
        f"\nslurm: {CELLS} cells x 3,000 peaks in {SHARDS} shards: one node {seconds['cpu']:.1f} s, "
        f"two nodes {seconds['both']:.1f} s, gain {gain:.2f} ({os.cpu_count()} cores, one each)"
    )
    assert nodes == {"cpu": {"c0"}, "both": {"c0", "g0"}}
    assert bytes_of["cpu"] == bytes_of["both"]
