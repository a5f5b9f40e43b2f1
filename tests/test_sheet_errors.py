"""What is wrong with a samplesheet or a model is told before the first task: many sheets, judged in one run of Nextflow.

Mistakes of parameters and the first ones of samplesheets are in test_parameters.py.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from conftest import call_xmodal
from helpers_data import pair
from helpers_nextflow import ROOT, nextflow, pipeline, succeeded, tasks

pytestmark = pytest.mark.nextflow
Run = subprocess.CompletedProcess[str]
GOLDEN = ROOT / "tests" / "golden"
# The functions of the pipeline, called for every sheet; what they say goes to a file.
SCRIPT = """
include { readJson        } from '%(root)s/subworkflows/local/utils_xmodal/values'
include { readSamplesheet } from '%(root)s/subworkflows/local/utils_xmodal/main'

workflow {
    schema = readJson('%(root)s/assets/schema_input.json')
    said = readJson('cases.json').collectEntries { name, checkpoint ->
        began = System.currentTimeMillis()
        result = readSamplesheet("${launchDir}/${name}.csv", schema, checkpoint, null)
        ms = System.currentTimeMillis() - began
        names = result[0].collect { row -> row[0].id }
        [name, [samples: names, problems: result[1].collect { text -> "${text}".toString() }, ms: ms]]
    }
    file("${launchDir}/said.json").text = groovy.json.JsonOutput.toJson(said)
}
"""
PAIR = "sample,role,rna,atac\n"
NEW = "sample,role,rna,atac,protein,checkpoint\n"

# name: (sheet, --checkpoint, what is said); nothing said: the sheet is good
CASES: dict[str, tuple[str | bytes, str | None, list[str]]] = {
    "bom_and_windows": (("\ufeff" + PAIR + "s,train,a.h5ad,b.h5ad\n").replace("\n", "\r\n").encode(), None, []),
    "quotes": ('"sample","role","rna","atac"\n"s","train"," a.h5ad ","b.h5ad"\n', None, []),
    "trailing": (PAIR + "s,train,a.h5ad,b.h5ad\n\n,,,\n , ,\n\n\n", None, []),
    "columns_too_many": ("sample,role,rna,atac,,\ns,train,a.h5ad,b.h5ad,,\n", None, []),
    "comment": ("# made by hand\n" + PAIR + "s,train,a.h5ad,b.h5ad\n", None, []),
    "cell_without_column": (PAIR + "s,train,a.h5ad,b.h5ad,x\n", None, ["line 2: has 5 cells, but the header has 4"]),
    "column_without_name": ("sample,,rna,atac\ns,train,a.h5ad,b.h5ad\n", None, ["line 1: a column has no name"]),
    "not_text": (b"PK\x03\x04\x00\x00", None, ["not_text.csv: is not plain text in UTF-8"]),
    "latin_1": ("sample,rna,atac\ns\xe4,a.h5ad,b.h5ad\n".encode("latin-1"), None, ["not plain text in UTF-8"]),
    "utf_16": (PAIR.encode("utf-16"), None, ["not plain text in UTF-8"]),
    "nothing": ("", None, ["nothing.csv: is empty. What to do: give a header line such as"]),
    "semicolons": (
        "sample;role;rna;atac\ns;train;a.h5ad;b.h5ad\n",
        None,
        ["semicolons.csv: its cells are separated by semicolons. What to do: save it as CSV with commas"],
    ),
    "tabs": ("sample\trna\ns\ta.h5ad\n", None, ["tabs.csv: its cells are separated by tabs"]),
    "no_sample": (
        "name,rna,atac\ns,a.h5ad,b.h5ad\n",
        None,
        [
            "line 1: no such column 'name'.",
            "line 1: the column 'sample' is missing. What to do: write it into the header",
        ],
    ),
    "rna_only": ("sample,rna\ns,a.h5ad\n", None, ["the rows to train on have rna only. What to do: give a second"]),
    "only_header": (PAIR, None, ["only_header.csv: has a header but no sample"]),
    "column_twice": ("sample,rna,rna\ns,a.h5ad,b.h5ad\n", None, ["line 1: column 'rna' stands there twice"]),
    "bad_names": (
        PAIR + "a/b,train,a.h5ad,b.h5ad\n.x,train,c.h5ad,d.h5ad\n" + "y" * 101 + ",train,e.h5ad,f.h5ad\n",
        None,
        [f"line {n} ({s}): sample: is '{s}' but must be" for n, s in ((2, "a/b"), (3, ".x"), (4, "y" * 101))],
    ),
    "own_names": (
        PAIR + "input,train,a.h5ad,b.h5ad\nPrediction12,train,c.h5ad,d.h5ad\ninputs,train,e.h5ad,f.h5ad\n",
        None,
        [f"line {n} ({s}): sample: is '{s}' but must be" for n, s in ((2, "input"), (3, "Prediction12"))],
    ),
    "folder_and_empty": (
        PAIR + "s,train,folder.h5ad,empty.h5ad\n",
        None,
        ["line 2 (s): rna: is a folder, not a file: folder.h5ad", "line 2 (s): atac: is empty (0 bytes): empty.h5ad"],
    ),
    "signs_in_paths": (
        PAIR + '"s",train,"a,b.h5ad",it\'s.h5ad\n',
        None,
        ["line 2 (s): rna: is 'a,b.h5ad' but must be a .h5ad file", "line 2 (s): atac: is 'it's.h5ad' but must be"],
    ),
    "same_name": (
        PAIR + "".join(f"s,train,{a}.h5ad,{b}.h5ad\n" for a, b in ("ab", "cd", "ef")),
        None,
        ["lines 2, 3, 4: the sample 's' is given 3 times"],
    ),
    "same_file_learned": (
        PAIR + "s,train,a.h5ad,b.h5ad\nt,both,./a.h5ad,d.h5ad\nu,predict,a.h5ad,\n",
        None,
        ["lines 2, 3: a.h5ad is the same file in 2 rows to learn from"],
    ),
    "same_file_predicted": (
        NEW + "s,predict,a.h5ad,,,\nt,predict,a.h5ad,,,\nu,predict,a.h5ad,,,mean.safetensors\n",
        "crossmp.safetensors",
        ["lines 2, 3: the same files (a.h5ad) in 2 rows to predict for"],
    ),
    "no_pair": (
        PAIR + "s,train,a.h5ad,\nt,train,,b.h5ad\n",
        None,
        ["no row to train on has two modalities"],
    ),
    "not_taught": (
        NEW + "s,train,a.h5ad,b.h5ad,,\nt,predict,,,c.h5ad,\n",
        None,
        ["line 3 (t): the rows to train on have atac and rna; nothing can be predicted from protein"],
    ),
    "no_model": (
        NEW + "s,predict,a.h5ad,,,\nt,predict,c.h5ad,,,\n",
        None,
        [f"line {n} ({s}): no model to predict with. What to do: give --checkpoint" for n, s in ((2, "s"), (3, "t"))],
    ),
    "fits": (NEW + "s,predict,a.h5ad,,,\nt,predict,,b.h5ad,,mean.safetensors\n", "crossmp.safetensors", []),
    "fragments": ("sample,role,fragments\ns,predict,f.tsv.gz\n", "crossmp.safetensors", []),
    "fragments_unfit": (
        "sample,role,fragments,checkpoint\ns,predict,f.tsv.gz,from_rna.safetensors\n",
        None,
        ["line 2 (s): checkpoint: from_rna.safetensors predicts atac from rna; nothing from atac"],
    ),
    "elsewhere": (
        NEW + "s,predict,https://example.org/a.h5ad,,,https://example.org/m.safetensors\n",
        "https://example.org/n.safetensors",
        [],
    ),
    "whole_file": ("sample,role,h5mu\ns,predict,w.h5mu\n", "crossmp.safetensors", []),
    "unfit_everywhere": (
        NEW + "s,predict,,,a.h5ad,mean.safetensors\nt,predict,,,b.h5ad,\nu,predict,a.h5ad,,c.h5ad,\n",
        "crossmp.safetensors",
        [
            "line 2 (s): checkpoint: mean.safetensors predicts rna from atac, atac from rna; nothing from protein. "
            "What to do: give a model that was trained on protein, or cells of atac or rna",
            "line 3 (t): --checkpoint: crossmp.safetensors predicts",
        ],
    ),
    "one_way": (
        NEW + "s,predict,a.h5ad,,,from_rna.safetensors\nt,predict,,b.h5ad,,from_rna.safetensors\n",
        None,
        ["line 3 (t): checkpoint: from_rna.safetensors predicts atac from rna; nothing from atac"],
    ),
    "no_checkpoints": (
        NEW
        + "".join(
            f"s{n},predict,{n}.h5ad,,,{name}.safetensors\n"
            for n, name in zip("abcdef", ["text", "cut", "foreign", "other", "empty", "folder"], strict=True)
        ),
        None,
        [
            "line 2: checkpoint: text.safetensors is not a safetensors file, or is cut",
            "line 3: checkpoint: cut.safetensors is not a safetensors file, or is cut",
            "line 4: checkpoint: foreign.safetensors is a safetensors file, but no checkpoint of xmodal",
            "line 5: checkpoint: other.safetensors is a safetensors file, but no checkpoint of xmodal",
            "line 6 (se): checkpoint: is empty (0 bytes)",
            "line 7 (sf): checkpoint: is a folder",
        ],
    ),
    "wrong_checkpoint": (
        NEW + "s,predict,a.h5ad,,,\nt,predict,c.h5ad,,,\n",
        "text.safetensors",
        ["--checkpoint: text.safetensors is not a safetensors file"],
    ),
    "one_wrong_for_many": (
        NEW + "".join(f"s{i},predict,{n}.h5ad,,,text.safetensors\n" for i, n in enumerate("abcdef")),
        None,
        ["lines 2, 3, 4, 5, 6 and 1 more: checkpoint: text.safetensors is not a safetensors file"],
    ),
    "made_by_the_command": ("", None, []),
    "many": (NEW + "".join(f"s{i},predict,many/{i}.h5ad,,,\n" for i in range(1000)), "crossmp.safetensors", []),
}
HUNDREDS = 300  # rows that are all wrong
# What YAML makes of values that look right.
PARAMS = """
outdir: out
input: folder.csv
gene_table: empty.tsv
seed: "5"
skip_multiqc: "true"
min_rna_counts: 1.0e3
min_peaks: -3
model: [auto, mean]
genome: {hg38: 1}
split_by: ""
label_key: 2024-01-01
min_peak_fraction: .nan
layer: yes
"""
PARAMS_SAY = (
    "--input: is a folder, not a file: folder.csv",
    "--gene_table: is empty (0 bytes): empty.tsv",
    "--seed: must be a whole number, not '5'. What to do: leave out the quotes",
    "--skip_multiqc: must be true or false, not 'true'. What to do: leave out the quotes",
    "--min_rna_counts: must be a whole number, not '1000.0'",
    "--min_peaks: is -3 but must be at least 0",
    "--model: must be one value, not [auto, mean]",
    "--genome: must be one value, not [hg38:1]",
    "--split_by: is '' but must be the name of a column",
    "--label_key: is 'Mon Jan 01",
    "--min_peak_fraction: must be a number, not 'NaN'",
    "--layer: needs a value",
)


def safetensors(path: Path, metadata: dict[str, str] | None) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(2, np.float32)}, path, metadata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the sheets name; Nextflow only looks whether they are there."""
    folder = tmp_path_factory.mktemp("sheets")
    for name in "abcdef":
        (folder / f"{name}.h5ad").write_text("cells")
    (folder / "w.h5mu").write_text("cells")
    (folder / "f.tsv.gz").write_text("fragments")
    (folder / "many").mkdir()
    for i in range(1000):
        (folder / f"many/{i}.h5ad").write_text("cells")
    for ending in ("h5ad", "safetensors"):
        (folder / f"empty.{ending}").touch()
        (folder / f"folder.{ending}").mkdir()
    for name in ("mean", "crossmp"):
        (folder / f"{name}.safetensors").write_bytes((GOLDEN / f"{name}-format1.safetensors").read_bytes())
    (folder / "text.safetensors").write_text("these are no tensors at all")
    (folder / "cut.safetensors").write_bytes((GOLDEN / "mean-format1.safetensors").read_bytes()[:100])
    safetensors(folder / "foreign.safetensors", None)
    safetensors(folder / "other.safetensors", {"xmodal": "no JSON"})
    safetensors(folder / "from_rna.safetensors", {"xmodal": json.dumps({"format": 1, "directions": [["rna", "atac"]]})})
    for i in range(3):
        pair(folder / f"results/S{i}")
    done = call_xmodal("samplesheet", folder / "results", "--output", folder / "made_by_the_command.csv")
    assert done.code == 0, done.err
    for name, (sheet, _, _) in CASES.items():
        if name != "made_by_the_command":
            (folder / f"{name}.csv").write_bytes(sheet if isinstance(sheet, bytes) else sheet.encode())
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Every sheet in one run.  In the locale C: what a sheet says does not hang on it."""
    models = {
        name: model if not model or ":" in model else str(folder / model) for name, (_, model, _) in CASES.items()
    }
    (folder / "cases.json").write_text(json.dumps(models))
    (folder / "judge.nf").write_text(SCRIPT % {"root": ROOT})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        succeeded(nextflow(folder, "run", "judge.nf"))
    found: dict[str, dict[str, list[str]]] = json.loads((folder / "said.json").read_text())
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_sheet_and_all_that_is_wrong_with_it(said: dict[str, dict[str, list[str]]], name: str) -> None:
    expected, problems = CASES[name][2], said[name]["problems"]
    assert len(problems) == len(expected), problems
    assert [text for text in expected if not any(text in problem for problem in problems)] == []
    assert bool(said[name]["samples"]) == (not expected)


def test_a_thousand_rows_are_judged_in_seconds(said: dict[str, dict[str, int]]) -> None:
    assert len(said["many"]["samples"]) == 1000  # type: ignore[arg-type]
    assert said["many"]["ms"] < 5000


def test_of_hundreds_of_mistakes_the_first_are_shown_and_nothing_is_run(tmp_path: Path) -> None:
    rows = "".join(f"s{i},trian,nowhere/{i}.h5ad,\n" for i in range(HUNDREDS))
    (tmp_path / "sheet.csv").write_text(PAIR + rows)
    run = pipeline(tmp_path, "--input", "sheet.csv", "--outdir", "out")
    said = run.stdout + run.stderr
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert f"({2 * HUNDREDS} found)" in said and f"and {2 * HUNDREDS - 20} more" in said
    assert "line 2 (s0): role: is 'trian'" in said and "line 11 (s9): rna: file not found" in said
    assert "line 12 (s10)" not in said and "Did you mean train?" in said
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["execution_trace.txt"]


def test_values_of_a_params_file_that_only_look_right(tmp_path: Path) -> None:
    (tmp_path / "params.yml").write_text(PARAMS)
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "folder.csv").mkdir()
    run = pipeline(tmp_path, "-params-file", "params.yml")
    said = run.stdout + run.stderr
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert [message for message in PARAMS_SAY if message not in said] == []
    assert f"({len(PARAMS_SAY)} found)" in said


def test_an_unknown_profile_is_refused_with_the_near_one(tmp_path: Path) -> None:
    run = pipeline(tmp_path, "-profile", "tset", "--outdir", "out")
    assert run.returncode != 0 and not (tmp_path / "out").exists()
    assert "Unknown configuration profile: 'tset'" in run.stdout + run.stderr and "    test" in run.stdout + run.stderr
