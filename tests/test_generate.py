"""``xmodal generate``: cells of what was asked for, as varied and as deep as real ones; and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import helpers_generation as small
from conftest import Ran, call_xmodal
from helpers_annotation import CD4, CD8, MONOCYTE, NEURON, ODD, PER_TYPE, SEEN, T_CELL, TYPES, B, cells
from xmodal.learning import checkpoint
from xmodal.models.parts import type_profiles
from xmodal.models.parts.known_texts import KnownTexts
from xmodal.models.parts.type_states import TypeStates, normal_scores
from xmodal.reporting import generated_figure

PLACE = {t: i for i, t in enumerate(TYPES.values())}  # of the genes that only this type has


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.saved(tmp_path_factory.mktemp("model"))


def generate(model: Path, output: Path, *more: object) -> Ran:
    return call_xmodal("generate", "--checkpoint", model, "--output", output, "--threads", 1, *more)


def markers(adata: ad.AnnData, term: str) -> Any:
    """Counts of the genes that only cells of this type have, as a share of all, (cells,)."""
    own = slice(PLACE[term] * PER_TYPE, (PLACE[term] + 1) * PER_TYPE)
    return np.asarray(adata.X[:, own].sum(1)).ravel() / np.maximum(np.asarray(adata.X.sum(1)).ravel(), 1)


def test_cells_are_what_was_asked_for_and_vary_as_real_ones(model: Path, tmp_path: Path) -> None:
    done = generate(model, tmp_path / "g.h5ad", "--prompt", B, "--prompt", "Monocyte", "--cells", 150)
    assert done.code == 0, done.err
    found = ad.read_h5ad(tmp_path / "g.h5ad")
    assert found.shape == (300, 48) and sp.isspmatrix_csr(found.X) and found.X.dtype == np.int32
    assert list(found.obs["prompt"].unique()) == [B, "Monocyte"] and set(found.obs["source"]) == {"generated"}
    for term in (B, MONOCYTE):
        own = found[(found.obs["cell_type_ontology_term_id"] == term).to_numpy()]
        assert own.n_obs == 150 and (own.obs["nearest_type"] == term).all() and not own.obs["extrapolating"].any()
        assert (markers(own, term) > 2 * markers(own, CD4)).mean() > 0.95
        label = next(n for n, t in TYPES.items() if t == term)
        real = cells(150, (label,), seed=11)
        for one, other in ((own, real), (real, own)):  # neither more nor less varied, neither deeper nor shallower
            totals = [np.asarray(x.X.sum(1)).ravel() for x in (one, other)]
            assert np.median(totals[0]) < 1.2 * np.median(totals[1])
            logged = [np.log1p(x.X.toarray()).var(0) for x in (one, other)]
            assert 0.75 < np.median(logged[0] / logged[1]) < 1.3
    assert len(np.unique(found.X.toarray(), axis=0)) > 290  # not one cell again and again


def test_provenance_says_what_each_prompt_was_taken_for(model: Path, tmp_path: Path) -> None:
    done = generate(model, tmp_path / "g.h5ad", "--prompt", "b CELL", "--cells", 5, "--summary", tmp_path / "s.json")
    assert done.code == 0, done.err
    about = ad.read_h5ad(tmp_path / "g.h5ad").uns["xmodal"]
    assert (about["command"], about["schema"], about["model"]) == ("generate", "xmodal-generated/1", "scmmgpt")
    assert about["checkpoint_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    inner = json.loads(about["settings"])
    said = json.loads((tmp_path / "s.json").read_text())["prompts"][0]
    assert said == {**inner["prompts"][0], "cells": 5, "median_counts": said["median_counts"]}
    assert (inner["prompts"][0]["term"], inner["prompts"][0]["covers"]) == (B, [B])
    assert set(inner["seen"]) == set(SEEN) and inner["text_encoder"]["digest"] == small.DIGEST
    assert str(tmp_path) not in about["settings"]


def test_a_broader_term_gives_cells_of_all_its_kinds(model: Path, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "g.h5ad", "--prompt", T_CELL, "--cells", 200).code == 0
    found = ad.read_h5ad(tmp_path / "g.h5ad")
    assert not found.obs["extrapolating"].any() and set(found.obs["nearest_type"]) <= {CD4, CD8}
    covers = json.loads(found.uns["xmodal"]["settings"])["prompts"][0]["covers"]
    assert set(covers) == {CD4, CD8}
    assert (markers(found, CD4) > markers(found, B)).mean() > 0.9


def test_a_label_without_a_term_is_a_prompt_too(model: Path, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "g.h5ad", "--prompt", "odd ones", "--cells", 30).code == 0
    found = ad.read_h5ad(tmp_path / "g.h5ad")
    assert set(found.obs["nearest_type"]) == {ODD} and set(found.obs["cell_type_ontology_term_id"]) == {"unknown"}
    assert (markers(found, ODD) > 0.3).mean() > 0.9


def test_equal_seeds_give_equal_bytes_whatever_else_is_asked_for(model: Path, tmp_path: Path) -> None:
    for name, more in {"a": (), "b": (), "c": ("--seed", 1), "d": ("--prompt", MONOCYTE)}.items():
        assert generate(model, tmp_path / f"{name}.h5ad", "--prompt", B, "--cells", 20, *more).code == 0
    a, b, c, d = (tmp_path / f"{n}.h5ad" for n in "abcd")
    assert a.read_bytes() == b.read_bytes()
    first, other, among = (ad.read_h5ad(f).X.toarray() for f in (a, c, d))
    assert (first != other).any()
    np.testing.assert_array_equal(first, among[:20])


def test_the_depth_is_the_one_asked_for(model: Path, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "g.h5ad", "--prompt", B, "--cells", 40, "--depth", 33).code == 0
    found = ad.read_h5ad(tmp_path / "g.h5ad")
    assert (np.asarray(found.X.sum(1)) == 33).all() and (markers(found, B) > 0.3).mean() > 0.8
    for wrong in ("0", "-3", "many", "2000000"):
        done = generate(model, tmp_path / "w.h5ad", "--prompt", B, f"--depth={wrong}")
        assert done.code == 2 and "--depth" in done.err and "training" in done.err


def test_what_the_model_does_not_know_is_refused_and_named(model: Path, tmp_path: Path) -> None:
    done = generate(model, tmp_path / "g.h5ad", "--prompt", B, "--prompt", NEURON)
    assert done.code == 3 and NEURON in done.err and "nearest" in done.err and "--force" in done.err
    assert any(t in done.err for t in SEEN) and not (tmp_path / "g.h5ad").exists()
    done = generate(model, tmp_path / "g.h5ad", "--prompt", NEURON, "--force", "--cells", 20)
    assert done.code == 0
    found = ad.read_h5ad(tmp_path / "g.h5ad")
    assert found.obs["extrapolating"].all() and set(found.obs["cell_type_ontology_term_id"]) == {NEURON}
    assert json.loads(found.uns["xmodal"]["settings"])["forced"] is True
    assert found.X.sum() > 0


def test_ids_that_are_none_are_refused_with_what_is_meant(model: Path, tmp_path: Path) -> None:
    done = generate(model, tmp_path / "g.h5ad", "--prompt", "CL:0000999")
    assert done.code == 3 and "obsolete" in done.err and B in done.err
    done = generate(model, tmp_path / "g.h5ad", "--prompt", "CL:7777777")
    assert done.code == 3 and "no term" in done.err
    assert generate(model, tmp_path / "g.h5ad", "--prompt", "  ").code == 2
    done = generate(model, tmp_path / "g.h5ad")
    assert done.code == 2 and "--prompt" in done.err


def test_free_text_needs_the_text_model_of_the_training(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.text import encoder

    texts = checkpoint.load(model).model.vocabulary.texts
    assert texts is not None
    monkeypatch.setattr(encoder, "load", lambda *_: small.Encoder(texts, MONOCYTE))
    assert generate(model, tmp_path / "g.h5ad", "--prompt", "large white cells that eat", "--cells", 30).code == 0
    found = ad.read_h5ad(tmp_path / "g.h5ad")
    assert set(found.obs["nearest_type"]) == {MONOCYTE} and set(found.obs["cell_type_ontology_term_id"]) == {"unknown"}
    assert not found.obs["extrapolating"].any() and found.obs["nearest_cosine"].min() > 0.99
    assert np.median(markers(found, MONOCYTE)) > 0.3
    monkeypatch.setattr(encoder, "load", lambda *_: small.Encoder(texts, MONOCYTE, "cd" * 32))
    done = generate(model, tmp_path / "w.h5ad", "--prompt", "large white cells that eat", "--text-model", "other")
    assert done.code == 3 and "--text-model" in done.err and small.DIGEST[:12] in done.err


def test_prompts_of_a_table(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.tsv"
    table.write_text(f"n\tprompt\n1\t{B}\n2\tmonocyte\n3\t\n4\t{B}\n")
    assert generate(model, tmp_path / "g.h5ad", "--prompts", table, "--prompt", CD4, "--cells", 4).code == 0
    assert ad.read_h5ad(tmp_path / "g.h5ad").obs["prompt"].value_counts().to_dict() == {CD4: 4, B: 4, "monocyte": 4}
    table.write_text("text\nB cell\n")
    done = generate(model, tmp_path / "w.h5ad", "--prompts", table)
    assert done.code == 3 and "no column 'prompt'" in done.err and "text" in done.err
    table.write_text("prompt\n\n")
    assert generate(model, tmp_path / "w.h5ad", "--prompts", table).code == 3


def test_the_overview_has_a_picture_and_the_genes_of_each_prompt(model: Path, tmp_path: Path) -> None:
    import pandas as pd

    folder = tmp_path / "o"
    done = generate(model, tmp_path / "g.h5ad", "--prompt", B, "--prompt", CD4, "--cells", 50, "--overview", folder)
    assert done.code == 0, done.err
    assert {p.name for p in folder.iterdir()} == {"generated.png", "prompts.tsv", "genes.tsv", "generated.json"}
    assert (folder / "generated.png").read_bytes()[:4] == b"\x89PNG"
    prompts = pd.read_csv(folder / "prompts.tsv", sep="\t")
    assert list(prompts["cells"]) == [50, 50] and list(prompts["cells_of"]) == [
        "B cell",
        "CD4-positive, alpha-beta T cell",
    ]
    genes = pd.read_csv(folder / "genes.tsv", sep="\t")
    first = set(genes[genes["prompt"] == B]["gene"].head(PER_TYPE))
    assert first == {f"G{i}" for i in range(PLACE[B] * PER_TYPE, (PLACE[B] + 1) * PER_TYPE)}


def test_other_checkpoints_and_outputs_are_refused(model: Path, tmp_path: Path) -> None:
    none = small.saved(tmp_path, generator_passes=0, epochs=1)
    done = generate(none, tmp_path / "g.h5ad", "--prompt", B)
    assert done.code == 3 and "without a generator" in done.err
    golden = next(Path(__file__).parent.glob("golden/mean-*.safetensors"))
    done = generate(golden, tmp_path / "g.h5ad", "--prompt", B)
    assert done.code == 99 and "scmmgpt" in done.err
    assert generate(model, tmp_path / "g.tsv", "--prompt", B).code == 2
    assert generate(model, model, "--prompt", B, "--overwrite").code == 2  # it would be lost
    (tmp_path / "g.h5ad").write_bytes(b"")
    assert generate(model, tmp_path / "g.h5ad", "--prompt", B).code == 3


# Parts


def test_a_text_of_no_training_type_is_told_from_another_wording(tmp_path: Path) -> None:
    known = KnownTexts.of(small.bank(tmp_path), SEEN)
    texts = small.bank(tmp_path)
    own = [known.cosines(texts.embeddings["name"][texts.row(t)]).max() for t in SEEN]
    far = known.cosines(texts.embeddings["definition"][texts.row(NEURON)]).max()
    assert far < known.outside <= known.extrapolating < min(own)
    for shares in (known.near(known.centres[2]), known.mixed(known.centres[2])):
        assert shares.sum() == pytest.approx(1) and shares.argmax() == 2
    assert known.near(known.centres[2]).min() >= 0


def test_shares_of_few_cells_are_pooled_and_markers_stay() -> None:
    rng = np.random.default_rng(0)
    true = np.full((3, 200), 1.0)
    true[0, 7] = true[1, 8] = true[2, 7] = 100.0
    true /= true.sum(1, keepdims=True)
    codes = np.repeat([0, 1, 2], [200, 30, 12])
    counts = sp.csr_matrix(rng.poisson(30 * true[codes]).astype(np.float32))
    found = type_profiles.shares(counts, codes, 3)
    raw = type_profiles.sums(counts, codes, 3)
    raw /= raw.sum(1, keepdims=True)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found > 0).all() and found[1, 8] == pytest.approx(true[1, 8], rel=0.1)
    assert np.abs(found[1, 9:] - true[1, 9:]).mean() < np.abs(raw[1, 9:] - true[1, 9:]).mean()
    mean = np.asarray(counts.sum(0)).ravel() + type_profiles.HALF
    np.testing.assert_allclose(found[2], mean / mean.sum())  # of 12 cells nothing is kept: what all have
    assert np.abs(found[0] - found[2]).max() > 0.03


def test_depths_are_those_of_the_type() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [300, 300, 5])
    depths = np.where(codes == 0, rng.integers(50, 100, 605), rng.integers(500, 1000, 605)).astype(float)
    found = type_profiles.depth_quantiles(depths, codes, 3)
    drawn = type_profiles.depths_at(found[np.zeros(2000, int)], rng.random(2000))
    assert drawn.min() >= 50 and drawn.max() <= 100 and abs(np.median(drawn) - 75) < 3
    assert found[2, 0] < 100 and found[2, -1] > 500  # too few of its own
    place = type_profiles.place_of(found[[0, 0, 0]], 75.0)
    assert 0.4 < place[0] < 0.6 and type_profiles.place_of(found[[0]], 1e9)[0] < 1


def test_states_are_drawn_as_the_cells_lie_and_given_a_depth() -> None:
    rng = np.random.default_rng(0)
    depth = rng.gamma(2, 100, 900)
    score = normal_scores(depth)
    mean = np.stack([2 * score + 0.5 * rng.normal(size=900), np.where(rng.random(900) < 0.5, -3.0, 3.0)], 1)
    states = TypeStates(2, 2)
    states.fit(0, mean, np.full_like(mean, 0.1), depth)
    states.set_gaussian(1, np.array([5.0, 5.0]), np.array([1.0, 2.0]))
    drawn = states.draw(np.zeros(4000, int), rng)
    np.testing.assert_allclose(np.cov(drawn[:, [0, 2]].T), np.cov(mean[:, 0], score), atol=0.35)
    assert (np.abs(drawn[:, 1]) > 1.5).mean() > 0.97  # two kinds of cells, none between
    given = states.draw_given(np.zeros(4000, int), np.full(4000, 1.5), rng)
    assert given[:, 0].mean() == pytest.approx(3.0, abs=0.3) and np.allclose(given[:, -1], 1.5)
    assert given[:, 0].std() < 0.8
    other = states.draw(np.ones(4000, int), rng)
    np.testing.assert_allclose(other.mean(0), [5, 5, 0], atol=0.15)
    share = states.get_buffer("share")[0].numpy()
    assert (share[share > 0] * 900 >= type_profiles.MIN_CELLS).all()


def test_names_in_the_picture_do_not_cover_each_other() -> None:
    drawn = np.array([[0.0, 0.0], [10.0, 10.0]])
    near, far = [[1.0, 5.0], [1.5, 5.1], [2.0, 5.2]], [[9.0, 1.0]]
    assert generated_figure.raised(np.array([*near, *far]), drawn) == [0, 1, 2, 0]
    assert generated_figure.raised(np.zeros((0, 2)), drawn) == []
