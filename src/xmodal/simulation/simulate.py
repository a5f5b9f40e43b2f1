"""Paired RNA + ATAC (+ protein) cells whose truth is known: types of a tree, shared bits, and a coupling of choice.

Every cell has a type (leaf of a tree), bits p in {-1, +1} that open peaks, and bits r = T(p) that drive genes.  With
the coupling ``linear`` r = p.  With ``nonlinear`` each r is a product of some p within a block (and each p of some r),
so a linear predictor sees only the types and the bits that are not products.  Private coins show in one modality only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata as ad
import mudata as mu
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from xmodal.data.genes import STRAND, SYMBOL
from xmodal.fields import ATAC, CHROM, END, GENOME, PROTEIN, RNA, SPLIT, START, TEST, TRAIN, VALID
from xmodal.simulation.simulate_settings import PRESETS, SimulateSettings

__all__ = ["PRESETS", "SimulateSettings", "Simulated", "simulate"]

Array = npt.NDArray[Any]
Random = np.random.Generator
TRAITS = 6  # dimensions of the space in which types and cells lie
TAU = (0.9, 0.6, 0.35)  # spread of children around their parent, by level of the tree
WITHIN = 0.25  # spread of cells around their type
SIDES = {RNA: "r", ATAC: "p", PROTEIN: "h"}  # the bits that drive a modality
PROGRAM = 0.65  # share of features driven by one shared bit
PRIVATE, COINS = 0.16, 2  # share of features driven by a private coin; coins of each modality
THETA = 5.0  # dispersion of gene counts: variance mean + mean^2 / 5
AT_ONCE = 2**24  # numbers that are dense at once (128 MB), where that is not all
MARKERS = 5  # most marker genes of one type
GENOME_NAME = "simulated"
GENE_SPACING, GENE_LENGTH, PEAK_LENGTH, REACH, LINKED = 150_000, 20_000, 500, 10_000, 0.7
# Rows: which bits of the other side are multiplied.  Invertible over GF(2); the second of each pair is the inverse.
CODES = {
    2: (((1, 0), (1, 1)), ((1, 0), (1, 1))),
    3: (((1, 1, 0), (0, 1, 1), (1, 1, 1)), ((0, 1, 1), (1, 1, 1), (1, 0, 1))),
}


@dataclass(frozen=True)
class Simulated:
    """Cells as they would be measured, and the truth behind them.

    ``truth``: ``p, r`` (cells, bits), ``h`` (cells, blocks), ``q_rna, q_atac`` (cells, coins), ``y`` (cells, 6),
    ``type``, ``batch`` (cells), ``type_means`` (types, 6), ``type_distances`` (types, types); per modality m ``rate_m``
    (cells, features: mean count before dropout, chance of being open, mean value) and per feature ``program_m`` (bit
    that drives it, -1 for none), ``private_m`` (coin, -1 for none) and ``coupled_m`` (driven by a bit that only a
    product of bits of the other modality tells; with linear coupling: by any bit).
    Rows are the cells of ``obs``, in its order; features are those of ``mdata``; types are the leaves of ``types``.
    """

    settings: SimulateSettings
    seed: int
    mdata: mu.MuData
    obs: pd.DataFrame
    truth: dict[str, Array]
    genes: pd.DataFrame  # symbol, chrom, start, end, strand
    features: pd.DataFrame  # modality, feature, program, coupled, private, marker_of
    links: pd.DataFrame  # gene, peak
    types: pd.DataFrame  # id, parent, name, is_leaf


@dataclass
class _Loadings:
    """What drives the features of one modality."""

    bits: Array  # (features, shared bits)
    coins: Array  # (features, coins)
    types: Array  # (features, traits)
    base: Array  # (features,)
    batch: Array  # (batches, features)

    def take(self, order: Array) -> _Loadings:
        return _Loadings(self.bits[order], self.coins[order], self.types[order], self.base[order], self.batch[:, order])


def simulate(settings: SimulateSettings, seed: int = 0) -> Simulated:
    """Simulate; equal settings and seed give equal cells.  About a second for 4,000 cells."""
    mu.set_options(pull_on_update=False)
    # One stream for each part, so that adding a modality leaves the others as they were.
    streams = [np.random.default_rng([seed, part]) for part in range(8)]
    cells, types = _draw_cells(settings, streams[0])
    peaks_base = np.log(settings.open) + streams[2].normal(-0.3, 0.7, settings.peaks)
    load = {
        RNA: _draw_loadings(settings, streams[1], streams[1].normal(0, settings.gene_spread, settings.genes), RNA),
        ATAC: _draw_loadings(settings, streams[2], peaks_base, ATAC),
    }
    genes = _place_genes(settings, streams[3])
    var, order, linked = _place_peaks(load, genes, settings, streams[3])
    load[ATAC] = load[ATAC].take(order)
    counts: dict[str, Any] = {}
    rates: dict[str, Array] = {}
    for m, draw, stream in ((RNA, _draw_rna, streams[4]), (ATAC, _draw_atac, streams[5])):
        counts[m], rates[m] = draw(settings, stream, load[m], cells)
    if settings.third:
        load[PROTEIN] = _draw_loadings(settings, streams[6], np.zeros(settings.third), PROTEIN)
        rates[PROTEIN] = _eta(PROTEIN, load[PROTEIN], cells, settings)
        counts[PROTEIN] = rates[PROTEIN] + streams[6].normal(size=rates[PROTEIN].shape)
    obs = _labels(settings, cells, types)
    variables = {
        RNA: pd.DataFrame(index=pd.Index(genes[SYMBOL])),
        ATAC: var,
        PROTEIN: pd.DataFrame(index=pd.Index([f"SIMP{i + 1:04d}_prot" for i in range(settings.third)])),
    }
    truth = {**cells, **{f"rate_{m}": rate.astype(np.float32, copy=False) for m, rate in rates.items()}}
    features = _describe(settings, load, {m: variables[m].index for m in load}, types, truth)
    mdata = _measured(counts, variables, obs, _lacking(settings, obs, streams[7]))
    links = pd.DataFrame({"gene": genes[SYMBOL].to_numpy()[linked[linked >= 0]], "peak": var.index[linked >= 0]})
    return Simulated(settings, seed, mdata, obs, truth, genes, features, links, types)


def _draw_cells(settings: SimulateSettings, rng: Random) -> tuple[dict[str, Array], pd.DataFrame]:
    """Types, traits and bits of all cells, and the table of types."""
    types, means = _draw_tree([int(x) for x in settings.tree.split(",")], rng)
    leaves = np.flatnonzero(types["is_leaf"])
    kind = rng.choice(len(leaves), settings.cells, p=rng.dirichlet(np.full(len(leaves), settings.type_concentration)))
    y = means[leaves][kind] + WITHIN * rng.normal(size=(settings.cells, TRAITS))  # (cells, traits)
    lean = rng.choice((-1, 1), (len(leaves), settings.bits))[kind]
    p = np.where(rng.random((settings.cells, settings.bits)) < (1 + settings.leak * lean) / 2, 1, -1).astype(np.int8)
    coins = rng.choice((-1, 1), (2, settings.cells, COINS)).astype(np.int8)
    blocks = p.reshape(settings.cells, -1, int(settings.block))
    h = np.where((blocks == 1).all(2), 1, -1).astype(np.int8)  # (cells, blocks): AND
    batch = rng.permutation(np.arange(settings.cells) % settings.batches)
    return {
        "p": p,
        "r": _coupled(p, settings),
        "h": h,
        "q_rna": coins[0],
        "q_atac": coins[1],
        "y": y,
        "type": kind,
        "batch": batch,
        "type_means": means[leaves],
        "type_distances": _distances(types),
    }, types


def _draw_tree(children: list[int], rng: Random) -> tuple[pd.DataFrame, Array]:
    """All terms of the tree, level by level, and their means (terms, traits)."""
    parents, means, level = [-1], [np.zeros(TRAITS)], [0]
    for count, tau in zip(children, TAU, strict=False):
        fresh = []
        for parent in level:
            for _ in range(count):
                fresh.append(len(parents))
                parents.append(parent)
                means.append(means[parent] + tau * rng.normal(size=TRAITS))
        level = fresh
    ids = [f"SIM:{i + 1:07d}" for i in range(len(parents))]
    leaf = np.isin(np.arange(len(ids)), level)
    names = [f"type {i - level[0] + 1}" if i in level else f"group {i}" if i else "cell" for i in range(len(ids))]
    parent_ids = [ids[i] if i >= 0 else "" for i in parents]
    return pd.DataFrame({"id": ids, "parent": parent_ids, "name": names, "is_leaf": leaf}), np.stack(means)


def _distances(types: pd.DataFrame) -> Array:
    """Steps along the tree between leaves: int16 (types, types)."""
    parent = dict(zip(types["id"], types["parent"], strict=True))
    lines = []
    for term in types.loc[types["is_leaf"], "id"]:
        line = [term]
        while parent[line[-1]]:
            line.append(parent[line[-1]])
        lines.append(set(line))
    return np.array([[len(a ^ b) for b in lines] for a in lines], np.int16)


def _coupled(p: Array, settings: SimulateSettings) -> Array:
    """r = T(p), int8 (cells, bits)."""
    if settings.coupling == "linear":
        return p.copy()
    size = int(settings.block)
    code = np.array(CODES[size][0], bool)  # (out, in)
    blocks = p.reshape(len(p), -1, 1, size)
    return np.where(code, blocks, 1).prod(3).reshape(p.shape).astype(np.int8)


def _products(settings: SimulateSettings, side: str) -> Array:
    """For each bit of a side: is it what only the *product* of several bits of the other side tells (bool)?"""
    if side == "h":
        return np.ones(settings.bits // int(settings.block), bool)
    if settings.coupling == "linear":
        return np.ones(settings.bits, bool)  # nothing is a product: all that is shared counts
    code = np.array(CODES[int(settings.block)][0 if side == "r" else 1])
    return np.tile(code.sum(1) > 1, settings.bits // int(settings.block))


def _draw_loadings(settings: SimulateSettings, rng: Random, base: Array, modality: str) -> _Loadings:
    n, bits = len(base), len(_products(settings, SIDES[modality]))
    return _Loadings(
        bits=_one_each(rng, n, bits, PROGRAM),
        coins=_one_each(rng, n, COINS, PRIVATE),
        types=settings.type_weight * rng.normal(size=(n, TRAITS)),
        base=base,
        batch=settings.batch_sd * rng.normal(size=(settings.batches, n)),
    )


def _one_each(rng: Random, features: int, columns: int, share: float) -> Array:
    """(features, columns): for a ``share`` of features one entry of +-U(.5, 1.5), else zeros."""
    weight = rng.uniform(0.5, 1.5, features) * rng.choice((-1, 1), features) * (rng.random(features) < share)
    result = np.zeros((features, columns))
    result[np.arange(features), rng.integers(columns, size=features)] = weight
    return result


def _eta(modality: str, load: _Loadings, cells: dict[str, Array], settings: SimulateSettings) -> Array:
    """Linear predictor on the log scale, (cells, features)."""
    gain = {RNA: settings.gain_rna, ATAC: settings.gain_atac, PROTEIN: settings.gain_third}[modality]
    bits = cells[SIDES[modality]]
    eta: Array = load.base + gain * (bits @ load.bits.T) + cells["y"] @ load.types.T + load.batch[cells["batch"]]
    if modality != PROTEIN:
        eta += gain * (cells[f"q_{modality}"] @ load.coins.T)
    return eta


def _draw_rna(settings: SimulateSettings, rng: Random, load: _Loadings, cells: dict[str, Array]) -> tuple[Array, Array]:
    """Counts and their means before dropout, both (cells, genes)."""
    eta = _eta(RNA, load, cells, settings)
    share = np.exp(eta - eta.max(1, keepdims=True))
    size = settings.depth * np.exp(rng.normal(0, settings.depth_sd, (len(eta), 1)))
    rate = size * share / share.sum(1, keepdims=True)
    return rng.poisson(rate * rng.gamma(THETA, 1 / THETA, rate.shape)) * (rng.random(rate.shape) >= settings.drop), rate


def _draw_atac(
    settings: SimulateSettings, rng: Random, load: _Loadings, cells: dict[str, Array]
) -> tuple[sp.csr_matrix, Array]:
    """Open or not, and the chance of it (float32), both (cells, peaks); some cells at once, since 100,000 peaks are wide."""
    size = np.exp(rng.normal(0, settings.depth_sd, (settings.cells, 1)))
    drawn, chances = [], np.empty((settings.cells, settings.peaks), np.float32)
    for some in _blocks(settings.cells, settings.peaks):
        eta = _eta(ATAC, load, {k: cells[k][some] for k in (SIDES[ATAC], "y", "batch", "q_atac")}, settings)
        chance = -np.expm1(-(1 - settings.drop) * size[some] * np.exp(eta))
        drawn.append(sp.csr_matrix(rng.random(chance.shape) < chance))
        chances[some] = chance
    return sp.vstack(drawn, format="csr"), chances


def _blocks(rows: int, width: int) -> list[slice]:
    """So many rows that :data:`AT_ONCE` numbers are dense at once."""
    size = max(1, AT_ONCE // width)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _place_genes(settings: SimulateSettings, rng: Random) -> pd.DataFrame:
    """A gene table: genes in order along the chromosomes, one every 150 kb."""
    index = np.arange(settings.genes)
    per_chromosome = -(-settings.genes // settings.chromosomes)
    start = GENE_SPACING * (index % per_chromosome + 1)
    return pd.DataFrame(
        {
            SYMBOL: [f"SIMG{i + 1:05d}" for i in index],
            CHROM: [f"chr{i + 1}" for i in index // per_chromosome],
            START: start,
            END: start + GENE_LENGTH,
            STRAND: rng.choice(("+", "-"), settings.genes),
        }
    )


def _place_peaks(
    load: dict[str, _Loadings], genes: pd.DataFrame, settings: SimulateSettings, rng: Random
) -> tuple[pd.DataFrame, Array, Array]:
    """``var`` of the peaks in order along the genome, the order to take them in, and each one's gene (-1 for none).

    A linked peak lies within some 10 kb of the start of a gene with the same bit and sign and the nearest type effects.
    """
    n, slots = settings.peaks, GENE_SPACING // PEAK_LENGTH
    gene = np.where(rng.random(n) < LINKED, _alike(load[ATAC], load[RNA]), -1)
    near = np.where(gene >= 0, gene, rng.integers(settings.genes, size=n))
    site = np.where(genes[STRAND] == "+", genes[START], genes[END]).astype(np.int64)[near]
    shift = rng.exponential(REACH, n) * rng.choice((-1, 1), n)
    anywhere = rng.integers(GENE_SPACING, size=n) - GENE_SPACING // 2
    offset = np.where(gene >= 0, np.clip(shift, -45_000, 45_000), anywhere)
    chromosome = genes[CHROM].str[3:].astype(int).to_numpy()[near]
    # Peaks lie in a grid of their own length; one whose place is taken moves on to the next free one.
    line = chromosome * (len(genes) + 4) * slots + (site + offset.astype(np.int64)) // PEAK_LENGTH
    order = np.argsort(line, kind="stable")
    rank = np.arange(n)
    place = np.maximum.accumulate(line[order] - rank) + rank
    start = (place - chromosome[order] * (len(genes) + 4) * slots) * PEAK_LENGTH
    var = pd.DataFrame({CHROM: [f"chr{c}" for c in chromosome[order]], START: start, END: start + PEAK_LENGTH})
    var.index = pd.Index([f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)])
    return var, order, gene[order]


def _alike(peaks: _Loadings, genes: _Loadings) -> Array:
    """For each peak the gene of the same bit and sign whose type effects are most alike; -1 where there is none."""

    def direction(types: Array) -> Array:
        return types / np.maximum(np.linalg.norm(types, axis=1, keepdims=True), 1e-12)

    found = []
    for some in _blocks(len(peaks.bits), genes.bits.size):
        likeness = direction(peaks.types[some]) @ direction(genes.types).T  # (peaks, genes)
        likeness[(np.sign(peaks.bits[some])[:, None] != np.sign(genes.bits)[None]).any(2)] = -np.inf
        best = likeness.argmax(1)
        found.append(np.where(np.isfinite(likeness[np.arange(len(best)), best]), best, -1))
    return np.concatenate(found)


def _labels(settings: SimulateSettings, cells: dict[str, Array], types: pd.DataFrame) -> pd.DataFrame:
    """Batch, type (under its own name), ``state`` (3 bits of p), ``joint`` (a coin of each modality), split."""
    size = int(settings.block)
    first = [k for start in range(size) for k in range(start, settings.bits, size)][:3]
    test = settings.batches - (2 if settings.batches > 3 else 1)
    split = np.where(cells["batch"] >= test, TEST, np.where(cells["batch"] == test - 1, VALID, TRAIN))
    coins = zip(cells["q_rna"][:, 0], cells["q_atac"][:, 0], strict=True)
    obs = pd.DataFrame(
        {
            "batch": [f"b{b + 1}" for b in cells["batch"]],
            settings.label_key: types.loc[types["is_leaf"], "id"].to_numpy()[cells["type"]],
            "state": ["s" + "".join("01"[int(b > 0)] for b in row) for row in cells["p"][:, first]],
            "joint": [f"j{int(a > 0)}{int(b > 0)}" for a, b in coins],
            SPLIT: split,
        },
        index=pd.Index([f"cell{i + 1:06d}" for i in range(settings.cells)]),
    )
    return obs.astype("category")


def _lacking(settings: SimulateSettings, obs: pd.DataFrame, rng: Random) -> dict[str, Array]:
    """Which cells lack ATAC and which lack RNA: alternately among a share of the training cells."""
    train = np.flatnonzero(obs[SPLIT] == TRAIN)
    chosen = np.sort(rng.permutation(train)[: round(settings.unpaired_fraction * len(train))])
    return {ATAC: chosen[::2], RNA: chosen[1::2]}


def _measured(
    counts: dict[str, Array], variables: dict[str, pd.DataFrame], obs: pd.DataFrame, lacking: dict[str, Array]
) -> mu.MuData:
    """MuData with int32 CSR counts (protein: float32 values); cells that lack a modality are not in it."""
    parts = {}
    for m, matrix in counts.items():
        keep = np.setdiff1d(np.arange(len(obs)), lacking.get(m, []))
        x = matrix[keep].astype(np.float32) if m == PROTEIN else sp.csr_matrix(matrix[keep].astype(np.int32))
        part = ad.AnnData(x, obs=pd.DataFrame(index=obs.index[keep]), var=variables[m])
        if m != PROTEIN:
            part.uns[GENOME] = GENOME_NAME
        parts[m] = part
    mdata = mu.MuData(parts)
    if list(mdata.obs_names) != list(obs.index):  # union of partly measured cells: back into their order
        mdata = mdata[obs.index.to_numpy()].copy()
    for column in obs:
        mdata.obs[column] = obs[column].reindex(mdata.obs_names)
    mdata.uns[GENOME] = GENOME_NAME
    return mdata


def _describe(
    settings: SimulateSettings,
    load: dict[str, _Loadings],
    names: dict[str, pd.Index],
    types: pd.DataFrame,
    truth: dict[str, Array],
) -> pd.DataFrame:
    """The table of features; per-feature arrays also go into ``truth``."""
    leaves = types.loc[types["is_leaf"], "id"].to_numpy()
    frames = []
    for m in load:
        driven, private = load[m].bits.any(axis=1), load[m].coins.any(axis=1)
        if m == PROTEIN:
            private = np.zeros_like(private)
        truth[f"program_{m}"] = np.where(driven, np.abs(load[m].bits).argmax(1), -1)
        truth[f"private_{m}"] = np.where(private, np.abs(load[m].coins).argmax(1), -1)
        truth[f"coupled_{m}"] = driven & _products(settings, SIDES[m])[truth[f"program_{m}"]]
        marker = _markers(load[m].types @ truth["type_means"].T) if m == RNA else np.full(len(names[m]), -1)
        columns = {key: truth[f"{key}_{m}"].astype(int) for key in ("program", "coupled", "private")}
        marker_of = np.where(marker >= 0, leaves[marker], "")
        frames.append(pd.DataFrame({"modality": m, "feature": names[m], **columns, "marker_of": marker_of}))
    return pd.concat(frames, ignore_index=True)


def _markers(effect: Array) -> Array:
    """For each gene the type it marks, if it is among that type's five best, else -1.  ``effect``: (genes, types)."""
    best = effect.argmax(1)
    ordered = np.sort(effect, axis=1)
    lead = ordered[:, -1] - ordered[:, -2] if effect.shape[1] > 1 else ordered[:, -1]
    result = np.full(len(best), -1)
    for kind in range(effect.shape[1]):
        mine = np.flatnonzero(best == kind)
        result[mine[np.argsort(-lead[mine], kind="stable")[:MARKERS]]] = kind
    return result
