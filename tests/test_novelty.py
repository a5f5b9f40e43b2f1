"""Cells unlike the training cells: told apart by what they express, never by how deeply they were sequenced."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from conftest import call_xmodal
from helpers_data import REAL, needs_real
from xmodal import fields
from xmodal.errors import InputRefused
from xmodal.learning import checkpoint, novelty
from xmodal.learning.novelty import LIMIT, Novelty

FEATURES, CELLS = 300, 600
CASES = [(fields.NB, fields.LOG_CP10K), (fields.BERNOULLI, fields.BINARY), (fields.GAUSSIAN, fields.CLR)]


def tissue(seed: int, cells: int = CELLS, depth: float = 200, noise: int = 0) -> sp.csr_matrix:
    """Counts of three cell types; each tissue (``seed``) has levels of its own."""
    levels = np.random.default_rng(seed).gamma(0.4, 1, (3, FEATURES)) + 0.01
    rng = np.random.default_rng((seed, noise))
    shares = (levels / levels.sum(1, keepdims=True))[rng.integers(0, 3, cells)]
    return sp.csr_matrix(rng.poisson(shares * depth * rng.lognormal(0, 0.3, (cells, 1))).astype(np.float32))


def known(likelihood: str, scale: str, **kwargs: float) -> Novelty:
    found = novelty.fit(tissue(1, **kwargs), likelihood, scale)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(("likelihood", "scale"), CASES)
def test_another_tissue_is_told_apart(likelihood: str, scale: str) -> None:
    fitted = known(likelihood, scale)
    own = novelty.scores(fitted, tissue(1, 300, noise=1), likelihood)
    other = novelty.scores(fitted, tissue(2, 300), likelihood)
    assert roc_auc_score(np.repeat([0, 1], 300), np.concatenate([own, other])) > 0.95
    assert (own > LIMIT).mean() < 0.05 and 0.3 < float(np.median(own)) * np.log2(10) < 3


@pytest.mark.parametrize(("likelihood", "scale"), CASES[:2])
@pytest.mark.parametrize("depth", [20, 60, 400])
def test_depth_makes_no_cell_unlike(likelihood: str, scale: str, depth: int) -> None:
    scores = novelty.scores(known(likelihood, scale), tissue(1, 300, depth, noise=1), likelihood)
    assert (scores > LIMIT).mean() < 0.05


@pytest.mark.parametrize(("likelihood", "scale"), CASES[:2])
def test_features_that_were_not_measured_count_neither_for_nor_against(likelihood: str, scale: str) -> None:
    fitted, lost = known(likelihood, scale), tuple(range(0, FEATURES, 3))
    own, other = tissue(1, 300, noise=1).tolil(), tissue(2, 300).tolil()
    own[:, lost], other[:, lost] = 0, 0
    like, unlike = (novelty.scores(fitted, x.tocsr(), likelihood, lost) for x in (own, other))
    assert (like > LIMIT).mean() < 0.1 and (unlike > LIMIT).mean() > 0.5


@pytest.mark.parametrize(("likelihood", "scale"), CASES)
def test_what_is_kept_gives_the_same_scores_and_is_no_single_cell(likelihood: str, scale: str) -> None:
    fitted = known(likelihood, scale)
    again = Novelty.from_tensors(fitted.tensors())
    x = tissue(2, 50)
    np.testing.assert_array_equal(novelty.scores(fitted, x, likelihood), novelty.scores(again, x, likelihood))
    assert len(fitted.profiles) * novelty.MIN_GROUP <= CELLS
    assert max(len(v) for v in fitted.tensors().values()) < CELLS


def test_cells_without_counts_have_no_score_and_few_cells_no_profile() -> None:
    fitted = known(*CASES[0])
    assert np.isnan(novelty.scores(fitted, sp.csr_matrix((2, FEATURES), dtype=np.float32), fields.NB)).all()
    assert novelty.verdict(np.array([np.nan], np.float32))["level"] == "fine"
    assert novelty.fit(tissue(1, 19), *CASES[0]) is None
    assert novelty.fit(tissue(1, 20), *CASES[0]) is not None
    assert novelty.fit(sp.csr_matrix((40, FEATURES), dtype=np.float32), *CASES[0]) is None


@pytest.mark.parametrize("likelihood", [fields.NB, fields.BERNOULLI])
def test_scores_do_not_depend_on_the_other_cells(likelihood: str) -> None:
    fitted, x = known(likelihood, dict(CASES)[likelihood]), tissue(2, 40)
    np.testing.assert_array_equal(
        novelty.scores(fitted, x, likelihood)[20:], novelty.scores(fitted, x[20:], likelihood)
    )


def test_predictions_say_it_for_each_cell(prepared: Path, tmp_path: Path) -> None:
    common = ("--threads", 1, "--quiet")
    done = call_xmodal("train", prepared, "--model", "mean", "--output-dir", tmp_path / "m", *common)
    assert done.code == 0, done.err
    model = tmp_path / "m" / "model.safetensors"
    for name in ("p.h5ad", "p.h5mu"):
        done = call_xmodal(
            "predict", prepared, "--to", "atac", "--checkpoint", model, "--output", tmp_path / name, *common
        )
        assert done.code == 0, done.err
    obs = ad.read_h5ad(tmp_path / "p.h5ad").obs
    assert obs[fields.NOVELTY].dtype == np.float32 and obs[fields.UNLIKE].dtype == bool
    assert (obs[fields.UNLIKE] == (obs[fields.NOVELTY] > LIMIT)).all() and obs[fields.UNLIKE].mean() < 0.1
    beside = mu.read_h5mu(tmp_path / "p.h5mu")["atac"].obs
    np.testing.assert_array_equal(beside[fields.NOVELTY], obs[fields.NOVELTY].reindex(beside.index))


def test_a_file_with_scores_can_be_predicted_again(prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    cells = mu.MuData({"rna": mdata["rna"].copy(), "atac": mdata["atac"][:300].copy()})  # the other cells lack atac
    cells.write_h5mu(tmp_path / "some.h5mu")
    common = ("--threads", 1, "--quiet")
    assert call_xmodal("train", prepared, "--model", "mean", "--output-dir", tmp_path / "m", *common).code == 0
    before, model = tmp_path / "some.h5mu", tmp_path / "m" / "model.safetensors"
    for target in ("atac", "rna"):
        after = tmp_path / f"{target}.h5mu"
        done = call_xmodal("predict", before, "--to", target, "--checkpoint", model, "--output", after, *common)
        assert done.code == 0, done.err
        before = after
    both = mu.read_h5mu(before)
    assert both["atac"].obs[fields.UNLIKE].dtype == bool and fields.UNLIKE not in both.obs
    assert np.isfinite(both["rna"].obs[fields.NOVELTY]).sum() <= 300


def test_checkpoints_of_the_first_form_still_judge(tmp_path: Path) -> None:
    folder = Path(__file__).parent / "golden"
    loaded = checkpoint.load(folder / "linear-format1.safetensors")
    counts = loaded.novelty["rna"].profiles[:1].repeat(30, 0) * 500
    scores = novelty.scores(loaded.novelty["rna"], sp.csr_matrix(np.round(counts)), fields.NB)
    assert scores.shape == (30,) and novelty.verdict(scores)["level"] in ("fine", "warning", "refused")


@pytest.mark.real_data
@needs_real
def test_human_cells_are_told_from_mouse_cortex() -> None:
    mouse = ad.read_h5ad(REAL / "mouse_cortex_snareseq_dev" / "rna.h5ad")
    human = ad.read_h5ad(REAL / "text_human_pbmc3k" / "rna.h5ad")
    mouse.var_names, human.var_names = mouse.var_names.str.upper(), human.var_names.str.upper()
    shared = sorted(set(mouse.var_names) & set(human.var_names))
    x, other = sp.csr_matrix(mouse[:, shared].X), sp.csr_matrix(human[:, shared].X)
    held = (mouse.obs["batch"].astype(str) == "09A").to_numpy()
    fitted = novelty.fit(x[~held], *CASES[0])
    assert fitted is not None
    own, foreign = (novelty.scores(fitted, m, fields.NB) for m in (x[held], other))
    own = own[np.isfinite(own)]
    assert (own > LIMIT).mean() < 0.03
    assert roc_auc_score(np.repeat([0, 1], [len(own), len(foreign)]), np.concatenate([own, foreign])) > 0.95


def test_the_report_shows_the_scores_beside_those_of_training_cells(tmp_path: Path) -> None:
    fitted, scores = known(*CASES[0]), np.array([0.1, 0.4, 2.5, 30], np.float32)
    found = novelty.verdict(scores)
    assert found["unlike"] == 0.5 and sum(found["histogram"]["cells"]) == 4 and found["histogram"]["cells"][-1] == 1
    assert "histogram" not in novelty.verdict(scores, calibrated=False) and fitted is not None
    summary = {
        "source": "rna",
        "target": "atac",
        "cells": 4,
        "features": 3,
        "top": 2,
        "alignment": {},
        "novelty": found,
    }
    (tmp_path / "s.json").write_text(json.dumps(summary))
    done = call_xmodal("report", "--prediction", f"s={tmp_path / 's.json'}", "--output", tmp_path / "page.html")
    assert done.code == 0, done.err
    page = (tmp_path / "page.html").read_text()
    assert "How unlike the training cells are they?" in page and "the 2 highest of each cell" in page


def test_a_checkpoint_whose_profile_is_cut_is_refused(tmp_path: Path) -> None:
    tensors = known(*CASES[0]).tensors()
    del tensors["correction"]
    with pytest.raises(TypeError):
        Novelty.from_tensors(tensors)
    loaded = checkpoint.load(Path(__file__).parent / "golden" / "mean-format1.safetensors")
    cut = type("Cut", (), {"tensors": lambda self: tensors})()
    checkpoint.save(tmp_path / "model.safetensors", loaded.model, loaded.header["training"], {"rna": cut})
    with pytest.raises(InputRefused, match=r"corrupt.*what the training cells looked like"):
        checkpoint.load(tmp_path / "model.safetensors")
