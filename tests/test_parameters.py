"""Wrong parameters and samplesheets: everything is said at once, before the first task."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from helpers_nextflow import TESTDATA, pipeline, succeeded, tasks

pytestmark = pytest.mark.nextflow
Run = subprocess.CompletedProcess[str]

# option, value, what is said
WRONG = (
    ("--modle", "crossmp", "--modle: no such parameter. Did you mean model?"),
    ("--min-peaks", "3", "--min-peaks: no such parameter. Did you mean min_peaks?"),
    ("--input", "nowhere.csv", "--input: file not found: nowhere.csv"),
    (
        "--task",
        "annotat",
        "--task: is 'annotat' but must be one of: predict, joint, annotate, describe, generate. Did you",
    ),
    ("--threshold", "2", "--threshold: is 2 but must be between 0 and 0.999"),
    ("--seed", "first", "--seed: must be a whole number, not 'first'"),
    ("--min_peak_fraction", "2", "--min_peak_fraction: is 2 but must be between 0 and 1"),
    ("--min_rna_counts", "1.5", "--min_rna_counts: must be a whole number, not '1.5'"),
    ("--shards", "0", "--shards: is 0 but must be between 1 and 1000"),
    ("--checkpoint", "model.pt", "--checkpoint: is 'model.pt' but must be a .safetensors file"),
    ("--gene_table", "genes.tsv", "--gene_table: file not found: genes.tsv"),
    ("--exclude", "Mis", "--exclude: is 'Mis' but must look like cell_type=Mis"),
    ("--publish_dir_mode", "cpoy", "--publish_dir_mode: is 'cpoy' but must be one of: symlink, rellink, link, copy"),
    ("--skip_multiqc", "perhaps", "--skip_multiqc: must be true or false, not 'perhaps'"),
    ("--train_args", "a; rm b", "--train_args: is 'a; rm b' but may not hold quotes or shell signs"),
    (
        "--model",
        "Cross MP",
        "--model: is 'Cross MP' but must be one of: mean, depth, linear, crossmp, auto, sailerx, scmmgpt, contrastive, mfm, "
        "interact, husformer.",
    ),
    ("--resolution", "0", "--resolution: is 0 but must be between 0.01 and 100"),
    ("--sample_key", "a b", "--sample_key: is 'a b' but must be the name of a column"),
    ("--genome", "", "--genome: needs a value"),
)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """All wrong parameters in one run: Nextflow takes seconds to start."""
    folder = tmp_path_factory.mktemp("wrong")
    return pipeline(folder, *[word for option, value, _ in WRONG for word in (option, value) if word]), folder


@pytest.mark.parametrize(("option", "value", "message"), WRONG)
def test_each_wrong_parameter_is_named(wrong: tuple[Run, Path], option: str, value: str, message: str) -> None:
    assert message in wrong[0].stdout + wrong[0].stderr


def test_a_required_parameter_is_missed(wrong: tuple[Run, Path]) -> None:
    assert "--outdir: is required" in wrong[0].stdout + wrong[0].stderr


def test_nothing_runs_with_wrong_parameters(wrong: tuple[Run, Path]) -> None:
    run, folder = wrong
    assert run.returncode != 0 and tasks(folder) == []
    assert f"({len(WRONG) + 1} found)" in run.stdout + run.stderr
    assert "looked up where Nextflow was started" in run.stdout + run.stderr
    assert "\tat " not in run.stdout + run.stderr and "Exception" not in run.stdout + run.stderr


SHEET = """sample,role,rna,atac,h5mu,fragments,checkpoint,atak
s 1,train,rna.h5ad,atac.h5ad,,,,
s2,trian,rna.h5ad,nothere.h5ad,,,,
s2,predict,,,,,,
s3,predict,rna.h5ad,,c.h5mu,f.tsv.gz,m.pt,
,train,rna.txt,,
heldout,train,rna.h5ad,atac.h5ad,,,m.safetensors,
s4,train,rna.h5ad,,,g.tsv.gz,,
"""
SHEET_SAYS = (
    "line 1: no such column 'atak'. Did you mean atac?",
    "line 6: has 5 cells, but the header has 8",
    "line 2 (s 1): sample: is 's 1' but must be letters",
    "line 3 (s2): role: is 'trian' but must be one of: train, predict, both. Did you mean train?",
    "line 3 (s2): atac: file not found: nothere.h5ad",
    "line 4 (s2): no file: fill one of the columns rna, atac, protein, h5mu, h5, fragments",
    "line 5 (s3): h5mu: holds all modalities, so the other files (rna) cannot be given as well",
    "line 5 (s3): fragments: file not found: f.tsv.gz",
    "line 8 (s4): fragments: nothing says over which peaks to count. What to do: give --peaks",
    "line 5 (s3): checkpoint: is 'm.pt' but must be a .safetensors file",
    "line 7 (heldout): sample: is 'heldout'",
    "line 7 (heldout): checkpoint: belongs to a row to predict for",
    "lines 3, 4: the sample 's2' is given 2 times; names must differ",
)


def test_all_mistakes_of_a_samplesheet_are_told_at_once(tmp_path: Path) -> None:
    for name in ("rna.h5ad", "atac.h5ad", "rna.txt", "g.tsv.gz"):
        (tmp_path / name).write_text("cells")
    (tmp_path / "sheet.csv").write_text(SHEET)
    run = pipeline(tmp_path, "--input", "sheet.csv", "--outdir", "out")
    said = run.stdout + run.stderr
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert [message for message in SHEET_SAYS if message not in said] == []
    assert "Exception" not in said


def test_a_sheet_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """Byte order mark, Windows line ends, quotes, an empty line; files beside the sheet."""
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    for name in ("rna.h5ad", "atac.h5ad"):
        (sheets / name).write_bytes((TESTDATA / name).read_bytes())
    text = '\ufeffsample,"role",rna,atac\r\n"s",train,rna.h5ad,"atac.h5ad"\r\n\r\n'
    (sheets / "sheet.csv").write_bytes(text.encode())
    options = ("--outdir", "out", "-preview", "-profile", "test")
    succeeded(pipeline(tmp_path, "--input", "sheets/sheet.csv", *options))


def test_a_near_model_is_suggested_and_the_way_to_a_plug_in(tmp_path: Path) -> None:
    run = pipeline(tmp_path, "--model", "crossmpp", "--input", "s.csv", "--outdir", "out")
    assert (
        "Did you mean crossmp? A plug-in's model is chosen by --train_args '--model NAME'." in run.stdout + run.stderr
    )
    assert tasks(tmp_path) == []


def test_settings_in_train_args_are_judged_before_the_first_task(tmp_path: Path) -> None:
    given = "--model crossmp --set epoch=3 --set patience=x --set batch_size=64"
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", "--train_args", given)
    said = run.stdout + run.stderr
    assert "model 'crossmp' has no setting 'epoch'. Did you mean epochs?" in said
    assert "patience must be a whole number, not 'x'" in said and "(2 found)" in said
    assert run.returncode == 1 and tasks(tmp_path) == []


def test_help_lists_every_parameter(tmp_path: Path) -> None:
    import json

    from helpers_nextflow import ROOT

    run = pipeline(tmp_path, "--help")
    succeeded(run)
    groups = json.loads((ROOT / "nextflow_schema.json").read_text())["$defs"].values()
    shown = [name for group in groups for name in group["properties"]]
    assert [name for name in shown if f"  --{name} " not in run.stdout] == []
    assert re.search(r"--min_peak_fraction .* Default: 0\.005\.", run.stdout)
    assert all(group["title"] in run.stdout for group in groups)
    assert tasks(tmp_path) == [] and not (tmp_path / "null").exists()
