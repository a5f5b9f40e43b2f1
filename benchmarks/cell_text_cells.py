"""Cells of the two data sets, and `scmmgpt` trained on some of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from common import REAL
from sklearn.metrics import f1_score

from xmodal import fields
from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Labels, Modality, Vocabulary
from xmodal.learning import training
from xmodal.models.scmmgpt import ScMMGPT, ScMMGPTSettings
from xmodal.text import bank, encoder, ontology

ONTOLOGY = REAL / "tables" / "cell_ontology_terms.tsv.gz"
CLAUSTRUM = "label:claustrum projecting glutamatergic neuron"
TERMS = {  # of cell_subtype, by hand
    **{"E2Rasgrf2": "CL:4030059", "E3Rorb": "CL:4030063", "E3Rmst": "CL:4030063", "E4Il1rapl2": "CL:4030062"},
    **{"E4Thsd7a": "CL:4030062", "E5Galnt14": "CL:4030065", "E5Parm1": "CL:4023041", "E5Sulf1": "CL:4023038"},
    **{"E5Tshz2": "CL:4030067", "E6Tle4": "CL:4023042", "Clau": CLAUSTRUM, "InP": "CL:4023018", "InS": "CL:4023017"},
    **{"InV": "CL:4023016", "InN": "CL:4023011", "Ast": "CL:0000127", "OliM": "CL:0000128", "OliI": "CL:4072001"},
    **{"OPC": "CL:0002453", "Mic": "CL:0000129", "Endo": "CL:0000115", "Peri": "CL:0000669"},
}
VALID = 0.1  # of the training cells: those that the model chooses on
BINS = 15
Index = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Set:
    """Cells of one data set: ``types`` ids, ``coarse`` types as the file has them, ``batch``."""

    counts: sp.csr_matrix
    genes: Index
    types: Index
    coarse: Index
    batch: Index


@cache
def data(name: str) -> Set:
    folder = {"pbmc3k": "text_human_pbmc3k", "cortex": "mouse_cortex_snareseq_dev"}[name]
    cells = ad.read_h5ad(REAL / folder / "rna.h5ad")
    if name == "cortex":
        cells = cells[cells.obs["cell_type"].astype(str) != "Mis"]
    obs = cells.obs.astype(str)
    types = obs["cell_subtype"].map(TERMS) if name == "cortex" else obs[fields.TERM]
    batch = obs["batch"] if name == "cortex" else obs["cell_type"]
    counts = sp.csr_matrix(cells.X).astype(np.float32)
    return Set(counts, cells.var_names.to_numpy(str), *(x.to_numpy(str) for x in (types, obs["cell_type"], batch)))


@cache
def texts() -> bank.TextBank:
    return bank.build(ontology.read(ONTOLOGY), encoder.load(None), [CLAUSTRUM])


def cells_of(given: Set, types: tuple[str, ...]) -> Cells:
    """Cells for the model, which learns ``types`` alone."""
    rna = Modality(fields.RNA, fields.NB, fields.LOG_CP10K, tuple(given.genes))
    vocabulary = Vocabulary({fields.RNA: rna}, labels=Labels("types", types, types), texts=texts())
    depth = np.asarray(given.counts.sum(1), np.float32).ravel()
    everywhere = np.ones(len(depth), bool)
    names = np.array([f"c{i}" for i in range(len(depth))])
    codes = vocabulary.labels.codes(given.types) if vocabulary.labels else np.zeros(0)
    values = ({m: x} for m, x in ((fields.RNA, given.counts), (fields.RNA, depth), (fields.RNA, everywhere)))
    return Cells(vocabulary, names, *values, {fields.LABEL_CODE: codes})


def shares(types: Index, seed: int, share: float) -> Index:
    """A random part of the cells of each type, at least one; a mask (cells,)."""
    rng = np.random.default_rng(seed)
    out = np.zeros(len(types), bool)
    for one in np.unique(types):
        rows = rng.permutation(np.flatnonzero(types == one))
        out[rows[: max(1, round(share * len(rows)))]] = True
    return out


@dataclass
class Fitted:
    """A trained model and its cells."""

    model: ScMMGPT
    cells: Cells
    seconds: float

    def scores(self, rows: Index, candidates: tuple[str, ...]) -> np.ndarray[Any, Any]:
        """Logits, (rows, candidates)."""
        return self.over(self.cells, rows, lambda b: self.model.scores(b, candidates))

    def known(self, rows: Index) -> np.ndarray[Any, Any]:
        return self.over(self.cells, rows, self.model.known)

    @staticmethod
    @torch.no_grad()
    def over(cells: Cells, rows: Index, what: Callable[[Any], torch.Tensor]) -> np.ndarray[Any, Any]:
        parts = [what(cells.batch(rows[i : i + 256])) for i in range(0, len(rows), 256)]
        return torch.cat(parts).double().numpy()


def fitted(given: Set, rows: Index, seed: int, **settings: Any) -> Fitted:
    """`scmmgpt` trained on the cells ``rows``, of which it keeps a tenth to choose on."""
    types = tuple(sorted(set(given.types[rows])))
    cells = cells_of(given, types)
    held = shares(given.types[rows], seed, VALID)
    torch.manual_seed(seed)
    model = ScMMGPT.build(ScMMGPTSettings(generator_passes=0, **settings), cells.vocabulary)
    started = time.monotonic()
    training.fit(model, cells.subset(rows[~held]), cells.subset(rows[held]), torch.device("cpu"), seed=seed)
    return Fitted(model.eval(), cells, time.monotonic() - started)


def measures(true: Index, found: Index, probability: Index) -> dict[str, float]:
    right = found == true
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - probability[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    macro = f1_score(true, found, labels=np.unique(true), average="macro", zero_division=0)
    return {"accuracy": float(right.mean()), "macro_f1": float(macro), "ece": float(sum(gaps))}


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    out: np.ndarray[Any, Any] = shifted / shifted.sum(1, keepdims=True)
    return out
