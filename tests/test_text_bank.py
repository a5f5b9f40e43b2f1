"""All that a cell could be called, as vectors; what a checkpoint keeps of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers_text import small, tiny_bert
from xmodal.errors import InputRefused
from xmodal.text import bank, encoder, text_cache
from xmodal.text.bank import VIEWS, TextBank, texts_of, without_species
from xmodal.text.ontology import ROOT, Term


@dataclass
class Letters:
    """An encoder that counts letters; it remembers what it was asked."""

    name: str = "letters"
    digest: str = "0" * 64
    width: int = 26
    asked: Sequence[str] = ()

    def encode(self, texts: Sequence[str]) -> Any:
        self.asked = texts
        counts = np.array([[1 + t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def letters() -> Letters:
    return Letters()


def build(model: Any, pseudo: Sequence[str] = ()) -> TextBank:
    return bank.build(small(), model, pseudo)


def test_ids_and_rows(letters: Letters) -> None:
    """Live terms and labels without a term, sorted; the obsolete one has no vector but can be named."""
    found = build(letters, ["odd cell", "label:Clau", "odd cell"])
    assert found.ids == tuple(sorted([*small().live, "label:odd cell", "label:Clau"]))
    assert "CL:0000003" not in found.ids and found.width == 26
    assert found.encoder == {"name": "letters", "digest": "0" * 64}
    assert [found.ids[i] for i in found.rows(["label:Clau", "CL:0000084"])] == ["label:Clau", "CL:0000084"]
    assert found.rows([]).dtype == np.int64 and found.row(ROOT) == 0
    label = found.ontology["label:odd cell"]
    assert (label.name, label.parents, label.definition) == ("odd cell", (), "")
    assert found.ontology.common_ancestor(["label:odd cell", "CL:0000084"]) == ROOT
    assert found.ontology.distance("label:odd cell", "CL:0000738") == 2
    for term, said in {
        "CL:0000003": r"use CL:0000000 \(cell\)",
        "T cell": "CL:0000084",
        "label:od cell": "odd cell",
    }.items():
        with pytest.raises(InputRefused, match=said):
            found.row(term)


def test_views(letters: Letters) -> None:
    """Name; name and definition; mean of name and exact synonyms: rows of length 1, as float16 can say them."""
    found = build(letters)
    of = {text: letters.encode([text])[0] for text in ("T cell", "T lymphocyte", "T-cell")}
    mean = sum(of.values()) / np.linalg.norm(sum(of.values()))
    row = found.row("CL:0000084")
    expected = {
        "name": of["T cell"],
        "definition": letters.encode(["T cell. A lymphocyte with a T cell receptor."])[0],
        "synonyms": mean,
    }
    for view in VIEWS:
        assert found.embeddings[view].shape == (len(found.ids), 26) and found.embeddings[view].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found.embeddings[view], axis=1), 1, atol=1e-3)
        np.testing.assert_allclose(found.embeddings[view][row], expected[view], atol=5e-4)
    bare = found.row("CL:0000617")  # no definition, no synonym
    assert all((found.embeddings[view][bare] == found.embeddings["name"][bare]).all() for view in VIEWS)


def test_each_text_once(letters: Letters) -> None:
    build(letters)
    assert list(letters.asked) == sorted(set(letters.asked)) and "GABAergic neuron" in letters.asked
    assert not any(word in text for text in letters.asked for word in ("Mmus", "Mus musculus"))
    assert "pvalb neuron. A GABAergic neuron of the brain." in letters.asked


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("pvalb GABAergic interneuron (Homo sapiens)", "pvalb GABAergic interneuron"),
        ("A microglial cell of the Mus musculus brain.", "A microglial cell of the brain."),
        ("A neuron in L1-3 of some neocortex in Mmus. This neuron", "A neuron in L1-3 of some neocortex. This neuron"),
        ("A cell in the Mmus neocortex (Mmus).", "A cell in the neocortex."),
        ("An interneuron of Homo sapiens", "An interneuron"),
        ("rod bipolar cell (sensu Mus)", "rod bipolar cell"),
        ("A type (human and mouse) of cell (human), (mouse)", "A type of cell,"),
        ("Mus musculus", ""),
        ("muscle cell, humane, mouselike (MUC5AC in humans)", "muscle cell, humane, mouselike (MUC5AC in humans)"),
        ("neuroblast (sensu Vertebrata)", "neuroblast (sensu Vertebrata)"),
    ],
)
def test_species(text: str, left: str) -> None:
    assert without_species(text) == left


def test_nothing_but_a_species() -> None:
    """A name that is one stays."""
    texts = texts_of(Term("CL:0000001", "Mus musculus", "Mmus", ("Homo sapiens", "x")))
    assert texts == {"name": ["Mus musculus"], "definition": ["Mus musculus"], "synonyms": ["Mus musculus", "x"]}


def test_ancestors(letters: Letters) -> None:
    found = build(letters, ["odd"])
    wanted = ["CL:0000084", "label:odd", ROOT]
    seen = [{found.ids[i] for i in np.flatnonzero(row)} for row in found.ancestor_matrix(wanted)]
    assert seen == [{"CL:0000084", "CL:0000542", "CL:0000738", ROOT}, {"label:odd"}, {ROOT}]
    above = found.ancestor_matrix(wanted, itself=False)
    assert above.dtype == bool and above.sum(1).tolist() == [3, 0, 0]


def test_round_trip(letters: Letters) -> None:
    """Exactly what it was, twice; the same bytes for the same ontology and encoder; no path in them."""
    first = build(letters, ["ödd\tcell", "b"])
    tensors = first.to_tensors()
    again = TextBank.from_tensors(tensors)
    assert again.ids == first.ids and again.ontology == first.ontology and again.encoder == first.encoder
    assert all((again.embeddings[v] == first.embeddings[v]).all() for v in VIEWS)
    for other in (again, build(letters, ["b", "ödd\tcell"])):
        assert {k: v.tobytes() for k, v in other.to_tensors().items()} == {k: v.tobytes() for k, v in tensors.items()}
    assert {k: v.dtype.name for k, v in tensors.items()} == {"about": "uint8", **dict.fromkeys(VIEWS, "float16")}
    assert json.loads(tensors["about"].tobytes())["source"] == "small.tsv"


def test_through_safetensors(letters: Letters, tmp_path: Path) -> None:
    """As a checkpoint keeps it."""
    from safetensors.numpy import load_file, save_file

    first = build(letters)
    save_file(first.to_tensors(), tmp_path / "a.safetensors")
    again = TextBank.from_tensors(load_file(tmp_path / "a.safetensors"))
    assert again.ontology == first.ontology and (again.embeddings["name"] == first.embeddings["name"]).all()


def test_no_vector() -> None:
    """An encoder that says nothing of a text is refused."""

    class Nothing(Letters):
        def encode(self, texts: Sequence[str]) -> Any:
            return np.zeros((len(texts), 26), np.float32)

    with pytest.raises(InputRefused, match="vector of zeros"):
        build(Nothing())


def test_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: equal bytes with an empty cache, a full one and none."""
    pytest.importorskip("transformers")
    model = encoder.load(str(tiny_bert(tmp_path / "tiny")))
    found = []
    for cache in (str(tmp_path / "cache"), str(tmp_path / "cache"), text_cache.NONE):
        monkeypatch.setenv(text_cache.VARIABLE, cache)
        found.append({k: v.tobytes() for k, v in build(model, ["odd"]).to_tensors().items()})
    assert found[0] == found[1] == found[2]
    assert json.loads(found[0]["about"])["encoder"] == {"name": "tiny", "digest": model.digest}
