"""Writing an embedding: beside the cells (.h5mu), alone (.h5ad), as tables and a picture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal import fields
from xmodal.data import filling, io
from xmodal.embedding import tables
from xmodal.outputs import replacing, replacing_files, write_json

if TYPE_CHECKING:
    from mudata import MuData

    from xmodal.embedding.tables import Embedded

log = logging.getLogger(__name__)
PICTURE, CELLS, CLUSTERS, SUMMARY = OWN = ("embedding.png", "embedding.tsv", "clusters.tsv", "embedding.json")


def write_h5mu(path: Path, all_of: Embedded, overwrite: bool) -> None:
    """The cells as they are in the input, with embedding, graph, UMAP and clusters; results of an earlier run give way."""
    mdata, found = all_of.job.mdata, all_of.found
    _clear(mdata)
    for name, values in tables.columns(all_of.job, all_of.latents, found).items():
        mdata.obs[name] = values
    for name, embedding in _embeddings(all_of).items():
        mdata.obsm[name] = embedding
    mdata.obsp[fields.DISTANCES], mdata.obsp[fields.CONNECTIVITIES] = found.distances, found.connectivities
    mdata.uns[fields.NEIGHBORS] = found.about
    mdata.uns[fields.EMBEDDING_ABOUT] = all_of.about
    filling.write(mdata, path, overwrite)


def write_h5ad(path: Path, all_of: Embedded, overwrite: bool) -> None:
    """X is the embedding, float32 (cells, latent); ``obs`` that of the input with the same columns."""
    import anndata as ad
    import pandas as pd

    joint = all_of.latents.joint
    _clear(all_of.job.mdata)
    obs = all_of.job.mdata.obs.assign(**tables.columns(all_of.job, all_of.latents, all_of.found))
    out = ad.AnnData(
        joint,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(tables.dimension_names(joint.shape[1]), dtype=object)),
        obsm=_embeddings(all_of),
        uns={fields.UNS: all_of.about},
    )
    io.write_h5ad(out, path, overwrite)


def _embeddings(all_of: Embedded) -> dict[str, Any]:
    alone = {f"{fields.EMBEDDING}_{m}": values for m, values in all_of.latents.alone.items()}
    return {fields.EMBEDDING: all_of.latents.joint, **alone, fields.UMAP: all_of.found.umap}


def _clear(mdata: MuData) -> None:
    """Leave nothing of an earlier run: this one may have fewer modalities.  A graph or UMAP of others is replaced, and said."""
    before = [k for k in (fields.DISTANCES, fields.CONNECTIVITIES) if k in mdata.obsp]
    before += [k for k in (fields.UMAP,) if k in mdata.obsm]
    if before and fields.EMBEDDING_ABOUT not in mdata.uns:
        log.warning("the input's own %s are replaced", ", ".join(before))
    for column in [c for c in mdata.obs if str(c).startswith(f"{fields.WEIGHT}_")]:
        del mdata.obs[column]
    for key in [k for k in mdata.obsm if k == fields.EMBEDDING or k.startswith(f"{fields.EMBEDDING}_")]:
        del mdata.obsm[key]


def write_tsv(path: Path, all_of: Embedded, overwrite: bool) -> None:
    with replacing(path, overwrite) as temporary, io.naming_full_disk(path):
        tables.write_table(tables.table(all_of), temporary)


def write_overview(folder: Path, all_of: Embedded, label: str | None) -> None:
    """Picture, tables and summary, all or nothing; whether the folder may be used is asked before embedding."""
    from xmodal.reporting import embedding_figure, figures

    batch = tables.batch_column(all_of.job)
    seen = embedding_figure.Seen.of(all_of, label, batch)
    with replacing_files(folder, OWN, overwrite=True) as temporary:
        tables.write_table(tables.table(all_of), temporary / CELLS)
        tables.write_table(tables.clusters(all_of, label, batch), temporary / CLUSTERS)
        write_json(temporary / SUMMARY, tables.summary(all_of.about))
        (temporary / PICTURE).write_bytes(figures.png(embedding_figure.embedding(seen)))
