"""Gene tables, and links between peaks and genes by distance or from a table."""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from xmodal.data.intervals import on_one_line, overlap_pairs, split_peaks
from xmodal.errors import InputRefused
from xmodal.fields import CHROM, END, GENE_ID, START

log = logging.getLogger(__name__)
SYMBOL, STRAND = "symbol", "strand"
PROMOTER = 2_000  # bases before the transcription start that count as the gene (Signac, ArchR: 2-5 kb)
FORMATS = "a TSV with the columns symbol, chrom, start, end, strand; a BED with names; or a GTF/GFF with gene lines"


def read_gene_table(path: Path | str) -> pd.DataFrame:
    """Genes of a TSV (with header), BED, GTF or GFF, each also gzipped.

    Returns ``symbol, chrom, start, end, strand`` and, where known, ``gene_id`` (version cut); 0-based, half-open.
    """
    path = Path(path)
    text = _read_text(path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".gtf", ".gff", ".gff3")):
        table = _from_gtf(text)
    elif name.endswith(".bed"):
        table = _from_bed(text)
    else:
        table = _from_tsv(text, path)
    table = table.dropna(subset=[CHROM, START, END]).reset_index(drop=True)
    if table.empty:
        raise InputRefused("no genes found", where=str(path), do=f"give {FORMATS}")
    for column in (START, END):
        table[column] = table[column].astype(np.int64)
    if GENE_ID in table:
        table[GENE_ID] = cut_version(table[GENE_ID])
    return table


def cut_version(ids: Iterable[str]) -> pd.Series:
    """Ensembl ids without their version: ``ENSG00000223972.5`` -> ``ENSG00000223972``; other names unchanged."""
    return pd.Series(ids, dtype=object).str.replace(r"^(ENS[A-Z]*G\d{6,})\.\d+$", r"\1", regex=True)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputRefused("there is no such file", where=str(path), do=f"give {FORMATS}")
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        what = f"the file cannot be read as text ({error})"
        raise InputRefused(what, where=str(path), do=f"give {FORMATS}") from None


def _from_tsv(text: str, path: Path) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(text), sep="\t", dtype=str, comment="#")
    missing = [c for c in (SYMBOL, CHROM, START, END) if c not in table]
    if missing:
        raise InputRefused(f"columns {', '.join(missing)} are missing", where=str(path), do=f"give {FORMATS}")
    if STRAND not in table:
        table[STRAND] = "."
    for column in (START, END):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table[[c for c in (SYMBOL, CHROM, START, END, STRAND, GENE_ID) if c in table]]


def _from_bed(text: str) -> pd.DataFrame:
    lines = "\n".join(x for x in text.splitlines() if not x.startswith(("#", "track", "browser")))
    if not lines:
        return pd.DataFrame(columns=[SYMBOL, CHROM, START, END, STRAND])
    raw = pd.read_csv(io.StringIO(lines), sep="\t", header=None, dtype=str)
    if raw.shape[1] < 4:
        raise InputRefused("a BED of genes needs a fourth column with their names", do=f"give {FORMATS}")
    strand = raw[5] if raw.shape[1] > 5 else "."
    table = pd.DataFrame(
        {
            SYMBOL: raw[3],
            CHROM: raw[0],
            START: pd.to_numeric(raw[1], errors="coerce"),
            END: pd.to_numeric(raw[2], errors="coerce"),
            STRAND: strand,
        }
    )
    return table


def _from_gtf(text: str) -> pd.DataFrame:
    kept = "\n".join(x for x in text.splitlines() if x and x[0] != "#" and x.split("\t", 3)[2:3] == ["gene"])
    if not kept:
        return pd.DataFrame(columns=[SYMBOL, CHROM, START, END, STRAND, GENE_ID])
    raw = pd.read_csv(io.StringIO(kept), sep="\t", header=None, dtype=str, quoting=3)
    notes = raw[8]
    gene_id = notes.str.extract(r"(?:^|;)\s*gene_id[ =]\"?([^\";]+)")[0]
    symbol = notes.str.extract(r"(?:^|;)\s*(?:gene_name|Name|gene)[ =]\"?([^\";]+)")[0]
    return pd.DataFrame(
        {
            SYMBOL: symbol.fillna(gene_id),
            CHROM: raw[0],
            START: pd.to_numeric(raw[3], errors="coerce") - 1,  # GTF is 1-based and closed
            END: pd.to_numeric(raw[4], errors="coerce"),
            STRAND: raw[6],
            GENE_ID: gene_id,
        }
    )


def links_from_distance(
    peaks: pd.DataFrame, genes: Sequence[str], table: pd.DataFrame, decay: float = 10_000, max_distance: int = 50_000
) -> sp.csr_matrix:
    """Weights exp(-d / ``decay``) between peaks and genes, float32 CSR (peaks, genes).

    d: bases between the peak and the gene's body, which is lengthened by 2 kb before its transcription start; 0 inside;
    no link beyond ``max_distance``.  Genes are looked up by symbol, then by Ensembl id; a gene with several places
    (1,543 symbols in hg38) gets the nearest.  ``table`` is as from :func:`read_gene_table`.
    """
    places, index = _places(genes, table)
    found = len(np.unique(index))
    log.info("%d of %d genes have a place in the gene table", found, len(genes))
    if not found:
        raise InputRefused(
            "none of the genes is in the gene table",
            where=f"genes such as {', '.join(genes[:5])}",
            do="give a gene table of the same species and the same kind of names",
        )
    minus = (places[STRAND] == "-").to_numpy()
    body = places.assign(
        start=np.maximum(places[START] - np.where(minus, 0, PROMOTER), 0),
        end=places[END] + np.where(minus, PROMOTER, 0),
    )
    (p_start, p_end), (g_start, g_end) = on_one_line(peaks, body)
    rows, hits = overlap_pairs((p_start - max_distance, p_end + max_distance), (g_start, g_end))
    gap = np.maximum(np.maximum(g_start[hits] - p_end[rows], p_start[rows] - g_end[hits]), 0)
    weight = np.exp(-gap / decay)
    order = np.lexsort((-weight, index[hits], rows))
    pairs = pd.DataFrame({"peak": rows[order], "gene": index[hits][order], "weight": weight[order]})
    pairs = pairs.drop_duplicates(["peak", "gene"])
    log.info("%d links between peaks and genes by distance", len(pairs))
    if pairs.empty:
        raise InputRefused("no peak lies near any gene", do="give a gene table of the peaks' genome")
    return sp.csr_matrix(
        (pairs["weight"].to_numpy(np.float32), (pairs["peak"], pairs["gene"])), shape=(len(peaks), len(genes))
    )


def _places(genes: Sequence[str], table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of the table that belong to a gene, and the gene's position in ``genes`` for each."""
    position = {gene: i for i, gene in reversed(list(enumerate(genes)))}
    index = table[SYMBOL].map(position)
    if GENE_ID in table:
        bare = {gene: i for gene, i in zip(cut_version(genes), range(len(genes)), strict=True)}
        index = index.fillna(table[GENE_ID].map(bare))
    known = index.notna().to_numpy()
    return table[known].reset_index(drop=True), index[known].to_numpy(np.int64)


def links_from_table(path: Path | str, peak_names: Sequence[str], genes: Sequence[str]) -> sp.csr_matrix:
    """Links of a TSV with the columns ``gene``, ``peak`` and perhaps ``weight``: float32 CSR (peaks, genes).

    Peaks match whichever separators they are written with.  Refused where not one link matches.
    """
    path = Path(path)
    frame = pd.read_csv(io.StringIO(_read_text(path)), sep="\t", dtype=str)
    missing = [c for c in ("gene", "peak") if c not in frame]
    if missing:
        raise InputRefused(
            f"columns {', '.join(missing)} are missing",
            where=str(path),
            do="give a TSV with the columns gene, peak and perhaps weight",
        )
    weight = pd.to_numeric(frame["weight"], errors="coerce") if "weight" in frame else pd.Series(1.0, frame.index)
    rows = pd.Index(_canonical(peak_names)).get_indexer(_canonical(frame["peak"]))
    columns = pd.Index(genes).get_indexer(frame["gene"])
    keep = (rows >= 0) & (columns >= 0) & weight.notna().to_numpy()
    log.info("%s: %d of %d links match", path.name, keep.sum(), len(frame))
    if not keep.any():
        shown = ", ".join(f"{g}/{p}" for g, p in zip(frame["gene"][:3], frame["peak"][:3], strict=True))
        raise InputRefused(
            f"none of the {len(frame)} links matches a peak and a gene of the data ({shown})",
            where=str(path),
            do="give links with the names of the data's genes and peaks",
        )
    links = pd.DataFrame({"peak": rows[keep], "gene": columns[keep], "weight": weight.to_numpy()[keep]})
    links = links.drop_duplicates(["peak", "gene"])
    return sp.csr_matrix(
        (links["weight"].to_numpy(np.float32), (links["peak"], links["gene"])), shape=(len(peak_names), len(genes))
    )


def _canonical(names: Iterable[str]) -> list[str]:
    names = [str(n) for n in names]
    parts = split_peaks(names)
    joined = parts[CHROM].astype("string") + ":" + parts[START].astype("string") + "-" + parts[END].astype("string")
    return list(joined.fillna(pd.Series(names, dtype="string")))
