"""The benchmark's table of methods, its measuring, the peers' contract, and its tables; no peer environment is needed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = BENCHMARKS / "peers"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a benchmark module by name; all of them are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """120 cells of three kinds, 30 genes, 60 peaks, in the form a peer gets."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 120)
    split = np.repeat(["train", "valid", "test"], [70, 20, 30])
    chrom = np.repeat(["chr1", "chr2"], 30)
    start = np.tile(np.arange(30) * 10_000, 2)
    peaks = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500}, index=[f"p{i}" for i in range(60)])
    for name, width, var in (("rna", 30, pd.DataFrame(index=[f"g{i}" for i in range(30)])), ("atac", 60, peaks)):
        counts = rng.poisson(rng.gamma(1, 1.0, (3, width))[kind]).astype(np.float32)
        obs = pd.DataFrame({"xmodal_split": split, "xmodal_depth": counts.sum(1)}, index=[f"c{i}" for i in range(120)])
        ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var).write_h5ad(tmp_path / f"{name}.h5ad")
    genes = [f"g{i}\tchr1\t{i * 10_000 + 1000}\t{i * 10_000 + 3000}\t{'+-'[i % 2]}" for i in range(30)]
    (tmp_path / "genes.tsv").write_text("\n".join(["symbol\tchrom\tstart\tend\tstrand", *genes]) + "\n")
    return tmp_path


def predict(module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> dict[str, ad.AnnData]:
    files = [str(folder / f"{m}.h5ad") for m in ("rna", "atac")]
    options = ["--genes", str(folder / "genes.tsv"), *[f"--setting={s}" for s in settings]]
    monkeypatch.setattr(sys, "argv", ["peer", *files, str(folder / "out"), *options])
    module.main()
    assert "train_s" in json.loads((folder / "out_extra.json").read_text())
    return {m: ad.read_h5ad(p) for m in ("rna", "atac") if (p := folder / f"out_{m}.h5ad").exists()}


def test_methods_are_complete_and_pinned(load: Callable[[str], ModuleType]) -> None:
    sets, methods = load("peer_methods").read()
    for method in methods.values():
        assert set(method.sets) <= set(sets)
        assert sum(bool(v) for v in (method.model, method.script, method.unavailable)) == 1
        if method.script:
            assert (SCRIPTS / f"{method.script}.py").is_file()
            lines = (SCRIPTS / f"{method.env}.txt").read_text().split()
            assert lines and all("==" in line and "/" not in line for line in lines)


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("linear", ("method=pls", "components=auto")),
        ("linear", ("method=ridge",)),
        ("linear", ("method=knn",)),
        ("label_transfer", ()),
    ],
)
def test_peers_predict_test_cells_without_looking_at_them(
    load: Callable[[str], ModuleType],
    cells: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    settings: tuple[str, ...],
) -> None:
    first = predict(load(script), cells, monkeypatch, *settings)
    assert {m: a.shape for m, a in first.items()} == {"rna": (30, 30), "atac": (30, 60)}
    assert list(first["rna"].obs_names) == [f"c{i}" for i in range(90, 120)]
    assert all(np.isfinite(a.X).all() for a in first.values())
    rna = ad.read_h5ad(cells / "rna.h5ad")
    changed = rna.X.toarray()
    changed[90:] = 7 - np.minimum(changed[90:], 7)
    rna.X = sp.csr_matrix(changed)
    rna.write_h5ad(cells / "rna.h5ad")
    assert np.allclose(predict(load(script), cells, monkeypatch, *settings)["rna"].X, first["rna"].X, atol=1e-4)


def test_gene_activity_counts_peaks_of_body_and_promoter(
    load: Callable[[str], ModuleType], cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peaks end 500 bases before the body of their gene starts: upstream where the strand is +, downstream where it is -."""
    found = predict(load("gene_activity"), cells, monkeypatch)
    atac = ad.read_h5ad(cells / "atac.h5ad").X.toarray()[90:]
    expected = np.log1p(atac[:, 0] / atac.sum(1) * 1e4)
    assert list(found) == ["rna"]
    assert np.allclose(found["rna"].X[:, 0], expected, atol=1e-4)
    assert not found["rna"].X[:, 1].any()


def test_measuring_keeps_the_reason_of_a_failure(load: Callable[[str], ModuleType]) -> None:
    module = load("peer_methods")
    used = module.Used()
    module.measured([sys.executable, "-c", "x = bytearray(60_000_000)"], used, 60, 1)
    assert used.peak_mib >= 60 and used.wall_s > 0
    with pytest.raises(module.Failed, match="the reason"):
        module.measured([sys.executable, "-c", "raise SystemExit('the reason')"], used, 60, 1)
    with pytest.raises(module.Failed, match="not finished after"):
        module.measured([sys.executable, "-c", "import time; time.sleep(60)"], used, 0.2, 1)


def entry(digest: str = "d", **scores: float) -> dict[str, Any]:
    return {"targets": {"rna": scores}, "digest": digest, "train_s": 1, "wall_s": 2, "peak_mib": 3, "threads": 1}


def test_tables_show_intervals_ratios_and_reasons(load: Callable[[str], ModuleType]) -> None:
    tables, (sets, methods) = load("peer_tables"), load("peer_methods").read()
    counts = {"cells": {"train": 1, "valid": 1, "test": 1}, "features": {"rna": 1, "atac": 1}, "digest": "d"}
    rows = {
        "pls10": {"0": entry(gene_pearson=0.1)},
        "crossmp": {str(i): entry(gene_pearson=v) for i, v in enumerate((0.15, 0.2, 0.3))},
        "knn": {"0": entry("older cells", gene_pearson=0.9)},
        "glue": {"0": {"skipped": "its environment is not there", "digest": "d"}},
    }
    page = tables.markdown({"cortex": {"about": counts, "methods": rows}}, sets, methods)
    assert "0.200 [0.150, 0.300]" in page and "| crossmp | 2.00 |" in page
    assert "GLUE: skipped, because its environment is not there" in page
    assert "0.900" not in page and "kNN-50: skipped" in page


def test_nothing_stops_the_run(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods_module, module = load("peer_methods"), load("peers")
    sets, methods = methods_module.read()
    monkeypatch.setattr(methods_module, "REAL", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "peers.json")
    given = module.argparse.Namespace(seeds=1, threads=1, redo=[])
    module.run_set("cortex", sets["cortex"], methods, given)
    assert not (tmp_path / "peers.json").exists()
    cells = methods_module.Cells("cortex", tmp_path, "atac", None, "cell_type", {"digest": "d"})
    monkeypatch.setattr(methods_module, "ENVIRONMENTS", tmp_path)
    found = module.measure(methods["glue"], cells, 0, 1)
    assert found["digest"] == "d" and "is not there" in found["skipped"]
