"""The page of descriptions: one card for each, a static page that needs no script, no network and no second file."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from xmodal import __version__, fields
from xmodal.describing.evidence import GENE, KINDS, probability
from xmodal.describing.writing import name_of
from xmodal.reporting import annotation_figure, description_figure, figures
from xmodal.reporting.report import inline

if TYPE_CHECKING:
    from xmodal.describing.run import Found, Unit

MOST_CARDS, MOST_PICTURES = 200, 60  # nobody reads more, and a picture takes a tenth of a second; the table has all
TITLE = "Cells in words"


def render(found: Found) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xmodal.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = inline
    folder = resources.files("xmodal.reporting") / "templates"
    styles = [(folder / name).read_bytes() for name in ("report.css", "descriptions.css")]
    return environment.get_template("descriptions.html.j2").render(styles=styles, **view(found))


def view(found: Found) -> dict[str, Any]:
    """All that the template shows, as plain values."""
    umap = annotation_figure.places(found.job.mdata)
    about = found.about
    of_cells = about["settings"]["per"] == "cell"
    units = in_order(found.units, found.groups.key, [len(unit.rows) for unit in found.units])
    return {
        "title": TITLE,
        "version": __version__,
        "about": about,
        "what": "cell" if of_cells else "group",
        "by_label": found.groups.key == fields.CT_LABEL,
        "cards": [card(unit, umap, i < MOST_PICTURES) for i, unit in enumerate(units[:MOST_CARDS])],
        "left_out": max(0, len(found.units) - MOST_CARDS),
    }


def in_order(units: list[Any], key: str, cells: list[int]) -> list[Any]:
    """Labels by their number of cells, the largest first; clusters in their own order, and so single cells of a label."""
    if key != fields.CT_LABEL:
        return units
    return [units[i] for i in sorted(range(len(units)), key=lambda i: -cells[i])]


def card(unit: Unit, umap: Any, pictured: bool) -> dict[str, Any]:
    subject, call = unit.subject, unit.subject.call
    genes = [one for one in unit.evidence if one.kind == GENE]
    drawn = description_figure.described(genes, umap, unit.rows) if pictured else None
    return {
        "name": name_of(unit),
        "title": call.name if name_of(unit) == call.name else f"{name_of(unit)}: {call.name}",
        "label": call.name,
        "status": call.status,
        "line": f"{subject.cells:,} cells" if subject.cell is None else f"a cell of the group {subject.group}",
        "probability": "" if call.term == fields.UNKNOWN else probability(call.score),
        "sentences": [{"text": s.text, "evidence": s.evidence, "by": s.by} for s in unit.sentences],
        "evidence": [{"id": e.id, "kind": KINDS[e.kind], "says": says(e), "source": e.source} for e in unit.evidence],
        "picture": figures.png(drawn) if drawn is not None else b"",
        "alt": "; ".join(f"{e.values['gene']}: {e.says}" for e in genes),
    }


def says(one: Any) -> str:
    """A fact in words, with its gene or the text that it is."""
    if one.kind == GENE:
        counts = f", {one.shown['counts']}" if "counts" in one.shown else ""
        return f"{one.values['gene']}: {one.says}{counts}"
    if "definition" in one.shown:
        return f"{one.shown['definition']} ({one.says})"
    return str(one.says)
