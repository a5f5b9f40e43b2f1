"""Pages that are generated or compared: the table of parameters in docs/usage.md, the files in docs/output.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- parameters: written by `python tests/test_docs.py` -->", "<!-- end of parameters -->"
DEFAULT = re.compile(r" Default: ([^ ]+)\.$")
# Words in capitals stand for what a run puts there.
PLACES = ("SAMPLE", "MODEL", "SOURCE", "TARGET", "MODALITY")


def parameter_table() -> str:
    """The parameters of nextflow_schema.json, group by group."""
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    lines = []
    for group in schema["$defs"].values():
        lines += [
            "",
            f"### {group['title']}",
            "",
            group["description"],
            "",
            "| parameter | default | what |",
            "|---|---|---|",
        ]
        needed = group.get("required", [])
        lines += [_line(name, rule, name in needed) for name, rule in group["properties"].items()]
    return "\n".join([*lines, ""])


def _line(name: str, rule: dict[str, Any], needed: bool) -> str:
    text, told = rule["description"], ""
    if found := DEFAULT.search(text):
        text, told = text[: found.start()], found[1]
    if "default" in rule or rule["type"] == "boolean":
        told = json.dumps(rule.get("default", False)).strip('"')
    choices = f" One of `{'`, `'.join(rule['enum'])}`." if "enum" in rule else ""
    more = re.sub(r" ?See (?:[\w/.]+ and )?docs/usage\.md\.", "", rule.get("help_text", ""))
    what = " ".join(part for part in (text + choices, more) if part).replace("|", "\\|")
    what = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", what)
    return f"| `--{name}` | {'required' if needed else told} | {what} |"


def with_parameters(page: str) -> str:
    """The page with the table between its marks written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest and END in rest, "docs/usage.md has lost the marks of the table of parameters"
    return f"{before}{BEGIN}{parameter_table()}{END}{after}"


def output_patterns(everywhere: bool = False) -> dict[str, re.Pattern[str]]:
    """What the first table of docs/output.md names -> what it matches, a path below ``outdir``; a folder is all in it.

    ``everywhere``: only what the test profile leaves, not what needs an option.
    """
    rows = re.findall(r"^\| (`[^|]*?/.*?`) \|([^|]*)\|", (ROOT / "docs" / "output.md").read_text(), re.M)
    kept = [row for row, when in rows if not (everywhere and when.strip().startswith("`--"))]
    return {name: _pattern(name) for row in kept for name in re.findall(r"`([^`]+)`", row)}


def _pattern(name: str) -> re.Pattern[str]:
    text = re.sub(r"\\\{([^}]*)\\\}", lambda m: "(?:" + m[1].replace(",", "|") + ")", re.escape(name))  # {a,b}
    text = re.sub("|".join(PLACES), "[^/]+?", text)
    return re.compile(text + (".*" if name.endswith("/") else ""))


def undocumented(files: list[str]) -> list[str]:
    """Files of a run, relative to ``outdir``, that docs/output.md does not name."""
    patterns = output_patterns().values()
    return [file for file in files if not any(p.fullmatch(file) for p in patterns)]


def missing(files: list[str]) -> list[str]:
    """What docs/output.md names and a run of the test profile did not leave."""
    return [name for name, p in output_patterns(everywhere=True).items() if not any(p.fullmatch(f) for f in files)]


def published() -> set[str]:
    """Folders below ``outdir``, and patterns of files, that the configuration publishes."""
    texts = (ROOT / "conf/modules.config").read_text() + (ROOT / "nextflow.config").read_text()
    folders = {f"{name}/" for name in re.findall(r"\$\{params\.outdir\}/(\w+)", texts)}
    return folders | set(re.findall(r"pattern: '\*/([\w.*]+)'", texts))


def outputs_of_modules() -> set[str]:
    """Names of files that modules put out, such as ``scores.tsv`` or ``*.h5ad``; sections for MultiQC are not published."""
    texts = [file.read_text() for file in (ROOT / "modules").glob("*/**/main.nf")]
    paths = {
        path for text in texts for path in re.findall(r"path\([\"']([^\"']+)[\"']\)[ ,)]+.*emit: (?!mqc|plots)", text)
    }
    return {path.rsplit("/", 1)[-1] for path in paths} - {"${prefix}"}
