"""Tables of values and of labels: what is read, and one sentence for what cannot be."""

from __future__ import annotations

import gzip
from pathlib import Path

import mudata as mu
import numpy as np
import pytest
from click.testing import CliRunner

from xmodal.cli.prepare import command
from xmodal.data import tables
from xmodal.errors import InputRefused

GOOD = "id,a,b\nw1,1,-2.5\nw2,0,4e1\nw3,,\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", GOOD),
        ("t.tsv", GOOD.replace(",", "\t")),
        ("t.csv.gz", GOOD),
        ("bom.csv", "\ufeff" + GOOD),
        ("windows.csv", GOOD.replace("\n", "\r\n")),
        ("of_r.csv", GOOD.replace("id,", "")),
    ],
)
def test_values(tmp_path: Path, name: str, text: str) -> None:
    read = tables.read_values(written(tmp_path, name, text))
    assert list(read.obs_names) == ["w1", "w2"] and list(read.var_names) == ["a", "b"]  # w3 was not measured
    assert read.X.toarray().tolist() == [[1, -2.5], [0, 40]]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("t.csv", "id;a;b\nw1;1;2\n", "separated by semicolons, those of a .csv by commas"),
        ("t.tsv", "id,a,b\nw1,1,2\n", "name it .csv"),
        ("t.csv", "id,a\nw1,1\nw1,2\n", "1 cell name comes more than once: w1"),
        ("t.csv", "id,a,a\nw1,1,2\n", "1 feature name comes more than once: a"),
        ("t.csv", "id,a,state\nw1,1,rest\n", "column 'state' holds text ('rest', line 2)"),
        ("t.csv", "id,a\nw1,1\nw2,x\n", "1 value that is no number (line 3: 'x')"),
        ("t.tsv", "id\ta\nw1\t1,5\n", "write decimal points"),
        ("t.csv", "id,a,b\nw1,1,2\nw2,NA,2\nw3,1,inf\n", "2 values are missing or infinite, in 2 cells and 2 features"),
        ("t.csv", "id,a\nw1,1\nw2,1,2\n", "line 3 has 3 fields, the first line 2"),
        ("t.csv", "id,a\n,1\n", "the cell of line 2 has no name"),
        ("t.csv", "id,a\nw1,\n", "there is no value in it"),
        ("t.csv", "id\nw1\n", "it has one column only"),
        ("t.csv", "id,a\n", "there are no cells in it"),
        ("t.tsv", "chr1\t10\t20\tAAA\t1\n" * 2, "xmodal prepare --fragments"),
    ],
)
def test_refusals(tmp_path: Path, name: str, text: str, what: str) -> None:
    path = written(tmp_path, name, text)
    with pytest.raises(InputRefused) as refused:
        tables.read_values(path)
    assert what in str(refused.value) and str(path) in str(refused.value)
    assert refused.value.do and "\n" not in str(refused.value)


def two(folder: Path) -> list[str]:
    draw, names = np.random.default_rng(0), [f"w{i}" for i in range(12)]
    for name, cells in (("a.csv", names), ("b.csv", names[3:])):
        rows = [f"{c}," + ",".join(f"{v:.2f}" for v in draw.normal(size=3)) for c in cells]
        written(folder, name, "\n".join(["id,x,y,z", *rows]) + "\n")
    return [f"--modality=a={folder}/a.csv", f"--modality=b={folder}/b.csv", "--likelihood=a=gaussian"]


def test_tables_and_labels_become_a_prepared_file(tmp_path: Path) -> None:
    labels = written(tmp_path, "l.csv", "id,state,age,day\n" + "".join(f"w{i},{'ab'[i % 2]},{i},2\n" for i in range(9)))
    out = tmp_path / "p.h5mu"
    done = CliRunner().invoke(
        command, [*two(tmp_path), f"--obs={labels}", "--exclude=state=a", "--seed=1", f"--output={out}"]
    )
    assert done.exit_code == 0, done.output
    mdata = mu.read_h5mu(out)
    assert mdata["a"].n_obs == 7 and mdata["b"].n_obs == 6
    assert (mdata.obs["state"] == "b").sum() == 4 and mdata.obs["state"].isna().sum() == 3
    assert mdata.obs.loc["w1", "age"] == 1


def test_labels_of_other_cells(tmp_path: Path) -> None:
    labels = written(tmp_path, "l.csv", "id,state\nv1,a\nv2,b\n")
    done = CliRunner().invoke(command, [*two(tmp_path), f"--obs={labels}", f"--output={tmp_path}/p.h5mu"])
    assert isinstance(done.exception, InputRefused) and "it names none of the 12 cells" in str(done.exception)
    assert not (tmp_path / "p.h5mu").exists()


def test_whole_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    read = tables.read_labels(written(tmp_path, "l.csv", "id,class,age\nw1,1,2.5\nw2,,\nw3,2,3\n"))
    assert list(read["class"]) == ["1", None, "2"] and read["age"].tolist()[::2] == [2.5, 3.0]
