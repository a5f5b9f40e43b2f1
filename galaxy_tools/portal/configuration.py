"""What a portal has over the tests' bare Galaxy: its table of models, its page, accounts, reports shown as HTML."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from portal.server import HERE, ROOT

TOOLS = ROOT / "galaxy_tools"
DATA_MANAGER = TOOLS / "data_managers" / "data_manager_xmodal_models"
AWAY = "#? "  # before a model whose file is not there
COLUMNS = "value, name, genome, predicts, sha256, path"


def models(folder: Path, *made: Path) -> Path:
    """The tables' configuration: models of the tables ``made``, and those that the data manager added in ``folder``."""
    table = folder / "xmodal_models.loc"
    lines: dict[str, str] = {}
    for source in (table, *made):
        if source.exists():
            here = source.read_text().replace("${__HERE__}", str(source.parent))
            rows = [line.removeprefix(AWAY) for line in here.splitlines() if line.strip()]
            lines |= {row.partition("\t")[0]: row for row in rows if not row.startswith("#")}
    # A model on a disk that is not there today is offered again when it is.
    away = [name for name, row in lines.items() if not Path(row.rpartition("\t")[2]).is_file()]
    lines |= {name: AWAY + lines[name] for name in away}
    whole = folder / "xmodal_models.loc.tmp"
    whole.write_text("\n".join(["# " + COLUMNS.replace(", ", "\t"), *lines.values(), ""]))
    whole.replace(table)
    tables = folder / "tool_data_table_conf.xml"
    tables.write_text(
        f'<tables>\n    <table name="xmodal_models" comment_char="#" allow_duplicate_entries="False">\n'
        f'        <columns>{COLUMNS}</columns>\n        <file path="{table}"/>\n    </table>\n</tables>\n'
    )
    return tables


def secret(folder: Path, name: str) -> str:
    """A word of its own for this folder, made once and kept where only its owner can read it."""
    path = folder / name
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(16) + "\n")
    return path.read_text().strip()


def settings(folder: Path) -> dict[str, Any]:
    """What a portal has over the tests' Galaxy: its own page, reports as HTML, accounts, quotas, models by data manager."""
    (folder / "allow.txt").write_text("xmodal_\n")  # our reports have no script: Galaxy may show them as HTML
    own = {
        "brand": "xmodal",
        "id_secret": secret(folder, "id_secret"),  # by Galaxy's own one anybody could read files of the server
        "expose_dataset_path": False,
        "database_auto_migrate": True,
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
