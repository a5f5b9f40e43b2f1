"""Markers: the tests are what they are said to be, wrong features are not called, and what cannot be compared is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from conftest import call_xmodal
from helpers_data import GENES, cells
from xmodal import fields
from xmodal.data import io
from xmodal.markers import comparison, groups, imputed, measured, pseudobulk, ranks
from xmodal.markers.settings import MarkerSettings
from xmodal.reporting import markers_figure

RANDOM = np.random.default_rng(0)


def counts(n: int = 400, features: int = 30, seed: int = 0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(0.1 + 0.4 * rng.gamma(1, 2, features), (n, features)).astype(float))


def known(codes: Any, samples: Any = None) -> groups.Groups:
    codes = np.asarray(codes, np.int64)
    names = tuple(f"g{i}" for i in range(codes.max() + 1))
    own = np.full(len(codes), -1) if samples is None else np.asarray(samples, np.int64)
    several = tuple(f"s{i}" for i in range(own.max() + 1))
    return groups.Groups(names, codes, tuple(range(len(names))), "donor" if several else None, several, own)


def one_stratum(n: int) -> Any:
    return np.zeros(n, np.int64)


# Ranks.


def test_with_one_stratum_it_is_the_wilcoxon_test_of_scanpy() -> None:
    import scanpy

    x, codes = counts().log1p(), RANDOM.integers(0, 3, 400)
    found = ranks.test(x, codes, 3, one_stratum(400))
    adata = ad.AnnData(
        x.astype(np.float32), obs=pd.DataFrame({"g": codes.astype(str)}, index=[str(i) for i in range(400)])
    )
    adata.obs["g"] = adata.obs["g"].astype("category")
    scanpy.tl.rank_genes_groups(adata, "g", method="wilcoxon", tie_correct=True, n_genes=30)
    for group in range(3):
        table = scanpy.get.rank_genes_groups_df(adata, str(group)).set_index("names").loc[adata.var_names]
        assert np.allclose(found.statistic[group], table["scores"], atol=1e-5)
        # The same to within the skewness that scanpy leaves out.
        assert np.abs(found.pvalue[group] - table["pvals"]).max() < 0.03
        expected = [roc_auc_score(codes == group, x[:, [j]].toarray().ravel()) for j in range(30)]
        assert np.allclose(found.auroc[group], expected)


def test_of_zeros_and_ones_in_strata_it_is_the_test_of_cochran_mantel_and_haenszel() -> None:
    stratified = pytest.importorskip("statsmodels.stats.contingency_tables").StratifiedTable
    rng = np.random.default_rng(1)
    strata, codes = rng.integers(0, 4, 300), rng.integers(0, 2, 300)
    strata = np.sort(strata)
    strata[:] = np.arange(300) * 4 // 300  # of equal size, where weights agree
    x = sp.csr_matrix((rng.random((300, 5)) < 0.3).astype(float))
    found = ranks.test(x, codes, 2, strata)
    for j in range(5):
        open_ = x[:, [j]].toarray().ravel() > 0
        tables = [
            np.array([[(own & open_).sum(), (own & ~open_).sum()], [(other & open_).sum(), (other & ~open_).sum()]])
            for s in range(4)
            for own, other in [((codes == 1) & (strata == s), (codes == 0) & (strata == s))]
        ]
        assert found.statistic[1, j] ** 2 == pytest.approx(stratified(tables).test_null_odds().statistic, rel=1e-6)


def test_sparse_dense_and_columns_are_ranked_alike() -> None:
    x, codes, strata = counts(), RANDOM.integers(0, 3, 400), ranks.strata_of(RANDOM.random(400), 100)
    columns = ranks.Columns(x.tocsc(), np.zeros(400))
    for other in (x.toarray(), columns, x.tocsc()):
        for key in ("statistic", "pvalue", "auroc"):
            left, right = (getattr(ranks.test(v, codes, 3, strata), key) for v in (x, other))
            assert np.allclose(left, right, equal_nan=True), key


def test_a_peak_open_in_a_few_cells_of_a_small_group_has_the_p_value_of_permutations() -> None:
    """The normal distribution has 1e-17 here."""
    n, rng = 2000, np.random.default_rng(2)
    codes = (np.arange(n) < 20).astype(int)
    x = np.zeros((n, 1))
    x[[0, 1, 500, 900, 1500], 0] = 1
    found = float(ranks.test(sp.csr_matrix(x), codes, 2, one_stratum(n)).pvalue[1, 0])
    drawn = np.array([x[rng.choice(n, 20, replace=False), 0].sum() for _ in range(20_000)])
    assert found == pytest.approx(2 * (drawn >= 2).mean(), rel=1.0)
    assert found > 1e-4


def test_strata_hold_cells_of_like_depth() -> None:
    depth = RANDOM.random(1000)
    strata = ranks.strata_of(depth)
    assert set(np.bincount(strata)) == {ranks.STRATUM}
    assert depth[strata == 0].max() <= depth[strata == 1].min()
    assert len(set(ranks.strata_of(depth[:30]))) == 1


@pytest.mark.parametrize(("strata", "few"), [(None, True), (10**9, False)])
def test_groups_of_less_depth_have_no_markers_within_strata(strata: int | None, few: bool) -> None:
    rng = np.random.default_rng(3)
    shallow = rng.random(1500) < 0.4
    depth = np.where(shallow, 200, 400) * np.exp(rng.normal(0, 0.3, 1500))
    x = sp.csr_matrix(rng.poisson(depth[:, None] * rng.dirichlet(np.ones(300))).astype(float))
    total = np.asarray(x.sum(1)).ravel()
    values = sp.csr_matrix(sp.diags_array(1 / total) @ x)
    found = ranks.test(values, shallow.astype(int), 2, ranks.strata_of(total, strata or ranks.STRATUM))
    share = float((found.pvalue[1] < 0.05).mean())
    assert share < 0.08 if few else share > 0.4


def test_adjusted_as_scipy_has_it() -> None:
    from scipy.stats import false_discovery_control

    p = RANDOM.random(50) ** 3
    assert np.allclose(comparison.adjusted(p), false_discovery_control(p))
    with_gaps = np.r_[np.nan, p, np.nan]
    assert np.allclose(comparison.adjusted(with_gaps)[1:-1], false_discovery_control(p))
    assert np.isnan(comparison.adjusted(with_gaps)[[0, -1]]).all()


def test_a_group_leads_by_what_it_has_more_than_the_best_other() -> None:
    near = np.array([[5.0, 1.0, 2.0], [3.0, 4.0, 2.0], [0.0, 3.5, 1.0]])
    assert np.allclose(measured.lead(near), [[2, -3, 0], [-2, 0.5, 0], [-5, -0.5, -1]])


# Imputed values.


def test_imputed_values_are_ranked_with_ties_and_gaps() -> None:
    rng = np.random.default_rng(4)
    layer, codes = rng.random((120, 6)).astype(np.float32), rng.integers(0, 3, 100)
    layer[:, 1] = np.round(layer[:, 1], 1)  # ties
    layer[:, 2] = np.nan  # not a feature of the checkpoint
    layer[5:30, 3] = np.nan
    rows = np.arange(100)
    found = imputed.rank(layer, rows, codes, 3, fields.BINARY)
    sparse = imputed.rank(sp.csr_matrix(np.nan_to_num(layer)), rows, codes, 3, fields.BINARY)
    for j in (0, 1, 3):
        there = ~np.isnan(layer[:100, j])
        for g in range(3):
            own = layer[:100, j][there]
            assert found.auroc[g, j] == pytest.approx(roc_auc_score(codes[there] == g, own), abs=1e-6)
            mean = own[codes[there] == g].mean(), own[codes[there] != g].mean()
            assert found.log2fc[g, j] == pytest.approx(np.log2(mean[0] / mean[1]), abs=1e-3)
    assert np.isnan(found.auroc[:, 2]).all()
    assert np.allclose(sparse.auroc[:, :2], found.auroc[:, :2])


# Pseudobulk.


@pytest.mark.parametrize(
    ("inside", "outside", "design"),
    [
        ((20, 20, 20), (50, 50, 50), pseudobulk.PAIRED),
        ((20, 20, 3), (50, 50, 50), pseudobulk.PAIRED),
        ((20, 20, 0, 0), (0, 0, 50, 50), pseudobulk.SIDES),  # groups that are treatments
        ((20, 3, 3), (50, 50, 50), ""),
        ((20, 20, 20), (50, 0, 0), ""),
    ],
)
def test_samples_with_enough_cells_decide_the_design(
    inside: tuple[int, ...], outside: tuple[int, ...], design: str
) -> None:
    samples = np.concatenate([np.repeat(np.arange(len(n)), n) for n in (outside, inside)])
    plan = pseudobulk.plan(known(np.repeat([0, 1], [sum(outside), sum(inside)]), samples), 1, 10)
    assert plan.design == design
    assert bool(plan.why) != bool(design)


@pytest.mark.parametrize("paired", [True, False])
def test_all_features_at_once_are_fitted_as_pydeseq2_fits_each(paired: bool) -> None:
    from pydeseq2.default_inference import DefaultInference

    from xmodal.markers import two_sides

    rng = np.random.default_rng(5)
    strata, inside = np.tile(np.arange(4), 2), np.arange(8) < 4
    size = np.where(inside, 0.3, 1.5)
    y = rng.negative_binomial(5, 5 / (5 + size[:, None] * rng.gamma(1, 60, 40)), (8, 40)).astype(float)
    y = y[:, y.sum(0) > 20]
    design = np.c_[np.ones(8), np.vstack([np.eye(4)[:, 1:]] * 2)] if paired else np.ones((8, 1))
    design = np.c_[design, inside]
    disp = rng.uniform(0.05, 0.5, y.shape[1])
    own = two_sides.TwoSides(strata if paired else np.zeros(8, np.int64), inside)
    theirs: Any = DefaultInference(n_cpus=1)
    left, right = (f.irls(y, size, design, disp, 1e-6, 1e-10) for f in (own, theirs))
    assert np.allclose(left[1], right[1], rtol=2e-3)
    assert np.allclose(left[0][:, -1], right[0][:, -1], atol=5e-3)
    for prior in ({}, {"prior_reg": True, "prior_disp_var": 0.5}):
        fits = [f.alpha_mle(y, design, np.maximum(right[1], 0.5), disp, 1e-8, 10.0, **prior)[0] for f in (own, theirs)]
        far = np.abs(np.log(fits[0] / fits[1]))
        assert (far[fits[1] > 1e-3] < 0.01).all()


def sampled(seed: int, effect: float) -> tuple[sp.csr_matrix, groups.Groups]:
    """Six donors, each with its own share of the group and with an ``effect`` of its own on the group's cells."""
    rng = np.random.default_rng(seed)
    donors = np.repeat(np.arange(6), 150)
    codes = (rng.random(900) < rng.uniform(0.1, 0.4, 6)[donors]).astype(int)
    own = rng.normal(0, effect, (6, 200))[donors] * (1 + codes[:, None])
    rate = np.exp(rng.normal(0, 1, 200) + own)
    mean = 300 * rate / rate.sum(1, keepdims=True)
    return sp.csr_matrix(rng.poisson(mean).astype(float)), known(codes, donors)


def test_differences_between_donors_are_no_markers_of_pseudobulks_but_of_cells() -> None:
    bulk, single = [], []
    for seed in range(3):
        x, own = sampled(seed, 0.3)
        depth = np.asarray(x.sum(1)).ravel()
        tested = pseudobulk.test(x, depth, own, 1, pseudobulk.plan(own, 1, 10))
        bulk.append(float((comparison.adjusted(tested.pvalue) < 0.05).mean()))
        values = sp.csr_matrix(sp.diags_array(1 / depth) @ x)
        cell = ranks.test(values, own.codes, 2, ranks.strata_of(depth)).pvalue[1]
        single.append(float((comparison.adjusted(cell) < 0.05).mean()))
    assert np.mean(bulk) < 0.01
    assert np.mean(single) > 0.05  # why samples are compared where there are any


def test_pseudobulks_find_what_differs_in_every_donor() -> None:
    x, own = sampled(7, 0.15)
    dense = x.toarray()
    more = np.argsort(-dense.mean(0))[10:20]
    dense[np.ix_(own.codes == 1, more)] = np.random.default_rng(0).poisson(3 * dense[np.ix_(own.codes == 1, more)])
    depth = dense.sum(1)
    found = pseudobulk.test(sp.csr_matrix(dense), depth, own, 1, pseudobulk.plan(own, 1, 10))
    called = (comparison.adjusted(found.pvalue) < 0.05) & (found.statistic > 0)
    assert called[more].all()
    assert np.delete(called, more).sum() <= 1


# The command.


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "markers.tsv", sep="\t", dtype={"group": str})


def about_of(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / "markers.json").read_text())
    return about


@pytest.fixture(scope="module")
def typed(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated cells of three large types, with an imputed layer that lacks a gene."""
    folder = tmp_path_factory.mktemp("markers")
    done = call_xmodal(
        *("simulate", "--output-dir", folder / "sim", "--cells", 600, "--genes", 120, "--peaks", 150, "--tree", "3"),
        *("--type-weight", 0.6, "--type-concentration", 20, "--quiet"),
    )
    assert done.code == 0, done.err
    mdata = io.read_cells(folder / "sim" / "paired.h5mu")
    layer = np.log1p(mdata["rna"].X.toarray() + 1)
    layer[:, 3] = np.nan
    mdata["rna"].layers[fields.IMPUTED] = layer
    io.write_h5mu(mdata, folder / "cells.h5mu")
    return folder


@pytest.fixture(scope="module")
def folder(typed: Path) -> Path:
    done = call_xmodal("markers", typed / "cells.h5mu", "--group-by", "type", "--output-dir", typed / "out")
    assert done.code == 0, done.err
    assert "rna: " in done.out and "markers of 3 groups" in done.out
    return typed / "out"


def test_the_folder(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {
        "markers.tsv",
        "markers.json",
        "markers_rna.png",
        "markers_atac.png",
    }
    table, about = table_of(folder), about_of(folder)
    assert tuple(table.columns) == comparison.COLUMNS
    assert len(table) == 3 * (120 + 150)
    assert about["group_by"] == "type" and set(about["modalities"]) == {"rna", "atac"}
    for (modality, group), own in table.groupby(["modality", "group"]):
        said = about["modalities"][modality]["groups"][group]
        assert said["markers"] == own["is_marker"].sum() and said["method"] == "wilcoxon"
        assert sorted(own["rank"]) == list(range(1, len(own) + 1))
        assert own["is_marker"].to_numpy()[: said["markers"]].all(), "markers come first"
    marked = table[table["is_marker"]]
    assert len(marked) and (marked["padj"] <= 0.05).all() and (marked["log2fc"] > 0).all()
    assert "/" not in json.dumps(about["settings"])


def test_the_known_markers_come_first(typed: Path, folder: Path) -> None:
    truth = pd.read_csv(typed / "sim" / "features.tsv", sep="\t", keep_default_na=False)
    truth = truth[truth["modality"] == "rna"].set_index("feature")["marker_of"]
    table = table_of(folder).query("modality == 'rna'")
    scores = []
    for group, own in table.groupby("group"):
        mine = own["feature"].map(truth) == group
        scores.append(roc_auc_score(mine, -own["rank"]))
    assert len(scores) == 3 and np.mean(scores) >= 0.95


def test_imputed_columns_rank_where_there_is_a_layer(typed: Path, folder: Path) -> None:
    table = table_of(folder)
    rna, atac = (table[table["modality"] == m] for m in ("rna", "atac"))
    columns = ["imputed_auroc", "imputed_log2fc", "imputed_rank"]
    assert atac[columns].isna().all(axis=None)
    lacking = rna["feature"] == "SIMG00004"
    assert rna.loc[lacking, columns].isna().all(axis=None) and rna.loc[~lacking, columns].notna().all(axis=None)
    first = rna[rna["imputed_rank"] == 1].set_index("group")["imputed_auroc"]
    assert (first == rna.groupby("group")["imputed_auroc"].max()).all()
    notes = about_of(folder)["notes"]
    assert any("rna: 1 of 120 features" in n for n in notes) and any("atac: there are no imputed" in n for n in notes)


def test_means_shares_and_fold_changes_are_those_of_the_counts(typed: Path, folder: Path) -> None:
    mdata = io.read_cells(typed / "cells.h5mu")
    row = table_of(folder).query("modality == 'rna' and rank == 1").iloc[0]
    x = mdata["rna"].X.toarray().astype(float)
    own, depth = (mdata.obs["type"] == row["group"]).to_numpy(), x.sum(1)
    gene = x[:, list(mdata["rna"].var_names).index(row["feature"])]
    assert row["cells"] == own.sum()
    assert row["mean_in"] == pytest.approx(1e4 * gene[own].sum() / depth[own].sum(), rel=1e-4)
    assert row["mean_out"] == pytest.approx(1e4 * gene[~own].sum() / depth[~own].sum(), rel=1e-4)
    assert row["share_in"] == pytest.approx((gene[own] > 0).mean(), rel=1e-4)
    expected = np.log2((gene[own].sum() + 0.5) / depth[own].sum() / ((gene[~own].sum() + 0.5) / depth[~own].sum()))
    assert row["log2fc"] == pytest.approx(expected, rel=1e-4)


def test_equal_bytes_and_overwriting(typed: Path, folder: Path, tmp_path: Path) -> None:
    again = ["markers", typed / "cells.h5mu", "--group-by", "type", "--output-dir", tmp_path / "out"]
    assert call_xmodal(*again).code == 0
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes(), file.name
    assert call_xmodal(*again).code == 3
    done = call_xmodal(*again, "--modality", "atac", "--overwrite", "--seed", 1, "--threads", 2)
    assert done.code == 0 and not (tmp_path / "out" / "markers_rna.png").exists()


def test_shuffled_labels_have_no_markers(typed: Path, tmp_path: Path) -> None:
    mdata = io.read_cells(typed / "cells.h5mu")
    mdata.obs["shuffled"] = np.random.default_rng(0).permutation(mdata.obs["type"].astype(str))
    io.write_h5mu(mdata, tmp_path / "cells.h5mu")
    done = call_xmodal("markers", tmp_path / "cells.h5mu", "--group-by", "shuffled", "--output-dir", tmp_path / "out")
    assert done.code == 0
    table = table_of(tmp_path / "out")
    assert table["is_marker"].sum() <= 1
    assert (table["pvalue"] < 0.05).mean() < 0.07


def test_samples_are_compared_where_a_column_names_them(typed: Path, tmp_path: Path) -> None:
    base = ["markers", typed / "cells.h5mu", "--group-by", "type", "--modality", "rna", "--sample-key", "batch"]
    done = call_xmodal(*base, "--output-dir", tmp_path / "auto")
    assert done.code == 0 and "6 samples are compared (~sample + side)" in done.out
    table = table_of(tmp_path / "auto")
    assert set(table["method"]) == {"pseudobulk"} and set(table["samples"]) == {6}
    assert table["is_marker"].sum() > 10
    done = call_xmodal(*base, "--method", "wilcoxon", "--output-dir", tmp_path / "cells")
    assert set(table_of(tmp_path / "cells")["method"]) == {"wilcoxon"}
    # 45 cells of a sample: the smaller groups have too few inside, or all of a sample is inside
    done = call_xmodal(*base, "--min-cells", 45, "--output-dir", tmp_path / "few")
    assert done.code == 0 and "cells are compared (" in done.out
    done = call_xmodal(*base, "--min-cells", 45, "--method", "pseudobulk", "--output-dir", tmp_path / "strict")
    assert "left out: samples cannot be compared" in done.out + done.err


def test_the_sample_of_a_prepared_file_is_known(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal("markers", prepared, "--group-by", "state", "--output-dir", tmp_path / "out")
    assert done.code == 0 and "1 sample of 'xmodal_sample'" in done.out
    assert about_of(tmp_path / "out")["sample_key"] == fields.SAMPLE


def test_only_some_groups_each_against_all_others(typed: Path, folder: Path, tmp_path: Path) -> None:
    group = table_of(folder)["group"].iloc[0]
    base = ["markers", typed / "cells.h5mu", "--group-by", "type", "--output-dir", tmp_path / "out"]
    assert call_xmodal(*base, "--groups", group).code == 0
    whole, some = table_of(folder), table_of(tmp_path / "out")
    pd.testing.assert_frame_equal(some, whole[whole["group"] == group].reset_index(drop=True)[some.columns.tolist()])


def protein(n: int = 90) -> ad.AnnData:
    adata = cells([f"CD{i}_prot" for i in range(12)], n, rate=20.0)
    dense = adata.X.toarray()
    dense[: n // 3, 0] *= 4
    adata.X = sp.csr_matrix(dense)
    adata.obs["cluster"] = np.repeat(["a", "b", "c"], n // 3)
    return adata


def test_proteins_are_compared_by_clr(tmp_path: Path) -> None:
    adata = protein()
    adata.write_h5ad(tmp_path / "protein.h5ad")
    done = call_xmodal("markers", tmp_path / "protein.h5ad", "--group-by", "cluster", "--output-dir", tmp_path / "out")
    assert done.code == 0, done.err
    assert about_of(tmp_path / "out")["modalities"]["protein"]["scale"] == fields.CLR
    row = table_of(tmp_path / "out").query("group == 'a' and rank == 1").iloc[0]
    assert row["feature"] == "CD0_prot" and row["is_marker"]
    logged = np.log1p(adata.X.toarray().astype(float))
    clr = (logged - logged.mean(1, keepdims=True))[:, 0]
    assert row["log2fc"] == pytest.approx((clr[:30].mean() - clr[30:].mean()) / np.log(2), rel=1e-4)
    assert row["auroc"] == pytest.approx(roc_auc_score(np.arange(90) < 30, clr), rel=1e-4)


def test_cells_without_label_or_counts_are_left_out(tmp_path: Path) -> None:
    adata = protein()
    adata.obs["cluster"] = adata.obs["cluster"].astype(object)
    adata.obs.loc[adata.obs_names[:5], "cluster"] = None
    dense = adata.X.toarray()
    dense[40:44] = 0
    adata.X = sp.csr_matrix(dense)
    adata.write_h5ad(tmp_path / "protein.h5ad")
    done = call_xmodal("markers", tmp_path / "protein.h5ad", "--group-by", "cluster", "--output-dir", tmp_path / "out")
    assert done.code == 0 and "5 cells have no value in 'cluster'" in done.out
    sizes = table_of(tmp_path / "out").groupby("group")["cells"].first()
    assert sizes.to_dict() == {"a": 25, "b": 26, "c": 30}


def test_groups_in_their_natural_order() -> None:
    mdata = mu.MuData({"rna": cells(GENES, 60)})
    mdata.obs["cluster"] = [float(i % 12) for i in range(60)]
    found = groups.find(mdata, MarkerSettings(group_by="cluster"))
    assert found.names == tuple(map(str, range(12))) and (found.codes == np.arange(60) % 12).all()


# Refusals.


def refused(folder: Path, adata: ad.AnnData, *options: Any) -> str:
    adata.write_h5ad(folder / "cells.h5ad")
    done = call_xmodal("markers", folder / "cells.h5ad", "--output-dir", folder / "out", *options)
    assert done.code == 3, done.out
    assert not (folder / "out").exists()
    return done.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            (),
            "obs has no column 'xmodal_cluster' (`xmodal embed` writes it). What to do: run xmodal embed first, or name the "
            "groups with --group-by COLUMN; there are: kind, donor",
        ),
        (("--group-by", "knd"), "did you mean 'kind'?"),
        (("--group-by", "same"), "'same' has one group only ('x')"),
        (("--group-by", "empty"), "no cell with a value"),
        (("--group-by", "number"), "continuous numbers"),
        (("--group-by", "barcode"), "has 210 values, more than 200"),
        (("--group-by", "kind", "--groups", "k0,k3"), "'kind' has no group 'k3'"),
        (("--group-by", "kind", "--modality", "atac"), "it has no modality 'atac'"),
        (("--group-by", "kind", "--sample-key", "doner"), "did you mean 'donor'?"),
        (("--group-by", "kind", "--sample-key", "kind"), "names the groups as well"),
        (("--group-by", "kind", "--method", "pseudobulk"), "nothing says which sample"),
        (("--group-by", "kind", "--method", "pseudobulk", "--sample-key", "same"), "holds 1 sample"),
        (("--group-by", "kind", "--min-cells", "150"), "no group can be compared (k0: left out: fewer than 150 cells"),
    ],
)
def test_columns_that_are_no_groups_are_refused(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    adata = cells(GENES, 210)
    adata.obs["same"], adata.obs["empty"] = "x", pd.Series([None] * 210, index=adata.obs_names, dtype="category")
    adata.obs["number"] = RANDOM.random(210)
    adata.obs["barcode"] = adata.obs_names.to_numpy()
    assert says in refused(tmp_path, adata, *options)


def test_log_values_are_refused(tmp_path: Path) -> None:
    adata = cells(GENES, 60)
    adata.X = adata.X.astype(np.float32).log1p()
    assert "looks log-normalised" in refused(tmp_path, adata, "--group-by", "kind")


def test_counts_of_an_unknown_kind_go_through_prepare(tmp_path: Path) -> None:
    mdata = mu.MuData({"rna": cells(GENES, 60), "mirna": cells(["a", "b", "c"], 60)})
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    done = call_xmodal("markers", tmp_path / "cells.h5mu", "--group-by", "kind", "--output-dir", tmp_path / "out")
    assert done.code == 3 and "--likelihood mirna=nb" in done.err and "an option of xmodal prepare" in done.err


@pytest.mark.parametrize("options", [("--fdr", 2), ("--min-cells", 1), ("--top", 0), ("--method", "ttest")])
def test_settings_out_of_range_are_usage(tmp_path: Path, options: tuple[str, Any]) -> None:
    cells(GENES, 60).write_h5ad(tmp_path / "cells.h5ad")
    done = call_xmodal("markers", tmp_path / "cells.h5ad", "--output-dir", tmp_path / "out", *options)
    assert done.code == 2


def test_an_output_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    done = call_xmodal("markers", tmp_path / "nothing.h5ad", "--output-dir", tmp_path / "out")
    assert done.code == 3 and "the output exists" in done.err


# The picture.


def compared(groups_of: int, features: int = 400, markers: int = 9) -> comparison.Compared:
    """Every group has ``markers`` of its own, and shares one with the next."""
    rows = [
        {"group": f"g{g}", "feature": f"f{(markers - 1) * g + i}", "rank": i + 1, "is_marker": True}
        for g in range(groups_of)
        for i in range(markers)
    ]
    share = RANDOM.random((groups_of, features))
    profiles = measured.Profiles(*[share] * 6)
    about = {"likelihood": fields.NB, "groups": {f"g{g}": {"cells": 10 + g} for g in range(groups_of)}}
    names = np.array([f"f{i}" for i in range(features)], object)
    return comparison.Compared(
        "rna", tuple(f"g{g}" for g in range(groups_of)), names, profiles, about, pd.DataFrame(rows)
    )


def test_the_picture_shows_each_feature_once_and_fewer_where_groups_are_many() -> None:
    few, many = compared(3), compared(25)
    shown = markers_figure.shown_features(few, list(few.groups), 5)
    assert [len(block) for block in shown.values()] == [5, 5, 5]
    shown = markers_figure.shown_features(few, list(few.groups), 9)
    every = [row for block in shown.values() for row in block]
    assert len(every) == len(set(every))
    shown = markers_figure.shown_features(many, list(many.groups), 5)
    assert {len(block) for block in shown.values()} == {markers_figure.MOST_ROWS // 25}


def test_the_picture_has_the_largest_of_very_many_groups() -> None:
    found = compared(100, 1000)
    shown = markers_figure.shown_groups(found)
    assert shown == list(range(100 - markers_figure.MOST_GROUPS, 100))
    assert markers_figure.markers(found, 5).get_figwidth() < 30


def test_without_markers_the_picture_says_so() -> None:
    found = compared(3)
    found.table["is_marker"] = False
    texts = [t.get_text() for t in markers_figure.markers(found, 5).axes[0].texts]
    assert texts and texts[0].startswith("No markers")


def test_colours_run_from_the_least_to_the_most() -> None:
    found = compared(3)
    values = markers_figure.scaled(found, [0, 1, 2], [0, 1, 2])
    assert np.allclose(values.min(1), 0) and np.allclose(values.max(1), 1)
