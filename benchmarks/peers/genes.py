"""Which peaks lie on which genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from contract import Job


def overlaps(job: Job, upstream: int) -> sp.csr_matrix:
    """(peaks, genes) 0/1: the peak overlaps the gene body or ``upstream`` bases before its start, on its strand.

    Raises SystemExit where no gene table was given.
    """
    if not job.genes:
        raise SystemExit("a table of genes is needed (--genes)")
    table = pd.read_csv(job.genes, sep="\t").drop_duplicates("symbol").set_index("symbol")
    table = table.reindex(job.rna.var_names)
    minus = (table["strand"] == "-").to_numpy()
    start = table["start"].to_numpy(float) - np.where(minus, 0, upstream)
    end = table["end"].to_numpy(float) + np.where(minus, upstream, 0)
    peaks = job.other.var
    pairs: list[tuple[int, int]] = []
    for chrom, genes in table.assign(n=np.arange(len(table))).groupby("chrom"):
        rows = np.flatnonzero((peaks["chrom"] == chrom).to_numpy())
        left, right = peaks["start"].to_numpy()[rows], peaks["end"].to_numpy()[rows]
        for gene in genes["n"]:
            pairs += [(int(r), int(gene)) for r in rows[(left < end[gene]) & (right > start[gene])]]
    peak, gene = np.array(pairs).T if pairs else np.zeros((2, 0), int)
    return sp.csr_matrix((np.ones(len(peak), np.float32), (peak, gene)), shape=(len(peaks), len(table)))
