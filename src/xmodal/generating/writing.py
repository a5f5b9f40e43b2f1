"""Writing generated cells: counts with what was asked for (.h5ad), and a folder with a picture and tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal import fields
from xmodal.data.transforms import CP, to_scale
from xmodal.outputs import replacing_files, write_json
from xmodal.predicting.measured import feature_frame
from xmodal.predicting.overview import MOST_CELLS, MOST_FEATURES, places

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    from xmodal.data.vocabulary import Modality
    from xmodal.generating.prompts import Prompt
    from xmodal.text.bank import TextBank

PICTURE, PROMPTS, GENES, SUMMARY = OWN = ("generated.png", "prompts.tsv", "genes.tsv", "generated.json")
MOST_GENES = 20  # of each prompt in the table
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)  # quantiles at which a type's profile is expected
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Generated:
    """Cells of all ``prompts``; ``which`` (cells,): the prompt of each; ``counts``: int32 CSR (cells, genes).

    ``typical``: of each training type, by id, as far as the checkpoint holds them, shares of its counts (genes,) and
    quantiles of its depth.
    """

    prompts: list[Prompt]
    which: npt.NDArray[np.int64]
    counts: sp.csr_matrix
    modality: Modality
    texts: TextBank
    typical: dict[str, tuple[Array, Array]]
    about: dict[str, Any]

    def name(self, term: str) -> str:
        return self.texts.ontology.terms[term].name


def cells(found: Generated) -> AnnData:
    """The generated cells with obs, var and provenance."""
    import anndata as ad

    adata = ad.AnnData(found.counts, obs=obs(found), var=feature_frame(found.modality))
    adata.uns[fields.UNS] = dict(sorted(found.about.items()))
    if found.modality.genome is not None:
        adata.uns[fields.GENOME] = found.modality.genome
    return adata


def obs(found: Generated) -> pd.DataFrame:
    """What each cell was asked to be, and how near the model knows that, (cells,)."""
    import pandas as pd

    number = len(found.which)
    names = [f"generated_{i + 1:0{max(6, len(str(number)))}d}" for i in range(number)]
    each = [found.prompts[i] for i in found.which]
    table = pd.DataFrame(index=pd.Index(names, dtype=object))
    table[fields.SOURCE] = pd.Categorical([fields.GENERATED] * number)
    table[fields.PROMPT] = _category([p.given for p in each])
    table[fields.TERM] = _category([p.term if _is_id(p.term) else fields.UNKNOWN for p in each])
    table[fields.NEAREST] = _category([p.nearest for p in each])
    table[fields.NEAREST_NAME] = _category([found.name(p.nearest) for p in each])
    table[fields.NEAREST_COSINE] = np.array([p.cosine for p in each], np.float32)
    table[fields.EXTRAPOLATING] = np.array([p.extrapolating for p in each], bool)
    return table


def _category(values: list[Any]) -> Any:
    import pandas as pd

    return pd.Categorical([str(v) for v in values])


def _is_id(term: str | None) -> bool:
    from xmodal.text.ontology import PSEUDO

    return term is not None and not term.startswith(PSEUDO)


def write_overview(folder: Path, found: Generated, summary: dict[str, Any], seed: int) -> None:
    """Picture and tables, all or nothing; other outputs of the command may lie in the folder by now."""
    from xmodal.reporting import figures, generated_figure

    with replacing_files(folder, OWN, overwrite=True) as temporary:
        for name, table in ((PROMPTS, prompt_table(found)), (GENES, gene_table(found))):
            table.to_csv(temporary / name, sep="\t", index=False, lineterminator="\n", float_format="%.6g")
        (temporary / PICTURE).write_bytes(figures.png(generated_figure.generated(points(found, seed))))
        write_json(temporary / SUMMARY, summary)


def prompt_table(found: Generated) -> pd.DataFrame:
    """One row for each prompt: what it was taken for, its cells and their counts."""
    import pandas as pd

    total = np.asarray(found.counts.sum(1)).ravel()
    rows = []
    for i, prompt in enumerate(found.prompts):
        own = total[found.which == i]
        rows.append(
            {
                fields.PROMPT: prompt.given,
                fields.TERM: prompt.term if _is_id(prompt.term) else fields.UNKNOWN,
                fields.NEAREST: prompt.nearest,
                fields.NEAREST_NAME: found.name(prompt.nearest),
                fields.NEAREST_COSINE: prompt.cosine,
                fields.EXTRAPOLATING: "yes" if prompt.extrapolating else "no",
                "cells_of": "; ".join(map(found.name, prompt.covers)),
                "cells": len(own),
                "median_counts": float(np.median(own)),
            }
        )
    return pd.DataFrame(rows)


def gene_table(found: Generated) -> pd.DataFrame:
    """The genes of which each prompt's cells have most beyond the mean of the training types: shares per 10k counts."""
    import pandas as pd

    usual = np.mean([shares for shares, _ in found.typical.values()] or [np.zeros(found.counts.shape[1])], axis=0) * CP
    rows = []
    for i, prompt in enumerate(found.prompts):
        total = np.asarray(found.counts[found.which == i].sum(0), np.float64).ravel()
        share = total / max(total.sum(), 1) * CP
        ratio = np.log2((share + 1) / (usual + 1))
        for g in np.argsort(-ratio, kind="stable")[:MOST_GENES]:
            rows.append((prompt.given, found.modality.features[g], share[g], usual[g], ratio[g]))
    columns = [fields.PROMPT, "gene", "per_10k", "per_10k_of_training_types", "log2_ratio"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Points:
    """What is drawn: cells and types in the plane of the cells' first two principal components.

    ``cells`` (drawn, 2) with their ``prompt``; ``types`` (types, 2) with their ``names``, "" for those that no prompt is near;
    ``shares`` (2,) of the variance.
    """

    cells: npt.NDArray[np.float64]
    prompt: list[str]
    types: npt.NDArray[np.float64]
    names: list[str]
    shares: npt.NDArray[np.float64]


def points(found: Generated, seed: int) -> Points:
    """Cells and the training types' profiles on the scale log1p CP10k, by the genes that vary most among the cells."""
    from xmodal.models.likelihoods import expected_log

    rows = np.random.default_rng(seed).permutation(len(found.which))[:MOST_CELLS]
    rows.sort()
    values = to_scale(found.counts[rows], None, found.modality.scale)
    variable = np.sort(np.argsort(-values.var(0), kind="stable")[:MOST_FEATURES])
    some = [(s[variable], np.quantile(d, DEPTHS)) for s, d in found.typical.values()]
    typical = np.array([np.mean([expected_log(s, float(d)) for d in ds], axis=0) for s, ds in some], np.float32)
    placed, shares = places(np.vstack([values[:, variable], typical.reshape(-1, len(variable))]))
    near = {p.nearest for p in found.prompts} | {t for p in found.prompts for t in p.covers}
    return Points(
        placed[: len(rows)],
        [found.prompts[i].given for i in found.which[rows]],
        placed[len(rows) :],
        [found.name(t) if t in near else "" for t in found.typical],
        shares,
    )
