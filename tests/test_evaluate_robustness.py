"""`xmodal evaluate --drop --noise`: cells made worse on purpose, what is scored then, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from conftest import Ran, call_xmodal
from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Modality, Vocabulary
from xmodal.errors import UsageRefused
from xmodal.fields import ATAC, BERNOULLI, BINARY, GAUSSIAN, IDENTITY, LOG_CP10K, NB, RNA
from xmodal.scores.robustness_changes import DROP, NOISE, Change, changed, parsed, profile_of

QUICK = ("--set", "epochs=4", "--set", "hidden=32", "--threads", 1, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "m"
    done = call_xmodal("train", prepared, "--model", "contrastive", "--output-dir", out, *QUICK)
    assert done.code == 0, done.err
    return out / "model.safetensors"


def evaluate(truth: Path, model: Path, out: Path, *more: object) -> Ran:
    asked = (
        "evaluate",
        truth,
        "--checkpoint",
        model,
        "--output-dir",
        out,
        "--threads",
        1,
        "--device",
        "cpu",
        "--quiet",
    )
    return call_xmodal(*asked, *more)


def test_curves_are_written_and_the_same_again(prepared: Path, model: Path, tmp_path: Path) -> None:
    asked = ("--drop", "atac=0.5,1", "--noise", "rna=1", "--label-key", "type")
    for name in ("a", "b"):
        done = evaluate(prepared, model, tmp_path / name, *asked)
        assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "a" / "robustness.tsv", sep="\t")
    for name in ("robustness.tsv", "robustness.png", "scores.tsv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert table.groupby(["kind", "modality"])["strength"].unique().map(list).to_dict() == {
        ("drop", "atac"): [0.0, 0.5, 1.0],
        ("noise", "rna"): [0.0, 1.0],
    }
    drop = table[(table["kind"] == "drop") & (table["target"] == "atac")].sort_values("strength")["value"].tolist()
    assert drop[0] > drop[1] > drop[2]  # less is told of peaks that are not there
    own = table[(table["kind"] == "noise") & (table["target"] == "rna")].sort_values("strength")["value"].tolist()
    assert own[0] > own[1] and abs(own[1]) < 0.1  # nothing of the cell is left
    assert set(table["score"]) == {"knn_accuracy_heldout", "knn_balanced_heldout", "gene_pearson", "peak_auroc"}
    page = tmp_path / "page.html"
    assert call_xmodal("report", "--evaluation", tmp_path / "a", "--output", page, "--quiet").code == 0
    assert "Missing and noisy modalities" in page.read_text()
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["robustness"]["model"] == "contrastive"


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--drop", "protein=0.5"), 2, "the checkpoint knows rna, atac"),
        (("--drop", "atac=1.5"), 2, "'1.5' is no share from 0 to 1"),
        (("--noise", "rna"), 2, "write MODALITY=SHARE"),
        (("--drop", "atac=0.1", "--drop", "atac=0.2"), 2, "given twice"),
        (("--noise", "rna=0.1", "--label-key", "typ"), 3, "no column 'typ'"),
        (("--noise", "rna=0.1", "--cells", "all"), 3, "must be told from held-out"),
    ],
)
def test_refusals(prepared: Path, model: Path, tmp_path: Path, more: tuple[str, ...], code: int, words: str) -> None:
    done = evaluate(prepared, model, tmp_path / "out", *more)
    assert done.code == code and words in done.err, done.err
    assert not (tmp_path / "out").exists()


def test_what_needs_a_model_is_refused_without_one(prepared: Path, tmp_path: Path) -> None:
    done = call_xmodal("evaluate", prepared, "--drop", "atac=0.5", "--output-dir", tmp_path / "out")
    assert done.code == 2 and "give --checkpoint" in done.err
    out = tmp_path / "linear"
    assert call_xmodal("train", prepared, "--model", "linear", "--output-dir", out, "--quiet").code == 0
    done = evaluate(prepared, out / "model.safetensors", tmp_path / "out", "--drop", "atac=0.5")
    assert done.code == 99 and "neither embeds nor imputes" in done.err
    done = evaluate(prepared, out / "model.safetensors", tmp_path / "out", "--noise", "rna=0.5")
    assert done.code == 0 and (tmp_path / "out" / "robustness.tsv").exists(), done.err


@pytest.fixture(scope="module")
def cells() -> Cells:
    """200 cells; the first 20 have RNA only."""
    rng, n = np.random.default_rng(0), 200
    kinds = {RNA: (NB, LOG_CP10K), ATAC: (BERNOULLI, BINARY), "signal": (GAUSSIAN, IDENTITY)}
    values = {RNA: rng.poisson(2, (n, 30)), ATAC: rng.poisson(0.3, (n, 40)), "signal": rng.normal(3, 2, (n, 5))}
    counts = {m: sp.csr_matrix(v.astype(np.float32)) for m, v in values.items()}
    modalities = {m: Modality(m, *kinds[m], tuple(f"{m}{i}" for i in range(x.shape[1]))) for m, x in counts.items()}
    depth = {m: np.asarray(x.sum(1), np.float32).ravel() for m, x in counts.items()}
    present = {m: np.arange(n) >= (0 if m == RNA else 20) for m in counts}
    return Cells(Vocabulary(modalities), np.array([f"c{i}" for i in range(n)]), counts, depth, present)


def test_dropping_takes_a_share_and_leaves_every_cell_something(cells: Cells) -> None:
    lost = []
    for share in (0.25, 0.5, 1.0):
        after = changed(cells, Change(DROP, RNA, share), np.zeros(0), 3)
        gone = cells.present[RNA] & ~after.present[RNA]
        assert gone.sum() == round(share * 180) and not gone[:20].any()  # those with RNA only keep it
        lost.append(gone)
    assert (lost[0] <= lost[1]).all() and (lost[1] <= lost[2]).all()


def test_noise_keeps_the_counts_of_a_cell_and_replaces_the_share(cells: Cells) -> None:
    profile = profile_of(cells, RNA)
    after = changed(cells, Change(NOISE, RNA, 0.3), profile, 1).counts[RNA]
    before = cells.counts[RNA]
    np.testing.assert_array_equal(after.sum(1), before.sum(1))
    kept = np.minimum(after.toarray(), before.toarray()).sum() / before.sum()
    assert 0.7 < kept < 0.92  # some of what is drawn falls where something was lost
    np.testing.assert_array_equal(
        after.toarray(), changed(cells, Change(NOISE, RNA, 0.3), profile, 1).counts[RNA].toarray()
    )
    all_of_it = changed(cells, Change(NOISE, RNA, 1.0), profile, 1).counts[RNA].toarray()
    assert abs(np.corrcoef(all_of_it[:, 0], before.toarray()[:, 0])[0, 1]) < 0.25
    assert changed(cells, Change(NOISE, RNA, 0.0), profile, 1) is cells


def test_noise_of_values_keeps_mean_and_spread(cells: Cells) -> None:
    measured = replace(cells, present={m: np.ones(200, bool) for m in cells.present})
    after = (
        changed(measured, Change(NOISE, "signal", 0.5), profile_of(measured, "signal"), 1).counts["signal"].toarray()
    )
    before = measured.counts["signal"].toarray()
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=0.6)
    np.testing.assert_allclose(after.std(0), before.std(0), rtol=0.2)
    assert 0.5 < np.corrcoef(after[:, 0], before[:, 0])[0, 1] < 0.85  # half of the variance is the cell's: r = .71


def test_shares_are_read() -> None:
    assert [c.strength for c in parsed("--drop", ("atac=1,0.5,0.5",))] == [0.0, 0.5, 1.0]
    with pytest.raises(UsageRefused, match="'nan' is no share"):
        parsed("--noise", ("rna=nan",))
