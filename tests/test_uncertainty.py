"""Intervals hold what they promise, in every type; features that cannot be predicted are said to be so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pytest
import torch

from conftest import call_xmodal
from xmodal import fields
from xmodal.learning import calibration, checkpoint
from xmodal.learning.uncertainty import LEVELS, NONE, RELIABLE, TRUST, UNKNOWN, WEAK, Uncertainty

mu.set_options(pull_on_update=False)
GOLDEN = Path(__file__).parent / "golden"
REAL = Path(os.environ.get("XMODAL_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def cells(scale: str, n: int, seed: int) -> tuple[Any, Any, Any]:
    """Predictions (expectations with an error), truth and type of ``n`` cells of three types, 300 features."""
    levels = np.random.default_rng(0).gamma(0.5, 0.4, (3, 300))
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    rate = levels[kind] * rng.gamma(20, 1 / 20, (n, 1)) * np.array([0.7, 1.0, 1.5])[kind][:, None]
    if scale == fields.LOG_CP10K:
        true = np.log1p(10 * rng.poisson(rate))
        predicted = 2.4 * (1 - np.exp(-rate)) * rng.gamma(30, 1 / 30, rate.shape)
    elif scale == fields.BINARY:
        true, predicted = rng.poisson(rate) > 0, 1 - np.exp(-rate * rng.gamma(30, 1 / 30, rate.shape))
    else:
        spread = np.linspace(0.2, 2, 300) * np.array([0.6, 1.0, 1.4])[kind][:, None]
        predicted = 3 * levels[kind] + rng.normal(0, 0.3, rate.shape)
        true = predicted + spread * rng.normal(0, 1, rate.shape)
    return predicted.astype(np.float32), np.asarray(true, np.float32), kind


@pytest.mark.parametrize("scale", [fields.LOG_CP10K, fields.BINARY, fields.CLR])
def test_every_level_holds_in_every_type(scale: str) -> None:
    predicted, true, _ = cells(scale, 300, 1)
    found = calibration.fit(predicted, true, scale)
    new, measured, kind = cells(scale, 400, 2)
    last = None
    for level in LEVELS:
        lower, upper = found.bounds(new, level)
        assert lower.dtype == upper.dtype == np.float32 and (lower <= upper).all()
        inside = calibration.covered((lower, upper), measured)
        assert all(abs(inside[kind == k].mean() - level) < 0.02 for k in range(3)), [
            inside[kind == k].mean() for k in range(3)
        ]
        if scale != fields.CLR:
            assert lower.min() >= 0
            assert upper.max() <= (1 if scale == fields.BINARY else np.inf)
        assert last is None or (upper >= last).mean() > 0.99  # nested, but for the groups' own thresholds
        last = upper


def test_what_is_expected_to_vary_gets_a_wide_interval() -> None:
    predicted, true, _ = cells(fields.LOG_CP10K, 300, 1)
    found = calibration.fit(predicted, true, fields.LOG_CP10K)
    lower, upper = found.bounds(predicted, 0.9)
    high = predicted > np.quantile(predicted, 0.9)
    assert (upper - lower)[high].mean() > 2 * (upper - lower)[~high].mean()
    assert calibration.covered((lower, upper), true)[high].mean() > 0.85


def test_rows_do_not_depend_on_each_other() -> None:
    predicted, true, _ = cells(fields.BINARY, 200, 1)
    found = calibration.fit(predicted, true, fields.BINARY)
    whole = found.bounds(predicted, 0.9)
    for part in (slice(0, 70), slice(70, 200)):
        for a, b in zip(found.bounds(predicted[part], 0.9), whole, strict=True):
            np.testing.assert_array_equal(a, b[part])


def test_values_beyond_all_that_was_seen() -> None:
    predicted, true, _ = cells(fields.LOG_CP10K, 200, 1)
    found = calibration.fit(predicted, true, fields.LOG_CP10K)
    lower, upper = found.bounds(np.full((1, 300), 50, np.float32), 0.9)
    assert (lower <= 50).all() and (upper >= 50).all()
    low, high = found.bounds(np.full((1, 300), -3, np.float32), 0.9)
    assert low.min() == 0 and np.isfinite(high).all()


def test_one_prediction_for_all_cells() -> None:
    _, true, _ = cells(fields.LOG_CP10K, 200, 1)
    flat = np.tile(true.mean(0), (200, 1))
    found = calibration.fit(flat, true, fields.LOG_CP10K)
    assert len(found.centres) == 1
    assert not found.summary()["signal"] and set(found.trust()) <= {NONE, UNKNOWN}
    assert found.summary()["coverage"] > 0.88


@pytest.mark.parametrize("features", [1, 4, 30])
def test_a_handful_of_features(features: int) -> None:
    """Fewer values than fill ten bins: one bin holds them all."""
    predicted, true, _ = cells(fields.BINARY, 60, 1)
    found = calibration.fit(predicted[:, :features], true[:, :features], fields.BINARY)
    assert found.summary()["coverage"] > 0.85


def test_tensors_bring_everything_back() -> None:
    predicted, true, _ = cells(fields.CLR, 120, 1)
    found = calibration.fit(predicted, true, fields.CLR)
    again = Uncertainty.from_tensors(found.tensors(), fields.CLR)
    for a, b in zip(found.bounds(predicted, 0.8), again.bounds(predicted, 0.8), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.summary() == found.summary()
    assert all(v.ndim < 2 or v.shape[0] <= calibration.GROUPS for v in found.tensors().values())  # no cell is in it


def test_groups_rest_on_enough_cells() -> None:
    predicted, true, _ = cells(fields.LOG_CP10K, 400, 1)
    found = calibration.fit(predicted, true, fields.LOG_CP10K)
    sizes = np.bincount(found.groups(predicted))
    assert len(sizes) > 1 and sizes.min() >= calibration.MIN_GROUP


def test_words_follow_the_interval_of_the_feature() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(0, 1, (400, 4)).astype(np.float32)
    true[3:, 3] = 0  # seen in three cells
    predicted = np.stack(
        [true[:, 0] + rng.normal(0, 1, 400), true[:, 1] + rng.normal(0, 4, 400), rng.normal(0, 1, 400), true[:, 3]], 1
    ).astype(np.float32)
    found = calibration.fit(predicted, true, fields.IDENTITY)
    assert list(found.trust()) == [RELIABLE, WEAK, NONE, UNKNOWN]
    value, low, high = found.reliability
    np.testing.assert_allclose(value[0], np.corrcoef(predicted[:, 0], true[:, 0])[0, 1], rtol=1e-5)
    assert (low[:3] < value[:3]).all() and (value[:3] < high[:3]).all() and np.isnan(value[3])


@pytest.mark.parametrize("scale", [fields.LOG_CP10K, fields.BINARY])
def test_intervals_of_reliability_hold_the_truth(scale: str) -> None:
    """The score in very many cells lies in the interval from few in about 95 % of the features."""
    found = calibration.reliability(*cells(scale, 300, 3)[:2], scale)
    many = calibration.reliability(*cells(scale, 6000, 4)[:2], scale)[0]
    known = ~np.isnan(found[0]) & ~np.isnan(many)
    inside = (found[1] <= many) & (many <= found[2])
    assert 0.85 < inside[known].mean() <= 1


@pytest.fixture(scope="module")
def held(simulated: Path) -> Path:
    """Simulated cells with enough validation cells for intervals."""
    path = simulated.parent / "held.h5mu"
    done = call_xmodal(
        "prepare",
        "--h5mu",
        simulated / "paired.h5mu",
        "--valid-fraction",
        0.3,
        "--output",
        path,
        "--split",
        "random",
        "--quiet",
    )
    assert done.code == 0, done.err
    return path


@pytest.fixture(scope="module")
def model(held: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(held, tmp_path_factory.mktemp("uncertain"), "linear") / fields.CHECKPOINT_FILE


def trained(prepared: Path, folder: Path, model: str, *more: object) -> Path:
    done = call_xmodal(
        "train", prepared, "--model", model, "--output-dir", folder / "m", "--threads", 1, "--quiet", *more
    )
    assert done.code == 0, done.err
    return folder / "m"


def predict(model: Path, file: Path, output: Path, *more: object, to: str = "atac", by: str = "rna") -> None:
    options = ("--to", to, "--from", by, "--checkpoint", model, "--output", output, "--threads", 1, "--quiet", *more)
    done = call_xmodal("predict", file, *options)
    assert done.code == 0, done.err


def test_prediction_has_layers_and_says_what_to_trust(held: Path, model: Path, tmp_path: Path) -> None:
    predict(model, held, tmp_path / "p.h5ad", "--summary", tmp_path / "s.json")
    out = ad.read_h5ad(tmp_path / "p.h5ad")
    lower, upper = out.layers[fields.LOWER], out.layers[fields.UPPER]
    assert lower.dtype == upper.dtype == np.float32 and (lower <= upper).all()
    assert lower.min() >= 0 and upper.max() <= 1
    assert set(out.var[fields.TRUST]) <= set(TRUST)
    assert out.var[fields.COVERAGE].between(0, 1).all()
    told = out.var[fields.TRUST].isin((RELIABLE, WEAK)).to_numpy()
    assert told.any() and (out.var[fields.RELIABILITY_LOW][told] > 0.5).all()
    about = json.loads(out.uns["xmodal"]["settings"])["interval"]
    assert about["level"] == 0.9 and sum(about["trust"].values()) == out.n_vars
    assert json.loads((tmp_path / "s.json").read_text())["interval"] == about


def test_shards_and_their_merge_are_the_whole(held: Path, model: Path, tmp_path: Path) -> None:
    predict(model, held, tmp_path / "whole.h5ad")
    for i in (1, 2):
        predict(model, held, tmp_path / f"{i}.h5ad", "--shard", f"{i}/2")
    done = call_xmodal("merge", tmp_path / "2.h5ad", tmp_path / "1.h5ad", "--output", tmp_path / "merged.h5ad")
    assert done.code == 0, done.err
    assert (tmp_path / "merged.h5ad").read_bytes() == (tmp_path / "whole.h5ad").read_bytes()


def test_levels(held: Path, model: Path, tmp_path: Path) -> None:
    predict(model, held, tmp_path / "p.h5ad", "--interval", 0, by="atac", to="rna")
    assert not ad.read_h5ad(tmp_path / "p.h5ad").layers
    ends = {}
    for level in (0.5, 0.95):
        predict(model, held, tmp_path / f"{level}.h5ad", "--interval", level, by="atac", to="rna")
        ends[level] = ad.read_h5ad(tmp_path / f"{level}.h5ad").layers[fields.UPPER]
    assert ends[0.5].mean() < ends[0.95].mean()
    done = call_xmodal(
        "predict",
        held,
        "--to",
        "rna",
        "--from",
        "atac",
        "--checkpoint",
        model,
        "--output",
        tmp_path / "x.h5ad",
        "--interval",
        0.85,
    )
    assert done.code == 2 and "0.5, 0.8, 0.9, 0.95" in done.err
    assert not (tmp_path / "x.h5ad").exists()


def test_h5mu_gets_the_same_layers(held: Path, model: Path, tmp_path: Path) -> None:
    predict(model, held, tmp_path / "p.h5ad")
    predict(model, held, tmp_path / "p.h5mu")
    alone, beside = ad.read_h5ad(tmp_path / "p.h5ad"), mu.read_h5mu(tmp_path / "p.h5mu").mod["atac"]
    for name in (fields.LOWER, fields.UPPER):
        np.testing.assert_array_equal(beside[alone.obs_names].layers[name], alone.layers[name])
    np.testing.assert_array_equal(beside.var[fields.RELIABILITY], alone.var[fields.RELIABILITY])


def test_evaluation_and_report_say_how_far_to_trust(held: Path, model: Path, tmp_path: Path) -> None:
    predict(model, held, tmp_path / "p.h5ad", "--split", "test")
    options = (
        "--label-key",
        "type",
        "--controls",
        "mean",
        "--umap-cells",
        0,
        "--output-dir",
        tmp_path / "e",
        "--quiet",
    )
    done = call_xmodal("evaluate", held, "--prediction", f"atac={tmp_path / 'p.h5ad'}", *options)
    assert done.code == 0 and "lie in the intervals meant to hold 90%" in done.out, done.err
    found = json.loads((tmp_path / "e" / "metrics.json").read_text())["targets"]["atac"]["intervals"]
    assert abs(found["coverage"] - 0.9) < 0.03
    assert all(abs(v["coverage"] - 0.9) < 0.05 for v in found["by_label"].values() if v["cells"] >= 20)
    table = (tmp_path / "e" / "reliability.tsv").read_text().splitlines()
    assert len(table) == 1 + sum(found["trust"].values()) and table[0].startswith(
        "target\tfeature\treliability\tlow\thigh\ttrust"
    )
    assert (tmp_path / "e" / "reliability_atac.png").stat().st_size > 1000
    done = call_xmodal("report", "--evaluation", tmp_path / "e", "--output", tmp_path / "r.html", "--quiet")
    page = (tmp_path / "r.html").read_text()
    assert "What can be trusted" in page and "can be trusted" in page and "types of cells" in page


def test_a_modality_without_signal_is_told(held: Path, tmp_path: Path) -> None:
    folder = trained(held, tmp_path, "mean")
    found = json.loads((folder / "metrics.json").read_text())["uncertainty"]
    assert all(not f["signal"] for f in found.values())
    predict(
        folder / fields.CHECKPOINT_FILE, held, tmp_path / "p.h5ad", "--split", "test", "--summary", tmp_path / "s.json"
    )
    done = call_xmodal("report", "--prediction", f"s={tmp_path / 's.json'}", "--output", tmp_path / "r.html", "--quiet")
    assert done.code == 0 and "ATAC is predicted no better than the mean" in (tmp_path / "r.html").read_text()


def test_too_few_cells_for_intervals(held: Path, tmp_path: Path) -> None:
    few = mu.read_h5mu(held)
    few = few[few.obs_names[:45]].copy()
    few.write_h5mu(tmp_path / "few.h5mu")
    folder = trained(tmp_path / "few.h5mu", tmp_path, "linear")
    warnings = json.loads((folder / "metrics.json").read_text())["warnings"]
    assert any("no intervals" in w and "50 are needed" in w for w in warnings)
    predict(folder / fields.CHECKPOINT_FILE, tmp_path / "few.h5mu", tmp_path / "p.h5ad", "--force")  # few: all seem odd
    out = ad.read_h5ad(tmp_path / "p.h5ad")
    assert not out.layers and fields.TRUST not in out.var
    assert "too few" in json.loads(out.uns["xmodal"]["settings"])["interval"]["why"]


def test_a_checkpoint_from_before_them_predicts_without(tmp_path: Path) -> None:
    assert not checkpoint.load(GOLDEN / "linear-format1.safetensors").uncertainty
    predict(GOLDEN / "linear-format1.safetensors", GOLDEN / "cells.h5mu", tmp_path / "p.h5ad")
    out = ad.read_h5ad(tmp_path / "p.h5ad")
    assert "before they existed" in json.loads(out.uns["xmodal"]["settings"])["interval"]["why"]


def test_intervals_of_an_old_checkpoint_stay_what_they_were(tmp_path: Path) -> None:
    """The golden checkpoint with intervals: trained by `xmodal train tests/golden/cells.h5mu --model linear`; never rewritten."""
    folder = GOLDEN / "intervals"
    predict(folder / "linear-format1.safetensors", GOLDEN / "cells.h5mu", tmp_path / "p.h5ad", to="rna", by="atac")
    out, then = ad.read_h5ad(tmp_path / "p.h5ad"), np.load(folder / "expected.npz")
    for name, layer in (("lower", fields.LOWER), ("upper", fields.UPPER)):  # rounding may move a zero over an edge
        assert np.isclose(out.layers[layer], then[name], rtol=1e-4, atol=1e-5).mean() > 0.999
    assert list(out.var[fields.TRUST]) == list(then["trust"])


def test_errors_are_those_of_cells_the_model_did_not_see(held: Path) -> None:
    from xmodal import registry
    from xmodal.data.batches import cells_of
    from xmodal.data.vocabulary import Vocabulary

    mdata = mu.read_h5mu(held)
    known = cells_of(mdata, Vocabulary.from_prepared(mdata))
    part = mdata.obs[fields.SPLIT].astype(str).to_numpy()
    train, valid = (known.subset(np.flatnonzero(part == p)) for p in (fields.TRAIN, fields.VALID))
    model_class = registry.get("linear")
    model = model_class.build(model_class.Settings(), known.vocabulary)  # itself never asked: it is not even fitted
    pair = ("rna", "atac")
    found = calibration.held_out(model, (train, valid), [pair], torch.device("cpu"), 0)[pair]
    assert list(found[0].names) == list(valid.names) and found[1].std(0).max() > 0
    few = calibration.held_out(model, (train, valid.subset(np.arange(10))), [pair], torch.device("cpu"), 0)[pair]
    assert sorted(few[0].names) == sorted([*train.names, *valid.names[:10]])


@pytest.mark.real_data
@pytest.mark.slow
def test_every_type_of_real_cells(tmp_path: Path) -> None:
    """Mouse cortex, whole batches held out: 90 % intervals hold 88 to 92 % in every type, both ways."""
    file = REAL / "mouse_cortex_snareseq_dev" / "paired.h5mu"
    if not file.exists():
        pytest.skip(f"no real data at {REAL}; set XMODAL_REAL_DATA")
    prepared = tmp_path / "p.h5mu"
    done = call_xmodal("prepare", "--h5mu", file, "--split-by", "batch", "--output", prepared, "--quiet")
    assert done.code == 0, done.err
    folder = trained(prepared, tmp_path, "linear")
    for source, target in (("rna", "atac"), ("atac", "rna")):
        predict(
            folder / fields.CHECKPOINT_FILE,
            prepared,
            tmp_path / f"{target}.h5ad",
            "--split",
            "test",
            to=target,
            by=source,
        )
    options = (
        "--label-key",
        "cell_type",
        "--controls",
        "",
        "--umap-cells",
        0,
        "--output-dir",
        tmp_path / "e",
        "--quiet",
    )
    given = [f"--prediction={t}={tmp_path / t}.h5ad" for t in ("rna", "atac")]
    done = call_xmodal("evaluate", prepared, *given, *options)
    assert done.code == 0, done.err
    for target in json.loads((tmp_path / "e" / "metrics.json").read_text())["targets"].values():
        types = {k: v for k, v in target["intervals"]["by_label"].items() if v["cells"] >= 20}
        assert len(types) > 8
        assert all(0.88 <= v["coverage"] <= 0.92 for v in types.values()), types
