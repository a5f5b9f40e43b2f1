"""``xmodal annotate``: candidates, calls, coarser terms, rejected cells, votes, genes, what is written, and every refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import helpers_annotation as small
from conftest import Ran, call_xmodal
from helpers_annotation import CD4, CD8, LEUKOCYTE, LYMPHOCYTE, MONOCYTE, NEURON, ODD, SEEN, T_CELL, TYPES, B, Toy
from helpers_text import tiny_bert
from xmodal import fields, registry
from xmodal.annotating import candidates, clusters, decisions
from xmodal.annotating.candidates import Family
from xmodal.annotating.scoring import strongest
from xmodal.annotating.settings import AnnotateSettings
from xmodal.data import on_disk
from xmodal.errors import InputRefused, UsageRefused

COLUMNS = {
    *("ct_label", "cell_type_ontology_term_id", "ct_score", "ct_margin", "ct_second_label", "ct_status", "ct_known"),
    *("ct_top", "ct_cluster", "ct_cluster_label", "ct_cluster_score", "ct_cluster_agreement", "xmodal_unlike"),
}
FILES = {
    *(
        "index.html",
        "annotation.png",
        "annotation.json",
        "annotation.tsv",
        "composition.tsv",
        "clusters.tsv",
        "genes.tsv",
    ),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is a model like those that are installed."""
    get, names = registry.get, registry.names
    monkeypatch.setattr(registry, "get", lambda name: Toy if name == "toy" else get(name))
    monkeypatch.setattr(registry, "names", lambda: sorted([*names(), "toy"]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "in.h5ad"
    small.cells().write_h5ad(path)
    return path


def annotate(model: Path, file: Path, output: Path, *more: object) -> Ran:
    return call_xmodal("annotate", file, "--checkpoint", model, "--output", output, "--threads", 1, *more)


def annotated(model: Path, file: Path, output: Path, *more: object) -> ad.AnnData:
    done = annotate(model, file, output, *more)
    assert done.code == 0, done.err
    return ad.read_h5ad(output)


@pytest.fixture(scope="module")
def whole(model: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    more = ["--report-dir", folder / "seen", "--table", folder / "t.tsv", "--summary", folder / "s.json"]
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "get", lambda name: Toy)
    done = annotate(model, file, folder / "a.h5ad", *more)
    patch.undo()
    assert done.code == 0, done.err
    return folder


# ---- what is written


@pytest.mark.parametrize("ending", ["h5ad", "h5mu"])
def test_counts_may_stay_in_their_file(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(on_disk, "BLOCK", 500)
    kept = ad.read_h5ad(file)
    kept.layers["whole"] = kept.X.astype(np.int32)
    kept.write_h5ad(tmp_path / "in.h5ad")
    written = []
    for choice in ("never", "always"):
        folder = tmp_path / choice
        more = ("--report-dir", folder / "seen", "--table", folder / "t.tsv", "--on-disk", choice)
        done = annotate(model, tmp_path / "in.h5ad", folder / f"a.{ending}", *more)
        assert done.code == 0, done.err
        written.append({f.relative_to(folder): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()})
    assert written[0].keys() == written[1].keys()
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []
    read = ad.read_h5ad if ending == "h5ad" else lambda path: mu.read_h5mu(path).mod["rna"]
    assert (read(folder / f"a.{ending}").layers["whole"] != kept.layers["whole"]).nnz == 0


def test_of_many_cells_some_are_clustered_and_the_others_join_them(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "GRAPH_CELLS", 60)
    adata = annotated(model, file, tmp_path / "a.h5ad")
    assert adata.n_obs > 60
    sizes = adata.obs["ct_cluster"].value_counts(sort=False)
    assert sizes.sum() == adata.n_obs
    assert (np.diff(sizes.to_numpy()) <= 0).all()
    agree = adata.obs["ct_cluster_label"].astype(str) == adata.obs["ct_label"].astype(str)
    assert agree.mean() > 0.8


def test_a_foundation_model_reads_cells_in_memory(model: Path, file: Path, tmp_path: Path) -> None:
    done = annotate(model, file, tmp_path / "a.h5ad", "--on-disk", "always", "--cell-model", f"scgpt:{tmp_path}")
    assert (done.code, "--cell-model" in done.err) == (2, True)


def test_cells_get_their_types_and_ids(whole: Path, file: Path) -> None:
    out, before = ad.read_h5ad(whole / "a.h5ad"), ad.read_h5ad(file)
    assert set(out.obs) == {*before.obs, *COLUMNS} and list(out.obs_names) == list(before.obs_names)
    assert (out.X != before.X).nnz == 0
    truth = np.array([TYPES[str(t)] for t in out.obs["cell_type"]])
    ids = out.obs["cell_type_ontology_term_id"]
    assert isinstance(ids.dtype, pd.CategoricalDtype)
    assert set(ids) <= {CD4, CD8, B, MONOCYTE, T_CELL, LYMPHOCYTE, LEUKOCYTE, "unknown"}
    for term in (B, MONOCYTE):
        assert (ids[truth == term] == term).mean() > 0.9, term
    assert (out.obs["ct_label"][truth == B] == "B cell").mean() > 0.9
    # A label without a term is given as it is, and has no id.
    assert (out.obs["ct_label"][truth == ODD] == "odd ones").mean() > 0.9 and (ids[truth == ODD] == "unknown").all()
    new = np.isin(truth, [NEURON, TYPES["astrocyte"]])
    assert (
        (out.obs["ct_status"][new] == "unknown").mean() > 0.9 > 0.1 > (out.obs["ct_status"][~new] == "unknown").mean()
    )
    assert (out.obs["ct_label"][out.obs["ct_status"] == "unknown"] == "unknown").all()
    assert list(out.obs["ct_status"].cat.categories) == ["assigned", "coarse", "unknown"]
    assert out.obs["ct_known"][~new].mean() > out.obs["ct_known"][new].mean() + 0.2


def test_two_likely_kinds_of_t_cell_are_a_t_cell(model: Path, file: Path, tmp_path: Path) -> None:
    out = annotated(model, file, tmp_path / "a.h5ad", "--threshold", 0.8, "--cluster-key", "none")
    coarse = out.obs[out.obs["ct_status"] == "coarse"]
    of_t = coarse[coarse["cell_type"].isin(["CD4 T", "CD8 T"])]
    assert len(of_t) > 10 and (of_t["ct_label"] == "T cell").mean() > 0.8
    for _, row in of_t.iterrows():
        top = dict(part.rsplit("=", 1) for part in row["ct_top"].split("|"))
        assert max(map(float, top.values())) < 0.8 <= row["ct_score"]


def test_scores_are_the_models(model: Path, whole: Path, file: Path) -> None:
    from xmodal.data.batches import cells_of
    from xmodal.learning import checkpoint

    out, toy = ad.read_h5ad(whole / "a.h5ad"), checkpoint.load(model).model
    assert isinstance(toy, Toy)
    batch = cells_of(small.as_mudata(ad.read_h5ad(file)), toy.vocabulary).batch(slice(None))
    probability = toy.scores(batch, sorted(SEEN)).softmax(1).numpy()
    order = np.sort(probability, 1)
    np.testing.assert_allclose(out.obs["ct_margin"], order[:, -1] - order[:, -2], atol=1e-5)
    assigned = (out.obs["ct_status"] == "assigned").to_numpy()
    np.testing.assert_allclose(out.obs["ct_score"][assigned], order[assigned, -1], atol=1e-5)
    np.testing.assert_allclose(out.obs["ct_known"], toy.known(batch).numpy(), atol=1e-5)
    names = {toy.vocabulary.texts.ontology.terms[t].name: i for i, t in enumerate(sorted(SEEN))}  # type: ignore[union-attr]
    second = np.argsort(-probability, 1)[:, 1]
    assert [names[str(n)] for n in out.obs["ct_second_label"]] == list(second)


def test_the_record_says_by_what(whole: Path, model: Path) -> None:
    from xmodal.provenance import sha256

    about = ad.read_h5ad(whole / "a.h5ad").uns["xmodal_annotation"]
    assert (about["schema"], about["command"], about["model"]) == ("xmodal-annotation/1", "annotate", "toy")
    assert about["checkpoint_sha256"] == sha256(model)
    said = json.loads(about["settings"])
    assert said["candidates"] == {"kind": "seen", "root": "", "number": 5, "ids": sorted(SEEN)}
    assert said["ontology"] == {"version": small.VERSION, "source": "cl.tsv"}
    assert said["thresholds"] == {"reject": 0.5, "penalty": 0.0, "temperature": 1.0, "least": 0.5}
    assert said["names"][ODD] == "odd ones" and said["trained"]["key"] == "cell_type"
    assert said["text_encoder"]["name"] == "tiny" and said["seen"] == sorted(SEEN)


def test_tables_and_summary_say_what_the_file_says(whole: Path) -> None:
    out = ad.read_h5ad(whole / "a.h5ad")
    assert {p.name for p in (whole / "seen").iterdir()} == FILES
    assert (whole / "seen/annotation.json").read_bytes() == (whole / "s.json").read_bytes()
    assert (whole / "seen/annotation.tsv").read_bytes() == (whole / "t.tsv").read_bytes()
    assert (whole / "seen/annotation.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    table = pd.read_csv(whole / "t.tsv", sep="\t", keep_default_na=False)
    assert list(table["cell"]) == list(out.obs_names) and {*COLUMNS, "why", "counts", "genes"} < set(table)
    assert list(table["ct_label"]) == list(out.obs["ct_label"])
    assert (
        set(table["why"]) <= {"", "novel", "undecided"}
        and ((table["why"] != "") == (table["ct_label"] == "unknown")).all()
    )
    np.testing.assert_allclose(table["ct_score"], out.obs["ct_score"], rtol=1e-4)
    composition = pd.read_csv(whole / "seen/composition.tsv", sep="\t")
    assert composition["cells"].sum() == out.n_obs and composition["label"].iloc[-1] == "unknown"
    by_hand = out.obs["ct_label"].value_counts()
    assert all(by_hand[row.label] == row.cells for row in composition.itertuples())
    found = json.loads((whole / "s.json").read_text())
    assert found["cells"] == out.n_obs and sum(found["status"].values()) == out.n_obs
    assert found["status"]["unknown"] == (out.obs["ct_status"] == "unknown").sum() == sum(found["why_unknown"].values())
    assert sum(sum(v) for v in found["histogram"]["cells"].values()) == out.n_obs == sum(found["histogram"]["known"])


def test_the_genes_of_a_type_made_its_call(whole: Path) -> None:
    genes = pd.read_csv(whole / "seen/genes.tsv", sep="\t")
    for label, name in (("B cell", "B"), ("monocyte", "Mono"), ("odd ones", "odd ones")):
        own = genes[genes["label"] == label].head(small.PER_TYPE)
        start = list(TYPES).index(name) * small.PER_TYPE
        assert set(own["gene"]) == {f"G{i}" for i in range(start, start + small.PER_TYPE)}, label
        assert (own["inside"] > own["outside"] + 0.3).all() and (own["logfc"] > 1).all()
    assert ((genes["contribution"] > 0) & (genes["contribution"] < 1)).all()
    cells = pd.read_csv(whole / "t.tsv", sep="\t", keep_default_na=False)
    first = [g.split("|")[0] for g in cells["genes"][cells["ct_label"] == "B cell"]]
    assert {f"G{i}" for i in range(12, 18)} >= set(first)


def test_clusters_vote(whole: Path) -> None:
    out = ad.read_h5ad(whole / "a.h5ad").obs
    table = pd.read_csv(whole / "seen/clusters.tsv", sep="\t", dtype={"cluster": str})
    assert table["cells"].sum() == len(out) and list(table["cluster"]) == list(out["ct_cluster"].cat.categories)
    for row in table.itertuples():
        own = out[out["ct_cluster"] == row.cluster]
        assert len(own) == row.cells and set(own["ct_cluster_label"]) == {row.label}
        assert own["ct_cluster_agreement"].iloc[0] == pytest.approx((own["ct_label"] == row.label).mean(), abs=1e-5)
        assert set(own["ct_cluster_score"].round(4)) == {np.float32(row.score).round(4)}


def test_equal_input_equal_bytes(whole: Path, model: Path, file: Path, tmp_path: Path) -> None:
    assert annotate(model, file, tmp_path / "a.h5ad", "--report-dir", tmp_path / "seen").code == 0
    assert (tmp_path / "a.h5ad").read_bytes() == (whole / "a.h5ad").read_bytes()
    for name in FILES:
        assert (tmp_path / "seen" / name).read_bytes() == (whole / "seen" / name).read_bytes(), name


def test_an_h5mu_keeps_all_that_it_had(model: Path, file: Path, tmp_path: Path) -> None:
    mdata = small.as_mudata(ad.read_h5ad(file))
    mdata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 2)).astype(np.float32)
    mdata["rna"].layers["mine"] = mdata["rna"].X * 2
    mdata.obs["cell_type_ontology_term_id"] = "CL:0000236"
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = annotate(
        model, tmp_path / "in.h5mu", tmp_path / "a.h5mu", "--report-dir", tmp_path / "seen", "--split", "test"
    )
    assert done.code == 0, done.err
    out = mu.read_h5mu(tmp_path / "a.h5mu")
    assert set(out.obs["xmodal_split"]) == {"test"} and {*COLUMNS} < set(out.obs) and "mine" in out["rna"].layers
    assert set(out.obs["cell_type_ontology_term_id_given"]) == {"CL:0000236"}
    assert json.loads(out.uns["xmodal_annotation"]["settings"])["split"] == "test"
    again = annotate(model, tmp_path / "a.h5mu", tmp_path / "b.h5mu", "--cluster-key", "none")
    assert again.code == 0, again.err
    second = mu.read_h5mu(tmp_path / "b.h5mu").obs  # nothing of the earlier run is left
    assert "ct_cluster_label" not in second and set(second["cell_type_ontology_term_id_given"]) == {"CL:0000236"}
    pd.testing.assert_series_equal(second["ct_label"], out.obs["ct_label"])


def test_new_cells_are_called_as_they_were_with_others(model: Path, file: Path, whole: Path, tmp_path: Path) -> None:
    """What a cell is called depends on the checkpoint alone, not on the file that it comes in."""
    some = ad.read_h5ad(file)[30:90].copy()
    some[:, np.random.default_rng(0).permutation(small.GENES)].write_h5ad(tmp_path / "in.h5ad")
    out = annotated(model, tmp_path / "in.h5ad", tmp_path / "a.h5ad")
    every = ad.read_h5ad(whole / "a.h5ad").obs.loc[out.obs_names]
    for name in ("ct_label", "ct_status", "ct_top"):
        assert list(out.obs[name].astype(str)) == list(every[name].astype(str)), name


def test_the_page_is_whole_and_safe(whole: Path, tmp_path: Path) -> None:
    from test_report import Reader

    page = (whole / "seen/index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids)) and "annotated" in ids
    assert "http" not in re.sub(r'"data:[^"]*"', "", page) and "<script" not in page
    for text in ("Genes that made the calls", "Rejected cells", "CL:0000236", "Do cells of a cluster agree?"):
        assert text in page, text
    done = call_xmodal(
        *("report", "--annotation", whole / "seen", "--output", tmp_path / "r.html", "--title", "Cell types"),
        *("--plots", tmp_path / "plots", "--multiqc-dir", tmp_path / "mqc"),
    )
    assert done.code == 0, done.err
    assert (tmp_path / "r.html").read_text() == page
    assert (tmp_path / "plots/annotation-seen.png").read_bytes() == (whole / "seen/annotation.png").read_bytes()
    types = pd.read_csv(tmp_path / "plots/cell_types.tsv", sep="\t")
    out = ad.read_h5ad(whole / "a.h5ad")
    assert types["cells"].sum() == out.n_obs
    bars = json.loads((tmp_path / "mqc/xmodal_cell_types_mqc.json").read_text())
    assert sum(bars["data"]["seen"].values()) == out.n_obs and list(bars["categories"])[-1] == "unknown"
    status = json.loads((tmp_path / "mqc/xmodal_label_status_mqc.json").read_text())["data"]["seen"]
    assert status == out.obs["ct_status"].value_counts().to_dict()


def test_a_report_without_the_tables_that_were_not_given(whole: Path, tmp_path: Path) -> None:
    """Galaxy's form takes summary, picture, cells and composition; the other tables may be missing."""
    folder = tmp_path / "some"
    folder.mkdir()
    for name in set(FILES) - {"clusters.tsv", "genes.tsv", "index.html"}:
        (folder / name).write_bytes((whole / "seen" / name).read_bytes())
    done = call_xmodal("report", "--annotation", folder, "--output", tmp_path / "r.html")
    assert done.code == 0, done.err
    page = (tmp_path / "r.html").read_text()
    assert "of the cells are called as their cluster is" in page and "Genes that made the calls" not in page


def test_a_folder_of_something_else_is_no_annotation(whole: Path, tmp_path: Path) -> None:
    from xmodal.reporting.text_inputs import annotated as read

    for name in FILES:
        (tmp_path / name).write_bytes((whole / "seen" / name).read_bytes())
    assert read(tmp_path).name == tmp_path.name
    (tmp_path / "annotation.json").write_text("{}")
    with pytest.raises(InputRefused, match="no annotation"):
        read(tmp_path)
    (tmp_path / "annotation.png").unlink()
    with pytest.raises(InputRefused, match=r"annotation\.png"):
        read(tmp_path)


# ---- thresholds and candidates


def test_a_threshold_of_zero_names_every_cell(model: Path, file: Path, tmp_path: Path) -> None:
    out = annotated(model, file, tmp_path / "a.h5ad", "--threshold", 0)
    assert (out.obs["ct_status"] == "assigned").all() and not (out.obs["ct_label"] == "unknown").any()
    strict = annotated(model, file, tmp_path / "b.h5ad", "--threshold", 0.99)
    assert (strict.obs["ct_status"] == "assigned").sum() < (strict.obs["ct_status"] != "assigned").sum()
    called = strict.obs["ct_status"] != "unknown"
    assert (strict.obs["ct_score"][called] >= 0.99).all()


def test_types_never_seen_are_found_where_they_are_candidates(model: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(
        f"# a comment\ncell_type_ontology_term_id\tname\n{NEURON}\tneuron\n\nCL_0000236\n{MONOCYTE}\n"
    )
    out = annotated(model, file, tmp_path / "a.h5ad", "--candidates", tmp_path / "ids.txt", "--threshold", 0)
    assert set(out.obs["cell_type_ontology_term_id"]) == {NEURON, B, MONOCYTE}
    assert (out.obs["ct_label"][out.obs["cell_type"] == "neuron"] == "neuron").all()
    listed = annotated(model, file, tmp_path / "b.h5ad", "--candidates", f"{MONOCYTE}, {NEURON},{B}", "--threshold", 0)
    assert list(listed.obs["ct_label"]) == list(out.obs["ct_label"])
    every = annotated(model, file, tmp_path / "c.h5ad", "--candidates", "all", "--threshold", 0)
    said = json.loads(every.uns["xmodal_annotation"]["settings"])["candidates"]
    assert said["root"] == LEUKOCYTE and set(said["ids"]) == {LEUKOCYTE, LYMPHOCYTE, T_CELL, CD4, CD8, B, MONOCYTE, ODD}
    wide = annotated(model, file, tmp_path / "d.h5ad", "--candidates", "all", "--root", "CL:0000000", "--threshold", 0)
    ids = json.loads(wide.uns["xmodal_annotation"]["settings"])["candidates"]["ids"]
    assert NEURON in ids and not {"CL:0000000", "CL:0000255", ODD} & set(ids)
    assert (wide.obs["ct_label"][wide.obs["cell_type"] == "neuron"] == "neuron").mean() > 0.9


def test_the_default_root_is_above_all_types_trained_on(tmp_path: Path) -> None:
    terms = small.small_ontology(tmp_path)
    found = candidates.chosen(AnnotateSettings(candidates="all"), terms, (CD4, CD8))
    assert found.root == T_CELL and found.ids == (T_CELL, CD4, CD8)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("CL:0000236,CL:9999999", "there is no term 'CL:9999999'"),
        (f"CL:0000236,{small.OBSOLETE[0]}", "use CL:0000236 (B cell)"),
        ("CL:0000236,CL:0000255", "too general"),
        ("CL:0000236,CL:0000236", "only one candidate"),
        ("nix.txt", "neither a file"),
        ("label:nix,CL:0000236", "label:nix"),
    ],
)
def test_wrong_candidates_are_refused(model: Path, file: Path, tmp_path: Path, asked: str, words: str) -> None:
    done = annotate(model, file, tmp_path / "a.h5ad", "--candidates", asked)
    assert done.code == 3 and words in done.err and "--candidates" in done.err, done.err
    assert not list(tmp_path.iterdir())


def test_wrong_ids_in_a_file_and_wrong_roots_are_refused(model: Path, file: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("CL:0000236\nB lymphocyte of mine\n")
    done = annotate(model, file, tmp_path / "a.h5ad", "--candidates", ids)
    assert done.code == 3 and "B lymphocyte of mine" in done.err and "ids.txt" in done.err
    ids.write_text("\n")
    assert "no candidate" in annotate(model, file, tmp_path / "a.h5ad", "--candidates", ids).err
    ids.write_bytes(b"\xff\xfe\x00")
    assert "text" in annotate(model, file, tmp_path / "a.h5ad", "--candidates", ids).err
    done = annotate(model, file, tmp_path / "a.h5ad", "--candidates", "all", "--root", small.OBSOLETE[0])
    assert done.code == 3 and "--root" in done.err and "CL:0000236 (B cell)" in done.err
    leaf = annotate(model, file, tmp_path / "a.h5ad", "--candidates", "all", "--root", CD4)
    assert leaf.code == 3 and "only one candidate" in leaf.err
    assert annotate(model, file, tmp_path / "a.h5ad", "--root", CD4).code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["ids.txt"]


def test_without_terms_all_needs_a_root(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="--root"):
        candidates.chosen(AnnotateSettings(candidates="all"), small.small_ontology(tmp_path), (ODD, "label:b"))


# ---- the rule by hand


def rule(
    tmp_path: Path, ids: tuple[str, ...], rows: list[list[float]], known: list[float], least: float
) -> decisions.Calls:
    terms = small.small_ontology(tmp_path)
    names = candidates.Candidates(ids, "given"), Family.of(terms, ids)
    empty = np.zeros(len(rows), bool)
    return decisions.decide(np.array(rows), np.array(known), empty, names, decisions.Rule(least, 0.3))


def test_the_rule_by_hand(tmp_path: Path) -> None:
    ids = (B, MONOCYTE, CD4, CD8, NEURON)
    rows = [
        [0.70, 0.10, 0.10, 0.05, 0.05],  # likely enough
        [0.10, 0.05, 0.45, 0.40, 0.00],  # two kinds of T cells
        [0.30, 0.05, 0.33, 0.32, 0.00],  # the best two are T cells, with .65
        [0.40, 0.30, 0.20, 0.10, 0.00],  # B and monocyte: leukocytes, which all four are
        [0.40, 0.05, 0.08, 0.07, 0.40],  # B or neuron: nothing that says anything
        [0.95, 0.05, 0.00, 0.00, 0.00],  # unlike all
    ]
    found = rule(tmp_path, ids, rows, [1, 1, 1, 1, 1, 0.2], 0.6)
    assert list(found.term) == [B, T_CELL, T_CELL, LEUKOCYTE, "unknown", "unknown"]
    assert list(found.status) == ["assigned", "coarse", "coarse", "coarse", "unknown", "unknown"]
    assert list(found.why) == ["", "", "", "", "undecided", "novel"]
    np.testing.assert_allclose(found.score, [0.7, 0.85, 0.65, 1.0, 0.4, 0.95])
    np.testing.assert_allclose(found.margin, [0.6, 0.05, 0.01, 0.1, 0.0, 0.9])
    assert found.best[4].tolist() == [0, 4, 2]  # of equal ones the first
    assert list(rule(tmp_path, ids, rows, [0] * 6, 0.0).term) == [B, CD4, CD4, B, B, B]
    # All candidates below the common ancestor count, not the best few alone.
    third = rule(tmp_path, ids, [[0.30, 0.28, 0.22, 0.20, 0.00]], [1], 0.9)
    assert (third.term[0], third.score[0]) == (LEUKOCYTE, 1.0)


def test_the_coarser_term_agrees_with_the_ontology(tmp_path: Path) -> None:
    terms = small.small_ontology(tmp_path)
    ids = (CD4, CD8, B, MONOCYTE)
    family = Family.of(terms, ids)
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.dirichlet(np.full(4, 0.7))
        if p.max() >= 0.8:
            continue
        found, share = decisions.coarser(p, family, 0.8)
        order = np.argsort(-p)
        for k in range(2, 5):
            ancestor = terms.common_ancestor([ids[i] for i in order[:k]])
            below = sum(p[i] for i in range(4) if ancestor in terms.ancestors(ids[i], itself=True))
            if below >= 0.8:
                assert (found, pytest.approx(share)) == (ancestor, below)
                break


def test_labels_without_a_term_have_nothing_above_them(tmp_path: Path) -> None:
    toy = small.model(tmp_path)
    assert toy.vocabulary.texts is not None
    family = Family.of(toy.vocabulary.texts.ontology, (B, ODD))
    assert decisions.coarser(np.array([0.5, 0.5]), family, 0.6) == (None, 0.0)


def test_softmax_and_strongest_genes() -> None:
    np.testing.assert_allclose(decisions.softmax(np.array([[1e4, 1e4], [0, np.log(3)]])), [[0.5, 0.5], [0.25, 0.75]])
    found = strongest(np.array([[0.1, 3, -1, 2, 0], [-1, -2, 0, 0, 5]], np.float32), 3)
    assert found.tolist() == [[1, 3, 0], [4, -1, -1]]


# ---- clusters


def test_a_column_of_clusters_votes(model: Path, file: Path, tmp_path: Path) -> None:
    adata = ad.read_h5ad(file)
    adata.obs["mine"] = pd.Categorical(np.where(adata.obs["cell_type"] == "B", "b", "others"))
    adata.obs.loc[adata.obs_names[:5], "mine"] = np.nan
    adata.write_h5ad(tmp_path / "in.h5ad")
    out = annotated(model, tmp_path / "in.h5ad", tmp_path / "a.h5ad", "--cluster-key", "mine").obs
    assert set(out["ct_cluster_label"][out["ct_cluster"] == "b"]) == {"B cell"}
    assert out["ct_cluster"].isna().sum() == 5 and set(out["ct_cluster_label"][:5]) == {"unknown"}
    assert np.isnan(out["ct_cluster_score"][:5]).all() and np.isnan(out["ct_cluster_agreement"][:5]).all()
    summary = json.loads(ad.read_h5ad(tmp_path / "a.h5ad").uns["xmodal_annotation"]["settings"])
    assert summary["clusters"]["key"] == "mine" and summary["clusters"]["clusters"] == 2


def test_few_cells_have_no_clusters(model: Path, file: Path, tmp_path: Path) -> None:
    ad.read_h5ad(file)[:9].copy().write_h5ad(tmp_path / "in.h5ad")
    done = annotate(model, tmp_path / "in.h5ad", tmp_path / "a.h5ad", "--report-dir", tmp_path / "seen")
    assert done.code == 0 and "too few for clusters" in done.err
    assert "ct_cluster_label" not in ad.read_h5ad(tmp_path / "a.h5ad").obs
    assert not (tmp_path / "seen/clusters.tsv").exists() and (tmp_path / "seen/index.html").is_file()


@pytest.mark.parametrize("method", ["scores", "explain", "embed"])
def test_where_memory_is_short_fewer_cells_are_computed_at_once(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    whole = annotated(model, file, tmp_path / "whole.h5ad")
    real = getattr(Toy, method)

    def short(self: Toy, batch: Any, *more: Any) -> Any:
        if len(batch) > 40:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(self, batch, *more)

    monkeypatch.setattr(Toy, method, short)
    done = annotate(model, file, tmp_path / "short.h5ad")
    assert done.code == 0 and "is not enough for 256 cells at once; going on with 128" in done.err
    found = ad.read_h5ad(tmp_path / "short.h5ad")
    for column in (fields.CT_LABEL, fields.CT_CLUSTER, fields.CT_STATUS):
        assert found.obs[column].astype(str).tolist() == whole.obs[column].astype(str).tolist()
    np.testing.assert_allclose(found.obs[fields.CT_SCORE], whole.obs[fields.CT_SCORE], atol=1e-5)


def test_a_missing_cluster_column_is_refused(model: Path, file: Path, tmp_path: Path) -> None:
    done = annotate(model, file, tmp_path / "a.h5ad", "--cluster-key", "cell_typ")
    assert done.code == 3 and "--cluster-key" in done.err and "cell_type" in done.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("values", "said"), [(0.5, "numbers that are not whole"), (np.nan, "no values")])
def test_columns_that_hold_no_clusters(values: float, said: str) -> None:
    obs = pd.DataFrame({"some": [values] * 4})
    with pytest.raises(InputRefused, match=f"--cluster-key: obs\\['some'\\] holds {said}"):
        clusters.of_column(obs, "some")
    with pytest.raises(InputRefused, match="--group-by"):
        clusters.of_column(obs, "some", "--group-by")


def test_names_of_cells_are_no_clusters(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obs = ad.read_h5ad(file).obs.assign(each=lambda o: o.index)
    monkeypatch.setattr(clusters, "MOST_CLUSTERS", 100)
    with pytest.raises(InputRefused, match="no clusters"):
        clusters.of_column(obs, "each")
    assert clusters.resolution(4_999) == 5 and clusters.resolution(5_000) == 10 and clusters.resolution(10**7) == 30


# ---- refusals


def logged(adata: ad.AnnData) -> None:
    adata.X = sp.csr_matrix(np.log1p(adata.X.toarray() / 3.7))


def scaled(adata: ad.AnnData) -> None:
    adata.X = adata.X.toarray() - 1.5


def other_names(adata: ad.AnnData) -> None:
    adata.var_names = [f"ENSG{i:011d}" for i in range(small.GENES)]


def mouse(adata: ad.AnnData) -> None:
    adata.uns["genome"] = "mm10"


def nothing(adata: ad.AnnData) -> None:
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (logged, "log"),
        (scaled, "negative"),
        (other_names, "missing: G0"),
        (mouse, "mm10"),
        (nothing, "not one cell has a count"),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_bad_cells_are_refused_and_leave_nothing(
    model: Path, file: Path, tmp_path: Path, spoil: Callable[[ad.AnnData], None], words: str
) -> None:
    mdata = small.as_mudata(ad.read_h5ad(file))
    spoil(mdata["rna"])
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = annotate(model, tmp_path / "in.h5mu", tmp_path / "a.h5ad", "--report-dir", tmp_path / "seen")
    assert done.code == 3 and words in done.err and "in.h5mu" in done.err and "What to do" in done.err, done.err
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5mu"]


def test_cells_without_counts_stay_unknown(model: Path, file: Path, tmp_path: Path) -> None:
    adata = ad.read_h5ad(file)
    x = adata.X.tolil()
    x[3] = 0
    adata.X = x.tocsr()
    adata.write_h5ad(tmp_path / "in.h5ad")
    done = annotate(model, tmp_path / "in.h5ad", tmp_path / "a.h5ad", "--threshold", 0, "--table", tmp_path / "t.tsv")
    assert done.code == 0, done.err
    out = ad.read_h5ad(tmp_path / "a.h5ad").obs
    assert out["ct_label"].iloc[3] == "unknown" and (out["ct_label"] == "unknown").sum() == 1
    assert pd.read_csv(tmp_path / "t.tsv", sep="\t", keep_default_na=False)["why"].iloc[3] == "empty"
    assert np.isfinite(out["ct_score"]).all()


def test_another_release_of_the_ontology_is_refused(model: Path, file: Path, tmp_path: Path) -> None:
    other = small.ontology_file(tmp_path / "cl.tsv", "2022-02-02")
    done = annotate(model, file, tmp_path / "a.h5ad", "--ontology", other)
    assert done.code == 3 and "2022-02-02" in done.err and small.VERSION in done.err and "--ontology" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["cl.tsv"]
    same = small.ontology_file(tmp_path / "same.tsv")
    assert annotate(model, file, tmp_path / "a.h5ad", "--ontology", same).code == 0


def test_another_text_encoder_is_refused(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.text import encoder

    made = encoder.TextEncoder(tmp_path, "other", "cd" * 32, 8)
    monkeypatch.setattr(encoder, "load", lambda *_: made)
    done = annotate(model, file, tmp_path / "a.h5ad", "--text-model", "other")
    assert (
        done.code == 3 and "other (cdcdcd" in done.err and "tiny (ababab" in done.err and not list(tmp_path.iterdir())
    )


def test_a_foundation_model_that_is_not_read_is_refused(model: Path, file: Path, tmp_path: Path) -> None:
    for spec, words in (("scgpt:nix", "trained on the counts alone"), ("bert:nix", "scgpt:DIR")):
        done = annotate(model, file, tmp_path / "a.h5ad", "--cell-model", spec)
        assert done.code == 2 and words in done.err, done.err


def test_a_model_that_does_not_annotate_names_those_that_do(prepared: Path, tmp_path: Path) -> None:
    made = call_xmodal("train", prepared, "--model", "mean", "--output-dir", tmp_path / "m", "--quiet")
    assert made.code == 0, made.err
    done = annotate(tmp_path / "m/model.safetensors", prepared, tmp_path / "a.h5mu")
    assert (
        done.code == 99 and "models that do: " in done.err and "toy" in done.err and not (tmp_path / "a.h5mu").exists()
    )


def test_a_model_that_reads_no_genes_names_none(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toy, "explains", False)
    done = annotate(model, file, tmp_path / "a.h5ad", "--report-dir", tmp_path / "seen")
    assert done.code == 0, done.err
    assert "Genes that made the calls" not in (tmp_path / "seen/index.html").read_text()
    assert len(pd.read_csv(tmp_path / "seen/genes.tsv", sep="\t")) == 0


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--threshold", "many"], 2, "auto"),
        (["--threshold", "1"], 2, "below 1"),
        (["--threshold", "-0.1"], 2, "from 0"),
        (["--min-coverage", "2"], 2, "--min-coverage"),
        (["--split", "valid"], 3, "valid"),
    ],
)
def test_wrong_options_are_refused(
    model: Path, file: Path, tmp_path: Path, more: list[str], code: int, words: str
) -> None:
    done = annotate(model, file, tmp_path / "a.h5ad", *more)
    assert done.code == code and words in done.err, done.err
    assert not list(tmp_path.iterdir())


def test_outputs_are_never_lost(model: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5ad"
    assert annotate(model, file, tmp_path / "a.txt").code == 2
    assert "one file" in annotate(model, file, out, "--table", out).err
    inside = annotate(model, file, out, "--summary", tmp_path / "seen/s.json", "--report-dir", tmp_path / "seen")
    assert inside.code == 2 and "--report-dir" in inside.err
    out.write_text("mine")
    kept = annotate(model, file, out)
    assert kept.code == 3 and "--overwrite" in kept.err and out.read_text() == "mine"
    assert "input" in annotate(model, out, out, "--overwrite").err and out.read_text() == "mine"


def test_a_failure_in_the_page_leaves_no_folder(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.reporting import report

    def broken(*_: Any) -> str:
        raise InputRefused("no page")

    monkeypatch.setattr(report, "render", broken)
    assert annotate(model, file, tmp_path / "a.h5ad", "--report-dir", tmp_path / "seen").code == 3
    assert not (tmp_path / "seen").exists()


def test_settings_say_what_they_are() -> None:
    assert AnnotateSettings().least() == 0.5 and AnnotateSettings(threshold="0.25").least() == 0.25
    with pytest.raises(UsageRefused, match="--root"):
        AnnotateSettings(root=B).require_fit()


# ---- with the model that is installed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells of five types, what was learned from them, and the cells of seven types to name."""
    folder = tmp_path_factory.mktemp("trained")
    known = tuple(n for n, t in TYPES.items() if t in SEEN)
    adata = small.cells(60, types=known, seed=7)
    ids = [TYPES[str(t)] for t in adata.obs["cell_type"]]
    adata.obs["cell_type_ontology_term_id"] = ["unknown" if i == ODD else i for i in ids]
    adata.write_h5ad(folder / "rna.h5ad")
    small.cells(24, seed=8, prefix="new").write_h5ad(folder / "new.h5ad")
    small.ontology_file(folder / "cl.tsv")
    quiet = ["--quiet", "--threads", 1]
    made = call_xmodal("prepare", "--rna", folder / "rna.h5ad", "--output", folder / "prepared.h5mu", *quiet)
    assert made.code == 0, made.err
    quick = [
        f"--set={k}" for k in ("epochs=8", "members=2", "folds=0", "hidden=16", "components=8", "generator_passes=0")
    ]
    texts = ["--ontology", folder / "cl.tsv", "--text-model", tiny_bert(folder / "bert"), "--label-key", "cell_type"]
    made = call_xmodal(
        "train", folder / "prepared.h5mu", "--model", "scmmgpt", "--output-dir", folder / "m", *quick, *texts, *quiet
    )
    assert made.code == 0, made.err
    return folder


def test_cells_are_named_by_the_trained_model(trained: Path, tmp_path: Path) -> None:
    model, more = trained / "m/model.safetensors", ["--ontology", trained / "cl.tsv", "--text-model", trained / "bert"]
    out = annotated(model, trained / "new.h5ad", tmp_path / "a.h5ad", "--report-dir", tmp_path / "seen", *more)
    truth = np.array([TYPES[str(t)] for t in out.obs["cell_type"]])
    ids = out.obs["cell_type_ontology_term_id"].astype(str).to_numpy()
    assert (ids[truth == B] == B).mean() > 0.6 and (ids[truth == MONOCYTE] == MONOCYTE).mean() > 0.6
    assert (out.obs["ct_label"][truth == ODD] == "odd ones").mean() > 0.6
    seen = np.isin(truth, SEEN)
    assert out.obs["ct_known"][seen].mean() > out.obs["ct_known"][~seen].mean() + 0.2
    genes = pd.read_csv(tmp_path / "seen/genes.tsv", sep="\t")
    first = genes[genes["label"] == "B cell"]["gene"].head(4)
    assert set(first) <= {f"G{i}" for i in range(2 * small.PER_TYPE, 3 * small.PER_TYPE)}
    again = annotated(model, trained / "new.h5ad", tmp_path / "b.h5ad")
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes() and again.n_obs == out.n_obs
    every = annotated(model, trained / "new.h5ad", tmp_path / "c.h5ad", "--candidates", "all", "--root", "CL:0000255")
    said = json.loads(every.uns["xmodal_annotation"]["settings"])
    assert NEURON in said["candidates"]["ids"] and said["thresholds"].keys() == {
        "reject",
        "penalty",
        "temperature",
        "least",
    }


def test_what_the_trained_model_named_is_scored(trained: Path, tmp_path: Path) -> None:
    model, prepared = trained / "m/model.safetensors", trained / "prepared.h5mu"
    annotated(model, prepared, tmp_path / "a.h5ad", "--split", "test")
    done = call_xmodal(
        *("evaluate", prepared, "--annotation", tmp_path / "a.h5ad", "--output-dir", tmp_path / "o"),
        *("--ontology", trained / "cl.tsv", "--checkpoint", model, "--threads", 1),
    )
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "o/metrics.json").read_text())["annotation"]
    assert about["methods"]["annotation"]["accuracy"] > 0.7 and about["model"] == "scmmgpt"
    assert about["cells"] == ad.read_h5ad(tmp_path / "a.h5ad").n_obs and "logistic" in about["methods"]
