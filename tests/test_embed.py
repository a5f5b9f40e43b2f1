"""Cells with any of the modalities in one embedding: each in its place, the file kept, clusters that are there, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from conftest import Ran, call_xmodal
from xmodal.embedding import graph, resolutions
from xmodal.learning import checkpoint

mu.set_options(pull_on_update=False)
NAMES = {"embedding.png", "embedding.tsv", "clusters.tsv", "embedding.json"}


def trained(prepared: Path, folder: Path, model: str = "crossmp", *more: object) -> Path:
    done = call_xmodal("train", prepared, "--model", model, "--output-dir", folder, "--quiet", "--threads", 1, *more)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(prepared, tmp_path_factory.mktemp("embed") / "m", "crossmp", "--set", "epochs=4")


def embed(model: Path, file: Path, output: Path, *more: object) -> Ran:
    quick = [] if {"--resolution", "--clusters"} & set(map(str, more)) else ["--resolution", 1]
    return call_xmodal("embed", file, "--checkpoint", model, "--output", output, "--threads", 1, *quick, *more)


def embedded(model: Path, file: Path, output: Path, *more: object) -> mu.MuData:
    done = embed(model, file, output, *more)
    assert done.code == 0, done.err
    return mu.read_h5mu(output)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New cells, many of which have one modality only; other cells than the model's, of the same types."""
    folder = tmp_path_factory.mktemp("hybrid")
    made = ["--cells", 300, "--genes", 60, "--peaks", 90, "--unpaired-fraction", 0.5, "--no-rates", "--quiet"]
    assert call_xmodal("simulate", "--output-dir", folder / "sim", *made, "--seed", 0).code == 0
    return folder / "sim" / "paired.h5mu"


@pytest.fixture(scope="module")
def whole(model: Path, hybrid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    more = ["--by-modality", "--table", folder / "t.tsv", "--summary", folder / "s.json", "--overview", folder / "seen"]
    done = embed(model, hybrid, folder / "e.h5mu", *more, "--resolution", "auto", "--force")
    assert done.code == 0, done.err
    return folder


def test_hybrid_cells_are_embedded_in_their_order(whole: Path, hybrid: Path, model: Path) -> None:
    """Every cell by what it has, and the same as the model says of it alone."""
    before, after = mu.read_h5mu(hybrid), mu.read_h5mu(whole / "e.h5mu")
    assert list(after.obs_names) == list(before.obs_names)
    joint = after.obsm["X_xmodal"]
    assert joint.dtype == np.float32 and joint.shape == (before.n_obs, 16) and np.isfinite(joint).all()
    assert after.obsm["X_umap"].shape == (before.n_obs, 2) and np.isfinite(after.obsm["X_umap"]).all()
    for m in ("rna", "atac"):
        has = before.obs_names.isin(before[m].obs_names)
        assert 0 < has.sum() < before.n_obs
        alone, weight = after.obsm[f"X_xmodal_{m}"], after.obs[f"xmodal_weight_{m}"].to_numpy()
        assert np.isfinite(alone[has]).all() and np.isnan(alone[~has]).all()
        assert weight.dtype == np.float32 and (np.isfinite(weight) == has).all()
        only = has & ~before.obs_names.isin(before["atac" if m == "rna" else "rna"].obs_names)
        np.testing.assert_allclose(joint[only], alone[only], rtol=1e-5, atol=1e-6)
    both = after.obs[["xmodal_weight_rna", "xmodal_weight_atac"]].sum(axis=1)
    np.testing.assert_allclose(both, 1, rtol=1e-6)


def test_the_embedding_is_the_models(model: Path, prepared: Path, tmp_path: Path) -> None:
    from xmodal.data.batches import cells_of

    out = embedded(model, prepared, tmp_path / "e.h5mu")
    loaded = checkpoint.load(model).model
    with torch.no_grad():
        expected = loaded.embed(cells_of(mu.read_h5mu(prepared), loaded.vocabulary).batch(slice(None)))
    np.testing.assert_allclose(out.obsm["X_xmodal"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_clusters_are_numbered_by_size(whole: Path) -> None:
    after = mu.read_h5mu(whole / "e.h5mu")
    clusters = after.obs["xmodal_cluster"]
    sizes = clusters.value_counts(sort=False)
    assert list(clusters.cat.categories) == [str(i) for i in range(len(sizes))]
    assert list(sizes) == sorted(sizes, reverse=True)
    assert after.uns["neighbors"]["params"]["n_neighbors"] == 15


def test_clusters_are_scanpys() -> None:
    import scanpy as sc
    from sklearn.metrics import adjusted_rand_score

    held = graph.neighbours(blobs(600, 9, 1.2)[0], 15, 0)
    ours = graph.Graph.of(held.obsp["connectivities"]).leiden(1.0, 0)
    sc.tl.leiden(held, 1.0, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    assert adjusted_rand_score(held.obs["leiden"], ours) > 0.9


def test_tables_and_summary_say_what_the_file_says(whole: Path, hybrid: Path) -> None:
    after = mu.read_h5mu(whole / "e.h5mu")
    assert {p.name for p in (whole / "seen").iterdir()} == NAMES
    assert (whole / "seen" / "embedding.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (whole / "seen" / "embedding.tsv").read_bytes() == (whole / "t.tsv").read_bytes()
    assert (whole / "seen" / "embedding.json").read_bytes() == (whole / "s.json").read_bytes()
    table = pd.read_csv(whole / "t.tsv", sep="\t")
    names = ["cell", "xmodal_cluster", "xmodal_weight_rna", "xmodal_weight_atac", "umap1", "umap2"]
    assert list(table) == [*names, *(f"xmodal_{i}" for i in range(1, 17))]
    assert list(table["cell"]) == list(after.obs_names)
    assert list(table["xmodal_cluster"].astype(str)) == list(after.obs["xmodal_cluster"].astype(str))
    np.testing.assert_allclose(table.filter(regex=r"^xmodal_\d"), after.obsm["X_xmodal"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["xmodal_weight_rna"], after.obs["xmodal_weight_rna"], rtol=1e-5)

    clusters = pd.read_csv(whole / "seen" / "clusters.tsv", sep="\t")
    own = after.obs["xmodal_cluster"] == "0"
    first = clusters.iloc[0]
    assert clusters["cells"].sum() == after.n_obs and first["cells"] == own.sum()
    assert first["share_rna"] == pytest.approx(after.obs["xmodal_weight_rna"][own].notna().mean(), rel=1e-4)
    assert first["label_share"] == pytest.approx(after.obs["type"][own].value_counts(normalize=True).max(), rel=1e-4)
    assert (after.obs["type"][own] == first["label"]).mean() == pytest.approx(first["label_share"], rel=1e-4)
    np.testing.assert_allclose(clusters.filter(like="batch_").sum(axis=1), 1, rtol=1e-4)

    found = json.loads((whole / "s.json").read_text())
    assert (found["cells"], found["clusters"], found["label_key"]) == (after.n_obs, len(clusters), "type")
    assert found["modalities"]["rna"]["cells"] == mu.read_h5mu(hybrid)["rna"].n_obs
    assert (
        found["one_sided"] == {}
        and found["resolution_by"] == "stability"
        and found["resolution"] in {t["resolution"] for t in found["stability"]}
    )
    about = after.uns["xmodal_embedding"]
    assert (about["schema"], about["command"], about["model"]) == ("xmodal-embedding/1", "embed", "crossmp")
    assert json.loads(about["settings"])["weights"] == {"rna": 0.5, "atac": 0.5}


def test_equal_input_equal_bytes(whole: Path, model: Path, hybrid: Path, tmp_path: Path) -> None:
    more = ["--by-modality", "--overview", tmp_path / "seen", "--resolution", "auto", "--force"]
    assert embed(model, hybrid, tmp_path / "e.h5mu", *more).code == 0
    assert (tmp_path / "e.h5mu").read_bytes() == (whole / "e.h5mu").read_bytes()
    for name in NAMES:
        assert (tmp_path / "seen" / name).read_bytes() == (whole / "seen" / name).read_bytes(), name


def test_an_h5ad_with_one_modality(model: Path, simulated: Path, tmp_path: Path) -> None:
    done = embed(model, simulated / "rna.h5ad", tmp_path / "e.h5ad", "--overview", tmp_path / "seen")
    assert done.code == 0, done.err
    out, source = ad.read_h5ad(tmp_path / "e.h5ad"), ad.read_h5ad(simulated / "rna.h5ad")
    assert out.shape == (480, 16) and list(out.var_names[:2]) == ["xmodal_1", "xmodal_2"] and out.X.dtype == np.float32
    np.testing.assert_array_equal(out.X, out.obsm["X_xmodal"])
    assert list(out.obs["type"]) == list(source.obs["type"]) and "X_umap" in out.obsm
    assert out.uns["xmodal"]["schema"] == "xmodal-embedding/1" and (out.obs["xmodal_weight_rna"] == 1).all()
    assert "xmodal_weight_atac" not in out.obs


def test_new_cells_lie_where_they_lay_with_others(model: Path, prepared: Path, tmp_path: Path) -> None:
    """Query mapping: a cell's embedding depends on the checkpoint alone, not on the file that it comes in."""
    every = embedded(model, prepared, tmp_path / "all.h5mu")
    part = embedded(model, prepared, tmp_path / "part.h5mu", "--split", "test")
    assert set(part.obs["xmodal_split"]) == {"test"} and part["rna"].n_obs == part.n_obs < every.n_obs
    rows = every.obs_names.get_indexer(part.obs_names)
    np.testing.assert_allclose(part.obsm["X_xmodal"], every.obsm["X_xmodal"][rows], rtol=1e-4, atol=1e-5)


def test_other_order_and_missing_features(model: Path, simulated: Path, tmp_path: Path) -> None:
    rna = ad.read_h5ad(simulated / "rna.h5ad")[:100].copy()
    rna.write_h5ad(tmp_path / "in.h5ad")
    rna[:, np.random.default_rng(0).permutation(60)].write_h5ad(tmp_path / "mixed.h5ad")
    rna[:, :45].write_h5ad(tmp_path / "few.h5ad")
    straight = embedded_h5ad(model, tmp_path / "in.h5ad", tmp_path / "a.h5ad")
    np.testing.assert_array_equal(straight.X, embedded_h5ad(model, tmp_path / "mixed.h5ad", tmp_path / "b.h5ad").X)
    few = embedded_h5ad(model, tmp_path / "few.h5ad", tmp_path / "c.h5ad")
    found = json.loads(few.uns["xmodal"]["settings"])["modalities"]["rna"]["alignment"]
    assert (found["missing"], found["first_missing"]) == (15, list(rna.var_names[45:50]))


def embedded_h5ad(model: Path, file: Path, output: Path) -> ad.AnnData:
    done = embed(model, file, output)
    assert done.code == 0, done.err
    return ad.read_h5ad(output)


def test_the_copy_keeps_what_the_input_had(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    mdata["rna"].raw = mdata["rna"].copy()
    mdata["rna"].layers["mine"] = mdata["rna"].X * 2
    mdata["atac"].uns["mine"] = {"a": 1}
    mdata["atac"].obsm["X_lsi"] = np.ones((480, 3))
    mdata.obsm["X_mine"], mdata.obsm["X_umap"] = np.ones((480, 2)), np.ones((480, 2))
    mdata.obsp["mine"] = sp.identity(480, format="csr")
    mdata.write_h5mu(tmp_path / "in.h5mu")
    once = embedded(model, tmp_path / "in.h5mu", tmp_path / "1.h5mu", "--by-modality")
    for m in ("rna", "atac"):
        assert (once[m].X != mdata[m].X).nnz == 0 and list(once[m].var_names) == list(mdata[m].var_names)
    assert (once["rna"].raw.X != mdata["rna"].X).nnz == 0 and (
        once["rna"].layers["mine"] != mdata["rna"].X * 2
    ).nnz == 0
    assert once["atac"].uns["mine"] == {"a": 1} and "X_lsi" in once["atac"].obsm
    assert (once.obsm["X_mine"] == 1).all() and not (once.obsm["X_umap"] == 1).all() and "mine" in once.obsp
    assert dict(once.uns["xmodal"]) == dict(mdata.uns["xmodal"])
    assert list(once.obs["type"]) == list(mdata.obs["type"])
    again = embedded(model, tmp_path / "1.h5mu", tmp_path / "2.h5mu")
    np.testing.assert_array_equal(again.obsm["X_xmodal"], once.obsm["X_xmodal"])
    assert "X_xmodal_rna" in once.obsm and "X_xmodal_rna" not in again.obsm  # nothing of an earlier run is left


def test_cells_without_counts_are_kept_and_counted(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    for m in ("rna", "atac"):
        x = mdata[m].X.tolil()
        x[7] = 0
        mdata[m].X = x.tocsr()
    x = mdata["rna"].X.tolil()
    x[8] = 0  # this one still has peaks
    mdata["rna"].X = x.tocsr()
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = embed(model, tmp_path / "in.h5mu", tmp_path / "e.h5mu")
    out = mu.read_h5mu(tmp_path / "e.h5mu")
    assert out.n_obs == 480 and np.isfinite(out.obsm["X_xmodal"]).all()
    assert json.loads(out.uns["xmodal_embedding"]["settings"])["empty"] == 1
    assert "1 cells have no counts in any modality" in done.err


def test_cells_with_other_modalities_only_are_left_out(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    protein = ad.AnnData(np.ones((490, 3), np.float32), obs=pd.DataFrame(index=[*mdata.obs_names, *"abcdefghij"]))
    mu.MuData({**mdata.mod, "protein": protein}).write_h5mu(tmp_path / "in.h5mu")
    done = embed(model, tmp_path / "in.h5mu", tmp_path / "e.h5mu")
    out = mu.read_h5mu(tmp_path / "e.h5mu")
    assert list(out.obs_names) == list(mdata.obs_names) and out["protein"].n_obs == 480
    assert "10 cells are left out" in done.err


def test_a_modality_is_known_by_its_features(model: Path, simulated: Path, tmp_path: Path) -> None:
    rna = ad.read_h5ad(simulated / "rna.h5ad")[:100].copy()
    rna.write_h5ad(tmp_path / "in.h5ad")
    plain = ad.AnnData(rna.X, obs=rna.obs[[]], var=rna.var[[]])
    plain.var_names = [f"unheard{name}" if i > 30 else name for i, name in enumerate(plain.var_names)]
    plain.write_h5ad(tmp_path / "plain.h5ad")
    done = embed(model, tmp_path / "plain.h5ad", tmp_path / "e.h5ad")
    assert done.code == 0 and "plain.h5ad is taken as rna, by its features" in done.err
    assert json.loads(ad.read_h5ad(tmp_path / "e.h5ad").uns["xmodal"]["settings"])["modalities"]["rna"]["cells"] == 100
    plain.var_names = [f"unheard{i}" for i in range(60)]
    plain.write_h5ad(tmp_path / "other.h5ad")
    done = embed(model, tmp_path / "other.h5ad", tmp_path / "f.h5ad")
    assert done.code == 3 and ".h5mu" in done.err and "--from" not in done.err


def test_a_wanted_number_of_clusters(model: Path, prepared: Path, tmp_path: Path) -> None:
    out = embedded(model, prepared, tmp_path / "e.h5mu", "--clusters", 6)
    found = json.loads(out.uns["xmodal_embedding"]["settings"])
    assert out.obs["xmodal_cluster"].nunique() == 6 == found["clusters"] and found["clusters_wanted"] == 6


def test_clusters_of_what_was_measured_are_named(
    model: Path, hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model that does not mix cells with one modality and cells with both."""
    from xmodal.models.crossmp import CrossMP

    joint = CrossMP.embed
    monkeypatch.setattr(CrossMP, "embed", lambda self, b: joint(self, b) + 50 * (~b.present["rna"])[:, None].float())
    done = embed(model, hybrid, tmp_path / "e.h5mu", "--clusters", 2, "--force")
    assert done.code == 0 and "cluster 1: nearly all of its cells have only ATAC" in done.err, done.err
    found = json.loads(mu.read_h5mu(tmp_path / "e.h5mu").uns["xmodal_embedding"]["settings"])
    assert found["one_sided"] == {"1": "only ATAC"}


def blobs(cells: int, types: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian types of unequal sizes in 12 dimensions; ``apart``: spread of their centres over that within."""
    rng = np.random.default_rng(seed)
    types_of = rng.choice(types, cells, p=rng.dirichlet(np.full(types, 5.0)))
    places = rng.normal(0, apart, (types, 12))[types_of] + rng.normal(size=(cells, 12))
    return places.astype(np.float32), types_of


@pytest.mark.parametrize("types", [4, 11])
def test_the_automatic_resolution_finds_separated_types(types: int) -> None:
    from sklearn.metrics import adjusted_rand_score

    places, truth = blobs(700, types, 3)
    made = graph.Graph.of(graph.neighbours(places, 15, 0).obsp["connectivities"])
    chosen, tried = resolutions.choose(made, places, 15, 0)
    found = made.leiden(chosen, 0)
    assert found.max() + 1 == types and adjusted_rand_score(truth, found) > 0.98
    assert any(t.clusters > types for t in tried) or types > 4  # finer ones were there to choose
    assert resolutions.choose(made, places, 15, 0) == (chosen, tried)


def test_fine_types_are_preferred_to_equally_stable_coarse_ones() -> None:
    rng = np.random.default_rng(1)
    coarse = rng.normal(0, 30, (3, 12))
    fine = np.repeat(coarse, 4, axis=0) + rng.normal(0, 3, (12, 12))
    truth = rng.integers(0, 12, 900)
    places = (fine[truth] + rng.normal(size=(900, 12))).astype(np.float32)
    made = graph.Graph.of(graph.neighbours(places, 15, 0).obsp["connectivities"])
    assert made.leiden(resolutions.choose(made, places, 15, 0)[0], 0).max() + 1 == 12


def test_cells_without_types_get_few_clusters_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    places = np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32)
    made = graph.Graph.of(graph.neighbours(places, 15, 0).obsp["connectivities"])
    chosen = resolutions.choose(made, places, 15, 0)[0]
    assert made.leiden(chosen, 0).max() + 1 <= 4 and "do not come back" in caplog.text


def test_a_group_far_away_does_not_hide_the_types() -> None:
    """The two parts are stable to the last cell; the types inside one of them touch, and are to be found all the same."""
    places, _ = blobs(900, 5, 1.2)
    far = 15 + np.random.default_rng(5).normal(size=(100, 12))
    places = np.concatenate([places, far]).astype(np.float32)
    made = graph.Graph.of(graph.neighbours(places, 15, 0).obsp["connectivities"])
    assert made.leiden(resolutions.choose(made, places, 15, 0)[0], 0).max() + 1 == 6


def test_cells_alone_are_no_stable_clusters() -> None:
    """Among cells that are all alike every one can be its own cluster, which comes back whenever it is drawn."""
    places = np.zeros((60, 12), np.float32)
    made = graph.Graph.of(graph.neighbours(places, 15, 0).obsp["connectivities"])
    chosen, tried = resolutions.choose(made, places, 15, 0)
    assert all(t.stability == 0 for t in tried if t.clusters > 30)
    assert made.leiden(chosen, 0).max() + 1 <= 4


def test_of_many_cells_some_choose_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import adjusted_rand_score

    places, truth = blobs(900, 7, 3)
    monkeypatch.setattr(resolutions, "MOST_CELLS", 500)
    made = graph.Graph.of(graph.neighbours(places, 15, 0).obsp["connectivities"])
    chosen, tried = resolutions.choose(made, places, 15, 0)
    assert adjusted_rand_score(truth, made.leiden(chosen, 0)) > 0.98
    monkeypatch.setattr(
        resolutions, "best_of", lambda *_: resolutions.Tried(2.5, 5, 1.0)
    )  # 2.5 gives more than 5 of all
    assert made.leiden(resolutions.choose(made, places, 15, 0)[0], 0).max() + 1 >= 5
    assert resolutions.choose(made, places, 15, 0)[0] < 2.5 and tried


def test_the_rule_by_hand() -> None:
    tried = [resolutions.Tried(*t) for t in ((0.1, 1, 1.0), (0.5, 3, 0.95), (1, 5, 0.85), (2, 9, 0.7))]
    assert resolutions.best_of(tried).clusters == 5  # 3 and 5 are equally stable
    low = [resolutions.Tried(*t) for t in ((0.1, 1, 1.0), (0.5, 3, 0.2), (1, 5, 0.4))]
    assert resolutions.best_of(low).clusters == 3
    assert resolutions.best_of(low[:1]).clusters == 1
    groups, again = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 0, 0, 0, 2])
    np.testing.assert_allclose(resolutions.overlaps(groups, again, 4), [2 / 3, 2 / 3, 1, 0])


def test_many_cells_get_approximate_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is a stand-in, since compiling the real one takes a minute; what scanpy makes of its answer is not."""
    import pynndescent
    from sklearn.neighbors import NearestNeighbors

    asked = []

    class Search:
        def __init__(self, x: np.ndarray, n_neighbors: int, random_state: int) -> None:
            asked.append((n_neighbors, random_state))
            distance, index = NearestNeighbors(n_neighbors=n_neighbors).fit(x).kneighbors(x)
            self.neighbor_graph = index, distance

    places, _ = blobs(300, 4, 2)
    exact = graph.neighbours(places, 15, 0)
    monkeypatch.setattr(graph, "EXACT", 100)
    monkeypatch.setattr(pynndescent, "NNDescent", Search)
    near = graph.neighbours(places, 15, 3)
    assert asked == [(15, 3)]
    assert abs(near.obsp["distances"] - exact.obsp["distances"]).max() < 1e-4
    assert abs(near.obsp["connectivities"] - exact.obsp["connectivities"]).max() < 1e-3


def other_genome(mdata: mu.MuData) -> None:
    mdata["atac"].uns["genome"] = "mm10"


def logged(mdata: mu.MuData) -> None:
    mdata["rna"].X = sp.csr_matrix(np.log1p(mdata["rna"].X.toarray() / 3.7))


def other_names(mdata: mu.MuData) -> None:
    mdata["rna"].var_names = [f"other{i}" for i in range(60)]


def other_tissue(mdata: mu.MuData) -> None:
    rna = mdata["rna"]
    order = np.argsort(np.asarray(rna.X.sum(0)).ravel())
    x = np.zeros(rna.shape, np.float32)
    x[:, order] = rna.X.toarray()[:, order[::-1]]
    rna.X = sp.csr_matrix(x)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(other_genome, "mm10"), (logged, "log"), (other_names, "missing: "), (other_tissue, "unlike the training cells")],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_bad_cells_are_refused_and_leave_nothing(
    model: Path, prepared: Path, tmp_path: Path, spoil: Callable[[mu.MuData], None], words: str
) -> None:
    mdata = mu.read_h5mu(prepared)
    spoil(mdata)
    mdata.write_h5mu(tmp_path / "in.h5mu")
    done = embed(model, tmp_path / "in.h5mu", tmp_path / "e.h5mu", "--overview", tmp_path / "seen")
    assert done.code == 3 and words in done.err and "in.h5mu" in done.err and "What to do" in done.err, done.err
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5mu"]


def test_force_goes_on_and_marks_the_cells(model: Path, prepared: Path, tmp_path: Path) -> None:
    mdata = mu.read_h5mu(prepared)
    other_tissue(mdata)
    mdata.write_h5mu(tmp_path / "in.h5mu")
    out = embedded(model, tmp_path / "in.h5mu", tmp_path / "e.h5mu", "--force")
    assert out.obs["xmodal_unlike"].dtype == bool and out.obs["xmodal_unlike"].mean() > 0.5


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--resolution", "many"], 2, "auto"),
        (["--resolution", "0"], 2, "above 0"),
        (["--resolution", "1", "--clusters", "3"], 2, "exclude"),
        (["--neighbors", "1"], 2, "--neighbors"),
        (["--neighbors", "480"], 3, "481"),
        (["--clusters", "200"], 3, "--clusters 160"),
        (["--label-key", "nix"], 3, "type"),
        (["--min-coverage", "2"], 2, "--min-coverage"),
    ],
)
def test_wrong_options_are_refused(
    model: Path, prepared: Path, tmp_path: Path, more: list[str], code: int, words: str
) -> None:
    done = embed(model, prepared, tmp_path / "e.h5mu", *more)
    assert done.code == code and words in done.err, done.err
    assert not list(tmp_path.iterdir())


def test_outputs_are_never_lost(model: Path, prepared: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.h5mu"
    assert embed(model, prepared, tmp_path / "e.txt").code == 2
    assert "one file" in embed(model, prepared, file, "--table", file).err
    inside = embed(model, prepared, file, "--summary", tmp_path / "seen" / "s.json", "--overview", tmp_path / "seen")
    assert inside.code == 2 and "--overview" in inside.err
    file.write_text("mine")
    kept = embed(model, prepared, file)
    assert kept.code == 3 and "--overwrite" in kept.err and file.read_text() == "mine"
    assert "input" in embed(model, file, file, "--overwrite").err and file.read_text() == "mine"


def test_no_modality_in_common_is_refused(model: Path, tmp_path: Path) -> None:
    cells = ad.AnnData(np.ones((30, 4), np.float32))
    mu.MuData({"protein": cells}).write_h5mu(tmp_path / "in.h5mu")
    done = embed(model, tmp_path / "in.h5mu", tmp_path / "e.h5mu")
    assert done.code == 3 and "the input has protein, the checkpoint knows rna, atac" in done.err


def test_a_split_that_is_not_there_is_refused(model: Path, hybrid: Path, simulated: Path, tmp_path: Path) -> None:
    rna = ad.read_h5ad(simulated / "rna.h5ad")
    del rna.obs["xmodal_split"]
    rna.write_h5ad(tmp_path / "in.h5ad")
    done = embed(model, tmp_path / "in.h5ad", tmp_path / "e.h5ad", "--split", "test")
    assert done.code == 3 and "xmodal_split" in done.err


def test_a_missing_reference_is_refused_by_name(model: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from xmodal.data.vocabulary import Reference
    from xmodal.embedding.job import prepare_job
    from xmodal.embedding.settings import EmbedSettings
    from xmodal.errors import InputRefused

    loaded, mdata = checkpoint.load(model), mu.read_h5mu(prepared)
    loaded.model.vocabulary = replace(loaded.model.vocabulary, reference=Reference("X_ref", 5))
    prepare_job(mdata, loaded, EmbedSettings())  # what only training needs is not asked for
    monkeypatch.setattr(type(loaded.model), "reference_in_use", True)
    with pytest.raises(InputRefused, match=r"obsm\['X_ref'\]"):
        prepare_job(mdata, loaded, EmbedSettings())
    mdata.obsm["X_ref"] = np.ones((480, 4))
    with pytest.raises(InputRefused, match="has 4 columns, that of the training had 5"):
        prepare_job(mdata, loaded, EmbedSettings())
    mdata.obsm["X_ref"] = np.arange(2400.0).reshape(480, 5)
    cells = prepare_job(mdata, loaded, EmbedSettings(split="test")).cells
    rows = mdata.obs_names.get_indexer(cells.names)
    np.testing.assert_array_equal(cells.extra["reference"], mdata.obsm["X_ref"][rows])


def test_a_model_without_latent_does_not_apply(prepared: Path, tmp_path: Path) -> None:
    linear = trained(prepared, tmp_path / "linear", "mean")
    done = embed(linear, prepared, tmp_path / "e.h5mu")
    assert done.code == 99 and "crossmp" in done.err
    assert not (tmp_path / "e.h5mu").exists()
