"""Gene activity as Signac defines it: ATAC counts over the gene body and 2 kb upstream, log-normalised, taken for RNA.

The counts are those of the peaks given (all methods see the same features), not of fragments.  ATAC to RNA only.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from contract import Job, read_job
from genes import overlaps


def main() -> None:
    job: Job = read_job()
    test = job.rows("test")
    with job.timed("train"):
        links = overlaps(job, upstream=2000)
        job.chosen["genes_with_a_peak"] = int((links.getnnz(0) > 0).sum())
    with job.timed("predict"):
        activity = sp.csr_matrix(job.other.X[test] @ links).toarray()
        total = np.maximum(np.asarray(job.other.X[test].sum(1)), 1)
        predicted = np.log1p(activity / total * 1e4)
    job.write(rna=predicted)


if __name__ == "__main__":
    main()
