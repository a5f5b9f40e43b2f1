"""`xmodal pretrain --model`: encoders of single modalities from cells that need no pair, and a training that begins with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from conftest import Ran, call_xmodal, stopping
from xmodal import registry
from xmodal.data import io
from xmodal.data.batches import Cells, cells_of
from xmodal.data.vocabulary import Modality, Vocabulary
from xmodal.errors import InputRefused
from xmodal.fusion.coders import FEATURE_AXIS
from xmodal.fusion.fused import Fused
from xmodal.learning import training
from xmodal.learning.training_job import parse_settings
from xmodal.pretraining import pretrained
from xmodal.pretraining.initial import load_into
from xmodal.pretraining.initial_single import split_name
from xmodal.pretraining.run_single import kept
from xmodal.pretraining.single import Alone

NAMES = [n for n in registry.names() if issubclass(registry.get(n), Fused)]
SMALL = ("--set", "epochs=3", "--set", "hidden=32", "--set", "latent=8", "--threads", 1, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def single(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The simulated cells as two prepared files of one modality each."""
    folder, made = tmp_path_factory.mktemp("single"), []
    for m in ("rna", "atac"):
        made.append(folder / f"{m}.h5mu")
        done = call_xmodal("prepare", f"--{m}", simulated / f"{m}.h5ad", "--output", made[-1], "--quiet")
        assert done.code == 0, done.err
    return made


def pretrain(given: list[Path], out: Path, *more: object) -> Ran:
    return call_xmodal("pretrain", *given, "--model", "contrastive", "--output-dir", out, *SMALL, *more)


@pytest.fixture(scope="module")
def made(single: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    done = pretrain(single, out)
    assert done.code == 0, done.err
    assert "of 2 files" in done.out and "rna:" in done.out and "atac:" in done.out
    return out


def test_what_is_written(made: Path) -> None:
    metrics = json.loads((made / "metrics.json").read_text())
    for about in metrics["modalities"].values():
        assert about["losses"]["last"] < about["losses"]["first"]
    assert len((made / "history.tsv").read_text().splitlines()) == 4
    tensors = load_file(made / "pretrained.safetensors")
    assert {k.split(".")[1] for k in tensors} == {"rna", "atac"}
    assert not any(k.startswith("blend") for k in tensors)


def test_a_stopped_run_goes_on_to_the_same_weights(
    made: Path, single: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "_one_epoch", stopping(training._one_epoch, 3))
        assert pretrain(single, tmp_path).code == 143
    assert (tmp_path / "state.safetensors").exists()
    assert pretrain(single, tmp_path).code == 0
    for name in ("pretrained.safetensors", "history.tsv"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_train_begins_with_it(made: Path, prepared: Path, tmp_path: Path) -> None:
    asked = ("train", prepared, "--model", "contrastive", "--init", made / "pretrained.safetensors", *SMALL[2:])
    done = call_xmodal(*asked, "--set", "epochs=1", "--output-dir", tmp_path / "m")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "m" / "metrics.json").read_text())["initial"]["modalities"]
    assert {m: about["shared"] / about["features"] for m, about in found.items()} == {"rna": 1, "atac": 1}
    done = call_xmodal(*asked, "--set", "latent=16", "--output-dir", tmp_path / "n")
    assert done.code == 3 and "tensors do not fit" in done.err and "--set latent=8" in done.err
    assert not (tmp_path / "n").exists()


@pytest.fixture(scope="module")
def cells(prepared: Path) -> Cells:
    mdata = io.read_cells(prepared)
    return cells_of(mdata, Vocabulary.from_prepared(mdata))


def built(name: str, vocabulary: Vocabulary) -> Fused:
    torch.manual_seed(1)
    model_class = registry.get(name)
    model = model_class.build(parse_settings(model_class, ("epochs=1", "hidden=32", "latent=8")), vocabulary)
    assert isinstance(model, Fused)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_every_model_with_encoders_learns_from_single_modalities(name: str, cells: Cells, tmp_path: Path) -> None:
    """No cell has a pair; what one modality says does not move the other's encoder; all is taken over."""
    first = np.arange(len(cells)) % 2 == 0
    apart = replace(cells, present={"rna": first, "atac": ~first}).subset(np.arange(80))
    model = built(name, cells.vocabulary)
    alone = Alone(model)
    batch = apart.batch(slice(0, 16))
    alone.prepare(apart)
    alone.loss(batch)["rna"].backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.encoders["rna"].parameters())
    assert all(p.grad is None or not bool(p.grad.any()) for p in model.encoders["atac"].parameters())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    training.fit(alone, apart, apart, torch.device("cpu"))
    header = {"model": name, "settings": model.settings.model_dump(), "vocabulary": model.vocabulary.to_json()}
    pretrained.save(tmp_path / "p.safetensors", header, kept(model, before))
    later = built(name, cells.vocabulary)
    load_into(later, tmp_path / "p.safetensors")
    later.prepare(cells)
    for part in (
        "encoders.rna.first.weight",
        "encoders.atac.inputs.depth",
        "decoders.atac.last.bias",
        "decoders.rna.head.bias",
    ):
        assert torch.equal(later.state_dict()[part], model.state_dict()[part]), part


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_that_follows_the_features_is_matched(name: str) -> None:
    """Else a weight of one feature would go to another where two files have as many."""
    kinds = {"rna": ("nb", "log1p_cp10k"), "atac": ("bernoulli", "binary"), "signal": ("gaussian", "identity")}

    def of_size(more: int) -> Fused:
        sizes = {m: 41 + more + 10 * i for i, m in enumerate(kinds)}
        return built(name, Vocabulary({m: Modality(m, *kinds[m], tuple(map(str, range(n)))) for m, n in sizes.items()}))

    one, other = of_size(0), of_size(1)
    kept_of = {k for k, _ in one.named_parameters() if not k.startswith("blend.")}
    kept_of |= {k for k in one.state_dict() if k.startswith(("encoders.", "decoders."))}
    there = other.state_dict()
    for k, value in one.state_dict().items():
        if k in kept_of and value.shape != there[k].shape:
            part, _, where = split_name(k)
            assert part in ("encoders", "decoders") and where in FEATURE_AXIS, k


def test_features_are_matched_by_name(made: Path, cells: Cells) -> None:
    """A file with fewer genes, in another order, and one that is new: the known ones take their weights."""
    rna = cells.vocabulary["rna"]
    order = [5, 3, 8, *range(10, 30)]
    few = replace(rna, features=(*(rna.features[i] for i in order), "new"), gene_ids=None)
    vocabulary = Vocabulary({"rna": few, "atac": cells.vocabulary["atac"]})
    model = built("contrastive", vocabulary)
    before = model.state_dict()["encoders.rna.first.weight"].clone()
    found = load_into(model, made / "pretrained.safetensors")
    assert found["modalities"]["rna"] == {"features": 24, "shared": 23}
    assert model.begins_with is not None
    model.begins_with.put_into(model)
    given, here = load_file(made / "pretrained.safetensors"), model.state_dict()
    header = pretrained.read_header(made / "pretrained.safetensors")
    place = Vocabulary.from_json(header["vocabulary"], {})["rna"].features
    for i, name in enumerate(few.features[:-1]):
        j = place.index(name)
        np.testing.assert_array_equal(here["encoders.rna.first.weight"][:, i], given["encoders.rna.first.weight"][:, j])
        assert here["decoders.rna.head.bias"][i] == given["decoders.rna.head.bias"][j]
    np.testing.assert_array_equal(here["encoders.rna.first.weight"][:, -1], given["encoders.rna.first.weight"][:, -1])
    assert torch.equal(here["encoders.rna.first.weight"][:, -2], before[:, -2])


def test_what_does_not_fit_is_refused(made: Path, cells: Cells, single: list[Path], tmp_path: Path) -> None:
    path, rna = made / "pretrained.safetensors", cells.vocabulary["rna"]
    atac = cells.vocabulary["atac"]
    other = next(n for n in NAMES if n != "contrastive")
    with pytest.raises(
        InputRefused, match=f"holds encoders of model 'contrastive', this is '{other}'.*--model {other}"
    ):
        load_into(built(other, cells.vocabulary), path)
    strange = replace(rna, features=tuple(f"x{i}" for i in range(len(rna))), gene_ids=None)
    with pytest.raises(InputRefused, match=r"knows 0 of the .* rna features.*genes called alike"):
        load_into(built("contrastive", Vocabulary({"rna": strange, "atac": atac})), path)
    table = replace(rna, likelihood="gaussian", scale="identity")
    with pytest.raises(InputRefused, match="has likelihood nb, the training cells have gaussian"):
        load_into(built("contrastive", Vocabulary({"rna": table, "atac": atac})), path)
    with pytest.raises(InputRefused, match=r"it knows .*rna.*on protein, signal"):
        two = {m: replace(rna, name=m) for m in ("protein", "signal")}
        load_into(built("contrastive", Vocabulary(two)), path)
    done = pretrain(single, tmp_path / "a", "--modality", "protein")
    assert done.code == 3 and "no file has protein; they have atac, rna" in done.err
    done = pretrain(single, tmp_path / "a", "--layer", "raw")
    assert done.code == 2 and "--layer" in done.err
    done = call_xmodal("pretrain", *single, "--model", "crossmp", "--output-dir", tmp_path / "a")
    assert done.code == 2 and "these have: contrastive" in done.err
    done = call_xmodal("pretrain", *single, "--modality", "rna", "--output-dir", tmp_path / "a")
    assert done.code == 2 and "goes with --model" in done.err
    assert not (tmp_path / "a").exists()


def test_files_of_other_features_are_refused(single: list[Path], tmp_path: Path) -> None:
    """Files share a modality by the features that all have; those that are called otherwise are another modality."""
    mdata = io.read_cells(single[0])
    mdata.mod["rna"].var_names = [f"g{i}" for i in range(mdata.mod["rna"].n_vars)]
    mdata.write(tmp_path / "other.h5mu")
    done = pretrain([single[0], tmp_path / "other.h5mu"], tmp_path / "out")
    assert done.code == 3 and "only 0 of 60 rna features are called as in the other files" in done.err
