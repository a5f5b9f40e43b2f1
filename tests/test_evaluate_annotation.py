"""``xmodal evaluate --annotation``: what is written, on which cells, beside what; the page; and everything that is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import helpers_annotation as small
from helpers_annotation import CD4, CD8, MONOCYTE, NEURON, ODD, SEEN, T_CELL, TYPES, B
from helpers_data import write_10x
from test_report import Reader
from xmodal import provenance
from xmodal.cli.evaluate import command
from xmodal.cli.report import command as report
from xmodal.errors import InputRefused, UsageRefused
from xmodal.reporting.multiqc_sections import sections
from xmodal.reporting.report_inputs import Given, read
from xmodal.scores import annotation_evaluation, annotation_files, annotation_input
from xmodal.scores import annotation_measures as measures
from xmodal.scores.annotation_texts import METHODS, OF_CALLS, OF_METHODS, TEXTS
from xmodal.scores.annotation_verdicts import judge
from xmodal.scores.evaluation_settings import EvaluationSettings

COLUMNS = ["target", "source", "method", "score", "value"]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [*map(str, arguments), "--threads", "1"])


def labelled(
    adata: ad.AnnData, right: float = 0.9, seed: int = 0, candidates: tuple[str, ...] = SEEN, **more: Any
) -> ad.AnnData:
    """The cells as annotate leaves them: the best candidate is right in a share ``right`` of them, and sure of that."""
    rng = np.random.default_rng(seed)
    truth = [TYPES[str(t)] for t in adata.obs["cell_type"]]
    best = [t if t in candidates and rng.random() < right else str(rng.choice(candidates)) for t in truth]
    others = [[c for c in candidates if c != b] for b in best]
    unknown = np.array([t not in SEEN and rng.random() < 0.8 for t in truth])
    out = adata.copy()
    out.obs["ct_top"] = [f"{b}={right:.4f}|{o[0]}=0.0300|{o[1]}=0.0200" for b, o in zip(best, others, strict=True)]
    called = np.where(unknown, "unknown", best)
    out.obs["ct_label"] = [t.removeprefix("label:") for t in called]
    ids = ["unknown" if t.startswith("label:") else t for t in called]
    out.obs["cell_type_ontology_term_id"] = pd.Categorical(ids)
    out.obs["ct_status"] = pd.Categorical(np.where(unknown, "unknown", "assigned"))
    out.obs["ct_score"] = np.float32(right)
    out.obs["ct_known"] = np.where([t in SEEN for t in truth], 0.7, 0.5) + rng.normal(0, 0.1, len(truth))
    out.obs["ct_cluster_label"] = out.obs["ct_label"]
    pairs = sorted((n, t) for n, t in TYPES.items() if t in SEEN)
    said = {
        "candidates": {"kind": "seen", "root": "", "number": len(candidates), "ids": list(candidates)},
        "seen": list(SEEN),
        "ontology": {"version": small.VERSION, "source": "cl.tsv"},
        "names": {t: t.removeprefix("label:") for t in {*SEEN, *candidates}},
        "trained": {"key": "cell_type", "values": [n for n, _ in pairs], "terms": [t for _, t in pairs]},
        **more,
    }
    scalars = {"model": "toy", "checkpoint_sha256": "ab" * 32, "seed": 0}
    out.uns["xmodal_annotation"] = provenance.record("annotate", said, schema="xmodal-annotation/1", **scalars)
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    adata = small.cells(30)
    mdata = small.as_mudata(adata)
    mdata.write_h5mu(folder / "truth.h5mu")
    labelled(adata, candidates=(*SEEN, NEURON)).write_h5ad(folder / "a.h5ad")
    small.ontology_file(folder / "cl.tsv")
    return folder


@pytest.fixture(scope="module")
def folder(files: Path) -> Path:
    done = given(files, files / "out")
    assert done.exit_code == 0, done.exception
    (files / "said.txt").write_text(done.output)
    return files / "out"


def given(files: Path, output: Path, *more: object) -> Any:
    named = () if "--ontology" in more else ("--ontology", files / "cl.tsv")
    return run(files / "truth.h5mu", "--annotation", files / "a.h5ad", "--output-dir", output, *named, *more)


def scored(adata: ad.AnnData, truth: ad.AnnData, path: Path, **settings: Any) -> annotation_evaluation.Result:
    adata.write_h5ad(path / "a.h5ad")
    terms = small.small_ontology(path)
    found = annotation_input.read_annotation(path / "a.h5ad")
    return annotation_evaluation.evaluate(
        small.as_mudata(truth), found, EvaluationSettings(**{"controls": "", **settings}), terms, 0
    )


# ---- what is written


def test_the_folder_is_what_the_contract_says(folder: Path, files: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {
        *("metrics.json", "scores.tsv", "types.tsv", "calibration.tsv", "scores.png"),
    }
    content = json.loads((folder / "metrics.json").read_text())
    about = content["annotation"]
    assert (about["cells"], about["training_cells"], about["label_key"]) == (70, 140, "cell_type")
    assert about["provenance"]["checkpoint_sha256"] == "ab" * 32 and about["model"] == "toy"
    assert about["candidates"]["number"] == 6 and content["settings"]["cells"] == "test"
    assert set(about["methods"]) == set(METHODS)
    own = about["methods"]["annotation"]
    assert set(own) == {*OF_METHODS, *OF_CALLS}
    assert {"accuracy", "macro_f1", "hit3", "ece", "risk_coverage", "auroc_unseen"} < set(about["methods"]["logistic"])
    table = pd.read_csv(folder / "scores.tsv", sep="\t", keep_default_na=False)
    assert list(table.columns) == COLUMNS and set(table["target"]) == {"annotation"}
    values = table.set_index(["method", "score"])["value"].to_dict()
    assert values == {(m, s): v for m, scores in about["methods"].items() for s, v in scores.items()}
    types = pd.read_csv(folder / "types.tsv", sep="\t")
    assert types["cells"].sum() == 70 and set(types["term"]) == set(TYPES.values())
    assert not types.set_index("term").loc[NEURON, "seen"] and types.set_index("term").loc[B, "name"] == "B cell"
    bins = pd.read_csv(folder / "calibration.tsv", sep="\t")
    assert set(bins["method"]) == {"annotation", "logistic", "knn15"} and bins["cells"].max() <= 60
    said = (files / "said.txt").read_text()
    assert "Cells named rightly" in said and "logistic" in said and "Cells left unknown" in said


def test_equal_input_gives_equal_bytes(folder: Path, files: Path, tmp_path: Path) -> None:
    assert given(files, tmp_path / "b").exit_code == 0
    for name in ("scores.tsv", "types.tsv", "calibration.tsv", "scores.png"):
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes(), name
    one, two = (json.loads((f / "metrics.json").read_text())["annotation"] for f in (folder, tmp_path / "b"))
    assert one == two
    with pytest.raises(InputRefused, match="--overwrite"):
        raise given(files, tmp_path / "b").exception


def test_scores_by_hand(tmp_path: Path) -> None:
    adata = small.cells(12)
    own = labelled(adata, right=1.0)
    result = scored(own, adata, tmp_path, cells="all").methods["annotation"]
    assert result["accuracy"] == pytest.approx(5 / 7) and result["accuracy_seen"] == 1.0
    assert not {"accuracy_unseen", "h", "hit3_unseen"} & set(result)  # none of them was a candidate
    assert result["accuracy_assigned"] <= 1.0 and result["unknown_of_seen"] == 0.0 < result["unknown_of_unseen"]
    assert result["ece"] == pytest.approx(0.0) and result["auroc_unseen"] > 0.8
    wrong = scored(labelled(adata, right=0.0), adata, tmp_path, cells="all").methods["annotation"]
    assert wrong["accuracy"] < 0.3 and wrong["macro_f1"] < 0.3


def test_a_method_better_than_another_scores_higher(tmp_path: Path) -> None:
    adata = small.cells(30)
    good, bad = (scored(labelled(adata, r), adata, tmp_path).methods["annotation"] for r in (0.95, 0.4))
    for score in ("accuracy", "macro_f1", "accuracy_macro", "hit3", "accuracy_assigned", "accuracy_called", "on_path"):
        assert good[score] > bad[score] + 0.05, score
    assert good["ontology_distance"] < bad["ontology_distance"] and good["risk_coverage"] < bad["risk_coverage"]


def test_coarse_labels_are_true_where_they_hold(tmp_path: Path) -> None:
    adata = small.cells(12, types=("CD4 T", "CD8 T", "B"))
    own = labelled(adata, right=1.0)
    own.obs["cell_type_ontology_term_id"] = pd.Categorical([T_CELL] * len(own))
    own.obs["ct_status"] = "coarse"
    result = scored(own, adata, tmp_path, cells="all").methods["annotation"]
    assert result["share_coarse"] == 1.0 and result["accuracy_called"] == pytest.approx(2 / 3)
    assert "accuracy_assigned" not in result and result["accuracy"] == 1.0


def test_zero_shot_scores_are_of_types_never_seen(tmp_path: Path) -> None:
    adata = small.cells(12)
    own = labelled(adata, right=1.0, candidates=(*SEEN, NEURON))
    result = scored(own, adata, tmp_path, cells="all").methods["annotation"]
    assert (result["accuracy_seen"], result["accuracy_unseen"]) == (1.0, 0.5)
    assert result["h"] == pytest.approx(2 / 3) and result["hit3_unseen"] == 0.5


def test_plain_methods_learn_from_training_cells_of_the_types_trained_on(folder: Path) -> None:
    about = json.loads((folder / "metrics.json").read_text())["annotation"]
    methods = about["methods"]
    assert methods["logistic"]["accuracy_unseen"] == 0.0 and methods["logistic"]["accuracy_seen"] > 0.7
    assert methods["knn15"]["accuracy"] > methods["majority"]["accuracy"] + 0.2
    assert methods["majority"]["macro_f1"] < 0.1 and "ece" not in methods["majority"]


def test_without_training_cells_only_the_most_frequent_type_is_there(tmp_path: Path) -> None:
    adata = small.cells(12)
    del adata.obs["xmodal_split"]
    result = scored(labelled(adata), adata, tmp_path, controls="mean")
    assert list(result.methods) == ["annotation", "clusters", "majority"] and result.scene.which == "all"
    assert any("no training cells" in n for n in result.notes)
    assert result.methods["majority"]["accuracy"] == pytest.approx(1 / 7)


def test_training_cells_among_the_scored_are_named(tmp_path: Path) -> None:
    adata = small.cells(12)
    result = scored(labelled(adata), adata, tmp_path, cells="all")
    assert any("training cells" in n for n in result.notes)
    split = scored(labelled(adata, split="train"), adata, tmp_path)
    assert split.scene.which == "test" and int(split.scene.scored.sum()) == 28


def test_known_labels_are_ids_names_or_training_labels(tmp_path: Path) -> None:
    adata = small.cells(6)
    names = {"CD4 T": CD4, "CD8 T": "CL_0000625", "B": "b cell", "Mono": "MONOCYTE", "neuron": "neuron"}
    adata.obs["mine"] = [names.get(str(t), "unknown" if t == "astrocyte" else str(t)) for t in adata.obs["cell_type"]]
    own = labelled(adata, right=1.0)
    result = scored(own, adata, tmp_path, cells="all", label_key="mine")
    assert set(result.scene.truth[result.scene.scored]) == {CD4, CD8, B, MONOCYTE, NEURON, ODD}
    assert any("6 cells have no label" in n for n in result.notes)
    adata.obs["mine"] = [f"my {t}" for t in adata.obs["cell_type"]]
    adata.obs["cell_type_ontology_term_id"] = [TYPES[str(t)] if t == "B" else "unknown" for t in adata.obs["cell_type"]]
    found = scored(own, adata, tmp_path, cells="all", label_key="mine")
    assert set(found.scene.truth) == {B, *(f"label:my {t}" for t in TYPES if t != "B")}
    assert any("no term of the Cell Ontology" in n for n in found.notes)


def test_without_an_ontology_no_distance_is_scored(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.text import ontology_files

    monkeypatch.setattr(ontology_files, "find_spec", lambda _: None)
    monkeypatch.delenv("XMODAL_ONTOLOGY", raising=False)
    done = given(files, tmp_path / "o", "--ontology", files / "cl.tsv")
    assert done.exit_code == 0
    bare = run(files / "truth.h5mu", "--annotation", files / "a.h5ad", "--output-dir", tmp_path / "p")
    assert bare.exit_code == 0, bare.exception
    about = json.loads((tmp_path / "p/metrics.json").read_text())["annotation"]
    assert "ontology_distance" not in about["methods"]["annotation"] and any("--ontology" in n for n in about["notes"])


def test_labels_of_another_program_are_scored(tmp_path: Path) -> None:
    adata = small.cells(12)
    adata.obs["cell_type_ontology_term_id"] = [
        t if t != ODD else "unknown" for t in map(TYPES.get, adata.obs["cell_type"])
    ]
    result = scored(adata, adata, tmp_path, cells="all", label_key="cell_type")
    assert (
        result.methods["annotation"]["accuracy"] == pytest.approx(6 / 7) and "hit3" not in result.methods["annotation"]
    )
    assert "share_unknown" not in result.methods["annotation"]


def test_finer_known_types_are_judged_by_descent(tmp_path: Path) -> None:
    adata = small.cells(12, types=("CD4 T", "CD8 T", "B"))
    adata.obs["fine"] = [T_CELL if t == "B" else TYPES[str(t)] for t in adata.obs["cell_type"]]
    own = labelled(small.cells(12, types=("CD4 T", "CD8 T", "B")), right=1.0, candidates=(B, MONOCYTE, NEURON))
    own.obs["ct_top"] = [f"{T_CELL}=0.9|{B}=0.1|{MONOCYTE}=0.0"] * 24 + [f"{B}=0.9|{T_CELL}=0.1|{MONOCYTE}=0.0"] * 12
    result = scored(own, adata, tmp_path, cells="all", label_key="fine")
    about = annotation_files.describe(result)
    assert about["possible"] == 0.0 and about["methods"]["annotation"]["on_path"] == pytest.approx(2 / 3, abs=1e-4)
    assert any("not among the candidates" in n for n in about["notes"])
    found = judge(about)
    assert found.level == "open" and "67 %" in found.headline
    assert judge({**about, "methods": {"annotation": {"accuracy": 0, "macro_f1": 0, "on_path": 0.2}}}).level == "poor"


def test_another_release_is_named(tmp_path: Path) -> None:
    adata = small.cells(6)
    own = labelled(adata, ontology={"version": "2020-02-02", "source": "cl.obo"})
    result = scored(own, adata, tmp_path, cells="all")
    assert any("2020-02-02" in n and small.VERSION in n for n in result.notes)


# ---- the measures


def test_measures_by_hand() -> None:
    truth, told = np.array(["a", "a", "a", "b"], object), np.array(["a", "a", "b", "c"], object)
    assert measures.f1(truth, told, "a") == pytest.approx(0.8) and measures.f1(truth, told, "b") == 0
    assert measures.macro_f1(truth, told) == pytest.approx(0.4)
    assert measures.macro(truth == told, truth) == pytest.approx(1 / 3)
    right, score = np.array([True, True, False, False]), np.array([0.9, 0.6, 0.6, 0.2])
    np.testing.assert_allclose(measures.risk(right, score), [0, 0.25, 1 / 3, 0.5])  # ties stand for each other
    np.testing.assert_allclose(measures.risk(right, np.ones(4)), [0.5] * 4)
    bins = measures.calibration(right, score)
    assert [b["cells"] for b in bins] == [1, 2, 1]
    assert measures.ece(bins) == pytest.approx((0.1 + 2 * 0.1 + 0.2) / 4)
    assert measures.calibration(np.array([True]), np.array([1.0]))[0]["high"] == 1.0
    assert measures.calibration(np.array([True]), np.array([0.0]))[0]["low"] == 0.0
    assert measures.auroc(np.array([1.0, 2]), np.array([0.0, 1.0])) == pytest.approx(0.875)
    assert measures.harmonic(0, 0) == 0 and measures.harmonic(1, 0.5) == pytest.approx(2 / 3)
    assert len(measures.curve(measures.risk(np.ones(500, bool), np.ones(500)))) == 50


def test_macro_f1_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    truth, told = rng.choice(list("abc"), 100), rng.choice(list("abcd"), 100)
    expected = f1_score(truth, told, average="macro", labels=list("abc"))
    assert measures.macro_f1(truth.astype(object), told.astype(object)) == pytest.approx(expected)


def test_every_score_has_its_text_and_stands_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/scores.md").read_text()
    assert {*OF_METHODS, *OF_CALLS} == set(TEXTS)
    missing = [s for s in TEXTS if f"`{s}`" not in page]
    assert not missing


# ---- the verdict


@pytest.mark.parametrize(
    ("own", "plain", "level"),
    [
        ({"accuracy": 0.87, "macro_f1": 0.75, "ece": 0.02}, {"accuracy": 0.87, "macro_f1": 0.70}, "good"),
        ({"accuracy": 0.87, "macro_f1": 0.75, "ece": 0.09}, {"accuracy": 0.87, "macro_f1": 0.70}, "fair"),
        ({"accuracy": 0.87, "macro_f1": 0.67, "ece": 0.02}, {"accuracy": 0.87, "macro_f1": 0.70}, "fair"),
        ({"accuracy": 0.77, "macro_f1": 0.75, "ece": 0.02}, {"accuracy": 0.87, "macro_f1": 0.70}, "poor"),
        ({"accuracy": 0.40, "macro_f1": 0.40}, {"accuracy": 0.40, "macro_f1": 0.40}, "poor"),
        ({"accuracy": 0.80, "macro_f1": 0.60}, {}, "open"),
        ({"accuracy": 0.30, "macro_f1": 0.20}, {}, "poor"),
        ({}, {}, "open"),
    ],
)
def test_the_verdict(own: dict[str, float], plain: dict[str, float], level: str) -> None:
    found = judge({"methods": {"annotation": own, **({"logistic": plain} if plain else {})}})
    assert found.level == level and found.headline and found.advice


# ---- the page


def test_the_page_is_whole_and_safe(folder: Path, files: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        report,
        [
            *("--evaluation", str(folder), "--output", str(tmp_path / "r.html")),
            *("--plots", str(tmp_path / "plots"), "--multiqc-dir", str(tmp_path / "mqc")),
        ],
    )
    assert done.exit_code == 0, done.exception
    page = (tmp_path / "r.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids)) and "labels-1" in ids
    text = " ".join(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]).split())
    assert "Cell types against what is known" in text and "Calibration error" in text and "not trained on" in text
    assert "70 cells were compared with those that are known" in text
    assert (tmp_path / "plots/labels-out.png").is_file()
    scores = pd.read_csv(tmp_path / "plots/scores.tsv", sep="\t", keep_default_na=False)
    assert set(scores["target"]) == {"annotation"} and set(scores["method"]) == set(METHODS)
    verdicts = pd.read_csv(tmp_path / "plots/verdicts.tsv", sep="\t", keep_default_na=False)
    assert list(verdicts["target"]) == ["annotation"]
    table = json.loads((tmp_path / "mqc/xmodal_labels_mqc.json").read_text())
    assert set(table["data"]) == {f"out | {m}" for m in METHODS}
    assert {s["id"] for s in sections(read(Given(evaluations=[folder])))} == {"xmodal_labels"}
    with pytest.raises(InputRefused, match="--evaluation"):
        read(Given(trainings=[folder]))


# ---- refusals


def test_one_thing_is_scored_at_a_time(files: Path, tmp_path: Path) -> None:
    for more in ((), ("--annotation", files / "a.h5ad", "--embedding", files / "a.h5ad")):
        with pytest.raises(UsageRefused, match="--annotation"):
            raise run(files / "truth.h5mu", "--output-dir", tmp_path / "o", *more).exception
    for option in (("--batch-key", "cell_type"), ("--allow-missing",), ("--comparators", "rna_pca")):
        with pytest.raises(UsageRefused, match=option[0]):
            raise given(files, tmp_path / "o", *option).exception
    assert not (tmp_path / "o").exists()


def test_what_does_not_fit_is_refused(files: Path, tmp_path: Path) -> None:
    adata = small.cells(30)
    cases: dict[str, Any] = {
        "no labels": adata,
        "duplicated": ad.concat([labelled(adata)[:5], labelled(adata)[:5]]),
        "not in the truth": labelled(small.cells(30, prefix="other")),
    }
    for words, cells in cases.items():
        cells.write_h5ad(tmp_path / "a.h5ad")
        done = run(files / "truth.h5mu", "--annotation", tmp_path / "a.h5ad", "--output-dir", tmp_path / "o")
        with pytest.raises(InputRefused, match=words):
            raise done.exception
    with pytest.raises(InputRefused, match="cell_type"):
        raise given(files, tmp_path / "o", "--label-key", "cell_typ").exception
    with pytest.raises(InputRefused, match="another checkpoint"):
        raise given(files, tmp_path / "o", "--checkpoint", files / "cl.tsv").exception
    with pytest.raises(InputRefused, match="--cells"):
        raise given(files, tmp_path / "o", "--cells", "valid").exception
    tenx = write_10x(tmp_path / "x.h5")
    with pytest.raises(InputRefused, match="h5ad or h5mu"):
        raise run(files / "truth.h5mu", "--annotation", tenx, "--output-dir", tmp_path / "o").exception
    assert not (tmp_path / "o").exists()
