"""The simulator: its truth holds, its files can be read, its oracle can tell products from sums."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from xmodal.cli import cli
from xmodal.data import io
from xmodal.data.genes import links_from_distance, links_from_table, read_gene_table
from xmodal.errors import InputRefused, UsageRefused
from xmodal.fields import SPLIT, TEST, TRAIN, VALID
from xmodal.simulation.simulate import PRESETS, SimulateSettings, simulate
from xmodal.simulation.simulation_oracle import pearson, run_oracle

SMALL = {"cells": 300, "genes": 60, "peaks": 120}


def small(**changes):
    return simulate(SimulateSettings(**{**SMALL, **changes}), seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "out"
    run(
        "--output-dir",
        str(folder),
        "--oracle",
        "--cells",
        "300",
        "--genes",
        "60",
        "--peaks",
        "120",
        "--third",
        "12",
        "--unpaired-fraction",
        "0.4",
    )
    return folder


def run(*arguments):
    result = CliRunner().invoke(cli, ["simulate", "--threads", "1", "--quiet", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("block", ["2", "3"])
def test_nonlinear_coupling_can_be_inverted_but_not_by_a_line(block):
    truth = small(block=block, cells=3000).truth
    code = {"2": [[0], [0, 1]], "3": [[1, 2], [0, 1, 2], [0, 2]]}[block]  # p as products of r
    size = int(block)
    for start in range(0, 6, size):
        for k, factors in enumerate(code):
            assert (truth["r"][:, start + np.array(factors)].prod(1) == truth["p"][:, start + k]).all()
    across = np.corrcoef(truth["p"].T, truth["r"].T)[:6, 6:]
    told = (np.abs(across) > 0.5).sum()
    assert told == (3 if block == "2" else 0)  # block 2 is half linear, block 3 not at all
    assert np.abs(across[np.abs(across) < 0.5]).max() < 0.1


def test_linear_coupling_is_the_same_bits_and_leak_ties_them_to_types():
    simulated = small(coupling="linear", leak=1.0)
    assert (simulated.truth["p"] == simulated.truth["r"]).all()
    for kind in np.unique(simulated.truth["type"]):
        assert len(np.unique(simulated.truth["p"][simulated.truth["type"] == kind], axis=0)) == 1


def test_counts_follow_the_true_rates():
    simulated = small(cells=1500, drop=0.2)
    rna, atac = simulated.mdata.mod["rna"].X, simulated.mdata.mod["atac"].X
    assert rna.dtype == atac.dtype == np.int32
    assert set(np.unique(atac.data)) == {1}
    assert rna.sum() / simulated.truth["rate_rna"].sum() == pytest.approx(0.8, rel=0.02)
    assert atac.sum() / simulated.truth["rate_atac"].sum() == pytest.approx(1, rel=0.02)
    assert pearson(rna.toarray(), simulated.truth["rate_rna"]).mean() > 0.5


def test_types_are_leaves_of_a_tree_with_path_lengths():
    simulated = small()
    types = simulated.types.set_index("id")
    assert (len(types), types["is_leaf"].sum()) == (22, 12)
    assert types.index.str.fullmatch(r"SIM:\d{7}").all()
    assert set(simulated.obs["type"]) <= set(types.index[types["is_leaf"]])
    distance = simulated.truth["type_distances"]
    assert (distance == distance.T).all()
    assert set(np.unique(distance)) == {0, 2, 4, 6}
    assert (simulated.truth["type_means"].shape, len(distance)) == ((12, 6), 12)


def test_labels_and_split():
    simulated = small()
    obs = simulated.obs
    by_batch = obs.groupby("batch", observed=True)[SPLIT].agg(lambda s: "".join(sorted(set(s)))).to_dict()
    assert by_batch == {"b1": TRAIN, "b2": TRAIN, "b3": TRAIN, "b4": VALID, "b5": TEST, "b6": TEST}
    assert obs["joint"].nunique() == 4
    assert obs["state"].nunique() == 8
    three = simulate(SimulateSettings(**SMALL, batches=3)).obs
    assert set(three[SPLIT]) == {TRAIN, VALID, TEST}


def test_flags_of_features():
    simulated = small(third=12, genes=400)
    features = simulated.features
    genes = features[features["modality"] == "rna"]
    assert 0.55 < (genes["program"] >= 0).mean() < 0.75
    assert set(genes.loc[genes["coupled"] == 1, "program"]) == {1, 3, 5}  # the products of block 2
    assert (features.loc[features["modality"] == "protein", "private"] == -1).all()
    markers = genes[genes["marker_of"] != ""]
    assert markers["marker_of"].value_counts().max() <= 5
    # A marker gene is higher in its own type than in the others.
    rate = pd.DataFrame(simulated.truth["rate_rna"], columns=simulated.mdata.mod["rna"].var_names)
    share = rate.div(rate.sum(1), axis=0).groupby(simulated.obs["type"].to_numpy()).mean()
    pairs = [(g, t) for g, t in zip(markers["feature"], markers["marker_of"], strict=True) if t in share.index]
    ratio = [share.at[t, g] / share[g].drop(t).mean() for g, t in pairs]
    assert np.median(ratio) > 1.2


def test_equal_seeds_give_equal_cells_and_a_third_modality_changes_nothing_else():
    one, two, other = small(), small(third=10), simulate(SimulateSettings(**SMALL), seed=4)
    for m in ("rna", "atac"):
        assert (one.mdata.mod[m].X != two.mdata.mod[m].X).nnz == 0
        assert (one.mdata.mod[m].X != other.mdata.mod[m].X).nnz > 0


def test_unpaired_training_cells_lack_one_modality():
    simulated = small(unpaired_fraction=0.4)
    have = {m: simulated.obs.index.isin(part.obs_names) for m, part in simulated.mdata.mod.items()}
    lacking = ~(have["rna"] & have["atac"])
    assert lacking.sum() == 60  # 40 % of 150
    assert set(simulated.obs[SPLIT][lacking]) == {TRAIN}
    assert abs(int((~have["rna"]).sum()) - int((~have["atac"]).sum())) <= 1
    assert list(simulated.mdata.obs_names) == list(simulated.obs.index)
    assert list(simulated.mdata.obs["type"]) == list(simulated.obs["type"])


def test_peaks_lie_near_their_genes():
    simulated = small(genes=200, peaks=600)
    var = simulated.mdata.mod["atac"].var
    assert var.index.is_unique
    assert (var["start"] >= 0).all()
    names = var["chrom"].astype(str) + ":" + var["start"].astype(str) + "-" + var["end"].astype(str)
    assert (names == var.index).all()
    for _, chromosome in var.groupby("chrom"):
        assert (chromosome["start"].to_numpy()[1:] >= chromosome["end"].to_numpy()[:-1]).all()
    genes = list(simulated.genes["symbol"])
    weight = links_from_distance(var, genes, simulated.genes)
    of_link = [weight[var.index.get_loc(p), genes.index(g)] for g, p in simulated.links.itertuples(index=False)]
    assert np.mean(np.array(of_link) > 0) > 0.95
    assert 0.6 < len(simulated.links) / len(var) < 0.8


def test_oracle_beats_linear_only_where_there_are_products():
    shape = {"cells": 2400, "genes": 100, "peaks": 300}
    nonlinear = run_oracle(simulate(SimulateSettings(**shape, block="3"), 1)).scores["atac->rna"]
    assert nonlinear["oracle_over_linear"] >= 1.25
    assert nonlinear["better_than_linear_can_be_asked"] is True
    assert nonlinear["oracle_coupled"] > 1.4 * nonlinear["linear_coupled"]
    linear = run_oracle(simulate(SimulateSettings(**shape, coupling="linear"), 1)).scores["atac->rna"]
    assert linear["oracle"] == linear["linear"] > 0.15
    assert linear["better_than_linear_can_be_asked"] is False


def test_cortex_preset_has_the_shape_and_depth_of_the_real_cells():
    simulated = simulate(SimulateSettings(**PRESETS["cortex"]), seed=0)
    rna, atac = simulated.mdata.mod["rna"], simulated.mdata.mod["atac"]
    assert (rna.n_vars, atac.n_vars) == (1677, 5500)
    assert np.median(np.asarray(rna.X.sum(1))) == pytest.approx(245, rel=0.15)
    assert np.median(np.asarray(atac.X.sum(1))) == pytest.approx(81, rel=0.15)
    assert simulated.obs["cell_type"].nunique() == 14
    assert sorted(set(simulated.obs["batch"])) == [f"b{i}" for i in range(1, 10)]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"batches": 2}, "batches"),
        ({"cells": 59}, "--cells"),
        ({"block": "4"}, "block"),
        ({"genes": 9}, "genes"),
        ({"peaks": -5}, "peaks"),
        ({"bits": 7}, "--bits"),
        ({"third": 5}, "--third"),
        ({"open": 0}, "open"),
        ({"unpaired_fraction": 1}, "unpaired_fraction"),
        ({"tree": "0,2"}, "tree"),
        ({"label_key": "batch"}, "--label-key"),
        ({"depth": float("nan")}, "depth"),
        ({"depth": float("inf")}, "depth"),
        ({"gain_rna": 1e9}, "gain_rna"),
        ({"type_weight": float("inf")}, "type_weight"),
    ],
)
def test_impossible_settings_are_refused(changes, names):
    with pytest.raises(ValidationError) as error:
        SimulateSettings(**changes)
    assert names in str(error.value)


def test_refused_options_end_in_usage_errors_and_leave_nothing(tmp_path):
    with pytest.raises(UsageRefused, match="--batches"):
        CliRunner().invoke(cli, ["simulate", "-o", str(tmp_path / "out"), "--batches", "2"], catch_exceptions=False)
    with pytest.raises(UsageRefused, match="at least 10 per batch"):
        CliRunner().invoke(
            cli,
            ["simulate", "-o", str(tmp_path / "out"), "--preset", "cortex", "--cells", "80"],
            catch_exceptions=False,
        )
    assert not list(tmp_path.iterdir())


def test_files_can_be_read_by_the_other_commands(written):
    mdata = io.read_cells(written / "paired.h5mu")
    assert set(mdata.mod) == {"rna", "atac", "protein"}
    assert {"batch", "type", "state", "joint", SPLIT} <= set(mdata.obs)
    assert mdata.uns["genome"] == "simulated"
    for m in mdata.mod:
        alone = io.read_cells(written / f"{m}.h5ad").mod[m]
        assert list(alone.obs_names) == list(mdata.mod[m].obs_names)
        assert (alone.X != mdata.mod[m].X).nnz == 0
    genes = read_gene_table(written / "genes.tsv")
    assert len(genes) == 60
    names = {m: list(mdata.mod[m].var_names) for m in ("atac", "rna")}
    assert links_from_table(written / "links.tsv", names["atac"], names["rna"]).nnz > 30
    features = pd.read_csv(written / "features.tsv", sep="\t", keep_default_na=False)
    assert list(features.columns) == ["modality", "feature", "program", "coupled", "private", "marker_of"]
    with np.load(written / "truth.npz", allow_pickle=False) as truth:
        assert list(truth["cells"]) == [f"cell{i:06d}" for i in range(1, 301)]
        assert truth["rate_atac"].shape == (300, 120)
        assert truth["q_rna"].shape == (300, 2)


def test_oracle_files_are_predictions_of_the_test_cells(written):
    summary = json.loads((written / "simulation.json").read_text())
    assert summary["settings"]["cells"] == 300
    assert set(summary["oracle"]) == {"atac->rna", "rna->atac", "atac->protein", "rna->protein"}
    for target, source in (("rna", "atac"), ("atac", "rna"), ("protein", "rna")):
        prediction = ad.read_h5ad(written / f"oracle_{target}.h5ad")
        assert set(prediction.obs[SPLIT]) == {TEST}
        assert prediction.X.dtype == np.float32
        assert prediction.uns["xmodal"]["source"] == source
    assert ad.read_h5ad(written / "oracle_atac.h5ad").X.max() <= 1


def test_same_command_gives_the_same_bytes_and_existing_output_is_kept(tmp_path):
    arguments = ["--cells", "100", "--genes", "20", "--peaks", "30", "--seed", "5"]
    one, two = tmp_path / "one", tmp_path / "two"
    run("-o", str(one), *arguments)
    run("-o", str(two), *arguments)
    before = {file.name: file.read_bytes() for file in one.iterdir()}
    assert before == {file.name: file.read_bytes() for file in two.iterdir()}
    with pytest.raises(InputRefused, match="--overwrite"):
        CliRunner().invoke(cli, ["simulate", "-o", str(one), *arguments], catch_exceptions=False)
    assert before == {file.name: file.read_bytes() for file in one.iterdir()}
    (one / "notes.txt").write_text("mine")
    (one / "oracle_rna.h5ad").write_text("of an earlier simulation")
    run("-o", str(one), "--overwrite", "--no-rates", *arguments)
    assert {file.name for file in one.iterdir()} == {*before, "notes.txt"}
    with np.load(one / "truth.npz") as truth:
        assert "rate_rna" not in truth
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_preset_gives_defaults_that_options_still_change(tmp_path):
    run("-o", str(tmp_path / "out"), "--preset", "cortex", "--cells", "120", "--peaks", "50", "--no-rates")
    settings = json.loads((tmp_path / "out" / "simulation.json").read_text())["settings"]
    found = [settings[key] for key in ("cells", "peaks", "genes", "label_key")]
    assert found == [120, 50, 1677, "cell_type"]


def test_every_setting_is_an_option_and_every_file_is_documented(written):
    help_text = CliRunner().invoke(cli, ["simulate", "--help"]).output
    for name, field in SimulateSettings.model_fields.items():
        assert "--" + name.replace("_", "-") in help_text
        assert field.description
    page = (Path(__file__).parents[1] / "docs" / "simulate.md").read_text(encoding="utf-8")
    assert [file.name for file in written.iterdir() if f"`{file.name}`" not in page] == []
