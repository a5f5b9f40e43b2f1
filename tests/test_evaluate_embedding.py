"""``xmodal evaluate --embedding``: what is written, on which cells, beside what; and everything that is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from helpers_embedding import latent, with_batches, written
from helpers_evaluation import prediction
from xmodal.cli.evaluate import command
from xmodal.errors import InputRefused, UsageRefused
from xmodal.scores import embedding_evaluation, embedding_measures
from xmodal.scores.embedding_evaluation import Result, Space
from xmodal.scores.embedding_input import Embedding, read_embedding
from xmodal.scores.embedding_texts import headline, of_meeting, of_methods, short, text_of
from xmodal.scores.embedding_verdicts import judge
from xmodal.scores.evaluation_settings import COMPARATORS, EvaluationSettings

ALONE = EvaluationSettings(label_key="cell_type", batch_key="batch", comparators="")
BY_LABEL = {"knn_accuracy", "knn_accuracy_heldout", "ari", "nmi"}
LEAKS = {f"depth_r2_{how}{m}" for how in ("", "trees_", "within_", "within_trees_") for m in ("rna", "atac", "protein")}
MEETING = {f"{s}{ending}" for s in ("foscttm", "label_match") for ending in ("", "_without_depth")}


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees are tested with the measures; here ridge stands for them, in a tenth of the time."""
    whole = embedding_measures._regression
    monkeypatch.setattr(embedding_measures, "_regression", lambda _trees, seed: whole(False, seed))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [*map(str, arguments), "--threads", "1"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    mdata = with_batches()
    mdata.write_h5mu(folder / "truth.h5mu")
    written(mdata, folder / "e.h5mu")
    return folder


def given(files: Path, output: Path, *more: object) -> Any:
    return run(files / "truth.h5mu", "--embedding", files / "e.h5mu", "--output-dir", output, *more)


def of(z: Any, mdata: mu.MuData, **more: Any) -> Embedding:
    return Embedding("E.h5mu", mdata.obs_names.to_numpy(str), z, **more)


def scored(mdata: mu.MuData, z: Any, settings: EvaluationSettings = ALONE, **more: Any) -> Result:
    return embedding_evaluation.evaluate(mdata, of(z, mdata, **more), settings, 0)


# ---- what is written


def test_the_folder_is_what_the_contract_says(files: Path, tmp_path: Path) -> None:
    done = given(files, tmp_path / "out", "--label-key", "cell_type", "--batch-key", "batch")
    assert done.exit_code == 0, done.exception
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"metrics.json", "scores.tsv", "scores.png"}
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    about = content["embedding"]
    assert (about["cells"], about["training_cells"], about["dimensions"]) == (100, 140, 5)
    assert about["batches"] == {"one": 120, "two": 120} and sum(about["labels"].values()) == 100
    assert about["provenance"]["checkpoint_sha256"] == "ab" * 32 and about["model"] == "toy"
    assert list(content["settings"]["comparators"].split(",")) == list(COMPARATORS)
    assert content["settings"]["cells"] == "test"
    assert set(about["methods"]) == {"embedding", *COMPARATORS}
    plain = BY_LABEL | {"silhouette", "ilisi", "kbet"} | LEAKS
    assert set(about["methods"]["embedding"]) == plain | MEETING
    assert set(about["methods"]["rna_pearson"]) == set(about["methods"]["concatenated"]) == plain
    assert set(about["methods"]["wnn"]) == BY_LABEL | {"ilisi", "kbet"}
    assert about["clusters"]["embedding"]["clusters"] == 3 and about["paired"] == {"atac_rna": 100}
    table = pd.read_csv(tmp_path / "out" / "scores.tsv", sep="\t", keep_default_na=False)
    assert list(table.columns) == ["target", "source", "method", "score", "value"]
    assert set(table["target"]) == {"embedding"} and set(table["source"]) == {""}
    values = table.set_index(["method", "score"])["value"].to_dict()
    assert values == {(m, s): v for m, own in about["methods"].items() for s, v in own.items()}
    width, height = struct.unpack(">II", (tmp_path / "out" / "scores.png").read_bytes()[16:24])
    assert width > 900 and height > 500
    assert "15-NN accuracy" in done.output and "wnn_pearson" in done.output
    with pytest.raises(InputRefused, match="--overwrite"):
        raise given(files, tmp_path / "out").exception


def test_equal_input_gives_equal_bytes_and_an_h5ad_the_same_scores(files: Path, tmp_path: Path) -> None:
    written(with_batches(), tmp_path / "e.h5ad")
    small = ("--label-key", "cell_type", "--comparators", "rna_pca, rna_pca")
    for name, file in (("a", files / "e.h5mu"), ("b", files / "e.h5mu"), ("c", tmp_path / "e.h5ad")):
        assert run(files / "truth.h5mu", "--embedding", file, "--output-dir", tmp_path / name, *small).exit_code == 0
        content = json.loads((tmp_path / name / "metrics.json").read_text())
        content.pop("timing")
        (tmp_path / name / "metrics.json").write_text(json.dumps(content))
    for file in ("metrics.json", "scores.tsv", "scores.png"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b == c, file
    assert set(json.loads(a if file == "metrics.json" else (tmp_path / "a" / "metrics.json").read_text())
               ["embedding"]["methods"]) == {"embedding", "rna_pca"}  # fmt: skip


# ---- what the scores say


def test_a_good_embedding_scores_high_and_a_shuffled_one_by_chance() -> None:
    mdata = with_batches()
    z = latent(mdata)
    good = scored(mdata, z).methods["embedding"]
    bad = scored(mdata, np.random.default_rng(1).permutation(z)).methods["embedding"]
    assert good["knn_accuracy"] > 0.9 and good["knn_accuracy_heldout"] > 0.9 and good["ari"] > 0.8
    assert bad["knn_accuracy"] < 0.5 and bad["knn_accuracy_heldout"] < 0.5 and abs(bad["ari"]) < 0.1
    assert good["silhouette"] > 0.3 > 0.1 > bad["silhouette"]
    assert good["ilisi"] > 0.85 and good["kbet"] > 0.85


def test_a_batch_effect_and_a_depth_effect_are_seen() -> None:
    mdata = with_batches()
    z, batch = latent(mdata), (mdata.obs["batch"] == "two").to_numpy()
    shifted = scored(mdata, np.column_stack([z, 20.0 * batch]).astype(np.float32)).methods["embedding"]
    assert shifted["ilisi"] < 0.05 and shifted["kbet"] < 0.05 and shifted["knn_accuracy"] > 0.9
    depth = np.log(np.asarray(mdata["rna"].X.sum(1))).ravel()
    deep = scored(mdata, np.column_stack([z, 3 * depth]).astype(np.float32)).methods["embedding"]
    clean = scored(mdata, z).methods["embedding"]
    assert deep["depth_r2_within_rna"] > 0.8 and deep["depth_r2_rna"] > 0.8
    assert clean["depth_r2_within_rna"] < 0.2


def test_a_batch_that_is_held_out_whole_is_mixed_with_the_training_cells() -> None:
    mdata = with_batches()
    mdata.obs["batch"] = np.where(mdata.obs["xmodal_split"] == "test", "new", "old")
    found = scored(mdata, latent(mdata))
    assert found.methods["embedding"]["ilisi"] > 0.8 and not found.notes[1:]


def test_modalities_meet_where_their_embeddings_agree() -> None:
    mdata = with_batches()
    z = latent(mdata)
    together = scored(mdata, z, by_modality={"rna": z, "atac": z + 0.01}).methods["embedding"]
    apart = scored(mdata, z, by_modality={"rna": z, "atac": np.random.default_rng(2).permutation(z)}).methods[
        "embedding"
    ]
    assert together["foscttm"] < 0.02 and together["label_match"] > 0.99
    assert apart["foscttm"] > 0.35 and apart["label_match"] < 0.5
    some = z.copy()
    some[np.flatnonzero(mdata.obs["xmodal_split"] == "test")[:40]] = np.nan
    part = scored(mdata, z, by_modality={"rna": z, "atac": some})
    assert part.paired == {"rna_atac": 60}
    three = scored(mdata, z, by_modality={"rna": z, "atac": z, "protein": z}).methods["embedding"]
    assert {"foscttm_rna_atac", "foscttm_without_depth_rna_protein", "label_match_atac_protein"} <= set(three)
    assert "foscttm" not in three


# ---- on which cells


def test_cells_that_are_scored() -> None:
    mdata = with_batches()
    z = latent(mdata)

    def sizes(settings: EvaluationSettings, said: str | None = None) -> tuple[str, int, int, int]:
        about = {"settings": {"split": said}} if said else {}
        s = scored(mdata, z, settings, about=about).scene
        return s.which, int(s.scored.sum()), int(s.train.sum()), int(s.heldout.sum())

    assert sizes(ALONE) == ("test", 100, 140, 100)
    assert sizes(ALONE.model_copy(update={"cells": "all"})) == ("all", 240, 140, 100)
    assert sizes(ALONE.model_copy(update={"cells": "valid"})) == ("valid", 20, 120, 20)
    assert sizes(ALONE, said="valid") == ("valid", 20, 120, 20)
    del mdata.obs["xmodal_split"]
    assert sizes(ALONE) == ("all", 240, 0, 0)
    assert "knn_accuracy_heldout" not in scored(mdata, z).methods["embedding"]


def test_validation_cells_are_said_to_flatter() -> None:
    mdata = with_batches()
    settings = ALONE.model_copy(update={"cells": "valid"})
    assert "validation cells are scored" in scored(mdata, latent(mdata), settings).notes[0]
    trial = scored(mdata, latent(mdata), settings, about={"settings": {"trial": True}})
    assert not any("validation cells" in n for n in trial.notes)


def test_without_a_split_comparators_are_fitted_to_the_scored_cells_and_that_is_said() -> None:
    mdata = with_batches()
    del mdata.obs["xmodal_split"]
    found = scored(mdata, latent(mdata), ALONE.model_copy(update={"comparators": "rna_pca,concatenated"}))
    assert sum("no training cells" in n for n in found.notes) == 1
    assert {"rna_pca", "concatenated"} < set(found.methods)


def test_cells_without_a_modality_or_a_label_are_left_out_where_it_counts() -> None:
    mdata = with_batches()
    test = mdata.obs_names[mdata.obs["xmodal_split"] == "test"]
    atac = mdata["atac"][~mdata.obs_names.isin(test[:30])].copy()
    hybrid = mu.MuData({"rna": mdata["rna"], "atac": atac})
    hybrid.obs, hybrid.uns = mdata.obs, mdata.uns
    hybrid.obs["cell_type"] = pd.Series(hybrid.obs["cell_type"]).mask(hybrid.obs_names.isin(test[:5]))
    settings = ALONE.model_copy(update={"comparators": "rna_pca,atac_lsi,concatenated,wnn,protein_pca"})
    found = scored(hybrid, latent(with_batches()), settings)
    assert found.cells == {"embedding": 100, "rna_pca": 100, "atac_lsi": 70, "concatenated": 70, "wnn": 70}
    assert any("'protein_pca' cannot be made" in n for n in found.notes)
    assert found.scene.labels is not None and found.scene.labels.counts(found.scene.scored)["(none)"] == 5
    assert found.methods["embedding"]["knn_accuracy"] > 0.9


def test_cells_that_the_model_cannot_embed_are_left_out_and_counted() -> None:
    mdata = with_batches()
    test = mdata.obs_names[mdata.obs["xmodal_split"] == "test"]
    parts = {m: mdata[m][~mdata.obs_names.isin(test[:8])].copy() for m in ("rna", "atac")}
    some = mu.MuData({**parts, "protein": mdata["protein"]})
    some.obs, some.uns = mdata.obs.reindex(some.obs_names), mdata.uns
    kept = ~some.obs_names.isin(test[:8])
    z = latent(some)[kept]
    names = some.obs_names[kept].to_numpy(str)
    said = {"settings": {"modalities": {"rna": {}, "atac": {}}}}
    found = embedding_evaluation.evaluate(some, Embedding("E", names, z, about=said), ALONE, 0)
    assert found.cells["embedding"] == 92
    assert "8 test cells have no modality that the model knows and are left out" in found.notes
    assert "8 test cells of the truth have no embedding" in refused(some, Embedding("E", names, z))


def test_weighted_neighbours_reach_across_to_training_cells() -> None:
    mdata = with_batches()
    z = latent(mdata)
    noise = np.random.default_rng(3).normal(size=(240, 4)).astype(np.float32)
    train = (mdata.obs["xmodal_split"] == "train").to_numpy()
    rows = (mdata.obs["xmodal_split"] == "test").to_numpy()
    space = Space([z, noise], np.ones(240, bool))
    index = space.across(rows, train, 15)
    assert index.shape == (100, 15) and index.min() >= 0 and index.max() < train.sum()
    types = np.unique(mdata.obs["cell_type"], return_inverse=True)[1]
    told = embedding_measures.voted(index, types[train])
    assert (told == types[rows]).mean() > 0.9


# ---- what is left out, with a note


def test_what_cannot_be_scored_is_said() -> None:
    mdata = with_batches()
    z = latent(mdata)
    mdata.obs["plate"], mdata.obs["kind"] = "one", "all"
    found = scored(mdata, z, EvaluationSettings(label_key="kind", batch_key="plate", comparators=""))
    assert any("one batch in 'plate'" in n for n in found.notes)
    assert any("fewer than two labels in 'kind'" in n for n in found.notes)
    assert any("--by-modality" in n for n in found.notes)
    assert not {"ilisi", "kbet", *BY_LABEL} & set(found.methods["embedding"])
    assert judge({"methods": found.methods}).level == "open"
    few = scored(mdata, z, ALONE.model_copy(update={"comparators": "protein_pca,wnn"}))
    assert {"protein_pca", "wnn"} < set(few.methods)


@pytest.mark.parametrize("known", [{"rna": {}}, {"rna": {}, "atac": {}}, {}])
def test_cells_of_one_modality_have_nothing_to_meet(known: dict[str, Any]) -> None:
    """As new cells often are: --by-modality would not help, so it is not asked for."""
    mdata = with_batches()
    cells = mdata.obs_names.to_numpy(str)
    rows = {"rna": slice(0, 240)} if len(known) == 1 else {"rna": slice(0, 200), "atac": slice(200, 240)}
    single = mu.MuData({m: mdata[m][own].copy() for m, own in rows.items()})
    single.obs, single.uns = mdata.obs, mdata.uns
    given = {"X_xmodal_rna": latent(mdata)} if len(known) == 1 else {}
    about = {"settings": {"modalities": known}}
    found = embedding_evaluation.evaluate(single, Embedding("E", cells, latent(mdata), given, about), ALONE, 0)
    said = [n for n in found.notes if "a single modality each (rna of " in n and "cannot be compared" in n]
    assert len(said) == 1 and not any("--by-modality" in n for n in found.notes)
    assert not MEETING & set(found.methods["embedding"])


# ---- refusals


def no_embedding(path: Path) -> Path:
    ad.AnnData(np.ones((20, 2), np.float32)).write_h5ad(path / "e.h5ad")
    return path / "e.h5ad"


def not_finite(path: Path) -> Path:
    z = latent(with_batches())
    z[7, 1] = np.nan
    return written(with_batches(), path / "e.h5mu", z)


def twice(path: Path) -> Path:
    held = ad.AnnData(obs=pd.DataFrame(index=["a", "a"]), obsm={"X_xmodal": np.ones((2, 3), np.float32)})
    held.write_h5ad(path / "e.h5ad")
    return path / "e.h5ad"


def broken(path: Path) -> Path:
    (path / "e.h5mu").write_text("no file of cells")
    return path / "e.h5mu"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_embedding, "run xmodal embed first"),
        (not_finite, "1 of 240 cells have values that are not finite, first cell7"),
        (twice, "cell names are duplicated"),
        (broken, "not an HDF5 file"),
    ],
)
def test_files_that_are_refused(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=said):
        read_embedding(make(tmp_path))


def refused(mdata: mu.MuData, embedding: Embedding, **settings: Any) -> str:
    with pytest.raises(InputRefused) as error:
        embedding_evaluation.evaluate(mdata, embedding, EvaluationSettings(comparators="", **settings), 0)
    return str(error.value)


def test_truth_and_embedding_that_do_not_fit() -> None:
    mdata = with_batches()
    z = latent(mdata)
    strange = Embedding("E.h5mu", np.array([f"x{n}" for n in mdata.obs_names]), z)
    assert "240 of 240 cells are not in the truth, first xcell0" in refused(mdata, strange)
    names = mdata.obs_names.to_numpy(str)
    half = Embedding("E.h5mu", names[:150], z[:150])
    assert "test cells of the truth have no embedding" in refused(mdata, half)
    embedding_evaluation.evaluate(mdata, half, ALONE.model_copy(update={"cells": "all"}), 0)
    few = Embedding("E.h5mu", names[:15], z[:15])
    assert "there are 15 cells with an embedding; with 15 neighbours 16 are needed" in refused(mdata, few, cells="all")
    assert "did you mean 'cell_type'" in refused(mdata, of(z, mdata), label_key="cell_tpye")
    assert "--batch-key: obs has no column 'lane'. What to do: there are: " in refused(
        mdata, of(z, mdata), batch_key="lane"
    )
    del mdata.obs["xmodal_split"]
    assert "--cells all" in refused(mdata, of(z, mdata), cells="test")


def test_another_checkpoint_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"another")
    done = given(files, tmp_path / "out", "--checkpoint", tmp_path / "m.safetensors")
    assert isinstance(done.exception, InputRefused) and "another checkpoint (abababababab...)" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--prediction", "rna=P"), "give one of --prediction, --embedding"),
        (("--comparators", "rna_pca,mean"), "--comparators: 'mean' is none of rna_pca, rna_pearson, atac_lsi"),
        (("--controls", "mean"), "--controls: this goes with --prediction"),
        (("--clusters",), "--clusters: this goes with --prediction"),
        (("--features", "predicted"), "--features: this goes with --prediction"),
        (("--allow-missing",), "--allow-missing: this goes with --prediction"),
    ],
)
def test_options_that_do_not_fit(files: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    prediction(with_batches(), "rna", "atac").write_h5ad(tmp_path / "P")
    arguments = [f"rna={tmp_path / 'P'}" if m == "rna=P" else m for m in more]
    done = given(files, tmp_path / "out", *arguments)
    assert isinstance(done.exception, UsageRefused) and said in str(done.exception)


def test_options_of_embeddings_do_not_go_with_predictions(files: Path, tmp_path: Path) -> None:
    prediction(with_batches(), "rna", "atac").write_h5ad(tmp_path / "P.h5ad")
    start = (files / "truth.h5mu", "--output-dir", tmp_path / "out")
    neither = run(*start)
    assert isinstance(neither.exception, UsageRefused) and "give one of --prediction" in str(neither.exception)
    for more, name in ((("--batch-key", "batch"), "--batch-key"), (("--comparators", "wnn"), "--comparators")):
        done = run(*start, "--prediction", f"rna={tmp_path / 'P.h5ad'}", *more)
        assert isinstance(done.exception, UsageRefused) and f"{name}: this goes with --embedding" in str(done.exception)


# ---- words


def test_every_score_has_its_words() -> None:
    for score in {*BY_LABEL, "silhouette", "ilisi", "kbet", *LEAKS, *MEETING, "foscttm_rna_atac"}:
        text = text_of(score)
        assert text.says and text.name != score.replace("_", " ") and short(score), score
    assert text_of("depth_r2_within_trees_rna").better == text_of("foscttm_without_depth").better == "lower"
    assert "Among cells of one label" in text_of("depth_r2_within_trees_rna").says
    assert short("depth_r2_trees_atac") == "ATAC depth, trees"
    every = {*BY_LABEL, "ilisi", *LEAKS, *MEETING}
    assert headline(every)[-1] == "depth_r2_within_trees_rna" and "depth_r2_rna" not in headline(every)
    assert headline({"depth_r2_trees_rna", "depth_r2_rna"}) == ["depth_r2_trees_rna"]
    assert set(of_methods(every)) | set(of_meeting(every)) == every
    assert of_meeting(every)[0] == "foscttm"


@pytest.mark.parametrize(
    ("own", "plain", "leak", "level", "words"),
    [
        (0.95, 0.90, 0.05, "good", "better than the best plain one"),
        (0.92, 0.925, 0.05, "good", "as well as the best plain one"),
        (0.92, 0.925, 0.60, "fair", "as well as the best plain one"),
        (0.90, 0.93, 0.05, "fair", "less well than the best plain one"),
        (0.70, 0.93, 0.05, "poor", "less well than the best plain one"),
    ],
)
def test_the_verdict(own: float, plain: float, leak: float, level: str, words: str) -> None:
    methods = {
        "embedding": {"knn_accuracy": 0.1, "knn_accuracy_heldout": own, "depth_r2_trees_rna": leak, "foscttm": 0.2},
        "rna_pca": {"knn_accuracy_heldout": plain},
        "atac_lsi": {"knn_accuracy_heldout": 0.3},
    }
    verdict = judge({"methods": methods})
    assert verdict.level == level and words in verdict.headline and "rna_pca" in verdict.headline
    assert len(verdict.against) == 2 and f"{100 * leak:.0f} %" in verdict.against[0]
