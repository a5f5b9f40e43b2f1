"""Names of features made uniform: genes by symbol with duplicates summed, peaks as ``chrom:start-end``."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from xmodal.data.genes import SYMBOL, cut_version
from xmodal.data.intervals import parse_peaks, peak_names, split_peaks
from xmodal.data.on_disk import Counts, OnDisk
from xmodal.errors import InputRefused
from xmodal.fields import CHROM, END, GENE_ID, START

log = logging.getLogger(__name__)
ENSEMBL = r"^ENS[A-Z]*G\d{6,}(?:\.\d+)?$"
SYMBOL_COLUMNS = ("gene_symbol", "gene_symbols", "gene_name", "feature_name", "symbol", "gene_short_name", "name")
ID_COLUMNS = (GENE_ID, "gene_ids", "ensembl_id", "feature_id", "id")
MAPPED_LEAST = 0.5  # below this share of ids found, the gene table is of another species or another naming


def name_genes(adata: ad.AnnData, where: str, table: pd.DataFrame | None = None) -> tuple[ad.AnnData, dict[str, int]]:
    """Genes by symbol, the Ensembl id (version cut) in ``var["gene_id"]``, duplicated symbols summed.

    Ensembl ids are turned into symbols by a column of ``var``, else by the gene ``table``; refused without either.  Ids
    without a symbol keep the id as their name.  Returns the new AnnData and how many were mapped and summed.
    """
    names, ids, mapped = gene_names(adata.var, where, table)
    facts = {"ids_to_symbols": mapped, "duplicates_summed": 0}
    var = pd.DataFrame(index=adata.var_names)
    if ids is not None:
        var[GENE_ID] = ids.fillna("").to_numpy(dtype=object)
    result = _with_var(adata, adata.X, var.set_index(pd.Index(names.to_numpy(dtype=object))))
    if not result.var_names.is_unique:
        facts["duplicates_summed"] = int(result.var_names.duplicated().sum())
        result = sum_duplicates(result)
        log.info("%s: %d duplicated gene symbols are summed", where, facts["duplicates_summed"])
    return result, facts


def gene_names(
    var: pd.DataFrame, where: str, table: pd.DataFrame | None = None
) -> tuple[pd.Series, pd.Series | None, int]:
    """Symbol of each gene of ``var``, its Ensembl id (None: no gene has one), and how many symbols came from ids."""
    names = pd.Series(var.index.astype(str))
    ids = _ids(var)
    if names.str.match(ENSEMBL).mean() > 0.5:
        ids = cut_version(names)
        symbols = _symbols(var, ids, where, table)
        return symbols.fillna(ids), ids, int(symbols.notna().sum())
    if ids is None and table is not None and GENE_ID in table:
        once = table.dropna(subset=[GENE_ID]).drop_duplicates(SYMBOL, keep=False)
        ids = names.map(once.set_index(SYMBOL)[GENE_ID])
        ids = ids if ids.notna().any() else None
    return names, ids, 0


def with_gene_ids(adata: ad.AnnData) -> ad.AnnData:
    """Genes as they are called, with their Ensembl ids in ``var["gene_id"]`` where the file has them.

    Symbols that stand twice for different ids, as in every raw 10x file, are summed; without ids they stay, to be refused.
    """
    ids = _ids(adata.var)
    if ids is None:
        return adata
    result = _with_var(adata, adata.X, pd.DataFrame({GENE_ID: ids.fillna("").to_numpy(object)}, index=adata.var_names))
    return result if result.var_names.is_unique else sum_duplicates(result)


def _ids(var: pd.DataFrame) -> pd.Series | None:
    for column in ID_COLUMNS:
        if column in var:
            values = var[column].astype(str).reset_index(drop=True)
            if values.str.match(ENSEMBL).mean() > 0.5:
                return cut_version(values).where(values.str.match(ENSEMBL))
    return None


def _symbols(var: pd.DataFrame, ids: pd.Series, where: str, table: pd.DataFrame | None) -> pd.Series:
    for column in SYMBOL_COLUMNS:
        if column in var:
            values = var[column].astype("string").reset_index(drop=True)
            known = values.notna() & (values != "") & ~values.fillna("").str.match(ENSEMBL)
            if known.mean() >= MAPPED_LEAST:
                log.info("%s: Ensembl ids are named by var['%s']", where, column)
                return values.astype(object).where(known)
    if table is None or GENE_ID not in table:
        raise InputRefused(
            f"its genes are Ensembl ids ({', '.join(ids[:3])}) and nothing says their symbols",
            where=where,
            do="give --gene-table FILE (a GTF, or a TSV with symbol and gene_id), or a "
            f"column var['{SYMBOL_COLUMNS[0]}']",
        )
    found = ids.map(table.dropna(subset=[GENE_ID]).drop_duplicates(GENE_ID).set_index(GENE_ID)[SYMBOL])
    if found.notna().mean() < MAPPED_LEAST:
        raise InputRefused(
            f"the gene table knows {int(found.notna().sum())} of {len(ids)} Ensembl ids ({', '.join(ids[:3])})",
            where=where,
            do="give a gene table of the same species",
        )
    return found.astype(object).where(found.notna())


def sum_duplicates(adata: ad.AnnData) -> ad.AnnData:
    """Features of the same name added up, in order of first appearance; the first one's ``var`` row stays."""
    codes, unique = pd.factorize(adata.var_names)
    var = adata.var.iloc[pd.Series(codes).drop_duplicates().index]
    return _with_var(adata, _gather(adata.X, codes, len(unique)), var)


def _gather(matrix: Any, groups: np.ndarray, n: int) -> Counts:
    """Columns added up by group: (cells, features) -> (cells, n); columns of group -1 are left out."""
    keep = np.flatnonzero(groups >= 0)
    to = sp.csr_matrix((np.ones(len(keep), np.float32), (keep, groups[keep])), shape=(matrix.shape[1], n))

    def summed(block: Any) -> sp.csr_matrix:
        gathered = sp.csr_matrix(block @ to)
        gathered.sort_indices()
        return gathered

    return matrix.then(summed, n) if isinstance(matrix, OnDisk) else summed(matrix)


def gather(adata: ad.AnnData, groups: np.ndarray, var: pd.DataFrame) -> ad.AnnData:
    """The features of ``var``, each the sum of the features whose entry in ``groups`` is its row (-1: left out)."""
    return _with_var(adata, _gather(adata.X, groups, len(var)), var)


def name_peaks(adata: ad.AnnData, where: str) -> ad.AnnData:
    """Peaks as ``chrom:start-end`` with their parts in ``var``; names that do not parse may be replaced by those parts.

    Raises :class:`InputRefused` naming the first five that do not parse.
    """
    columns = [CHROM, START, END]
    whole = adata.var[columns].copy() if set(columns) <= set(adata.var) else None
    parsed = split_peaks(adata.var_names)
    if parsed[CHROM].isna().any() and whole is not None and not whole.isna().any().any():
        numbers = whole[[START, END]].apply(pd.to_numeric, errors="coerce")
        if (numbers[START] < numbers[END]).all():
            parsed = whole.assign(start=numbers[START], end=numbers[END])
    if parsed[CHROM].isna().any():
        try:
            parse_peaks(adata.var_names)
        except InputRefused as error:
            raise InputRefused(error.what, where=where, do=error.do) from None
    peaks = parsed.astype({CHROM: object, START: np.int64, END: np.int64})
    return _with_var(adata, adata.X, peaks.set_index(peak_names(peaks)))


def is_peaks(name: str, adata: ad.AnnData) -> bool:
    """Whether a modality other than ``atac`` is peaks too: every name parses as one."""
    sample = adata.var_names[:2_000]
    return bool(split_peaks(sample)[CHROM].notna().all())


def _with_var(adata: ad.AnnData, matrix: Any, var: pd.DataFrame) -> ad.AnnData:
    """The cells of ``adata`` with another matrix and names; layers and ``.raw`` stay only where X does."""
    result = ad.AnnData(matrix, obs=adata.obs, var=var, uns=dict(adata.uns))
    if matrix is adata.X:
        result.layers = dict(adata.layers)
        result.raw = adata.raw.to_adata() if adata.raw is not None else None
    return result
