from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers_data import REAL, needs_real
from xmodal.data import genome
from xmodal.errors import InputRefused


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("GRCh38", "hg38"),
        ("hg38", "hg38"),
        ("grch37", "hg19"),
        ("GRCm38.p6", "mm10"),
        ("GRCm39", "mm39"),
        ("mm10", "mm10"),
        ("rheMac10", "rheMac10"),
        ("", None),
        (None, None),
        ("not-hg381", "not-hg381"),
    ],
)
def test_genome_names(name: str | None, normal: str | None) -> None:
    assert genome.normal_genome(name) == normal


def test_peak_names_in_three_spellings() -> None:
    peaks = genome.parse_peaks(["chr1:10-20", "chr1-10-20", "chr1_10_20", "chrUn_KI270302v1:0-7", "chrUn-K_1-2"])
    assert peaks["chrom"].tolist() == ["chr1"] * 3 + ["chrUn_KI270302v1", "chrUn-K"]
    assert peaks["start"].tolist() == [10, 10, 10, 0, 1] and peaks["end"].tolist() == [20, 20, 20, 7, 2]
    assert genome.peak_names(peaks)[2] == "chr1:10-20"


def test_wrong_peaks_are_named_first_five_only() -> None:
    names = ["chr1:10-20", "chr1:20-10", "chr1:5-5", "GAPDH", "chr1:a-b", "", "X", "Y"]
    with pytest.raises(InputRefused, match=r"7 of 8 .*'chr1:20-10', 'chr1:5-5', 'GAPDH', 'chr1:a-b', ''\.") as caught:
        genome.parse_peaks(names)
    assert "'X'" not in str(caught.value)


def brute(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    same = a["chrom"].to_numpy()[:, None] == b["chrom"].to_numpy()[None]
    return (
        same
        & (a["start"].to_numpy()[:, None] < b["end"].to_numpy())
        & (b["start"].to_numpy() < a["end"].to_numpy()[:, None])
    )


def intervals(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 300, n)
    return pd.DataFrame(
        {"chrom": rng.choice(["chr1", "chr2", "chrX"], n), "start": start, "end": start + rng.choice([1, 5, 200], n)}
    )


@pytest.mark.parametrize("seed", range(5))
def test_overlap_against_all_pairs_nested_and_unsorted(seed: int) -> None:
    a, b = intervals(60, seed), intervals(40, seed + 100)
    assert np.array_equal(genome.overlap_map(a, b).toarray(), brute(a, b))


def test_overlap_half_open_and_chromosome_spelling() -> None:
    a = pd.DataFrame({"chrom": ["chr1", "chrM"], "start": [0, 5], "end": [10, 9]})
    b = pd.DataFrame({"chrom": ["1", "1", "MT"], "start": [10, 9, 1], "end": [20, 20, 6]})
    assert genome.overlap_map(a, b).toarray().tolist() == [[False, True, False], [False, False, True]]
    assert genome.overlap_map(a, b.iloc[:0]).shape == (2, 0) and genome.overlap_map(a.iloc[:0], b).nnz == 0


def test_gene_tables_agree_whatever_the_format(tmp_path: Path) -> None:
    (tmp_path / "g.tsv.gz").write_bytes(
        gzip.compress(b"symbol\tchrom\tstart\tend\tstrand\nA\tchr1\t9\t50\t+\nB\tchr2\t0\t8\t-\n")
    )
    (tmp_path / "g.bed").write_text("track x\nchr1\t9\t50\tA\t0\t+\nchr2\t0\t8\tB\t0\t-\n")
    line = 'chr{}\tHAVANA\t{}\t{}\t{}\t.\t{}\t.\tgene_id "ENSG0000000000{}.7"; gene_type "x"; gene_name "{}";\n'
    (tmp_path / "g.gtf").write_text(
        "#!x\n"
        + line.format(1, "gene", 10, 50, "+", 1, "A")
        + line.format(1, "exon", 10, 20, "+", 1, "A")
        + line.format(2, "gene", 1, 8, "-", 2, "B")
    )
    tables = [genome.read_gene_table(tmp_path / n) for n in ("g.tsv.gz", "g.bed", "g.gtf")]
    for table in tables:
        assert table[["symbol", "chrom", "start", "end", "strand"]].to_numpy().tolist() == [
            ["A", "chr1", 9, 50, "+"],
            ["B", "chr2", 0, 8, "-"],
        ]
    assert tables[2]["gene_id"].tolist() == ["ENSG00000000001", "ENSG00000000002"]
    (tmp_path / "bad.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputRefused, match="columns symbol, chrom"):
        genome.read_gene_table(tmp_path / "bad.tsv")


def test_links_by_distance() -> None:
    table = pd.DataFrame(
        {
            "symbol": ["P", "M", "Twice", "Twice"],
            "chrom": ["chr1", "chr1", "chr1", "chr2"],
            "start": [100_000, 200_000, 400_000, 0],
            "end": [110_000, 210_000, 410_000, 10],
            "strand": list("+-++"),
        }
    )
    peaks = genome.parse_peaks(
        [
            "chr1:104000-104500",
            "chr1:97000-98000",
            "chr1:96000-97000",
            "chr1:222000-222500",
            "chr1:400000-400001",
            "chr2:100-200",
            "chr1:30000-40000",
        ]
    )
    links = genome.links_from_distance(peaks, ["M", "P", "Twice", "None"], table).toarray()
    assert links.shape == (7, 4) and links.dtype == np.float32
    assert links[0].tolist() == [0, 1, 0, 0]  # in the body
    assert links[1, 1] == 1 and np.isclose(
        links[2, 1], np.exp(-0.1)
    )  # promoter of 2 kb before the start, then 1 kb further
    assert np.isclose(links[3, 0], np.exp(-1))  # minus strand: the promoter lies behind the end (212 kb)
    assert links[4, 2] == 1 and np.isclose(links[5, 2], np.exp(-90 / 10_000))  # both places of a gene
    assert links[6].sum() == 0  # 58 kb away
    with pytest.raises(InputRefused, match="none of the genes"):
        genome.links_from_distance(peaks, ["nope"], table)


def test_links_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "l.tsv"
    path.write_text("gene\tpeak\tweight\nA\tchr1_10_20\t0.5\nB\tchr9:1-2\t1\nA\tchr1-10-20\t0.7\n")
    links = genome.links_from_table(path, ["chr2:1-5", "chr1:10-20"], ["B", "A"])
    assert links.toarray().tolist() == [[0, 0], [0, 0.5]]
    with pytest.raises(InputRefused, match="none of the 3 links"):
        genome.links_from_table(path, ["chr2:1-5"], ["B", "A"])


@needs_real
@pytest.mark.real_data
def test_real_links_lie_near_their_genes() -> None:
    import anndata as ad

    folder = REAL / "mouse_cortex_snareseq_dev"
    atac, rna = ad.read_h5ad(folder / "atac.h5ad", "r"), ad.read_h5ad(folder / "rna.h5ad", "r")
    table = genome.read_gene_table(REAL / "tables" / "genes_mm10.tsv.gz")
    near = genome.links_from_distance(genome.parse_peaks(atac.var_names), list(rna.var_names), table)
    given = genome.links_from_table(
        folder / "gene_peak_links_genebody_promoter.tsv.gz", list(atac.var_names), list(rna.var_names)
    )
    shared = given.multiply(near)
    assert given.nnz > 25_000 and shared.nnz > 0.97 * given.nnz and np.median(shared.data) == 1
