"""Reading the Cell Ontology: tables, OBO and OWL files, and the release that an installed package carries."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from xmodal.errors import InputRefused
from xmodal.text.ontology import Ontology, Term, cells_only

if TYPE_CHECKING:
    from pronto.term import Term as OboTerm

PACKAGE = "cellxgene-ontology-guide"
INSTALL = 'pip install "xmodal[text]"'
FORMATS = "give --ontology cl.obo, cl.owl or a TSV with the columns id, name, definition, exact_synonyms, is_a"
COLUMNS = ("id", "name", "is_a")  # without which a table is none
SEPARATOR = "|"  # between several values of a table's field
TAGS = (
    "id",
    "name",
    "def",
    "synonym",
    "is_a",
    "is_obsolete",
    "replaced_by",
    "consider",
    "alt_id",
)  # of OBO, that are read
OBO = "http://purl.obolibrary.org/obo/"
OBO_TAG = f"{{{OBO}}}"
OWL, RDFS = "{http://www.w3.org/2002/07/owl#}", "{http://www.w3.org/2000/01/rdf-schema#}"
RDF, IN_OWL = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://www.geneontology.org/formats/oboInOwl#}"
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
    where = f"--ontology {path}"
    if not path.is_file():
        raise InputRefused("there is no such file", where=where, do=FORMATS)
    reader = READERS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if reader is None:
        raise InputRefused("this is no ontology, by its name", where=where, do=FORMATS)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        version, terms = reader(raw)
        return cells_only(terms, version or f"sha256 {hashlib.sha256(raw).hexdigest()[:12]}", path.name)
    except InputRefused as refused:
        raise InputRefused(refused.what, where=where, do=refused.do or FORMATS) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputRefused(f"the file cannot be read ({error})", where=where, do=FORMATS) from None


def _of_table(raw: bytes) -> tuple[str, list[Term]]:
    """Version and terms of a table with a header; several values of a field are separated by '|'."""
    lines = raw.decode("utf-8-sig").splitlines()
    version = next((x.removeprefix(VERSION_LINE).strip() for x in lines[:1] if x.startswith(VERSION_LINE)), "")
    rows = csv.DictReader((x for x in lines if not x.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [c for c in COLUMNS if c not in (rows.fieldnames or ())]
    if missing:
        raise InputRefused(f"columns {', '.join(missing)} are missing")
    return version, [
        Term(
            row["id"] or "",
            row["name"] or "",
            row.get("definition") or "",
            _several(row.get("exact_synonyms")),
            _several(row["is_a"]),
            (row.get("obsolete") or "").lower() in ("true", "1", "yes"),
            row.get("replaced_by") or "",
            _several(row.get("consider")),
        )
        for row in rows
    ]


def _several(field: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (field or "").split(SEPARATOR) if part.strip())


def _of_obo(raw: bytes) -> tuple[str, list[Term]]:
    """Version and terms of an OBO file."""
    if find_spec("pronto") is None:
        raise InputRefused("OBO files need the package pronto, which is not installed", do=f"{INSTALL}, or give a TSV")
    from pronto.ontology import Ontology as OboFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it does not keep, and we do not need
        try:
            found = OboFile(io.BytesIO(_terms_only(raw)), import_depth=0, threads=1, encoding="utf-8")
            terms = [term for one in found.terms() for term in _with_other_ids(_of_pronto(one), one.alternate_ids)]
        except (ValueError, SyntaxError, LookupError, TypeError, AttributeError) as error:
            why = "" if "BytesIO" in str(error) else f" ({error})"  # where nothing is like OBO, pronto names our buffer
            raise InputRefused(f"this is no OBO file{why}") from None
    return str(found.metadata.data_version or ""), terms


def _terms_only(raw: bytes) -> bytes:
    """The terms of an OBO file with what is read of them; the genus of a logical definition becomes a parent.

    pronto stops at a parent or relation that is not in the file, as in cl-basic.obo, and would fetch what is imported.
    """
    header, *parts = re.split(r"^(?=\[)", raw.decode("utf-8-sig").replace("\r\n", "\n"), flags=re.MULTILINE)
    kept = [line for line in header.splitlines() if not line.startswith("import:")]
    terms = [part for part in parts if part.startswith("[Term]")]
    known: set[str] = set()
    named: set[str] = set()
    for line in "".join(terms).splitlines():
        line = re.sub(r"^intersection_of: *([^\s:]+:\S+ *(!.*)?)$", r"is_a: \1", line)
        tag, _, value = line.partition(":")
        if tag in TAGS or line.startswith("["):
            kept.append(line)
        if tag in ("id", "is_a"):
            (known if tag == "id" else named).add(value.split()[0] if value.strip() else "")
    stubs = [f"\n[Term]\nid: {one}" for one in sorted(named - known)]
    return "\n".join([*kept, *stubs, ""]).encode()


def _of_pronto(term: OboTerm) -> Term:
    return Term(
        term.id,
        term.name or "",
        str(term.definition or ""),
        tuple(sorted(s.description for s in term.synonyms if s.scope == "EXACT")),
        tuple(sorted(term.superclasses(distance=1, with_self=False).to_set().ids)),
        bool(term.obsolete),
        min(term.replaced_by.ids, default=""),
        tuple(sorted(term.consider.ids)),
    )


def _with_other_ids(term: Term, others: Iterable[str]) -> Iterator[Term]:
    """The term, and each id that it had besides as an obsolete one that it replaces."""
    yield term
    for other in sorted(others):
        yield Term(other, term.name, obsolete=True, replaced_by=term.id)


def _of_owl(raw: bytes) -> tuple[str, list[Term]]:
    """Version and terms of an OWL file in RDF/XML.

    Read here since pronto leaves out what a class is equivalent to: in files without a reasoner's work ("base") many a
    parent stands only there, as the genus of the logical definition.
    """
    if raw.lstrip()[:7] in (b"Prefix(", b"Ontolog"):
        raise InputRefused(
            "this is OWL in functional syntax, as the ontology's editors have it (cl-edit.owl)",
            do="give the released cl.owl or cl.obo",
        )
    version, terms, depth = "", [], 0
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(raw), ("start", "end")):
            depth += 1 if event == "start" else -1
            if event == "start" or depth != 1:
                continue
            if element.tag == OWL + "Ontology":
                version = _about(element.find(OWL + "versionIRI"), RDF + "resource") or version
            elif element.tag == OWL + "Class":
                terms += _of_class(element)
            element.clear()
    except ElementTree.ParseError as error:
        raise InputRefused(f"this is no OWL file in RDF/XML ({error})") from None
    return version.removeprefix(OBO), terms


def _of_class(element: ElementTree.Element) -> list[Term]:
    term = _id(_about(element))
    parents = [_about(e, RDF + "resource") for e in element.iterfind(f"{RDFS}subClassOf")]
    genus = [_about(e) for e in element.iterfind(f"{OWL}equivalentClass/{OWL}Class/{OWL}intersectionOf/*")]
    found = Term(
        term,
        _text(element, f"{RDFS}label"),
        _text(element, f"{OBO_TAG}IAO_0000115"),
        tuple(sorted(e.text for e in element.iterfind(f"{IN_OWL}hasExactSynonym") if e.text)),
        tuple(_id(iri) for iri in (*parents, *genus) if iri),
        _text(element, f"{OWL}deprecated") == "true",
        next(iter(_ids(element, f"{OBO_TAG}IAO_0100001")), ""),
        tuple(_ids(element, f"{IN_OWL}consider")),
    )
    return list(_with_other_ids(found, _ids(element, f"{IN_OWL}hasAlternativeId"))) if term else []


def _about(element: ElementTree.Element | None, attribute: str = f"{RDF}about") -> str:
    return "" if element is None else element.get(attribute) or ""


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _ids(element: ElementTree.Element, tag: str) -> list[str]:
    """Ids that stand in a tag, as a resource or as text."""
    return sorted(_id(_about(e, RDF + "resource") or (e.text or "").strip()) for e in element.iterfind(tag))


def _id(iri: str) -> str:
    """``http://purl.obolibrary.org/obo/CL_0000084`` -> ``CL:0000084``"""
    return iri.removeprefix(OBO).replace("_", ":", 1) if iri.startswith(OBO) else iri


# What an ontology's name may end with.
READERS = {".tsv": _of_table, ".obo": _of_obo, ".owl": _of_owl}
