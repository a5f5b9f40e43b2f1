"""--task joint: what it needs and refuses, told before the first task, and a real run on cells of which some have RNA alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from helpers_nextflow import ROOT, nextflow, pipeline, succeeded, tasks
from test_sheet_errors import GOLDEN, safetensors

pytestmark = pytest.mark.nextflow
Run = subprocess.CompletedProcess[str]
# --- samplesheets -----------------------------------------------------------------------------------------------------

SCRIPT = """
include { readJson        } from '%(root)s/subworkflows/local/utils_xmodal/values'
include { readSamplesheet } from '%(root)s/subworkflows/local/utils_xmodal/main'
include { withoutLatent   } from '%(root)s/subworkflows/local/utils_xmodal/joint'

workflow {
    schema = readJson('%(root)s/assets/schema_input.json')
    latentless = withoutLatent(readJson('%(root)s/assets/schema_trials.json'))
    said = readJson('cases.json').collectEntries { name, given ->
        found = readSamplesheet("${launchDir}/${name}.csv", schema, given.checkpoint, null, null, given.joint ? latentless : null)
        [name, [samples: found[0].size(), problems: found[1].collect { text -> "${text}".toString() }]]
    }
    file("${launchDir}/said.json").text = groovy.json.JsonOutput.toJson(said)
}
"""
HEAD = "sample,role,rna,atac,protein,checkpoint\n"
PAIRED, ONLY_RNA, NEW = "p,train,a.h5ad,b.h5ad,,\n", "s,train,c.h5ad,,,\n", "n,predict,d.h5ad,,,\n"
# name: (task, rows, --checkpoint, what is said); nothing said: the sheet is good
CASES: dict[str, tuple[str, str, str | None, list[str]]] = {
    "hybrid": ("joint", PAIRED + ONLY_RNA + NEW, None, []),
    "mapped": ("joint", NEW, "crossmp.safetensors", []),
    "given_model_needs_no_pairs": ("joint", ONLY_RNA, "crossmp.safetensors", []),
    "no_pairs": ("joint", ONLY_RNA + "t,train,,e.h5ad,,\n", None, ["no row to train on has two modalities"]),
    "one_modality": ("joint", ONLY_RNA, None, ["the rows to train on have rna only"]),
    "not_taught": (
        "joint",
        PAIRED + "n,predict,,,d.h5ad,\n",
        None,
        ["line 3 (n): the rows to train on have atac and rna; nothing can be made of protein by what they teach"],
    ),
    "no_model": ("joint", NEW, None, ["line 2 (n): no model to predict with. What to do: give --checkpoint"]),
    "no_embedding": (
        "joint",
        PAIRED + "n,predict,d.h5ad,,,linear.safetensors\n",
        "mean.safetensors",
        [
            "--checkpoint: mean.safetensors was trained as mean, which has no joint embedding. What to do: give another",
            "line 3: checkpoint: linear.safetensors was trained as linear, which has no joint embedding",
        ],
    ),
    "not_known": (
        "joint",
        "n,predict,,,d.h5ad,\n",
        "crossmp.safetensors",
        [
            "line 2 (n): --checkpoint: crossmp.safetensors embeds atac and rna; not protein. What to do: give a model that"
        ],
    ),
    "embeds_alone": ("joint", NEW, "embeds.safetensors", []),
    "predicts_nothing": (
        "predict",
        NEW,
        "embeds.safetensors",
        ["line 2 (n): --checkpoint: embeds.safetensors predicts nothing; nothing from rna. What to do: give a model"],
    ),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """Every sheet, judged in one run."""
    folder = tmp_path_factory.mktemp("sheets")
    for name in "abcde":
        (folder / f"{name}.h5ad").write_text("cells")
    for name in ("mean", "linear", "crossmp"):
        (folder / f"{name}.safetensors").write_bytes((GOLDEN / f"{name}-format1.safetensors").read_bytes())
    vocabulary = {"modalities": [{"name": "rna"}, {"name": "atac"}]}
    about = {"format": 1, "model": "theirs", "directions": [], "vocabulary": vocabulary}
    safetensors(folder / "embeds.safetensors", {"xmodal": json.dumps(about)})
    for name, (_, rows, _, _) in CASES.items():
        (folder / f"{name}.csv").write_text(HEAD + rows)
    given = {n: {"joint": c[0] == "joint", "checkpoint": c[2] and str(folder / c[2])} for n, c in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(given))
    (folder / "judge.nf").write_text(SCRIPT % {"root": ROOT})
    succeeded(nextflow(folder, "run", "judge.nf"))
    found: dict[str, dict[str, list[str]]] = json.loads((folder / "said.json").read_text())
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_sheet_and_all_that_is_wrong_with_it(said: dict[str, dict[str, list[str]]], name: str) -> None:
    expected, problems = CASES[name][3], said[name]["problems"]
    assert len(problems) == len(expected), problems
    assert [text for text in expected if not any(text in problem for problem in problems)] == []
    assert bool(said[name]["samples"]) == (not expected)


# --- parameters -------------------------------------------------------------------------------------------------------

REFUSED = {
    ("--task", "joint", "--shards", "2", "--sweep", "trials.csv", "--train_args", "--model linear"): (
        "The parameters do not go with --task joint:",
        "--shards: neighbours and clusters need all cells at once. What to do: leave it out with --task joint",
        "--sweep: trials are judged by what they predict, which --task joint does not",
        "--model: linear has no joint embedding. What to do: leave it out, or use crossmp or sailerx",
    ),
    ("--resolution", "0.5", "--sample_key", "donor"): (
        "The parameters do not go with --task predict:",
        "--resolution: belongs to --task joint. What to do: leave it out, or add --task joint",
        "--sample_key: belongs to --task joint",
    ),
}


@pytest.mark.parametrize("options", REFUSED, ids=["joint", "predict"])
def test_what_does_not_go_with_the_task_is_told_at_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "trials.csv").write_text("name,model\na,mean\n")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", *options)
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert [text for text in REFUSED[options] if text not in run.stdout + run.stderr] == []
