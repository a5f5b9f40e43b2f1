"""Small checkpoints in the formats of scGPT and Geneformer, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

WIDTH, HEADS, HIDDEN, LAYERS, BINS = 8, 2, 12, 2, 9
SPECIAL = ("<pad>", "<cls>", "<eoc>")


def scgpt(folder: Path, genes: list[str], flash: bool = True, most: int = 40, seed: int = 0) -> dict[str, torch.Tensor]:
    """``args.json``, ``vocab.json`` and ``best_model.pt`` with the names of the authors' weights; returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    args = {"embsize": WIDTH, "nheads": HEADS, "d_hid": HIDDEN, "nlayers": LAYERS, "n_bins": BINS, "pad_value": -2}
    (folder / "args.json").write_text(json.dumps({**args, "max_seq_len": most, "pad_token": "<pad>", "fast": flash}))
    vocabulary = {name: i for i, name in enumerate([*genes, *SPECIAL])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    shapes = {"encoder.embedding.weight": (len(vocabulary), WIDTH), **normal("encoder.enc_norm")}
    shapes |= {**linear("value_encoder.linear1", 1, WIDTH), **linear("value_encoder.linear2", WIDTH, WIDTH)}
    shapes |= {**normal("value_encoder.norm"), **linear("decoder.fc.0", WIDTH, WIDTH)}
    joint = "Wqkv." if flash else "in_proj_"
    for i in range(LAYERS):
        at = f"transformer_encoder.layers.{i}."
        shapes |= {f"{at}self_attn.{joint}weight": (3 * WIDTH, WIDTH), f"{at}self_attn.{joint}bias": (3 * WIDTH,)}
        shapes |= {**linear(f"{at}self_attn.out_proj", WIDTH, WIDTH), **linear(f"{at}linear1", WIDTH, HIDDEN)}
        shapes |= {**linear(f"{at}linear2", HIDDEN, WIDTH), **normal(f"{at}norm1"), **normal(f"{at}norm2")}
    generator = torch.Generator().manual_seed(seed)
    weights = {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(weights, folder / "best_model.pt")
    return weights


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def normal(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def scgpt_by_hand(weights: dict[str, torch.Tensor], tokens: list[int], values: list[float]) -> np.ndarray:
    """The same model for one cell, in numpy, written from the paper: embedding of the first token, of length one."""
    w = {k: v.double().numpy() for k, v in weights.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return z * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    value = np.maximum(dense(np.array(values, float)[:, None], "value_encoder.linear1"), 0)
    x = norm(w["encoder.embedding.weight"][tokens], "encoder.enc_norm")
    x = x + norm(dense(value, "value_encoder.linear2"), "value_encoder.norm")
    for i in range(LAYERS):
        at = f"transformer_encoder.layers.{i}"
        q, k, v = np.split(x @ w[f"{at}.self_attn.Wqkv.weight"].T + w[f"{at}.self_attn.Wqkv.bias"], 3, -1)
        heads = []
        for h in range(HEADS):
            part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
            score = np.exp(q[:, part] @ k[:, part].T / np.sqrt(WIDTH / HEADS))
            heads.append(score / score.sum(1, keepdims=True) @ v[:, part])
        x = norm(x + dense(np.concatenate(heads, 1), f"{at}.self_attn.out_proj"), f"{at}.norm1")
        inner = np.maximum(dense(x, f"{at}.linear1"), 0)
        x = norm(x + dense(inner, f"{at}.linear2"), f"{at}.norm2")
    return x[0] / np.linalg.norm(x[0])


def geneformer(folder: Path, ids: list[str], ends: bool = True) -> None:
    """A BERT for masked tokens as its authors' ``save_pretrained`` leaves it, and the two tables as JSON."""
    from transformers import BertConfig, BertForMaskedLM

    special = ["<pad>", "<mask>", *(["<cls>", "<eos>"] if ends else [])]
    tokens = {name: i for i, name in enumerate([*special, *ids])}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, intermediate_size=12
    )
    config.max_position_embeddings = 24
    BertForMaskedLM(config).save_pretrained(folder)
    (folder / "token_dictionary.json").write_text(json.dumps(tokens))
    (folder / "gene_median.json").write_text(json.dumps({gene: 1.0 + i % 4 for i, gene in enumerate(ids)}))
