"""--sweep: the file of trials is checked before anything runs, and the best trial is trained, predicts and is shown.

`python tests/test_sweep.py` writes assets/schema_trials.json anew from the models' settings.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from helpers_nextflow import ROOT, TESTDATA, count, pipeline, succeeded, tasks
from xmodal import registry
from xmodal.data import sheets
from xmodal.scores import selection

Run = subprocess.CompletedProcess[str]
SCHEMA = ROOT / "assets/schema_trials.json"
KEPT = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "description", "default")


def schema() -> dict[str, Any]:
    """What a file of trials may hold, with the settings of each model that the package brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    models = sorted(project["project"]["entry-points"]["xmodal.models"])
    pair = "[A-Za-z0-9_]+=[A-Za-z0-9_.+-]+"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://raw.githubusercontent.com/crossmodal/xmodal/main/assets/schema_trials.json",
        "title": "crossmodal/xmodal trials of a sweep",
        "description": "Written by `python tests/test_sweep.py` from the settings of the models; a test compares.",
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {
                    "type": "string",
                    "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$",
                    "not": {"pattern": f"^({sheets.RESERVED.pattern})$"},
                    "errorMessage": f"must be letters, digits, _ or -, and not {sheets.OWN_NAMES}",
                },
                "model": {
                    "type": "string",
                    "enum": models,
                    "errorMessage": "A plug-in's model needs --validate_params false.",
                },
                "settings": {
                    "type": "string",
                    "pattern": f"^{pair}( +{pair})*$",
                    "errorMessage": "must look like epochs=20 latent=8",
                },
                "seed": {"type": "integer", "minimum": 0, "maximum": 2147483647},
            },
            "required": ["name", "model"],
        },
        "$defs": {name: about(name) for name in models},
    }


def about(model: str) -> dict[str, Any]:
    known = registry.get(model)
    return {"latent": known.has_latent, "labels": known.takes_labels, "properties": settings_of(model)}


def settings_of(model: str) -> dict[str, Any]:
    described = registry.get(model).Settings.model_json_schema().get("properties", {})
    return {name: {k: about[k] for k in KEPT if k in about} for name, about in described.items()}


def test_the_schema_is_that_of_the_models() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run `python tests/test_sweep.py`"
    assert all("type" in rule for model in schema()["$defs"].values() for rule in model["properties"].values())


def test_the_example_fits_and_its_settings_are_those_of_the_models() -> None:
    from xmodal.learning.training_job import parse_settings

    header, *lines = [line.split(",") for line in (ROOT / "assets/trials.csv").read_text().splitlines()]
    assert header == ["name", "model", "settings", "seed"] and len(lines) >= 3
    for _, model, settings, _ in lines:
        parse_settings(registry.get(model), tuple(settings.split()))


def test_metrics_that_can_choose_are_those_of_select_and_in_the_manual() -> None:
    groups = json.loads((ROOT / "nextflow_schema.json").read_text())["$defs"].values()
    rule = next(g["properties"]["sweep_metric"] for g in groups if "sweep_metric" in g["properties"])
    manual = (ROOT / "docs/scores.md").read_text()
    for name in selection.MEASURES:
        assert re.fullmatch(rule["pattern"], f"{name},{name}")
        assert f"`{name}`" in manual
    assert not re.fullmatch(rule["pattern"], "cell_pearson") and not re.fullmatch(rule["pattern"], "rmse,")


WRONG = """name,model,settings,seed,depth
a,linaer,,0,
b,crossmp,epochz=3,0,
b,crossmp,epochs=many latent=0,0,
c d,mean,,-1,
,linear,method=pca,0,
e,mean,rank=3,0,
f,crossmp,epochs 3,0,
g,crossmp,learning_rate=0 plateau_factor=1,0,
h,crossmp,epochs=3 dropout=.1,2,
i,crossmp,dropout=.1 epochs=3,2,
j,crossmp,epochs=3 epochs=4,0
"""
SAYS = (
    "line 1: no such column 'depth'.",
    "line 2 (a): model: is 'linaer' but must be one of: auto, contrastive, crossmp, depth, husformer, interact, linear, mean, "
    "mfm, sailerx, scmmgpt. Did you",
    "line 3 (b): settings: model 'crossmp' has no setting 'epochz'. Did you mean epochs?",
    "line 4 (b): settings: epochs must be a whole number, not 'many'",
    "line 4 (b): settings: latent is 0 but must be at least 1",
    "lines 3, 4: names of trials must differ",
    "line 5 (c d): name: is 'c d' but must be letters",
    "line 5 (c d): seed: is -1 but must be",
    "line 6: name: is empty",
    "line 6: settings: method is 'pca' but must be one of: pls, ridge",
    "line 7 (e): settings: model 'mean' has no setting 'rank'. It has none.",
    "line 8 (f): settings: is 'epochs 3' but must look like epochs=20 latent=8",
    "line 9 (g): settings: learning_rate is 0 but must be above 0",
    "line 9 (g): settings: plateau_factor is 1 but must be below 1",
    "lines 10, 11: these are the same trial",
    "line 12: has 4 cells, but the header has 5",
)


@pytest.mark.nextflow
def test_all_mistakes_of_the_trials_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text(WRONG)
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", "--sweep", "trials.csv")
    said = run.stdout + run.stderr
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert [message for message in SAYS if message not in said] == []
    assert "Exception" not in said and f"({len(SAYS)} found)" in said


@pytest.mark.nextflow
def test_a_given_model_leaves_nothing_to_try(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("name,model\na,mean\n")
    (tmp_path / "model.safetensors").write_bytes((ROOT / "tests/golden/mean-format1.safetensors").read_bytes())
    options = ("--sweep", "trials.csv", "--checkpoint", "model.safetensors")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", *options)
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert "--checkpoint: a given model leaves nothing to try" in run.stdout + run.stderr


@pytest.mark.nextflow
def test_mistakes_of_samplesheet_and_trials_are_told_together(tmp_path: Path) -> None:
    """Also that no row learns, and that a trial has the name of a folder of its own scoring."""
    (tmp_path / "trials.csv").write_text("name,model\ninput,mean\nPrediction1,mean\n")
    (tmp_path / "m.safetensors").write_bytes((ROOT / "tests/golden/mean-format1.safetensors").read_bytes())
    (tmp_path / "sheet.csv").write_text(f"sample,role,rna,checkpoint\ns,predict,{TESTDATA}/rna.h5ad,m.safetensors\n")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", "--input", "sheet.csv", "--sweep", "trials.csv")
    said = run.stdout + run.stderr
    assert run.returncode != 0 and tasks(tmp_path) == []
    assert "The samplesheet sheet.csv cannot be used (1 found):" in said
    assert "--sweep: no row has cells to learn from, so there is nothing to try" in said
    assert "The trials in trials.csv cannot be used (3 found):" in said
    assert "line 2 (input): name: is 'input' but must be" in said
    assert "line 3 (Prediction1): name: is 'Prediction1' but must be" in said


@pytest.mark.nextflow
def test_files_that_are_not_there_are_told_without_the_check_of_parameters(tmp_path: Path) -> None:
    given = ("--input", "no.csv", "--sweep", "nowhere.csv", "--validate_params", "false")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", *given)
    said = run.stdout + run.stderr
    assert run.returncode != 0 and tasks(tmp_path) == [] and "Exception" not in said
    assert "no.csv: file not found" in said and "nowhere.csv: file not found" in said


TRIALS = """name,model,settings,seed
pls,linear,,
exploding,crossmp,epochs=2 learning_rate=1e30,
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


def sweep(folder: Path, trials: str, *options: str) -> Run:
    files = f"{TESTDATA / 'rna.h5ad'},{TESTDATA / 'atac.h5ad'}"
    (folder / "sheet.csv").write_text(f"sample,role,rna,atac\npaired,train,{files}\n")
    (folder / "trials.csv").write_text(trials)
    given = ("--input", "sheet.csv", "--sweep", "trials.csv", "--skip_multiqc")
    run = pipeline(folder, "-profile", "test", "--outdir", "out", *given, *options)
    succeeded(run)
    return run


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    """Two trials, of which one cannot be trained."""
    return sweep(folder, TRIALS)


def selected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/sweep/selection.json").read_text())
    return found


@pytest.mark.nextflow
def test_the_best_trial_becomes_the_model(finished: Run, folder: Path) -> None:
    about = selected(folder)
    assert about["best"] == {"name": "pls", "model": "linear", "settings": [], "seed": 0}
    assert [p.name for p in (folder / "out/models").iterdir()] == ["pls"]
    training = json.loads((folder / "out/models/pls/metrics.json").read_text())
    assert training["model"] == "linear" and "trial" not in training  # trained again, on validation cells as well
    scored = json.loads((folder / "out/evaluation/heldout/metrics.json").read_text())
    assert scored["settings"]["cells"] == "test" and scored["targets"]["rna"]["model"] == "linear"
    published = {p.name for p in (folder / "out/sweep").iterdir()}
    assert published == {"selection.tsv", "selection.json", "selection.png", "model.safetensors"}
    assert {p.name for p in (folder / "out/predictions").iterdir()} == {"heldout"}


@pytest.mark.nextflow
def test_a_trial_that_fails_is_told_with_its_reason(finished: Run, folder: Path) -> None:
    trials = {t["name"]: t for t in selected(folder)["trials"]}
    assert trials["exploding"]["status"] == "failed" and "loss is not finite" in trials["exploding"]["why"]
    assert "--set epochs=3 is left out with --sweep" in finished.stdout  # of the profile


@pytest.mark.nextflow
def test_the_report_shows_the_sweep(finished: Run, folder: Path) -> None:
    page = (folder / "out/report/index.html").read_text()
    assert 'id="sweep"' in page and "exploding" in page and "loss is not finite" in page
    assert "was chosen among 2 trials: pls" in page


@pytest.mark.nextflow
def test_resume_trains_only_the_trial_that_was_added(finished: Run, folder: Path) -> None:
    again = sweep(folder, TRIALS + "average,mean,,\n", "-resume")
    trained = [line for line in again.stdout.splitlines() if "Submitted" in line and ":XMODAL_TRAIN" in line]
    assert [line.partition("(")[2] for line in trained] == ["average)"]
    assert count(again, "Submitted") == 1 + 2 + 1 + 1 + 1  # trained, predicted, scored; selected, reported
    assert [t["name"] for t in selected(folder)["trials"]] == ["pls", "average", "exploding"]


KILLS = """
process {
    withName: '.*:XMODAL_TRAIN_TRIAL' {
        beforeScript = { meta.id == 'large' ? 'exit 137' : "export PATH=$BIN:\\$PATH" }
    }
}
"""


@pytest.mark.nextflow
def test_a_trial_that_is_killed_again_and_again_does_not_end_the_others(tmp_path: Path) -> None:
    """As a stub: only who is run, and how it ends."""
    (tmp_path / "trials.csv").write_text("name,model\nlarge,crossmp\nsmall,mean\n")
    (tmp_path / "kills.config").write_text(KILLS.replace("$BIN", str(ROOT / ".venv/bin")))
    options = ("--sweep", "trials.csv", "--skip_multiqc", "-c", "kills.config", "-stub")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", *options)
    succeeded(run)
    started = [line for line in run.stdout.splitlines() if "ubmitted process" in line]
    assert sum("XMODAL_TRAIN_TRIAL (large)" in line for line in started) == 6
    assert "Error is ignored" in run.stdout and (tmp_path / "out/sweep/selection.json").is_file()
    assert [p.name for p in (tmp_path / "out/predictions").iterdir()] != []
    select = next(p for p in tasks(tmp_path) if "selection.json" in p.read_text())
    assert [p.name for p in (select.parent / "training").iterdir()] == ["small"]


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n")
