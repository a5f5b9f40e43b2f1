"""Lines of the Galaxy data table ``xmodal_models``."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal import outputs
from xmodal.errors import InputRefused

COLUMNS = ("value", "name", "genome", "predicts", "sha256", "path")
HEAD = "#" + "\t".join(COLUMNS)


@dataclass(frozen=True)
class Row:
    """One model of the table; ``predicts`` is ``source:target``, comma-separated."""

    value: str
    name: str
    genome: str
    predicts: str
    sha256: str
    path: Path

    def line(self) -> str:
        cells = [str(getattr(self, column)) for column in COLUMNS]
        if any(bad in cell for cell in cells for bad in "\t\r\n"):
            raise InputRefused("a tab or line break cannot stand in a data table", where=self.value, do="rename it")
        return "\t".join(cells)


def row(value: str, name: str, about: dict[str, Any], path: Path) -> Row:
    """The row of a checkpoint; ``about``: what ``xmodal models --json`` says of it."""
    genomes = {m["genome"] for m in about["modalities"].values() if m["genome"]}
    predicts = ",".join(f"{source}:{target}" for source, target in about["directions"])
    return Row(value, name, genomes.pop() if len(genomes) == 1 else "?", predicts, about["sha256"], path.resolve())


def register(loc: Path, new: Row) -> None:
    """The row in place of an earlier one of that value, or after all others; the file is replaced in one step."""

    def change(lines: list[str]) -> list[str]:
        own = [i for i, line in enumerate(lines) if _value(line) == new.value]
        kept = [line for i, line in enumerate(lines) if i not in own[1:]]
        if not own:
            return [*kept, new.line()]
        kept[own[0]] = new.line()
        return kept

    _rewrite(loc, change)


def unregister(loc: Path, value: str, sha256: str) -> None:
    """Take out the row of that value, where it is of that very file."""
    if loc.is_file():
        _rewrite(loc, lambda lines: [x for x in lines if _value(x) != value or sha256 not in x.split("\t")])


def _rewrite(loc: Path, change: Callable[[list[str]], list[str]]) -> None:
    loc.parent.mkdir(parents=True, exist_ok=True)
    with loc.with_name(f".{loc.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = loc.read_text(encoding="utf-8") if loc.is_file() else HEAD + "\n"
        new = "\n".join(change(text.splitlines())) + "\n"
        if not loc.is_file() or new != text:
            outputs.write_text(loc, new, overwrite=True)


def _value(line: str) -> str:
    return "" if line.startswith("#") else line.split("\t", 1)[0]
