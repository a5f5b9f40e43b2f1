"""A model that generates cells, trained on cells with known truth and texts whose nearness is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers_annotation import ODD, SEEN, TYPES, as_mudata, cells, small_ontology
from xmodal import fields
from xmodal.data.batches import Cells
from xmodal.data.vocabulary import Labels, Modality, Vocabulary
from xmodal.learning import checkpoint, training
from xmodal.models.scmmgpt import ScMMGPT
from xmodal.text.bank import VIEWS, TextBank
from xmodal.text.ontology import Ontology, Term

WIDTH = 24
DIGEST = "ab" * 32
KNOWN = tuple(n for n, t in TYPES.items() if t in SEEN)  # labels that cells are trained on


def bank(folder: Path) -> TextBank:
    """Texts of terms lie near those of their parents; each view is a little off."""
    terms = small_ontology(folder)
    whole = Ontology({**terms.terms, ODD: Term(ODD, ODD.removeprefix("label:"))}, terms.version, terms.source)
    rng = np.random.default_rng(3)
    own = {t: rng.normal(size=WIDTH) for t in whole.live}
    means = np.stack([own[t] + 0.5 * sum(own[a] for a in sorted(whole.ancestors(t))) for t in whole.live])

    def view() -> Any:
        rows = means + 0.3 * rng.normal(size=means.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)

    return TextBank(whole, whole.live, {v: view() for v in VIEWS}, {"name": "tiny", "digest": DIGEST})


def model(folder: Path, labels: tuple[str, ...] = KNOWN, each: int = 60, **settings: Any) -> ScMMGPT:
    """Trained for a few epochs on ``each`` cells of each label."""
    adata = cells(each, labels, seed=5)
    known = Labels("cell_type", tuple(sorted(labels)), tuple(TYPES[n] for n in sorted(labels)))
    rna = Modality("rna", fields.NB, fields.LOG_CP10K, tuple(adata.var_names), genome="hg38")
    vocabulary = Vocabulary({"rna": rna}, labels=known, texts=bank(folder))
    counts = adata.X.tocsr().astype(np.float32)
    there = {"rna": np.ones(len(adata), bool)}
    depth = {"rna": np.asarray(counts.sum(1), np.float32).ravel()}
    codes = {fields.LABEL_CODE: known.codes(adata.obs["cell_type"])}
    every = Cells(vocabulary, adata.obs_names.to_numpy(str), {"rna": counts}, depth, there, codes)
    held = np.arange(len(every)) % 6 == 0
    chosen = ScMMGPT.Settings(**{"epochs": 12, "members": 1, "folds": 0, "hidden": 16, "components": 8, **settings})
    made = ScMMGPT.build(chosen, vocabulary)
    train, valid = (every.subset(np.flatnonzero(rows)) for rows in (~held, held))
    torch.manual_seed(0)
    training.fit(made, train, valid, torch.device("cpu"))
    return made


def saved(folder: Path, **settings: Any) -> Path:
    path = folder / "model.safetensors"
    checkpoint.save(path, model(folder, **settings), {"directions": []}, {})
    return path


def truth(path: Path, labels: tuple[str, ...] = KNOWN, each: int = 120) -> Path:
    """Other cells of the same types, with a split."""
    as_mudata(cells(each, labels, seed=9)).write_h5mu(path)
    return path


class Encoder:
    """A text encoder that knows one text: it is what the name of a term is."""

    name, width = "tiny", WIDTH

    def __init__(self, texts: TextBank, term: str, digest: str = DIGEST) -> None:
        self.vector, self.digest = texts.embeddings["name"][texts.row(term)], digest

    def encode(self, texts: Any) -> Any:
        return np.stack([self.vector for _ in texts])
