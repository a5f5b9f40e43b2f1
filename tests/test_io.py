from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from helpers_data import GENES, PEAKS, REAL, cells, needs_real, pair, write, write_10x
from xmodal.data import io
from xmodal.data.genome import genome_of
from xmodal.errors import InputRefused


def test_h5ad_is_csr_float32_with_labels(tmp_path: Path) -> None:
    adata = cells(GENES)
    adata.X = adata.X.toarray()
    mdata = io.read_cells(write(adata, tmp_path / "a.h5ad"))
    assert (
        list(mdata.mod) == ["rna"] and isinstance(mdata["rna"].X, sp.csr_matrix) and mdata["rna"].X.dtype == np.float32
    )
    assert np.array_equal(mdata["rna"].X.toarray(), adata.X)
    assert mdata.obs["donor"].tolist() == adata.obs["donor"].tolist()


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        (PEAKS, "atac"),
        ([p.replace(":", "-") for p in PEAKS], "atac"),
        (GENES, "rna"),
        ([f"ENSMUSG0000000000{i}.2" for i in range(5)], "rna"),
        (["CD3_TotalSeqB", "CD4_TotalSeqB", "IgG_TotalSeqB"], "protein"),
    ],
)
def test_modality_from_feature_names(tmp_path: Path, names: list[str], modality: str) -> None:
    assert list(io.read_cells(write(cells(names), tmp_path / "a.h5ad")).mod) == [modality]


def test_modality_said_by_the_file_or_the_caller_or_refused(tmp_path: Path) -> None:
    adata = cells(["CD3", "CD4", "CD19"])
    with pytest.raises(InputRefused, match=r"which modality .*CD3.*--from"):
        io.read_cells(write(adata, tmp_path / "a.h5ad"))
    assert list(io.read_cells(tmp_path / "a.h5ad", "protein").mod) == ["protein"]
    adata.uns["xmodal"] = {"target": "protein"}
    assert list(io.read_cells(write(adata, tmp_path / "b.h5ad")).mod) == ["protein"]
    del adata.uns["xmodal"]
    adata.var["feature_types"] = ["Gene Expression", "Antibody Capture", "Antibody Capture"]
    assert {n: p.n_vars for n, p in io.read_cells(write(adata, tmp_path / "c.h5ad")).mod.items()} == {
        "rna": 1,
        "protein": 2,
    }


def test_10x_h5(tmp_path: Path) -> None:
    mdata = io.read_cells(write_10x(tmp_path / "filtered.h5"))
    assert {n: p.shape for n, p in mdata.mod.items()} == {"rna": (6, 4), "atac": (6, 3), "protein": (6, 1)}
    assert genome_of(mdata, "atac") == "hg38" and genome_of(mdata, "rna") == "hg38"
    assert list(mdata["rna"].var["gene_ids"])[:1] == ["ENSG00000000000"]


def test_labels_merge_under_plain_names(tmp_path: Path) -> None:
    mu.set_options(pull_on_update=False)
    rna, atac = cells(GENES, 4), cells(PEAKS, 4)[1:].copy()
    atac.obs_names = ["c001", "c002", "new"]
    atac.obs["only"] = pd.Categorical(["x", "y", "z"])
    mdata = mu.MuData({"rna": rna, "atac": atac})
    mdata.obs["rna:prefixed"] = [1, 2, 3, 4, 5]
    mdata.write_h5mu(tmp_path / "a.h5mu")
    obs = io.read_cells(tmp_path / "a.h5mu").obs
    assert obs.loc["c000", "donor"] == "d0" and obs.loc["new", "donor"] == "d3"
    assert obs.loc["c001", "only"] == "x" and pd.isna(obs.loc["c000", "only"])
    assert obs["prefixed"].tolist() == [1, 2, 3, 4, 5]


def test_what_is_not_a_file_of_cells(tmp_path: Path) -> None:
    good = write(cells(GENES), tmp_path / "good.h5ad")
    (tmp_path / "empty.h5ad").touch()
    (tmp_path / "text.h5ad").write_text("gene\tcount\n")
    (tmp_path / "cut.h5ad").write_bytes(good.read_bytes()[:6000])
    (tmp_path / "is.h5mu").write_bytes(good.read_bytes())
    (tmp_path / "is.h5").write_bytes(good.read_bytes())
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["x"] = 1
    with h5py.File(tmp_path / "half.h5ad", "w") as file:
        file.create_group("obs"), file.create_group("var")
    write(cells(GENES)[:0].copy(), tmp_path / "nocells.h5ad")
    write(cells(GENES)[:, :0].copy(), tmp_path / "nofeatures.h5ad")
    write(ad.AnnData(obs=cells(GENES).obs, var=cells(GENES).var), tmp_path / "nox.h5ad")
    expected = {
        "absent.h5ad": "no such file",
        "empty.h5ad": "empty",
        "text.h5ad": "not an HDF5",
        "cut.h5ad": "truncated",
        "is.h5mu": "says h5mu, the content is h5ad.*is.h5ad",
        "is.h5": "says 10x h5",
        "other.h5ad": "neither h5ad",
        "half.h5ad": "no cells",
        "nocells.h5ad": "no cells",
        "nofeatures.h5ad": "no features",
        "nox.h5ad": "no matrix",
        "": "folder",
    }
    for name, message in expected.items():
        with pytest.raises(InputRefused, match=message) as caught:
            io.read_cells(tmp_path / name, "rna")
        assert str(tmp_path / name) in str(caught.value) and "What to do" in str(caught.value)


def test_cut_or_damaged_content_is_refused(tmp_path: Path) -> None:
    io.write_h5ad(cells(GENES), tmp_path / "a.h5ad")
    raw = bytearray((tmp_path / "a.h5ad").read_bytes())
    with h5py.File(tmp_path / "a.h5ad") as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    damaged = raw.copy()
    damaged[chunk.byte_offset : chunk.byte_offset + 20] = bytes(20)
    for content in (damaged, raw[: len(raw) // 2], raw[: len(raw) - 10], raw[:100]):
        (tmp_path / "b.h5ad").write_bytes(content)
        with pytest.raises(InputRefused, match=r"truncated|broken"):
            io.read_cells(tmp_path / "b.h5ad", "rna")


def test_writing_is_byte_reproducible_and_atomic(tmp_path: Path) -> None:
    rna, atac = pair(tmp_path)
    for name in ("a", "b"):
        mdata = io.joined({"rna": io.read_cells(rna)["rna"], "atac": io.read_cells(atac)["atac"]})
        io.write_h5mu(mdata, tmp_path / f"{name}.h5mu")
    io.write_h5ad(mdata["rna"], tmp_path / "a.h5ad")
    io.write_h5ad(mdata["rna"], tmp_path / "b.h5ad")
    for ending in ("h5mu", "h5ad"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    with pytest.raises(InputRefused, match="--overwrite"):
        io.write_h5ad(mdata["rna"], tmp_path / "a.h5ad")
    io.write_h5ad(mdata["rna"], tmp_path / "a.h5ad", overwrite=True)


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from helpers_data import cells
from xmodal import cli
from xmodal.data import io
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
adata = cells([f"g{i}" for i in range(400)], 300)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
cli.cli.main = lambda **_: io.write_h5ad(adata, sys.argv[1])
cli.main()
"""


def test_a_full_disk_leaves_nothing_and_one_message(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(tmp_path / "a.h5ad"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("xmodal: error: ") and "no space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


@needs_real
@pytest.mark.real_data
def test_real_files() -> None:
    mdata = io.read_cells(REAL / "mouse_cortex_snareseq_dev" / "paired.h5mu")
    assert (
        mdata["atac"].shape == (7844, 25734)
        and genome_of(mdata, "atac") == "mm10"
        and mdata.obs["batch"].nunique() == 9
    )
    small = io.read_cells(REAL / "human_pbmc_multiome_40cells" / "atac.h5ad")
    assert genome_of(small, "atac") == "hg38"


def test_stored_zeros_are_no_counts() -> None:
    import numpy as np
    import scipy.sparse as sp

    stored = sp.csr_matrix((np.array([1, 0, 2], np.float32), ([0, 0, 1], [0, 1, 1])), (2, 2))
    assert io.csr(stored).nnz == 2
    assert stored.nnz == 3, "the matrix that was given stays as it is"
