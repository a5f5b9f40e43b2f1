from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from click.testing import CliRunner

from helpers_data import GENES, REAL, cells, needs_real, pair, write, write_10x
from xmodal import registry
from xmodal.cli.check import command
from xmodal.data.checking import NEEDED, check
from xmodal.errors import InputRefused, UsageRefused


def call(*args: Any) -> Any:
    return CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=True)


def test_a_pair_can_train_and_predict(tmp_path: Path) -> None:
    rna, atac = pair(tmp_path)
    done = call(rna, atac, "--json", tmp_path / "c.json")
    assert done.exit_code == 0, done
    assert "rna: 30 cells x 12 features" in done.stdout and "train a model on it: no, 30 cells have two" in done.stdout
    assert "genome hg38" in done.stdout and "donor (5)" in done.stdout
    answer = json.loads((tmp_path / "c.json").read_text())
    assert answer["ok"] and answer["use"]["predict_from"] == ["atac", "rna"] and answer["use"]["paired"] == 30
    assert answer["files"][1]["modalities"]["atac"]["genome"] == "hg38" and answer["files"][0]["labels"]["kind"] == 2
    assert str(tmp_path) not in json.dumps(answer)


def test_errors_exit_3_but_the_json_is_written(tmp_path: Path) -> None:
    rna, atac = pair(tmp_path)
    adata = ad.read_h5ad(rna)
    adata.X = np.log1p(adata.X)
    write(adata, rna)
    done = call(rna, atac, tmp_path / "absent.h5ad", "--json", tmp_path / "c.json")
    assert isinstance(done.exception, InputRefused) and "looks log-normalised" in str(done.exception)
    assert "looks log-normalised" not in done.stdout  # errors are told once, by the refusal
    assert "no such file" in str(done.exception)
    answer = json.loads((tmp_path / "c.json").read_text())
    assert not answer["ok"] and not answer["use"]["train"] and len(answer["files"]) == 2
    assert [f["level"] for f in answer["findings"]].count("error") == 2
    assert str(tmp_path) not in json.dumps(answer)


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (
            30,
            "no, 30 cells have two modalities, about 19 of them to train on; needed are: linear 20, auto 24, crossmp 50",
        ),
        (40, "yes, with linear or auto only (40 paired cells, about 26 of them to train on; crossmp needs 50)"),
        (80, "yes (80 paired cells, about 52 of them to train on)"),
    ],
)
def test_how_many_cells_a_model_needs(tmp_path: Path, n: int, words: str) -> None:
    rna, atac = pair(tmp_path, n=n)
    assert f"train a model on it: {words}" in call(rna, atac).stdout


def test_needed_cells_are_those_of_the_models() -> None:
    assert {name: registry.get(name).min_cells for name in NEEDED} == NEEDED


def test_one_modality_is_no_warning(tmp_path: Path) -> None:
    rna, _ = pair(tmp_path)
    assert [f.level for f in check([(None, rna)]).findings if "alone" in f.do] == ["note"]


def test_modality_named_by_the_user_or_the_file_name_or_not(tmp_path: Path) -> None:
    panel = cells(["CD3", "CD4", "CD8"])
    result = check([("protein", write(panel, tmp_path / "x.h5ad"))])
    assert list(result.files[0]["modalities"]) == ["protein"]
    assert call(f"protein={tmp_path / 'x.h5ad'}").exit_code == 0
    assert list(check([(None, write(panel, tmp_path / "protein.h5ad"))]).files[0]["modalities"]) == ["protein"]
    unknown = check([(None, tmp_path / "x.h5ad")])
    assert unknown.ok and unknown.use["predict_from"] == [] and any("unknown" in f.what for f in unknown.findings)
    assert isinstance(call("=x").exception, UsageRefused)


def test_unpaired_files_and_10x(tmp_path: Path) -> None:
    rna, _ = pair(tmp_path / "a")
    _, atac = pair(tmp_path / "b", prefix="other")
    result = check([(None, rna), (None, atac)])
    assert not result.ok and "share no cell names" in str(result.findings)
    tenx = check([(None, write_10x(tmp_path / "m.h5"))])
    assert tenx.ok and tenx.files[0]["paired"] == 6 and "6 cells have two modalities" in tenx.use["why_not"]
    assert any(f.level == "note" and "adds them up" in f.do for f in tenx.findings)


def test_layer_and_one_modality(tmp_path: Path) -> None:
    adata = cells(GENES)
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    path = write(adata, tmp_path / "rna.h5ad")
    assert not check([(None, path)]).ok
    good = check([(None, path)], layer="counts")
    assert good.ok and good.use["why_not"] == "there is one modality only"


@needs_real
@pytest.mark.real_data
def test_cortex() -> None:
    result = check([(None, REAL / "mouse_cortex_snareseq_dev" / "paired.h5mu")])
    about = result.files[0]
    assert result.ok and about["paired"] == 7844 and about["labels"]["batch"] == 9
    assert about["modalities"]["rna"]["depth_median"] == 245 and about["modalities"]["atac"]["depth_median"] == 81


def test_how_cells_fit_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xmodal.predicting import prediction

    def fit(coverage: float, genome: str, level: str) -> dict[str, Any]:
        return {
            "alignment": {"coverage": coverage, "first_missing": ["A"]},
            "enough": coverage > 0.5,
            "genome": {"input": "hg38", "checkpoint": genome},
            "novelty": {"level": level, "unlike": 0.8},
            "predicts": ["rna"],
        }

    rna, atac = pair(tmp_path)
    about = {"atac": fit(0.1, "mm10", "refused")}
    monkeypatch.setattr(prediction, "preview", lambda mdata, path: {"modalities": about})
    bad = check([(None, atac)], checkpoint=tmp_path / "m.safetensors")
    assert [f.level for f in bad.findings] == ["error"] * 3 and "10 % of" in bad.findings[0].what
    about["rna"] = fit(1.0, "hg38", "fine")
    good = check([(None, rna)], checkpoint=tmp_path / "m.safetensors")
    assert good.ok and [f.level for f in good.findings] == ["warning"] * 3
    assert "rna can predict rna; 100 %" in call(rna, "--checkpoint", tmp_path / "m.safetensors").stdout
    about.clear()
    assert "knows none" in str(check([(None, rna)], checkpoint=tmp_path / "m.safetensors").findings)
