"""Training: goes on after a kill as if nothing had happened, stops early, keeps the best, refuses what cannot be trained."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from conftest import call_xmodal, stopping, terminated
from xmodal import registry
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Vocabulary
from xmodal.errors import InputRefused
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.learning.training_state import Keeper


@pytest.fixture(scope="module")
def cells(prepared: Path) -> Cells:
    torch.set_num_threads(1)
    mdata = io.read_cells(prepared)
    return cells_of(mdata, Vocabulary.from_prepared(mdata))


def crossmp(cells: Cells, *changes: str) -> training.CrossModalModel:
    torch.manual_seed(0)
    cls = registry.get("crossmp")
    return cls.build(parse_settings(cls, ("epochs=6", "batch_size=64", *changes)), cells.vocabulary)


def weights(model: torch.nn.Module) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}


def test_a_run_stopped_twice_ends_with_the_same_weights(
    cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = crossmp(cells)
    training.fit(whole, cells, cells, torch.device("cpu"))
    monkeypatch.setattr(training, "_one_epoch", stopping(training._one_epoch, 3, 5))
    state = tmp_path / "state.safetensors"
    for _ in range(2):
        keeper = Keeper(state, "this run")
        with pytest.raises(SystemExit):
            training.fit(crossmp(cells), cells, cells, torch.device("cpu"), keeper=keeper)
        keeper.stopped()
        assert state.exists()
    stopped = crossmp(cells)
    torch.rand(7)  # random numbers drawn in between must not matter
    result = training.fit(stopped, cells, cells, torch.device("cpu"), keeper=Keeper(state, "this run"))
    assert len(result.history) == 6
    assert weights(stopped) == weights(whole)
    with pytest.raises(InputRefused, match="other cells, settings, seed or model"):
        training.fit(crossmp(cells), cells, cells, torch.device("cpu"), keeper=Keeper(state, "another run"))


def test_sigterm_keeps_the_state_and_the_next_run_goes_on(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    long = ("--set", "epochs=4000", "--set", "patience=4000")
    terminated("train", prepared, "--output-dir", out, "--threads", 1, *long)
    assert [p.name for p in out.iterdir()] == ["state.safetensors"]
    other = call_xmodal("train", prepared, "--output-dir", out, "--threads", 1, "--seed", 1)
    assert other.code == 3 and "--overwrite" in other.err, other.err
    short = ["--set", "epochs=1", "--set", "patience=4000"]
    afresh = call_xmodal("train", prepared, "--output-dir", out, "--threads", 1, "--overwrite", *short)
    assert afresh.code == 0, afresh.err
    assert sorted(p.name for p in out.iterdir()) == ["history.tsv", "metrics.json", "model.safetensors"]
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 1


def test_early_stopping_keeps_the_best_epoch(cells: Cells) -> None:
    model = crossmp(cells, "epochs=60", "patience=2", "learning_rate=0.05")
    result = training.fit(model, cells.subset(range(0, 200)), cells.subset(range(200, 300)), torch.device("cpu"))  # type: ignore[arg-type]
    losses = [row["valid_loss"] for row in result.history]
    assert result.best_epoch == losses.index(min(losses)) + 1
    assert len(losses) - result.best_epoch <= 2
    again = training.evaluate(model, cells.subset(range(200, 300)), 64, torch.device("cpu"))  # type: ignore[arg-type]
    assert sum(again.values()) == pytest.approx(min(losses), rel=1e-4)


def test_a_cycle_only_looks_at_some_validation_cells(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WATCHED", 32)
    plateau, cycle = (crossmp(cells, f"schedule={kind}", "epochs=1").settings for kind in ("plateau", "onecycle"))
    seen = [training.watched(settings, cells) for settings in (plateau, cycle, cycle)]  # type: ignore[arg-type]
    assert seen[0] is cells and len(seen[1]) == 32
    assert list(seen[1].names) == list(seen[2].names)


def test_learning_curve_falls(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal(
        "train", prepared, "--output-dir", tmp_path / "m", "--threads", 1, "--set", "epochs=8", "--set", "batch_size=64"
    )
    assert done.code == 0, done.err
    history = pd.read_csv(tmp_path / "m" / "history.tsv", sep="\t")
    assert list(history.columns[:3]) == ["epoch", "train_loss", "valid_loss"]
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["best_epoch"] >= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [("hiden=3", "hidden"), ("hidden=many", "integer"), ("coarse=1", "greater"), ("hidden", "NAME=VALUE")],
)
def test_a_wrong_setting_is_a_usage_error(prepared: Path, tmp_path: Path, change: str, words: str) -> None:
    done = call_xmodal("train", prepared, "--output-dir", tmp_path / "m", "--set", change)
    assert done.code == 2 and words in done.err
    assert not (tmp_path / "m").exists()


def test_a_wrong_model_names_the_near_one(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal("train", prepared, "--output-dir", tmp_path / "m", "--model", "crosmp")
    assert done.code == 2 and "crossmp" in done.err


def test_an_output_that_exists_is_kept(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "history.tsv").write_text("mine")
    done = call_xmodal("train", prepared, "--output-dir", tmp_path, "--model", "mean")
    assert done.code == 3 and "--overwrite" in done.err
    assert (tmp_path / "history.tsv").read_text() == "mine"


def test_a_raw_file_is_sent_to_prepare(simulated: Path, tmp_path: Path) -> None:
    done = call_xmodal("train", simulated / "paired.h5mu", "--output-dir", tmp_path / "m")
    assert done.code == 3 and "xmodal prepare" in done.err


def test_a_loss_that_explodes_is_told(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal(
        "train", prepared, "--output-dir", tmp_path / "m", "--set", "learning_rate=1e30", "--set", "epochs=4"
    )
    assert done.code == 3 and "learning_rate" in done.err
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_waits_are_short(prepared: Path, tmp_path: Path) -> None:
    """Refusals come before any training."""
    start = time.monotonic()
    call_xmodal("train", prepared, "--output-dir", tmp_path / "m", "--set", "nonsense=1")
    assert time.monotonic() - start < 2


def test_a_failed_overwrite_keeps_the_old_result(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.learning import checkpoint

    folder = tmp_path / "m"
    train = ("train", prepared, "--output-dir", folder, "--threads", 1, "--set", "epochs=1")
    assert call_xmodal(*train).code == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    done = call_xmodal(*train, "--seed", 3, "--overwrite")
    assert done.code == 3 and "no space" in done.err
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert after.pop("state.safetensors") and after == before, (
        "the hours of training are kept, and so is the old result"
    )


def test_a_loss_that_explodes_leaves_no_state(prepared: Path, tmp_path: Path) -> None:
    wild = ["--set", "learning_rate=1e30", "--set", "epochs=4"]
    assert call_xmodal("train", prepared, "--output-dir", tmp_path / "m", *wild).code == 3
    assert not list((tmp_path / "m").iterdir())


def test_validation_cells_without_pairs_are_joined_by_training_cells(prepared: Path, tmp_path: Path) -> None:
    import mudata as mu

    mdata = mu.read_h5mu(prepared)
    valid = mdata.obs_names[mdata.obs["xmodal_split"] == "valid"]
    atac = mdata["atac"][~mdata["atac"].obs_names.isin(valid)].copy()
    single = mu.MuData({"rna": mdata["rna"], "atac": atac})
    single.obs["xmodal_split"] = mdata.obs["xmodal_split"].astype(str).reindex(single.obs_names)
    single.uns = mdata.uns
    single.write_h5mu(tmp_path / "p.h5mu")
    done = call_xmodal(
        "train", tmp_path / "p.h5mu", "--output-dir", tmp_path / "m", "--threads", 1, "--set", "epochs=2"
    )
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert "no validation cell has both" in metrics["warnings"][0]
    assert {"valid_rna_to_atac_0", "valid_atac_to_rna_0"} <= set(metrics["losses"])
