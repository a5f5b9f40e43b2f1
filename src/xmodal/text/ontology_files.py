"""Reading the Cell Ontology: tables, OBO and OWL files, and the release that an installed package carries."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.errors import InputRefused
from xmodal.text.ontology import Ontology, Term, cells_only

if TYPE_CHECKING:
    from pronto.term import Term as OboTerm

log = logging.getLogger(__name__)
PACKAGE = "cellxgene-ontology-guide"
INSTALL = 'pip install "xmodal[text]"'
FORMATS = "give --ontology cl.obo, cl.owl or a TSV with the columns id, name, definition, exact_synonyms, is_a"
COLUMNS = ("id", "name", "is_a")  # without which a table is none
SEPARATOR = "|"  # between several values of a table's field
VERSION_LINE = "# version:"  # may stand before a table's header


def of_package() -> Ontology:
    """The newest release of the Cell Ontology in the package cellxgene-ontology-guide; nothing is fetched."""
    if find_spec("cellxgene_ontology_guide") is None:
        raise InputRefused(
            f"no Cell Ontology: the package {PACKAGE} is not installed", do=f"{INSTALL}, or give --ontology FILE"
        )
    from importlib.metadata import version

    from cellxgene_ontology_guide.supported_versions import CXGSchema

    schema = CXGSchema()
    release = str(schema.supported_ontologies["CL"]["version"])
    terms = (_of_guide(key, about) for key, about in schema.ontology("CL").items())
    return cells_only(terms, release, f"{PACKAGE} {version(PACKAGE)}")


def _of_guide(key: str, about: dict[str, Any]) -> Term:
    """A term as the package has it: all ancestors with their distance; parents are those at 1."""
    return Term(
        key,
        about["label"],
        about.get("description") or "",
        tuple(about.get("synonyms") or ()),
        tuple(parent for parent, distance in about["ancestors"].items() if distance == 1),
        bool(about["deprecated"]),
        about.get("replaced_by") or "",
        tuple(about.get("consider") or ()),
    )


def of_file(path: Path) -> Ontology:
    """The ontology of a table, an OBO or an OWL file, known by its name."""
    if not path.is_file():
        raise InputRefused("there is no such file", where=f"--ontology {path}", do=FORMATS)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in (".tsv", ".obo", ".owl"):
        raise InputRefused("this is no ontology, by its name", where=f"--ontology {path}", do=FORMATS)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        text = raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        what = f"the file cannot be read as text ({error})"
        raise InputRefused(what, where=f"--ontology {path}", do=FORMATS) from None
    try:
        if suffix == ".tsv":
            version, terms = _version_of(text), list(_of_table(text))
        else:
            version, terms = _of_pronto(raw)
        return cells_only(terms, version or f"sha256 {hashlib.sha256(raw).hexdigest()[:12]}", path.name)
    except InputRefused as refused:
        raise InputRefused(refused.what, where=f"--ontology {path}", do=refused.do or FORMATS) from None


def _version_of(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first.removeprefix(VERSION_LINE).strip() if first.startswith(VERSION_LINE) else ""


def _of_table(text: str) -> Iterator[Term]:
    """Terms of a table with a header; several values of a field are separated by '|'."""
    lines = io.StringIO("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [c for c in COLUMNS if c not in (rows.fieldnames or ())]
    if missing:
        raise InputRefused(f"columns {', '.join(missing)} are missing")
    for row in rows:
        yield Term(
            row["id"] or "",
            row["name"] or "",
            row.get("definition") or "",
            _several(row.get("exact_synonyms")),
            _several(row["is_a"]),
            (row.get("obsolete") or "").lower() in ("true", "1", "yes"),
            row.get("replaced_by") or "",
            _several(row.get("consider")),
        )


def _several(field: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (field or "").split(SEPARATOR) if part.strip())


def _of_pronto(raw: bytes) -> tuple[str, list[Term]]:
    """Version and terms of an OBO or OWL file."""
    if find_spec("pronto") is None:
        raise InputRefused("OBO and OWL files need the package pronto", do=f"{INSTALL}, or give the ontology as a TSV")
    from pronto.ontology import Ontology as OboFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it does not keep, and we do not need
        try:
            # Imports are other ontologies, which it would fetch.
            found = OboFile(io.BytesIO(raw), import_depth=0, threads=1, encoding="utf-8")
            terms = [_of_obo(term) for term in found.terms()]
        except (ValueError, SyntaxError, KeyError, TypeError, AttributeError) as error:
            raise InputRefused(f"this is no OBO or OWL file ({error})") from None
    return str(found.metadata.data_version or ""), terms


def _of_obo(term: OboTerm) -> Term:
    parents = [parent.id for parent in term.superclasses(distance=1, with_self=False)]
    return Term(
        term.id,
        term.name or "",
        str(term.definition or ""),
        tuple(sorted(s.description for s in term.synonyms if s.scope == "EXACT")),
        tuple(parents),
        bool(term.obsolete),
        next(iter(sorted(t.id for t in term.replaced_by)), ""),
        tuple(sorted(t.id for t in term.consider)),
    )
