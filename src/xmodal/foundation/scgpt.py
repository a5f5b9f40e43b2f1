"""Embeddings of cells by scGPT (Cui et al. 2024, Nature Methods) from the folder of its weights, in plain torch.

The folder is as the authors give their models away: ``args.json``, ``vocab.json``, ``best_model.pt``.  A cell is its expressed
genes, each an embedding of the gene plus one of its value, a token for the cell in front; post-norm transformer; the
embedding is that first token, of length one.  Values are binned within each cell into equal shares of its expressed genes.
Two things are drawn at random there and are not here, so that a cell always gets the same embedding: which bin a value that
stands on several gets (the middle one), and which genes of a cell with too many are read (those with the highest counts).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.errors import InputRefused
from xmodal.foundation import files
from xmodal.foundation.cells import Floats, Ints, in_batches, known_counts, padded, rna_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

OPTION = "cell_model=scgpt:DIR"
ARGS, VOCABULARY, WEIGHTS = "args.json", "vocab.json", "best_model.pt"
CELL = "<cls>"
HIGHEST = 512.0  # values above are cut, as in the value encoder of the paper
SIZES = ("embsize", "nheads", "d_hid", "nlayers", "n_bins", "max_seq_len")  # in args.json, in the order of Config
OTHERWISE = {
    "n_bins": 51,
    "max_seq_len": 1200,
    "pad_token": "<pad>",
    "pad_value": -2,
}  # of all models given away so far
NAMES = {  # of the authors' weights (with flash attention or without) -> here
    "encoder.embedding.": "gene.",
    "encoder.enc_norm.": "gene_norm.",
    "value_encoder.linear1.": "value.0.",
    "value_encoder.linear2.": "value.2.",
    "value_encoder.norm.": "value.3.",
    "transformer_encoder.": "body.",
    ".Wqkv.": ".in_proj_",
}


@dataclass(frozen=True)
class Config:
    """What ``args.json`` says, as far as it is needed; ``most``: tokens of a cell."""

    width: int
    heads: int
    hidden: int
    layers: int
    bins: int
    most: int
    pad: str
    pad_value: float


class ScGPT(nn.Module):
    """Tokens and binned values, (cells, tokens), to embeddings of length one, (cells, width)."""

    def __init__(self, tokens: int, config: Config) -> None:
        super().__init__()
        width = config.width
        self.gene = nn.Embedding(tokens, width)
        self.gene_norm = nn.LayerNorm(width)
        self.value = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))
        layer = nn.TransformerEncoderLayer(width, config.heads, config.hidden, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, values: Tensor, padding: Tensor) -> Tensor:
        x = self.gene_norm(self.gene(tokens)) + self.value(values.clamp(max=HIGHEST)[..., None])
        found: Tensor = self.body(x, src_key_padding_mask=padding)[:, 0]
        return nn.functional.normalize(found, dim=1)


def read(directory: Path) -> tuple[ScGPT, dict[str, int], Config]:
    """The model, its vocabulary and its sizes; refused where a file is missing, unsafe, or does not fit the others."""
    args, vocabulary, path = (files.need(directory, name, OPTION) for name in (ARGS, VOCABULARY, WEIGHTS))
    config, tokens = _config(files.read_json(args), args), files.read_json(vocabulary)
    for token in (CELL, config.pad):
        if token not in tokens:
            raise InputRefused(f"it has no token {token}", where=str(vocabulary), do="give the model's own vocab.json")
    weights = {_renamed(name): value for name, value in files.read_weights(path).items()}
    if any(name.startswith(("bn.", "dsbn.")) for name in weights):
        raise InputRefused(
            "it was trained with batch normalisation of its inputs, which is not known here",
            where=str(path),
            do="give a pretrained model, or embed with scGPT itself and give cell_model=obsm:KEY",
        )
    model = ScGPT(max(tokens.values()) + 1, config)
    files.fill(model, weights, path, f"{ARGS} and {VOCABULARY}")
    return model.eval(), tokens, config


def embed(given: AnnData | MuData, directory: Path, device: torch.device, batch_size: int = 16) -> Floats:
    """Embeddings of all cells with RNA, (cells, width) float32; genes are matched by their symbols."""
    adata = rna_of(given)
    model, vocabulary, config = read(Path(directory))
    genes = {name: token for name, token in vocabulary.items() if not name.startswith("<")}
    counts = known_counts(adata.X, list(map(str, adata.var_names)), genes, "scgpt")
    model.to(device)
    cells = [tokens_of(counts, i, config, vocabulary[CELL]) for i in range(counts.shape[0])]

    @torch.no_grad()
    def work(rows: Ints) -> Floats:
        tokens = torch.from_numpy(padded([cells[i][0] for i in rows], vocabulary[config.pad], np.int64))
        values = torch.from_numpy(padded([cells[i][1] for i in rows], config.pad_value, np.float32))
        padding = tokens == vocabulary[config.pad]
        found: Floats = model(tokens.to(device), values.to(device), padding.to(device)).float().cpu().numpy()
        return found

    return in_batches([len(tokens) for tokens, _ in cells], config.width, batch_size, work, "scgpt")


def tokens_of(counts: Any, cell: int, config: Config, first: int) -> tuple[Ints, Floats]:
    """Tokens of a cell and their values, (tokens,): the cell's own token, then its expressed genes, highest counts first."""
    start, stop = counts.indptr[cell], counts.indptr[cell + 1]
    genes, values = counts.indices[start:stop].astype(np.int64), counts.data[start:stop]
    genes, values = genes[values > 0], values[values > 0]
    order = np.argsort(-values, kind="stable")[: config.most - 1]
    own = np.array([first], np.int64), np.array([config.pad_value], np.float32)
    return np.concatenate([own[0], genes[order]]), np.concatenate([own[1], binned(values, config.bins)[order]])


def binned(values: Floats, bins: int) -> Floats:
    """Expressed values of one cell, (n,), as bins 1, 2, ...: equal shares of them; the middle bin where a value spans several."""
    if not len(values):
        return values
    edges = np.quantile(values, np.linspace(0, 1, bins - 1))
    low, high = np.searchsorted(edges, values, "left"), np.searchsorted(edges, values, "right")
    return np.ceil((low + high) / 2).astype(np.float32)


def _config(said: dict[str, Any], path: Path) -> Config:
    style = said.get("input_emb_style", "continuous")
    if style != "continuous":
        raise InputRefused(
            f"input_emb_style is '{style}', which is not known here",
            where=str(path),
            do="give a model with 'continuous'",
        )
    sizes = {**OTHERWISE, **said}
    missing = [k for k in SIZES if not isinstance(sizes.get(k), int)]
    if missing:
        raise InputRefused(
            f"it does not say {', '.join(missing)}", where=str(path), do="give the model's own args.json"
        )
    width, heads, hidden, layers, bins, most = (int(sizes[k]) for k in SIZES)
    return Config(width, heads, hidden, layers, bins, most, str(sizes["pad_token"]), float(sizes["pad_value"]))


def _renamed(name: str) -> str:
    for old, new in NAMES.items():
        name = name.replace(old, new, 1) if old.startswith(".") or name.startswith(old) else name
    return name
