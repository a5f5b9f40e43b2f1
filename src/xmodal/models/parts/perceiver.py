"""The cell encoder `builtin`: a cell as the set of its genes, read by a few latents; and what it is pretrained to do.

Latents that attend to a set of inputs are those of Perceiver (Jaegle et al. 2021, arXiv:2103.03206).  Hiding a share of the
genes and predicting their counts needs no labels, so it teaches on cells that nobody has annotated (as in scGPT and
Geneformer; here with the negative binomial of scVI, Lopez et al. 2018, in place of bins or ranks).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xmodal.models.base import ModelSettings

VALUES = 64  # hidden units that describe one value: a curve over a single number needs no more
WIDER = 4  # of the feed-forward layers, as in every transformer
STEP = 64  # tokens are padded to multiples of it, so that few shapes occur
START = 0.02  # spread of embeddings at the start, as in BERT


class PerceiverSettings(ModelSettings):
    """Size of the cell encoder `builtin`."""

    tokens: int = Field(512, ge=8, description="Most genes of a cell that are read: those with the highest values.")
    latents: int = Field(32, ge=1, description="Latents that read the genes of a cell.")
    width: int = Field(256, ge=8, description="Width of the embeddings of genes and latents.")
    layers: int = Field(2, ge=1, le=12, description="Layers of attention among the latents.")
    heads: int = Field(4, ge=1, description="Heads of the attention; they must divide the width.")


class Layer(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before it: (cells, latents, width) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)
        self.forward_layer = feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split(part, self.heads) for part in self.inputs(self.before(x)).chunk(3, -1))
        x = x + self.outputs(joined(F.scaled_dot_product_attention(q, k, v)))
        return x + self.forward_layer(x)


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, WIDER * width), nn.GELU(), nn.Linear(WIDER * width, width)
    )


def split(x: Tensor, heads: int) -> Tensor:
    """(cells, n, width) -> (cells, heads, n, width of a head)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """(cells, heads, n, width of a head) -> (cells, n, width)."""
    return x.transpose(1, 2).flatten(2)


class Perceiver(nn.Module):
    """Values of genes, (cells, genes) on log1p CP10k, to latents (cells, latents, width).

    A token is a gene with its value: its key is what the gene is plus what the value is, its value what the gene is times the
    value, plus what the value is.  The genes' part is a table of all genes, so it is computed once for a minibatch and then
    looked up: at 64 cells and 20,000 genes that is as much work as one projection of each token, and less for more cells.
    The total counts of a cell shift its latents.  Nothing is taken from training cells, so weights fit other cells' genes.
    """

    def __init__(self, genes: int, settings: PerceiverSettings) -> None:
        super().__init__()
        width = settings.width
        self.size, self.tokens, self.heads = settings, settings.tokens, settings.heads
        self.gene = nn.Parameter(torch.randn(genes, width) * START)
        self.latents = nn.Parameter(torch.randn(settings.latents, width) * START)
        self.before = nn.LayerNorm(width)
        self.key, self.content = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.of_value = nn.Sequential(nn.Linear(1, VALUES), nn.GELU())
        self.key_of_value, self.content_of_value = (nn.Linear(VALUES, width) for _ in range(2))
        self.of_depth = nn.Sequential(nn.Linear(1, VALUES), nn.GELU(), nn.Linear(VALUES, width))
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.outputs = nn.Linear(width, width)
        self.forward_layer = feed_forward(width)
        self.body = nn.Sequential(*(Layer(width, settings.heads) for _ in range(settings.layers)))
        self.after = nn.LayerNorm(width)

    def forward(self, values: Tensor, depth: Tensor) -> Tensor:
        """Latents, (cells, latents, width); ``depth``: total counts, (cells,).  A cell without any counts gets some too."""
        value, gene = self.top(values)
        known = value > 0
        known[:, 0] = True  # attention to nothing is not defined
        table, curve = (
            self.before(self.gene),
            self.of_value(value[..., None]),
        )  # (genes, width), (cells, tokens, VALUES)
        key = F.embedding(gene, self.key(table)) + self.key_of_value(curve)  # (cells, tokens, width)
        content = F.embedding(gene, self.content(table)) * value[..., None] + self.content_of_value(curve)
        start = self.latents + self.of_depth(torch.log1p(depth.clamp(min=0))[:, None])[:, None]
        read = F.scaled_dot_product_attention(
            split(self.query(start), self.heads),
            split(key, self.heads),
            split(content, self.heads),
            known[:, None, None],
        )
        # attention is a mean, whose spread falls with the number of tokens: brought back, cells differ from the first step on
        x = start + self.outputs(joined(read) * known.sum(1).sqrt()[:, None, None])
        found: Tensor = self.after(self.body(x + self.forward_layer(x)))
        return found

    def top(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The highest values of each cell and their genes, (cells, tokens); zeros fill up where a cell has fewer."""
        most = int((values > 0).sum(1).max()) if len(values) else 0
        most = min(self.tokens, values.shape[1], STEP * (most // STEP + 1))
        found = values.topk(most, 1)
        return found.values, found.indices

    @staticmethod
    def pooled(latents: Tensor) -> Tensor:
        """One vector for each cell, (cells, width)."""
        return latents.mean(1)


class MaskedGenes(nn.Module):
    """The objective: counts of hidden genes from the latents of the others, negative binomial, (cells, genes).

    A gene's logit is the product of its own embedding with what the latents say, so that hardly a weight is learned that the
    encoder does not keep.
    """

    def __init__(self, genes: int, settings: PerceiverSettings) -> None:
        super().__init__()
        width = settings.width
        self.read = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.bias = nn.Parameter(torch.zeros(genes))
        self.log_dispersion = nn.Parameter(torch.zeros(genes))

    @torch.no_grad()
    def prepare(self, totals: Tensor) -> None:
        """Start from the share of each gene; ``totals``: counts summed over cells, (genes,)."""
        self.bias.copy_(torch.log((totals + 0.5) / (totals.sum() + 0.5 * len(totals))))

    def log_share(self, encoder: Perceiver, latents: Tensor) -> Tensor:
        """Log of the expected share of each gene of the counts, (cells, genes)."""
        return F.log_softmax(self.read(encoder.pooled(latents)) @ encoder.gene.T + self.bias, 1)

    def loss(self, counts: Tensor, log_share: Tensor, hidden: Tensor) -> Tensor:
        """Mean negative log likelihood of the ``hidden`` genes, a scalar; ``counts`` and ``hidden`` are (cells, genes)."""
        log_mean = log_share + torch.log(counts.sum(1, keepdim=True).clamp(min=1))
        log_theta = self.log_dispersion.clamp(-6, 6)
        log_sum = torch.logaddexp(log_theta.expand_as(log_mean), log_mean)
        zero = (log_theta.exp() * (log_theta - log_sum) * hidden).sum()  # log p(0); what is above needs gamma functions
        cell, gene = (counts * hidden).nonzero(as_tuple=True)
        some, theta = counts[cell, gene], log_theta.exp()[gene]
        above = torch.lgamma(some + theta) - torch.lgamma(theta) - torch.lgamma(some + 1)
        above = above + some * (log_mean - log_sum)[cell, gene]
        return -(zero + above.sum()) / hidden.sum().clamp(min=1)


def hide(like: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Which genes of each cell are hidden, 1 or 0, of the shape of ``like``; drawn on the CPU where ``generator`` is given."""
    if generator is None:
        return (torch.rand(like.shape, device=like.device) < share).to(like.dtype)
    return (torch.rand(like.shape, generator=generator) < share).to(like.device, like.dtype)


def masked_loss(
    encoder: Perceiver, task: MaskedGenes, cells: tuple[Tensor, Tensor, Tensor], hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of the hidden genes by the model, and by the mean profile alone (the floor), each a scalar.

    ``cells``: counts and values (log1p CP10k), (cells, genes), and depth, (cells,).  The encoder sees the values of the other
    genes only, on the scale of the whole cell.
    """
    counts, values, depth = cells
    latents = encoder(values * (1 - hidden), depth)
    floor = task.loss(counts, F.log_softmax(task.bias, 0).expand_as(counts), hidden)
    return task.loss(counts, task.log_share(encoder, latents), hidden), floor.detach()
