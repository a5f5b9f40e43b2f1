"""A column of obs in the pipeline: learned, told of held-out cells and of new ones, scored, in the report."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import pytest

from helpers_nextflow import pipeline, succeeded

pytestmark = pytest.mark.nextflow


def test_a_column_is_told_of_held_out_cells_and_of_new_ones(tmp_path: Path) -> None:
    asked = ("--model", "contrastive", "--target", "cell_type", "--train_args", "--set epochs=3 --set hidden=32")
    run = pipeline(tmp_path, "-profile", "test", "--outdir", "out", "--shards", "2", *asked)
    succeeded(run)
    out = tmp_path / "out"
    for sample in ("heldout", "new"):
        told = ad.read_h5ad(out / f"predictions/{sample}/{sample}.cell_type.h5ad")
        assert {"cell_type_predicted", "cell_type_probability"} <= set(told.obs), sample
        assert (out / f"predictions/{sample}/{sample}.rna_to_atac.h5ad").exists()
    scored = json.loads((out / "evaluation/heldout.cell_type/metrics.json").read_text())["annotation"]
    assert scored["label_key"] == "cell_type" and {"annotation", "logistic"} <= set(scored["methods"])
    assert set(json.loads((out / "evaluation/heldout/metrics.json").read_text())["targets"]) == {"rna", "atac"}
    assert sorted(p.name for p in (out / "evaluation").iterdir()) == ["heldout", "heldout.cell_type"]
    page = (out / "report/index.html").read_text()
    assert "cell_type from rna and atac" in page and "cell_type from rna" in page
