"""The report on descriptions and generated cells: what was said, what was asked for, and how good both are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from xmodal.cli import cli
from xmodal.errors import InputRefused
from xmodal.reporting import multiqc_texts
from xmodal.reporting.report_inputs import Given, read
from xmodal.scores.generation_texts import HEADLINE

HOSTILE = "<script>alert(1)</script> cells"
PNG = b"\x89PNG\r\n\x1a\n"
REAL = dict(zip(HEADLINE, (0.9, 0.01, 1.0, 0.6), strict=True))
METHODS = {
    "generated": {**REAL, "r_delta": 0.8},
    "real": {**REAL, "r_delta": 0.9},
    "type_mean": {**dict.fromkeys(HEADLINE, 0.0), HEADLINE[0]: 1.0},
}


def evaluated(folder: Path, kind: str, **about: Any) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({kind: about}))
    return folder


def generation(folder: Path, **own: float) -> Path:
    methods = {**METHODS, "generated": METHODS["generated"] | own}
    types = [
        {"type": "CL:0000236", "name": "B cell", "train": 60, "test": 20, "generated": 30, "mmd2_generated": 0.0123}
    ]
    about = {"cells": 30, "test_cells": 20, "label_key": "cell_type", "types": types, "notes": ["a note of scores"]}
    return evaluated(folder, "generation", methods=methods, provenance={"seed": 7}, **about)


def imagined(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        ("B cell", "CL:0000236", "CL:0000236", "B cell", 0.97, "no", "B cell", 30, 400.0),
        (HOSTILE, "unknown", "CL:0000623", "natural killer cell", 0.5, "yes", "", 30, 500.0),
    ]
    columns = ["prompt", "cell_type_ontology_term_id", "nearest_type", "nearest_type_name", "nearest_cosine"]
    columns += ["extrapolating", "cells_of", "cells", "median_counts"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "prompts.tsv", sep="\t", index=False)
    genes = [("B cell", "CD79A", 80.0, 10.0, 3.0), ("B cell", "LYZ", 1.0, 8.0, -3.0)]
    names = ["prompt", "gene", "per_10k", "per_10k_of_training_types", "log2_ratio"]
    pd.DataFrame(genes, columns=names).to_csv(folder / "genes.tsv", sep="\t", index=False)
    (folder / "generated.json").write_text(
        json.dumps({"cells": 60, "prompts": [{}, {}], "model": "scmmgpt", "seed": 3})
    )
    (folder / "generated.png").write_bytes(PNG)
    return folder


def unit(name: str, cells: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "group": name, "cell": None, "cells": cells, "label": name, "status": "assigned"} | more


def described(folder: Path, group_by: str = "ct_label") -> Path:
    folder.mkdir()
    units = [unit("platelet", 4, text="Few platelets."), unit("B cell", 91, text=f"B cells & {HOSTILE}.")]
    about = {"units": units, "cells": 95, "genes": {"chosen": 5, "confirmed": 4}, "decoder": {"name": "template"}}
    about |= {"group_by": group_by, "notes": ["too few cells to test genes"], "settings": {"per": "cluster"}}
    (folder / "descriptions.json").write_text(json.dumps(about))
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def page_of(tmp_path: Path, *arguments: object) -> str:
    path = tmp_path / "page.html"
    result = call(*arguments, "--output", path, "--overwrite")
    assert result.exit_code == 0, (result.output, result.exception)
    return path.read_text()


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    return {
        "generation": generation(tmp_path / "scores"),
        "generated": imagined(tmp_path / "made"),
        "described": described(tmp_path / "said"),
    }


def test_generated_cells_have_a_verdict_and_their_scores(parts: dict[str, Path], tmp_path: Path) -> None:
    page = page_of(tmp_path, "--evaluation", parts["generation"])
    assert "pass for test cells by all four measures" in page and "Nothing was evaluated" not in page
    assert 'id="imitated-1"' in page and "10 neighbours name the prompt" in page and "a note of scores" in page
    row = page.split("10 neighbours name the prompt")[1].split("</tr>")[0]
    assert "1.000" in row and "1.000 ★" not in row  # a floor is no winner
    assert "0.012" in page.split("Each type")[1].split("</table>")[0]


def test_what_falls_short_is_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, "--evaluation", generation(tmp_path / "scores", mmd2=0.5, c2st=0.99))
    assert "fall short in MMD² 0.500 (real cells 0.010)" in page and "Do not trust" in page
    assert "MMD²: too far from that of real cells" in page


def test_what_was_asked_for(parts: dict[str, Path], tmp_path: Path) -> None:
    page = page_of(tmp_path, "--generated", parts["generated"])
    text = words(page)
    assert "60 cells were generated for 2 prompts (made); 1 of them is of no type that the model was trained on" in text
    assert "how like real cells the generated ones are" in text and "a guess between all types" in text
    assert "CD79A" in page and "LYZ" not in page  # what cells have less of is not what sets them apart
    assert "<script" not in page and "alert(1)" in page


def test_descriptions_are_on_the_page_the_largest_group_first(parts: dict[str, Path], tmp_path: Path) -> None:
    page = page_of(tmp_path, "--description", parts["described"])
    assert page.index("B cells &amp;") < page.index("Few platelets.") and "<script" not in page
    text = words(page)
    assert "2 groups of cells out of 95 cells were described in words" in text
    assert "Of 5 genes chosen in one half of the cells, 4 were confirmed" in text and "too few cells to test" in text


def test_clusters_keep_their_order(tmp_path: Path) -> None:
    page = page_of(tmp_path, "--description", described(tmp_path / "said", "leiden"))
    assert page.index("Few platelets.") < page.index("B cells &amp;")


def test_pictures_and_tables_as_files(parts: dict[str, Path], tmp_path: Path) -> None:
    given = (
        "--evaluation",
        parts["generation"],
        "--generated",
        parts["generated"],
        "--description",
        parts["described"],
    )
    page_of(tmp_path, *given, "--plots", tmp_path / "plots", "--multiqc-dir", tmp_path / "mqc")
    assert {"generated-made.png", "imitated-scores.png"} <= {p.name for p in (tmp_path / "plots").iterdir()}
    prompts = pd.read_csv(tmp_path / "plots" / "prompts.tsv", sep="\t")
    assert list(prompts["prompt"]) == ["B cell", HOSTILE] and list(prompts["cells"]) == [30, 30]
    scores = pd.read_csv(tmp_path / "plots" / "scores.tsv", sep="\t")
    assert set(scores["target"]) == {"generation"} and set(scores["method"]) == set(METHODS)
    verdicts = pd.read_csv(tmp_path / "plots" / "verdicts.tsv", sep="\t")
    assert list(verdicts["verdict"]) == ["good"]
    assert len(pd.read_csv(tmp_path / "plots" / "descriptions.tsv", sep="\t")) == 2
    section = json.loads((tmp_path / "mqc" / "xmodal_generated_mqc.json").read_text())
    assert section["data"]["scores | real"]["mmd2"] == REAL["mmd2"] and next(iter(section["headers"])) == HEADLINE[0]


def test_descriptions_have_a_section_in_multiqc(tmp_path: Path) -> None:
    methods = {"description": {"traceable": 1.0, "label_f1": 0.9}, "lookup": {"label_f1": 0.9}}
    folder = evaluated(tmp_path / "scored", "description", methods=methods)
    section = multiqc_texts.descriptions(read(Given(evaluations=[folder])))
    assert section["data"]["scored | lookup"] == {"label_f1": 0.9} and set(section["headers"]) == {
        "traceable",
        "label_f1",
    }


@pytest.mark.parametrize(("option", "part"), [("--generated", "prompts"), ("--description", "described")])
def test_what_was_not_scored_has_a_section_too(parts: dict[str, Path], tmp_path: Path, option: str, part: str) -> None:
    """The pipeline's report of such a folder alone is also read by MultiQC."""
    folder = parts[{"prompts": "generated"}.get(part, part)]
    page_of(tmp_path, option, folder, "--multiqc-dir", tmp_path / "mqc")
    assert [p.name for p in (tmp_path / "mqc").iterdir()] == [f"xmodal_{part}_mqc.json"]
    section = json.loads((tmp_path / "mqc" / f"xmodal_{part}_mqc.json").read_text())
    assert sum(row["cells"] for row in section["data"].values()) == {"prompts": 60, "described": 95}[part]
    assert "<script" not in json.dumps(section)


def test_the_same_input_gives_the_same_page(parts: dict[str, Path], tmp_path: Path) -> None:
    given = (
        "--evaluation",
        parts["generation"],
        "--generated",
        parts["generated"],
        "--description",
        parts["described"],
    )
    assert page_of(tmp_path, *given) == page_of(tmp_path, *given)


@pytest.mark.parametrize(
    ("option", "file", "content", "what"),
    [
        ("--generated", "generated.json", "{}", "these are no generated cells"),
        ("--generated", "prompts.tsv", "a\tb\n1\t2\n", "these are no generated cells"),
        ("--generated", "generated.png", "no picture", "these are no generated cells"),
        ("--generated", "genes.tsv", None, "there is no genes.tsv in it"),
        ("--description", "descriptions.json", "{}", "these are no descriptions"),
        ("--description", "descriptions.json", "[", "this is not a JSON file"),
        ("--description", "descriptions.json", None, "there is no descriptions.json in it"),
    ],
)
def test_folders_that_are_refused(
    parts: dict[str, Path], tmp_path: Path, option: str, file: str, content: str | None, what: str
) -> None:
    folder = parts["generated" if option == "--generated" else "described"]
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    result = call(option, folder, "--output", tmp_path / "out" / "page.html")
    assert isinstance(result.exception, InputRefused) and what in str(result.exception)
    assert folder.name in str(result.exception) and not (tmp_path / "out").exists()


def test_scores_of_generated_cells_are_no_training(parts: dict[str, Path], tmp_path: Path) -> None:
    result = call("--training", parts["generation"], "--output", tmp_path / "page.html")
    assert isinstance(result.exception, InputRefused) and "give it as --evaluation" in str(result.exception)
