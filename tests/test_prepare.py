from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from click.testing import CliRunner

from helpers_data import GENES, PEAKS, REAL, cells, needs_real, pair, write, write_10x
from xmodal.cli.prepare import command
from xmodal.data import io, joining
from xmodal.data.preparation import PrepareSettings, prepare
from xmodal.data.samples import SampleFiles, read_samplesheet
from xmodal.errors import InputRefused, UsageRefused, XmodalError


def run(files: dict[str, Path], seed: int = 0, **settings: Any) -> tuple[mu.MuData, dict[str, Any]]:
    return prepare([SampleFiles("s", files)], PrepareSettings(**settings), seed)


def call(*args: Any) -> Any:
    return CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=True)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rna, atac = pair(tmp_path)
    return {"rna": rna, "atac": atac}


def test_the_prepared_file_is_as_the_architecture_says(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.h5mu"
    done = call(
        "--rna",
        files["rna"],
        "--atac",
        files["atac"],
        "--output",
        out,
        "--summary",
        tmp_path / "s.json",
        "--split-by",
        "donor",
        "--seed",
        3,
    )
    assert done.exit_code == 0, done
    mdata = mu.read_h5mu(out)
    assert isinstance(mdata["rna"].X, sp.csr_matrix) and mdata["rna"].X.dtype == np.float32
    source = ad.read_h5ad(files["rna"])
    assert np.array_equal(mdata["rna"].X.toarray(), source.X.toarray())
    assert np.array_equal(mdata["rna"].obs["xmodal_depth"], source.X.toarray().sum(1))
    assert not mdata["rna"].obs["xmodal_empty"].any()
    assert list(mdata["atac"].var.columns) == ["chrom", "start", "end"] and mdata["atac"].uns["genome"] == "hg38"
    assert set(mdata.obs.columns) == {"kind", "donor", "xmodal_sample", "xmodal_split"}
    assert pd.crosstab(mdata.obs["donor"], mdata.obs["xmodal_split"]).gt(0).sum(1).eq(1).all()
    about = mdata.uns["xmodal"]
    assert about["schema"] == "xmodal-prepared/1" and about["command"] == "prepare" and about["seed"] == 3
    settings = json.loads(about["settings"])
    assert settings["modalities"] == {
        "rna": {"likelihood": "nb", "scale": "log1p_cp10k", "genome": "hg38"},
        "atac": {"likelihood": "bernoulli", "scale": "binary", "genome": "hg38"},
    }
    assert settings["split"]["source"] == "groups" and settings["counts"]["paired"] == 30
    assert json.loads((tmp_path / "s.json").read_text()) == settings
    assert str(tmp_path) not in json.dumps(settings)


def test_equal_input_gives_equal_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert (
            call("--rna", files["rna"], "--atac", files["atac"], "--output", tmp_path / f"{name}.h5mu").exit_code == 0
        )
    assert (tmp_path / "a.h5mu").read_bytes() == (tmp_path / "b.h5mu").read_bytes()


def test_options_that_do_not_fit(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "o.h5mu"
    for args in (
        [],
        ["--rna", files["rna"], "--samplesheet", "x.csv"],
        ["--modality", "x"],
        ["--rna", files["rna"], "--split-by", "donor", "--split", "random"],
        ["--rna", files["rna"], "--test-groups", "a"],
        ["--rna", files["rna"], "--likelihood", "rna=poisson"],
        ["--rna", files["rna"], "--likelihood", "rma=nb"],
        ["--rna", files["rna"], "--exclude", "donor"],
    ):
        done = call(*args, "--output", out)
        assert isinstance(done.exception, UsageRefused), (args, done.exception)
    assert not out.exists()
    out.write_text("mine")
    done = call("--rna", files["rna"], "--output", out)
    assert (
        isinstance(done.exception, InputRefused) and "--overwrite" in str(done.exception) and out.read_text() == "mine"
    )


def test_filters_come_before_the_split_and_peaks_are_chosen_by_training_cells(files: dict[str, Path]) -> None:
    atac = ad.read_h5ad(files["atac"])
    dense = atac.X.toarray()
    donor = atac.obs["donor"].to_numpy()
    dense[:, 0], dense[:, 1] = (donor == "d1").astype(int), 0  # open in test cells only; never open
    atac.X = sp.csr_matrix(dense)
    write(atac, files["atac"])
    mdata, facts = run(files, split_by="donor", test_groups=("d1",), exclude=("kind=k0", "donor=d0"), min_peaks=1)
    assert PEAKS[0] not in mdata["atac"].var_names and PEAKS[1] not in mdata["atac"].var_names
    assert set(mdata.obs["kind"]) == {"k1"} and "d0" not in set(mdata.obs["donor"])
    assert facts["counts"]["cells"]["exclude kind=k0"] == 15 and facts["counts"]["features"]["atac"]["before"] == 16
    whole = pd.Series(dense.sum(1), index=atac.obs_names)[mdata["atac"].obs_names]
    assert np.array_equal(mdata["atac"].obs["xmodal_depth"], whole)  # over all peaks, before any was dropped
    with pytest.raises(InputRefused, match=r"no cells are left of 30 .*min_rna_counts: 30"):
        run(files, min_rna_counts=1000)
    with pytest.raises(InputRefused, match="did you mean 'kind'"):
        run(files, exclude=("kin=k0",))


def test_exclude_cells_without_a_value(files: dict[str, Path]) -> None:
    rna = ad.read_h5ad(files["rna"])
    rna.obs.loc[rna.obs_names[:4], "donor"] = np.nan
    with pytest.raises(InputRefused, match="no value"):
        run({"rna": write(rna, files["rna"])}, split_by="donor")
    assert run({"rna": files["rna"]}, split_by="donor", exclude=("donor=",))[0].n_obs == 26


def test_own_split_is_used_unless_asked_otherwise_and_depth_survives(files: dict[str, Path], tmp_path: Path) -> None:
    first, _ = run(files, split_by="donor", min_peak_fraction=0.3)
    io.write_h5mu(first, tmp_path / "p.h5mu")
    again, facts = run({"h5mu": tmp_path / "p.h5mu"}, seed=9)
    assert facts["split"]["source"] == "file"
    assert again.obs["xmodal_split"].astype(str).equals(first.obs["xmodal_split"].astype(str))
    assert np.array_equal(again["atac"].obs["xmodal_depth"], first["atac"].obs["xmodal_depth"])
    assert run({"h5mu": tmp_path / "p.h5mu"}, split="random")[1]["split"]["source"] == "random"
    with pytest.raises(InputRefused, match="xmodal_split"):
        run(files, split="file")


def test_10x_with_duplicated_symbols_and_protein(tmp_path: Path) -> None:
    mdata, facts = run({"h5": write_10x(tmp_path / "m.h5")}, min_peak_fraction=0)
    assert (
        list(mdata["rna"].var_names) == ["TMEM1", "TMEM2", "LINC5"] and facts["counts"]["duplicates_summed"]["rna"] == 1
    )
    assert mdata["rna"].var["gene_id"].tolist() == ["ENSG00000000000", "ENSG00000000001", "ENSG00000000003"]
    raw = np.arange(48).reshape(6, 8) % 5
    assert np.array_equal(mdata["rna"].X.toarray()[:, 0], raw[:, 0] + raw[:, 2])
    assert facts["modalities"]["protein"] == {"likelihood": "gaussian", "scale": "clr", "genome": None}


def test_ensembl_ids(tmp_path: Path) -> None:
    ids = [f"ENSG0000000000{i}.{i + 1}" for i in range(4)]
    adata = cells(ids)
    path = write(adata, tmp_path / "rna.h5ad")
    with pytest.raises(InputRefused, match=r"Ensembl ids .*--gene-table"):
        run({"rna": path})
    table = tmp_path / "genes.tsv"
    rows = [f"G{min(i, 2)}\tchr1\t1\t9\t+\tENSG0000000000{i}" for i in range(4)]
    table.write_text("symbol\tchrom\tstart\tend\tstrand\tgene_id\n" + "\n".join(rows) + "\n")
    mdata, facts = run({"rna": path}, gene_table=str(table))
    assert list(mdata["rna"].var_names) == ["G0", "G1", "G2"] and facts["counts"]["duplicates_summed"]["rna"] == 1
    assert mdata["rna"].var["gene_id"].tolist() == ["ENSG00000000000", "ENSG00000000001", "ENSG00000000002"]
    assert facts["options"]["gene_table"] == "genes.tsv"
    adata.var["gene_symbol"] = ["A", "B", "", "D"]
    mdata, _ = run({"rna": write(adata, path)})
    assert list(mdata["rna"].var_names) == ["A", "B", "ENSG00000000002", "D"]
    table.write_text("symbol\tchrom\tstart\tend\tstrand\tgene_id\nX\tchr1\t1\t9\t+\tENSMUSG00000000009\n")
    with pytest.raises(InputRefused, match="knows 0 of 4"):
        run({"rna": write(cells(ids), path)}, gene_table=str(table))


def test_peaks_get_one_spelling_or_come_from_columns(files: dict[str, Path]) -> None:
    atac = ad.read_h5ad(files["atac"])
    atac.var_names = [p.replace(":", "_").replace("-", "_") for p in PEAKS]
    assert set(run({**files, "atac": write(atac, files["atac"])})[0]["atac"].var_names) <= set(PEAKS)
    atac.var = pd.DataFrame(
        {"chrom": ["chr1"] * 16, "start": range(0, 160, 10), "end": range(5, 165, 10)},
        index=[f"peak{i}" for i in range(16)],
    )
    assert "chr1:10-15" in run({**files, "atac": write(atac, files["atac"])}, min_peak_fraction=0)[0]["atac"].var_names
    atac.var = pd.DataFrame(index=[f"peak{i}" for i in range(16)])
    with pytest.raises(InputRefused, match=r"16 of 16 peak names do not parse: 'peak0'"):
        run({**files, "atac": write(atac, files["atac"])})


def test_all_errors_of_all_files_in_one_message(files: dict[str, Path]) -> None:
    rna, atac = (ad.read_h5ad(files[m]) for m in ("rna", "atac"))
    rna.layers["counts"] = rna.X.copy()
    rna.X = np.log1p(rna.X)
    atac.X.data = -atac.X.data
    write(rna, files["rna"]), write(atac, files["atac"])
    with pytest.raises(InputRefused, match=r"looks log-normalised .*--layer counts\n  also: .*negative"):
        run(files)
    write(cells(PEAKS, rate=0.5), files["atac"])
    mdata, _ = run(files, layer="counts")
    assert np.array_equal(mdata["rna"].X.toarray(), rna.layers["counts"].toarray())
    with pytest.raises(InputRefused, match=r"no modality has a layer 'count'.*did you mean 'counts'"):
        run(files, layer="count")


def test_other_modalities_and_likelihoods(files: dict[str, Path], tmp_path: Path) -> None:
    values = cells([f"m{i}" for i in range(5)])
    values.X = values.X.toarray() / 7 - 0.2
    more = {**files, "methyl": write(values, tmp_path / "m.h5ad")}
    assert run(more)[1]["modalities"]["methyl"] == {"likelihood": "gaussian", "scale": "identity", "genome": None}
    more["methyl"] = write(cells([f"m{i}" for i in range(5)]), tmp_path / "n.h5ad")
    with pytest.raises(InputRefused, match="--likelihood methyl="):
        run(more)
    assert run(more, likelihood=("methyl=nb",))[1]["modalities"]["methyl"]["scale"] == "log1p_cp10k"


def test_unpaired_files_name_the_suffix(tmp_path: Path) -> None:
    rna, atac = cells(GENES, prefix="AAACAGCC"), cells(PEAKS, prefix="AAACAGCC")
    rna.obs_names = [f"{n}-1" for n in rna.obs_names]
    with pytest.raises(
        InputRefused, match=r"share no cell names.*suffix keeps 30 cells from pairing \('-1' against none\)"
    ):
        run({"rna": write(rna, tmp_path / "r.h5ad"), "atac": write(atac, tmp_path / "a.h5ad")})


def test_cells_of_one_modality_are_kept_and_marked(tmp_path: Path) -> None:
    rna, atac = cells(GENES), cells(PEAKS)[5:].copy()
    rna = rna[:25].copy()
    mdata, facts = run({"rna": write(rna, tmp_path / "r.h5ad"), "atac": write(atac, tmp_path / "a.h5ad")})
    assert mdata.n_obs == 30 and facts["counts"]["paired"] == 20 and facts["counts"]["single"] == {"rna": 5, "atac": 5}
    assert mdata.obs["donor"].notna().all() and int(np.asarray(mdata.obsm["rna"]).sum()) == 25
    filtered, _ = run({"rna": tmp_path / "r.h5ad", "atac": tmp_path / "a.h5ad"}, min_rna_counts=1000)
    assert filtered.n_obs == 5  # the cells without RNA are not judged by it


def test_tiny_and_empty_cells(tmp_path: Path) -> None:
    one = write(cells(GENES)[:1].copy(), tmp_path / "one.h5ad")
    with pytest.raises(InputRefused, match="one cell only"):
        run({"rna": one})
    rna = cells(GENES)
    dense = rna.X.toarray()
    dense[:3] = 0
    rna.X = sp.csr_matrix(dense)
    mdata, _ = run({"rna": write(rna, tmp_path / "r.h5ad")})
    assert mdata["rna"].obs["xmodal_empty"].tolist() == [True] * 3 + [False] * 27


def test_columns_that_later_steps_need_are_asked_for_together(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pipeline asks, by variables; options that are empty ask for nothing."""
    for name in ("LABEL", "BATCH", "SAMPLE"):
        monkeypatch.setenv(f"XMODAL_{name}_KEY", f"dono{name[0]}")
    given = [*(f"--{key}={path}" for key, path in files.items()), "--output", tmp_path / "p.h5mu"]
    error = str(call(*given).exception)
    for name in ("label", "batch", "sample"):
        wrong = f"dono{name[0].upper()}"
        assert f"--{name}-key: obs has no column '{wrong}'. What to do: did you mean 'donor'?" in error
    assert not (tmp_path / "p.h5mu").exists()
    assert call(*given, "--label-key=", "--batch-key=", "--sample-key=").exit_code == 0


def test_samples_are_no_continuous_numbers(tmp_path: Path) -> None:
    rna = cells(GENES)
    rna.obs["size"], rna.obs["lane"] = np.linspace(0, 1, 30), [1.0] * 15 + [2.0] * 14 + [np.nan]
    file = {"rna": write(rna, tmp_path / "rna.h5ad")}
    with pytest.raises(InputRefused, match="--sample-key: 'size' holds continuous numbers, and no samples"):
        run(file, sample_key="size")
    run(file, sample_key="lane")


def test_a_column_of_labels_is_asked_for_and_changes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"obs has no column 'dnor'.*did you mean 'donor'\?"):
        run(files, label_key="dnor")
    for name, more in (("a", []), ("b", ["--label-key=donor", "--batch-key=kind", "--sample-key=donor"])):
        given = [f"--{key}={path}" for key, path in files.items()]
        done = call(*given, "--output", tmp_path / f"{name}.h5mu", "--summary", tmp_path / f"{name}.json", *more)
        assert done.exit_code == 0, done.exception
    for kind in ("h5mu", "json"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def two_samples(folder: Path) -> list[SampleFiles]:
    """Same barcodes in part, one gene each that the other lacks, shifted peaks, the second with RNA-only cells."""
    first, second = cells(GENES, 20), cells([*GENES[1:][::-1], "OTHER"], 24, seed=5)
    peaks = [f"chr{1 + i // 8}:{1000 * i + 400}-{1000 * i + 900}" for i in range(15)] + ["chr9:1-500"]
    atac1, atac2 = cells(PEAKS, 20, 1, rate=0.5), cells(peaks, 24, 2, rate=0.5)[:22].copy()
    second.obs_names = atac2_names = [f"c{i + 10:03d}" for i in range(24)]
    atac2.obs_names = atac2_names[:22]
    folder.mkdir(exist_ok=True)
    paths = {
        n: write(a, folder / f"{n}.h5ad") for n, a in (("r1", first), ("r2", second), ("a1", atac1), ("a2", atac2))
    }
    return [
        SampleFiles("one", {"rna": paths["r1"], "atac": paths["a1"]}),
        SampleFiles("two", {"rna": paths["r2"], "atac": paths["a2"]}),
    ]


def test_samples_are_joined(tmp_path: Path) -> None:
    mdata, facts = prepare(two_samples(tmp_path), PrepareSettings(min_peak_fraction=0), 0)
    assert list(mdata["rna"].var_names) == GENES[1:] and facts["counts"]["joined"]["rna"]["left_out"] == 2
    assert "one_c010" in mdata.obs_names and "two_c010" in mdata.obs_names and "c000" in mdata.obs_names
    assert facts["counts"]["joined"]["barcodes_renamed"] == 20 and mdata.obs_names.is_unique
    assert mdata.obs["xmodal_sample"].value_counts().to_dict() == {"two": 24, "one": 20}
    assert list(mdata["atac"].var_names[:2]) == ["chr1:100-900", "chr1:1100-1900"] and mdata["atac"].n_vars == 15
    source = ad.read_h5ad(tmp_path / "a2.h5ad")
    row = mdata["atac"].obs_names.get_loc("two_c010")
    assert np.array_equal(mdata["atac"].X[row].toarray().ravel(), source.X[0, :15].toarray().ravel())
    assert mdata["atac"].obs["xmodal_depth"].iloc[row] == source.X[0].sum()
    gene = mdata["rna"][["two_c011"], GENES[3]].X.toarray()[0, 0]
    assert gene == ad.read_h5ad(tmp_path / "r2.h5ad")[["c011"], GENES[3]].X.toarray()[0, 0]
    assert facts["counts"]["single"] == {"rna": 2, "atac": 0}
    by_sample = facts["counts"]["split_by_sample"]
    assert {name: row["before"] for name, row in by_sample.items()} == {"one": 20, "two": 24}
    assert sum(row[part] for row in by_sample.values() for part in ("train", "valid", "test")) == mdata.n_obs


def test_consensus_of_peaks() -> None:
    def table(*rows: tuple[str, int, int]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["chrom", "start", "end"])

    merged, rows = joining.consensus(
        [
            table(("chr1", 0, 10), ("chr1", 15, 20), ("chr2", 0, 10), ("chr1", 30, 40)),
            table(("chr1", 8, 16), ("chr1", 20, 25), ("1", 35, 36)),
        ]
    )
    assert list(merged.index) == ["chr1:0-20", "chr1:30-40"]  # 20-25 only touches; chr2 is in one sample only
    assert rows[0].tolist() == [0, 0, -1, 1] and rows[1].tolist() == [0, -1, 1]


def test_samples_that_cannot_be_joined(tmp_path: Path) -> None:
    first, second = pair(tmp_path / "a"), pair(tmp_path / "b", seed=3)
    files = [
        SampleFiles("a", dict(zip(("rna", "atac"), first, strict=True))),
        SampleFiles("b", dict(zip(("rna", "atac"), second, strict=True))),
    ]
    assert prepare(files, PrepareSettings())[1]["counts"]["joined"]["atac"]["consensus"] is False
    with pytest.raises(InputRefused, match=r"--genome: mm10"):
        prepare(files, PrepareSettings(genome="GRCm38"))
    atac = ad.read_h5ad(second[1])
    atac.uns["genome"] = "mm10"
    write(atac, second[1])
    with pytest.raises(InputRefused, match=r"genomes differ \(a \(atac\): hg38, b \(atac\): mm10\)"):
        prepare(files, PrepareSettings())
    write(cells([g.lower() for g in GENES]), second[0])
    atac.uns["genome"] = "hg38"
    write(atac, second[1])
    with pytest.raises(InputRefused, match="no rna feature in common"):
        prepare(files, PrepareSettings())


def test_samplesheet(tmp_path: Path) -> None:
    pair(tmp_path / "a")
    sheet = tmp_path / "s.csv"
    sheet.write_text(
        "sample,role,rna,atac,checkpoint\nx,train,a/rna.h5ad,a/atac.h5ad,\n\ny,predict,a/rna.h5ad,,m.safetensors\n"
        "z,,,a/atac.h5ad,\n"
    )
    assert [s.name for s in read_samplesheet(sheet)] == ["x", "z"]
    assert [s.name for s in read_samplesheet(sheet, "predict")] == ["y", "z"]
    assert read_samplesheet(sheet)[0].files["atac"] == tmp_path / "a" / "atac.h5ad"
    sheet.write_text(
        "sample,role,rna\nx,trane,a/rna.h5ad\nx,train,b.h5ad\n,train,a/rna.h5ad\ny,train,\nz,train,a/rna.h5ad,1\n"
    )
    with pytest.raises(InputRefused) as caught:
        read_samplesheet(sheet)
    text = str(caught.value)
    for part in (
        "6 mistakes",
        "line 2: role 'trane'",
        "line 3: sample 'x' stands in line 2",
        "line 3: rna: there is no file",
        "line 4: the sample has no name",
        "line 5: sample 'y' has no file",
        "line 6: it has more fields",
    ):
        assert part in text
    sheet.write_text("sample,atak\nx,y\n")
    with pytest.raises(InputRefused, match="column 'atak' is not known: did you mean 'atac'"):
        read_samplesheet(sheet)
    sheet.write_text("sample,rna\n")
    with pytest.raises(InputRefused, match="no rows"):
        read_samplesheet(sheet)


def test_nothing_is_left_where_it_fails(files: dict[str, Path], tmp_path: Path) -> None:
    files["atac"].write_bytes(b"")
    done = call("--rna", files["rna"], "--atac", files["atac"], "--output", tmp_path / "new" / "o.h5mu")
    assert isinstance(done.exception, XmodalError) and done.exception.exit_code == 3
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


@needs_real
@pytest.mark.real_data
def test_cortex() -> None:
    folder = REAL / "mouse_cortex_snareseq_dev"
    mdata, facts = run(
        {"h5mu": folder / "paired.h5mu"}, split_by="batch", exclude=("cell_type=Mis",), min_rna_counts=50, min_peaks=15
    )
    assert facts["counts"]["cells"]["after"] == mdata.n_obs == 6960
    assert 5_200 < mdata["atac"].n_vars < 5_800 and facts["modalities"]["atac"]["genome"] == "mm10"
    assert len(facts["split"]["groups"]["test"]) == 3


@needs_real
@pytest.mark.real_data
def test_citeseq_and_40_cells() -> None:
    folder = REAL / "human_pbmc_citeseq_dev"
    _, facts = run({"rna": folder / "rna.h5ad", "protein": folder / "protein.h5ad"})
    assert facts["modalities"]["protein"]["scale"] == "clr" and facts["split"]["test"] == 100
    folder = REAL / "human_pbmc_multiome_40cells"
    mdata, _ = run({"rna": folder / "rna.h5ad", "atac": folder / "atac.h5ad"})
    assert mdata["rna"].shape == (40, 12685) and mdata["atac"].uns["genome"] == "hg38"


def test_labels_of_any_kind_are_written(tmp_path: Path) -> None:
    first, second = cells(GENES, 10), cells(GENES, 12, prefix="x")
    first.obs["flag"], first.obs["size"] = [True, False] * 5, range(10)
    second.obs["L2/3"], second.obs["mixed"] = "a", pd.Categorical([1, 2] * 6)
    del first.obs["kind"]
    files = [SampleFiles(n, {"rna": write(a, tmp_path / f"{n}.h5ad")}) for n, a in (("a", first), ("b", second))]
    io.write_h5mu(prepare(files, PrepareSettings())[0], tmp_path / "o.h5mu")
    obs = io.read_cells(tmp_path / "o.h5mu").obs
    assert obs.loc["c001", "flag"] == False and pd.isna(obs.loc["x001", "flag"])  # noqa: E712
    assert obs.loc["x001", "L2_3"] == "a" and obs.loc["x001", "mixed"] == "2" and obs.loc["c003", "size"] == 3


def test_files_without_labels_and_other_order(tmp_path: Path) -> None:
    rna, atac = cells(GENES)[::-1].copy(), cells(PEAKS)[:25].copy()
    rna.obs = pd.DataFrame(index=rna.obs_names)
    mdata, _ = run({"rna": write(rna, tmp_path / "r.h5ad"), "atac": write(atac, tmp_path / "a.h5ad")})
    assert list(mdata.obs_names) == list(rna.obs_names) and mdata.obs.loc["c003", "donor"] == "d3"
    assert mdata.obs["xmodal_split"].notna().all() and pd.isna(mdata.obs.loc["c027", "donor"])


def test_names_of_other_programs(tmp_path: Path) -> None:
    mu.set_options(pull_on_update=False)
    mu.MuData({"prot": cells(["CD3", "CD4"]), "RNA": cells(GENES)}).write_h5mu(tmp_path / "m.h5mu")
    mdata, _ = run({"h5mu": tmp_path / "m.h5mu"})
    assert set(mdata.mod) == {"rna", "protein"} and mdata.obs["donor"].notna().all()
    with pytest.raises(InputRefused, match="no name for a modality"):
        run({"my-mod": write(cells(["CD3", "CD4"]), tmp_path / "x.h5ad")}, likelihood=("my-mod=nb",))
