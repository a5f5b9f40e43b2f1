"""What a portal has over the tests' bare Galaxy: its table of models, its page, accounts, reports shown as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from portal.server import HERE, ROOT

TOOLS = ROOT / "galaxy_tools"
DATA_MANAGER = TOOLS / "data_managers" / "data_manager_xmodal_models"
COLUMNS = "value, name, genome, predicts, sha256, path"


def models(folder: Path, *made: Path) -> Path:
    """The tables' configuration: models of the tables ``made``, and those that the data manager added in ``folder``."""
    table = folder / "xmodal_models.loc"
    lines: dict[str, str] = {}
    for source in (table, *made):
        if source.exists():
            here = source.read_text().replace("${__HERE__}", str(source.parent))
            rows = [line for line in here.splitlines() if line.strip() and not line.startswith("#")]
            lines |= {row.partition("\t")[0]: row for row in rows if Path(row.rpartition("\t")[2]).is_file()}
    whole = folder / "xmodal_models.loc.tmp"
    whole.write_text("\n".join(["# " + COLUMNS.replace(", ", "\t"), *lines.values(), ""]))
    whole.replace(table)
    tables = folder / "tool_data_table_conf.xml"
    tables.write_text(
        f'<tables>\n    <table name="xmodal_models" comment_char="#" allow_duplicate_entries="False">\n'
        f'        <columns>{COLUMNS}</columns>\n        <file path="{table}"/>\n    </table>\n</tables>\n'
    )
    return tables


def settings(folder: Path) -> dict[str, Any]:
    """What a portal has over the tests' Galaxy: its own page, reports as HTML, accounts, quotas, models by data manager."""
    (folder / "allow.txt").write_text("xmodal_\n")  # our reports have no script: Galaxy may show them as HTML
    own = {
        "brand": "xmodal",
        "welcome_url": "/static_local/welcome.html",
        "static_local_dir": str(HERE / "static"),
        "sanitize_allowlist_file": str(folder / "allow.txt"),
        "enable_quotas": True,
        "allow_user_creation": True,
        "galaxy_data_manager_data_path": str(folder / "models"),
    }
    if (DATA_MANAGER / "data_manager_conf.xml").exists():
        own["data_manager_config_file"] = str(DATA_MANAGER / "data_manager_conf.xml")
    return own
