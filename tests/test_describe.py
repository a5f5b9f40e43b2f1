"""``xmodal describe``: what is said is proven, what is not is caught, decoders are held to the facts, and every refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import helpers_annotation as small
from conftest import Ran, call_xmodal
from helpers_annotation import CD4, MONOCYTE, TYPES, B, Toy
from helpers_data import needs_real
from xmodal import fields, registry
from xmodal.describing import calls, corpus, decoders, genes, language_model, neural, scratch, wordings
from xmodal.describing.evidence import Evidence, by_id, fold, percent, probability, rate
from xmodal.describing.grounding import Plan, Prover, Sentence, Slot, filled, joined
from xmodal.describing.settings import DecoderChoice, DescribeSettings
from xmodal.errors import InputRefused
from xmodal.learning import checkpoint

CPU = torch.device("cpu")


class Reader(Toy):
    """The toy with a joint space that texts lie in."""

    def text_projection(self, embedding: torch.Tensor) -> torch.Tensor:
        away = torch.randn(embedding.shape[1], small.GENES, generator=torch.Generator().manual_seed(7))
        return torch.nn.functional.normalize(embedding @ away, dim=1)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    get, names = registry.get, registry.names
    monkeypatch.setattr(registry, "get", lambda name: Reader if name == "toy" else get(name))
    monkeypatch.setattr(registry, "names", lambda: sorted([*names(), "toy"]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "in.h5ad"
    small.cells(50).write_h5ad(path)
    return path


def describe(model: Path, file: Path, output: Path, *more: object) -> Ran:
    return call_xmodal(
        "describe", file, "--checkpoint", model, "--output-dir", output, "--threads", 1, "--quiet", *more
    )


def described(model: Path, file: Path, output: Path, *more: object) -> dict[str, Any]:
    done = describe(model, file, output, *more)
    assert done.code == 0, done.err
    return dict(json.loads((output / "descriptions.json").read_text()))


@pytest.fixture(scope="module")
def whole(model: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "get", lambda name: Reader)
    folder = tmp_path_factory.mktemp("whole") / "d"
    done = describe(model, file, folder)
    patch.undo()
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def about(whole: Path) -> dict[str, Any]:
    return dict(json.loads((whole / "descriptions.json").read_text()))


def unit(about: dict[str, Any], label: str) -> dict[str, Any]:
    return dict(next(u for u in about["units"] if u["label"] == label))


# ---- what is written


def test_every_type_gets_its_name_definition_and_genes(about: dict[str, Any]) -> None:
    for place, (name, label) in enumerate({"B cell": "B", "monocyte": "Mono"}.items(), 2):
        own = unit(about, name)
        assert own["text"].startswith(f"Cell type: {name}. A {name} of the tests. ")
        assert own["term"] == TYPES[label] and own["term"] in own["text"]
        mine = {f"G{i}" for i in range(place * small.PER_TYPE, (place + 1) * small.PER_TYPE)}
        said = {e["values"]["gene"] for e in own["evidence"] if e["kind"] == "gene"}
        assert len(said) == 5 and said <= mine
        assert all(re.search(rf"\b{g} \(", own["text"]) for g in said)
    assert about["genes"]["chosen"] >= about["genes"]["confirmed"] > 20 and about["schema"] == "xmodal-descriptions/1"
    assert unit(about, "odd ones")["text"].startswith("Cell type: odd ones. The ")


def test_the_figures_are_those_of_cells_in_which_the_gene_was_not_chosen(about: dict[str, Any], file: Path) -> None:
    own = unit(about, "B cell")
    groups, adata = about["groups"], ad.read_h5ad(file)
    tested = {g: set(about["groups"][g]["tested_in"]) for g in groups}
    assert not tested["B cell"] & set(groups["B cell"]["chosen_in"])
    inside = adata.obs_names.isin(tested["B cell"])
    outside = adata.obs_names.isin(set().union(*(t for g, t in tested.items() if g != "B cell")))
    for row in (e for e in own["evidence"] if e["kind"] == "gene"):
        seen = adata[:, row["values"]["gene"]].X.toarray().ravel() > 0
        assert row["values"]["share_in"] == pytest.approx(seen[inside].mean(), rel=1e-5)
        assert row["values"]["share_out"] == pytest.approx(seen[outside].mean(), rel=1e-5)
        shares = f"{percent(seen[inside].mean())} of them and {percent(seen[outside].mean())} of the others)"
        assert f"{row['values']['gene']} ({fold(row['values']['log2fc'])}, {shares}" in own["text"]


def test_the_table_names_the_evidence_of_each_sentence(whole: Path, about: dict[str, Any]) -> None:
    table = pd.read_csv(whole / "descriptions.tsv", sep="\t")
    assert list(table["label"]) == [u["label"] for u in about["units"]]
    row = table[table["label"] == "B cell"].iloc[0]
    assert row["cell_type_ontology_term_id"] == B and row["genes"].count("|") == 4
    own = unit(about, "B cell")
    assert row["text"] == own["text"]
    assert row["text_with_evidence"] == " ".join(f"{s['text']} [{', '.join(s['evidence'])}]" for s in own["sentences"])
    odd = table[table["label"] == "odd ones"].iloc[0]
    assert odd["cell_type_ontology_term_id"] == "unknown" and odd["status"] == "assigned"


def test_the_page_has_a_card_for_each_and_needs_nothing_else(whole: Path, about: dict[str, Any]) -> None:
    page = (whole / "index.html").read_text()
    assert page.count('class="card"') == len(about["units"])
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page) and "<script" not in page
    links = re.findall(r'href="#(card-[\w-]+)"', page)
    assert links and not [link for link in links if f'id="{link}"' not in page]


def test_unknown_cells_stay_without_a_name(about: dict[str, Any]) -> None:
    own = unit(about, fields.UNKNOWN)
    assert own["text"].startswith("Cell type: unknown. The ") and "get no name" in own["text"]
    assert not any(s["kind"] in ("definition", "call") for s in own["sentences"])


def test_equal_input_gives_equal_bytes_and_another_seed_other_halves(
    model: Path, file: Path, whole: Path, tmp_path: Path
) -> None:
    described(model, file, tmp_path / "a")
    for name in ("descriptions.json", "descriptions.tsv", "index.html"):
        assert (tmp_path / "a" / name).read_bytes() == (whole / name).read_bytes()
    other = described(model, file, tmp_path / "b", "--seed", 1)
    first = json.loads((whole / "descriptions.json").read_text())
    assert other["groups"]["B cell"]["tested_in"] != first["groups"]["B cell"]["tested_in"]


def test_genes_are_those_of_the_checkpoint_in_whichever_order(
    model: Path, file: Path, about: dict[str, Any], tmp_path: Path
) -> None:
    adata = ad.read_h5ad(file)
    adata[:, ::-1].copy().write_h5ad(tmp_path / "turned.h5ad")
    assert described(model, tmp_path / "turned.h5ad", tmp_path / "d")["units"] == about["units"]


def test_labels_of_annotate_are_taken_as_they_are(model: Path, file: Path, tmp_path: Path) -> None:
    done = call_xmodal("annotate", file, "--checkpoint", model, "--output", tmp_path / "a.h5ad", "--quiet")
    assert done.code == 0, done.err
    labels = ad.read_h5ad(tmp_path / "a.h5ad").obs
    about = described(model, tmp_path / "a.h5ad", tmp_path / "d")
    sizes = labels[fields.CT_CLUSTER_LABEL].value_counts()
    assert {u["label"]: u["cells"] for u in about["units"]} == {k: n for k, n in sizes.items() if n}
    again = described(model, file, tmp_path / "e")
    assert again["units"] == about["units"]


def test_groups_of_a_column_are_called_by_their_votes(model: Path, file: Path, tmp_path: Path) -> None:
    about = described(model, file, tmp_path / "d", "--group-by", "cell_type")
    called = {u["name"]: u["term"] for u in about["units"]}
    assert called["B"] == B and called["Mono"] == MONOCYTE and called["neuron"] == fields.UNKNOWN
    assert "cells of group Mono are called CL:0000576" in unit(about, "monocyte")["text"]


def test_cells_are_described_by_their_own_label_and_counts(model: Path, file: Path, tmp_path: Path) -> None:
    about = described(model, file, tmp_path / "d", "--per", "cell", "--cells", 14)
    adata = ad.read_h5ad(file)
    assert len(about["units"]) == 14 and {u["cells"] for u in about["units"]} == {1}
    assert len({u["group"] for u in about["units"]}) == len(about["groups"])
    for own in about["units"]:
        counts = dict(re.findall(r"\b(G\d+) \((\d+) counts?\)", own["text"]))
        for gene, count in counts.items():
            assert adata[own["cell"], gene].X.toarray().item() == int(count) > 0
    assert any("counts)" in u["text"] for u in about["units"])


# ---- genes


def planted(n: int = 300, seed: int = 0) -> tuple[Any, np.ndarray]:
    """Three groups; G0-G2 are high in group 0."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    rate = np.full((n, 40), 1.0)
    rate[codes == 0, :3] = 4.0
    adata = ad.AnnData(rng.poisson(rate).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(n)], [f"G{i}" for i in range(40)]
    return small.as_mudata(adata), codes.astype(np.int64)


def test_genes_are_found_and_labels_without_meaning_have_none() -> None:
    mdata, codes = planted()
    names = ("a", "b", "c")
    found = genes.find(mdata, (names, codes), DescribeSettings(), 0, Path("x"))
    assert set(found.of("a")["gene"]) == {"G0", "G1", "G2"} and not len(found.of("b", confirmed=False))
    shuffled = np.random.default_rng(1).permutation(codes)
    assert not len(genes.find(mdata, (names, shuffled), DescribeSettings(), 0, Path("x")).table)


def test_a_claim_is_tested_where_it_is_made() -> None:
    mdata, codes = planted()
    own = genes.of_groups(mdata, ("a", "b", "c"), codes, Path("x"))
    claims = [("a", "G0"), ("b", "G0"), ("a", "G9"), ("a", "NONE"), ("z", "G0")]
    table = genes.test(own, claims, 0.05)
    assert list(table["confirmed"]) == [True, False, False, False, False]
    assert table["log2fc"].iloc[0] > 1 and table[["log2fc", "padj"]].iloc[3:].isna().all().all()


def test_above_the_median_of_the_other_groups() -> None:
    mdata, codes = planted()
    own = genes.of_groups(mdata, ("a", "b", "c"), codes, Path("x"))
    x = mdata.mod["rna"].X
    logged = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    mean = np.stack([logged[codes == g].mean(0) for g in range(3)])
    expected = np.stack([mean[g] > np.median(np.delete(mean, g, 0), 0) for g in range(3)])
    assert (genes.above_median(own) == expected).all()


def test_halves_share_no_cell_and_split_each_group() -> None:
    codes = np.repeat([0, 1, -1], [11, 20, 5])
    first = genes.half(codes, 3)
    assert first[codes == 0].sum() == 6 and first[codes == 1].sum() == 10
    assert (genes.half(codes, 3) == first).all() and (genes.half(codes, 4) != first).any()


# ---- sentences and proofs


def test_wordings_say_the_same_with_the_same_facts() -> None:
    for kind in wordings.WORDINGS:
        every = wordings.forms(kind)
        assert len({tuple(sorted(wordings.slots(f))) for f in every}) == 1, kind
        assert all(len(set(wordings.slots(f))) == len(wordings.slots(f)) for f in every), kind
        assert kind in wordings.FIXED or len(every) > 1
        assert not any("(" in f or "|" in f or "  " in f for f in every), kind
        # None is the beginning of another, so that a decoder knows where one ends.
        assert not [f for f in every if wordings.following(kind, f)], kind


def test_following_walks_to_every_sentence() -> None:
    found, waiting = set(), [""]
    while waiting:
        said = waiting.pop()
        ways = wordings.following("genes", said)
        waiting += ways.values()
        if not ways:
            found.add(said)
    assert found == set(wordings.forms("genes"))


FACTS = by_id(
    [
        Evidence("T1", "", "model", {"name": "B cell"}),
        Evidence("C1", "", "cells", {"cells": "57", "group": "3"}),
        Evidence("P1", "", "model", {"probability": "0.97", "id": "CL:0000236"}),
        Evidence("G1", "", "cells", {"gene": "CD79A", "figures": "CD79A (94 % of them, 4 % of the others)"}),
    ]
)


def prover(tmp_path: Path) -> Prover:
    return Prover(("CD79A", "MS4A1", "HLA-DRA", "Was", "Cell"), small.small_ontology(tmp_path))


def said(text: str, *evidence: str) -> Sentence:
    return Sentence("call", text, evidence, "template")


@pytest.mark.parametrize(
    ("text", "evidence", "why"),
    [
        ("The 57 cells of group 3 are B cell.", ("T1", "C1"), ""),
        ("They have more of CD79A (94 % of them, 4 % of the others).", ("G1",), ""),
        ("The 57 cells of group 3 are B cell.", ("T1",), "'57'"),
        ("The 58 cells of group 3.", ("C1",), "'58'"),
        ("The 157 cells of group 3.", ("C1",), "'157'"),
        ("With a probability of 0.975.", ("P1",), "'0.975'"),
        ("They have more of MS4A1.", ("G1",), "gene MS4A1"),
        ("They have more of HLA-DRA and CD79A.", ("G1",), "gene HLA-DRA"),
        ("They are monocyte.", ("T1",), "type 'monocyte'"),
        ("They are CD4-positive, alpha-beta T cell.", ("T1",), "type 'cd4 - positive"),
        ("They are called CL:0000576.", ("P1",), "CL:0000576"),
        ("They are called CL:0000236.", ("P1",), ""),
        ("They are fine.", (), "names no evidence"),
        ("They are fine.", ("X1",), "no evidence X1"),
        ("Cell type: B cell was called.", ("T1",), ""),
    ],
)
def test_what_the_evidence_does_not_show_is_caught(
    text: str, evidence: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    found = prover(tmp_path).untraceable(said(text, *evidence), FACTS)
    assert (why in found) if why else not found, found


def test_slots_name_their_evidence() -> None:
    plan = Plan("unlike", {"unlike": Slot("12 %", ("U1",))}, ("C1",))
    sentence = filled(plan, wordings.template("unlike"), "template")
    assert sentence.evidence == ("U1", "C1") and "12 % of them" in sentence.text and "{" not in sentence.text
    assert joined(["a"]) == "a" and joined(["a", "b"]) == "a and b"


def test_figures_are_shown_without_claiming_too_much() -> None:
    assert [percent(v) for v in (0, 0.001, 0.5, 0.999, 1)] == ["0 %", "under 1 %", "50 %", "over 99 %", "100 %"]
    assert rate(3.2e-12) == "3e-12" and rate(0.0) == "1e-99"
    assert [probability(v) for v in (0.3, 0.994, 0.998, 1.0)] == ["0.30", "0.99", "over 0.99", "1.00"]
    assert [fold(v) for v in (1.07, 3.4, 6.8)] == ["2.1-fold", "11-fold", "111-fold"]


@needs_real
def test_no_word_of_the_template_is_taken_for_a_gene() -> None:
    """Genes of the mouse are written as words are: Was, Set, Impact."""
    from helpers_data import REAL

    for genome in ("mm10", "hg38"):
        names = pd.read_csv(REAL / "tables" / f"genes_{genome}.tsv.gz", sep="\t")
        column = next(c for c in names if {"Cd4", "CD4"} & set(names[c].astype(str)))
        known = Prover(set(names[column].astype(str)), small.Ontology({}, "", ""))
        for kind in wordings.WORDINGS:
            for form in wordings.forms(kind):
                text = wordings.SLOT.sub("", form)
                assert not known.untraceable(said(text or "x", "T1"), FACTS), text


# ---- calls


def columns(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            fields.TERM: [B, B, CD4, "unknown", "unknown", small.T_CELL][:n],
            fields.CT_LABEL: ["B cell", "B cell", "CD4-positive, alpha-beta T cell", "unknown", "odd ones", "T cell"][
                :n
            ],
            fields.CT_SCORE: [0.9, 0.7, 0.8, 0.3, 0.9, 0.95][:n],
            fields.CT_STATUS: ["assigned", "assigned", "assigned", "unknown", "assigned", "coarse"][:n],
            fields.CT_TOP: [
                *(f"{B}=0.9|{CD4}=0.1", f"{B}=0.7|{MONOCYTE}=0.3", f"{CD4}=0.8|{B}=0.2", f"{B}=0.3|{CD4}=0.2"),
                *(f"{small.ODD}=0.9|{B}=0.1", f"{CD4}=0.5|{small.CD8}=0.45"),
            ],
        }
    )


def terms(folder: Path) -> Any:
    return small.model(folder).vocabulary.texts.ontology  # type: ignore[union-attr]


def test_calls_are_read_from_the_columns(tmp_path: Path) -> None:
    found = calls.called(columns(), terms(tmp_path))
    assert list(found.term) == [B, B, CD4, "unknown", small.ODD, small.T_CELL]
    groups = calls.groups(columns(), found, DescribeSettings())
    by_name = dict(zip(groups.names, groups.calls, strict=True))
    own = by_name["B cell"]
    assert own.score == pytest.approx(0.8) and own.status == "assigned" and own.agreement == 1
    assert own.rest == ((MONOCYTE, pytest.approx(0.15)), (CD4, pytest.approx(0.05)))
    assert by_name["T cell"].status == "coarse" and by_name["unknown"].status == "unknown"


def test_columns_that_are_not_annotates_are_refused(tmp_path: Path) -> None:
    obs = columns().assign(**{fields.CT_TOP: "B cell"})
    with pytest.raises(InputRefused, match="not ID=PROBABILITY"):
        calls.called(obs, terms(tmp_path))
    with pytest.raises(InputRefused, match="CL:7777777, which the checkpoint's ontology does not have"):
        calls.called(columns().assign(**{fields.TERM: "CL:7777777"}), terms(tmp_path))


# ---- decoders


def tiny_text_model(folder: Path) -> Path:
    """A text model of which only the tokenizer matters: word pieces of all words of the wordings."""
    from helpers_text import tiny_bert

    tiny_bert(folder)
    words = sorted({t.lower() for k in wordings.WORDINGS for f in wordings.forms(k) for t in wordings.tokens(f)})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(w for w in words if not w.startswith("{"))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": len(vocabulary)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tiny_lm(folder: Path, steps: int = 0) -> Path:
    """A GPT-2 of a few thousand weights, with a tokenizer learned from the wordings; trained for ``steps`` to speak so."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    learned = ByteLevelBPETokenizer()
    texts = [f for k in wordings.WORDINGS for f in wordings.forms(k)]
    learned.train_from_iterator(texts, vocab_size=500, special_tokens=["<end>"], show_progress=False)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=500, n_positions=192, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    lm = GPT2LMHeadModel(config)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer, eos_token="<end>", pad_token="<end>")
    optimizer, draw = torch.optim.Adam(lm.parameters(), 1e-2), np.random.default_rng(0)
    for _ in range(steps):
        kinds = draw.choice(wordings.WORDED, 8)
        lines = [f"{corpus.prompt(k, 'cell')} {draw.choice(wordings.forms(k))}" for k in kinds]
        batch = tokenizer(lines, return_tensors="pt", padding=True)
        loss = lm(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(model: Path) -> decoders.Texts:
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "get", lambda name: Reader)
    loaded = checkpoint.load(model)
    patch.undo()
    bank = loaded.model.vocabulary.texts
    assert bank is not None
    from xmodal.provenance import sha256

    return decoders.texts_of(loaded.model, bank, sha256(model))


SMALL = scratch.ScratchSettings(layers=1, width=48, heads=2, soft=2)


@pytest.fixture(scope="module")
def taught(texts: decoders.Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    how = decoders.How(CPU, 0, False, tiny_text_model(folder / "text"))
    settings = neural.TeachingSettings(steps=70, batch_size=12, learning_rate=1e-2)
    done = decoders.train(DecoderChoice.of("scratch"), texts, folder / "decoder", settings, how, SMALL)
    assert done["loss"] < 1.5, done
    return folder / "decoder"


def test_a_taught_decoder_words_every_kind_without_help(taught: Path, texts: decoders.Texts) -> None:
    decoder = decoders.load(DecoderChoice.of("scratch"), taught, texts, (CPU, 0))
    vector = texts.projected["name"][:1]
    seen = {}
    for kind in wordings.WORDED:
        seen[kind] = {decoder.form(kind, "B cell", vector) for _ in range(6)}
        assert seen[kind] <= {*wordings.forms(kind), None}
    assert decoder.worded.fallen_back <= 0.05 * decoder.worded.sentences
    assert len(seen["call"]) > 2  # it draws
    again = decoders.load(DecoderChoice.of("scratch"), taught, texts, (CPU, 0))
    assert {again.form(wordings.WORDED[0], "B cell", vector) for _ in range(6)} == seen[wordings.WORDED[0]]


def test_an_untaught_decoder_falls_back_to_the_template(texts: decoders.Texts, tmp_path: Path) -> None:
    speaker = scratch.Scratch(SMALL, scratch.tokenizer_of(tiny_text_model(tmp_path / "text")), texts.width)
    torch.nn.init.normal_(speaker.pieces_of.weight, std=3.0)  # sure of something, and wrong
    decoder = neural.NeuralDecoder(speaker, "scratch", (CPU, 0))
    forms = [decoder.form(kind, "B cell", texts.projected["name"][:1]) for kind in wordings.WORDED]
    assert None in forms and decoder.worded.fallen_back == forms.count(None)


def test_the_decoder_reads_the_cells(taught: Path, texts: decoders.Texts) -> None:
    """Its probabilities differ between vectors: the soft prompt is not ignored by the network."""
    speaker = decoders.load(DecoderChoice.of("scratch"), taught, texts, (CPU, 0)).speaker
    ways = list(wordings.following("call", "").values())
    rates = [speaker.likely(texts.projected["name"][i : i + 1], "call: B cell ->", "", ways) for i in (0, 1)]
    assert not torch.allclose(rates[0], rates[1])


def test_described_by_scratch_all_is_traceable(
    model: Path, file: Path, taught: Path, whole: Path, tmp_path: Path
) -> None:
    about = described(model, file, tmp_path / "d", "--decoder", "scratch", "--decoder-dir", taught)
    plain = json.loads((whole / "descriptions.json").read_text())
    known = Prover({f"G{i}" for i in range(small.GENES)}, terms(tmp_path))
    for own, theirs in zip(about["units"], plain["units"], strict=True):
        assert own["evidence"] == theirs["evidence"] and own["term"] == theirs["term"]
        table = by_id(Evidence.from_json(e) for e in own["evidence"])
        for sentence in own["sentences"]:
            assert not known.untraceable(Sentence.from_json(sentence), table)
    by = [s["by"] for u in about["units"] for s in u["sentences"] if s["kind"] in wordings.WORDED]
    assert about["decoder"] == {"name": "scratch", "sentences": len(by), "fallen_back": by.count("template")}
    assert by.count("scratch") > 0.9 * len(by)
    assert [u["text"] for u in about["units"]] != [u["text"] for u in plain["units"]]


def test_a_language_model_is_adapted_and_held_to_the_facts(
    model: Path, file: Path, texts: decoders.Texts, tmp_path: Path
) -> None:
    base = tiny_lm(tmp_path / "lm", 150)
    before = {p.name: p.read_bytes() for p in base.iterdir()}
    choice = f"hf:{base}"
    folder = tmp_path / "decoder"
    settings = neural.TeachingSettings(steps=60, batch_size=8, learning_rate=1e-2)
    shape = language_model.AdapterSettings(rank=8, alpha=32)
    done = decoders.train(DecoderChoice.of(choice), texts, folder, settings, decoders.How(CPU, 0, False), shape)
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before
    assert [p.name for p in folder.iterdir()] == ["decoder.safetensors"] and done["parameters"] < 40_000
    about = described(model, file, tmp_path / "d", "--decoder", choice, "--decoder-dir", folder)
    worded = about["decoder"]
    assert worded["name"] == "hf:lm" and worded["fallen_back"] < 0.5 * worded["sentences"]
    known = Prover({f"G{i}" for i in range(small.GENES)}, terms(tmp_path))
    for own in about["units"]:
        table = by_id(Evidence.from_json(e) for e in own["evidence"])
        assert not any(known.untraceable(Sentence.from_json(s), table) for s in own["sentences"])
    other = tiny_lm(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"task_specific_params": {}}))
    done = describe(model, file, tmp_path / "e", "--decoder", f"hf:{other}", "--decoder-dir", folder)
    assert done.code == 3 and "on top of another language model (lm) than other" in done.err


def test_training_from_the_command_line(model: Path, file: Path, tmp_path: Path) -> None:
    text = tiny_text_model(tmp_path / "text")
    train = ("describe", "--checkpoint", model, "--decoder", "scratch", "--steps", 1, "--quiet")
    done = call_xmodal(*train, "--text-model", text, "--train-decoder", tmp_path / "d")
    assert done.code == 0 and "parameters trained" in done.out, done.err
    again = call_xmodal(*train, "--text-model", text, "--train-decoder", tmp_path / "e")
    assert again.code == 0
    first, second = ((tmp_path / k / "decoder.safetensors").read_bytes() for k in "de")
    assert first == second and str(tmp_path).encode() not in first
    few = ("--per", "cell", "--cells", 2, "--decoder-dir", tmp_path / "d")
    about = described(model, file, tmp_path / "out", "--decoder", "scratch", *few)
    assert about["decoder"]["fallen_back"] > 0  # one step teaches nothing
    assert describe(model, file, tmp_path / "hf", "--decoder", f"hf:{text}", "--decoder-dir", tmp_path / "d").code == 3


def test_decoders_of_other_checkpoints_and_broken_ones_are_refused(
    taught: Path, texts: decoders.Texts, tmp_path: Path
) -> None:
    choice = DecoderChoice.of("scratch")
    with pytest.raises(InputRefused, match="for another checkpoint"):
        decoders.load(choice, taught, decoders.Texts(texts.bank, texts.projected, "0" * 64), (CPU, 0))
    with pytest.raises(InputRefused, match=r"no decoder.safetensors.*--train-decoder"):
        decoders.load(choice, tmp_path, texts, (CPU, 0))
    (tmp_path / "decoder.safetensors").write_bytes((taught / "decoder.safetensors").read_bytes()[:5000])
    with pytest.raises(InputRefused, match="cannot be read"):
        decoders.load(choice, tmp_path, texts, (CPU, 0))
    (tmp_path / "decoder.safetensors").write_bytes((taught / "decoder.safetensors").read_bytes())
    with pytest.raises(InputRefused, match=r"no tokenizer.json"):
        decoders.load(choice, tmp_path, texts, (CPU, 0))


def test_language_models_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    base = tmp_path / "lm"
    with pytest.raises(InputRefused, match="no such directory"):
        language_model.load(base)
    base.mkdir()
    with pytest.raises(InputRefused, match=r"config.json is missing"):
        language_model.load(base)
    tiny_lm(base)
    (base / "model.safetensors").rename(tmp_path / "kept")
    with pytest.raises(InputRefused, match="weights are missing"):
        language_model.load(base)
    torch.save({"weight": Path("x")}, base / "pytorch_model.bin")
    with pytest.raises(InputRefused, match="pickle"):
        language_model.load(base)


# ---- refusals


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        (["--cells", 5], 2, "--cells goes with --per cell"),
        (["--decoder", "gpt"], 2, "--decoder gpt: give template, scratch, or hf:DIR"),
        (["--decoder", "scratch"], 2, "needs --decoder-dir"),
        (["--decoder-dir", "x"], 2, "--decoder-dir goes with"),
        (["--steps", 5], 2, "--steps goes with --train-decoder"),
        (["--train-decoder", "x"], 2, "--train-decoder stands alone"),
        (["--group-by", "nothing"], 3, "obs has no column 'nothing'"),
        (["--min-coverage", 2], 2, "min-coverage"),
    ],
)
def test_what_does_not_fit_is_refused(
    more: list[object], code: int, what: str, model: Path, file: Path, tmp_path: Path
) -> None:
    done = describe(model, file, tmp_path / "d", *more)
    assert done.code == code and what in done.err, (done.code, done.err)
    assert not (tmp_path / "d").exists()


def test_training_refuses_what_does_not_fit(model: Path, tmp_path: Path) -> None:
    for more, what in (
        ((), "give FILE and --output-dir"),
        (("--train-decoder", tmp_path / "t"), "the template needs no training"),
        (("--train-decoder", tmp_path / "t", "--decoder", "hf:x", "--text-model", "y"), "--text-model goes with"),
    ):
        done = call_xmodal("describe", "--checkpoint", model, *more)
        assert done.code == 2 and what in done.err, done.err


def test_labels_by_another_checkpoint_are_refused(model: Path, file: Path, tmp_path: Path) -> None:
    done = call_xmodal("annotate", file, "--checkpoint", model, "--output", tmp_path / "a.h5ad", "--quiet")
    assert done.code == 0, done.err
    toy = checkpoint.load(model).model
    toy.reject += 0.01
    checkpoint.save(tmp_path / "other.safetensors", toy, {}, {})
    refused = describe(tmp_path / "other.safetensors", tmp_path / "a.h5ad", tmp_path / "d")
    assert refused.code == 3 and "annotated by another checkpoint" in refused.err
    assert describe(tmp_path / "other.safetensors", tmp_path / "a.h5ad", tmp_path / "d", "--force").code == 0


def test_clusters_that_did_not_vote_are_refused(model: Path, file: Path, tmp_path: Path) -> None:
    done = call_xmodal("annotate", file, "--checkpoint", model, "--output", tmp_path / "a.h5ad", "--quiet")
    assert done.code == 0, done.err
    refused = describe(model, tmp_path / "a.h5ad", tmp_path / "d", "--group-by", "cell_type")
    assert refused.code == 3 and "annotate with --cluster-key cell_type" in refused.err


def test_a_model_without_labels_cannot_describe(prepared: Path, tmp_path: Path) -> None:
    trained = call_xmodal("train", prepared, "--model", "mean", "--output-dir", tmp_path / "m", "--quiet")
    assert trained.code == 0, trained.err
    done = describe(tmp_path / "m" / "model.safetensors", prepared, tmp_path / "d")
    assert done.code == 99 and "does not annotate" in done.err
