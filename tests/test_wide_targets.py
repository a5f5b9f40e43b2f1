"""Output for wide targets: chosen features, values above a threshold, and a size that is known and refused beforehand."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from conftest import Ran, call_xmodal

LEAST = 0.3


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    done = call_xmodal("train", prepared, "--model", "linear", "--output-dir", folder, "--quiet", "--threads", 1)
    assert done.code == 0, done.err
    return folder / "model.safetensors"


def predict(model: Path, cells: Path, output: Path, *more: object, to: str = "atac") -> Ran:
    given = ["--to", to, "--checkpoint", model, "--output", output, "--threads", 1]
    return call_xmodal("predict", cells, *given, *more)


@pytest.fixture(scope="module")
def whole(model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("all") / "p.h5ad"
    assert predict(model, prepared, path).code == 0
    return path


def region(adata: ad.AnnData) -> tuple[str, list[str]]:
    """A region around the first peaks of a chromosome, and the peaks in it, by the plain definition of an overlap."""
    var = adata.var
    chrom = var["chrom"].iloc[0]
    one = var[var["chrom"] == chrom].sort_values("start")
    first, last = int(one["start"].iloc[0]), int(one["start"].iloc[4]) + 1
    inside = (var["chrom"] == chrom) & (var["start"] < last) & (var["end"] > first)
    return f"{chrom}:{first}-{last}", list(var.index[inside])


def test_chosen_features_are_those_of_the_whole(model: Path, prepared: Path, whole: Path, tmp_path: Path) -> None:
    every = ad.read_h5ad(whole)
    place, inside = region(every)
    last = every.var_names[-1]
    wanted = [f for f in every.var_names if f in {*inside, last}]
    done = predict(model, prepared, tmp_path / "p.h5ad", "--features", f"{last},{place}", "--summary", tmp_path / "s")
    assert done.code == 0 and f"{len(wanted)} features (of {every.n_vars})" in done.out, done.err
    part = ad.read_h5ad(tmp_path / "p.h5ad")
    assert list(part.var_names) == wanted and 5 <= len(wanted) < every.n_vars
    np.testing.assert_array_equal(part.X, every[:, wanted].X)
    for layer in ("xmodal_lower", "xmodal_upper"):
        np.testing.assert_array_equal(part.layers[layer], every[:, wanted].layers[layer])
    right = every.var.loc[wanted]  # subsets drop categories, so compare the words
    pd.testing.assert_frame_equal(part.var.astype(str), right.astype(str))
    summary = json.loads((tmp_path / "s").read_text())
    assert summary["chosen"]["of"] == every.n_vars and summary["features"] == len(wanted)
    assert sum(summary["interval"]["trust"].values()) == len(wanted)


def test_names_regions_and_files_choose_the_same(model: Path, prepared: Path, whole: Path, tmp_path: Path) -> None:
    every = ad.read_h5ad(whole)
    place, inside = region(every)
    chrom, start, end = place.replace("-", ":").split(":")
    bed = f"track name=x\n#c\n{chrom.removeprefix('chr')}\t{start}\t{end}\tmine\n"
    (tmp_path / "a.bed").write_text(bed)
    (tmp_path / "a.bed.gz").write_bytes(gzip.compress(bed.encode()))
    (tmp_path / "names.txt").write_text("# mine\n" + "\n".join(reversed(inside)) + "\n\n")
    files = [tmp_path / "a.bed", tmp_path / "a.bed.gz", tmp_path / "names.txt"]
    ways = [(place,), (place.replace(":", "_"),), *((f,) for f in files), tuple(inside), (",".join(inside), place)]
    made = []
    for i, way in enumerate(ways):
        out = tmp_path / f"{i}.h5ad"
        assert predict(model, prepared, out, *(x for w in way for x in ("--features", w))).code == 0
        made.append(out.read_bytes())
    assert len(set(made)) == 1


def test_shards_of_chosen_features_merge(model: Path, prepared: Path, whole: Path, tmp_path: Path) -> None:
    names = ad.read_h5ad(whole).var_names
    given = ("--features", ",".join(names[3:9]))
    assert predict(model, prepared, tmp_path / "whole.h5ad", *given).code == 0
    for i in (1, 2):
        assert predict(model, prepared, tmp_path / f"{i}.h5ad", *given, "--shard", f"{i}/2").code == 0
    parts = [tmp_path / "1.h5ad", tmp_path / "2.h5ad"]
    assert call_xmodal("merge", *parts, "--output", tmp_path / "m.h5ad").code == 0
    assert (tmp_path / "m.h5ad").read_bytes() == (tmp_path / "whole.h5ad").read_bytes()
    other = ("--features", ",".join(names[4:10]), "--shard", "2/2", "--overwrite")  # as many, but others
    assert predict(model, prepared, parts[1], *other).code == 0
    done = call_xmodal("merge", *parts, "--output", tmp_path / "m2.h5ad")
    assert done.code == 3 and "differ in 'settings'" in done.err


def test_genes_in_a_copy_of_the_cells(model: Path, prepared: Path, simulated: Path, tmp_path: Path) -> None:
    genes = list(mu.read_h5mu(prepared).mod["rna"].var_names[[2, 0]])
    assert predict(model, prepared, tmp_path / "p.h5mu", "--features", ",".join(genes), to="rna").code == 0
    rna = mu.read_h5mu(tmp_path / "p.h5mu").mod["rna"]
    there = np.isfinite(rna.layers["xmodal_predicted"]).any(0)
    assert set(rna.var_names[there]) == set(genes) and rna.var.loc[genes, "xmodal_trust"].notna().all()
    out = tmp_path / "new.h5mu"
    assert predict(model, simulated / "atac.h5ad", out, "--features", genes[0], to="rna").code == 0
    assert list(mu.read_h5mu(out).mod["rna"].var_names) == genes[:1]


@pytest.mark.parametrize(
    ("to", "asked", "said"),
    [
        ("rna", "GENE1x", "is no rna feature"),
        ("rna", "chr1:1-100000", "does not know where features of rna lie"),
        ("atac", "chr1:900000000-900000001", "no atac feature of the checkpoint is among"),
        ("atac", "chr1:10-5", "is no atac feature"),
        ("atac", ",", "no atac feature"),
    ],
)
def test_what_is_no_feature_is_refused(
    model: Path, prepared: Path, tmp_path: Path, to: str, asked: str, said: str
) -> None:
    done = predict(model, prepared, tmp_path / "p.h5ad", "--features", asked, to=to)
    assert done.code == 3 and said in done.err and "--features" in done.err and not (tmp_path / "p.h5ad").exists()


def test_near_names_and_bad_files_are_told(model: Path, prepared: Path, tmp_path: Path) -> None:
    gene = mu.read_h5mu(prepared).mod["rna"].var_names[0]
    done = predict(model, prepared, tmp_path / "p.h5ad", "--features", gene.lower() + "x", to="rna")
    assert done.code == 3 and "near names such as" in done.err and gene in done.err
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "bad.bed").write_text("chr1\t1\t90\nchr1\t50\t20\n")
    for name, said in (("empty", "no names and no regions"), ("binary", "no text"), ("bad.bed", "line 2")):
        done = predict(model, prepared, tmp_path / "p.h5ad", "--features", tmp_path / name)
        assert done.code == 3 and said in done.err, done.err


def test_a_prediction_of_some_features_is_scored_and_reported(
    model: Path, prepared: Path, whole: Path, tmp_path: Path
) -> None:
    place, inside = region(ad.read_h5ad(whole))
    p, given = tmp_path / "p.h5ad", ("--features", place, "--split", "test", "--summary", tmp_path / "s.json")
    assert predict(model, prepared, p, *given, "--overview", tmp_path / "seen").code == 0
    done = call_xmodal("evaluate", prepared, "--prediction", f"atac={p}", "--output-dir", tmp_path / "e")
    assert done.code == 3 and "features have no prediction" in done.err and "--features predicted" in done.err
    again = ["--features", "predicted", "--output-dir", tmp_path / "e", "--umap-cells", 0, "--controls", "mean"]
    done = call_xmodal("evaluate", prepared, "--prediction", f"atac={p}", *again)
    assert done.code == 0, done.err
    target = json.loads((tmp_path / "e" / "metrics.json").read_text())["targets"]["atac"]
    assert target["features"] == len(inside)
    seen = ["--overview", f"a={tmp_path / 'seen'}", "--evaluation", tmp_path / "e"]
    done = call_xmodal("report", "--prediction", f"a={tmp_path / 's.json'}", *seen, "--output", tmp_path / "r.html")
    assert done.code == 0 and "as asked for" in (tmp_path / "r.html").read_text(), done.err


@pytest.fixture(scope="module")
def above(model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("above") / "p.h5ad"
    done = predict(model, prepared, path, "--threshold", LEAST, "--overview", path.parent / "seen")
    assert done.code == 0 and "values of at least 0.3" in done.out, done.err
    return path


def test_values_of_at_least_the_threshold_are_kept(whole: Path, above: Path) -> None:
    every, part = ad.read_h5ad(whole), ad.read_h5ad(above)
    kept = part.X
    assert isinstance(kept, sp.csr_matrix) and kept.dtype == np.float32 and kept.indices.dtype == np.int32
    right = np.where(np.float32(LEAST) <= every.X, every.X, 0)
    assert 0 < kept.nnz < right.size and kept.has_sorted_indices and not part.layers
    np.testing.assert_array_equal(kept.toarray(), right)
    about = part.uns["xmodal"]
    assert about["threshold"] == LEAST and json.loads(about["settings"])["interval"]["level"] == 0
    cells = (above.parent / "seen" / "features.tsv").read_text().splitlines()
    assert "cells_kept" in cells[0]


def test_shards_above_a_threshold_merge_to_the_same_bytes(
    model: Path, prepared: Path, above: Path, tmp_path: Path
) -> None:
    for i in (1, 2, 3):  # more shards than batches: one is empty
        assert predict(model, prepared, tmp_path / f"{i}.h5ad", "--threshold", LEAST, "--shard", f"{i}/3").code == 0
    done = call_xmodal("merge", *(tmp_path / f"{i}.h5ad" for i in (2, 3, 1)), "--output", tmp_path / "m.h5ad")
    assert done.code == 0 and (tmp_path / "m.h5ad").read_bytes() == above.read_bytes(), done.err


def test_a_threshold_that_nothing_reaches(model: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.h5ad"
    done = predict(model, prepared, out, "--threshold", 2, "--overview", tmp_path / "seen")
    assert done.code == 0 and ad.read_h5ad(out).X.nnz == 0, done.err


def test_evaluate_needs_all_values(prepared: Path, above: Path, tmp_path: Path) -> None:
    done = call_xmodal("evaluate", prepared, "--prediction", f"atac={above}", "--output-dir", tmp_path / "e")
    assert done.code == 3 and "values of at least 0.3" in done.err and "without --threshold" in done.err


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("p.h5mu", ("--threshold", 1), "--threshold writes a sparse .h5ad"),
        ("p.h5ad", ("--threshold", 1, "--top", 2), "exclude each other"),
        ("p.h5ad", ("--threshold", 1, "--interval", 0.9), "--threshold and --interval exclude each other"),
        ("p.h5ad", ("--threshold", "nan"), "give a number"),
    ],
)
def test_what_does_not_go_together(
    model: Path, prepared: Path, tmp_path: Path, output: str, more: tuple[object, ...], said: str
) -> None:
    done = predict(model, prepared, tmp_path / output, *more)
    assert done.code == 2 and said in done.err and not (tmp_path / output).exists()


def test_a_large_output_is_refused_before_it_is_computed(model: Path, prepared: Path, tmp_path: Path) -> None:
    cells = mu.read_h5mu(prepared)
    cells, features = cells.mod["rna"].n_obs, cells.mod["atac"].n_vars
    gb = cells * features * 4 / 1e9
    for more, size in (((), 3 * gb), (("--interval", 0), gb), (("--top", 5), cells * 5 * 8 / 1e9)):
        out = tmp_path / "p.h5ad"
        done = predict(model, prepared, out, *more, "--max-size", size * 0.99)
        assert done.code == 3 and f"{size:,.3g} GB" in done.err and not out.exists(), done.err
        assert all(word in done.err for word in ("--features", "--top", "--max-size"))
        assert ("--interval 0" in done.err) == (not more)
        assert predict(model, prepared, out, *more, "--max-size", size * 1.01, "--overwrite").code == 0
        out.unlink()
    done = predict(model, prepared, tmp_path / "t.h5ad", "--threshold", 0, "--max-size", 1e-6)
    assert done.code == 3 and "a higher --threshold" in done.err and list(tmp_path.iterdir()) == []


def test_room_on_the_disk_is_asked_for_as_well(
    model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("", (), {"free": 10})())
    done = predict(model, prepared, tmp_path / "p.h5ad", "--interval", 0)
    assert done.code == 3 and "are free" in done.err and list(tmp_path.iterdir()) == []
