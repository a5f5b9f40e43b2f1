"""``xmodal evaluate --description``: measures are what they are called, false things are found, refusals name the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import helpers_annotation as small
from conftest import Ran, call_xmodal
from helpers_annotation import CD4, MONOCYTE, ODD, B, Toy
from helpers_text import tiny_bert
from xmodal import registry
from xmodal.errors import InputRefused
from xmodal.scores import description_measures as measures
from xmodal.scores.description_evaluation import type_text
from xmodal.scores.description_input import read_description


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells, their truth, a toy checkpoint, a text model, the ontology and descriptions of groups (d) and of cells (c)."""
    folder = tmp_path_factory.mktemp("described")
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "get", lambda name: Toy)
    model = small.saved(folder)
    adata = small.cells(30)
    adata.write_h5ad(folder / "in.h5ad")
    small.as_mudata(adata).write_h5mu(folder / "truth.h5mu")
    tiny_bert(folder / "text")
    describe = ("describe", folder / "in.h5ad", "--checkpoint", model, "--threads", 1, "--quiet", "--output-dir")
    for done in (
        call_xmodal(*describe, folder / "d"),
        call_xmodal(*describe, folder / "c", "--per", "cell"),
        call_xmodal(*("annotate", folder / "in.h5ad", "--checkpoint", model, "--output", folder / "a.h5ad", "--quiet")),
    ):
        assert done.code == 0, done.err
    patch.undo()
    return folder


def evaluate(folder: Path, description: Path, output: Path, *more: object) -> Ran:
    texts = ("--ontology", folder / "cl.tsv", "--text-model", folder / "text", "--threads", 1, "--quiet")
    return call_xmodal(
        "evaluate", folder / "truth.h5mu", "--description", description, "--output-dir", output, *texts, *more
    )


def scored(folder: Path, description: Path, output: Path, *more: object) -> dict[str, Any]:
    done = evaluate(folder, description, output, *more)
    assert done.code == 0, done.err
    return dict(json.loads((output / "metrics.json").read_text())["description"])


def changed(folder: Path, output: Path, **texts: str) -> Path:
    """The descriptions of groups with other texts in the sentences of a kind about B cells."""
    about = json.loads((folder / "d" / "descriptions.json").read_text())
    own = next(u for u in about["units"] if u["term"] == B)
    for sentence in own["sentences"]:
        sentence["text"] = texts.get(sentence["kind"], sentence["text"])
    output.write_text(json.dumps(about))
    return output


@pytest.fixture(scope="module")
def groups(folder: Path) -> dict[str, Any]:
    return scored(folder, folder / "d" / "descriptions.json", folder / "scores")


# ---- scores


def test_what_is_true_is_found_true(groups: dict[str, Any], folder: Path) -> None:
    own = groups["methods"]["description"]
    assert own["traceable"] == own["evidence_true"] == own["gene_claims_true"] == 1 and groups["wrong"] == 0
    assert own["genes_chosen_true"] > 0.9
    assert groups["counts"]["sentences"] > 20 and groups["counts"]["gene_claims"] > 20
    assert not (pd.read_csv(folder / "scores" / "wrong.tsv", sep="\t")).size
    assert (folder / "scores" / "scores.png").stat().st_size > 5000


def test_the_label_of_the_text_is_that_of_the_annotation(groups: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    from xmodal.scores.annotation_measures import macro_f1

    obs = ad.read_h5ad(folder / "a.h5ad").obs
    test = (obs["xmodal_split"] == "test").to_numpy()
    truth = np.array([small.TYPES[str(t)] for t in obs["cell_type"]], object)[test]
    ids = {"odd ones": ODD, "unknown": "unknown"} | {name: term for term, name, _ in small.TERMS}
    votes = np.array([ids[str(v)] for v in obs["ct_cluster_label"]], object)[test]
    assert groups["methods"]["description"]["label_f1"] == pytest.approx(macro_f1(truth, votes), abs=1e-5)
    cells = scored(folder, folder / "c" / "descriptions.json", tmp_path / "c")
    own = np.array([ids[str(v)] for v in obs["ct_label"]], object)[test]
    assert cells["methods"]["description"]["label_f1"] == pytest.approx(macro_f1(truth, own), abs=1e-5)
    assert cells["methods"]["description"]["traceable"] == cells["methods"]["description"]["gene_claims_true"] == 1
    assert cells["descriptions"] == len(obs)


def test_beside_plain_texts(groups: dict[str, Any]) -> None:
    own, lookup, majority, wrong = (groups["methods"][m] for m in ("description", "lookup", "majority", "wrong"))
    for score in ("label_f1", "rouge_l", "bleu4", "cosine", "textual_discrepancy"):
        assert own[score] == pytest.approx(lookup[score], abs=1e-5), score  # the same sentences about the type
    assert own["textual_discrepancy_with_genes"] < lookup["textual_discrepancy_with_genes"]
    assert own["rouge_l_whole"] < own["rouge_l"] and own["textual_discrepancy_whole"] > own["textual_discrepancy"]
    assert wrong["label_f1"] == 0 < majority["label_f1"] < own["label_f1"]
    assert wrong["rouge_l"] < majority["rouge_l"] < own["rouge_l"]
    assert lookup["textual_discrepancy"] < min(majority["textual_discrepancy"], wrong["textual_discrepancy"])
    assert not {"traceable", "gene_claims_true"} & set(lookup)


def test_equal_input_gives_equal_bytes(folder: Path, tmp_path: Path) -> None:
    scored(folder, folder / "d" / "descriptions.json", tmp_path / "again")
    for name in ("scores.tsv", "wrong.tsv", "scores.png"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "scores" / name).read_bytes()


@pytest.mark.parametrize(
    ("texts", "score", "what"),
    [
        ({"genes": "Compared with all other cells they have more of G40."}, "gene_claims_true", "G40 is not higher"),
        ({"genes": "Compared with all other cells they have more of G40."}, "traceable", "the gene G40"),
        ({"call": "The 5000 cells of this type are called CL:0000236."}, "traceable", "'5000'"),
        ({"definition": "A neuron of the tests."}, "traceable", "the type 'neuron'"),
    ],
)
def test_what_is_false_is_found(texts: dict[str, str], score: str, what: str, folder: Path, tmp_path: Path) -> None:
    found = scored(folder, changed(folder, tmp_path / "x.json", **texts), tmp_path / "out")
    assert found["methods"]["description"][score] < 1
    assert what in (tmp_path / "out" / "wrong.tsv").read_text()


def test_another_name_in_the_text_is_another_label(groups: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    found = scored(folder, changed(folder, tmp_path / "x.json", type="Cell type: monocyte."), tmp_path / "out")
    assert found["methods"]["description"]["label_f1"] < groups["methods"]["description"]["label_f1"] - 0.1
    assert found["methods"]["description"]["traceable"] < 1


def test_figures_that_do_not_come_out_again_are_found(folder: Path, tmp_path: Path) -> None:
    about = json.loads((folder / "d" / "descriptions.json").read_text())
    own = next(u for u in about["units"] if u["term"] == B)
    gene = next(e for e in own["evidence"] if e["kind"] == "gene")
    gene["values"]["share_in"] += 0.01
    (tmp_path / "x.json").write_text(json.dumps(about))
    found = scored(folder, tmp_path / "x.json", tmp_path / "out")
    assert found["methods"]["description"]["evidence_true"] < 1 and found["methods"]["description"]["traceable"] == 1


def test_genes_are_tested_where_they_were_not_chosen(folder: Path, tmp_path: Path) -> None:
    """Counts of the cells in which genes were chosen play no part."""
    import mudata as mu

    about = json.loads((folder / "d" / "descriptions.json").read_text())
    chosen = {c for g in about["groups"].values() for c in g["chosen_in"]}
    truth = mu.read_h5mu(folder / "truth.h5mu")
    x = truth.mod["rna"].X.tolil()
    rows = np.flatnonzero(truth.mod["rna"].obs_names.isin(chosen))
    x[rows] = np.random.default_rng(0).permutation(x[rows].toarray())
    truth.mod["rna"].X = x.tocsr()
    (tmp_path / "in").mkdir()
    truth.write_h5mu(tmp_path / "in" / "truth.h5mu")
    for name in ("cl.tsv", "text"):
        (tmp_path / "in" / name).symlink_to(folder / name)
    found = scored(tmp_path / "in", folder / "d" / "descriptions.json", tmp_path / "out")
    assert found["methods"]["description"]["gene_claims_true"] == found["methods"]["description"]["evidence_true"] == 1


def test_the_report_shows_the_scores(folder: Path, groups: dict[str, Any], tmp_path: Path) -> None:
    done = call_xmodal("report", "--evaluation", folder / "scores", "--output", tmp_path / "r.html", "--quiet")
    assert done.code == 0, done.err
    page, number = (tmp_path / "r.html").read_text(), groups["counts"]["sentences"]
    assert f"Descriptions (scores): {number} of {number} sentences are proven" in page and "Textual discrepancy" in page
    assert "holds no scores" not in page


# ---- measures


def words(text: str) -> list[str]:
    return text.split()


def test_bleu_by_hand() -> None:
    text, reference = words("the cat sat on the mat"), words("the cat is on the mat")
    # One word: 5 of 6; two words: the cat, on the, the mat of 5.
    assert measures.bleu([text], [reference], 2) == pytest.approx(np.sqrt(5 / 6 * 3 / 5))
    assert measures.bleu([text], [reference], 4) == 0  # no four words in common, and no smoothing
    # Clipped: "the" counts as often as the reference has it; short texts are punished.
    assert measures.bleu([words("the the the")], [words("the cat sat")], 1) == pytest.approx(1 / 3)
    assert measures.bleu([words("the cat")], [words("the cat sat on")], 1) == pytest.approx(np.exp(1 - 4 / 2))
    # Of a corpus, not the mean over texts.
    both = measures.bleu([words("a b"), words("c d e f")], [words("a b"), words("c x x x")], 1)
    assert both == pytest.approx(3 / 6)


def test_longest_common_subsequence_by_the_textbook() -> None:
    def table(a: list[str], b: list[str]) -> int:
        found = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                found[i + 1, j + 1] = found[i, j] + 1 if x == y else max(found[i, j + 1], found[i + 1, j])
        return int(found[-1, -1])

    draw = np.random.default_rng(0)
    for _ in range(60):
        a, b = ([str(w) for w in draw.integers(0, 6, draw.integers(0, 90))] for _ in range(2))
        assert measures.longest_common(a, b) == table(a, b)
    assert measures.rouge_l(words("a b c d"), words("a x c d e")) == pytest.approx(2 * 3 / 9)
    assert measures.rouge_l([], words("a")) == 0


def test_meteor_by_hand() -> None:
    # All words in one chunk: 1 - 0.5 (1/3)^3.
    assert measures.meteor(words("a b c"), words("a b c")) == pytest.approx(1 - 0.5 / 27)
    # Two of three words, in two chunks; recall 2/4 weighs nine times.
    precision, recall = 2 / 3, 2 / 4
    mean = 10 * precision * recall / (recall + 9 * precision)
    assert measures.meteor(words("a x c"), words("c y a z")) == pytest.approx(mean * 0.5)
    # The second "the" goes on with the chunk in place of the first that is free.
    assert measures.meteor(words("b the c"), words("the b the c")) == pytest.approx(
        10 * 0.75 / (0.75 + 9) * (1 - 0.5 * (1 / 3) ** 3)
    )
    assert measures.meteor(words("a"), words("b")) == 0


def test_words_are_letters_and_digits() -> None:
    assert measures.words("CD4-positive, (37 %) T cell.") == ["cd4", "positive", "37", "t", "cell"]


def test_the_type_that_a_text_names(tmp_path: Path) -> None:
    ontology = small.small_ontology(tmp_path)
    odd = frozenset({"odd ones", "no. 5 cells"})
    for text, term in (
        ("Cell type: B cell. A B cell of the tests.", B),
        ("cell type: CD4-positive, alpha-beta T cell. It has 3.5 genes. The end.", CD4),
        ("Cell type: MONOCYTE.", MONOCYTE),
        ("Cell type: odd ones. More.", ODD),
        ("Cell type: no. 5 cells. More.", "label:no. 5 cells"),
        ("Cell type: unknown. The nearest candidate is B cell (CL:0000236) with 0.3.", "unknown"),
        ("They are called CL:0000576; the next is B cell (CL:0000236).", MONOCYTE),
        ("The nearest candidate is B cell (CL:0000236).", "unknown"),
        ("Nothing.", "unknown"),
    ):
        assert measures.named_term(text, ontology, odd) == term, text


def test_the_reference_of_a_type(tmp_path: Path) -> None:
    ontology = small.small_ontology(tmp_path)
    assert type_text(B, ontology) == "Cell type: B cell. A B cell of the tests."
    assert (
        type_text(ODD, ontology) == "Cell type: odd ones." and type_text("unknown", ontology) == "Cell type: unknown."
    )


# ---- refusals


def test_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    for content, what in (
        ("[]", "no descriptions"),
        ("{", "no file of descriptions"),
        ('{"schema": "x"}', "no descriptions"),
    ):
        (tmp_path / "x.json").write_text(content)
        done = evaluate(folder, tmp_path / "x.json", tmp_path / "out")
        assert done.code == 3 and what in done.err and "xmodal describe" in done.err, done.err
    about = json.loads((folder / "d" / "descriptions.json").read_text())
    del about["units"][0]["evidence"][0]["shown"]
    (tmp_path / "x.json").write_text(json.dumps(about))
    with pytest.raises(InputRefused, match="no file of descriptions"):
        read_description(tmp_path / "x.json")


def test_cells_that_the_truth_lacks_are_refused(folder: Path, tmp_path: Path) -> None:
    about = json.loads((folder / "d" / "descriptions.json").read_text())
    next(iter(about["groups"].values()))["tested_in"][0] = "stranger"
    (tmp_path / "x.json").write_text(json.dumps(about))
    done = evaluate(folder, tmp_path / "x.json", tmp_path / "out")
    assert done.code == 3 and "1 of its cells are not in the truth, first stranger" in done.err


def test_options_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    description = folder / "d" / "descriptions.json"
    both = evaluate(folder, description, tmp_path / "out", "--annotation", folder / "a.h5ad")
    assert both.code == 2 and "give one of" in both.err and "--description" in both.err
    other = tmp_path / "other.safetensors"
    other.write_bytes((folder / "model.safetensors").read_bytes() + b" ")
    done = evaluate(folder, description, tmp_path / "out", "--checkpoint", other)
    assert done.code == 3 and "made by another checkpoint" in done.err
    assert evaluate(folder, description, tmp_path / "out", "--label-key", "kind").code == 3
