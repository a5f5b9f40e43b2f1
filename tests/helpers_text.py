"""A small ontology and a text model of a few thousand weights, for tests of what is done with texts."""

from __future__ import annotations

import json
from pathlib import Path

from xmodal.text.ontology import Ontology, Term, cells_only

# id, name, definition, exact synonyms, parents
TERMS = (
    ("CL:0000000", "cell", "A unit of life.", "", ""),
    ("CL:0000738", "leukocyte", "A cell of the immune system.", "white blood cell", "CL:0000000"),
    ("CL:0000542", "lymphocyte", "A leukocyte of the lymphoid lineage.", "", "CL:0000738"),
    ("CL:0000084", "T cell", "A lymphocyte with a T cell receptor.", "T lymphocyte|T-cell", "CL:0000542"),
    ("CL:0000236", "B cell", "A lymphocyte that makes antibodies.", "B lymphocyte|B-cell", "CL:0000542"),
    ("CL:0000576", "monocyte", "A leukocyte of the myeloid lineage.", "", "CL:0000738"),
    ("CL:0000540", "neuron", "A cell that conducts impulses.", "nerve cell", "CL:0000000"),
    ("CL:0000617", "GABAergic neuron", "", "", "CL:0000540"),
    ("CL:4023018", "pvalb neuron (Mmus)", "A GABAergic neuron of the Mus musculus brain.", "", "CL:0000617"),
)
HEADER = "id\tname\tdefinition\texact_synonyms\tis_a\n"
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "b",
    "cell",
    "neuron",
    "of",
    "the",
    "lymphocyte",
    "leukocyte",
    "t",
    "that",
    "##s",
    "##ocyte",
    ".",
    "(",
    ")",
)  # of a tokenizer


def small() -> Ontology:
    """Nine terms under the root, one obsolete."""
    terms = [Term(i, n, d, tuple(s.split("|")) if s else (), (p,) if p else ()) for i, n, d, s, p in TERMS]
    old = Term("CL:0000003", "obsolete native cell", obsolete=True, replaced_by="CL:0000000")
    return cells_only([*terms, old], "2026-01-01", "small.tsv")


def table(path: Path) -> Path:
    """The same as a file."""
    old = "CL:0000003\tobsolete native cell\t\t\t\ttrue\tCL:0000000\n"
    lines = "".join("\t".join(term) + "\t\t\n" for term in TERMS)
    path.write_text("# version: 2026-01-01\n" + HEADER.rstrip() + "\tobsolete\treplaced_by\n" + lines + old)
    return path


def tiny_bert(folder: Path, weights: str = "model.safetensors", width: int = 32) -> Path:
    """A directory in Hugging Face's format: two layers of BERT with random weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    state = {k: v.contiguous() for k, v in BertModel(config).state_dict().items()}
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "architectures": ["BertModel"]}))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    )
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights, metadata={"format": "pt"})
    else:
        torch.save(state, folder / weights)
    return folder
