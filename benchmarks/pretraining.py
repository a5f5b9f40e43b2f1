"""What pretraining costs: operations and cells a second of one thread, reading of files, memory, and what the result is worth.

    python benchmarks/pretraining.py [--part sizes|reading|memory|probe|all] [--cells 6000] [--genes 20000]

Seconds are those of the processor (one thread), so that other work on the machine does not count.  `reading` and `memory` write
simulated files of `--cells` cells with 2,000 expressed genes each and read them from the cache of the system: they measure HDF5,
decompression and checks, not a disk.  `probe`: logistic regression on what the encoder makes of pbmc3k after 10 epochs on its
training cells, beside 50 principal components, 5-fold.  Prints Markdown tables for docs/scale.md and RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from common import REAL, xmodal

from xmodal import fields
from xmodal.models.parts.perceiver import MaskedGenes, Perceiver, PerceiverSettings, hide, masked_loss
from xmodal.pretraining import pretrained, sources, stream

warnings.simplefilter("ignore")
SMALL = PerceiverSettings(tokens=128, latents=8, width=64, layers=1)
SIZES = (  # name, settings, genes, expressed genes, cells of a minibatch
    ("default", PerceiverSettings(), 2_000, 800, 64),
    ("default", PerceiverSettings(), 20_000, 1_500, 64),
    ("default", PerceiverSettings(), 20_000, 1_500, 512),
    ("default", PerceiverSettings(), 60_000, 1_500, 64),
    ("4 layers", PerceiverSettings(layers=4), 20_000, 1_500, 64),
    ("small", SMALL, 2_000, 800, 64),
    ("small", SMALL, 20_000, 1_500, 64),
)
QUICK = ("width=32", "heads=2", "tokens=64", "latents=4", "layers=1", "epochs=1", "round_cells=2048", "batch_size=128")
TURNS = 3


def seconds(work: Callable[[], object], turns: int = 1) -> float:
    """Least processor time of ``work``."""
    best = float("inf")
    for _ in range(turns):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def sizes() -> None:
    """Parameters, operations and speed of one step of training."""
    from torch.utils.flop_counter import FlopCounterMode

    print(
        "| size | genes | minibatch | weights | of which not genes | GFLOP a cell | cells a second |\n"
        + "|---" * 7
        + "|"
    )
    for name, size, genes, expressed, cells in SIZES:
        torch.manual_seed(0)
        encoder, task = Perceiver(genes, size), MaskedGenes(genes, size)
        counts = torch.zeros(cells, genes)
        for row in counts:
            row[torch.randperm(genes)[:expressed]] = torch.poisson(torch.ones(expressed)) + 1
        depth = counts.sum(1)
        batch = (counts, torch.log1p(1e4 * counts / depth[:, None]), depth)
        optimizer = torch.optim.AdamW([*encoder.parameters(), *task.parameters()], fused=True)

        def step(
            encoder: Perceiver = encoder,
            task: MaskedGenes = task,
            batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = batch,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> None:
            optimizer.zero_grad()
            masked_loss(encoder, task, batch, hide(batch[0], 0.3))[0].backward()
            optimizer.step()

        with FlopCounterMode(display=False) as counter:
            step()
        attention = 3 * 4 * size.latents * size.width * (min(size.tokens, expressed) + size.layers * size.latents)
        operations = counter.get_total_flops() / cells + attention  # the counter does not see fused attention on a CPU
        weights = sum(p.numel() for p in encoder.parameters())
        rate = cells / seconds(step, TURNS)
        print(
            f"| {name} | {genes:,} | {cells} | {weights / 1e6:.2f} M | {(weights - encoder.gene.numel()) / 1e6:.2f} M | "
            f"{operations / 1e9:.2f} | {rate:.0f} |",
            flush=True,
        )


def write(folder: Path, number: int, cells: int, genes: int, compression: str | None = "gzip") -> Path:
    """Negative binomial counts, some 2,000 expressed genes and 4,000 counts a cell."""
    random = np.random.default_rng(number)
    mean = np.exp(np.random.default_rng(0).normal(0, 2.0, genes))
    mean = np.minimum(mean * 4_000 / mean.sum(), 400)
    parts = [
        sp.csr_matrix(random.poisson(mean * random.gamma(4, 0.25, (min(500, cells - at), 1))).astype(np.float32))
        for at in range(0, cells, 500)
    ]
    made = ad.AnnData(sp.vstack(parts).tocsr(), var=pd.DataFrame(index=[f"TMEM{i}A" for i in range(genes)]))
    path = folder / f"{compression}-{number}.h5ad"
    made.write_h5ad(path, compression=compression)
    return path


def reading(folder: Path, cells: int, genes: int) -> None:
    """An epoch of the stream without training."""
    print("| file | kB a cell on disk | cells a second |\n|---|---|---|")
    last = None
    for compression in (None, "lzf", "gzip"):
        path = write(folder, 0, cells, genes, compression)
        found = stream.open_stream([sources.find(path)], None, 8192, 1024, 0)
        rounds: list[int] = []

        def epoch(found: stream.Stream = found, rounds: list[int] = rounds) -> None:
            rounds.extend(len(part) for part in found.epoch(1))

        spent = seconds(epoch)
        size = path.stat().st_size / cells / 1e3
        print(f"| {compression or 'not compressed'} | {size:.1f} | {sum(rounds) / spent:.0f} |", flush=True)
        last = next(found.epoch(1))
    assert last is not None
    spent = seconds(lambda: [len(batch) for batch in last.minibatches(64)])
    print(f"| (in memory, made dense) | | {len(last) / spent:.0f} |")


def memory(folder: Path, cells: int, genes: int) -> None:
    """The command over one file and over three of the same size."""
    names = folder / "genes.txt"
    names.write_text("\n".join(f"TMEM{i}A" for i in range(min(genes, 3_000))))
    files = [write(folder, i, cells, genes) for i in range(3)]
    settings = [part for change in QUICK for part in ("--set", change)]
    print("| files | cells | peak MiB |\n|---|---|---|")
    for given in (files[:1], files):
        out = folder / f"out{len(given)}"
        xmodal("pretrain", *given, "--output-dir", out, "--genes", names, *settings, "--threads", 1, "--device", "cpu")
        peak = json.loads((out / fields.METRICS_FILE).read_text())["timing"]["peak_mib"]
        print(f"| {len(given)} | {len(given) * cells:,} | {peak} |", flush=True)


def probe(folder: Path) -> None:
    """Linear probes of pbmc3k."""
    from sklearn.decomposition import PCA

    cells = ad.read_h5ad(REAL / "text_human_pbmc3k" / "rna.h5ad")
    xmodal("pretrain", REAL / "text_human_pbmc3k" / "rna.h5ad", "--output-dir", folder / "pbmc", "--threads", 1)
    found = pretrained.load(folder / "pbmc" / fields.PRETRAINED_FILE)
    counts = cells.X.toarray().astype(np.float32)
    values = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    place = [list(cells.var_names).index(name) for name in found.vocabulary[fields.RNA].features]
    torch.manual_seed(0)
    encoder = Perceiver(len(place), found.size)
    kinds = cells.obs["cell_type"].astype(str).to_numpy()
    print("| 5-fold logistic regression on | accuracy | macro F1 |\n|---|---|---|")
    print(row("50 principal components", PCA(50, random_state=0).fit_transform(values), kinds, 1.0))
    print(row("encoder, random weights", latents(encoder, values[:, place], counts.sum(1)), kinds, 0.1))
    encoder.load_state_dict(found.weights)
    print(row("encoder, pretrained", latents(encoder, values[:, place], counts.sum(1)), kinds, 0.1))


@torch.no_grad()
def latents(encoder: Perceiver, values: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Pooled latents, (cells, width)."""
    parts = [slice(i, i + 128) for i in range(0, len(values), 128)]
    found = [encoder(torch.from_numpy(values[p]), torch.from_numpy(depth[p])) for p in parts]
    return torch.cat([Perceiver.pooled(part) for part in found]).numpy()


def row(name: str, numbers: np.ndarray, kinds: np.ndarray, penalty: float) -> str:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))
    told = cross_val_predict(model, numbers, kinds, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    return f"| {name} | {accuracy_score(kinds, told):.3f} | {f1_score(kinds, told, average='macro'):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["sizes", "reading", "memory", "probe", "all"], default="all")
    parser.add_argument("--cells", type=int, default=6_000)
    parser.add_argument("--genes", type=int, default=20_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[Path], None]] = {
        "sizes": lambda _: sizes(),
        "reading": lambda folder: reading(folder, asked.cells, asked.genes),
        "memory": lambda folder: memory(folder, asked.cells, asked.genes),
        "probe": probe,
    }
    for name, work in parts.items():
        if asked.part in (name, "all"):
            with tempfile.TemporaryDirectory() as folder:
                print(f"\n### {name}\n", flush=True)
                work(Path(folder))


if __name__ == "__main__":
    main()
