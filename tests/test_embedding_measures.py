"""The measures of an embedding, each against a plain reference, and where it must find something and where it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from helpers_evaluation import paired
from xmodal.scores import embedding_clusters, embedding_measures, embedding_wnn
from xmodal.scores.embedding_comparators import PLAIN, Counts, concatenated
from xmodal.scores.embedding_measures import (
    depth_r2,
    ilisi,
    kbet,
    local_inverse_simpson,
    matching,
    neighbors,
    silhouette,
    voted,
    without,
)

RNG = np.random.default_rng(0)


def blobs(cells: int = 120, apart: float = 6.0, kinds: int = 3, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    codes = np.arange(cells) % kinds
    z = rng.normal(size=(cells, 4)) + apart * np.eye(4)[codes]
    return z.astype(np.float32), codes


def test_neighbours_are_the_nearest_and_never_the_cell_itself() -> None:
    z, _ = blobs(60)
    near = neighbors(z, 7)
    apart = np.linalg.norm(z[:, None] - z[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (near.index == np.argsort(apart, axis=1, kind="stable")[:, :7]).all()
    assert np.allclose(near.distance, np.sort(apart, axis=1)[:, :7], atol=1e-5)
    across = neighbors(z[:5], 3, z)
    assert (across.index[:, 0] == np.arange(5)).all()  # among other cells, the same place is the nearest
    assert neighbors(z[:4], 15).index.shape == (4, 3)  # fewer cells than neighbours


def test_votes_go_by_majority_and_equals_by_the_first_code() -> None:
    codes = np.array([0, 0, 1, 1, 2])
    index = np.array([[0, 1, 2], [2, 3, 0], [0, 2, 4], [4, 2, 4]])
    assert voted(index, codes).tolist() == [0, 1, 0, 2]


def lisi_of_one(distance: Any, batches: Any, perplexity: float) -> float:
    """LISI of one cell as its paper writes it."""
    low, high, beta = 0.0, np.inf, 1.0
    for _ in range(200):
        p = np.exp(-distance * beta)
        p /= p.sum()
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum()
        if entropy > np.log(perplexity):
            low, beta = beta, beta * 2 if high == np.inf else (beta + high) / 2
        else:
            high, beta = beta, (beta + low) / 2
    return float(1 / sum(p[batches == b].sum() ** 2 for b in np.unique(batches)))


def test_lisi_is_that_of_its_paper() -> None:
    z, _ = blobs(150, apart=1.0)
    batches = RNG.integers(0, 3, 150)
    near = neighbors(z, 60)
    found = local_inverse_simpson(near, batches, 15.0)
    rows = range(0, 150, 10)
    told = [lisi_of_one(near.distance[i], batches[near.index[i]], 15.0) for i in rows]
    assert np.allclose(found[list(rows)], told, rtol=1e-3)
    assert (found >= 1 - 1e-9).all() and (found <= 3 + 1e-9).all()


def test_mixing_is_found_and_its_absence_too() -> None:
    z, codes = blobs(240, apart=30.0, kinds=2)
    near = neighbors(z, 90)
    apart, mixed = codes, RNG.permutation(codes)
    assert ilisi(near, apart) < 0.01 and kbet(near, apart) == 0
    assert ilisi(near, mixed) > 0.9 and kbet(near, mixed) > 0.9
    same = np.zeros((40, 3), np.float32)  # cells in one place must not end in nan
    assert np.isfinite(ilisi(neighbors(same, 20), np.arange(40) % 2))


def test_silhouette_is_of_a_draw_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    z, codes = blobs(300)
    whole = silhouette(z, codes, 0)
    monkeypatch.setattr(embedding_measures, "MOST_DRAWN", 100)
    some = [silhouette(z, codes, seed) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2] and abs(some[0] - whole) < 0.05 and whole > 0.5
    assert np.isnan(silhouette(z, codes * 0, 0))


def test_depth_in_a_line_is_found_by_both_and_in_a_bend_by_trees_only() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(400, 3)).astype(np.float32)
    noise = rng.normal(0, 0.2, 400)
    line, bend = z[:, 0] + noise, np.abs(z[:, 0]) + noise
    assert depth_r2(z, line, None, False, 0) > 0.9 and depth_r2(z, line, None, True, 0) > 0.8
    assert depth_r2(z, bend, None, False, 0) < 0.05 and depth_r2(z, bend, None, True, 0) > 0.6
    nothing = rng.normal(size=400)
    assert depth_r2(z, nothing, None, False, 0) < 0.02 and depth_r2(z, nothing, None, True, 0) == 0
    assert np.isnan(depth_r2(z[:20], line[:20], None, False, 0)) and np.isnan(depth_r2(z, line * 0, None, False, 0))


@pytest.mark.parametrize("trees", [False, True])
def test_depth_that_only_types_explain_is_no_leak_within_them(trees: bool) -> None:
    z, codes = blobs(300, apart=8.0)
    depth = codes * 2.0 + np.random.default_rng(2).normal(0, 0.3, 300)
    assert depth_r2(z, depth, None, trees, 0) > 0.9
    assert depth_r2(z, depth, codes, trees, 0) < 0.05
    leaking = depth + z[:, 3]
    assert depth_r2(z, leaking, codes, trees, 0) > 0.7
    few = np.r_[codes[:-3], [3, 3, 3]]  # a type of three cells has no mean worth the name
    assert depth_r2(z, depth, few, trees, 0) < 0.05


def test_foscttm_and_label_match_as_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    z, codes = blobs(90, apart=2.0)
    other = z + np.random.default_rng(3).normal(0, 1, z.shape)
    apart = np.linalg.norm(z[:, None].astype(float) - other[None], axis=2)
    own = np.diag(apart)
    share = ((apart < own[:, None]).mean() + (apart < own[None]).mean()) / 2
    match = ((codes[apart.argmin(1)] == codes).mean() + (codes[apart.argmin(0)] == codes).mean()) / 2
    assert np.allclose(matching(z, other, codes), (share, match)) and 0.05 < share < 0.4
    monkeypatch.setattr(embedding_measures, "BLOCK", 90 * 7)  # several blocks, the last one smaller
    assert np.allclose(matching(z, other, codes), (share, match))
    assert matching(z, z + 100, codes)[0] > 0 == matching(z, z, codes)[0]


def test_modalities_that_share_depth_alone_do_not_meet_without_it() -> None:
    rng = np.random.default_rng(4)
    depth = rng.normal(size=300)
    line = np.outer(depth, [3.0, -2.0])
    first, second = line + rng.normal(0, 0.1, (300, 2)), line + rng.normal(0, 0.1, (300, 2))
    assert matching(first, second, None)[0] < 0.05
    cue = np.column_stack([depth, depth + rng.normal(0, 0.01, 300)])
    assert 0.4 < matching(without(first, cue), without(second, cue), None)[0] < 0.6


# ---- clusters


def test_the_graph_has_the_weights_of_umap() -> None:
    from umap import umap_

    z, _ = blobs(80, apart=3.0)
    near = neighbors(z, 15)
    cells = np.arange(80)[:, None]
    index = np.concatenate([cells, near.index[:, :14]], 1)
    distance = np.concatenate([cells * 0.0, near.distance[:, :14]], 1).astype(np.float32)
    sigma, rho = umap_.smooth_knn_dist.py_func(distance, 15.0)
    rows, columns, values, _ = umap_.compute_membership_strengths.py_func(index, distance, sigma, rho)
    one = sp.coo_matrix((values, (rows, columns)), shape=(80, 80)).toarray()
    graph = embedding_clusters.graph_of(near).toarray()
    assert np.allclose(graph, one + one.T - one * one.T, atol=2e-4) and (graph == graph.T).all()


def test_clusters_come_in_the_number_that_is_wanted() -> None:
    from sklearn.metrics import adjusted_rand_score

    z, codes = blobs(240, apart=12.0, kinds=4)
    graph = embedding_clusters.graph_of(neighbors(z, 15))
    found = embedding_clusters.matched(graph, 4, 0)
    assert found.number == 4 and adjusted_rand_score(codes, found.codes) == 1
    more = embedding_clusters.matched(graph, 9, 0)
    assert more.number == 9 and more.resolution > found.resolution
    again = embedding_clusters.matched(graph, 9, 0)
    assert (again.codes == more.codes).all()


# ---- weighted nearest neighbours


def weights_written_out(parts: list[Any]) -> Any:
    """Weights of two modalities in each cell, cell by cell, as Hao et al. 2021 and muon have them."""
    n = len(parts[0])
    unit = [p / np.linalg.norm(p, axis=1, keepdims=True) for p in parts]
    apart = [np.linalg.norm(u[:, None] - u[None], axis=2) for u in unit]
    for d in apart:
        np.fill_diagonal(d, np.inf)
    near = [np.argsort(d, axis=1, kind="stable")[:, :19] for d in apart]
    ratio = np.zeros((n, 2))
    for m in (0, 1):
        for i in range(n):
            sets = [len(set(near[m][i]) & set(near[m][j])) for j in range(n)]
            far = [j for j in range(n) if j != i and sets[j]]
            far = sorted(far, key=lambda j: (sets[j] / (38 - sets[j]), -apart[m][i, j]))[:20]
            width, least = apart[m][i, far].mean(), apart[m][i].min()
            told = [
                np.exp(-max(np.linalg.norm(unit[m][i] - unit[m][near[k][i]].mean(0)) - least, 0) / (width - least))
                for k in (m, 1 - m)
            ]
            ratio[i, m] = told[0] / (told[1] + 1e-4)
    return np.exp(ratio) / np.exp(ratio).sum(1, keepdims=True)


def test_weights_of_modalities_are_those_of_the_method() -> None:
    z, _ = blobs(70, apart=6.0)
    noise = np.random.default_rng(5).normal(size=(70, 6)).astype(np.float32)
    sides = [embedding_wnn._side(p) for p in (z, noise)]
    found = embedding_wnn.modality_weights(sides)
    assert np.allclose(found, weights_written_out([z, noise]), atol=1e-4)
    assert found[:, 0].mean() > 0.55  # the modality in which neighbours foretell the cell


def test_joint_neighbours_follow_the_modality_that_knows() -> None:
    z, codes = blobs(120, apart=6.0)
    noise = np.random.default_rng(6).normal(size=(120, 6)).astype(np.float32)
    near = embedding_wnn.weighted_neighbors([z, noise], 15)
    assert (voted(near.index, codes) == codes).mean() > 0.95
    assert (near.index != np.arange(120)[:, None]).all() and (np.diff(near.distance, axis=1) >= 0).all()
    assert all(len(set(row)) == 15 for row in near.index)


# ---- plain embeddings


def counts_of(modality: str, cells: int = 240) -> Counts:
    mdata = paired(cells)
    x = mdata.mod[modality].X
    train = np.isin(mdata.obs["xmodal_split"], ["train", "valid"])
    return Counts(x, np.asarray(x.sum(1), dtype=np.float64).ravel(), train)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_embeddings_learn_from_training_cells_only(name: str) -> None:
    modality, make = PLAIN[name]
    counts = counts_of(modality)
    z = make(counts, 0)
    assert z.dtype == np.float32 and len(z) == 240 and np.isfinite(z).all()
    changed = counts.x.tolil()
    for cell in np.flatnonzero(~counts.train):
        changed[cell, :5] = 50
    other = make(Counts(sp.csr_matrix(changed), counts.depth, counts.train), 0)
    assert np.allclose(z[counts.train], other[counts.train], atol=1e-4)
    assert not np.allclose(z[~counts.train], other[~counts.train], atol=1e-2)
    types = np.arange(240) % 3
    assert (voted(neighbors(z, 15).index, types) == types).mean() > 0.9


def test_residuals_are_those_of_scanpy() -> None:
    import anndata as ad
    from scanpy.experimental import pp

    counts = counts_of("rna")
    everything = Counts(counts.x, counts.depth, np.ones(240, bool))
    held = ad.AnnData(counts.x.copy())
    pp.normalize_pearson_residuals(held, theta=100 / 10, clip=np.sqrt(240) / 3)
    centred = held.X - held.X.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:15]
    theirs = centred @ axes.T
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    ours = PLAIN["rna_pearson"][1](everything, 0)
    assert np.allclose(np.abs((ours * theirs).sum(0)), np.sqrt((ours**2).sum(0) * (theirs**2).sum(0)), atol=1e-3)


def test_of_many_genes_those_that_vary_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from xmodal.scores import embedding_comparators

    counts = counts_of("rna")
    monkeypatch.setattr(embedding_comparators, "MOST_FEATURES", 20)
    z = PLAIN["rna_pearson"][1](counts, 0)
    assert z.shape == (240, 15) and np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)


def test_blocks_side_by_side_weigh_the_same() -> None:
    train = np.arange(50) < 40
    parts = [RNG.normal(0, scale, (50, 3)).astype(np.float32) for scale in (1.0, 100.0)]
    z = concatenated(parts, train)
    spread: Callable[[Any], float] = lambda part: float(part[train].var(0).sum())  # noqa: E731
    assert z.shape == (50, 6) and np.allclose([spread(z[:, :3]), spread(z[:, 3:])], 1, atol=1e-4)
