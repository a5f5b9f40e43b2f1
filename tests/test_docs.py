"""The documentation is tested: the reference is generated, README commands run, every model and command is described.

`python tests/test_docs.py` writes docs/cli.md and the table of parameters in docs/usage.md anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest

from conftest import XMODAL, call_xmodal
from helpers_docs import PLACES, output_patterns, outputs_of_modules, published, with_parameters
from xmodal import registry
from xmodal.cli import cli
from xmodal.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def reference() -> str:
    """docs/cli.md, from the commands themselves."""
    lines = ["# Commands", "", "Written by `python tests/test_docs.py` from the commands; a test compares.", ""]
    for entry in COMMANDS:
        context = click.Context(cli, info_name="xmodal", help_option_names=["-h", "--help"])
        command = cli.get_command(context, entry.name)
        assert command is not None
        forms = [form for form, yes in (("a Nextflow module", entry.module), ("a Galaxy tool", entry.galaxy)) if yes]
        said = [entry.summary, f"Also {' and '.join(forms)}." if forms else ""]
        said += [f"{entry.why_not[0].upper()}{entry.why_not[1:]}." if entry.why_not else ""]
        lines += [
            f"## xmodal {entry.name}",
            "",
            " ".join(filter(None, said)),
            "",
            "```text",
        ]
        inner = click.Context(command, parent=context, info_name=entry.name, max_content_width=120, terminal_width=120)
        lines += [line.rstrip() for line in command.get_help(inner).splitlines()] + ["```", ""]
    return "\n".join(lines)


def test_the_reference_is_the_commands() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `python tests/test_docs.py`"


def test_the_table_of_parameters_is_the_schema() -> None:
    page = (ROOT / "docs" / "usage.md").read_text()
    assert page == with_parameters(page), "run `python tests/test_docs.py`"


@pytest.mark.parametrize("place", sorted(published() | outputs_of_modules()))
def test_what_is_published_is_on_the_page_of_outputs(place: str) -> None:
    """Folders and patterns of conf/modules.config, outputs of the modules; test_nextflow.py compares with a run."""
    ending = place.replace("*", "")
    names = output_patterns()
    assert any(ending in f"{name} " if place.endswith("*") else ending in name for name in names), place


def test_every_section_of_multiqc_is_on_the_page_of_outputs() -> None:
    from test_multiqc import sections, whole

    page = (ROOT / "docs" / "output.md").read_text()
    listed = re.findall(r"^\| ([^|]+) \|", page.partition("## MultiQC")[2].partition("\n## ")[0], re.M)
    assert len(listed) > 8 and len(listed) == len(set(listed)), listed
    names = {s["section_name"].removesuffix(", table") for s in sections(whole()) if "section_name" in s}
    assert [n for n in names if f"| {n.replace('RNA', 'TARGET').replace('ATAC', 'TARGET')} |" not in page] == []


def test_the_reports_for_seqera_are_outputs() -> None:
    """Every pattern of tower.yml stands for a file that docs/output.md names."""
    import yaml

    reports = yaml.safe_load((ROOT / "tower.yml").read_text())["reports"]
    assert all(about["display"] for about in reports.values())
    named = [re.sub("|".join(PLACES), "x", name) for name in output_patterns()]
    assert [pattern for pattern in reports if not any(fnmatch(name, pattern) for name in named)] == []


def test_every_model_is_described() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    for name in registry.names():
        assert f"`{name}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands_of(page: str) -> list[str]:
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [
        line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("xmodal ")
    ]


LESS = {"simulate": ["--genes", "60", "--peaks", "90"], "train": ["--set", "epochs=2"]}


def test_commands_of_the_joint_analysis_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand but for LESS and fewer cells, and then the lines of Python."""
    monkeypatch.chdir(tmp_path)
    commands = commands_of("docs/joint.md")
    said = [c.split()[1] for c in commands]
    assert said == [
        *("simulate", "prepare", "train", "embed", "impute", "markers", "evaluate", "report", "embed"),
    ]
    for text in commands:
        words = shlex.split(text)[1:]
        fewer = ["--cells", "300"] if words[0] == "simulate" else []
        done = call_xmodal(*words, *LESS.get(words[0], []), *fewer, "--quiet", "--threads", "1")
        assert done.code == 0, f"{text}\n{done.err}"
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Joint analysis</h1>" in page and "300 cells of joint were embedded together" in page
    [lines] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/joint.md").read_text(), re.S)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    found: dict[str, Any] = {}
    exec(lines, found)
    assert found["cells"]["rna"].layers["xmodal_imputed"].shape == found["cells"]["rna"].shape


def test_the_example_of_states_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but for fewer epochs; what the page says of one signal alone and of plain methods holds."""
    import json

    monkeypatch.chdir(tmp_path)
    [lines] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/states.md").read_text(), re.S)
    exec(lines, {})
    for text in commands_of("docs/states.md"):
        words = shlex.split(text)[1:]
        more = ["--set", "epochs=20"] if words[0] == "train" else []
        done = call_xmodal(*words, *more, "--quiet", "--threads", "1")
        assert done.code == 0, f"{text}\n{done.err}"
    found = json.loads((tmp_path / "scores/metrics.json").read_text())["annotation"]["methods"]
    assert found["annotation"]["accuracy"] > 0.95 and found["logistic"]["accuracy"] < 0.6
    assert found["knn15"]["accuracy"] < 0.7
    page = (tmp_path / "report.html").read_text()
    assert "state from physio and motion" in page and "matched" in page


def test_make_lists_each_target_once() -> None:
    """A target that stands twice is only a warning of make's, and the first is lost."""
    command = ["make", "--no-print-directory", "help"]  # which make says where it was itself started by make
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.stderr == "" and {"setup", "demo", "test"} <= set(names) and len(set(names)) == len(names)


def test_readme_commands_run(tmp_path: Path) -> None:
    """As they stand, in their order; smaller cells and fewer epochs are the only change."""
    commands = commands_of("README.md")
    assert {c.split()[1] for c in commands} >= {
        "simulate",
        "check",
        "prepare",
        "train",
        "predict",
        "evaluate",
        "report",
    }
    for text in commands:
        words = shlex.split(text)[1:]
        more = LESS.get(words[0], [])
        done = subprocess.run(
            [XMODAL, *words, *more, "--quiet", "--threads", "1"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
    assert (tmp_path / "report.html").stat().st_size > 10_000


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(reference())
    usage = ROOT / "docs" / "usage.md"
    usage.write_text(with_parameters(usage.read_text()))
