"""--task annotate, describe, generate: what they need and refuse, told before the first task, and a real run of two of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import anndata as ad
import pytest

from helpers_docs import undocumented
from helpers_nextflow import ROOT, TESTDATA, count, pipeline, succeeded, tasks
from test_sheet_errors import GOLDEN
from xmodal import fields

pytestmark = pytest.mark.nextflow
Run = subprocess.CompletedProcess[str]
TYPES = ROOT / "galaxy_tools/test-data/types.safetensors"

# name: (samplesheet's rows, options, what is said)
REFUSED = {
    "annotate": (
        "a,train,{data}/rna.h5ad,,\nb,predict,,{data}/atac.h5ad,\n",
        (
            "--task",
            "annotate",
            "--shards",
            "2",
            "--model",
            "linear",
            "--root",
            "CL:0000084",
            "--prompts",
            "prompts.tsv",
        ),
        (
            "--prompts: belongs to --task generate. What to do: leave it out, or choose that task",
            "--shards: clusters vote over all cells at once",
            "--root: goes with --candidates all",
            "--model: linear does not learn what cells are called. What to do: leave it out, or use scmmgpt",
            "line 3 (b): holds atac only, and cell types are told by RNA",
        ),
    ),
    "generate": (
        "a,train,{data}/rna.h5ad,,\nb,predict,{data}/rna.h5ad,,\n",
        ("--task", "generate", "--per", "cell", "--links", "prompts.tsv", "--decoder", "."),
        (
            "--prompts: is required with --task generate",
            "--per: belongs to --task describe",
            "--decoder: belongs to --task describe",
            "--links: models of cell types link no peaks",
            "line 3 (b): role: nothing is done with cells to predict for in --task generate",
        ),
    ),
    "checkpoint": (
        "b,predict,{data}/rna.h5ad,,{golden}/linear-format1.safetensors\n",
        (
            *("--task", "describe", "--checkpoint", "{golden}/mean-format1.safetensors"),
            *("--label_terms", "prompts.tsv", "--language_model", "."),
        ),
        (
            "line 2: checkpoint: linear-format1.safetensors was trained as linear, which does not learn what cells are called",
            "--label_terms: nothing is trained with --checkpoint",
            "--language_model: goes with --decoder",
        ),
    ),
    "predict": (
        "a,train,{data}/rna.h5ad,{data}/atac.h5ad,\n",
        ("--model", "scmmgpt", "--threshold", "0.5"),
        (
            "--model: scmmgpt predicts no modality. What to do: leave it out, or use it with --task annotate",
            "--threshold: belongs to --task annotate, describe",
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_the_task_is_told_at_once(tmp_path: Path, name: str) -> None:
    rows, options, said = REFUSED[name]
    places = {"data": TESTDATA, "golden": GOLDEN}
    (tmp_path / "sheet.csv").write_text("sample,role,rna,atac,checkpoint\n" + rows.format(**places))
    (tmp_path / "prompts.tsv").write_text("prompt\nT cell\n")
    given = [option.format(**places) for option in options]
    run = pipeline(tmp_path, "--input", "sheet.csv", "--outdir", "out", *given)
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert [text for text in said if text not in run.stdout + run.stderr] == []


# --- runs -------------------------------------------------------------------------------------------------------------

TASKS = 13  # 2 checks, 2 prepared, 1 trained; 2 each annotated and described, 2 scored; 1 report, 1 MultiQC
OPTIONS = ("-profile", "test", "--task", "describe", "--input", "sheet.csv", "--outdir", "out")
QUICK = ("--train_args", "--set epochs=3 --set members=1 --set folds=0 --set hidden=16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 labelled cells of RNA alone; 60 others without a label, in which nothing can be scored."""
    folder = tmp_path_factory.mktemp("text")
    rna = ad.read_h5ad(TESTDATA / "rna.h5ad")
    rna[:300].write_h5ad(folder / "labelled.h5ad")
    new = rna[300:360].copy()
    new.obs = new.obs[["batch"]]
    new.write_h5ad(folder / "new.h5ad")
    (folder / "sheet.csv").write_text("sample,role,rna\nlabelled,train,labelled.h5ad\nnew,predict,new.h5ad\n")
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    run = pipeline(folder, *OPTIONS, *QUICK, timeout=900)
    succeeded(run)
    return run


def test_cells_are_named_described_and_scored_where_their_types_are_known(finished: Run, folder: Path) -> None:
    assert count(finished, "Submitted") == TASKS
    out = folder / "out"
    new = ad.read_h5ad(out / "annotation/new.h5ad")
    assert new.n_obs == 60 and {fields.CT_LABEL, fields.TERM, fields.CT_STATUS} <= set(new.obs)
    heldout = ad.read_h5ad(out / "annotation/heldout.h5ad")
    assert set(heldout.obs[fields.SPLIT]) == {"test"}
    assert sorted(p.name for p in (out / "evaluation").iterdir()) == ["heldout", "heldout.description"]
    for name in ("heldout", "new"):
        units = json.loads((out / f"descriptions/{name}/descriptions.json").read_text())["units"]
        assert units and all(unit["sentences"] for unit in units)
    assert "Cell types" in (out / "report/index.html").read_text()


def test_every_result_is_on_the_page_of_outputs(finished: Run, folder: Path) -> None:
    files = [str(f.relative_to(folder / "out")) for f in (folder / "out").rglob("*") if f.is_file()]
    assert undocumented(files) == []


def test_generated_cells_are_compared_with_those_learned_from(finished: Run, folder: Path) -> None:
    """The model is that of the first run; its types are prompts."""
    (folder / "learned.csv").write_text("sample,role,rna\nlabelled,train,labelled.h5ad\n")
    (folder / "prompts.tsv").write_bytes((TESTDATA / "prompts.tsv").read_bytes())
    options = ("-profile", "test", "--task", "generate", "--input", "learned.csv", "--prompts", "prompts.tsv")
    run = pipeline(folder, *options, *QUICK, "--outdir", "made", "--skip_multiqc", "-resume", timeout=600)
    succeeded(run)
    assert "Cached process > XMODAL:CELL_TEXT:CROSSMODAL_TRAIN:XMODAL_TRAIN" in run.stdout
    assert ad.read_h5ad(folder / "made/generated/prompts.h5ad").n_obs == 200
    assert (folder / "made/evaluation/prompts/metrics.json").is_file()
    files = [str(f.relative_to(folder / "made")) for f in (folder / "made").rglob("*") if f.is_file()]
    assert undocumented(files) == []


def test_cells_from_a_text_need_a_model_alone(tmp_path: Path) -> None:
    """A given model, no samplesheet; nothing to compare with."""
    (tmp_path / "prompts.tsv").write_text("prompt\nT cell\nmonocyte\n")
    options = ("--task", "generate", "--checkpoint", str(TYPES), "--prompts", "prompts.tsv", "--generated_cells", "5")
    run = pipeline(tmp_path, "--outdir", "out", "--skip_multiqc", *options)
    succeeded(run)
    made = ad.read_h5ad(tmp_path / "out/generated/prompts.h5ad")
    assert made.obs[fields.PROMPT].value_counts().to_dict() == {"T cell": 5, "monocyte": 5}
    files = [str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*") if f.is_file()]
    assert undocumented(files) == [] and "XMODAL_TRAIN" not in run.stdout
