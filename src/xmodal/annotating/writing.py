"""Writing annotated cells: beside the counts (.h5mu, .h5ad), as a table, and as a folder with a page."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal import fields
from xmodal.annotating import tables
from xmodal.data import filling, io, leaving
from xmodal.embedding.tables import write_table
from xmodal.outputs import replacing, replacing_files, write_json

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.annotating.tables import Annotated

log = logging.getLogger(__name__)
PICTURE, PAGE = "annotation.png", "index.html"
CELLS, COMPOSITION, CLUSTERS, GENES = "annotation.tsv", "composition.tsv", "clusters.tsv", "genes.tsv"
SUMMARY = "annotation.json"
OWN = (PICTURE, PAGE, CELLS, COMPOSITION, CLUSTERS, GENES, SUMMARY)
TITLE = "Cell types"
VOTES = (fields.CT_CLUSTER, fields.CT_CLUSTER_LABEL, fields.CT_CLUSTER_SCORE, fields.CT_CLUSTER_AGREEMENT)


def write_h5mu(path: Path, found: Annotated, overwrite: bool) -> None:
    """The cells as they are in the input, with what they are called; an earlier annotation gives way."""
    mdata = found.job.mdata
    _mark(mdata.obs, mdata.uns, found)
    filling.write(mdata, path, overwrite)


def write_h5ad(path: Path, found: Annotated, overwrite: bool) -> None:
    """The cells' RNA as it is in the input, with all labels that the file has of them, and what they are called."""
    mdata: MuData = found.job.mdata
    adata = leaving.kept(mdata.mod[fields.RNA])
    rows = mdata.obs_names.get_indexer(adata.obs_names)
    for name in mdata.obs:
        if name not in adata.obs and ":" not in str(name):
            adata.obs[name] = mdata.obs[name].iloc[rows].array
    _mark(adata.obs, adata.uns, found)
    filling.write(adata, path, overwrite)


def _mark(obs: Any, uns: Any, found: Annotated) -> None:
    """The columns into ``obs``, whose rows are the cells of the job in their order."""
    earlier = fields.ANNOTATION_ABOUT in uns
    if fields.TERM in obs and not earlier:
        obs[fields.TERM_GIVEN] = obs[fields.TERM]
        log.info("the input's own column '%s' is kept as '%s'", fields.TERM, fields.TERM_GIVEN)
    for name in [c for c in VOTES if c in obs]:
        del obs[name]
    for name, values in tables.columns(found).items():
        obs[name] = values
    uns[fields.ANNOTATION_ABOUT] = found.about


def write_tsv(path: Path, found: Annotated, overwrite: bool) -> None:
    with replacing(path, overwrite) as temporary, io.naming_full_disk(path):
        write_table(tables.cells(found), temporary)


def write_report(folder: Path, found: Annotated) -> None:
    """Tables, summary, picture and page, all or nothing; whether the folder may be used is asked before annotating."""
    from xmodal.reporting import annotation_figure, figures, report, report_inputs, text_inputs

    places = annotation_figure.places(found.job.mdata)
    with replacing_files(folder, OWN, overwrite=True) as temporary:
        write_table(tables.cells(found), temporary / CELLS)
        write_table(tables.composition(found), temporary / COMPOSITION)
        write_table(tables.genes(found), temporary / GENES)
        if found.clusters is not None:
            write_table(tables.clusters(found), temporary / CLUSTERS)
        write_json(temporary / SUMMARY, tables.summary(found.about))
        drawn = annotation_figure.annotation(tables.summary(found.about), tables.columns(found), places)
        (temporary / PICTURE).write_bytes(figures.png(drawn))
        inputs = report_inputs.Inputs(
            annotations=[text_inputs.annotated(temporary, Path(os.path.abspath(folder)).name)]
        )
        (temporary / PAGE).write_text(report.render(report.view(inputs, TITLE)), encoding="utf-8")
