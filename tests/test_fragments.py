"""Fragments counted over given peaks: by hand, against brute force, and everything that can be wrong with them."""

from __future__ import annotations

import gzip
import json
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from conftest import call_xmodal
from helpers_data import GENES, cells, write, write_10x
from xmodal.data import fragment_file, fragments
from xmodal.data.fragments import Counting, count
from xmodal.data.io import read_cells
from xmodal.data.peak_sets import PeakSet, checkpoint_peaks, read_peaks
from xmodal.data.preparation import prepare
from xmodal.data.prepare_settings import PrepareSettings
from xmodal.data.samples import SampleFiles, read_samplesheet
from xmodal.errors import InputRefused, UsageRefused

HEADER = "# id=sample\n# reference_path=/refs/refdata-cellranger-arc-GRCh38-2020-A-2.0.0\n# primary_contig=chr1\n"
# Two peaks that touch, one that lies in another, one on a second chromosome.
PEAKS = ["chr1:100-200", "chr1:200-300", "chr1:120-140", "chr2:0-50"]
LINES = [
    ("chr1", 100, 201, "AAA-1", 3),  # first base in the first peak, last (200) in the second
    ("chr1", 99, 200, "AAA-1", 1),  # first base before the first peak, last (199) in it
    ("chr1", 130, 131, "CCC-1", 1),  # one base: both cuts in the first and the third
    ("chr1", 110, 290, "CCC-1", 9),  # cuts in the first and the second, over the third
    ("chr1", 50, 350, "CCC-1", 1),  # over all of them, cuts outside
    ("chr2", 49, 80, "GGG-1", 1),
    ("chrUn_1", 5, 60, "GGG-1", 1),  # no peak there
]
BY_CUTS = {"AAA-1": [2, 1, 0, 0], "CCC-1": [3, 1, 2, 0], "GGG-1": [0, 0, 0, 1]}
BY_FRAGMENTS = {"AAA-1": [2, 1, 2, 0], "CCC-1": [3, 2, 3, 0], "GGG-1": [0, 0, 0, 1]}


def bgzip(text: bytes, size: int = 64) -> bytes:
    """``text`` as bgzip writes it, in blocks of ``size``, with the block that ends a file."""
    out = b""
    for at in range(0, len(text), size):
        part = text[at : at + size]
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(part) + packer.flush()
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        out += head + body + struct.pack("<II", zlib.crc32(part), len(part))
    return out + fragment_file.BGZIP_END


def written(path: Path, lines: list[tuple[Any, ...]], header: str = HEADER, how: str = "bgzip") -> Path:
    text = (header + "".join("\t".join(map(str, line)) + "\n" for line in lines)).encode()
    pack = {"bgzip": bgzip, "gzip": gzip.compress, "plain": bytes}[how]
    path.write_bytes(pack(text))
    return path


def peak_set(names: list[str], genome: str | None = "hg38") -> PeakSet:
    parts = [name.replace(":", "-").split("-") for name in names]
    table = pd.DataFrame({"chrom": [p[0] for p in parts], "start": [int(p[1]) for p in parts]}, index=names)
    return PeakSet(table.assign(end=[int(p[2]) for p in parts]), genome, "peaks.bed")


def bed(path: Path, names: list[str] = PEAKS) -> Path:
    path.write_text("".join(name.replace(":", "\t").replace("-", "\t") + "\n" for name in names))
    return path


def frame(adata: ad.AnnData) -> dict[str, list[int]]:
    return {name: row.astype(int).tolist() for name, row in zip(adata.obs_names, adata.X.toarray(), strict=True)}


@pytest.mark.parametrize("how", ["bgzip", "gzip", "plain"])
def test_counts_by_hand(tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "f.tsv.gz", LINES, how=how)
    found, genome, facts = count(path, Counting(peak_set(PEAKS), least=1))
    assert frame(found) == BY_CUTS and genome == "hg38"
    assert list(found.var_names) == PEAKS and isinstance(found.X, sp.csr_matrix) and found.X.has_sorted_indices
    assert facts["fragments"] == 7 and facts["barcodes"] == facts["cells"] == 3
    assert facts["in_peaks"] == round(8 / 14, 4)  # 10 counts, two of them in the peak that lies in another
    assert frame(count(path, Counting(peak_set(PEAKS), "fragments", 1))[0]) == BY_FRAGMENTS


def test_fewest_fragments_and_given_cells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "f.tsv.gz", LINES)
    assert list(count(path, Counting(peak_set(PEAKS), least=3))[0].obs_names) == ["CCC-1"]
    found, _, facts = count(path, Counting(peak_set(PEAKS)), pd.Index(["GGG-1", "TTT-1", "AAA-1"]))
    assert frame(found) == {k: BY_CUTS[k] for k in ("GGG-1", "AAA-1")}  # in the order given
    assert facts["fragments_of_cells"] == 4 and facts["in_peaks"] == 0.5
    assert "1 of 3 cells have no fragment" in caplog.text


@pytest.mark.parametrize("seed", range(6))
def test_any_counts_as_brute_force(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlapping and nested peaks, blocks of a few lines, counts merged again and again."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(fragment_file, "BLOCK", int(rng.integers(40, 400)))
    monkeypatch.setattr(fragments, "MERGE", int(rng.integers(1, 60)))
    starts = rng.integers(0, 300, 25)
    names = sorted({f"chr{rng.integers(1, 4)}:{s}-{s + rng.integers(1, 90)}" for s in starts})
    barcodes = [f"B{i}" for i in range(8)]
    lines = [
        (f"chr{rng.integers(1, 5)}", s := int(rng.integers(0, 350)), s + int(rng.integers(1, 120)), str(b), 1)
        for b in rng.choice(barcodes, 300)
    ]
    path = written(tmp_path / "f.tsv.gz", lines, header="", how=str(rng.choice(["bgzip", "gzip", "plain"])))
    given = pd.Index(barcodes[:5]) if seed % 2 else None
    table = peak_set(names)
    for way in ("cuts", "fragments"):
        expected = {b: [0] * len(names) for b in (barcodes if given is None else given)}
        for chrom, start, end, barcode, _ in lines:
            for j, (_, peak) in enumerate(table.table.iterrows()):
                if chrom == peak["chrom"] and barcode in expected:
                    inside = [peak["start"] <= cut < peak["end"] for cut in (start, end - 1)]
                    over = start < peak["end"] and end > peak["start"]
                    expected[barcode][j] += sum(inside) if way == "cuts" else int(over)
        assert frame(count(path, Counting(table, way, 1), given)[0]) == expected  # type: ignore[arg-type]


def test_lines_as_other_programs_write_them(tmp_path: Path) -> None:
    """Four columns, six columns, Windows line ends, comments in between, no last line end, barcodes with a #."""
    text = "chr1\t100\t150\ts#A\r\n# from here on the second lane\nchr1\t100\t150\ts#A\t2\t+\nchr1\t199\t201\tNA\t1"
    (tmp_path / "f.tsv").write_bytes(text.encode())
    assert frame(count(tmp_path / "f.tsv", Counting(peak_set(PEAKS), least=1))[0]) == {
        "NA": [1, 1, 0, 0],
        "s#A": [4, 0, 0, 0],
    }


def test_chromosomes_of_the_other_style_are_matched_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xmodal")
    path = written(tmp_path / "f.tsv.gz", [(c.removeprefix("chr"), *rest) for c, *rest in LINES], header="")
    found, genome, facts = count(path, Counting(peak_set(PEAKS), least=1))
    assert frame(found) == BY_CUTS and list(found.var_names) == PEAKS and genome == "hg38"
    assert facts["renamed_chromosomes"] and "chr1 and 1 are taken as one" in caplog.text


def spoiled(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


LONG = [("chr1", 10 * i + 1, 10 * i + 5, "AAA-1", 1) for i in range(3000)]
BAD = {
    "empty": (b"", "is empty"),
    "no fragments": (gzip.compress(HEADER.encode()), "no fragments in it"),
    "cut gzip": (gzip.compress(b"chr1\t1\t5\tAAA-1\t1\n" * 5000)[:-40], "truncated (its gzip stream ends early)"),
    "cut bgzip": (bgzip(b"chr1\t1\t5\tA\t1\n" * 50)[: -len(fragment_file.BGZIP_END)], "closing bgzip block is missing"),
    "broken gzip": (spoiled(gzip.compress(bytes(range(256)) * 40), 100), "gzip stream is broken"),
    "text in start": (b"chr1\t1\t5\tA\t1\nchr1\tfirst\t5\tA\t1\n", "line 2 is no fragment: its start is 'first'"),
    "a header": (b"chrom\tstart\tend\tbarcode\n", "line 1 is no fragment: its start is 'start'"),
    "few columns": (b"# c\nchr1\t1\t5\nchr1\t7\t9\n", "line 2 is no fragment: it has 3 of 4 columns"),
    "one short line": (b"chr1\t1\t5\tA\t1\nchr1\t7\t9\n", "line 2 is no fragment: it has 3 of 4 columns"),
    "blanks": (b"chr1 1 5 A 1\n", "it has 1 of 4 columns"),
    "backwards": (b"chr1\t1\t5\tA\nchr1\t9\t9\tA\n", "line 2 is no fragment: its start is not before its end"),
    "negative": (b"chr1\t-4\t5\tA\n", "line 1 is no fragment: its start is '-4'"),
    "too large": (b"chr1\t4\t99999999999999999999\tA\n", "its end is too large"),
    "no barcode": (b"chr1\t1\t5\t\t1\n", "its chromosome or barcode is empty"),
    "not text": (bytes(range(128, 256)) * 20 + b"\n" + bytes(200), "is no fragment"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_fragments_file_is_refused(tmp_path: Path, case: str) -> None:
    data, said = BAD[case]
    (tmp_path / "f.tsv.gz").write_bytes(data)
    with pytest.raises(InputRefused) as error:
        count(tmp_path / "f.tsv.gz", Counting(peak_set(PEAKS), least=1))
    assert said in str(error.value) and "f.tsv.gz" in error.value.where and error.value.do


def test_a_wrong_line_far_into_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragment_file, "BLOCK", 1000)
    path = written(tmp_path / "f.tsv.gz", [*LONG, ("chr1", "x", 5, "A", 1)])
    with pytest.raises(InputRefused, match="line 3004 is no fragment: its start is 'x'"):
        count(path, Counting(peak_set(PEAKS), least=1))


def test_what_does_not_fit_is_refused_with_both_sides(tmp_path: Path) -> None:
    path = written(tmp_path / "f.tsv.gz", LINES)
    foreign = peak_set([f"NC_{i}:1-5" for i in range(9)])
    with pytest.raises(InputRefused, match=r"fragments: chr1, chr2, chrUn_1; peaks: NC_0, NC_1, NC_2, NC_3, NC_4\)"):
        count(path, Counting(foreign, least=1))
    with pytest.raises(InputRefused, match=r"fragments: AAA-1, CCC-1, GGG-1; cells: T1, T2\)"):
        count(path, Counting(peak_set(PEAKS)), pd.Index(["T1", "T2"]))
    with pytest.raises(InputRefused, match="no barcode has 1000 fragments \\(the most: 3\\)"):
        count(path, Counting(peak_set(PEAKS)))
    with pytest.raises(InputRefused, match=r"genomes differ .*hg38.*mm10"):
        count(path, Counting(peak_set(PEAKS, "mm10"), least=1))
    with pytest.raises(InputRefused, match=r"genomes differ .*--genome: hg19"):
        count(path, Counting(peak_set(PEAKS, None), least=1, genome="GRCh37"))


def test_a_barcode_suffix_is_named(tmp_path: Path) -> None:
    barcodes = ["".join("ACGT"[(i >> 2 * k) & 3] for k in range(8)) for i in range(40)]
    path = written(tmp_path / "f.tsv.gz", [("chr1", 1, 150, f"{b}-1", 1) for b in barcodes])
    with pytest.raises(InputRefused, match="none of its barcodes is a cell") as error:
        count(path, Counting(peak_set(PEAKS)), pd.Index(barcodes))
    assert "suffix keeps 40 cells from pairing (none against '-1')" in error.value.do


def test_a_file_in_which_nothing_fits_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragment_file, "BLOCK", 200)
    monkeypatch.setattr(fragments, "EARLY", 20)
    path = written(tmp_path / "f.tsv.gz", [*LONG, ("chr1", "never", "read")], how="plain")
    with pytest.raises(InputRefused, match="no chromosome of the fragments"):
        count(path, Counting(peak_set(["X:1-5"]), least=1))


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xmodal")
    monkeypatch.setattr(fragment_file, "BLOCK", 2000)
    monkeypatch.setattr(fragments, "EVERY", 1000)
    count(written(tmp_path / "f.tsv.gz", LONG), Counting(peak_set(PEAKS), least=1))
    assert sum("million fragments" in line for line in caplog.messages) >= 2


def test_peaks_of_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.bed").write_text('track name="x"\n#c\nchr1\t5\t9\tpeak1\t0\nchr2\t1\t3\nchr1\t5\t9\n')
    found = read_peaks(tmp_path / "a.bed")
    assert list(found.table.index) == ["chr1:5-9", "chr2:1-3"] and "1 peaks stand there twice" in caplog.text
    (tmp_path / "a.bed.gz").write_bytes(gzip.compress((tmp_path / "a.bed").read_bytes()))
    assert read_peaks(tmp_path / "a.bed.gz").table.equals(found.table)
    atac = cells(["chr1-5-9", "chr2_1_3"])
    atac.uns["genome"] = "GRCm38"
    of_cells = read_peaks(write(atac, tmp_path / "a.h5ad"))
    assert of_cells.table.equals(found.table) and of_cells.genome == "mm10"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no peaks in it"),
        ("chr1 5 9\n", "line 1 is no interval: 'chr1 5 9'"),
        ("chr1\t5\t9\nchr1\t9\t9\n", "line 2 is no interval"),
        ("chr1\tx\t9\n", "line 1 is no interval"),
        ("chr1\t5\t9\nchr1\t5\t99999999999999999999999\n", "line 2 is no interval"),
        ("chr1\t5\t" + "9" * 5000 + "\n", "line 1 is no interval"),
    ],
)
def test_bad_peaks_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.bed").write_text(text)
    with pytest.raises(InputRefused, match=said):
        read_peaks(tmp_path / "a.bed")


def test_files_without_peaks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="no such file"):
        read_peaks(tmp_path / "none.bed")
    with pytest.raises(InputRefused, match="no peaks"):
        read_peaks(write(cells(GENES), tmp_path / "rna.h5ad"))
    (tmp_path / "bad.bed.gz").write_bytes(gzip.compress(b"chr1\t1\t2\n" * 99)[:-9])
    with pytest.raises(InputRefused, match="cannot be read"):
        read_peaks(tmp_path / "bad.bed.gz")


# From files to a prepared .h5mu


def sample(folder: Path, n: int = 40) -> dict[str, Path]:
    """RNA of ``n`` cells, and their fragments with some of other barcodes, over four peaks."""
    rng = np.random.default_rng(0)
    rna = cells(GENES, n)
    lines = [
        (f"chr{c}", s := int(rng.integers(0, 400)), s + int(rng.integers(20, 200)), b, 1)
        for b in [*rna.obs_names, "background"]
        for c in rng.integers(1, 3, 12)
    ]
    folder.mkdir(exist_ok=True)
    return {"rna": write(rna, folder / "rna.h5ad"), "fragments": written(folder / "f.tsv.gz", sorted(lines))}


def test_prepared_as_if_the_matrix_had_been_given(tmp_path: Path) -> None:
    files = sample(tmp_path)
    peaks = bed(tmp_path / "p.bed")
    matrix, _, _ = count(files["fragments"], Counting(peak_set(PEAKS)), ad.read_h5ad(files["rna"]).obs_names)
    matrix.uns["genome"] = "hg38"
    given = {"rna": files["rna"], "atac": write(matrix, tmp_path / "atac.h5ad")}
    expected, about = prepare([SampleFiles("s", given)], PrepareSettings(), 3)
    found, facts = prepare([SampleFiles("s", files)], PrepareSettings(peaks=str(peaks)), 3)
    for name in ("rna", "atac"):
        assert np.array_equal(found[name].X.toarray(), expected[name].X.toarray())
        assert found[name].obs.equals(expected[name].obs) and found[name].var.equals(expected[name].var)
    assert found.obs.equals(expected.obs) and found["atac"].uns == expected["atac"].uns == {"genome": "hg38"}
    assert facts["modalities"] == about["modalities"] and facts["split"] == about["split"]
    told = facts["counts"].pop("fragments")["s"]
    assert told["cells"] == 40 and told["barcodes"] == 41 and told["peaks_from"] == "p.bed" and told["count"] == "cuts"
    assert facts["counts"] == about["counts"]
    assert facts["options"]["peaks"] == "p.bed" and facts["options"]["min_fragments"] == 1000
    assert "peaks" not in about["options"]


def test_cells_of_an_atac_matrix_or_of_a_10x_file_are_counted_anew(tmp_path: Path) -> None:
    files = sample(tmp_path)
    atac = cells(["chr1:1-9", "chr5:1-9"], 20)
    files = {"atac": write(atac, tmp_path / "atac.h5ad"), "fragments": files["fragments"]}
    found, _ = prepare([SampleFiles("s", files)], PrepareSettings(peaks=str(bed(tmp_path / "p.bed"))))
    assert list(found["atac"].var_names) == PEAKS and set(found.obs_names) == set(atac.obs_names)
    assert "kind" in found.obs
    # The peaks of a Cell Ranger file give way, its genes stay
    h5 = write_10x(tmp_path / "filtered_feature_bc_matrix.h5")
    barcodes = read_cells(h5).obs_names
    path = written(tmp_path / "g.tsv.gz", [("chr1", 150, 220 + i, b, 1) for i, b in enumerate(barcodes[:4])])
    settings = PrepareSettings(peaks=str(tmp_path / "p.bed"), min_peak_fraction=0, split="random")
    found, _ = prepare([SampleFiles("s", {"h5": h5, "fragments": path})], settings)
    assert found["atac"].shape == (4, len(PEAKS)) and found["rna"].n_obs == len(barcodes) == found.n_obs


def trained(folder: Path) -> Path:
    """A checkpoint whose peaks are three of the four, and not in their order."""
    from xmodal.data.vocabulary import Modality, Vocabulary
    from xmodal.learning import checkpoint
    from xmodal.models.mean import Mean

    peaks = (PEAKS[3], PEAKS[0], PEAKS[1])
    known = Vocabulary(
        {
            "rna": Modality("rna", "nb", "log1p_cp10k", tuple(GENES)),
            "atac": Modality("atac", "bernoulli", "binary", peaks, None, "hg38"),
        }
    )
    checkpoint.save(folder / "model.safetensors", Mean.build(Mean.Settings(), known), {}, {})
    return folder / "model.safetensors"


def test_all_peaks_of_a_checkpoint_in_its_order(tmp_path: Path) -> None:
    """Also those that are closed in these cells, which the filter of peaks would take."""
    model = trained(tmp_path)
    assert checkpoint_peaks(model).genome == "hg38"
    path = written(tmp_path / "f.tsv.gz", [("1", 120, 150 + i, f"B{i}", 1) for i in range(9)])
    settings = PrepareSettings(checkpoint=str(model), min_fragments=1)
    found, facts = prepare([SampleFiles("s", {"fragments": path})], settings)
    assert list(found["atac"].var_names) == [PEAKS[3], PEAKS[0], PEAKS[1]] and found.n_obs == 9
    assert facts["options"]["checkpoint"] == "model.safetensors"
    done = call_xmodal("predict", tmp_path / "none.h5mu", "--to", "rna", "--checkpoint", model, "--output", "p.h5ad")
    assert done.code == 3


def test_the_command_and_a_samplesheet(tmp_path: Path) -> None:
    files, out = sample(tmp_path), tmp_path / "out.h5mu"
    common = ("--output", out, "--seed", 1, "--quiet")
    one = call_xmodal(
        "prepare", "--rna", files["rna"], "--fragments", files["fragments"], "--peaks", bed(tmp_path / "p.bed"), *common
    )
    assert one.code == 0, one.err
    first = out.read_bytes()
    (tmp_path / "sheet.csv").write_text("sample,rna,fragments\nsample,rna.h5ad,f.tsv.gz\n")
    two = call_xmodal(
        "prepare", "--samplesheet", tmp_path / "sheet.csv", "--peaks", tmp_path / "p.bed", *common, "--overwrite"
    )
    assert two.code == 0 and out.read_bytes() == first
    settings = json.loads(mu.read_h5mu(out).uns["xmodal"]["settings"])
    assert settings["counts"]["fragments"]["sample"]["cells_from"] == "the other files"


def test_two_samples_counted_over_one_set_of_peaks_need_no_consensus(tmp_path: Path) -> None:
    sample(tmp_path / "a")
    sample(tmp_path / "b")
    (tmp_path / "sheet.csv").write_text("sample,rna,fragments\na,a/rna.h5ad,a/f.tsv.gz\nb,b/rna.h5ad,b/f.tsv.gz\n")
    rows = read_samplesheet(tmp_path / "sheet.csv")
    assert rows[0].files["fragments"] == tmp_path / "a" / "f.tsv.gz"
    found, facts = prepare(rows, PrepareSettings(peaks=str(bed(tmp_path / "p.bed"))))
    assert list(found["atac"].var_names) == PEAKS and not facts["counts"]["joined"]["atac"]["consensus"]
    assert set(facts["counts"]["fragments"]) == {"a", "b"} and found.n_obs == 80


def test_wrong_options_and_what_is_left_behind(tmp_path: Path) -> None:
    files, out = sample(tmp_path), tmp_path / "out.h5mu"
    peaks = bed(tmp_path / "p.bed")

    def code(*args: object) -> tuple[int, str]:
        done = call_xmodal("prepare", "--output", out, "--quiet", *args)
        assert not list(tmp_path.glob(".out*")) and not out.exists()
        return done.code, done.err

    of_rna = ("--rna", files["rna"], "--fragments", files["fragments"])
    no_peaks = code(*of_rna)
    assert no_peaks[0] == 3 and "over which peaks" in no_peaks[1] and "--checkpoint" in no_peaks[1]
    assert code(*of_rna, "--peaks", peaks, "--checkpoint", "m")[0] == 2
    assert code("--rna", files["rna"], "--peaks", peaks)[0] == 2
    assert code(*of_rna, "--peaks", tmp_path / "none.bed")[0] == 3
    assert code(*of_rna, "--checkpoint", tmp_path / "none.safetensors")[0] == 3
    assert code(*of_rna, "--peaks", peaks, "--genome", "mm10")[0] == 3
    assert code("--rna", files["rna"], "--fragments", tmp_path / "none.tsv.gz", "--peaks", peaks)[0] == 3
    files["fragments"].write_bytes(files["fragments"].read_bytes()[:-60])
    assert code(*of_rna, "--peaks", peaks) == (
        3,
        f"{files['fragments']}: the file is truncated (its closing bgzip block is missing). What to do: copy or "
        "download it again; if it is whole, write it anew: zcat FILE | bgzip > NEW",
    )
    with pytest.raises(UsageRefused, match="--checkpoint: says over which peaks"):
        prepare([SampleFiles("s", {"rna": files["rna"]})], PrepareSettings(checkpoint="m"))


def test_check_says_what_it_is(tmp_path: Path) -> None:
    files = sample(tmp_path)
    done = call_xmodal("check", files["rna"], files["fragments"], "--json", tmp_path / "c.json")
    assert (
        done.code == 0 and "f.tsv.gz: fragments (chr1, chr2, ...; barcodes " in done.out and "genome hg38" in done.out
    )
    assert "the fragments are to be counted first" in done.out
    assert json.loads((tmp_path / "c.json").read_text())["use"]["predict_from"] == ["atac", "rna"]
    (tmp_path / "g.tsv").write_text("chr1\tx\t5\tA\n")
    done = call_xmodal("check", f"fragments={tmp_path / 'g.tsv'}")
    assert done.code == 3 and "line 1 is no fragment" in done.err
    other = written(tmp_path / "m.tsv.gz", LINES, HEADER.replace("GRCh38", "GRCm39"))
    done = call_xmodal("check", other, "--checkpoint", trained(tmp_path))
    assert done.code == 3 and "the genome is mm39, the checkpoint's hg38" in done.err
    done = call_xmodal("prepare", "--atac", files["fragments"], "--output", tmp_path / "o.h5mu")
    assert done.code == 3 and "xmodal prepare --fragments" in done.err
