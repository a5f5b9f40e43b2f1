"""Fragments in the pipeline: staged with the peaks they are counted over, and refused early where nothing names these."""

from __future__ import annotations

import shutil
from pathlib import Path

import mudata as mu
import pytest

from helpers_nextflow import ROOT, nextflow, pipeline, succeeded
from test_fragments import PEAKS, bed, sample, trained

pytestmark = pytest.mark.nextflow

FOREIGN = """
include { XMODAL_PREPARE } from './modules/crossmodal/xmodal/prepare/main'

workflow {
    sheet = 'sample,rna,fragments\\ntheirs,input1/rna.h5ad,input2/f.tsv.gz'
    files = [file('rna.h5ad'), file('f.tsv.gz')]
    ch_over = channel.of('p.bed', 'model.safetensors')
    XMODAL_PREPARE(ch_over.map { name -> [[id: name.tokenize('.')[0]], sheet, files, file(name)] })
    XMODAL_PREPARE.out.h5mu.view { meta, h5mu -> "GOT ${meta.id} ${h5mu}" }
}
"""


def test_the_module_counts_over_a_model_or_a_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "modules/crossmodal/xmodal/prepare", tmp_path / "modules/crossmodal/xmodal/prepare")
    sample(tmp_path)
    bed(tmp_path / "p.bed")
    trained(tmp_path)
    (tmp_path / "main.nf").write_text(FOREIGN)
    run = nextflow(tmp_path, "run", "main.nf")
    succeeded(run)
    got = {line.split()[1]: line.split()[2] for line in run.stdout.splitlines() if line.startswith("GOT")}
    assert list(mu.read_h5mu(got["p"])["atac"].var_names) == PEAKS
    assert list(mu.read_h5mu(got["model"])["atac"].var_names) == [PEAKS[3], PEAKS[0], PEAKS[1]]


def staged(folder: Path, output: str) -> list[str]:
    """Inputs that the task which left ``output`` found, under the names it gave them."""
    task = next(p.parent for p in folder.glob(f"work/*/*/{output}") if not p.parent.is_symlink())
    return sorted(str(p.relative_to(task)) for place in ("input*", "peaks") for p in task.glob(f"{place}/*"))


def test_each_row_gets_the_peaks_of_its_model(tmp_path: Path) -> None:
    """To learn from: --peaks.  To predict for: the model in the row, else the one that is trained in this run."""
    sample(tmp_path)
    bed(tmp_path / "p.bed")
    trained(tmp_path).rename(tmp_path / "own.safetensors")
    for name in ("g.tsv.gz", "h.tsv.gz"):
        shutil.copy(tmp_path / "f.tsv.gz", tmp_path / name)
    rows = ("learn,train,rna.h5ad,f.tsv.gz,", "old,predict,,g.tsv.gz,own.safetensors", "new,predict,,h.tsv.gz,")
    (tmp_path / "sheet.csv").write_text("\n".join(("sample,role,rna,fragments,checkpoint", *rows, "")))
    run = pipeline(tmp_path, "-stub", "--input", "sheet.csv", "--outdir", "out", "--peaks", "p.bed", "--skip_multiqc")
    succeeded(run)
    assert staged(tmp_path, "training.h5mu") == ["input1/rna.h5ad", "input2/f.tsv.gz", "peaks/p.bed"]
    assert staged(tmp_path, "old.h5mu") == ["input1/g.tsv.gz", "peaks/own.safetensors"]
    assert staged(tmp_path, "new.h5mu") == ["input1/h.tsv.gz", "peaks/model.safetensors"]
