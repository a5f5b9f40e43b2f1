"""Embeddings of cells by Geneformer (Theodoris et al. 2023, Nature) from the folder of its weights.

The folder is a BERT model as Hugging Face lays it out (``config.json``; ``model.safetensors`` or ``pytorch_model.bin``) with the
authors' two tables beside it: ``token_dictionary.json`` and ``gene_median.json``, by Ensembl id.  A cell is its expressed genes
in order of their counts over the gene's median in the authors' corpus; its embedding is the mean of its genes' hidden states
in the second-to-last layer, without special tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from xmodal import fields
from xmodal.data.features import ENSEMBL
from xmodal.data.genes import cut_version
from xmodal.errors import InputRefused
from xmodal.foundation import files
from xmodal.foundation.cells import Floats, Ints, in_batches, known_counts, padded, rna_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

OPTION = "cell_model=geneformer:DIR"
CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
TOKENS, MEDIANS = "token_dictionary", "gene_median"
PAD, FIRST, LAST = "<pad>", "<cls>", "<eos>"  # the later two in the second version only
LAYER = -2


def read(directory: Path) -> tuple[nn.Module, dict[str, int], dict[str, float]]:
    """The model, its tokens and the medians of its genes; refused where a file is missing, unsafe, or does not fit."""
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        raise InputRefused(
            f"{OPTION} needs the package transformers", do='pip install "xmodal[text]", or give another cell_model'
        ) from None
    said = files.read_json(files.need(directory, CONFIG, OPTION))
    if said.get("model_type") != "bert":
        what = f"it describes a model of type {said.get('model_type')}, not bert"
        raise InputRefused(what, where=str(directory / CONFIG), do="give a folder of Geneformer")
    tokens = {str(k): int(v) for k, v in files.read_table(directory, TOKENS, OPTION).items()}
    medians = {str(k): float(v) for k, v in files.read_table(directory, MEDIANS, OPTION).items()}
    there = [directory / name for name in WEIGHTS if (directory / name).is_file()]
    path = there[0] if there else files.need(directory, WEIGHTS[0], OPTION)
    config = BertConfig.from_dict(said)
    if PAD not in tokens or max(tokens.values()) >= config.vocab_size:
        raise InputRefused(
            f"{TOKENS} and {CONFIG} do not belong together ({len(tokens)} tokens, {config.vocab_size} in the model)",
            where=str(directory),
            do="use the tables of this very model",
        )
    model = BertModel(config, add_pooling_layer=False)
    weights = {name.removeprefix("bert."): value for name, value in files.read_weights(path).items()}
    files.fill(model, weights, path, CONFIG)
    model.train(False)
    return model, tokens, medians


def embed(given: AnnData | MuData, directory: Path, device: torch.device, batch_size: int = 16) -> Floats:
    """Embeddings of all cells with RNA, (cells, width) float32; genes are matched by their Ensembl ids."""
    adata = rna_of(given)
    ids = ensembl_ids(adata)
    model, tokens, medians = read(Path(directory))
    known = {gene: token for gene, token in tokens.items() if medians.get(gene, 0) > 0}
    counts = known_counts(adata.X, ids, known, "geneformer")
    median = np.ones(counts.shape[1])
    median[list(known.values())] = [medians[gene] for gene in known]
    ends = [[tokens[end]] if end in tokens else [] for end in (FIRST, LAST)]
    most = int(model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
    cells = [ranked(counts, i, median, (ends[0], ends[1]), most) for i in range(counts.shape[0])]
    special = torch.tensor([tokens[t] for t in (PAD, FIRST, LAST) if t in tokens], device=device)
    model.to(device)

    @torch.no_grad()
    def work(rows: Ints) -> Floats:
        ranks = torch.from_numpy(padded([cells[i] for i in rows], tokens[PAD], np.int64)).to(device)
        if not ranks.shape[1]:
            return np.zeros((len(rows), width), np.float32)
        layers = model(input_ids=ranks, attention_mask=ranks != tokens[PAD], output_hidden_states=True).hidden_states
        of_genes = ~torch.isin(ranks, special)
        total = (layers[LAYER] * of_genes[..., None]).sum(1)
        found: Floats = (total / of_genes.sum(1, keepdim=True).clamp(min=1)).float().cpu().numpy()
        return found

    width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    return in_batches([len(cell) for cell in cells], width, batch_size, work, "geneformer")


def ranked(counts: Any, cell: int, median: Any, ends: tuple[list[int], list[int]], most: int) -> Ints:
    """Tokens of a cell, (tokens,): genes by their counts over the gene's median, highest first, between its ``ends``.

    The total counts of the cell would divide all of them alike, so they do not matter.
    """
    start, stop = counts.indptr[cell], counts.indptr[cell + 1]
    genes, values = counts.indices[start:stop].astype(np.int64), counts.data[start:stop]
    genes, values = genes[values > 0], values[values > 0]
    order = np.argsort(-(values / median[genes]), kind="stable")[: most - len(ends[0]) - len(ends[1])]
    return np.concatenate([np.array(ends[0], np.int64), genes[order], np.array(ends[1], np.int64)])


def ensembl_ids(adata: AnnData) -> list[str]:
    """Ensembl id of each gene, version cut; empty where a gene has none; refused where hardly any has one."""
    names = pd.Series(adata.var_names.astype(str))
    if fields.GENE_ID in adata.var and names.str.match(ENSEMBL).mean() < 0.5:
        names = adata.var[fields.GENE_ID].astype(str).reset_index(drop=True)
    matched = names.str.match(ENSEMBL)
    if matched.mean() < 0.5:
        raise InputRefused(
            f"{OPTION} needs Ensembl ids, and {int(matched.sum())} of {len(names)} genes have one ({names.iloc[0]}, ...)",
            where=fields.RNA,
            do=f"bring them in with xmodal prepare --gene-table FILE, or give a column var['{fields.GENE_ID}']",
        )
    return list(cut_version(names).where(matched, ""))
