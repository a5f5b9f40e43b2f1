"""The Cell Ontology: reading it from each format, walking in it, refusing what is not in it."""

from __future__ import annotations

import gzip
import socket
from pathlib import Path
from typing import Any

import pytest

from helpers_text import HEADER, TERMS, small, table
from xmodal.errors import InputRefused
from xmodal.text import ontology, ontology_files
from xmodal.text.ontology import ROOT, Term, cells_only

CLASS = """
  <owl:Class rdf:about="http://purl.obolibrary.org/obo/{id}">
    <rdfs:label>{name}</rdfs:label>
    {more}
  </owl:Class>"""
OWL = """<?xml version="1.0"?>
<rdf:RDF xmlns="http://purl.obolibrary.org/obo/cl.owl#"
  xmlns:obo="http://purl.obolibrary.org/obo/" xmlns:owl="http://www.w3.org/2002/07/owl#"
  xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#"
  xmlns:oboInOwl="http://www.geneontology.org/formats/oboInOwl#">
  <owl:Ontology rdf:about="http://purl.obolibrary.org/obo/cl.owl">
    <owl:versionIRI rdf:resource="http://purl.obolibrary.org/obo/cl/releases/2026-01-01/cl.owl"/>
    <owl:imports rdf:resource="http://purl.obolibrary.org/obo/go.owl"/>
  </owl:Ontology>{classes}
</rdf:RDF>
"""


def obo(path: Path) -> Path:
    """The small ontology; the parent of GABAergic neurons stands in their logical definition alone."""
    stanzas = []
    for term, name, definition, synonyms, parent in TERMS:
        lines = [f"id: {term}", f"name: {name}"]
        lines += [f'def: "{definition}" [PMID:1]'] if definition else []
        lines += [f'synonym: "{s}" EXACT []' for s in synonyms.split("|") if s]
        lines += ['synonym: "thymocyte in a wide sense" BROAD []'] if name == "T cell" else []
        if name == "GABAergic neuron":
            lines += [f"intersection_of: {parent} ! neuron", "intersection_of: RO:0002215 GO:0061534 ! GABA secretion"]
        else:
            lines += [f"is_a: {parent or 'CARO:0000003'} ! a parent"]
        stanzas.append("[Term]\n" + "\n".join(lines) + "\nrelationship: part_of UBERON:0000955\n")
    stanzas.append("[Term]\nid: CL:0000003\nname: obsolete native cell\nis_obsolete: true\nreplaced_by: CL:0000000\n")
    stanzas.append("[Term]\nid: GO:0005737\nname: cytoplasm\nis_a: GO:0110165\n")
    stanzas.append("[Typedef]\nid: part_of\nname: part of\nis_a: RO:0002323\n")
    header = "format-version: 1.2\ndata-version: 2026-01-01\nimport: http://purl.obolibrary.org/obo/go.obo\n"
    path.write_text(header + "ontology: cl\n\n" + "\n".join(stanzas))
    return path


def owl(path: Path) -> Path:
    """The same in RDF/XML."""
    classes = []
    resource = '<{tag} rdf:resource="http://purl.obolibrary.org/obo/{id}"/>'
    for term, name, definition, synonyms, parent in TERMS:
        above = (parent or "CARO:0000003").replace(":", "_")
        more = [f"<obo:IAO_0000115>{definition}</obo:IAO_0000115>"] if definition else []
        more += [f"<oboInOwl:hasExactSynonym>{s}</oboInOwl:hasExactSynonym>" for s in synonyms.split("|") if s]
        if name == "GABAergic neuron":
            genus = f'<rdf:Description rdf:about="http://purl.obolibrary.org/obo/{above}"/>'
            whole = (
                f'<owl:Class><owl:intersectionOf rdf:parseType="Collection">{genus}</owl:intersectionOf></owl:Class>'
            )
            more.append(f"<owl:equivalentClass>{whole}</owl:equivalentClass>")
        else:
            more.append(resource.format(tag="rdfs:subClassOf", id=above))
        more.append("<rdfs:subClassOf><owl:Restriction/></rdfs:subClassOf>")
        classes.append(CLASS.format(id=term.replace(":", "_"), name=name, more="\n    ".join(more)))
    old = "<owl:deprecated>true</owl:deprecated>" + resource.format(tag="obo:IAO_0100001", id="CL_0000000")
    classes.append(CLASS.format(id="CL_0000003", name="obsolete native cell", more=old))
    classes.append(CLASS.format(id="UBERON_0000955", name="brain", more=""))
    path.write_text(OWL.format(classes="".join(classes)))
    return path


def test_formats_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ontology out of a table, an OBO and an OWL file; nothing is fetched for it, whatever they import."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    pytest.importorskip("pronto")
    known = small()
    files = [table(tmp_path / "small.tsv"), obo(tmp_path / "cl.obo"), owl(tmp_path / "cl.owl")]
    for file in list(files):
        packed = file.with_name(file.name + ".gz")
        packed.write_bytes(gzip.compress(file.read_bytes()))
        files.append(packed)
    for file in files:
        found = ontology.read(file)
        assert found.terms == known.terms, file.name
        assert (found.source, "2026-01-01" in found.version) == (file.name, True)


def test_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed release: parents are the ancestors at distance 1; without the package the message says what to do."""
    pytest.importorskip("cellxgene_ontology_guide")
    found = ontology.read(None)
    assert found.source.startswith("cellxgene-ontology-guide 1.") and found.version.startswith("v20")
    assert len(found) > 3_000 and found.descendants(ROOT) == found.live
    assert found["CL:0000084"].parents == ("CL:0000542",) and "T-cell" in found["CL:0000084"].synonyms
    assert not any(t.name.endswith("cytoplasm") for t in map(found.__getitem__, found))
    with pytest.raises(InputRefused, match=r"is obsolete .* use CL:0000000 \(cell\)"):
        found["CL:0000003"]
    monkeypatch.setattr(ontology_files, "find_spec", lambda name: None)
    with pytest.raises(InputRefused, match=r'not installed.*pip install "xmodal\[text\]", or give --ontology FILE'):
        ontology.read(None)


def test_without_pronto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only OBO files need it."""
    monkeypatch.setattr(ontology_files, "find_spec", lambda name: None)
    assert len(ontology.read(owl(tmp_path / "cl.owl"))) == len(ontology.read(table(tmp_path / "a.tsv"))) == len(TERMS)
    with pytest.raises(InputRefused, match=r'package pronto.*pip install "xmodal\[text\]"'):
        ontology.read(obo(tmp_path / "cl.obo"))


def test_hierarchy() -> None:
    known = small()
    assert known.ancestors("CL:0000084") == {"CL:0000542", "CL:0000738", ROOT}
    assert "CL:0000084" in known.ancestors("CL:0000084", itself=True)
    assert known.children("CL:0000542") == ("CL:0000084", "CL:0000236") and known.children("CL:0000084") == ()
    assert known.descendants("CL:0000540") == ("CL:0000540", "CL:0000617", "CL:4023018")
    assert known.descendants("CL:0000540", itself=False) == ("CL:0000617", "CL:4023018")
    assert [known.distance("CL:0000084", t) for t in ("CL:0000084", "CL:0000236", "CL:0000576", "CL:0000540")] == [
        0,
        2,
        3,
        4,
    ]
    assert known.distance("CL:0000738", "CL:0000084") == known.distance("CL:0000084", "CL:0000738") == 2
    assert known.common_ancestor(["CL:0000084", "CL:0000236"]) == "CL:0000542"
    assert known.common_ancestor(["CL:0000084", "CL:0000236", "CL:0000576"]) == "CL:0000738"
    assert known.common_ancestor(["CL:0000084", "CL:0000617"]) == ROOT
    assert known.common_ancestor(["CL:0000084"]) == "CL:0000084"
    assert [known.depth(t) for t in (ROOT, "CL:0000738", "CL:0000084")] == [0, 1, 3]


def test_several_parents() -> None:
    """Depth goes the longest way, distance the shortest."""
    terms = [
        Term(ROOT, "cell"),
        Term("CL:0000001", "a", parents=(ROOT,)),
        Term("CL:0000002", "b", parents=("CL:0000001",)),
        Term("CL:0000003", "c", parents=("CL:0000002", ROOT)),
        Term("CL:0000004", "d", parents=("CL:0000002", "CL:0000001")),
    ]
    known = cells_only(terms, "", "x.tsv")
    assert (known.depth("CL:0000003"), known.distance("CL:0000003", ROOT)) == (3, 1)
    assert known.common_ancestor(["CL:0000003", "CL:0000004"]) == "CL:0000002"
    assert known.distance("CL:0000003", "CL:0000004") == 2


def test_circle(caplog: pytest.LogCaptureFixture) -> None:
    """Terms that are kinds of each other end no walk in an endless one."""
    terms = [
        Term(ROOT, "cell", parents=("CL:0000003",)),
        Term("CL:0000001", "a", parents=("CL:0000002", ROOT)),
        Term("CL:0000002", "b", parents=("CL:0000003",)),
        Term("CL:0000003", "c", parents=("CL:0000001",)),
    ]
    known = cells_only(terms, "", "x.tsv")
    assert "are kinds of each other" in caplog.text
    assert known.ancestors("CL:0000001", itself=True) == set(known) == set(known.descendants(ROOT))
    assert all(known.depth(t) < 4 and known.distance(t, ROOT) < 4 for t in known)
    assert known.common_ancestor(known) in known


def test_find() -> None:
    known = small()
    for text in ("CL:0000084", "cl_0000084", "T cell", "t  CELL", "T-cell", " t lymphocyte "):
        assert known.find(text) == "CL:0000084", text
    assert known.find("CL:0000003") is None and known.find("native cell") is None and known.find("T") is None
    twins = [*known.terms.values(), Term("CL:0000900", "odd cell", "", ("T-cell", "odd"), (ROOT,))]
    both = cells_only(twins, "", "x.tsv")
    assert both.find("t-cell") is None and both.find("ODD") == "CL:0000900" and both.find("T cell") == "CL:0000084"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("CL:0000085", r"no term 'CL:0000085' in small.tsv \(2026-01-01\).*did you mean CL:0000084 \(T cell\)"),
        ("T cel", r"did you mean CL:0000084 \(T cell\)"),
        ("T cell", r"give the id: CL:0000084"),
        ("CL:9999999", r"give an id as CL:0000084"),
        ("CL:0000003", r"CL:0000003 \(obsolete native cell\) is obsolete in .*use CL:0000000 \(cell\)"),
    ],
)
def test_unknown(asked: str, said: str) -> None:
    known = small()
    with pytest.raises(InputRefused, match=said):
        known[asked]
    for walk in (known.ancestors, known.descendants, known.depth, known.children):
        with pytest.raises(InputRefused):
            walk(asked)
    assert asked not in known


def test_replaced_twice() -> None:
    """The last in the chain is named, not one that is obsolete as well; and what to consider."""
    terms = [
        Term(ROOT, "cell"),
        Term("CL:0000001", "old", obsolete=True, replaced_by="CL:0000002"),
        Term("CL:0000002", "less old", obsolete=True, replaced_by=ROOT),
        Term("CL:0000003", "vague", obsolete=True, consider=(ROOT, "CLO:0000001")),
        Term("CL:0000004", "gone", obsolete=True),
        Term("CL:0000005", "round", obsolete=True, replaced_by="CL:0000005"),
    ]
    known = cells_only(terms, "", "x.tsv")
    for term, said in {
        1: r"use CL:0000000 \(cell\)$",
        3: r"use CL:0000000 \(cell\) or CLO:0000001",
        4: "none",
        5: "none",
    }.items():
        with pytest.raises(InputRefused, match=said):
            known[f"CL:000000{term}"]


def test_only_cells() -> None:
    """Other ontologies' terms, parts of cells and parents that are not there go; cells without a parent are the root's."""
    terms = [
        Term(ROOT, "cell", parents=("CARO:0000003",)),
        Term("GO:0005737", "cytoplasm"),
        Term("CL:0000001", "telocyte"),
        Term("CL:0000002", "blue cytoplasm", parents=("GO:0005737",)),
        Term("CL:0000003", "round nucleus"),
        Term("CL:0000004", "hungry cell", parents=("CL:0000001", "PR:000001", "CL:0000009")),
        Term("CL:0000005", "lobed nucleus", parents=("CL:0000003",)),
        Term("CL:0000006", "cell of a part that is missing", parents=("CL:0000999",)),
    ]
    known = cells_only(terms, "", "x.tsv")
    assert known.live == (ROOT, "CL:0000001", "CL:0000004", "CL:0000006")
    assert [known[t].parents for t in known] == [(), (ROOT,), ("CL:0000001",), (ROOT,)]


def test_other_ids(tmp_path: Path) -> None:
    """An id that a term had besides is refused with the term that has it now."""
    pytest.importorskip("pronto")
    path = tmp_path / "cl.obo"
    path.write_text("format-version: 1.2\n\n[Term]\nid: CL:0000031\nname: neuroblast\nalt_id: CL:0000337\n")
    with pytest.raises(InputRefused, match=r"use CL:0000031 \(neuroblast\)"):
        ontology.read(path)["CL:0000337"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cl.txt", b"", "no ontology, by its name"),
        ("cl.tsv", b"term\tname\n", "columns id, is_a are missing"),
        ("cl.tsv", HEADER.encode(), "no term of the Cell Ontology"),
        ("cl.tsv", b"\xff\xfe\x00", "cannot be read"),
        ("cl.tsv.gz", b"\x1f\x8bbroken", "cannot be read"),
        ("cl.obo", b"this is\nno OBO\n", "no term of the Cell Ontology|no OBO file"),
        ("cl.obo", b"format-version: 1.2\n\n[Term]\nid: CL:0000001\nname: a\nname: b\ndef: no quotes\n", "no OBO file"),
        ("cl.owl", b"<html></html", "no OWL file in RDF/XML"),
        (
            "cl.owl",
            b"Prefix(:=<http://purl.obolibrary.org/obo/cl.owl#>)\nOntology()",
            "functional syntax.*cl.owl or cl.obo",
        ),
    ],
)
def test_no_ontology(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputRefused, match=said) as refused:
        ontology.read(tmp_path / name)
    assert refused.value.where == f"--ontology {tmp_path / name}" and refused.value.do


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"no such file.*give --ontology cl.obo"):
        ontology.read(tmp_path / "cl.obo")


def test_version_of_content(tmp_path: Path) -> None:
    """A table that says no version is known by its content."""
    one, other = tmp_path / "a.tsv", tmp_path / "b.tsv"
    one.write_text(HEADER + "CL:0000000\tcell\t\t\t\n")
    other.write_text(HEADER + "CL:0000000\tcell!\t\t\t\n")
    versions = [ontology.read(p).version for p in (one, one, other)]
    assert versions[0] == versions[1] != versions[2] and versions[0].startswith("sha256 ")
