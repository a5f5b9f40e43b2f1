"""--task joint: what it needs and refuses, told before the first task, and a real run on cells of which some have RNA alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pytest

from helpers_docs import undocumented
from helpers_nextflow import ROOT, TESTDATA, count, nextflow, pipeline, succeeded, tasks
from test_sheet_errors import GOLDEN, safetensors
from xmodal import fields

pytestmark = pytest.mark.nextflow
Run = subprocess.CompletedProcess[str]

# --- samplesheets -----------------------------------------------------------------------------------------------------

SCRIPT = """
include { readJson        } from '%(root)s/subworkflows/local/utils_xmodal/values'
include { readSamplesheet } from '%(root)s/subworkflows/local/utils_xmodal/main'
include { withoutLatent   } from '%(root)s/subworkflows/local/utils_xmodal/joint'
include { unusedColumns   } from '%(root)s/subworkflows/local/utils_xmodal/channels'
include { hasClusters     } from '%(root)s/subworkflows/crossmodal/crossmodal_joint_embed/main'

workflow {
    schema = readJson('%(root)s/assets/schema_input.json')
    latentless = withoutLatent(readJson('%(root)s/assets/schema_trials.json'))
    said = readJson('cases.json').collectEntries { name, given ->
        found = readSamplesheet("${launchDir}/${name}.csv", schema, given.checkpoint, null, null, given.joint ? latentless : null)
        [name, [samples: found[0].size(), problems: found[1].collect { text -> "${text}".toString() }]]
    }
    said.columns = unusedColumns([['type', 'batch'], ['lane']], [label_key: 'type', batch_key: 'lnae', sample_key: null])
    said.clusters = ['{}', '{"sizes": [30]}', '{"sizes": [20, 10]}'].collect { text ->
        json = file("${launchDir}/embedding.json")
        json.text = text
        hasClusters([id: 'small'], json)
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


def test_there_are_no_markers_of_one_cluster(said: dict[str, list[bool]]) -> None:
    assert said["clusters"] == [True, False, True]  # of a stub nothing is known


def test_a_column_that_no_sample_has_is_told(said: dict[str, list[str]]) -> None:
    assert said["columns"] == ["--batch_key lnae: no sample has such a column of groups, so it is not used"]


# --- parameters -------------------------------------------------------------------------------------------------------

REFUSED = {
    ("--task", "joint", "--shards", "2", "--sweep", "trials.csv", "--train_args", "--model linear"): (
        "The parameters do not go with --task joint:",
        "--shards: neighbours and clusters need all cells at once. What to do: leave it out with --task joint",
        "--sweep: trials are judged by what they predict, which --task joint does not",
        "--model: linear has no joint embedding. What to do: leave it out, or use contrastive or crossmp or "
        "husformer or interact or mfm or sailerx",
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


# --- runs -------------------------------------------------------------------------------------------------------------

TASKS = 16  # 3 checks, 2 prepared, 1 trained; 2 each embedded, denoised, compared, scored; 1 report, 1 MultiQC
PUBLISHED = (
    "prepared/training.h5mu",
    "prepared/mapped.h5mu",
    "models/sailerx/model.safetensors",
    *(
        f"{place}"
        for name in ("joint", "mapped")
        for place in (
            f"embedding/{name}.h5mu",
            f"embedding/{name}/embedding.png",
            f"embedding/{name}/embedding.tsv",
            f"embedding/{name}/clusters.tsv",
            f"embedding/{name}/embedding.json",
            f"imputed/{name}.h5mu",
            f"imputed/{name}.impute.json",
            f"markers/{name}/markers.tsv",
            f"markers/{name}/markers.json",
            f"evaluation/{name}/metrics.json",
            f"evaluation/{name}/scores.tsv",
        )
    ),
    "report/index.html",
    "multiqc/multiqc_report.html",
)
OPTIONS = ("-profile", "test", "--outdir", "out", "--input", "sheet.csv", "--task", "joint", "--batch_key", "batch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 cells with both modalities, 150 with RNA alone; 100 of the first come again with ATAC alone, and no columns of obs."""
    folder = tmp_path_factory.mktemp("joint")
    rna, atac = (ad.read_h5ad(TESTDATA / f"{name}.h5ad") for name in ("rna", "atac"))
    rna[:300].write_h5ad(folder / "rna.h5ad")
    atac[:300].write_h5ad(folder / "atac.h5ad")
    rna[600:750].write_h5ad(folder / "only_rna.h5ad")
    again = atac[:100].copy()
    again.obs = again.obs[[]]
    again.write_h5ad(folder / "again.h5ad")
    rows = ("both,train,rna.h5ad,atac.h5ad", "one,train,only_rna.h5ad,", "mapped,predict,,again.h5ad")
    (folder / "sheet.csv").write_text("\n".join(("sample,role,rna,atac", *rows, "")))
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    run = pipeline(folder, *OPTIONS, timeout=900)
    succeeded(run)
    return run


def embedded(folder: Path, name: str) -> mu.MuData:
    return mu.read_h5mu(folder / f"out/embedding/{name}.h5mu")


def test_every_result_is_published_and_on_the_page_of_outputs(finished: Run, folder: Path) -> None:
    assert count(finished, "Submitted") == TASKS
    assert [name for name in PUBLISHED if not (folder / "out" / name).is_file()] == []
    files = [str(f.relative_to(folder / "out")) for f in (folder / "out").rglob("*") if f.is_file()]
    assert undocumented(files) == []


def test_report_and_multiqc_show_both_sets(finished: Run, folder: Path) -> None:
    page = (folder / "out/report/index.html").read_text()
    assert "Joint embedding (joint)" in page and "Joint embedding (mapped)" in page and "<h1>Joint analysis" in page
    sections = re.findall(r'<h3 id="(xmodal_[a-z_]+)"', (folder / "out/multiqc/multiqc_report.html").read_text())
    own = [name for name in sections if name in ("xmodal_learning", "xmodal_joint", "xmodal_clusters")]
    assert own == ["xmodal_learning", "xmodal_joint", "xmodal_clusters"]


def test_cells_of_one_modality_are_embedded_beside_those_of_two(finished: Run, folder: Path) -> None:
    joint = embedded(folder, "joint")
    assert joint.n_obs == 450 and np.isfinite(joint.obsm[fields.EMBEDDING]).all()
    weight = joint.obs[f"{fields.WEIGHT}_atac"]
    one = joint.obs[fields.SAMPLE] == "one"
    assert one.sum() == 150 and not weight[one].fillna(0).any() and (weight[~one] > 0).all()


def test_mapped_cells_lie_where_the_model_puts_them(finished: Run, folder: Path) -> None:
    """The same ATAC profiles, prepared by themselves, as what ATAC alone makes of these cells in the joint file."""
    joint, mapped = embedded(folder, "joint"), embedded(folder, "mapped")
    rows = joint.obs_names.get_indexer(mapped.obs_names)
    assert len(rows) == 100 and (rows >= 0).all()
    alone = joint.obsm[f"{fields.EMBEDDING}_atac"][rows]
    np.testing.assert_allclose(mapped.obsm[fields.EMBEDDING], alone, rtol=1e-4, atol=1e-4)


def test_columns_that_mapped_cells_lack_are_left_out(finished: Run, folder: Path) -> None:
    keys = {
        name: json.loads((folder / f"out/evaluation/{name}/metrics.json").read_text())["embedding"]
        for name in ("joint", "mapped")
    }
    assert [keys["joint"][k] for k in ("label_key", "batch_key")] == ["cell_type", "batch"]
    assert [keys["mapped"][k] for k in ("label_key", "batch_key")] == [None, None]
    assert keys["mapped"]["cells"] == 100  # all of them, not only those of a split


STEPS = ("CHECK", "PREPARE", "PREPARE_NEW", "EMBED", "IMPUTE", "MARKERS", "REPORT")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_writes_over_what_a_killed_run_left(finished: Run, folder: Path, tmp_path: Path, step: str) -> None:
    """Where Nextflow itself was killed, -resume gives a step the folder in which its last attempt may have ended well."""
    log = (folder / "out/pipeline_info/execution_trace.txt").read_text()
    [short, *_] = re.findall(rf"\t(\w\w/\w+)\t.*:XMODAL_{step} \(", log)
    [work] = (folder / "work").glob(f"{short}*")
    again = shutil.copytree(work, tmp_path / "again", symlinks=True)  # not in place: what is cached must stay
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    shell = ["bash", "-C", "-e", "-u", "-o", "pipefail", ".command.sh"]  # as nextflow.config has it
    done = subprocess.run(shell, cwd=again, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_resume_finds_only_the_markers_again_by_another_sample(finished: Run, folder: Path) -> None:
    again = pipeline(folder, *OPTIONS, "--sample_key", "batch", "-resume")
    succeeded(again)
    submitted = [line.rpartition(":")[2] for line in again.stdout.splitlines() if "Submitted process" in line]
    assert submitted == ["XMODAL_MARKERS (joint)", "XMODAL_REPORT (report)", "MULTIQC (xmodal)"]
    assert count(again, "Cached") == TASKS - 3


def test_columns_that_are_not_there_are_told_before_the_training(folder: Path, tmp_path: Path) -> None:
    """All of them together, by the step that joins the cells to learn from."""
    row = f"both,train,{folder}/rna.h5ad,{folder}/atac.h5ad"
    (tmp_path / "sheet.csv").write_text(f"sample,role,rna,atac\n{row}\n")
    wrong = ("--batch_key", "btch", "--sample_key", "donor", "--label_key", "cell_typ", "--input", "sheet.csv")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", "--task", "joint", *wrong)
    assert run.returncode != 0
    submitted = [line.rpartition(":")[2] for line in run.stdout.splitlines() if "Submitted process" in line]
    assert submitted == ["XMODAL_CHECK (both)", "XMODAL_PREPARE (training)"]
    text = run.stdout + run.stderr
    assert "--label-key: obs has no column 'cell_typ'. What to do: did you mean 'cell_type'?" in text
    assert "--batch-key: obs has no column 'btch'. What to do: did you mean 'batch'?" in text
    assert "--sample-key: obs has no column 'donor'. What to do: there are: " in text


FAILS = """
process {
    withName: '.*:XMODAL_MARKERS' {
        beforeScript = { meta.id == 'new' ? 'exit 3' : "export PATH=$BIN:\\$PATH" }
    }
}
"""


def test_a_mapped_sample_without_markers_does_not_end_the_run(tmp_path: Path) -> None:
    """As a stub, with a GPU that is not there, and with the default model of the task."""
    (tmp_path / "fails.config").write_text(FAILS.replace("$BIN", str(ROOT / ".venv/bin")))
    options = ("-profile", "test,gpu", "-stub", "--task", "joint", "--outdir", "out", "-c", "fails.config")
    run = pipeline(tmp_path, *options)
    succeeded(run)
    assert "Error is ignored" in run.stdout and (tmp_path / "out/report/index.html").is_file()
    assert [p.name for p in (tmp_path / "out/markers").iterdir()] == ["joint"]
    assert [p.name for p in (tmp_path / "out/models").iterdir()] == ["sailerx"]
    scripts = {p.parent: p.read_text() for p in tasks(tmp_path)}
    report = next(folder for folder, text in scripts.items() if "index.html" in text)
    staged = sorted(str(p.relative_to(report)) for kind in ("embedding", "markers") for p in report.glob(f"{kind}/*"))
    assert staged == ["embedding/joint", "embedding/new", "markers/joint"]


def test_a_given_model_embeds_what_there_is(tmp_path: Path) -> None:
    """Rows to train on need no pairs then."""
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "crossmp-format1.safetensors").read_bytes())
    (tmp_path / "sheet.csv").write_text(f"sample,rna\none,{TESTDATA}/rna.h5ad\n")
    options = ("--input", "sheet.csv", "--task", "joint", "--checkpoint", "model.safetensors", "--skip_multiqc")
    run = pipeline(tmp_path, "-profile", "test", "-stub", "--outdir", "out", *options)
    succeeded(run)
    assert "XMODAL_TRAIN" not in run.stdout and (tmp_path / "out/embedding/joint.h5mu").is_file()
