"""`xmodal samplesheet`: the layouts that facilities have, what is left out, and whether prepare takes what it writes."""

from __future__ import annotations

import csv
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from conftest import call_xmodal
from helpers_data import GENES, PEAKS, REAL, cells, needs_real, pair, write, write_10x
from helpers_nextflow import ROOT
from xmodal.data import sheets
from xmodal.data.samples import read_samplesheet
from xmodal.data.sheets import Row
from xmodal.errors import InputRefused

OUTS = "outs/filtered_feature_bc_matrix.h5"


def h5ad(path: Path, names: list[str] = GENES, n: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(cells(names, n), path)


def tenx(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_10x(path)


def fragments(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into")
    return path


def found(folder: Path) -> dict[str, dict[str, str]]:
    """The files of each sample, relative to ``folder``."""
    rows = sheets.find(folder).rows
    return {r.sample: {c: str(p.relative_to(folder)) for c, p in r.files.items()} for r in rows}


def reasons(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): reason for path, reason in sheets.find(folder).left}


def converted(path: Path) -> Path:
    """As nf-core/scrnaseq converts a matrix: Ensembl ids as names, the symbols in a column, a feature type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    adata = cells([f"ENSG{i:011d}" for i in range(len(GENES))], 6)
    adata.var["gene_symbols"], adata.var["feature_types"] = GENES, "Gene Expression"
    return write(adata, path)


def test_nfcore_scrnaseq_filtered_before_raw_and_no_combined(tmp_path: Path) -> None:
    for sample in ("S1", "S2"):
        for state in ("raw", "filtered", "cellbender_filter"):
            converted(tmp_path / f"star/mtx_conversions/{sample}/{sample}_{state}_matrix.h5ad")
    converted(tmp_path / "star/mtx_conversions/S3/S3_raw_matrix.h5ad")
    converted(tmp_path / "star/mtx_conversions/combined_filtered_matrix.h5ad")
    assert found(tmp_path) == {
        "S1": {"rna": "star/mtx_conversions/S1/S1_filtered_matrix.h5ad"},
        "S2": {"rna": "star/mtx_conversions/S2/S2_filtered_matrix.h5ad"},
        "S3": {"rna": "star/mtx_conversions/S3/S3_raw_matrix.h5ad"},
    }
    left = reasons(tmp_path)
    assert left["star/mtx_conversions/combined_filtered_matrix.h5ad"].startswith("holds all samples together")
    assert left["star/mtx_conversions/S1/S1_raw_matrix.h5ad"] == "raw; filtered is preferred"


def test_a_raw_matrix_of_simpleaf_gives_way_to_the_one_without_empty_drops(tmp_path: Path) -> None:
    for state in ("raw", "cellbender_filter"):
        converted(tmp_path / f"simpleaf/mtx_conversions/S1/S1_{state}_matrix.h5ad")
    assert found(tmp_path) == {"S1": {"rna": "simpleaf/mtx_conversions/S1/S1_cellbender_filter_matrix.h5ad"}}


def test_a_combined_file_alone_is_better_than_nothing(tmp_path: Path) -> None:
    converted(tmp_path / "star/mtx_conversions/combined_matrix.h5ad")
    assert list(found(tmp_path)) == ["combined"]


def test_nfcore_scrnaseq_of_arc_takes_the_matrix_that_holds_both(tmp_path: Path) -> None:
    """The h5ad that the pipeline converts holds genes only."""
    root = tmp_path / "cellrangerarc"
    tenx(root / "count/S1" / OUTS)
    tenx(root / "count/S1/outs/raw_feature_bc_matrix.h5")
    fragments(root / "count/S1/outs/atac_fragments.tsv.gz")
    (root / "count/S1/outs/gex_molecule_info.h5").write_bytes(b"")
    converted(root / "mtx_conversions/S1/S1_filtered_matrix.h5ad")
    converted(root / "mtx_conversions/S1/S1_raw_matrix.h5ad")
    assert found(tmp_path) == {"S1": {"h5": f"cellrangerarc/count/S1/{OUTS}"}}
    left = reasons(tmp_path)
    assert "holds all modalities" in left["cellrangerarc/mtx_conversions/S1/S1_filtered_matrix.h5ad"]
    assert "no matrix of Cell Ranger" in left["cellrangerarc/count/S1/outs/gex_molecule_info.h5"]
    assert "the same sample is taken from" in left["cellrangerarc/count/S1/outs/atac_fragments.tsv.gz"]


@pytest.mark.parametrize("where", [".", "S1", "S1/outs"])
def test_cell_ranger_from_any_height(tmp_path: Path, where: str) -> None:
    tenx(tmp_path / "S1" / OUTS)
    assert list(found(tmp_path / where)) == ["S1"]


@pytest.mark.parametrize(
    "inner", ["count/sample_filtered_feature_bc_matrix.h5", "sample_filtered_feature_bc_matrix.h5"]
)
def test_cell_ranger_multi_by_sample(tmp_path: Path, inner: str) -> None:
    """With and without the folder count, which newer versions left out."""
    for run, sample in (("R1", "A"), ("R1", "B"), ("R2", "A")):
        tenx(tmp_path / run / "outs/per_sample_outs" / sample / inner)
    tenx(tmp_path / "R1/outs/multi/count/raw_feature_bc_matrix.h5")
    tenx(tmp_path / "R1/outs/filtered_feature_bc_matrix.h5")
    assert sorted(found(tmp_path)) == ["B", "R1_A", "R2_A"]
    assert sum("all samples together" in reason for reason in reasons(tmp_path).values()) == 2


def test_an_aggregate_is_left_out(tmp_path: Path) -> None:
    for run in ("S1", "S2", "AGG"):
        tenx(tmp_path / run / OUTS)
    (tmp_path / "AGG/outs/aggr.csv").write_text("library_id\n")
    assert list(found(tmp_path)) == ["S1", "S2"]


def test_equal_samples_of_two_programs_are_told_apart(tmp_path: Path) -> None:
    for program in ("cellranger", "cellrangerarc"):
        tenx(tmp_path / program / "count/S1" / OUTS)
    assert list(found(tmp_path)) == ["cellranger_S1", "cellrangerarc_S1"]


@pytest.mark.parametrize(
    ("rna", "atac"),
    [
        ("S1_rna.h5ad", "S1_atac.h5ad"),
        ("S1/rna.h5ad", "S1/atac.h5ad"),
        ("S1/S1.gex.h5ad", "S1/S1.peaks.h5ad"),
        ("rna/S1.h5ad", "atac/S1.h5ad"),
        ("RNA_S1_filtered.h5ad", "ATAC_S1.h5ad"),
        ("S1_rna_counts.h5ad", "S1_atac_matrix.h5ad"),
    ],
)
def test_pairs_of_h5ad(tmp_path: Path, rna: str, atac: str) -> None:
    h5ad(tmp_path / rna), h5ad(tmp_path / atac, PEAKS)
    assert found(tmp_path) == {"S1": {"rna": rna, "atac": atac}}


def test_a_modality_in_the_middle_of_a_name(tmp_path: Path) -> None:
    h5ad(tmp_path / "S1_rna_v2.h5ad"), h5ad(tmp_path / "S1_atac_v2.h5ad", PEAKS)
    assert found(tmp_path) == {"S1_v2": {"rna": "S1_rna_v2.h5ad", "atac": "S1_atac_v2.h5ad"}}


def test_the_file_tells_where_the_name_does_not(tmp_path: Path) -> None:
    h5ad(tmp_path / "one.h5ad"), h5ad(tmp_path / "two.h5ad", PEAKS)
    h5ad(tmp_path / "three.h5ad", ["CD3", "CD4", "CD8"]), h5ad(tmp_path / "four_adt.h5ad", ["CD3", "CD4", "CD8"])
    assert found(tmp_path) == {
        "one": {"rna": "one.h5ad"},
        "two": {"atac": "two.h5ad"},
        "four": {"protein": "four_adt.h5ad"},
    }
    assert "which modality it holds is open" in reasons(tmp_path)["three.h5ad"]


def test_an_h5ad_of_several_modalities_stands_in_several_columns(tmp_path: Path) -> None:
    adata = cells(GENES + PEAKS, 6)
    adata.var["feature_types"] = ["Gene Expression"] * len(GENES) + ["Peaks"] * len(PEAKS)
    write(adata, tmp_path / "S1.h5ad")
    assert found(tmp_path) == {"S1": {"rna": "S1.h5ad", "atac": "S1.h5ad"}}


def test_h5mu_and_its_parts_are_one_sample(tmp_path: Path, simulated: Path) -> None:
    for name in ("paired.h5mu", "rna.h5ad", "atac.h5ad"):
        (tmp_path / "S1").mkdir(exist_ok=True)
        (tmp_path / "S1" / name).symlink_to(simulated / name)
    assert len(found(tmp_path)) == 1
    (row,) = sheets.find(tmp_path).rows
    assert row.sample == "S1" and set(row.holds) == {"rna", "atac"}


def test_fragments_only_where_there_is_no_atac(tmp_path: Path) -> None:
    h5ad(tmp_path / "S1_rna.h5ad"), fragments(tmp_path / "S1_fragments.tsv.gz")
    h5ad(tmp_path / "S2_rna.h5ad"), h5ad(tmp_path / "S2_atac.h5ad", PEAKS), fragments(tmp_path / "S2_fragments.tsv.gz")
    assert found(tmp_path) == {
        "S1": {"rna": "S1_rna.h5ad", "fragments": "S1_fragments.tsv.gz"},
        "S2": {"rna": "S2_rna.h5ad", "atac": "S2_atac.h5ad"},
    }


def test_what_cannot_be_used_is_left_out_with_its_reason(tmp_path: Path) -> None:
    h5ad(tmp_path / "good_rna.h5ad"), h5ad(tmp_path / "a b_rna.h5ad")
    (tmp_path / "empty.h5ad").touch()
    (tmp_path / "broken.h5mu").write_bytes(b"nothing")
    (tmp_path / "good_fragments.tsv.gz").symlink_to(tmp_path / "gone")
    (tmp_path / "gone.h5ad").symlink_to(tmp_path / "gone")
    predicted = cells(PEAKS, 6)
    predicted.uns["xmodal"] = {"command": "predict", "target": "atac"}
    write(predicted, tmp_path / "pred.h5ad")
    assert list(found(tmp_path)) == ["good"]
    left = reasons(tmp_path)
    assert "holds a blank" in left["a b_rna.h5ad"] and "0 bytes" in left["empty.h5ad"]
    assert "a link to nowhere" in left["good_fragments.tsv.gz"] and "no such file" in left["gone.h5ad"]
    assert "not an HDF5 file" in left["broken.h5mu"] and "a prediction of xmodal" in left["pred.h5ad"]


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    h5ad(tmp_path / "S1/rna.h5ad")
    (tmp_path / "S1/again").symlink_to(tmp_path)
    assert found(tmp_path) == {"S1": {"rna": "S1/rna.h5ad"}}


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "reads.fastq.gz").touch()
    done = call_xmodal("samplesheet", tmp_path, "--output", tmp_path / "s.csv")
    assert done.code == 3 and "no sample was found" in done.err and "filtered_feature_bc_matrix.h5" in done.err
    assert not (tmp_path / "s.csv").exists()
    assert call_xmodal("samplesheet", tmp_path / "nowhere", "--output", tmp_path / "s.csv").code == 3


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("S1", "S1"),
        ("S 1/a", "S_1_a"),
        ("heldout", "sample_heldout"),
        ("Prediction2", "sample_Prediction2"),
        ("inputs", "inputs"),
        ("-.x", "x"),
        ("ä", "sample"),
        ("a" * 200, "a" * 100),
    ],
)
def test_names_are_made_legal(name: str, legal: str) -> None:
    assert sheets.legal_name(name) == legal


def test_names_that_become_equal_are_numbered(tmp_path: Path) -> None:
    h5ad(tmp_path / "S+1_rna.h5ad"), h5ad(tmp_path / "S%1_rna.h5ad"), h5ad(tmp_path / "S_1_2_rna.h5ad")
    assert sorted(found(tmp_path)) == ["S_1", "S_1_2", "S_1_3"]


def test_names_stay_within_a_hundred_letters(tmp_path: Path) -> None:
    for folder in "ab":
        h5ad(tmp_path / folder / f"{'x' * 99}+_rna.h5ad"), h5ad(tmp_path / folder / f"{'x' * 99}%_rna.h5ad")
    names = list(found(tmp_path))
    assert len(set(names)) == 4 and max(map(len, names)) <= 100


def test_roles() -> None:
    rows = [Row("a", {}, ("rna", "atac")), Row("b", {}, ("rna",))]
    model = Path("model.safetensors")
    assert [r.role for r in sheets.with_roles(rows, None, None)] == ["train", "predict"]
    assert [r.role for r in sheets.with_roles(rows, None, model)] == ["predict", "predict"]
    assert [r.role for r in sheets.with_roles(rows, "both", None)] == ["both", "both"]


def test_paths_are_relative_below_the_sheet_and_absolute_elsewhere(tmp_path: Path) -> None:
    row = Row("a", {"rna": tmp_path / "in/a.h5ad"}, ("rna",), "train")
    assert sheets.as_text([row], tmp_path / "s.csv") == "sample,role,rna\na,train,in/a.h5ad\n"
    assert f"a,train,{tmp_path}/in/a.h5ad\n" in sheets.as_text([row], tmp_path / "other/s.csv")
    blank = Row("a", {"rna": tmp_path / "my data/a.h5ad"}, ("rna",), "train")
    assert "a.h5ad" in sheets.as_text([blank], tmp_path / "my data/s.csv")
    with pytest.raises(InputRefused, match="a blank"):
        sheets.as_text([blank], tmp_path / "s.csv")


def test_the_command_writes_the_same_sheet_twice_and_keeps_an_older_one(tmp_path: Path) -> None:
    pair(tmp_path / "S1"), pair(tmp_path / "S2", prefix="d")
    sheet = tmp_path / "s.csv"
    assert call_xmodal("samplesheet", tmp_path, "--output", sheet).code == 0
    assert sheet.read_text() == (
        "sample,role,rna,atac\nS1,train,S1/rna.h5ad,S1/atac.h5ad\nS2,train,S2/rna.h5ad,S2/atac.h5ad\n"
    )
    assert call_xmodal("samplesheet", tmp_path, "--output", sheet).code == 3
    before = sheet.read_bytes()
    assert call_xmodal("samplesheet", tmp_path, "--output", sheet, "--overwrite").code == 0
    assert sheet.read_bytes() == before
    assert call_xmodal("samplesheet", tmp_path, "--output", tmp_path / "s.txt").code == 2


def test_a_checkpoint_fills_its_column_and_leaves_out_what_it_cannot_use(tmp_path: Path) -> None:
    golden = sorted((ROOT / "tests/golden").glob("*.safetensors"))[0]
    h5ad(tmp_path / "S1_rna.h5ad"), h5ad(tmp_path / "S2_protein.h5ad", ["CD3", "CD4"])
    sheet = tmp_path / "s.csv"
    done = call_xmodal("samplesheet", tmp_path, "--output", sheet, "--checkpoint", golden)
    assert done.code == 0, done.err
    assert sheet.read_text() == f"sample,role,rna,checkpoint\nS1,predict,S1_rna.h5ad,{golden}\n"
    assert call_xmodal("samplesheet", tmp_path, "--checkpoint", golden, "--role", "train").code == 2
    assert call_xmodal("samplesheet", tmp_path, "--checkpoint", tmp_path / "S1_rna.h5ad").code == 3


def test_the_sheet_fits_the_schema_and_prepare_takes_it(tmp_path: Path) -> None:
    import json

    pair(tmp_path / "S1"), pair(tmp_path / "S2", prefix="d", seed=5)
    h5ad(tmp_path / "alone_rna.h5ad")
    tenx(tmp_path / "runs/R1" / OUTS)
    sheet = tmp_path / "s.csv"
    assert call_xmodal("samplesheet", tmp_path, "--output", sheet).code == 0
    rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(sheet.read_text().splitlines())]
    jsonschema.validate(rows, json.loads((ROOT / "assets/schema_input.json").read_text()))
    assert {row["sample"]: row["role"] for row in rows} == {
        "R1": "train",
        "S1": "train",
        "S2": "train",
        "alone": "predict",
    }
    assert [s.name for s in read_samplesheet(sheet, "predict")] == ["alone"]
    output = tmp_path / "out.h5mu"
    lines = [line for line in sheet.read_text().splitlines() if not line.startswith("R1")]
    sheet.write_text("\n".join(lines) + "\n")
    done = call_xmodal("prepare", "--samplesheet", sheet, "--output", output, "--min-peak-fraction", "0")
    assert done.code == 0, done.err
    import mudata as mu

    obs: pd.DataFrame = mu.read_h5mu(output).obs
    assert sorted(obs["xmodal_sample"].unique()) == ["S1", "S2"]


@needs_real
@pytest.mark.real_data
def test_real_folders() -> None:
    rows = {row.sample: row for row in sheets.find(REAL).rows}
    multiome = rows["human_pbmc_multiome_40cells"]
    assert {c: p.name for c, p in multiome.files.items()} == {"rna": "rna.h5ad", "atac": "atac.h5ad"}
    assert set(rows["human_pbmc_citeseq_dev"].holds) == {"rna", "protein"}
