"""Every command that writes refuses at once what cannot be written: inputs here are no files of cells, and are never read."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from conftest import Ran, call_xmodal, run_xmodal
from xmodal import commands, outputs
from xmodal.cli import options
from xmodal.errors import InputRefused

# What stands before the outputs, and the outputs; IN is an empty file, DIR an empty folder.
COMMANDS: dict[str, tuple[str, dict[str, str]]] = {
    "simulate": ("simulate", {"--output-dir": "d"}),
    "check": ("check IN", {"--json": "c.json"}),
    "prepare": ("prepare --rna IN", {"--output": "p.h5mu", "--summary": "p.json"}),
    "samplesheet": ("samplesheet DIR", {"--output": "s.csv"}),
    "pretrain": ("pretrain IN", {"--output-dir": "d"}),
    "train": ("train IN", {"--output-dir": "d", "--state-dir": "s"}),
    "predict": (
        "predict IN --to rna --checkpoint IN",
        {"--output": "p.h5ad", "--summary": "p.json", "--overview": "o"},
    ),
    "decode": (
        "decode IN --checkpoint IN",
        {"--output": "p.h5ad", "--summary": "p.json", "--overview": "o"},
    ),
    "merge": ("merge IN", {"--output": "p.h5ad", "--summary": "p.json"}),
    "embed": (
        "embed IN --checkpoint IN",
        {"--output": "e.h5mu", "--table": "e.tsv", "--summary": "e.json", "--overview": "o"},
    ),
    "annotate": (
        "annotate IN --checkpoint IN",
        {"--output": "a.h5ad", "--table": "a.tsv", "--summary": "a.json", "--report-dir": "r"},
    ),
    "describe": ("describe IN --checkpoint IN", {"--output-dir": "d"}),
    "describe --train-decoder": ("describe --checkpoint IN --decoder scratch", {"--train-decoder": "d"}),
    "generate": (
        "generate --checkpoint IN --prompt T",
        {"--output": "g.h5ad", "--summary": "g.json", "--overview": "o"},
    ),
    "impute": ("impute IN --checkpoint IN", {"--output": "i.h5mu", "--summary": "i.json"}),
    "markers": ("markers IN", {"--output-dir": "d"}),
    "evaluate": ("evaluate IN --prediction rna=IN", {"--output-dir": "d"}),
    "evaluate --embedding": ("evaluate IN --embedding IN", {"--output-dir": "d"}),
    "select": ("select --training DIR", {"--output-dir": "d"}),
    "report": ("report --training DIR", {"--output": "r.html", "--multiqc-dir": "m", "--plots": "p"}),
}
READ = {"--decoder-dir"}  # what describe --train-decoder wrote
OUTPUTS = [(command, option) for command, (_, given) in COMMANDS.items() for option in given]


def _write_into(place: Path, command: str, option: str, folder: Path) -> Ran:
    """``command`` with the output ``option`` in ``place`` and all others in ``folder``."""
    text, given = COMMANDS[command]
    (folder / "empty").mkdir()
    (folder / "cells").write_text("")
    words = text.replace("IN", str(folder / "cells")).replace("DIR", str(folder / "empty")).split()
    for name, value in given.items():
        words += [name, str((place if name == option else folder / "good") / value)]
    return call_xmodal(*words)


@pytest.mark.parametrize(("command", "option"), OUTPUTS)
@pytest.mark.parametrize("place", ["/proc", "below a file", "read-only"])
def test_an_output_that_cannot_be_written_is_refused_at_once(
    command: str, option: str, place: str, tmp_path: Path
) -> None:
    if place == "/proc" and not Path(place).is_dir():
        pytest.skip("skipped, because this system has no /proc")
    (tmp_path / "afile").write_text("")
    (tmp_path / "readonly").mkdir(mode=0o500)
    if place == "read-only" and os.access(tmp_path / "readonly", os.W_OK):
        pytest.skip("skipped, because root may write anywhere")
    where = {"/proc": Path("/proc"), "below a file": tmp_path / "afile", "read-only": tmp_path / "readonly"}[place]
    done = _write_into(where, command, option, tmp_path)
    name = COMMANDS[command][1][option]
    assert done.code == 3
    assert done.err.startswith(f"{where / name}") and done.err.count("What to do: ") == 1
    assert ("is a file, not a folder" if place == "below a file" else "cannot be written") in done.err
    assert not (tmp_path / "good").exists()


@pytest.mark.parametrize(("command", "option"), OUTPUTS)
def test_that_test_can_fail(command: str, option: str, tmp_path: Path) -> None:
    """With outputs that can be written the same commands come as far as their inputs, or end well."""
    done = _write_into(tmp_path / "good", command, option, tmp_path)
    assert "cannot be written" not in done.err and "not a folder" not in done.err


@pytest.mark.parametrize("command", [c.name for c in commands.COMMANDS])
def test_every_output_of_every_command_is_tried(command: str) -> None:
    parameters = importlib.import_module(f"xmodal.cli.{command}").command.params
    written = {p.opts[0] for p in parameters if p.type in (options.WRITABLE, options.STORE, options.FOLDER)} - READ
    assert written == {option for name, option in OUTPUTS if name.split()[0] == command}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (c, o)
        for c, o in OUTPUTS
        if c in ("prepare", "predict", "decode", "merge", "embed", "impute") and o != "--overview"
    ],
)
def test_inputs_are_never_replaced(command: str, option: str, tmp_path: Path) -> None:
    """As cells.h5mu or cells.h5ad, under another name too."""
    text, given = COMMANDS[command]
    cells, other = tmp_path / "cells", tmp_path / given[option]
    cells.write_text("")
    other.symlink_to(cells)
    words = text.replace("IN", str(cells)).split()
    for name, value in given.items():
        words += [name, str(other if name == option else tmp_path / "good" / value)]
    done = call_xmodal(*words, "--overwrite")
    assert done.code == 2 and f"{other} is an input and cannot be an output as well" in done.err
    assert cells.read_text() == "" and not (tmp_path / "good").exists()


def test_the_installed_command_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("")
    cells = tmp_path / "cells"
    done = run_xmodal("embed", cells, "--checkpoint", cells, "--output", "/proc/x.h5mu")
    assert done.code == 3 and done.err.count("\n") == 1
    assert done.err.startswith("xmodal: error: /proc/x.h5mu: this output cannot be written")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/x.json"])
def test_devices_are_never_replaced(path: str) -> None:
    with pytest.raises(InputRefused, match=r"device or pipe|not a folder"):
        outputs.refuse_existing(Path(path), overwrite=True)


def test_names_that_are_too_long_and_links_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="cannot be written: File name too long"):
        outputs.refuse_existing(tmp_path / ("x" * 250 + ".h5mu"), overwrite=False)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputRefused, match="link is a link to nothing, not a folder"):
        outputs.refuse_existing(tmp_path / "link" / "x.h5mu", overwrite=False)
    outputs.refuse_existing(tmp_path / "link", overwrite=False)  # itself is replaced


def test_asking_leaves_nothing(tmp_path: Path) -> None:
    outputs.refuse_existing(tmp_path / "a" / "b" / "x.h5mu", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with outputs.replacing_files(Path(), ("a.tsv",)) as temporary:
        (temporary / "a.tsv").write_text("x")
        assert (
            temporary.absolute().parent == tmp_path
        )  # a mount may be all that can be written, and no rename leaves it
    assert [p.name for p in tmp_path.iterdir()] == ["a.tsv"]


def test_a_folder_that_is_new_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), outputs.replacing_files(tmp_path / "new", ()) as temporary:
        (temporary / "a.tsv").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
