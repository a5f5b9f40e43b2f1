"""``train --target COLUMN``, ``predict --to COLUMN`` and their scores: what is told, from what, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import torch

from conftest import call_xmodal
from xmodal import fields, registry
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Labels, Vocabulary
from xmodal.fusion.fused import Fused
from xmodal.fusion.target import TargetHead
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings

NAMES = [n for n in registry.names() if registry.get(n).takes_target]
PEOPLE, MOMENTS = 6, 300


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two signals; the state is whether the cause of the one and that of the other agree; one person has no states."""
    folder = tmp_path_factory.mktemp("states")
    rng = np.random.default_rng(0)
    causes = rng.choice([-1.0, 1.0], (2, MOMENTS))
    names = [f"w{i}" for i in range(MOMENTS)]
    for name, cause in zip(("heart", "steps"), causes, strict=True):
        values = np.outer(cause, rng.normal(size=12)) + 0.5 * rng.normal(size=(MOMENTS, 12))
        table = pd.DataFrame(values, names, [f"{name}{j}" for j in range(12)])
        (table.iloc[:-20] if name == "steps" else table).to_csv(folder / f"{name}.csv")
    told = pd.Series(np.where(causes.prod(0) > 0, "agree", "differ"), names).where(np.arange(MOMENTS) % 7 != 0, "")
    people = [f"p{i % PEOPLE}" for i in range(MOMENTS)]
    pd.DataFrame({"state": told, "person": people, "rare": rng.normal(size=MOMENTS)}).to_csv(folder / "obs.csv")
    done = call_xmodal(
        *("prepare", "--modality", f"heart={folder}/heart.csv", "--modality", f"steps={folder}/steps.csv"),
        *("--likelihood", "heart=gaussian", "--likelihood", "steps=gaussian", "--obs", str(folder / "obs.csv")),
        *("--split-by", "person", "--output", str(folder / "prepared.h5mu"), "--quiet", "--threads", "1"),
    )
    assert done.code == 0, done.err
    return folder / "prepared.h5mu"


@pytest.fixture(scope="module")
def trained(states: Path) -> Path:
    folder = states.parent / "model"
    words = [
        "--model",
        "contrastive",
        "--target",
        "state",
        "--set",
        "epochs=25",
        "--set",
        "hidden=32",
        "--quiet",
        "--threads",
        "1",
    ]
    done = call_xmodal("train", str(states), "--output-dir", str(folder), *words)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


def tell(states: Path, trained: Path, output: Path, *more: str):
    return call_xmodal(
        *(
            "predict",
            str(states),
            "--to",
            "state",
            "--checkpoint",
            str(trained),
            "--output",
            str(output),
            "--quiet",
            "--threads",
            "1",
            *more,
        )
    )


def test_what_both_signals_say_together(states: Path, trained: Path, tmp_path: Path) -> None:
    done = tell(states, trained, tmp_path / "p.h5ad", "--split", "test", "--overview", str(tmp_path / "o"))
    assert done.code == 0, done.err
    told = ad.read_h5ad(tmp_path / "p.h5ad")
    assert list(told.var_names) == ["agree", "differ"]
    np.testing.assert_allclose(told.X.sum(1), 1, atol=1e-5)
    best = told.var_names[told.X.argmax(1)]
    assert (told.obs["state_predicted"] == best).all()
    np.testing.assert_allclose(told.obs["state_probability"], told.X.max(1))
    known = (told.obs["state"].astype(str) != "") & told.obs["state"].notna()
    both = known & told.obs_names.isin(mu.read_h5mu(states).mod["steps"].obs_names)
    assert (told.obs["state_predicted"].astype(str) == told.obs["state"].astype(str))[both].mean() > 0.9
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["cells.tsv", "features.tsv", "prediction.png"]
    table = pd.read_csv(tmp_path / "o/features.tsv", sep="\t")
    assert table[fields.CELLS_TOLD].sum() == told.n_obs


def test_scores_stand_beside_plain_methods(states: Path, trained: Path, tmp_path: Path) -> None:
    tell(states, trained, tmp_path / "p.h5ad", "--split", "test")
    ways = ([f"state={tmp_path}/p.h5ad"], ["--prediction"]), ([f"{tmp_path}/p.h5ad"], ["--annotation"])
    found = []
    for i, (value, option) in enumerate(ways):
        done = call_xmodal(
            "evaluate",
            str(states),
            *option,
            *value,
            "--output-dir",
            str(tmp_path / f"e{i}"),
            "--quiet",
            "--threads",
            "1",
        )
        assert done.code == 0, done.err
        found.append(json.loads((tmp_path / f"e{i}/metrics.json").read_text())["annotation"])
    assert found[0]["methods"] == found[1]["methods"]
    methods = found[0]["methods"]
    assert set(methods) == {"annotation", "majority", "logistic", "knn15"}
    assert methods["annotation"]["accuracy"] > methods["logistic"]["accuracy"] + 0.2
    assert found[0]["cells"] < len(ad.read_h5ad(tmp_path / "p.h5ad"))  # cells without a state are told, not scored
    done = call_xmodal(
        *(
            "evaluate",
            str(states),
            "--prediction",
            f"mood={tmp_path}/p.h5ad",
            "--output-dir",
            str(tmp_path / "x"),
            "--threads",
            "1",
        )
    )
    assert done.code == 3 and "it tells 'state'. What to do: write state=" in done.err.replace("\n", " ")


def test_one_signal_and_a_copy(states: Path, trained: Path, tmp_path: Path) -> None:
    assert tell(states, trained, tmp_path / "one.h5ad", "--from", "heart").code == 0
    assert tell(states, trained, tmp_path / "all.h5mu").code == 0
    one, whole = ad.read_h5ad(tmp_path / "one.h5ad"), mu.read_h5mu(tmp_path / "all.h5mu")
    given = mu.read_h5mu(states)
    assert list(whole.obs_names) == list(given.obs_names) and fields.TARGET_ABOUT in whole.uns
    np.testing.assert_array_equal(whole.mod["heart"].X.toarray(), given.mod["heart"].X.toarray())
    lacking = ~given.obs_names.isin(given.mod["steps"].obs_names)
    assert lacking.sum() == 20
    ours = one[given.obs_names[lacking]].obs["state_probability"]  # what lacks steps is told from heart either way
    np.testing.assert_allclose(whole.obs["state_probability"][lacking], ours, atol=1e-6)
    assert not np.allclose(whole.obs["state_probability"][~lacking], one.obs["state_probability"][~lacking], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_it_from_whatever_is_there(name: str, states: Path) -> None:
    """Labels are learned, test labels are not needed, and what is missing changes nothing."""
    mdata = io.read_cells(states)
    vocabulary = replace(
        Vocabulary.from_prepared(mdata), target=Labels("state", ("agree", "differ"), ("label:agree", "label:differ"))
    )
    cells = cells_of(mdata, vocabulary)
    model_class = registry.get(name)
    torch.manual_seed(0)
    settings = parse_settings(model_class, ("epochs=15", "batch_size=32", "hidden=32"))
    model = model_class.build(settings, vocabulary)
    part = mdata.obs[fields.SPLIT].astype(str).to_numpy()
    training.fit(model, *(cells.subset(np.flatnonzero(part == s)) for s in ("train", "valid")), torch.device("cpu"))
    model.eval()
    assert isinstance(model, Fused) and isinstance(model.target, TargetHead)
    batch = cells.batch(slice(None))
    hidden = replace(batch, extra={})
    with torch.no_grad():
        told = model.tell_target(batch)
        torch.testing.assert_close(told, model.tell_target(hidden))  # the column itself is not looked at
        only, emptied = batch.only("heart"), cells.batch(slice(None), only="heart")
        torch.testing.assert_close(model.tell_target(only), model.tell_target(emptied), atol=1e-5, rtol=1e-4)
    assert told.shape == (MOMENTS, 2)
    code = torch.from_numpy(cells.extra[fields.TARGET_CODE])
    known = (code >= 0) & torch.from_numpy(part == "train") & batch.present["steps"]
    assert float((told.argmax(1) == code)[known].double().mean()) > 0.8


def test_temperature_is_that_of_the_labels(states: Path) -> None:
    """Logits that are ten times too sure become what they should be; of few cells nothing is learned."""
    vocabulary = replace(Vocabulary.from_prepared(io.read_cells(states)), target=Labels("s", ("a", "b"), ("a", "b")))
    head = TargetHead(3, 8, vocabulary, 0.0)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 2, generator=generator)
    code = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]
    head.calibrate(10 * logits, code)
    assert 8 < float(head.get_buffer("temperature")) < 12.5
    few = TargetHead(3, 8, vocabulary, 0.0)
    few.calibrate(10 * logits[:5], code[:5])
    assert float(few.get_buffer("temperature")) == 1


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--target", "mood"), 3, "obs has no column 'mood'"),
        (("--target", "rare"), 3, "holds numbers that are not whole"),
        (("--target", "heart"), 2, "that is a modality"),
        (("--model", "linear"), 99, "tells no column of obs; these can: contrastive"),
        (("--fallback", "linear"), 99, "--fallback linear with --target state"),
    ],
)
def test_what_training_refuses(states: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str) -> None:
    words = ["--model", "contrastive", "--target", "state", *more]  # the last of an option counts
    done = call_xmodal("train", str(states), "--output-dir", str(tmp_path / "m"), "--threads", "1", *words)
    assert done.code == code and said in done.err.replace("\n", " "), done.err
    assert not (tmp_path / "m/model.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--top", "3"), 2, "--top is for modalities"),
        (("--shard", "1/2"), 2, "--shard is for modalities"),
        (("--features", "heart1"), 2, "--features is for modalities"),
        (("--from", "rna"), 2, "the checkpoint knows heart, steps"),
        (("--to", "mood"), 2, "the checkpoint knows heart, steps, and tells the obs column state"),
    ],
)
def test_what_telling_refuses(
    states: Path, trained: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    done = tell(states, trained, tmp_path / "p.h5ad", *more)
    assert done.code == code and said in done.err.replace("\n", " "), done.err
    assert not (tmp_path / "p.h5ad").exists()


def test_a_model_without_a_target_says_so(states: Path, tmp_path: Path) -> None:
    cells = cells_of(mdata := io.read_cells(states), Vocabulary.from_prepared(mdata))
    assert isinstance(cells, Cells)
    model = registry.get("mfm").build(registry.get("mfm").Settings(), cells.vocabulary)
    with pytest.raises(Exception, match="xmodal train --target COLUMN"):
        model.tell_target(cells.batch(slice(0, 4)))
