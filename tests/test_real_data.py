"""The main job on real cells: the bars that must never fall, at a quick setting.  Full figures: `make benchmark`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from conftest import call_xmodal

REAL = Path(os.environ.get("XMODAL_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CORTEX, CITE, FORTY = (
    REAL / name for name in ("mouse_cortex_snareseq_dev", "human_pbmc_citeseq_dev", "human_pbmc_multiome_40cells")
)
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not CORTEX.is_dir(), reason=f"skipped, because there is no real data at {REAL} (XMODAL_REAL_DATA)"
    ),
]


def done(*args: object) -> str:
    ran = call_xmodal(*args, "--quiet", "--threads", 2)
    assert ran.code == 0, ran.err
    return ran.out


@pytest.fixture(scope="module")
def cortex(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared cortex and a quickly trained model."""
    folder = tmp_path_factory.mktemp("cortex")
    filters = ["--exclude", "cell_type=Mis", "--min-rna-counts", 50, "--min-peaks", 15, "--min-peak-fraction", 0.005]
    prepared = folder / "p.h5mu"
    done("prepare", "--h5mu", CORTEX / "paired.h5mu", "--output", prepared, "--split-by", "batch", *filters)
    genes = REAL / "tables" / "genes_mm10.tsv.gz"
    done("train", prepared, "--output-dir", folder / "m", "--gene-table", genes, "--set", "epochs=12")
    return folder


@pytest.mark.slow
def test_crossmp_beats_mean_and_depth_on_unseen_batches(cortex: Path) -> None:
    prepared, checkpoint = cortex / "p.h5mu", cortex / "m" / "model.safetensors"
    for source, target in (("atac", "rna"), ("rna", "atac")):
        out = cortex / f"{target}.h5ad"
        done(
            "predict",
            prepared,
            "--from",
            source,
            "--to",
            target,
            "--split",
            "test",
            "--checkpoint",
            checkpoint,
            "--output",
            out,
        )
    scored = ["--prediction", f"rna={cortex}/rna.h5ad", "--prediction", f"atac={cortex}/atac.h5ad"]
    controls = ["--controls", "mean,depth", "--umap-cells", 0, "--label-key", "cell_type"]
    done("evaluate", prepared, *scored, *controls, "--output-dir", cortex / "scores")
    targets = json.loads((cortex / "scores" / "metrics.json").read_text())["targets"]
    bars = {
        "rna": ("gene_pearson", "cell_pearson_centred", "label_transfer_macro"),
        "atac": ("peak_auroc", "label_transfer_macro"),
    }
    for target, names in bars.items():
        methods = targets[target]["methods"]
        for name in names:
            assert methods["prediction"][name] > max(methods["mean"][name], methods["depth"][name]), (target, name)
    metrics = json.loads((cortex / "m" / "metrics.json").read_text())
    assert metrics["split"]["by"] == "batch" and not set(metrics["split"]["groups"]["test"]) & set(
        metrics["split"]["groups"]["train"]
    )


@pytest.mark.parametrize("folder", [CITE, FORTY, REAL / "text_human_pbmc3k"], ids=lambda p: p.name)
def test_human_cells_are_refused_by_a_mouse_model(cortex: Path, folder: Path, tmp_path: Path) -> None:
    checkpoint = cortex / "m" / "model.safetensors"
    ran = call_xmodal(
        "predict",
        folder / "rna.h5ad",
        "--from",
        "rna",
        "--to",
        "atac",
        "--checkpoint",
        checkpoint,
        "--output",
        tmp_path / "p.h5ad",
    )
    assert ran.code == 3 and ("features of the checkpoint" in ran.err or "trained on mm10" in ran.err)
    assert not list(tmp_path.iterdir())


def test_full_width_features(tmp_path: Path) -> None:
    """40 cells x 12,685 genes x 66,484 peaks: the widths of a real Multiome."""
    prepared, folder = tmp_path / "p.h5mu", tmp_path / "m"
    pair = ["--rna", FORTY / "rna.h5ad", "--atac", FORTY / "atac.h5ad"]
    done("prepare", *pair, "--output", prepared, "--genome", "hg38", "--min-peak-fraction", 0)
    done("train", prepared, "--output-dir", folder, "--model", "linear")
    done(
        "predict",
        FORTY / "rna.h5ad",
        "--to",
        "atac",
        "--checkpoint",
        folder / "model.safetensors",
        "--output",
        tmp_path / "a.h5ad",
    )
    out = ad.read_h5ad(tmp_path / "a.h5ad")
    assert out.shape == (40, 66_484) and np.isfinite(out.X).all()


def test_protein_goes_through_the_same_code(tmp_path: Path) -> None:
    prepared, folder = tmp_path / "p.h5mu", tmp_path / "m"
    done("prepare", "--h5mu", CITE / "paired.h5mu", "--output", prepared)
    done("train", prepared, "--output-dir", folder, "--set", "epochs=20", "--set", "batch_size=64")
    out = tmp_path / "protein.h5ad"
    done(
        "predict",
        prepared,
        "--to",
        "protein",
        "--split",
        "test",
        "--checkpoint",
        folder / "model.safetensors",
        "--output",
        out,
    )
    done("evaluate", prepared, "--prediction", f"protein={out}", "--output-dir", tmp_path / "s", "--umap-cells", 0)
    methods = json.loads((tmp_path / "s" / "metrics.json").read_text())["targets"]["protein"]["methods"]
    assert methods["prediction"]["gene_pearson"] > methods["depth"]["gene_pearson"] + 0.1
    assert ad.read_h5ad(out).uns["xmodal"]["units"] == "CLR"
