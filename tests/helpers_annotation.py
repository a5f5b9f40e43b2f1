"""A small ontology, cells of its types with known truth, and a toy model that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from xmodal import fields
from xmodal.data.vocabulary import Labels, Modality, Vocabulary
from xmodal.errors import NotApplicable
from xmodal.learning import checkpoint
from xmodal.models.base import CrossModalModel, ModelSettings
from xmodal.text import ontology
from xmodal.text.bank import VIEWS, TextBank
from xmodal.text.ontology import Ontology, Term

mu.set_options(pull_on_update=False)
TERMS = (
    ("CL:0000000", "cell", ""),
    ("CL:0000255", "eukaryotic cell", "CL:0000000"),
    ("CL:0000738", "leukocyte", "CL:0000255"),
    ("CL:0000542", "lymphocyte", "CL:0000738"),
    ("CL:0000084", "T cell", "CL:0000542"),
    ("CL:0000624", "CD4-positive, alpha-beta T cell", "CL:0000084"),
    ("CL:0000625", "CD8-positive, alpha-beta T cell", "CL:0000084"),
    ("CL:0000236", "B cell", "CL:0000542"),
    ("CL:0000576", "monocyte", "CL:0000738"),
    ("CL:0000540", "neuron", "CL:0000255"),
    ("CL:0000127", "astrocyte", "CL:0000255"),
)
OBSOLETE = ("CL:0000999", "obsolete B lymphocyte", "CL:0000236")
VERSION = "2024-01-01"
CD4, CD8, B, MONOCYTE, NEURON, ASTROCYTE = (
    *("CL:0000624", "CL:0000625", "CL:0000236", "CL:0000576"),
    *("CL:0000540", "CL:0000127"),
)
T_CELL, LYMPHOCYTE, LEUKOCYTE = "CL:0000084", "CL:0000542", "CL:0000738"
ODD = "label:odd ones"  # a training label that no term is known for
SEEN = (CD4, CD8, B, MONOCYTE, ODD)
TYPES = {
    "CD4 T": CD4,
    "CD8 T": CD8,
    "B": B,
    "Mono": MONOCYTE,
    "odd ones": ODD,
    "neuron": NEURON,
    "astrocyte": ASTROCYTE,
}
GENES = 48
PER_TYPE = 6  # genes that only one type has


def ontology_file(path: Path, version: str = VERSION) -> Path:
    """The terms as a table, with an obsolete one."""
    rows = [f"{t}\t{n}\tA {n} of the tests.\t\t{p}\t\t" for t, n, p in TERMS]
    rows.append(f"{OBSOLETE[0]}\t{OBSOLETE[1]}\t\t\t\ttrue\t{OBSOLETE[2]}")
    head = f"# version: {version}\nid\tname\tdefinition\texact_synonyms\tis_a\tobsolete\treplaced_by"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def small_ontology(folder: Path) -> Ontology:
    return ontology.read(ontology_file(folder / "cl.tsv"))


def cells(each: int = 24, types: tuple[str, ...] = tuple(TYPES), seed: int = 0, prefix: str = "c") -> ad.AnnData:
    """``each`` cells of each type by name; CD4 and CD8 differ little; ``obs``: cell_type and the split."""
    rng = np.random.default_rng(seed)
    names = np.repeat(types, each)
    base = np.full((len(TYPES), GENES), 0.4)
    for i in range(len(TYPES)):
        base[i, i * PER_TYPE : (i + 1) * PER_TYPE] = 5.0
    base[1] = 0.85 * base[0] + 0.15 * base[1]
    order = list(TYPES)
    counts = rng.poisson(base[[order.index(n) for n in names]]).astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(names),
            fields.SPLIT: pd.Categorical(np.where(np.arange(len(names)) % 3 == 0, "test", "train")),
        },
        index=[f"{prefix}{i}" for i in range(len(names))],
    )
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(GENES)]))


def as_mudata(adata: ad.AnnData) -> mu.MuData:
    out = mu.MuData({"rna": adata.copy()})
    out.obs = adata.obs.copy()
    return out


class Toy(CrossModalModel):
    """Cells are what their profile resembles most; each term's profile is the mean of those of the types below it."""

    name = "toy"
    summary = source = "of the tests"
    Settings = ModelSettings
    has_latent = True
    takes_labels = True
    only = fields.RNA
    explains = True

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary) -> None:
        super().__init__(settings, vocabulary)
        assert vocabulary.texts is not None
        self.register_buffer("profiles", torch.zeros(len(vocabulary.texts.ids), len(vocabulary[fields.RNA])))
        self.register_buffer("reject", torch.tensor(0.5))

    @property
    def seen(self) -> tuple[str, ...]:
        assert self.vocabulary.labels is not None
        return self.vocabulary.labels.classes

    def _likeness(self, values: Tensor, candidates: tuple[str, ...]) -> Tensor:
        assert self.vocabulary.texts is not None
        profiles = self.profiles[torch.from_numpy(self.vocabulary.texts.rows(candidates))]
        return torch.nn.functional.normalize(values, dim=1) @ torch.nn.functional.normalize(profiles, dim=1).T

    def scores(self, batch: Any, candidates: Any) -> Tensor:
        return 25 * self._likeness(batch.values[fields.RNA], tuple(candidates))

    def known(self, batch: Any) -> Tensor:
        return self._likeness(batch.values[fields.RNA], self.seen).max(1).values.clamp(0, 1) ** 2

    def explain(self, batch: Any, candidates: Any) -> Tensor:
        if not self.explains:
            raise NotApplicable("it reads no genes")
        values = batch.values[fields.RNA].clone().requires_grad_()
        self._likeness(values, tuple(candidates)).max(1).values.sum().backward()
        assert values.grad is not None
        return values.grad * values.detach()

    def embed(self, batch: Any) -> Tensor:
        return torch.nn.functional.normalize(batch.values[fields.RNA], dim=1)

    def thresholds(self) -> dict[str, float]:
        return {"reject": float(self.reject), "penalty": 0.0, "temperature": 1.0}


def model(folder: Path) -> Toy:
    """A toy that has learned from cells of the seen types, and knows what texts say of neurons and astrocytes."""
    terms = small_ontology(folder)
    whole = Ontology({**terms.terms, ODD: Term(ODD, ODD.removeprefix("label:"))}, terms.version, terms.source)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(whole.live), 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    bank = TextBank(whole, whole.live, dict.fromkeys(VIEWS, vectors), {"name": "tiny", "digest": "ab" * 32})
    pairs = sorted((n, t) for n, t in TYPES.items() if t in SEEN)
    labels = Labels("cell_type", tuple(n for n, _ in pairs), tuple(t for _, t in pairs))
    adata = cells(60, seed=5)
    rna = Modality("rna", fields.NB, fields.LOG_CP10K, tuple(adata.var_names), genome="hg38")
    toy = Toy(ModelSettings(), Vocabulary({"rna": rna}, labels=labels, texts=bank))
    x = adata.X.toarray()
    logged = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    own = np.array([TYPES[str(n)] for n in adata.obs["cell_type"]])
    for i, term in enumerate(bank.ids):
        below = np.isin(own, [t for t in TYPES.values() if term in whole.ancestors(t, itself=True)])
        if below.any():
            toy.profiles[i] = torch.from_numpy(logged[below].mean(0))
    return toy


def saved(folder: Path) -> Path:
    path = folder / "model.safetensors"
    checkpoint.save(path, model(folder), {}, {})
    return path
