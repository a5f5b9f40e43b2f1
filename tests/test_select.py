"""A sweep by hand: trials learn nothing from the cells that judge them, the best is chosen, and what cannot be is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mudata as mu
import numpy as np
import pandas as pd
import pytest
import torch

from conftest import call_xmodal
from helpers_data import REAL, needs_real
from helpers_nextflow import TESTDATA
from xmodal.errors import InputRefused, UsageRefused
from xmodal.scores import selection
from xmodal.scores.selection import Trial, parse_measures, select

mu.set_options(pull_on_update=False)
QUIET = ("--threads", 1, "--quiet")
TRIALS: dict[str, tuple[object, ...]] = {
    "average": ("--model", "mean"),
    "pls": ("--model", "linear"),
    "net": ("--model", "crossmp", "--set", "epochs=2", "--seed", 3),
    "wrong": ("--model", "crossmp", "--set", "epochz=2"),
}
FAST = {
    "linear": (),
    "crossmp": ("epochs=2",),
    "auto": ("epochs=2", "refit_epochs=1", "members=1", "restarts=1", "coarse=3", "fine=4"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 900 cells of the repository, in which the linear model finds something."""
    path = tmp_path_factory.mktemp("cells") / "prepared.h5mu"
    files = ("--rna", TESTDATA / "rna.h5ad", "--atac", TESTDATA / "atac.h5ad", "--split", "random")
    done = call_xmodal("prepare", *files, "--output", path, "--quiet")
    assert done.code == 0, done.err
    return path


def train(prepared: Path, folder: Path, *options: object) -> dict[str, Any]:
    done = call_xmodal("train", prepared, *options, "--trial", "--output-dir", folder, *QUIET)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def judge(
    prepared: Path, training: Path, folder: Path, split: str = "valid", pair: tuple[str, str] = ("rna", "atac")
) -> None:
    """Predict both directions of one split and evaluate them."""
    given: list[object] = []
    for source, target in (pair, pair[::-1]):
        path = folder.parent / f"{folder.name}.{target}.h5ad"
        way = ("--from", source, "--to", target, "--split", split)
        done = call_xmodal(
            "predict", prepared, *way, "--checkpoint", training / "model.safetensors", "--output", path, *QUIET
        )
        assert done.code == 0, done.err
        given += ["--prediction", f"{target}={path}"]
    small = ("--controls", "mean,linear", "--umap-cells", 0)
    done = call_xmodal("evaluate", prepared, *given, *small, "--output-dir", folder, *QUIET)
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def sweep(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with training/NAME and evaluation/NAME of four trials, of which one has a setting its model lacks."""
    folder = tmp_path_factory.mktemp("sweep")
    for name, options in TRIALS.items():
        train(prepared, folder / "training" / name, *options)
        if name != "wrong":
            judge(prepared, folder / "training" / name, folder / "evaluation" / name)
    return folder


def chosen(sweep: Path, output: Path, *options: object) -> Any:
    given: list[object] = []
    for name in TRIALS:
        given += ["--training", sweep / "training" / name]
        given += ["--evaluation", sweep / "evaluation" / name] if name != "wrong" else []
    return call_xmodal("select", *given, *options, "--output-dir", output)


@pytest.fixture(scope="module")
def selected(sweep: Path) -> Path:
    done = chosen(sweep, sweep / "out", "--expect", "lost", "--expect", "pls")
    assert done.code == 0, done.err
    return sweep / "out"


def changed(prepared: Path, path: Path, part: str) -> Path:
    """The same file with other counts in all cells of one part of the split."""
    mdata = mu.read_h5mu(prepared)
    rng = np.random.default_rng(9)
    rows = np.flatnonzero((mdata.obs["xmodal_split"] == part).to_numpy())
    for adata in mdata.mod.values():
        counts = adata.X.toarray()
        counts[rows] = rng.poisson(3, (len(rows), counts.shape[1]))
        adata.X = type(adata.X)(counts.astype(np.float32))
        depth = adata.obs["xmodal_depth"].to_numpy(copy=True)
        depth[rows] = counts[rows].sum(1)
        adata.obs["xmodal_depth"] = depth
    mdata.write(path)
    return path


@pytest.mark.parametrize("model", FAST)
@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_trial_learns_nothing_from_cells_it_is_judged_on(
    prepared: Path, tmp_path: Path, model: str, part: str
) -> None:
    """Closed forms and auto learn from validation cells in the end; a trial may not."""
    options = ("--model", model, *(word for s in FAST[model] for word in ("--set", s)))
    facts = train(prepared, tmp_path / "a", *options)["split"]
    train(changed(prepared, tmp_path / "other.h5mu", part), tmp_path / "b", *options)
    a, b = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert a == b
    assert facts["source"] == "trial" and facts["judged"] > 0 and facts["valid"] > 0


def test_without_trial_a_closed_form_does_learn_from_them(prepared: Path, tmp_path: Path) -> None:
    """So the test above can fail."""
    weights = []
    for name, cells in (("a", prepared), ("b", changed(prepared, tmp_path / "other.h5mu", "valid"))):
        done = call_xmodal("train", cells, "--model", "linear", "--output-dir", tmp_path / name, *QUIET)
        assert done.code == 0, done.err
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]


def test_seeds_share_the_cells_a_trial_chooses_on(prepared: Path, tmp_path: Path) -> None:
    splits = [
        train(prepared, tmp_path / str(s), "--model", "crossmp", "--set", "epochs=1", "--seed", s)["split"]
        for s in (0, 1)
    ]
    assert splits[0] == splits[1]
    whole = call_xmodal("train", prepared, "--model", "mean", "--output-dir", tmp_path / "w", *QUIET)
    assert whole.code == 0
    usual = json.loads((tmp_path / "w/metrics.json").read_text())["split"]
    assert usual["train"] == splits[0]["train"] + splits[0]["valid"] and usual["valid"] == splits[0]["judged"]


def test_a_trial_needs_validation_cells_of_the_file(prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata.obs["xmodal_split"] = mdata.obs["xmodal_split"].astype(str).replace("valid", "train")
    mdata.write(tmp_path / "none.h5mu")
    done = call_xmodal(
        "train", tmp_path / "none.h5mu", "--model", "mean", "--trial", "--output-dir", tmp_path / "t", *QUIET
    )
    assert done.code == 3 and "no validation cells" in done.err  # no trial can do without, so this is no failed trial
    assert not (tmp_path / "t").exists()


def test_trouble_of_the_machine_or_of_files_is_no_failed_trial(prepared: Path, tmp_path: Path) -> None:
    """It ends with its own exit code, so that a workflow tries again or stops, and caches nothing."""
    common = ("train", prepared, "--model", "linear", "--trial", "--output-dir", tmp_path / "t", *QUIET)
    links = tmp_path / "links.tsv"
    links.write_text("no\tlinks\n")
    assert call_xmodal(*common, "--links", links).code == 3
    assert call_xmodal(*common, "--device", "cuda").code != 0 or torch.cuda.is_available()
    assert call_xmodal(*common, "--fallback", "mean").code == 2
    assert not (tmp_path / "t").exists()


def test_controls_learn_nothing_from_validation_cells_that_are_scored(sweep: Path, prepared: Path) -> None:
    """The control linear and the trial linear learned from the same cells: they score alike."""
    methods = json.loads((sweep / "evaluation/pls/metrics.json").read_text())["targets"]["rna"]["methods"]
    for score in ("gene_pearson", "cell_pearson_centred", "rmse_log1p"):
        assert methods["prediction"][score] == pytest.approx(methods["linear"][score], abs=2e-3)
    content = json.loads((sweep / "evaluation/pls/metrics.json").read_text())
    assert content["settings"]["cells"] == "valid"
    assert content["targets"]["rna"]["cells"] == content["split"]["valid"]


def test_the_best_is_chosen_and_everything_is_told(selected: Path, sweep: Path) -> None:
    about = json.loads((selected / "selection.json").read_text())
    assert about["best"] == {"name": "pls", "model": "linear", "settings": [], "seed": 0}
    assert [t["name"] for t in about["trials"]] == ["pls", "net", "average", "lost", "wrong"]
    assert (selected / "model.safetensors").read_bytes() == (sweep / "training/pls/model.safetensors").read_bytes()
    assert (selected / "selection.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(selected / "selection.tsv", sep="\t")
    assert table["rank"].tolist()[:3] == [1, 2, 3] and table["rank"].isna().sum() == 2
    assert {"rna_to_atac", "atac_to_rna", "atac_to_rna.gene_pearson", "rna_to_atac.peak_auroc"} <= set(table)
    assert table["score"].dropna().is_monotonic_decreasing
    mean = table[table["name"] == "average"].iloc[0]
    assert abs(mean["score"]) < 1e-6  # the average of the training cells is what guessing means


def test_a_failed_trial_says_why(selected: Path) -> None:
    trials = {t["name"]: t for t in json.loads((selected / "selection.json").read_text())["trials"]}
    assert trials["wrong"]["status"] == "failed" and "epochs" in trials["wrong"]["why"]
    assert trials["wrong"]["settings"] == ["epochz=2"]
    assert trials["lost"]["why"].startswith("it left no result (") and "log of its task" in trials["lost"]["why"]


def test_a_trial_is_called_by_the_folder_that_is_given_also_where_it_is_a_link(sweep: Path, tmp_path: Path) -> None:
    """So does a workflow engine stage folders: the link has the name, what it leads to may have any."""
    (tmp_path / "renamed").symlink_to(sweep / "training/pls", target_is_directory=True)
    given = ("--training", tmp_path / "renamed", "--evaluation", sweep / "evaluation/pls")
    done = call_xmodal("select", *given, "--output-dir", tmp_path / "out")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out/selection.json").read_text())["best"]["name"] == "renamed"


def test_report_and_multiqc_show_the_trials(selected: Path, tmp_path: Path) -> None:
    done = call_xmodal(
        "report", "--selection", selected, "--output", tmp_path / "r.html", "--multiqc-dir", tmp_path / "mqc"
    )
    assert done.code == 0, done.err
    page = (tmp_path / "r.html").read_text()
    assert (
        "pls predicted the validation cells best" in page
        and "The model was chosen among 5 trials: pls (linear)" in page
    )
    assert "2 of 5 trials failed" in page and "failed: --set epochz: model" in page
    assert page.count('src="data:image/png;base64,') == 1
    shown = json.loads((tmp_path / "mqc/xmodal_sweep_mqc.json").read_text())["data"]
    assert list(shown) == ["pls", "net", "average"] and set(shown["pls"]) == {"RNA from ATAC", "ATAC from RNA"}
    done = call_xmodal("report", "--selection", tmp_path / "mqc", "--output", tmp_path / "no.html")
    assert (done.code, "there is no selection.json in it" in done.err) == (3, True)


def test_same_trials_same_bytes(selected: Path, sweep: Path, tmp_path: Path) -> None:
    assert chosen(sweep, tmp_path / "again", "--expect", "lost").code == 0
    for file in selected.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_one_metric_of_one_direction(sweep: Path, tmp_path: Path) -> None:
    assert chosen(sweep, tmp_path / "out", "--metric", "gene_pearson").code == 0
    about = json.loads((tmp_path / "out/selection.json").read_text())
    assert about["measures"] == {"atac -> rna": ["gene_pearson"]}
    done = chosen(sweep, tmp_path / "no", "--metric", "gene_pearsn")
    assert (done.code, "did you mean 'gene_pearson'?" in done.err) == (2, True)
    assert not (tmp_path / "no").exists()


def test_what_would_make_the_choice_worthless_is_refused(sweep: Path, prepared: Path, tmp_path: Path) -> None:
    pls = sweep / "training/pls"
    judge(prepared, pls, tmp_path / "tested", split="test")
    call_xmodal("train", prepared, "--model", "mean", "--output-dir", tmp_path / "usual", *QUIET)
    other = sweep / "evaluation/average"
    for given, words in (
        (("--training", pls, "--evaluation", tmp_path / "tested"), "it scored the test cells"),
        (("--training", tmp_path / "usual"), "train it with --trial"),
        (("--training", pls, "--evaluation", other), "no --training made the checkpoint"),
        (("--training", pls), "its predictions were not scored"),
        (("--training", sweep / "training/wrong"), "not one of 1 trials could be judged"),
        (("--training", sweep / "evaluation/pls"), "this is no trial"),
        (("--training", pls, "--evaluation", pls), "this is no folder of evaluate"),
        (("--training", pls, "--training", pls), "two trainings have this name"),
    ):
        done = call_xmodal("select", *given, "--output-dir", tmp_path / "out")
        assert (done.code, words in done.err) == (3, True), done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
@needs_real
def test_a_trial_scores_on_validation_cells_what_it_scores_on_test_cells(tmp_path: Path) -> None:
    """Linear regression on CITE-seq: trained as usual it knows the validation cells, which flatters it."""
    path, data = tmp_path / "cells.h5mu", REAL / "human_pbmc_citeseq_dev"
    files = ("--rna", data / "rna.h5ad", "--protein", data / "protein.h5ad", "--split", "random")
    done = call_xmodal("prepare", *files, "--valid-fraction", 0.15, "--output", path, "--quiet")
    assert done.code == 0, done.err
    usual = call_xmodal("train", path, "--model", "linear", "--output-dir", tmp_path / "usual", *QUIET)
    assert usual.code == 0, usual.err
    train(path, tmp_path / "trial", "--model", "linear")
    found = {}
    for kind, split in (("usual", "valid"), ("usual", "test"), ("trial", "valid")):
        judge(path, tmp_path / kind, tmp_path / f"{kind}-{split}", split=split, pair=("rna", "protein"))
        targets = json.loads((tmp_path / f"{kind}-{split}/metrics.json").read_text())["targets"]
        found[kind, split] = select([Trial("linear", directions=targets)]).best.score
    assert found["usual", "valid"] > found["usual", "test"] + 0.04
    assert found["trial", "valid"] == pytest.approx(found["usual", "test"], abs=0.03)


def made(name: str, gene: float = 0.2, auroc: float = 0.6, **about: Any) -> Trial:
    """A trial with one score in each direction, and the control mean."""
    rna = {"cells": 50, "features": 9, "methods": {"prediction": {"gene_pearson": gene}, "mean": {"gene_pearson": 0.0}}}
    atac = {"cells": 50, "features": 9, "methods": {"prediction": {"peak_auroc": auroc}, "mean": {"peak_auroc": 0.5}}}
    return Trial(name, "crossmp", directions={"atac -> rna": {**rna, **about}, "rna -> atac": atac})


def test_both_directions_count_alike() -> None:
    found = select([made("a", 0.2, 0.6), made("b", 0.1, 0.7), made("c", 0.25, 0.6)])
    assert [(r.trial.name, r.score) for r in found.trials] == [("b", 0.25), ("c", 0.225), ("a", 0.2)]


def test_ties_go_by_name_whatever_the_order() -> None:
    for order in ("cab", "bca"):
        found = select([made(n) for n in order])
        assert [r.trial.name for r in found.trials] == ["a", "b", "c"] and found.close == ("b", "c")


def test_adding_a_trial_does_not_change_the_order_of_the_others() -> None:
    names = [r.trial.name for r in select([made("a", 0.3), made("b", 0.2, 0.68)]).trials]
    more = [r.trial.name for r in select([made("a", 0.3), made("b", 0.2, 0.68), made("c", 0.1, 0.9)]).trials]
    assert [n for n in more if n != "c"] == names


def test_a_direction_that_is_not_predicted_counts_as_guessing() -> None:
    half = made("half", 0.5)
    half.directions.pop("rna -> atac")
    found = select([half, made("whole", 0.3, 0.65)])
    assert [r.trial.name for r in found.trials] == ["whole", "half"]
    assert found.trials[1].notes == ("does not predict rna -> atac, which counts as guessing",)


@pytest.mark.parametrize(
    "about", [{"cells": 49}, {"features": 8}, {"label_key": "kind"}, {"methods": {"mean": {"gene_pearson": 0.1}}}]
)
def test_trials_judged_on_other_cells_are_refused(about: dict[str, Any]) -> None:
    with pytest.raises(InputRefused, match="other cells or features"):
        select([made("a"), made("b", **about)])


def test_errors_count_downwards_and_need_the_control() -> None:
    methods = {"mean": {"rmse_log1p": 0.5}}
    assert selection.skill("rmse_log1p", 0.25, methods) == pytest.approx(0.5)
    assert selection.skill("label_transfer_macro", 0.6, {"mean": {"label_transfer_macro": 0.2}}) == pytest.approx(0.5)
    with pytest.raises(InputRefused, match="controls"):
        selection.skill("cell_auroc", 0.9, {})


@pytest.mark.parametrize("text", ["", "rmse,nothing", "variance_ratio_hvg", "cell_pearson"])
def test_scores_that_cannot_rank_are_refused(text: str) -> None:
    with pytest.raises(UsageRefused, match="--metric"):
        parse_measures(text)


def test_a_metric_nobody_has_is_refused() -> None:
    with pytest.raises(UsageRefused, match="there are gene_pearson, peak_auroc"):
        select([made("a")], ("rmse_clr",))


def test_all_failed_says_the_reasons() -> None:
    failed: Callable[[str], Trial] = lambda n: replace(made(n), directions={}, why="too few cells")  # noqa: E731
    with pytest.raises(InputRefused, match="a: too few cells; b: too few cells"):
        select([failed("a"), failed("b")])
