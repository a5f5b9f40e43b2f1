"""What training cells are called, and which term each label means."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from helpers_text import small
from xmodal import fields
from xmodal.data.labels import labels_of
from xmodal.errors import InputRefused
from xmodal.text import ontology


def cells(labels: list[object], **more: list[object]) -> ad.AnnData:
    """Cells of which only obs matters."""
    obs = pd.DataFrame({"cell_type": labels, **more}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(np.zeros((len(labels), 1), np.float32), obs=obs)


def table(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("label\tcell_type_ontology_term_id\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    return path


def test_by_name() -> None:
    """Names, exact synonyms and ids in whichever case; labels of one term are one class."""
    found = labels_of(cells(["t cell", "B-cell", "CL_0000540", "T lymphocyte", "B-cell"]), "cell_type", small(), None)
    assert found.key == "cell_type" and found.values == ("B-cell", "CL_0000540", "T lymphocyte", "t cell")
    assert found.terms == ("CL:0000236", "CL:0000540", "CL:0000084", "CL:0000084")
    assert found.classes == ("CL:0000084", "CL:0000236", "CL:0000540")
    assert found.codes(["t cell", "T lymphocyte", "monocyte", None, "B-cell"]).tolist() == [0, 0, -1, -1, 1]


def test_cells_without_a_label() -> None:
    given = ["T cell", "B cell", "unknown", "Unknown", "nan", "", None, np.nan, " NA "]
    assert labels_of(cells(given), "cell_type", small(), None).values == ("B cell", "T cell")
    column = pd.Categorical(["T cell", "B cell", None], categories=["neuron", "B cell", "T cell"])
    assert labels_of(cells(list(range(3)), kind=column), "kind", small(), None).values == ("B cell", "T cell")


def test_without_a_term(caplog: pytest.LogCaptureFixture) -> None:
    """A text of its own, said once with the first five."""
    found = labels_of(cells(["T cell", *"abcdefg"]), "cell_type", small(), None)
    assert found.terms == ("CL:0000084", *(f"label:{c}" for c in "abcdefg"))
    assert "7 of 8 labels have no term in small.tsv (2026-01-01) (a, b, c, d, e): " in caplog.text
    assert "--label-terms" in caplog.text and len(caplog.records) == 1


def test_numbers_are_labels() -> None:
    assert labels_of(cells([1, 0, 1]), "cell_type", small(), None).terms == ("label:0", "label:1")


def test_terms_beside(caplog: pytest.LogCaptureFixture) -> None:
    """The term that the cells have in obs goes before the name, where it is one for each label."""
    ids = ["CL:0000236", "CL:0000236", "CL:0000084", "unknown", "CL:0000540", "CL:0000617", "FBbt:00005106"]
    given = ["T cell", "B", "lymph", "lymph", "neuron", "neuron", "fly"]
    found = labels_of(cells(given, **{fields.TERM: ids}), "cell_type", small(), None)
    assert dict(zip(found.values, found.terms, strict=True)) == {
        "T cell": "CL:0000236",
        "B": "CL:0000236",
        "lymph": "CL:0000084",
        "neuron": "CL:0000540",
        "fly": "label:fly",
    }
    assert "'neuron' have several terms (CL:0000540, CL:0000617)" in caplog.text


def test_terms_as_labels() -> None:
    found = labels_of(
        cells(["x"] * 3, **{fields.TERM: ["CL:0000084", "CL:0000236", "unknown"]}), fields.TERM, small(), None
    )
    assert found.values == found.terms == ("CL:0000084", "CL:0000236")


def test_table(tmp_path: Path) -> None:
    """It goes before all; an empty field says that there is no term; what it does not name is found as without it."""
    rows = [("T cell", "CL:0000576"), ("B cell", ""), ("odd", " CL_0000540"), ("not here", "CL:0000084")]
    given = cells(["T cell", "B cell", "odd", "monocyte"], **{fields.TERM: ["CL:0000084"] * 3 + ["unknown"]})
    found = labels_of(given, "cell_type", small(), table(tmp_path / "t.tsv", *rows))
    assert dict(zip(found.values, found.terms, strict=True)) == {
        "B cell": "label:B cell",
        "T cell": "CL:0000576",
        "monocyte": "CL:0000576",
        "odd": "CL:0000540",
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("T cell", "CL:0000003")], r"--label-terms, label 'T cell': term CL:0000003 .* is obsolete.*use CL:0000000"),
        ([("T cell", "CL:0000085")], r"no term 'CL:0000085'.*did you mean CL:0000084"),
        ([("T cell", "T cell")], r"give the id: CL:0000084"),
        ([("T cell", "CL:0000084"), ("T cell", "")], r"label 'T cell' has two terms, CL:0000084 and none"),
        ([("t", "CL:0000084")], r"none of its 1 labels is one of the cells', such as B cell, T cell"),
    ],
)
def test_bad_table(tmp_path: Path, rows: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        labels_of(cells(["T cell", "B cell"]), "cell_type", small(), table(tmp_path / "t.tsv", *rows))


def test_no_table(tmp_path: Path) -> None:
    for content, said in (
        (b"a\tb\n", "columns label, cell_type_ontology_term_id are missing"),
        (b"\xff\xfe", "as text"),
    ):
        (tmp_path / "t.tsv").write_bytes(content)
        with pytest.raises(InputRefused, match=said) as refused:
            labels_of(cells(["T cell", "B cell"]), "cell_type", small(), tmp_path / "t.tsv")
        assert refused.value.where == f"--label-terms {tmp_path / 't.tsv'}"


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        (
            ["T cell", "B cell"],
            "cel_type",
            r"--label-key: obs has no column 'cel_type'. What to do: did you mean 'cell_type'",
        ),
        (["T cell", "T-cell"], "cell_type", r"the cells are all 'T cell'"),
        (["T cell", "unknown"], "cell_type", r"the cells are all 'T cell'"),
        ([None, "unknown"], "cell_type", r"the cells have no label"),
        (
            ["T cell", "CL:0000003"],
            "cell_type",
            r"--label-key: term CL:0000003 .* is obsolete.*use CL:0000000 \(cell\)",
        ),
        (["T cell", "CL:0000085"], "cell_type", r"--label-key: there is no term 'CL:0000085'"),
    ],
)
def test_refused(given: list[object], key: str, said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        labels_of(cells(given), key, small(), None)


def test_measurements_and_names_of_cells_are_no_labels() -> None:
    for given, said in (([0.5, 1.25, 3.0], "numbers that are not whole"), (list(range(30)), "30 values in 30 cells")):
        with pytest.raises(InputRefused, match=said):
            labels_of(cells(given), "cell_type", small(), None)
    assert len(labels_of(cells(list(range(20))), "cell_type", small(), None).values) == 20


def test_obsolete_beside() -> None:
    given = cells(["T cell", "old"], **{fields.TERM: ["CL:0000084", "CL:0000003"]})
    with pytest.raises(
        InputRefused, match=r"obs\['cell_type_ontology_term_id'\] of 'old': term CL:0000003 .*use CL:0000000"
    ):
        labels_of(given, "cell_type", small(), None)


def test_no_type_of_cell(caplog: pytest.LogCaptureFixture) -> None:
    """What holds for every cell is not learned as a type (the CELLxGENE schema forbids these terms)."""
    terms = [*small().terms.values(), ontology.Term("CL:0000548", "animal cell", parents=(ontology.ROOT,))]
    whole = ontology.cells_only(terms, "", "x.tsv")
    found = labels_of(cells(["T cell", "B cell", "animal cell", "cell"]), "cell_type", whole, None)
    assert found.values == ("B cell", "T cell")
    assert all(f"cells labelled '{label}' count as without a label" in caplog.text for label in ("animal cell", "cell"))
